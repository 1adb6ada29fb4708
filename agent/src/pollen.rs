//! The `[filter]` section, and the engine it makes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use beeacon_filters::{Engine, EngineOptions, Key, Profile, RuleFile, RulesError};
use beeacon_settings::{Document, Section};

use crate::known::file::Stamp;
use crate::known::{self, KnownSecretsError};
use crate::state::{self, StateError};

/// The largest file of rules or of a profile, in bytes; ten times the built-in ones.
const RULES_BYTES_MAX: u64 = 4 << 20;

/// Which rules run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// The profile's name, `default` by default.
    pub profile: String,
    /// Files with the user's own rules.
    pub rules: Vec<PathBuf>,
    /// Files with the user's own profiles.
    pub profiles: Vec<PathBuf>,
    /// Which key makes keyed hashes, 1 by default; raise it when the key file changes.
    pub key_version: u32,
    /// A file with secrets that are known by themselves; none by default.
    pub known: Option<PathBuf>,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig {
            profile: "default".to_owned(),
            rules: Vec::new(),
            profiles: Vec::new(),
            key_version: 1,
            known: None,
        }
    }
}

/// Why there is no filter, and so no agent.
#[derive(Debug, thiserror::Error)]
pub enum PollenError {
    /// A file cannot be read.
    #[error("read rules from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("{} has {bytes} bytes, allowed are {RULES_BYTES_MAX}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The rules do not make a filter.
    #[error("{0}")]
    Rules(RulesError),
    /// The key cannot be had.
    #[error("get the key of keyed hashes")]
    Key(#[from] StateError),
    /// The secrets that the configuration names cannot be had: what it relies on would pass.
    #[error("get the known secrets")]
    Known(#[from] KnownSecretsError),
    /// The key is no key.
    #[error("use the key of keyed hashes")]
    BadKey(#[from] beeacon_filters::KeyError),
}

impl FilterConfig {
    /// Reads the section. What its files hold is looked at by [`FilterConfig::engine`].
    pub fn read(section: &mut Section<'_>) -> Self {
        let default = FilterConfig::default();
        let key_version = section.integer("key_version", default.key_version.into(), 1..=u32::MAX.into());
        FilterConfig {
            profile: section.text("profile", &default.profile),
            rules: section.texts("rules").into_iter().map(PathBuf::from).collect(),
            profiles: section.texts("profiles").into_iter().map(PathBuf::from).collect(),
            key_version: u32::try_from(key_version).unwrap_or(1),
            known: section.optional_text("known").map(PathBuf::from),
        }
    }

    /// Reads the `[filter]` section of a whole file, whose other sections are other rooms'.
    pub fn read_document(document: &Document) -> Self {
        let mut section = document.root().section("filter");
        let config = FilterConfig::read(&mut section);
        section.close();
        config
    }

    /// The engine these rules make, with the key kept in `data`, which is made at the first call.
    ///
    /// # Errors
    /// When a file or the key cannot be had, or with every fault of the rules.
    pub fn engine(&self, data: &Path) -> Result<Arc<Engine>, PollenError> {
        let key = Key::new(self.key_version, &state::redaction_key(data)?)?;
        let (engine, stamp) = self.engine_with(key)?;
        if let (Some(path), Some(stamp)) = (&self.known, stamp) {
            known::follow(&engine, path.clone(), stamp)?;
        }
        Ok(engine)
    }

    /// The engine with a key that lasts as long as the process: for trying rules, where hashes need not be joined with others.
    ///
    /// # Errors
    /// As [`FilterConfig::engine`].
    pub fn engine_to_try(&self) -> Result<Arc<Engine>, PollenError> {
        let key = Key::new(self.key_version, uuid::Uuid::now_v7().as_bytes().repeat(2).as_slice())?;
        Ok(self.engine_with(key)?.0)
    }

    fn engine_with(&self, key: Key) -> Result<(Arc<Engine>, Option<Stamp>), PollenError> {
        let (known, stamp) = self.known.as_deref().map(known::from_file).transpose()?.unzip();
        let rules = self.rules.iter().map(|path| {
            RuleFile::parse(&path.display().to_string(), &read(path)?).map_err(PollenError::Rules)
        });
        let profiles = self.profiles.iter().map(|path| {
            Profile::parse(&path.display().to_string(), &read(path)?).map_err(PollenError::Rules)
        });
        let options = EngineOptions {
            profile: self.profile.clone(),
            rules: rules.collect::<Result<_, _>>()?,
            profiles: profiles.collect::<Result<_, _>>()?,
            key: Some(key),
            known,
            clock: None,
        };
        Ok((Arc::new(Engine::new(options).map_err(PollenError::Rules)?), stamp))
    }
}

fn read(path: &Path) -> Result<String, PollenError> {
    let unreadable = |source| PollenError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > RULES_BYTES_MAX {
        return Err(PollenError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_chooses_profile_and_rules() {
        let text = "[filter]\nprofile = \"secrets\"\nrules = [\"/r.toml\"]\nkey_version = 2\n";
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        let config = FilterConfig::read_document(&document);
        assert_eq!((config.profile.as_str(), config.key_version), ("secrets", 2));
        assert!(matches!(config.engine_to_try(), Err(PollenError::Read { .. })));
    }

    #[test]
    fn known_secrets_are_taken_from_the_file_and_without_it_there_is_no_engine() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known.toml");
        let config = FilterConfig { known: Some(path.clone()), ..FilterConfig::default() };
        assert!(matches!(config.engine_to_try(), Err(PollenError::Known(_))));
        std::fs::write(&path, "\"shop/db\" = \"synthetic-Pa55phrase\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (text, _) = config.engine_to_try().unwrap().scrub_text("x synthetic-Pa55phrase y").unwrap();
        assert_eq!(text, "x <VAULT_REF:shop/db> y");
    }

    #[test]
    fn a_profile_that_is_not_there_makes_no_engine() {
        let config = FilterConfig { profile: "secret".to_owned(), ..FilterConfig::default() };
        assert!(matches!(config.engine_to_try(), Err(PollenError::Rules(_))));
    }
}

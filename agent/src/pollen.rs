//! The `[filter]` section, and the engine it makes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use beeacon_filters::{
    Allow, Engine, EngineOptions, FieldRule, Key, Profile, Rule, RuleFault, RuleFile, RulesError, Scope,
    library,
};
use beeacon_settings::{Document, Section};
use zeroize::Zeroizing;

use crate::known::board::KnownBoard;
use crate::known::file::Stamp;
use crate::known::{self, KnownConfig, KnownSecretsError};
use crate::rescan::{self, Rescan};
use crate::ship::http::chain;
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
    /// Keys in files of the user's own; none by default, which is the key that the agent makes for itself.
    pub keys: Vec<KeyConfig>,
    /// Where secrets come from that are known by themselves; nowhere by default.
    pub known: KnownConfig,
    /// Whether fields whose values are clearly random keep what passes a check by chance; yes by default.
    pub evidence: bool,
    /// How many of a million batches are scanned again in the background; 1,000 by default.
    pub rescan_millionths: u32,
    /// Whether the time that each rule takes is measured; no by default.
    pub time_rules: bool,
    /// What happens to fields by their names.
    pub fields: Vec<FieldConfig>,
    /// Containers for which other rules apply; the first that covers one decides.
    pub scopes: Vec<ScopeConfig>,
    /// Profiles that a container which no scope covers may choose by its label `beeacon.profile`; each at least as strict as
    /// `profile`. None by default.
    pub container_profiles: Vec<String>,
    /// Values that stay.
    pub allow: Vec<AllowConfig>,
    /// Values that are redacted wherever they stand.
    pub deny: Vec<String>,
    /// Fields of which every value is redacted.
    pub deny_fields: Vec<String>,
}

/// One `[[filter.key]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// Its number in tokens.
    pub version: u32,
    /// The file that holds it, which only its owner may read.
    pub file: PathBuf,
}

/// One `[[filter.field]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConfig {
    /// The field's name, with `*` and `?`, and dots between the keys of nested fields.
    pub name: String,
    /// What happens to its value.
    pub action: String,
    /// How many characters a mask keeps at the front.
    pub keep_first: u8,
    /// How many characters a mask keeps at the end.
    pub keep_last: u8,
    /// What it is called in markers; by default its name.
    pub marker: Option<String>,
    /// With the action `off`: the rules whose findings in the field stay.
    pub rules: Vec<String>,
}

/// One `[[filter.scope]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeConfig {
    /// Services, with `*` and `?`; any when empty.
    pub services: Vec<String>,
    /// Labels and their values, with `*` and `?`; of the labels that `agent.labels` chooses.
    pub labels: Vec<(String, String)>,
    /// The profile of these containers; the filter's when there is none.
    pub profile: Option<String>,
    /// Fields of these containers, before those of the filter.
    pub fields: Vec<FieldConfig>,
}

/// One `[[filter.allow]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowConfig {
    /// From which rules the values are excepted; all when empty.
    pub rules: Vec<String>,
    /// Values as they stand.
    pub values: Vec<String>,
    /// SHA-256 digests of values, in hexadecimal.
    pub sha256: Vec<String>,
    /// Tokens of values, as keyed hashes write them.
    pub tokens: Vec<String>,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig {
            profile: "default".to_owned(),
            rules: Vec::new(),
            profiles: Vec::new(),
            key_version: 1,
            keys: Vec::new(),
            known: KnownConfig::default(),
            evidence: true,
            rescan_millionths: 1_000,
            time_rules: false,
            fields: Vec::new(),
            scopes: Vec::new(),
            container_profiles: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            deny_fields: Vec::new(),
        }
    }
}

/// A pollen filter that runs.
#[derive(Clone)]
pub struct Pollen {
    /// The engine.
    pub engine: Arc<Engine>,
    /// How its known secrets are doing.
    pub known: KnownBoard,
    /// Where its batches are scanned again, if any are.
    pub rescan: Option<Rescan>,
}

/// What goes on from one filter to the one that takes its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// How its known secrets are counted; has no sources.
    pub(crate) known: KnownBoard,
    /// What scanning again counts.
    pub(crate) rescans: rescan::Counts,
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
    /// No batch can be scanned again.
    #[error("start the thread that scans again")]
    Rescan(#[source] std::io::Error),
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
            keys: section.sections("key").into_iter().map(read_key).collect(),
            known: KnownConfig::read(section.section("known")),
            evidence: section.boolean("evidence", default.evidence),
            rescan_millionths: section.millionths("rescan_fraction", default.rescan_millionths),
            time_rules: section.boolean("time_rules", default.time_rules),
            fields: section.sections("field").into_iter().map(read_field).collect(),
            scopes: section.sections("scope").into_iter().map(read_scope).collect(),
            container_profiles: section.texts("container_profiles"),
            allow: section.sections("allow").into_iter().map(read_allow).collect(),
            deny: section.texts("deny"),
            deny_fields: section.texts("deny_fields"),
        }
    }

    /// Reads the `[filter]` section of a whole file, whose other sections are other rooms'.
    pub fn read_document(document: &Document) -> Self {
        let mut section = document.root().section("filter");
        let config = FilterConfig::read(&mut section);
        section.close();
        config
    }

    /// The engine these rules make, with the configured keys, or else with the key kept in `data`, which is made at the first call.
    /// From then on its known secrets are kept up to date; a Vault has not been asked yet when this returns: see
    /// [`KnownBoard::ready`].
    ///
    /// # Errors
    /// When a file or a key cannot be had, or with every fault of rules and keys.
    pub fn engine(&self, data: &Path) -> Result<Pollen, PollenError> {
        self.engine_counting(data, Carried::default())
    }

    /// The same, which goes on counting where another has counted.
    ///
    /// # Errors
    /// As [`FilterConfig::engine`].
    pub(crate) fn engine_counting(&self, data: &Path, carried: Carried) -> Result<Pollen, PollenError> {
        let keys = match self.keys.as_slice() {
            [] => Ok(vec![Key::new(self.key_version, &state::redaction_key(data)?)?]),
            _ => self.key_ring(),
        };
        let (engine, stamp) = self.engine_with(keys, self.time_rules.then_some(nanoseconds))?;
        let known = known::keep(&self.known, &engine, engine.known().zip(stamp), carried.known)?;
        let rescan = match self.rescan_millionths {
            0 => None,
            part => Some(Rescan::start(engine.clone(), part, carried.rescans).map_err(PollenError::Rescan)?),
        };
        Ok(Pollen { engine, known, rescan })
    }

    /// The engine with a key that lasts as long as the process: for trying rules, where hashes need not be joined with others. It
    /// knows the secrets of a file, and asks no Vault.
    ///
    /// # Errors
    /// As [`FilterConfig::engine`], but for keys.
    pub fn engine_to_try(&self) -> Result<Arc<Engine>, PollenError> {
        Ok(self.engine_with(Ok(vec![self.passing_key()?]), None)?.0)
    }

    /// A key that lasts as long as the process, for engines whose results are compared.
    pub(crate) fn key_to_compare() -> Zeroizing<Vec<u8>> {
        Zeroizing::new(uuid::Uuid::now_v7().as_bytes().repeat(2))
    }

    /// As [`FilterConfig::engine_to_try`], with a key that another engine has as well.
    pub(crate) fn engine_with_key(&self, key: &[u8]) -> Result<Arc<Engine>, PollenError> {
        Ok(self.engine_with(Ok(vec![Key::new(self.key_version, key)?]), None)?.0)
    }

    /// The same, with a clock in nanoseconds that says what each rule costs.
    ///
    /// # Errors
    /// As [`FilterConfig::engine_to_try`].
    pub fn engine_to_time(&self, clock: fn() -> u64) -> Result<Arc<Engine>, PollenError> {
        Ok(self.engine_with(Ok(vec![self.passing_key()?]), Some(clock))?.0)
    }

    /// Every rule there is, built in or the user's own, whatever the profile.
    ///
    /// # Errors
    /// When a file cannot be read, or with every fault of the rules.
    pub fn every_rule(&self) -> Result<Vec<Rule>, PollenError> {
        let mut rules = library::rules().map_err(PollenError::Rules)?;
        let mut faults = Vec::new();
        for path in &self.rules {
            match RuleFile::parse(&path.display().to_string(), &read(path)?) {
                Ok(file) => rules.extend(file.rules().iter().cloned()),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(rules) } else { Err(PollenError::Rules(RulesError(faults))) }
    }

    /// The files that it names, for whoever wants to know when they change. Known secrets are looked at by themselves.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let keys = self.keys.iter().map(|key| key.file.as_path());
        self.rules.iter().chain(&self.profiles).map(PathBuf::as_path).chain(keys)
    }

    /// Looks at everything that [`FilterConfig::engine`] needs and that is there before the first start.
    ///
    /// # Errors
    /// With every fault of rules and keys.
    pub fn check(&self) -> Result<Arc<Engine>, PollenError> {
        let keys = if self.keys.is_empty() { Ok(vec![self.passing_key()?]) } else { self.key_ring() };
        Ok(self.engine_with(keys, None)?.0)
    }

    /// What a scope asks for and no row will ever have, given the labels that become labels of rows.
    pub fn label_faults(&self, chosen: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, scope) in (1..).zip(&self.scopes) {
            for (label, _) in scope.labels.iter().filter(|(label, _)| !chosen.contains(label)) {
                faults.push(format!(
                    "filter.scope {number} asks for the label {label}, which agent.labels does not name"
                ));
            }
        }
        faults
    }

    fn passing_key(&self) -> Result<Key, PollenError> {
        Ok(Key::new(self.key_version, uuid::Uuid::now_v7().as_bytes().repeat(2).as_slice())?)
    }

    /// The configured keys, or what is wrong with them.
    fn key_ring(&self) -> Result<Vec<Key>, Vec<RuleFault>> {
        let mut faults = Vec::new();
        let mut keys = Vec::new();
        let mut seen: Vec<(u32, Zeroizing<Vec<u8>>)> = Vec::new();
        for KeyConfig { version, file } in &self.keys {
            let mut fault = |reason: String, instead: &str| {
                let (subject, instead) = (format!("key {version}"), instead.to_owned());
                faults.push(RuleFault { subject, reason, span: None, instead });
            };
            let bytes = match state::key_file(file) {
                Ok(bytes) => bytes,
                Err(error) => {
                    fault(chain(&error), "make it as `head -c 32 /dev/urandom` does, with mode 600");
                    continue;
                }
            };
            if let Some((other, _)) = seen.iter().find(|(_, other)| *other == bytes) {
                fault(format!("holds the same key as key {other}"), "make a new key to rotate to");
            }
            match Key::new(*version, &bytes) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    fault(
                        format!("{}: {error}", file.display()),
                        "make it as `head -c 32 /dev/urandom` does",
                    );
                }
            }
            seen.push((*version, bytes));
        }
        if !self.keys.iter().any(|key| key.version == self.key_version) {
            faults.push(RuleFault {
                subject: format!("key_version {}", self.key_version),
                reason: "names none of the keys".to_owned(),
                span: None,
                instead: "give it a [[filter.key]] with this version".to_owned(),
            });
        }
        if faults.is_empty() { Ok(keys) } else { Err(faults) }
    }

    fn engine_with(
        &self,
        keys: Result<Vec<Key>, Vec<RuleFault>>,
        clock: Option<fn() -> u64>,
    ) -> Result<(Arc<Engine>, Option<Stamp>), PollenError> {
        let (known, stamp) = self.known.file.as_deref().map(known::from_file).transpose()?.unzip();
        let mut faults = Vec::new();
        // Without the keys, rules are judged with another.
        let mut old_keys = match keys {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found);
                vec![self.passing_key()?]
            }
        };
        let active = old_keys.iter().position(|key| key.version() == self.key_version);
        let key = active.map(|active| old_keys.remove(active));
        let key_faults = faults.len();
        let (mut rules, mut profiles) = (Vec::new(), Vec::new());
        for path in &self.rules {
            match RuleFile::parse(&path.display().to_string(), &read(path)?) {
                Ok(file) => rules.push(file),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        for path in &self.profiles {
            match Profile::parse(&path.display().to_string(), &read(path)?) {
                Ok(profile) => profiles.push(profile),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        // What names rules or profiles can be judged only where all of them could be read.
        let all_are_read = faults.len() == key_faults;
        let mut fields = Vec::new();
        for field in &self.fields {
            match field_rule(field) {
                Ok(field) => fields.push(field),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        let mut scopes = Vec::new();
        for (number, scope) in (1..).zip(&self.scopes) {
            match scope_rules(scope) {
                Ok(scope) => scopes.push(scope),
                Err(RulesError(found)) => faults.extend(found.into_iter().map(|mut fault| {
                    fault.subject = format!("scope {number}: {}", fault.subject);
                    fault
                })),
            }
        }
        // Behind those of the host, which decide first.
        scopes.extend(self.container_profiles.iter().map(|profile| Scope::chosen(profile)));
        for name in &self.deny_fields {
            match FieldRule::new(name, "marker", 0, 0, None) {
                Ok(field) => fields.push(field),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        let mut allow = Vec::new();
        for one in &self.allow {
            match Allow::new(&one.rules, &one.values, &one.sha256, &one.tokens) {
                Ok(one) => allow.push(one),
                Err(RulesError(found)) => faults.extend(found),
            }
        }
        let options = EngineOptions {
            fields,
            scopes,
            allow,
            deny: self.deny.clone(),
            evidence: self.evidence,
            profile: self.profile.clone(),
            rules,
            profiles,
            key,
            known,
            old_keys,
            clock,
            level: None,
        };
        let engine = all_are_read.then(|| Engine::new(options));
        match engine {
            Some(Ok(engine)) if faults.is_empty() => return Ok((Arc::new(engine), stamp)),
            Some(Err(RulesError(found))) => faults.extend(found),
            _ => {}
        }
        Err(PollenError::Rules(RulesError(faults)))
    }
}

/// A monotonic clock for [`EngineOptions::clock`], in nanoseconds since it was first asked.
pub fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn read_key(mut section: Section<'_>) -> KeyConfig {
    let version = section.integer("version", 0, 1..=u32::MAX.into());
    let file = section.text("file", "");
    let key = KeyConfig { version: u32::try_from(version).unwrap_or(0), file: PathBuf::from(&file) };
    for (name, is_missing) in [("version", version == 0), ("file", file.is_empty())] {
        if is_missing {
            section.fault(name, "is needed");
        }
    }
    section.close();
    key
}

fn read_field(mut section: Section<'_>) -> FieldConfig {
    let mut keep = |key| u8::try_from(section.integer(key, 0, 0..=u8::MAX.into())).unwrap_or(0);
    let (keep_first, keep_last) = (keep("keep_first"), keep("keep_last"));
    let field = FieldConfig {
        name: section.text("name", ""),
        action: section.text("action", "marker"),
        keep_first,
        keep_last,
        marker: section.optional_text("marker"),
        rules: section.texts("rules"),
    };
    if field.action != "off" && !field.rules.is_empty() {
        section.fault("rules", "has a meaning only with action = \"off\"");
    }
    section.close();
    field
}

fn read_scope(mut section: Section<'_>) -> ScopeConfig {
    let scope = ScopeConfig {
        services: section.texts("services"),
        labels: section.text_table("labels"),
        profile: section.optional_text("profile"),
        fields: section.sections("field").into_iter().map(read_field).collect(),
    };
    section.close();
    scope
}

fn field_rule(field: &FieldConfig) -> Result<FieldRule, RulesError> {
    let FieldConfig { name, action, keep_first, keep_last, marker, rules } = field;
    match action.as_str() {
        "off" => FieldRule::sparing(name, rules),
        _ => FieldRule::new(name, action, *keep_first, *keep_last, marker.as_deref()),
    }
}

fn scope_rules(scope: &ScopeConfig) -> Result<Scope, RulesError> {
    let mut faults = Vec::new();
    let mut fields = Vec::new();
    for field in &scope.fields {
        match field_rule(field) {
            Ok(field) => fields.push(field),
            Err(RulesError(found)) => faults.extend(found),
        }
    }
    let had_fields = !scope.fields.is_empty();
    match Scope::new(&scope.services, &scope.labels, scope.profile.as_deref(), fields) {
        Ok(scope) if faults.is_empty() => return Ok(scope),
        Ok(_) => {}
        // A scope whose only fields are faulty has been told of.
        Err(_) if had_fields && !faults.is_empty() => {}
        Err(RulesError(found)) => faults.extend(found),
    }
    Err(RulesError(faults))
}

fn read_allow(mut section: Section<'_>) -> AllowConfig {
    let allow = AllowConfig {
        rules: section.texts("rules"),
        values: section.texts("values"),
        sha256: section.texts("sha256"),
        tokens: section.texts("tokens"),
    };
    section.close();
    allow
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
        let known = KnownConfig { file: Some(path.clone()), vault: None };
        let config = FilterConfig { known, ..FilterConfig::default() };
        assert!(matches!(config.engine_to_try(), Err(PollenError::Known(_))));
        std::fs::write(&path, "\"shop/db\" = \"synthetic-Pa55phrase\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (text, _) = config.engine_to_try().unwrap().scrub_text("x synthetic-Pa55phrase y").unwrap();
        assert_eq!(text, "x <VAULT_REF:shop/db> y");
    }

    fn key_file(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn config(text: &str) -> FilterConfig {
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        let config = FilterConfig::read_document(&document);
        document.finish().unwrap();
        config
    }

    #[test]
    fn after_a_rotation_new_tokens_have_the_new_key_and_old_ones_are_still_known() {
        let directory = tempfile::tempdir().unwrap();
        let one = key_file(directory.path(), "one", b"an old key, as text\n", 0o600);
        let two = key_file(directory.path(), "two", &[7, 9, 200, 10].repeat(8), 0o400);
        let profile = directory.path().join("hashes.toml");
        let text =
            "name = \"hashes\"\ndescription = \"d\"\n[[use]]\nrules = [\"email\"]\naction = \"hash\"\n";
        std::fs::write(&profile, text).unwrap();
        let keys = |version: u32, more: &str| {
            config(&format!(
                "[filter]\nprofile = \"hashes\"\nprofiles = [\"{}\"]\nkey_version = {version}\n\
                 [[filter.key]]\nversion = 1\nfile = \"{one}\"\n[[filter.key]]\nversion = 2\nfile = \"{two}\"\n{more}",
                profile.display()
            ))
        };
        let scrubbed = |config: &FilterConfig, text: &str| {
            config.engine(directory.path()).unwrap().engine.scrub_text(text).unwrap().0
        };
        let (old, new) = (scrubbed(&keys(1, ""), "a@b.cd a@b.cd"), scrubbed(&keys(2, ""), "a@b.cd"));
        let (first, second) = old.split_once(' ').unwrap();
        assert_eq!(first, second);
        assert!(first.starts_with("<EMAIL:v1:") && new.starts_with("<EMAIL:v2:"), "{old} {new}");
        let allowed = keys(2, &format!("[[filter.allow]]\ntokens = [\"{first}\"]\n"));
        assert_eq!(scrubbed(&allowed, "a@b.cd"), "a@b.cd");
        let tokens = keys(2, "").engine(directory.path()).unwrap().engine.tokens("email", "a@b.cd");
        assert_eq!(tokens, [new, first.to_owned()]);
    }

    #[test]
    fn keys_that_are_missing_short_alike_or_readable_by_others_are_refused_all_at_once_and_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let text = |name: &str, bytes: &[u8], mode| key_file(directory.path(), name, bytes, mode);
        let files = [
            text("short", b"fifteen bytes..", 0o600),
            text("open", b"synthetic-key-of-22-bytes", 0o640),
            directory.path().join("none").display().to_string(),
            text("fine", b"synthetic-key-that-is-fine", 0o600),
            text("same", b"synthetic-key-that-is-fine\n", 0o600),
            text("flat", &[b'x'; 32], 0o600),
        ];
        let mut section =
            "[filter]\nkey_version = 9\nrules = []\n[[filter.field]]\nname = \"*\"\n".to_owned();
        for (version, file) in (1..).zip(&files) {
            section.push_str(&format!("[[filter.key]]\nversion = {version}\nfile = \"{file}\"\n"));
        }
        let config = config(&section);
        let error = config.check().err().unwrap().to_string();
        for part in [
            "key 1: ",
            "key has 15 bytes, allowed are 16 to 1024",
            "has mode 640, wanted is 600",
            "key 3: open",
            "key 5: holds the same key as key 4",
            "key consists of one byte repeated",
            "key_version 9: names none of the keys",
            "names nothing",
        ] {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
        assert!(!error.contains("synthetic") && !error.contains("fifteen"), "{error}");
        assert!(config.engine(directory.path()).is_err());
    }

    #[test]
    fn a_key_says_its_version_and_its_file() {
        let text = "[[filter.key]]\n";
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        FilterConfig::read_document(&document);
        let faults = document.finish().unwrap_err().to_string();
        assert!(
            faults.contains("key.version: is needed") && faults.contains("key.file: is needed"),
            "{faults}"
        );
    }

    #[test]
    fn field_rules_and_lists_are_read_and_their_faults_come_all_at_once() {
        let text = "[filter]\ndeny = [\"Project Hornet\"]\ndeny_fields = [\"pin\"]\n\
            [[filter.field]]\nname = \"phone_*\"\naction = \"remove\"\n\
            [[filter.allow]]\nrules = [\"email\"]\nvalues = [\"help@example.org\"]\n";
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        let config = FilterConfig::read_document(&document);
        document.finish().unwrap();
        let engine = config.engine_to_try().unwrap();
        let line = "Project Hornet pin=12 phone_x=34 to=help@example.org cc=a@b.cd";
        let wanted = "<DENIED> pin=<PIN> to=help@example.org cc=<EMAIL>";
        assert_eq!(engine.scrub_text(line).unwrap().0, wanted);

        let text = "[[filter.field]]\nname = \"*\"\n[[filter.field]]\nname = \"ok\"\naction = \"hsh\"\n[[filter.allow]]\nsha256 = [\"x\"]\n";
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        let error = FilterConfig::read_document(&document).engine_to_try().err().unwrap().to_string();
        for wanted in ["names nothing", "action hsh is not known, hash is", "64 hexadecimal"] {
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn scopes_are_read_and_ask_only_for_labels_that_rows_have() {
        let config = config(
            "[[filter.scope]]\nservices = [\"pay*\"]\nlabels = { team = \"x\" }\nprofile = \"hipaa\"\n\
             [[filter.scope.field]]\nname = \"colour\"\naction = \"remove\"\n\
             [[filter.scope]]\nservices = [\"b\"]\n[[filter.scope]]\nservices = [\"c\"]\nprofile = \"nowhere\"\n\
             [[filter.scope.field]]\nname = \"*\"\n",
        );
        assert_eq!(config.scopes[0].fields[0].action, "remove");
        assert_eq!(config.label_faults(&["team".to_owned()]), Vec::<String>::new());
        assert!(config.label_faults(&[])[0].contains("label team"));
        let error = config.engine_to_try().err().unwrap().to_string();
        for wanted in ["scope 2: scope: changes nothing", "scope 3: field *: last segment names nothing"] {
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_part_that_is_scanned_again_is_read_in_millionths_and_lies_between_0_and_1() {
        let read = |line: &str| {
            let document =
                Document::parse("b.toml", &format!("[filter]\n{line}\n"), &beeacon_settings::Nothing);
            let config = FilterConfig::read_document(&document);
            document.finish().map(|()| config.rescan_millionths).map_err(|faults| faults.to_string())
        };
        for (line, wanted) in [
            ("", 1_000),
            ("rescan_fraction = 0", 0),
            ("rescan_fraction = 0.0001", 100),
            ("rescan_fraction = 0.29", 290_000),
            ("rescan_fraction = 1", 1_000_000),
            ("rescan_fraction = \"0.5\"", 500_000),
        ] {
            assert_eq!(read(line), Ok(wanted), "{line}");
        }
        for line in ["1.5", "-0.1", "nan", "inf", "12345678901234567890"] {
            assert!(read(&format!("rescan_fraction = {line}")).is_err(), "{line}");
        }
        let beyond = read("rescan_fraction = 1.5").unwrap_err();
        assert!(beyond.contains("filter.rescan_fraction: got 1.5, allowed are 0 to 1"), "{beyond}");
        let text = read("rescan_fraction = \"many\"").unwrap_err();
        assert!(text.contains("a part such as 0.001"), "{text}");
    }

    #[test]
    fn batches_are_scanned_again_and_rules_are_timed_when_the_section_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let pollen = |text: &str| config(text).engine(directory.path()).unwrap();
        let spent = |pollen: &Pollen| {
            pollen.engine.scrub_text("bob@example.org").unwrap();
            pollen.engine.statistics().rules.iter().map(|rule| rule.nanoseconds).sum::<u64>()
        };
        let default = pollen("");
        assert!(default.rescan.is_some() && spent(&default) == 0);
        let other = pollen("[filter]\nrescan_fraction = 0\ntime_rules = true\n");
        assert!(other.rescan.is_none() && spent(&other) > 0);
    }

    #[test]
    fn a_profile_that_is_not_there_makes_no_engine() {
        let config = FilterConfig { profile: "secret".to_owned(), ..FilterConfig::default() };
        assert!(matches!(config.engine_to_try(), Err(PollenError::Rules(_))));
    }

    #[test]
    fn every_configuration_of_the_page_on_the_filter_is_valid_and_does_what_it_says() {
        let page = include_str!("../../docs/pollen-filter.md");
        let mut lines = 0;
        for part in page.split("\n```toml configuration\n").skip(1) {
            let (text, after) = part.split_once("\n```").unwrap();
            let document = Document::parse("page", text, &beeacon_settings::Nothing);
            let config = FilterConfig::read_document(&document);
            document.finish().unwrap();
            assert_ne!(config, FilterConfig::default(), "{text}");
            // Only a block right behind belongs to it.
            let Some(block) = after.strip_prefix("\n\n```text scrubbed\n") else { continue };
            let engine = config.engine_to_try().unwrap();
            let texts: Vec<&str> = block.split_once("\n```").unwrap().0.lines().collect();
            for pair in texts.chunks(2) {
                let (given, wanted) =
                    (pair[0].strip_prefix("< ").unwrap(), pair[1].strip_prefix("> ").unwrap());
                assert_eq!(engine.scrub_text(given).unwrap().0, wanted, "{text}");
                lines += 1;
            }
        }
        assert!(lines >= 3, "{lines}");
    }
}

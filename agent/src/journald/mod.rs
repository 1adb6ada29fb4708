//! The host's journal: what journald keeps, read through `journalctl`.
//!
//! What always holds:
//! - one section of the configuration is one source, `journald:<number of its directory and matches>`, with positions (generation,
//!   sequence number and part of the entry). journald's sequence numbers grow; where another numbering begins, so does a generation;
//! - reading goes on exactly behind the entry that was confirmed last. Where the journal does not have that one any more, a gap says so;
//! - an entry is never in memory whole: fields that are not wanted are passed over, and a message beyond its limit is cut, which is told;
//! - names of services come from whoever writes, so the pollen filter goes over them as well.
//!
//! `journalctl` is a child that only reads: its files have forms that change with every release of systemd, which it knows.
//!
//! [`export`] is pure; [`source`] is the edge.

pub mod export;

pub mod source;

use std::path::PathBuf;

use beeacon_settings::Section;
use xxhash_rust::xxh3::Xxh3;

use crate::limits::{JOURNALD_MATCHES_MAX, JOURNALD_SECTIONS_MAX};
use crate::picking::Picks;

/// What names of sources begin with that are journals.
pub const PREFIX: &str = "journald:";

/// One `[[agent.journald]]`: which entries are read, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournaldConfig {
    /// The directory with the journal's files; the host's own journal by default.
    pub directory: Option<PathBuf>,
    /// Only entries that meet these, as `journalctl` takes them: `FIELD=value`; all by default.
    pub matches: Vec<String>,
    /// The service in rows; the unit's name or, without one, the identifier by default.
    pub service: Option<String>,
    /// Labels of rows.
    pub labels: Vec<(String, String)>,
    /// Which fields of messages become attributes.
    pub picks: Option<Picks>,
}

impl JournaldConfig {
    /// Reads all `[[agent.journald]]`. Faults are noted in the section.
    pub fn read_all(section: &mut Section<'_>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for mut journald in section.sections("journald") {
            let config = JournaldConfig::read(&mut journald);
            if all.iter().any(|other| other.number() == config.number()) {
                journald
                    .fault("matches", "stands twice for one directory: what both find would be stored twice");
            }
            all.push(config);
            journald.close();
        }
        if all.len() > JOURNALD_SECTIONS_MAX {
            section.fault(
                "journald",
                format!("stands {} times, allowed are {JOURNALD_SECTIONS_MAX}", all.len()),
            );
        }
        all
    }

    fn read(journald: &mut Section<'_>) -> Self {
        let config = JournaldConfig {
            directory: journald.optional_text("directory").map(PathBuf::from),
            matches: journald.texts("matches"),
            service: journald.optional_text("service").filter(|service| !service.is_empty()),
            labels: journald.text_table("labels"),
            picks: crate::files::parsed(journald, "attributes", Picks::parse),
        };
        if config.directory.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            journald.fault("directory", "is no absolute path");
        }
        if config.matches.len() > JOURNALD_MATCHES_MAX {
            let count = config.matches.len();
            journald.fault("matches", format!("names {count} matches, allowed are {JOURNALD_MATCHES_MAX}"));
        }
        for text in &config.matches {
            if !is_match(text) {
                journald.fault(
                    "matches",
                    format!("got \"{text}\", wanted FIELD=value or + between alternatives"),
                );
            }
        }
        config
    }

    /// What tells this section's source from others. Other matches find other entries, so they make another source.
    pub(crate) fn number(&self) -> u64 {
        let mut hash = Xxh3::new();
        if let Some(directory) = &self.directory {
            hash.update(directory.as_os_str().as_encoded_bytes());
        }
        for text in &self.matches {
            hash.update(b"\0");
            hash.update(text.as_bytes());
        }
        hash.digest()
    }
}

/// A field's name and a value; nothing that `journalctl` would take for an option or a path.
fn is_match(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    text == "+" || text.split_once('=').is_some_and(|(name, _)| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_with_values_are_matches() {
        for good in ["_SYSTEMD_UNIT=a.service", "PRIORITY=3", "MESSAGE=", "+"] {
            assert!(is_match(good), "{good}");
        }
        for bad in ["", "-u", "--file=/etc/passwd", "/usr/bin/x", "=x", "unit=a", "A B=c"] {
            assert!(!is_match(bad), "{bad}");
        }
    }

    #[test]
    fn other_matches_and_other_directories_are_other_sources() {
        let config = |directory: &str, matches: &[&str]| JournaldConfig {
            directory: Some(directory.into()),
            matches: matches.iter().map(|text| (*text).to_owned()).collect(),
            ..JournaldConfig::default()
        };
        let all = [
            JournaldConfig::default(),
            config("/a", &[]),
            config("/b", &[]),
            config("/a", &["A=1"]),
            config("/a", &["A=1", "B=2"]),
            config("/a", &["A=1B=2"]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| other.number() != one.number()), "{one:?}");
        }
    }
}

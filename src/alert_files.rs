//! The files of alerts as verbs read them, with every fault behind the file's name.

use std::fmt;
use std::path::Path;

use beeacon_alerts::rules::RuleFileError;

/// Faults of files, each with its place.
#[derive(Debug)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    /// Those of one file.
    pub(crate) fn of(path: &Path, error: &RuleFileError) -> Faults {
        Faults(error.faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect())
    }

    /// Those of several files, which were told already, behind a line that says what they are.
    pub(crate) fn all(what: &str, faults: Vec<String>) -> Faults {
        Faults(std::iter::once(what.to_owned()).chain(faults).collect())
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

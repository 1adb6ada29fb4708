//! Plain files by patterns over paths: log files that programs write without Docker.
//!
//! What always holds:
//! - a file is known by (device, inode, birth time), whatever it is called, so a rename is no new file and an inode that is used
//!   again is one. Where the file system keeps no birth time, a check of the first line and of the bytes before the place
//!   reached tells that it is another;
//! - a file is one source, `file:<number>`, with positions (generation, byte offset). Emptied in place (copytruncate) it has the
//!   next generation; what is known to have been unread then is a gap with its bytes;
//! - an open file stays open until everything in it is committed, so one that is renamed or deleted is read to its end;
//! - a copy of what was read, as copytruncate leaves one beside the log, is read from where the log had been read to, not again.
//!
//! ```text
//! find (a thread): patterns, inotify, a timer ─ Event::Files ─► pump ─► plain::PlainSource, one per file
//! ```
//! [`glob`] and [`copies`] are pure but for the walk; [`find`] is the edge; [`plain`] reads.

pub mod copies;
pub mod find;
pub mod glob;
pub mod plain;

use std::path::Path;
use std::time::Duration;

use beeacon_settings::Section;

use crate::limits::{FILE_CLOSE_AFTER, FILE_SECTIONS_MAX};
use crate::multiline::Grouping;
use crate::picking::Picks;
use crate::timestamp::LineTime;
use glob::PathGlob;

/// What the names of compressed files end in. They are never read: what is in them was read before.
const COMPRESSED: [&str; 6] = [".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4"];

/// One `[[agent.files]]`: which files are read, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// Files that fit one of these are read.
    pub include: Vec<PathGlob>,
    /// But for those that fit one of these.
    pub exclude: Vec<PathGlob>,
    /// The service in rows; the file's name up to its first dot by default.
    pub service: Option<String>,
    /// Labels of rows.
    pub labels: Vec<(String, String)>,
    /// Which lines are joined.
    pub grouping: Option<Grouping>,
    /// Where lines have their time; by default a row has the time at which its line was read.
    pub line_time: Option<LineTime>,
    /// Which fields become attributes.
    pub picks: Option<Picks>,
    /// How long a file that no pattern leads to any more must stand still before it counts as ended; 1 min by default.
    pub close_after: Duration,
}

impl Default for FilesConfig {
    fn default() -> Self {
        FilesConfig {
            include: Vec::new(),
            exclude: Vec::new(),
            service: None,
            labels: Vec::new(),
            grouping: None,
            line_time: None,
            picks: None,
            close_after: FILE_CLOSE_AFTER,
        }
    }
}

impl FilesConfig {
    /// Reads all `[[agent.files]]`. Faults are noted in the section.
    pub fn read_all(section: &mut Section<'_>) -> Vec<Self> {
        let mut all = Vec::new();
        for mut files in section.sections("files") {
            all.push(FilesConfig::read(&mut files));
            files.close();
        }
        if all.len() > FILE_SECTIONS_MAX {
            section.fault("files", format!("stands {} times, allowed are {FILE_SECTIONS_MAX}", all.len()));
        }
        all
    }

    fn read(files: &mut Section<'_>) -> Self {
        let mut config = FilesConfig::default();
        for (key, globs) in [("include", &mut config.include), ("exclude", &mut config.exclude)] {
            for text in files.texts(key) {
                match PathGlob::parse(&text) {
                    Ok(glob) => globs.push(glob),
                    Err(error) => files.fault(key, error.to_string()),
                }
            }
        }
        if config.include.is_empty() {
            files.fault("include", "is missing, wanted patterns such as [\"/var/log/shop/*.log\"]");
        }
        config.service = files.optional_text("service").filter(|service| !service.is_empty());
        config.labels = files.text_table("labels");
        config.grouping = parsed(files, "multiline", Grouping::parse);
        config.line_time = parsed(files, "timestamp", LineTime::parse);
        config.picks = parsed(files, "attributes", Picks::parse);
        let range = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);
        config.close_after = files.duration("close_after", config.close_after, range);
        config
    }

    /// Whether a file of this name is read.
    pub fn takes(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !COMPRESSED.iter().any(|end| name.ends_with(end))
            && self.include.iter().any(|glob| glob.matches(path))
            && !self.exclude.iter().any(|glob| glob.matches(path))
    }
}

pub(crate) fn parsed<T, E: std::fmt::Display>(
    section: &mut Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<Option<T>, E>,
) -> Option<T> {
    let text = section.optional_text(key)?;
    parse(&text).unwrap_or_else(|error| {
        section.fault(key, format!("got \"{text}\", {error}"));
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_files_and_what_is_excluded_are_left_out() {
        let globs = |texts: &[&str]| texts.iter().map(|text| PathGlob::parse(text).unwrap()).collect();
        let files = FilesConfig {
            include: globs(&["/l/app.log*"]),
            exclude: globs(&["/l/*.bak"]),
            ..FilesConfig::default()
        };
        for (path, is_taken) in [
            ("/l/app.log", true),
            ("/l/app.log.1", true),
            ("/l/app.log.2.gz", false),
            ("/l/app.log.bak", false),
            ("/l/other.log", false),
        ] {
            assert_eq!(files.takes(path.as_ref()), is_taken, "{path}");
        }
    }
}

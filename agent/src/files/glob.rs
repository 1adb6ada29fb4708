//! Patterns over paths: `*` and `?` within one name, `**` for any number of directories.
//!
//! What always holds: a pattern is absolute and has a bounded number of names; directories that are symbolic links are followed
//! where a pattern names them or fits them, never below `**`, so there is no endless walk; a walk looks at a bounded number of
//! names.

use std::path::{Path, PathBuf};

use crate::limits::{FILE_PATTERN_BYTES_MAX, FILE_PATTERN_NAMES_MAX};
use crate::selection::glob;

/// A pattern such as `/var/log/shop/*.log` or `/srv/**/app.log*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGlob {
    names: Vec<String>,
}

/// Why a text is no pattern over paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathGlobError {
    /// It does not say where to start.
    #[error("got \"{text}\", wanted an absolute path with *, ? and ** such as /var/log/shop/*.log")]
    Relative {
        /// The text.
        text: String,
    },
    /// It is too long.
    #[error(
        "got a pattern of {bytes} bytes and {names} names, allowed are {FILE_PATTERN_BYTES_MAX} and {FILE_PATTERN_NAMES_MAX}"
    )]
    Length {
        /// Its bytes.
        bytes: usize,
        /// Its names.
        names: usize,
    },
    /// It names a directory above, or nothing.
    #[error("got \"{text}\", wanted a path without . and .. that ends in a file's name")]
    Name {
        /// The text.
        text: String,
    },
}

/// What is met on a walk.
pub trait Visitor {
    /// A directory whose names are looked at. `false` ends the walk.
    fn directory(&mut self, path: &Path) -> bool;
    /// A name that fits the pattern; what it leads to has not been looked at.
    fn file(&mut self, path: PathBuf);
    /// One more name is about to be looked at. `false` ends the walk.
    fn has_room(&mut self) -> bool;
}

impl PathGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// ```
    /// use beeacon_agent::files::glob::PathGlob;
    /// let pattern = PathGlob::parse("/var/log/**/*.log").unwrap();
    /// assert!(pattern.matches("/var/log/shop/web/a.log".as_ref()));
    /// assert!(pattern.matches("/var/log/a.log".as_ref()));
    /// assert!(!pattern.matches("/var/log/a.log.1".as_ref()));
    /// assert!(PathGlob::parse("logs/*.log").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, PathGlobError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathGlobError::Relative { text: text.to_owned() });
        };
        let names: Vec<String> = rest.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if text.len() > FILE_PATTERN_BYTES_MAX || names.len() > FILE_PATTERN_NAMES_MAX {
            return Err(PathGlobError::Length { bytes: text.len(), names: names.len() });
        }
        let is_bad = names.iter().any(|name| name == "." || name == "..");
        if is_bad || text.ends_with('/') || names.last().is_none_or(|name| name == "**") {
            return Err(PathGlobError::Name { text: text.to_owned() });
        }
        Ok(PathGlob { names })
    }

    /// Whether a path fits as a whole.
    pub fn matches(&self, path: &Path) -> bool {
        let names: Vec<String> = path
            .components()
            .skip(1)
            .map(|component| component.as_os_str().to_string_lossy().into_owned())
            .collect();
        fits(&self.names, &names)
    }

    /// Walks over what is there.
    pub fn walk(&self, visitor: &mut dyn Visitor) {
        walk(PathBuf::from("/"), &self.names, visitor);
    }
}

fn fits(pattern: &[String], names: &[String]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((wanted, rest)), _) if wanted == "**" => {
            (0..=names.len()).any(|skipped| fits(rest, names.get(skipped..).unwrap_or(&[])))
        }
        (Some((wanted, rest)), Some((name, behind))) => glob(wanted, name) && fits(rest, behind),
        _ => false,
    }
}

/// `false` when the walk has ended.
fn walk(at: PathBuf, pattern: &[String], visitor: &mut dyn Visitor) -> bool {
    let Some((wanted, rest)) = pattern.split_first() else { return true };
    let is_last = rest.is_empty();
    if wanted != "**" && !wanted.contains(['*', '?']) {
        let path = at.join(wanted);
        if !is_last {
            return walk(path, rest, visitor);
        }
        // Whether it is there is for the visitor to see, who has to hear of it when it comes.
        if !visitor.directory(&at) || !visitor.has_room() {
            return false;
        }
        visitor.file(path);
        return true;
    }
    let Ok(entries) = std::fs::read_dir(&at) else { return true };
    if !visitor.directory(&at) {
        return false;
    }
    if wanted == "**" && !walk(at.clone(), rest, visitor) {
        return false;
    }
    for entry in entries.flatten() {
        if !visitor.has_room() {
            return false;
        }
        let name = entry.file_name();
        if wanted == "**" {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory && !walk(entry.path(), pattern, visitor) {
                return false;
            }
            continue;
        }
        if !glob(wanted, &name.to_string_lossy()) {
            continue;
        }
        if is_last {
            visitor.file(entry.path());
        } else if entry.path().is_dir() && !walk(entry.path(), rest, visitor) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Seen {
        directories: Vec<PathBuf>,
        files: Vec<PathBuf>,
        room: usize,
    }

    impl Visitor for Seen {
        fn directory(&mut self, path: &Path) -> bool {
            self.directories.push(path.to_owned());
            true
        }
        fn file(&mut self, path: PathBuf) {
            self.files.push(path);
        }
        fn has_room(&mut self) -> bool {
            self.room = self.room.saturating_sub(1);
            self.room > 0
        }
    }

    #[test]
    fn a_pattern_fits_whole_paths() {
        for (pattern, path, is_fit) in [
            ("/a/*.log", "/a/x.log", true),
            ("/a/*.log", "/a/b/x.log", false),
            ("/a/**/*.log", "/a/x.log", true),
            ("/a/**/*.log", "/a/b/c/x.log", true),
            ("/a/**/c/*.log", "/a/b/c/x.log", true),
            ("/a/**/c/*.log", "/a/b/d/x.log", false),
            ("/a/x?", "/a/xy", true),
            ("/a/x?", "/a/x", false),
        ] {
            assert_eq!(PathGlob::parse(pattern).unwrap().matches(path.as_ref()), is_fit, "{pattern} {path}");
        }
        for bad in ["", "a/b", "/", "/a/", "/a/**", "/a/../b", &format!("/{}", "x".repeat(5000))] {
            assert!(PathGlob::parse(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn a_walk_finds_what_fits_through_no_linked_directory_below_two_stars_and_ends_in_time() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["a", "a/b", "a/b/c"] {
            std::fs::create_dir(at(directory)).unwrap();
        }
        for file in ["a/1.log", "a/b/2.log", "a/b/c/3.log", "a/b/4.txt"] {
            std::fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink(at("a"), at("a/b/loop")).unwrap();
        let walked = |pattern: &str, room: usize| {
            let pattern = PathGlob::parse(&format!("{}/{pattern}", root.path().display())).unwrap();
            let mut seen = Seen { directories: Vec::new(), files: Vec::new(), room };
            pattern.walk(&mut seen);
            let strip = |path: &PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
            let mut files: Vec<String> = seen.files.iter().map(strip).collect();
            files.sort();
            (files, seen.directories)
        };
        assert_eq!(walked("a/**/*.log", 1000).0, ["a/1.log", "a/b/2.log", "a/b/c/3.log"]);
        assert_eq!(walked("a/*/*.log", 1000).0, ["a/b/2.log"]);
        // A file that is not there yet: its directory is named, so that it can be watched.
        let (files, directories) = walked("a/later.log", 1000);
        assert_eq!((files, directories), (vec!["a/later.log".to_owned()], vec![at("a")]));
        assert!(walked("a/**/*.log", 3).0.len() < 3);
    }
}

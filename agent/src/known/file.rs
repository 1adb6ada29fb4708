//! Known secrets from a file: TOML with `"path/field" = "value"` or tables, JSON lines of objects (`.jsonl`), or `NAME=value`
//! lines (`.env`). No error holds anything of the file but the number of a line.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use beeacon_filters::KnownSecret;

/// The largest file, in bytes: what a set may hold, and as much again for names.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// How deep tables and objects may lie in one another.
const DEPTH_MAX: usize = 16;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("{} has mode {mode:03o}, wanted is 600 so that nobody else reads the secrets", path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is too large.
    #[error("{} has {bytes} bytes, allowed are {FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not what its name says.
    #[error("{} is no {format}, see line {line}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// Where; 0 when that is not known.
        line: usize,
    },
    /// It holds nothing.
    #[error("{} holds no secret", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

/// Tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Stamp {
        // The time of change rather than of modification: nobody can set it back.
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Stamp { inode: metadata.ino(), bytes: metadata.len(), changed }
    }
}

/// The file's stamp now.
///
/// # Errors
/// When it cannot be looked at.
pub fn stamp(path: &Path) -> std::io::Result<Stamp> {
    std::fs::metadata(path).map(|metadata| Stamp::of(&metadata))
}

/// Reads a file of secrets.
///
/// # Errors
/// When it cannot be read, others can read it, or it is malformed.
pub fn read(path: &Path) -> Result<(Vec<KnownSecret>, Stamp), FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode });
    }
    let bytes = metadata.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(bytes).unwrap_or(0) + 1;
    let mut text = zeroize::Zeroizing::new(String::with_capacity(room));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (format, parsed) = if name.ends_with(".env") || name.starts_with(".env") {
        ("file of NAME=value lines", environment(&text))
    } else if name.ends_with(".jsonl") || name.ends_with(".json") {
        ("file of JSON objects, one a line", json_lines(&text))
    } else {
        ("TOML of texts", toml_tables(&text))
    };
    let secrets = parsed.map_err(|line| FileError::Format { path: path.to_owned(), format, line })?;
    if secrets.is_empty() {
        return Err(FileError::Empty { path: path.to_owned() });
    }
    Ok((secrets, Stamp::of(&metadata)))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") }
}

fn environment(text: &str) -> Result<Vec<KnownSecret>, usize> {
    let mut secrets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let (name, value) = (name.trim(), value.trim());
        let quoted = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        if name.is_empty() {
            return Err(index + 1);
        }
        if !value.is_empty() {
            secrets.push(KnownSecret::new(name, value.as_bytes().to_vec()));
        }
    }
    Ok(secrets)
}

fn json_lines(text: &str) -> Result<Vec<KnownSecret>, usize> {
    let mut secrets = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: serde_json::Value = serde_json::from_str(line).map_err(|_| index + 1)?;
        if !value.is_object() {
            return Err(index + 1);
        }
        json_values("", value, 0, &mut secrets).ok_or(index + 1)?;
    }
    Ok(secrets)
}

fn json_values(
    path: &str,
    value: serde_json::Value,
    depth: usize,
    secrets: &mut Vec<KnownSecret>,
) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match value {
        serde_json::Value::String(text) => secrets.push(KnownSecret::new(path, text.into_bytes())),
        serde_json::Value::Number(number) => {
            secrets.push(KnownSecret::new(path, number.to_string().into_bytes()));
        }
        serde_json::Value::Object(entries) => {
            for (key, value) in entries {
                json_values(&join(path, &key), value, depth + 1, secrets)?;
            }
        }
        _ => return None,
    }
    Some(())
}

fn toml_tables(text: &str) -> Result<Vec<KnownSecret>, usize> {
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    // The error itself would quote the file.
    let table: toml::Table =
        toml::from_str(text).map_err(|error| error.span().map_or(0, |span| line_of(span.start)))?;
    let mut secrets = Vec::new();
    toml_values("", toml::Value::Table(table), 0, &mut secrets).ok_or(0_usize)?;
    Ok(secrets)
}

fn toml_values(path: &str, value: toml::Value, depth: usize, secrets: &mut Vec<KnownSecret>) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match value {
        toml::Value::String(text) => secrets.push(KnownSecret::new(path, text.into_bytes())),
        toml::Value::Integer(number) => {
            secrets.push(KnownSecret::new(path, number.to_string().into_bytes()));
        }
        toml::Value::Table(entries) => {
            for (key, value) in entries {
                toml_values(&join(path, &key), value, depth + 1, secrets)?;
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn references(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            read(path).unwrap().0.iter().map(|secret| secret.reference().to_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn three_formats_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let toml = "\"shop/db\" = \"synthetic-1\"\n[mail]\npassword = \"synthetic-2\"\npin = 123456\n";
        let path = written(directory.path(), "known.toml", toml, 0o600);
        assert_eq!(references(&path), ["mail/password", "mail/pin", "shop/db"]);
        let json = "{\"a/b\":\"synthetic-1\"}\n\n{\"c\":{\"d\":\"synthetic-2\"}}\n";
        let path = written(directory.path(), "known.jsonl", json, 0o400);
        assert_eq!(references(&path), ["a/b", "c/d"]);
        let env = "# comment\nexport A=\"synthetic-1\"\nB=synthetic=2\nEMPTY=\n";
        let path = written(directory.path(), ".env", env, 0o600);
        assert_eq!(references(&path), ["A", "B"]);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620] {
            let path = written(directory.path(), "known.toml", "a = \"synthetic-1\"\n", mode);
            assert!(matches!(read(&path), Err(FileError::Mode { .. })), "{mode:o}");
        }
    }

    #[test]
    fn an_error_names_the_line_and_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("known.toml", "a = \"fine\"\nb = synthetic-unquoted\n"),
            ("known.jsonl", "{\"a\":\"fine\"}\n{\"b\":synthetic-unquoted}\n"),
            ("known.env", "A=fine\nsynthetic-unquoted\n"),
        ] {
            let path = written(directory.path(), name, text, 0o600);
            let error = read(&path).unwrap_err();
            assert!(matches!(error, FileError::Format { line: 2, .. }), "{error:?}");
            assert!(!format!("{error:?} {error}").contains("synthetic"), "{error:?}");
        }
        let path = written(directory.path(), "known.toml", "", 0o600);
        assert!(matches!(read(&path), Err(FileError::Empty { .. })));
        assert!(matches!(read(&directory.path().join("none")), Err(FileError::Read { .. })));
    }

    #[test]
    fn a_changed_file_has_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), "known.toml", "a = \"synthetic-1\"\n", 0o600);
        let before = read(&path).unwrap().1;
        assert_eq!(stamp(&path).unwrap(), before);
        written(directory.path(), "known.toml", "a = \"synthetic-12\"\n", 0o600);
        assert_ne!(stamp(&path).unwrap(), before);
    }
}

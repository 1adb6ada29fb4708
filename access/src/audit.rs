//! The audit file: who changed what, when, and how it ended. A JSON object a line, append-only.
//!
//! ```text
//! {"time":"2026-11-26T23:20:00.123Z","request_id":"0193…","who":"anna","role":"admin","from":"10.0.0.7","method":"POST","path":"/api/v1/silences","result":"begun"}
//! {"time":"2026-11-26T23:20:00.126Z","request_id":"0193…",…,"result":"done","status":201}
//! ```
//! What always holds:
//! - a change is written down, on the disk, before it is begun; where that fails it is refused, so nothing happens unseen;
//! - a line that says `begun` and has no other with its request id was cut off by the end of the process;
//! - `refused` is a request of somebody known whose role does not allow it;
//! - no body and no query string is written: neither text of a line nor a token can be in it.
//!
//! On disk: `audit.jsonl` is written; at its limit it becomes `audit-<number>.jsonl`, numbers grow, and the oldest go when there are
//! more than [`AUDIT_FILES_MAX`]. Mode 0600. A crash can leave half a line at the end; the next start begins a line of its own.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::{AUDIT_FILES_MAX, AUDIT_PATH_BYTES_MAX, AUDIT_READ_BYTES};

/// How far a change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditResult {
    /// It is about to be made.
    Begun,
    /// It has an answer, with its status.
    Done,
    /// It was not allowed.
    Refused,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When, in UTC (RFC 3339, milliseconds).
    pub time: String,
    /// The request's id, as its answer has it.
    pub request_id: String,
    /// The token's name.
    pub who: String,
    /// Its role.
    pub role: String,
    /// The address it came from, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The method.
    pub method: String,
    /// The path without its query string, at most 256 bytes.
    pub path: String,
    /// How far it came.
    pub result: AuditResult,
    /// The status of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the audit file in {directory} cannot be written")]
pub struct AuditError {
    /// Where it is.
    pub directory: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A place between two lines of the trail. It stays what it is while files are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditPlace {
    /// The number that the line's file has, or will have when it is rotated.
    pub file: u64,
    /// Where in it, in bytes.
    pub offset: u64,
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

impl AuditPlace {
    /// From its text.
    ///
    /// ```
    /// use beeacon_access::AuditPlace;
    /// let place = AuditPlace { file: 3, offset: 1_024 };
    /// assert_eq!(AuditPlace::parse(&place.to_string()), Some(place));
    /// ```
    pub fn parse(text: &str) -> Option<AuditPlace> {
        let (file, offset) = text.split_once(':')?;
        Some(AuditPlace { file: file.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// The file: cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    file_bytes_max: u64,
    open: Mutex<Open>,
    /// How many lines were written since the start.
    written: watch::Sender<u64>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Audit {
    /// Opens the file below `directory`, made if it is not there. All files together take `bytes_max` at most.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(directory: &Path, bytes_max: u64) -> Result<Self, AuditError> {
        let fault = |source| AuditError { directory: directory.display().to_string(), source };
        fs::create_dir_all(directory).map_err(fault)?;
        let open = open(&directory.join("audit.jsonl")).map_err(fault)?;
        let file_bytes_max = (bytes_max / AUDIT_FILES_MAX).max(1);
        let directory = directory.to_owned();
        let written = watch::Sender::new(0);
        Ok(Audit(Arc::new(Inner { directory, file_bytes_max, open: Mutex::new(open), written })))
    }

    /// Writes a line, and returns once it is on the disk. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When it is not on the disk for certain.
    pub fn write(&self, line: &AuditLine) -> Result<(), AuditError> {
        let fault = |source| AuditError { directory: self.0.directory.display().to_string(), source };
        let mut bytes = serde_json::to_vec(line).map_err(|error| fault(error.into()))?;
        bytes.push(b'\n');
        // Whoever panicked with the lock held left at worst half a line, and the next one begins anew.
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.rotate(&mut open, bytes.len() as u64).map_err(fault)?;
        let written = open.file.write_all(&bytes).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.bytes += bytes.len() as u64;
                self.0.written.send_modify(|written| *written += 1);
            }
            Err(error) => {
                // A file whose sync failed is not asked again: the next line goes to a new descriptor.
                if let Ok(again) = self::open(&self.0.directory.join("audit.jsonl")) {
                    *open = again;
                }
                return Err(fault(error));
            }
        }
        Ok(())
    }

    /// The same from a task, on a thread that may block.
    ///
    /// # Errors
    /// As [`Audit::write`].
    pub async fn write_from_task(&self, line: AuditLine) -> Result<(), AuditError> {
        let audit = self.clone();
        let written = tokio::task::spawn_blocking(move || audit.write(&line)).await;
        written.unwrap_or_else(|_| {
            let source = io::Error::other("the writing thread ended");
            Err(AuditError { directory: self.0.directory.display().to_string(), source })
        })
    }
}

impl Audit {
    /// Changes with every line that is written.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }

    /// The place behind the last line.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn end(&self) -> io::Result<AuditPlace> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(AuditPlace { file: self.0.current()?, offset: open.bytes })
    }

    /// Lines behind a place, some at a time, and the place behind them; no lines and the same place at the end. Files that are gone are
    /// left out, and so is what is no line. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn after(&self, place: AuditPlace) -> io::Result<(Vec<AuditLine>, AuditPlace)> {
        // Nothing is rotated meanwhile.
        let _open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, current) = (self.0.numbers()?, self.0.current()?);
        let first = numbers.first().copied().unwrap_or(current);
        let mut place = if place.file < first || place.file > current {
            AuditPlace { file: first, offset: 0 }
        } else {
            place
        };
        loop {
            let is_current = place.file == current;
            let name =
                if is_current { "audit.jsonl".to_owned() } else { format!("audit-{:08}.jsonl", place.file) };
            let mut bytes = Vec::new();
            match File::open(self.0.directory.join(name)) {
                Ok(mut file) => {
                    file.seek(SeekFrom::Start(place.offset))?;
                    file.take(AUDIT_READ_BYTES).read_to_end(&mut bytes)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_current => {}
                Err(error) => return Err(error),
            }
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if whole == 0 && !is_current {
                place = AuditPlace { file: place.file + 1, offset: 0 };
                continue;
            }
            let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
            let lines = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
            return Ok((lines, AuditPlace { offset: place.offset + whole as u64, ..place }));
        }
    }
}

impl Inner {
    /// The number that the file which is written will have.
    fn current(&self) -> io::Result<u64> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    fn rotate(&self, open: &mut Open, more: u64) -> io::Result<()> {
        if open.bytes == 0 || open.bytes + more <= self.file_bytes_max {
            return Ok(());
        }
        let (numbers, next) = (self.numbers()?, self.current()?);
        let current = self.directory.join("audit.jsonl");
        fs::rename(&current, self.directory.join(format!("audit-{next:08}.jsonl")))?;
        *open = self::open(&current)?;
        File::open(&self.directory)?.sync_all()?;
        let kept = usize::try_from(AUDIT_FILES_MAX - 2).unwrap_or(0);
        for number in numbers.iter().take(numbers.len().saturating_sub(kept)) {
            fs::remove_file(self.directory.join(format!("audit-{number:08}.jsonl")))?;
        }
        Ok(())
    }

    /// The numbers of the files that were rotated, growing.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers: Vec<u64> = fs::read_dir(&self.directory)?
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(Open { file, bytes })
}

impl AuditLine {
    /// A line of now.
    pub fn new(
        request_id: &str,
        who: &crate::Principal,
        method: &str,
        path: &str,
        result: AuditResult,
    ) -> Self {
        let mut end = path.len().min(AUDIT_PATH_BYTES_MAX);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        AuditLine {
            time: format!("{:.3}", Timestamp::now()),
            request_id: request_id.to_owned(),
            who: who.name.clone(),
            role: who.role.name().to_owned(),
            from: None,
            method: method.to_owned(),
            path: path.get(..end).unwrap_or_default().to_owned(),
            result,
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Principal, Role};

    fn line(id: &str) -> AuditLine {
        let who = Principal { name: "anna".to_owned(), role: Role::Admin };
        AuditLine::new(id, &who, "POST", "/api/v1/silences", AuditResult::Begun)
    }

    fn lines(path: &Path) -> Vec<AuditLine> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[test]
    fn lines_are_appended_over_restarts_and_half_a_line_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        Audit::open(folder.path(), 1 << 20).unwrap().write(&line("1")).unwrap();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"time\":\"2026").unwrap();
        Audit::open(folder.path(), 1 << 20).unwrap().write(&line("2")).unwrap();
        let ids: Vec<String> = lines(&file).into_iter().map(|line| line.request_id).collect();
        assert_eq!(ids, ["1", "2"]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn all_files_together_keep_to_their_limit_and_the_newest_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 16 * 1_000).unwrap();
        for n in 0..500 {
            audit.write(&line(&n.to_string())).unwrap();
        }
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(files.len() <= 16 && bytes <= 16_000, "{} files, {bytes} bytes", files.len());
        let kept: Vec<usize> =
            files.iter().flat_map(|file| lines(file)).map(|line| line.request_id.parse().unwrap()).collect();
        let last: Vec<usize> = (500 - kept.len()..500).collect();
        assert_eq!(kept, last, "the newest stay, in order, without a hole");
    }

    #[test]
    fn a_reader_sees_every_line_once_while_files_are_rotated_and_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = Audit::open(folder.path(), 16 * 1_000).unwrap();
        let mut place = audit.end().unwrap();
        let mut seen = Vec::new();
        for n in 0..100 {
            audit.write(&line(&n.to_string())).unwrap();
            if n == 50 {
                audit = Audit::open(folder.path(), 16 * 1_000).unwrap();
            }
            if n % 20 == 7 || n == 99 {
                loop {
                    let (lines, next) = audit.after(place).unwrap();
                    if next == place {
                        break;
                    }
                    place = AuditPlace::parse(&next.to_string()).unwrap();
                    seen.extend(lines.into_iter().map(|line| line.request_id));
                }
            }
        }
        let all: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(seen, all);
        assert_eq!(place, audit.end().unwrap());
        assert!(place.file > 3, "files were rotated: {place}");
    }

    #[test]
    fn a_reader_whose_file_is_gone_goes_on_with_the_oldest_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 16 * 1_000).unwrap();
        for n in 0..500 {
            audit.write(&line(&n.to_string())).unwrap();
        }
        let (lines, place) = audit.after(AuditPlace { file: 1, offset: 0 }).unwrap();
        assert!(place.file > 1 && !lines.is_empty());
        let oldest = audit.after(AuditPlace { file: place.file, offset: 0 }).unwrap();
        assert_eq!(oldest, (lines, place));
    }

    #[test]
    fn a_long_path_is_cut_at_a_character() {
        let who = Principal { name: "anna".to_owned(), role: Role::Admin };
        let path = format!("/{}", "ü".repeat(300));
        let cut = AuditLine::new("1", &who, "POST", &path, AuditResult::Done).path;
        assert_eq!(cut.len(), 255);
    }
}

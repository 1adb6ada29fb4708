//! Tells copies of what was read from files of their own.
//!
//! Who empties a log in place copies it first (`app.log` to `app.log.1`). Where a pattern leads to the copy too, it is a new file
//! with lines that were read before. It is one when it lies beside a log, is called as the log with something behind, starts with
//! the log's first line, and holds right before the place that was reached in the log what the log held there: then it is read
//! from that place on, which also gives out what was written between the last look and the emptying.
//!
//! Pure: files are looked at by the caller. Checks are of 32 bits, with the file's birth time as salt: who has them learns no text.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beeacon_record::{Position, Source};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::{COPY_MARKS_MAX, COPY_OF_LATELY, COPY_STILL_AFTER, COPY_WAIT};

/// A check of some bytes of a file; 0 stands for none.
pub fn check(salt: u64, bytes: &[u8]) -> u32 {
    let hash = xxh3_64_with_seed(bytes, salt);
    u32::try_from(hash & 0xffff_ffff).unwrap_or(0).max(1)
}

/// Where a log had been read to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its generation and how many bytes of that were read.
    pub at: Position,
    /// Check of its first line.
    pub head: u32,
    /// Check of the bytes before.
    pub tail: u32,
}

/// A log as far as copies of it matter.
struct Log {
    path: PathBuf,
    salt: u64,
    /// Check of the first line of what is being read; 0 while that is not known.
    head: u32,
    committed: Mark,
    /// The ends of its last generations, and when each was noticed, oldest first.
    past: VecDeque<(Mark, Instant)>,
}

/// All logs that are read.
#[derive(Default)]
pub struct Copies {
    logs: HashMap<Source, Log>,
}

/// Where to start with a file that was never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It cannot be said yet.
    Wait,
    /// At this byte.
    At(u64),
}

/// A file that may be a copy, as the caller sees it.
pub struct Candidate<'a> {
    /// Its path.
    pub path: &'a Path,
    /// Its first line; `None` while that has no end.
    pub first_line: Option<&'a [u8]>,
    /// Its size in bytes.
    pub bytes: u64,
    /// For how long it has not changed.
    pub still: Duration,
    /// For how long it has been known.
    pub age: Duration,
    /// The check, with this salt, of what stands before this byte; `None` where the file is shorter.
    pub tail: &'a dyn Fn(u64, u64) -> Option<u32>,
}

/// Whether a file of this path may be a copy of the log at the other: it lies beside it, and is called as the log with something
/// behind, or as it but for another number or date at the end.
pub fn is_named_as_copy(log: &Path, path: &Path) -> bool {
    let (Some(log_name), Some(name)) = (log.file_name(), path.file_name()) else { return false };
    let (log_name, name) = (log_name.as_encoded_bytes(), name.as_encoded_bytes());
    log.parent() == path.parent()
        && log_name != name
        && (name.starts_with(log_name) || without_number(log_name) == without_number(name))
}

fn without_number(name: &[u8]) -> &[u8] {
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let end = name.iter().rposition(|byte| !is_number(byte)).map_or(0, |last| last + 1);
    name.get(..end).unwrap_or(name)
}

impl Copies {
    /// A log is read that starts with a line of this check: copies of it wait until that is committed.
    pub fn begun(&mut self, source: &Source, path: &Path, salt: u64, head: u32) {
        self.log(source, path, salt).head = head;
    }

    fn log(&mut self, source: &Source, path: &Path, salt: u64) -> &mut Log {
        let log = self.logs.entry(source.clone()).or_insert_with(|| Log {
            path: path.to_owned(),
            salt,
            head: 0,
            committed: Mark::default(),
            past: VecDeque::new(),
        });
        if log.path != path {
            log.path = path.to_owned();
        }
        log
    }

    /// The collector has committed this much of a log.
    pub fn committed(&mut self, source: &Source, path: &Path, salt: u64, mark: Mark) {
        self.log(source, path, salt).committed = mark;
    }

    /// A log was emptied after it had been read to here.
    pub fn emptied(&mut self, source: &Source, path: &Path, salt: u64, mark: Mark, now: Instant) {
        let log = self.log(source, path, salt);
        log.head = 0;
        if log.past.len() == COPY_MARKS_MAX {
            log.past.pop_front();
        }
        log.past.push_back((mark, now));
    }

    /// A log is not read any more.
    pub fn forget(&mut self, source: &Source) {
        self.logs.remove(source);
    }

    /// Where to start with a file that was never read.
    pub fn start(&self, candidate: &Candidate<'_>, now: Instant) -> Start {
        let logs: Vec<&Log> =
            self.logs.values().filter(|log| is_named_as_copy(&log.path, candidate.path)).collect();
        if logs.is_empty() {
            return Start::At(0);
        }
        let Some(first_line) = candidate.first_line else {
            return if candidate.still < COPY_WAIT { Start::Wait } else { Start::At(0) };
        };
        for log in logs {
            if let Some(start) = log.start(candidate, first_line, now) {
                return start;
            }
        }
        Start::At(0)
    }
}

impl Log {
    /// `None` when the file is no copy of this log.
    fn start(&self, candidate: &Candidate<'_>, first_line: &[u8], now: Instant) -> Option<Start> {
        let head = check(self.salt, first_line);
        let tail_is =
            |mark: &Mark| (candidate.tail)(mark.at.minor, self.salt).is_some_and(|tail| tail == mark.tail);
        let lately = |since: &Instant| now.saturating_duration_since(*since) <= COPY_OF_LATELY;
        for (past, _) in self.past.iter().filter(|(past, since)| past.head == head && lately(since)) {
            if self.committed.at < past.at {
                return Some(Start::Wait);
            }
            if candidate.bytes < past.at.minor {
                // Still being copied; or the log went on behind the copy, and was read before it was emptied.
                let is_done = candidate.still >= COPY_STILL_AFTER;
                return Some(if is_done { Start::At(candidate.bytes) } else { Start::Wait });
            }
            if tail_is(past) {
                return Some(Start::At(past.at.minor));
            }
        }
        if self.committed.head == head {
            let is_short = candidate.bytes < self.committed.at.minor && candidate.still < COPY_WAIT;
            if candidate.age < COPY_WAIT || is_short {
                // It may be being copied, and the log about to be emptied.
                return Some(Start::Wait);
            }
            return tail_is(&self.committed).then_some(Start::At(self.committed.at.minor));
        }
        // What the log holds now may be about to be read.
        let may_be_read = self.head == head || candidate.age < COPY_STILL_AFTER;
        may_be_read.then_some(Start::Wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 7;

    struct Story {
        copies: Copies,
        now: Instant,
    }

    fn mark(generation: u64, text: &str) -> Mark {
        Mark {
            at: Position::new(generation, text.len() as u64),
            head: check(SALT, text.split_inclusive('\n').next().unwrap().as_bytes()),
            tail: check(SALT, text.as_bytes()),
        }
    }

    /// A log `/l/app.log` of which this much is committed.
    fn story(committed: &str) -> Story {
        let mut copies = Copies::default();
        copies.committed(&source(), Path::new("/l/app.log"), SALT, mark(1, committed));
        Story { copies, now: Instant::now() }
    }

    fn source() -> Source {
        Source::new("file:1").unwrap()
    }

    impl Story {
        fn start(&self, path: &str, text: &str, still: Duration) -> Start {
            let tail = |at: u64, salt: u64| {
                text.as_bytes().get(..usize::try_from(at).unwrap()).map(|bytes| check(salt, bytes))
            };
            let line = text.split_inclusive('\n').next().filter(|line| line.ends_with('\n'));
            let candidate = Candidate {
                path: Path::new(path),
                first_line: line.map(str::as_bytes),
                bytes: text.len() as u64,
                still,
                age: still,
                tail: &tail,
            };
            self.copies.start(&candidate, self.now)
        }
    }

    #[test]
    fn a_copy_of_an_emptied_log_is_read_from_where_the_log_had_been_read_to() {
        let mut story = story("a\nb\n");
        story.copies.emptied(&source(), Path::new("/l/app.log"), SALT, mark(1, "a\nb\nc\n"), story.now);
        let copy = "a\nb\nc\nd\n";
        assert_eq!(story.start("/l/app.log.1", copy, Duration::ZERO), Start::Wait, "c may be read again");
        story.copies.committed(&source(), Path::new("/l/app.log"), SALT, mark(1, "a\nb\nc\n"));
        assert_eq!(story.start("/l/app.log.1", copy, Duration::ZERO), Start::At(6));
        assert_eq!(story.start("/l/app.log.1", "a\n", Duration::ZERO), Start::Wait, "it is being copied");
        assert_eq!(story.start("/l/app.log.1", "a\nb\n", COPY_STILL_AFTER), Start::At(4));
        // It is emptied once more before anybody looks at the copy.
        story.copies.emptied(&source(), Path::new("/l/app.log"), SALT, mark(2, "x\n"), story.now);
        // The next generation's positions say as much.
        story.copies.committed(&source(), Path::new("/l/app.log"), SALT, mark(2, "x\n"));
        assert_eq!(story.start("/l/app.log-2026", copy, Duration::ZERO), Start::At(6));
    }

    #[test]
    fn a_copy_of_a_log_that_goes_on_is_read_from_there_once_it_stands_still() {
        let story = story("a\nb\n");
        assert_eq!(story.start("/l/app.log.1", "a\nb\nc\n", Duration::ZERO), Start::Wait);
        assert_eq!(story.start("/l/app.log.1", "a\nb\nc\n", COPY_WAIT), Start::At(4));
    }

    #[test]
    fn what_is_no_copy_is_read_from_its_start() {
        let story = story("a\nb\n");
        for (path, text) in [
            ("/l/app.log.1", "x\nb\nc\n"),
            ("/l/app.log.1", "a\nB\nc\n"),
            ("/l/app.log.1", "a\n"),
            ("/l/other.log", "a\nb\nc\n"),
            ("/m/app.log.1", "a\nb\nc\n"),
        ] {
            assert_eq!(story.start(path, text, COPY_WAIT), Start::At(0), "{path} {text:?}");
        }
        assert_eq!(story.start("/l/app.log.1", "no end", Duration::ZERO), Start::Wait);
        assert_eq!(story.start("/l/app.log.1", "no end", COPY_WAIT), Start::At(0));
    }

    #[test]
    fn a_copy_is_called_as_the_log_but_for_what_stands_behind() {
        for (log, path, may_be) in [
            ("/l/app.log", "/l/app.log.1", true),
            ("/l/app.log", "/l/app.log-20261127", true),
            ("/l/app.log.1", "/l/app.log.2", true),
            ("/l/app.log.1", "/l/app.log", true),
            ("/l/app.log", "/l/app.log", false),
            ("/l/app.log", "/m/app.log.1", false),
            ("/l/app.log", "/l/web.log.1", false),
        ] {
            assert_eq!(is_named_as_copy(log.as_ref(), path.as_ref()), may_be, "{log} {path}");
        }
    }

    #[test]
    fn a_copy_of_a_log_of_which_nothing_is_committed_yet_waits_for_that() {
        let mut story = story("x\n");
        let path = Path::new("/l/app.log");
        assert_eq!(
            story.start("/l/app.log.1", "a\nb\n", Duration::ZERO),
            Start::Wait,
            "it may come to be read"
        );
        story.copies.begun(&source(), path, SALT, mark(2, "a\n").head);
        assert_eq!(story.start("/l/app.log.1", "a\nb\n", COPY_WAIT), Start::Wait);
        story.copies.emptied(&source(), path, SALT, mark(2, "a\nb\n"), story.now);
        assert_eq!(story.start("/l/app.log.1", "a\nb\n", COPY_WAIT), Start::Wait);
        story.copies.committed(&source(), path, SALT, mark(2, "a\nb\n"));
        assert_eq!(story.start("/l/app.log.1", "a\nb\n", Duration::ZERO), Start::At(4));
    }
}

//! Reads one plain file, whatever it is called by now, into the batch being built.
//!
//! What always holds:
//! - a line is consumed when its newline is there, or with as many bytes of it as a piece has; positions are (generation, byte
//!   offset of the line's start). A file that ends without a newline has its last words given out once the file has ended;
//! - nothing is taken for the file's next bytes before the bytes read last still stand before them: a file that was emptied in
//!   place and written anew, however fast, is a new generation;
//! - what was seen in the file and not read when it was emptied is a gap with its bytes, unless a copy beside it has them;
//! - nothing is read twice into a batch unless the collector asked for it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use beeacon_record::limits::LINE_BYTES_MAX;
use beeacon_record::{GapReason, Position, Source, Stream};
use memchr::memchr;

use super::FilesConfig;
use super::copies::{Candidate, Copies, Mark, Start, check, is_named_as_copy};
use crate::docker::cursor::{read_plain, write_plain};
use crate::docker::files::{FileIdentity, HeldFile};
use crate::docker::merge::{Merger, Piece};
use crate::limits::{
    BLOCK_BYTES, FILE_OVERLAP_BYTES, FILE_PARK_AFTER, FILE_PARK_AFTER_IN_CROWD, FILE_PIECE_BYTES,
    FILE_TAIL_BYTES, HEAD_BYTES_MAX,
};
use crate::multiline::Grouper;
use crate::progress::{self, Acked, Progress, Sink, Step};

/// What all plain files of an agent share.
#[derive(Clone, Default)]
pub struct FilesShared {
    /// Logs, by which copies of them are told.
    pub copies: Arc<Mutex<Copies>>,
    /// Whether files wait for others to be closed.
    pub is_crowded: Arc<AtomicBool>,
}

impl FilesShared {
    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the last generation ended.
#[derive(Clone, Copy)]
struct Past {
    at: Position,
    /// How many bytes of it were seen, not read, and are in no copy.
    lost_bytes: u64,
}

/// A plain file.
pub struct PlainSource {
    /// How far it has been read.
    pub progress: Progress,
    /// Joins lines, where the file's lines are to be joined.
    pub grouper: Option<Grouper>,
    /// How it is read.
    pub config: Arc<FilesConfig>,
    /// Where a pattern last found it.
    pub path: PathBuf,
    /// Whether a pattern still leads to it.
    pub is_named: bool,
    shared: FilesShared,
    /// None of a file that is known from the collector alone.
    identity: Option<FileIdentity>,
    /// None while the file is closed because it stands still.
    held: Option<HeldFile>,
    is_mapped: bool,
    /// Where to start when the collector knows nothing, once that can be said.
    start: Option<Position>,
    /// The next byte to read.
    at: Position,
    /// The bytes right before it.
    behind: Vec<u8>,
    head: Option<u32>,
    past: Option<Past>,
    merger: Merger,
    /// How many bytes of an open line the merger has.
    in_line: u64,
    open_timestamp_ns: i64,
    /// The size at which there was no whole line to read.
    waits_at: Option<u64>,
    seen_bytes: u64,
    /// When it had been written to last when it was looked at, in nanoseconds since 1970.
    seen_modified_ns: i64,
    changed_at: Instant,
    found_at: Instant,
}

/// The name of a file's source.
///
/// # Errors
/// Never: the name is short and of our making.
pub fn source(identity: &FileIdentity) -> Result<Source, beeacon_record::IdentityError> {
    Source::new(format!("{PREFIX}{:016x}", identity.number()))
}

/// What names of sources begin with that are plain files.
pub const PREFIX: &str = "file:";

impl PlainSource {
    /// A file that was found.
    pub fn new(
        source: Source,
        identity: FileIdentity,
        file: Arc<File>,
        path: PathBuf,
        config: Arc<FilesConfig>,
        shared: FilesShared,
    ) -> Self {
        let held = HeldFile::alone(identity, file);
        PlainSource {
            path,
            identity: Some(identity),
            held: Some(held),
            is_named: true,
            config,
            ..PlainSource::gone(source, shared)
        }
    }

    /// A file of which the collector knows, and which no pattern leads to any more.
    pub fn gone(source: Source, shared: FilesShared) -> Self {
        PlainSource {
            progress: Progress::new(source),
            grouper: None,
            config: Arc::default(),
            path: PathBuf::new(),
            is_named: false,
            shared,
            identity: None,
            held: None,
            is_mapped: false,
            start: None,
            at: Position::START,
            behind: Vec::new(),
            head: None,
            past: None,
            merger: Merger::default(),
            in_line: 0,
            open_timestamp_ns: 0,
            waits_at: None,
            seen_bytes: 0,
            seen_modified_ns: 0,
            changed_at: Instant::now(),
            found_at: Instant::now(),
        }
    }

    /// Which file it is.
    pub fn identity(&self) -> Option<FileIdentity> {
        self.identity
    }

    /// The file was found again, perhaps under another name.
    pub fn found(&mut self, file: Option<Arc<File>>, path: &Path) {
        self.is_named = true;
        if self.path != path {
            path.clone_into(&mut self.path);
        }
        if let (None, Some(identity), Some(file)) = (&self.held, self.identity, file) {
            self.held = Some(HeldFile::alone(identity, file));
            self.changed_at = Instant::now();
            self.is_mapped = false;
        }
    }

    /// Forgets what has been read beyond the collector's position; reading starts again there.
    pub fn rewind(&mut self, acked: Option<Acked>) {
        self.progress.acked = acked;
        // Before any file is read: copies are told by it.
        self.committed();
        self.is_mapped = false;
        self.merger.clear();
        self.in_line = 0;
        self.waits_at = None;
        self.grouper.take_if(|grouper| grouper.is_leftover());
        if let Some(grouper) = &mut self.grouper {
            grouper.clear();
        }
    }

    /// How many bytes of open lines are held.
    pub fn open_bytes(&self) -> usize {
        progress::open_bytes(&self.merger, &self.grouper)
    }

    /// How many bytes are there and have not been read.
    pub fn lag_bytes(&self) -> u64 {
        let size = self.held.as_ref().and_then(|held| held.bytes().ok()).unwrap_or(0);
        if self.is_mapped { size.saturating_sub(self.at.minor) } else { 0 }
    }

    /// Where open lines stand, for the interval.
    pub fn open(&self) -> Vec<Position> {
        progress::open_lines(&self.merger, &self.grouper).collect()
    }

    /// Where reading must start again so that open lines and groups are seen from their start.
    fn resume(&self) -> Position {
        progress::resume(&self.merger, &self.grouper, self.at)
    }

    /// What to leave with the collector.
    pub fn cursor(&mut self) -> Vec<u8> {
        let at = self.resume();
        let tail = if at == self.at { self.tail() } else { self.tail_at(at.minor).unwrap_or(0) };
        let head = if at.major == self.at.major { self.head() } else { 0 };
        write_plain(&Mark { at, head, tail }, self.progress.is_final())
    }

    fn salt(&self) -> u64 {
        self.identity.map_or(0, |identity| identity.salt())
    }

    /// The check of the first line, once that is complete.
    fn head(&mut self) -> u32 {
        if self.head.is_none()
            && self.at.minor > 0
            && let Some(line) = self.held.as_ref().and_then(|held| held.first_line().ok().flatten())
        {
            self.set_head(check(self.salt(), &line));
        }
        self.head.unwrap_or(0)
    }

    fn set_head(&mut self, head: u32) {
        self.head = Some(head);
        self.shared.copies().begun(&self.progress.source, &self.path, self.salt(), head);
    }

    fn tail(&self) -> u32 {
        check(self.salt(), &self.behind)
    }

    /// The check of what stands in the file before this byte.
    fn tail_at(&self, at: u64) -> Option<u32> {
        let bytes = before(self.held.as_ref()?, at)?;
        Some(check(self.salt(), &bytes))
    }

    /// The collector has confirmed an interval.
    pub fn committed(&self) {
        let acked = self.progress.acked.as_ref();
        let Some((mark, _)) = acked.and_then(|acked| read_plain(&acked.cursor)) else { return };
        self.shared.copies().committed(&self.progress.source, &self.path, self.salt(), mark);
    }

    /// Nothing more comes of it.
    pub fn forget(&self) {
        self.shared.copies().forget(&self.progress.source);
    }

    /// Reads at most one block.
    ///
    /// # Errors
    /// When the file cannot be read; try again later.
    pub fn step(&mut self, sink: &mut Sink<'_>, block: &mut Vec<u8>) -> io::Result<Step> {
        if self.progress.is_final() {
            return Ok(Step::Idle);
        }
        if !self.is_mapped && !self.map()? {
            return Ok(Step::Idle);
        }
        let Some(held) = self.held.clone() else { return Ok(self.closed()) };
        let modified_ns = held.modified_ns();
        let size = held.bytes()?;
        if size < self.seen_bytes || size < self.at.minor {
            return Ok(self.emptied(sink));
        }
        if size > self.seen_bytes {
            self.changed_at = Instant::now();
        }
        // Written anew to the very length it had, it has another time.
        let is_as_seen = modified_ns == self.seen_modified_ns;
        if (size == self.at.minor || self.waits_at == Some(size)) && is_as_seen {
            self.seen_bytes = size;
            return self.at_end(&held, size, sink);
        }
        let kept = self.behind.len().min(FILE_OVERLAP_BYTES);
        block.resize(BLOCK_BYTES + kept, 0);
        let read = held.read_at(block, self.at.minor - kept as u64)?;
        let (overlap, fresh) = block.get(..read).unwrap_or(&[]).split_at_checked(kept).unwrap_or((&[], &[]));
        if overlap != self.behind.get(self.behind.len() - kept..).unwrap_or(&[]) {
            return Ok(self.emptied(sink));
        }
        (self.seen_bytes, self.seen_modified_ns) = (size, modified_ns);
        // Rows have no time of their own: that of reading, or of the last writing where that was earlier.
        let now_ns = match modified_ns {
            0 => sink.observed_ns,
            modified_ns => sink.observed_ns.min(modified_ns),
        };
        let from = self.at.minor;
        let is_full = self.lines(fresh, now_ns, sink);
        let taken = usize::try_from(self.at.minor - from).unwrap_or(usize::MAX);
        let taken_bytes = fresh.get(..taken).unwrap_or(fresh);
        if from == 0 && taken > 0 {
            // Of what was read, for the file may be another by now.
            let line = memchr(b'\n', taken_bytes).map_or(taken, |end| end + 1).min(HEAD_BYTES_MAX);
            self.set_head(check(self.salt(), taken_bytes.get(..line).unwrap_or(taken_bytes)));
        }
        self.keep_behind(taken_bytes);
        if is_full {
            return Ok(Step::Flush);
        }
        if taken > 0 {
            return Ok(Step::Progress);
        }
        // What is there is less than a line and less than a piece.
        self.waits_at = Some(size);
        self.at_end(&held, size, sink)
    }

    fn keep_behind(&mut self, taken: &[u8]) {
        let start = taken.len().saturating_sub(FILE_TAIL_BYTES);
        self.behind.extend_from_slice(taken.get(start..).unwrap_or(&[]));
        let excess = self.behind.len().saturating_sub(FILE_TAIL_BYTES);
        self.behind.drain(..excess);
    }

    /// Matches the collector's position to the file. `false` while that cannot be done.
    fn map(&mut self) -> io::Result<bool> {
        let acked = self.progress.acked.clone();
        self.reopen(acked.as_ref());
        let Some(held) = self.held.clone() else {
            // Closed, and all that was in it is committed; or gone.
            self.progress.rewind(Position::START);
            self.is_mapped = true;
            return Ok(true);
        };
        let Some(acked) = acked else { return self.map_new(&held) };
        self.progress.rewind(Position::START);
        let mark = read_plain(&acked.cursor).map(|(mark, _)| mark);
        let is_there = match &mark {
            Some(mark) => {
                let head = held.first_line()?.map_or(0, |line| check(self.salt(), &line));
                (mark.head == 0 || mark.head == head) && self.tail_at(mark.at.minor) == Some(mark.tail)
            }
            None => false,
        };
        if let Some(mark) = mark.filter(|_| is_there) {
            self.place(&held, mark.at);
        } else if !self.map_emptied(&held, &acked, mark) {
            return Ok(false);
        }
        if self.grouper.is_none() && !acked.open.is_empty() {
            self.grouper = Some(Grouper::leftover());
        }
        self.is_mapped = true;
        Ok(true)
    }

    /// A file that is closed is opened where the collector does not have all that was read of it.
    fn reopen(&mut self, acked: Option<&Acked>) {
        let has_all = acked.is_some_and(|acked| acked.committed == self.at);
        let (None, false, Some(identity)) = (&self.held, has_all, self.identity) else { return };
        let Ok(file) = File::open(&self.path) else { return };
        if file.metadata().is_ok_and(|metadata| FileIdentity::of(&metadata) == identity) {
            self.held = Some(HeldFile::alone(identity, Arc::new(file)));
        }
    }

    fn map_new(&mut self, held: &HeldFile) -> io::Result<bool> {
        let start = match self.start {
            Some(start) => start,
            None => {
                let (line, still) = (held.first_line()?, self.stands_still(held)?);
                let candidate = Candidate {
                    path: &self.path,
                    first_line: line.as_deref(),
                    bytes: held.bytes()?,
                    still,
                    age: self.found_at.elapsed(),
                    tail: &|at, salt| Some(check(salt, &before(held, at)?)),
                };
                let start = self.shared.copies().start(&candidate, Instant::now());
                let Start::At(byte) = start else { return Ok(false) };
                Position::new(1, byte)
            }
        };
        if self.past.is_some_and(|past| past.at.major < start.major) {
            // Nothing of what was emptied is committed: a copy is read whole.
            self.forget();
        }
        self.shared.copies().begun(&self.progress.source, &self.path, self.salt(), 0);
        self.start = Some(start);
        self.place(held, start);
        self.progress.rewind(start);
        if start.minor > 0 {
            // That it is a copy must not be decided again after the next start, which does not know what the log held.
            self.progress.touch();
        }
        self.is_mapped = true;
        Ok(true)
    }

    /// For how long nothing was added; also looks.
    fn stands_still(&mut self, held: &HeldFile) -> io::Result<Duration> {
        let size = held.bytes()?;
        if size != self.seen_bytes {
            self.seen_bytes = size;
            self.changed_at = Instant::now();
        }
        Ok(self.changed_at.elapsed())
    }

    /// The file does not hold what the collector has of it: it was emptied. `false` when that is to be tried again.
    fn map_emptied(&mut self, held: &HeldFile, acked: &Acked, mark: Option<Mark>) -> bool {
        let generation = acked.committed.major.max(mark.map_or(0, |mark| mark.at.major)) + 1;
        let start = Position::new(generation, 0);
        self.place(held, start);
        let past = self.past.filter(|past| {
            past.at.major + 1 == generation
                && past.at.major == acked.committed.major
                && past.at >= acked.committed
        });
        let (reason, bytes) = match past {
            Some(past) => (GapReason::Rotated, past.lost_bytes + (past.at.minor - acked.committed.minor)),
            // While nobody looked: nothing tells how much more there was.
            None => (GapReason::Unknown, 0),
        };
        let is_whole = past.is_some() && bytes == 0;
        let is_copied = mark.is_some_and(|mark| {
            let now = Instant::now();
            self.shared.copies().emptied(&self.progress.source, &self.path, self.salt(), mark, now);
            let until = mark.at.minor + if past.is_some() { bytes } else { 0 };
            self.is_copied(&mark, until)
        });
        is_whole || is_copied || self.progress.declare_gap(start, reason, bytes)
    }

    fn place(&mut self, held: &HeldFile, at: Position) {
        if at.major != self.at.major {
            self.head = None;
            self.seen_bytes = 0;
        }
        self.at = at;
        self.behind = before(held, at.minor).unwrap_or_default();
    }

    /// Whether a file beside this one, which will be read, holds what this one held up to there.
    fn is_copied(&self, mark: &Mark, until: u64) -> bool {
        let Some(directory) = self.path.parent() else { return false };
        let Ok(entries) = std::fs::read_dir(directory) else { return false };
        let salt = self.salt();
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.any(|path| {
            if !is_named_as_copy(&self.path, &path) || !self.config.takes(&path) {
                return false;
            }
            let Ok(file) = File::open(&path) else { return false };
            let Ok(metadata) = file.metadata() else { return false };
            let held = HeldFile::alone(FileIdentity::of(&metadata), Arc::new(file));
            let head = held.first_line().ok().flatten().map(|line| check(salt, &line));
            metadata.len() >= until
                && head == Some(mark.head)
                && before(&held, mark.at.minor).is_some_and(|bytes| check(salt, &bytes) == mark.tail)
        })
    }

    /// Reads the complete lines of a block, and pieces of those that are longer than one. `true` when the batch is full, or must be
    /// closed before the next line.
    fn lines(&mut self, block: &[u8], now_ns: i64, sink: &mut Sink<'_>) -> bool {
        let mut rest = block;
        while !rest.is_empty() {
            if sink.is_full() {
                return true;
            }
            if self.in_line == 0 {
                let hole = rest.iter().take_while(|byte| **byte == 0).count();
                if hole > 0 {
                    // Emptied under a writer that went on at its own place.
                    sink.metrics.damaged_bytes.inc_by(hole as u64);
                    self.advance(hole as u64);
                    rest = rest.get(hole..).unwrap_or(&[]);
                    continue;
                }
            }
            let end = memchr(b'\n', rest.get(..=FILE_PIECE_BYTES).unwrap_or(rest));
            let (text, bytes) = match end {
                Some(end) => (rest.get(..end).unwrap_or(&[]), end + 1),
                None if rest.len() >= FILE_PIECE_BYTES => {
                    (rest.get(..FILE_PIECE_BYTES).unwrap_or(&[]), FILE_PIECE_BYTES)
                }
                None => return false,
            };
            if !self.line(text, end.is_some(), bytes as u64, now_ns, sink) {
                return true;
            }
            sink.metrics.source_bytes.inc_by(bytes as u64);
            self.advance(bytes as u64);
            self.in_line = if end.is_some() { 0 } else { self.in_line + bytes as u64 };
            rest = rest.get(bytes..).unwrap_or(&[]);
        }
        false
    }

    /// Takes a line, or a piece of one. `false` when the batch must be closed first.
    fn line(&mut self, text: &[u8], ends_line: bool, bytes: u64, now_ns: i64, sink: &mut Sink<'_>) -> bool {
        let position = self.at;
        if self.in_line == 0 {
            self.open_timestamp_ns = now_ns;
        }
        self.progress.saw(now_ns);
        let is_whole = ends_line && self.in_line == 0 && text.len() <= LINE_BYTES_MAX;
        if is_whole && self.grouper.is_none() {
            if !self.progress.wants(position) {
                return true;
            }
            if self.progress.is_poisoned(position) {
                let end = Position::new(position.major, position.minor + bytes);
                if !self.progress.declare_gap(end, GapReason::Policy, bytes) {
                    return false;
                }
                sink.metrics.quarantined_rows.inc();
                return true;
            }
            sink.builder.text_mut().extend_from_slice(text);
            self.progress.finish_row(Stream::Stdout, now_ns, position, true, sink);
            return true;
        }
        let timestamp_ns = self.open_timestamp_ns;
        let piece = Piece { stream: Stream::Stdout, timestamp_ns, position, ends_line, text };
        let (progress, grouper, safe_cut) = (&mut self.progress, &mut self.grouper, sink.safe_cut);
        self.merger.push(piece, safe_cut, &mut |row| progress.join(row, grouper, sink));
        true
    }

    fn advance(&mut self, bytes: u64) {
        self.at.minor += bytes;
        self.waits_at = None;
        self.progress.advance(self.at);
    }

    /// Ends what is open, for nothing of this generation comes any more.
    fn end_lines(&mut self, sink: &mut Sink<'_>) {
        let (progress, grouper) = (&mut self.progress, &mut self.grouper);
        if self.merger.resume().is_some() {
            self.merger.end(&mut |row| progress.join(row, grouper, sink));
            progress.touch();
        }
        progress.end_groups(grouper, sink);
        self.in_line = 0;
    }

    /// Nothing more is there: the file may have ended.
    fn at_end(&mut self, held: &HeldFile, size: u64, sink: &mut Sink<'_>) -> io::Result<Step> {
        if self.at >= self.progress.floor() {
            self.grouper.take_if(|grouper| grouper.is_leftover() && grouper.open().next().is_none());
        }
        self.progress.end_idle(&mut self.grouper, sink);
        let still = self.changed_at.elapsed();
        if self.is_named {
            self.close_when_still(size, still);
            return Ok(Step::Idle);
        }
        if still < self.config.close_after {
            return Ok(Step::Idle);
        }
        if sink.is_full() {
            return Ok(Step::Flush);
        }
        let mut rest = vec![0; usize::try_from(size - self.at.minor).unwrap_or(0).min(FILE_PIECE_BYTES)];
        let read = held.read_at(&mut rest, self.at.minor)?;
        rest.truncate(read);
        if !rest.is_empty() {
            let now_ns = sink.observed_ns;
            if !self.last_words(&rest, now_ns, sink) {
                return Ok(Step::Flush);
            }
        }
        self.end_lines(sink);
        self.progress.finish();
        Ok(Step::Idle)
    }

    fn last_words(&mut self, text: &[u8], now_ns: i64, sink: &mut Sink<'_>) -> bool {
        if !self.line(text, false, text.len() as u64, now_ns, sink) {
            return false;
        }
        self.advance(text.len() as u64);
        true
    }

    /// Closes the file when it has stood still for long and everything in it is committed.
    fn close_when_still(&mut self, size: u64, still: Duration) {
        let is_crowded = self.shared.is_crowded.load(Ordering::Relaxed);
        let wait = if is_crowded { FILE_PARK_AFTER_IN_CROWD } else { FILE_PARK_AFTER };
        let committed = self.progress.acked.as_ref().map(|acked| acked.committed);
        if still >= wait && size == self.at.minor && committed == Some(self.at) && self.open().is_empty() {
            self.held = None;
        }
    }

    /// The file is closed. Once no pattern leads to it, that is its end; of a file that went while nobody looked nothing tells
    /// whether there was more.
    fn closed(&mut self) -> Step {
        if self.is_named {
            return Step::Idle;
        }
        let is_gone = self.identity.is_none() || self.at > self.progress.to();
        let end = Position::new(self.progress.floor().major + 1, 0);
        if is_gone && !self.progress.declare_gap(end, GapReason::Unknown, 0) {
            return Step::Flush;
        }
        self.progress.finish();
        Step::Idle
    }

    /// The file does not hold any more what was read of it: it was emptied, and may have been written anew.
    fn emptied(&mut self, sink: &mut Sink<'_>) -> Step {
        let unread = self.seen_bytes.saturating_sub(self.at.minor);
        let mark = Mark { at: self.at, head: self.head.unwrap_or(0), tail: self.tail() };
        let start = Position::new(self.at.major + 1, 0);
        self.end_lines(sink);
        let lost_bytes = if unread == 0 || self.is_copied(&mark, self.seen_bytes) { 0 } else { unread };
        if lost_bytes > 0
            && start > self.progress.floor()
            && !self.progress.declare_gap(start, GapReason::Rotated, lost_bytes)
        {
            return Step::Flush;
        }
        self.past = Some(Past { at: self.at, lost_bytes });
        let now = Instant::now();
        self.shared.copies().emptied(&self.progress.source, &self.path, self.salt(), mark, now);
        if self.progress.acked.is_none() {
            self.start = Some(start);
        }
        self.at = start;
        self.behind.clear();
        self.head = None;
        self.waits_at = None;
        self.seen_bytes = 0;
        self.changed_at = Instant::now();
        Step::Progress
    }
}

/// The bytes right before this one, at most [`FILE_TAIL_BYTES`]; `None` where the file is shorter.
fn before(held: &HeldFile, at: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(at).unwrap_or(usize::MAX).min(FILE_TAIL_BYTES);
    let mut behind = vec![0; bytes];
    let read = held.read_at(&mut behind, at - bytes as u64).ok()?;
    (read == bytes).then_some(behind)
}

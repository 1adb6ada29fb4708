//! Reads the json-file log of one container, file after file, into the batch being built.
//!
//! What always holds:
//! - a record is consumed only when its newline is there; positions are (generation, byte offset of the line's first record);
//! - a file is finished only at an end that was reached after its successor existed;
//! - what was removed before it could be opened becomes a gap with exact bounds; where nothing was missed there is none;
//! - nothing is read twice into a batch unless the collector asked for it.
//!
//! Opening files and counting rotations is [`super::watch`]'s.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use beeacon_record::{GapReason, Position, Source};
use memchr::memchr;

use super::cursor::{CURSOR_FILES_MAX, FileCursor};
use super::files::{Fingerprint, HeadMark, HeldFile};
use super::json_line::LineParser;
use super::merge::{Merger, Piece};
use super::watch::{SharedChain, lock};
use crate::limits::{BLOCK_BYTES, RECORD_BYTES_MAX};
use crate::multiline::Grouper;
use crate::progress::{self, Acked, Progress, Sink, Step};

/// How many generations' fingerprints are remembered. A cursor names two.
const FINGERPRINTS_MAX: usize = 8;

/// The file being read.
struct Current {
    held: Arc<HeldFile>,
    mark: Option<HeadMark>,
}

/// A container's json-file log.
pub struct FileSource {
    /// How far it has been read.
    pub progress: Progress,
    /// The files.
    pub chain: SharedChain,
    /// Whether the container writes no more (until it is started again).
    pub is_stopped: bool,
    /// Whether the container has been removed.
    pub is_removed: bool,
    /// What to subtract from a file's index to get its generation; `None` until the collector's position is matched to a file.
    base: Option<u64>,
    /// The next byte to read.
    at: Position,
    current: Option<Current>,
    merger: Merger,
    /// Joins lines, where the container's lines are to be joined.
    pub grouper: Option<Grouper>,
    parser: LineParser,
    scratch: Vec<u8>,
    want_bytes: usize,
    fingerprints: VecDeque<(u64, Fingerprint)>,
    is_mapped: bool,
}

impl FileSource {
    /// The log whose files `chain` holds.
    pub fn new(source: Source, chain: SharedChain) -> Self {
        FileSource {
            progress: Progress::new(source),
            chain,
            is_stopped: false,
            is_removed: false,
            base: None,
            at: Position::START,
            current: None,
            merger: Merger::default(),
            grouper: None,
            parser: LineParser::default(),
            scratch: Vec::new(),
            want_bytes: BLOCK_BYTES,
            fingerprints: VecDeque::new(),
            is_mapped: false,
        }
    }

    /// Forgets what has been read beyond the collector's position; reading starts again there.
    pub fn rewind(&mut self, acked: Option<Acked>) {
        self.progress.acked = acked;
        self.is_mapped = false;
        self.current = None;
        self.merger.clear();
        self.grouper.take_if(|grouper| grouper.is_leftover());
        if let Some(grouper) = &mut self.grouper {
            grouper.clear();
        }
        self.want_bytes = BLOCK_BYTES;
    }

    /// How many bytes of open lines are held.
    pub fn open_bytes(&self) -> usize {
        progress::open_bytes(&self.merger, &self.grouper)
    }

    /// How many bytes are there and have not been read.
    pub fn lag_bytes(&self) -> u64 {
        let Some(base) = self.base.filter(|_| self.is_mapped) else { return 0 };
        let chain = lock(&self.chain);
        let mut bytes = 0u64;
        for held in chain.files() {
            let generation = held.index.wrapping_sub(base);
            let size = held.bytes().unwrap_or(0);
            if generation == self.at.major {
                bytes += size.saturating_sub(self.at.minor);
            } else if generation > self.at.major {
                bytes += size;
            }
        }
        bytes
    }

    /// How many rotations old the file is that is being read, and how many bytes the newest one has.
    pub fn place(&self) -> Option<(u64, u64)> {
        let base = self.base.filter(|_| self.is_mapped)?;
        let newest = lock(&self.chain).files().next_back().cloned()?;
        let place = newest.index.wrapping_sub(base).saturating_sub(self.at.major);
        Some((place, newest.bytes().ok()?))
    }

    /// How many bytes were written since a mark was taken, with the mark of now: the newest file and its size.
    pub fn written_since(&self, mark: Option<(u64, u64)>) -> (u64, Option<(u64, u64)>) {
        let files: Vec<(u64, u64)> =
            lock(&self.chain).files().map(|held| (held.index, held.bytes().unwrap_or(0))).collect();
        let now = files.last().copied().or(mark);
        let Some((index, bytes)) = mark else { return (0, now) };
        let since: u64 = files.iter().filter(|(known, _)| *known >= index).map(|(_, bytes)| bytes).sum();
        (since.saturating_sub(bytes), now)
    }

    /// Whether there is nothing to read and nothing was ever read.
    pub fn has_nothing(&self) -> bool {
        self.progress.acked.is_none() && !self.progress.is_touched() && lock(&self.chain).oldest().is_none()
    }

    /// Where open lines stand, for the interval.
    pub fn open(&self) -> Vec<Position> {
        progress::open_lines(&self.merger, &self.grouper).collect()
    }

    /// Where reading must start again so that open lines and groups are seen from their start.
    fn resume(&self) -> Position {
        progress::resume(&self.merger, &self.grouper, self.at)
    }

    /// What to leave with the collector. It may know the files only once their first records are complete.
    pub fn cursor(&mut self) -> Vec<u8> {
        let resume = self.resume();
        let mut files = Vec::with_capacity(CURSOR_FILES_MAX);
        for generation in [resume.major, self.progress.to().major] {
            if files.iter().all(|(known, _)| *known != generation)
                && let Some(fingerprint) = self.fingerprint(generation)
            {
                files.push((generation, fingerprint));
            }
        }
        FileCursor { resume, files }.write()
    }

    fn fingerprint(&mut self, generation: u64) -> Option<Fingerprint> {
        let known = self.fingerprints.iter().find(|(known, _)| *known == generation);
        if let Some((_, fingerprint)) = known {
            return Some(*fingerprint);
        }
        let held = lock(&self.chain).at(generation.wrapping_add(self.base?))?;
        let fingerprint = held.fingerprint().ok().flatten()?;
        if self.fingerprints.len() == FINGERPRINTS_MAX {
            self.fingerprints.pop_front();
        }
        self.fingerprints.push_back((generation, fingerprint));
        Some(fingerprint)
    }

    /// Closes the files that the collector has committed.
    pub fn release(&mut self) {
        let Some(base) = self.base else { return };
        let Some(acked) = &self.progress.acked else { return };
        let resume = FileCursor::read(&acked.cursor).map_or(acked.committed, |cursor| cursor.resume);
        let oldest = resume.min(acked.committed).major;
        lock(&self.chain).release_below(oldest.wrapping_add(base));
    }

    /// Reads at most one block.
    ///
    /// # Errors
    /// When a file cannot be read; try again later.
    pub fn step(&mut self, sink: &mut Sink<'_>, block: &mut Vec<u8>) -> io::Result<Step> {
        if !self.is_mapped && !self.map()? {
            if self.is_removed && self.progress.acked.is_some() && !self.progress.is_final() {
                // Its files are gone, and what was committed of them stays.
                self.progress.rewind(Position::START);
                self.progress.finish();
            }
            return Ok(Step::Idle);
        }
        if self.at >= self.progress.floor() {
            self.grouper.take_if(|grouper| grouper.is_leftover() && grouper.open().next().is_none());
        }
        let Some(base) = self.base else { return Ok(Step::Idle) };
        let index = self.at.major.wrapping_add(base);
        let held = match &self.current {
            Some(current) if current.held.index == index => current.held.clone(),
            _ => {
                let found = lock(&self.chain).at(index);
                let Some(held) = found else { return Ok(self.next_file(base, 0)) };
                self.current = Some(Current { held: held.clone(), mark: None });
                held
            }
        };
        // Asked before the size: what is read to its end after its successor existed is read for good.
        let has_successor = lock(&self.chain).behind(index).is_some();
        let size = held.bytes()?;
        // How long a compressed file's content is shows at its end, and nobody empties it.
        let is_known = !held.is_compressed();
        if is_known && size < self.at.minor {
            return Ok(self.emptied(&held, base));
        }
        let mut read = 0;
        if !is_known || size > self.at.minor {
            block.resize(self.want_bytes, 0);
            read = held.read_at(block, self.at.minor)?;
        }
        if read == 0 && (!is_known || size == self.at.minor) {
            return Ok(if has_successor { self.next_file(base, 0) } else { self.at_end(sink) });
        }
        let size = if is_known { size } else { held.bytes()? };
        if let Some(step) = self.check_head(&held, base)? {
            return Ok(step);
        }
        let bytes = block.get(..read).unwrap_or(&[]);
        let before = self.at.minor;
        let is_full = self.records(bytes, sink);
        if is_full {
            return Ok(Step::Flush);
        }
        if self.at.minor > before {
            self.want_bytes = BLOCK_BYTES;
            return Ok(Step::Progress);
        }
        if read == self.want_bytes && read < RECORD_BYTES_MAX {
            self.want_bytes = (read * 4).min(RECORD_BYTES_MAX);
            return Ok(Step::Progress);
        }
        if read >= RECORD_BYTES_MAX {
            // No newline in all that: no record. Its end will look torn, and be found so.
            sink.metrics.damaged_bytes.inc_by(read as u64);
            self.advance(read as u64);
            return Ok(Step::Progress);
        }
        if has_successor && self.at.minor + read as u64 >= size {
            // A torn record at the end of a file that nobody writes any more.
            sink.metrics.damaged_bytes.inc_by(read as u64);
            return Ok(self.next_file(base, read as u64));
        }
        Ok(self.at_end(sink))
    }

    /// Matches the collector's position to one of the files. `false` while there is no file yet.
    fn map(&mut self) -> io::Result<bool> {
        let files: Vec<Arc<HeldFile>> = lock(&self.chain).files().cloned().collect();
        let Some(oldest) = files.first() else { return Ok(false) };
        let acked = self.progress.acked.clone();
        let cursor = acked.as_ref().and_then(|acked| FileCursor::read(&acked.cursor));
        match (&acked, &cursor, self.base) {
            (None, _, base) => {
                let base = base.unwrap_or(oldest.index.wrapping_sub(1));
                self.base = Some(base);
                self.at = Position::new(oldest.index.wrapping_sub(base), 0);
                self.progress.rewind(self.at);
            }
            (Some(acked), Some(cursor), Some(_)) => {
                self.at = cursor.resume.min(acked.committed);
                self.progress.rewind(self.at);
            }
            (Some(acked), _, _) => {
                self.progress.rewind(acked.committed);
                let known = cursor.as_ref().map(|cursor| find_known(&files, cursor, acked.committed));
                match known.transpose()?.flatten() {
                    Some(base) => {
                        self.base = Some(base);
                        self.at = cursor.as_ref().map_or(acked.committed, |cursor| cursor.resume);
                    }
                    None => {
                        let generation = acked.committed.major + 1;
                        self.base = Some(oldest.index.wrapping_sub(generation));
                        self.at = Position::new(generation, 0);
                        let reason = if cursor.is_some() { GapReason::Rotated } else { GapReason::Unknown };
                        if !self.progress.declare_gap(self.at, reason, 0) {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        if self.grouper.is_none() && acked.is_some_and(|acked| !acked.open.is_empty()) {
            self.grouper = Some(Grouper::leftover());
        }
        self.is_mapped = true;
        Ok(true)
    }

    /// Reads the complete records of a block. `true` when the batch is full, or must be closed before the next record.
    fn records(&mut self, block: &[u8], sink: &mut Sink<'_>) -> bool {
        let mut rest = block;
        while let Some(end) = memchr(b'\n', rest) {
            if sink.is_full() {
                return true;
            }
            let (line, behind) = rest.split_at(end);
            rest = behind.get(1..).unwrap_or(&[]);
            let bytes = end as u64 + 1;
            if !self.record(line, bytes, sink) {
                return true;
            }
            self.advance(bytes);
        }
        false
    }

    /// Reads one record. `false` when the batch must be closed first.
    fn record(&mut self, line: &[u8], bytes: u64, sink: &mut Sink<'_>) -> bool {
        let text = sink.builder.text_mut();
        let start = text.len();
        let Some(record) = self.parser.parse(line, text) else {
            sink.metrics.damaged_bytes.inc_by(bytes);
            return true;
        };
        sink.metrics.source_bytes.inc_by(bytes);
        if record.damaged_bytes > 0 {
            sink.metrics.damaged_bytes.inc_by(record.damaged_bytes as u64);
        }
        if record.destroyed_characters > 0 {
            sink.metrics.destroyed_characters.inc_by(u64::from(record.destroyed_characters));
        }
        let position = Position::new(self.at.major, self.at.minor + record.damaged_bytes as u64);
        self.progress.saw(record.timestamp_ns);
        let length = text.len() - start;
        let is_whole = record.ends_line && length <= beeacon_record::limits::LINE_BYTES_MAX;
        if is_whole && self.grouper.is_none() && self.merger.is_idle(record.stream) {
            if self.progress.is_poisoned(position) && self.progress.wants(position) {
                text.truncate(start);
                let end = Position::new(self.at.major, self.at.minor + bytes);
                if !self.progress.declare_gap(end, GapReason::Policy, bytes) {
                    return false;
                }
                sink.metrics.quarantined_rows.inc();
            } else if self.progress.wants(position) {
                self.progress.finish_row(record.stream, record.timestamp_ns, position, true, sink);
            } else {
                text.truncate(start);
            }
            return true;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(text.get(start..).unwrap_or(&[]));
        text.truncate(start);
        let piece = Piece {
            stream: record.stream,
            timestamp_ns: record.timestamp_ns,
            position,
            ends_line: record.ends_line,
            text: &self.scratch,
        };
        let (progress, grouper, safe_cut) = (&mut self.progress, &mut self.grouper, sink.safe_cut);
        self.merger.push(piece, safe_cut, &mut |row| progress.join(row, grouper, sink));
        true
    }

    fn advance(&mut self, bytes: u64) {
        self.at.minor += bytes;
        self.progress.advance(self.at);
    }

    /// Nothing more is there: when the container has ended, its open lines end too.
    fn at_end(&mut self, sink: &mut Sink<'_>) -> Step {
        let (progress, grouper) = (&mut self.progress, &mut self.grouper);
        if !(self.is_stopped || self.is_removed) {
            progress.end_idle(grouper, sink);
            return Step::Idle;
        }
        if self.merger.resume().is_some() {
            self.merger.end(&mut |row| progress.join(row, grouper, sink));
            progress.touch();
        }
        progress.end_groups(grouper, sink);
        if self.is_removed && !self.progress.is_final() {
            self.progress.finish();
        }
        Step::Idle
    }

    /// Goes on with the next file; over a gap when files between were missed.
    fn next_file(&mut self, base: u64, torn_bytes: u64) -> Step {
        let index = self.at.major.wrapping_add(base);
        let Some(next) = lock(&self.chain).behind(index) else { return Step::Idle };
        let start = Position::new(next.index.wrapping_sub(base), 0);
        let held = self.current.as_ref().filter(|current| current.held.index == index);
        let is_broken = held.is_some_and(|current| current.held.is_broken());
        let is_missing = held.is_none() || is_broken || next.index != index.wrapping_add(1);
        let reason = if is_broken { GapReason::Damaged } else { GapReason::Rotated };
        if is_missing
            && start > self.progress.floor()
            && !self.progress.declare_gap(start, reason, torn_bytes)
        {
            return Step::Flush;
        }
        self.at = start;
        self.current = Some(Current { held: next, mark: None });
        self.want_bytes = BLOCK_BYTES;
        Step::Progress
    }

    /// The file got shorter than what was read of it: Docker emptied it and writes it anew. Whether everything had been read
    /// before cannot be known.
    fn emptied(&mut self, held: &HeldFile, base: u64) -> Step {
        let start = Position::new(self.at.major + 1, 0);
        if start > self.progress.floor() && !self.progress.declare_gap(start, GapReason::Rotated, 0) {
            return Step::Flush;
        }
        lock(&self.chain).emptied(held.index);
        self.at = start;
        self.current =
            lock(&self.chain).at(start.major.wrapping_add(base)).map(|held| Current { held, mark: None });
        self.want_bytes = BLOCK_BYTES;
        Step::Progress
    }

    /// Makes sure that what was just read belongs to the file as it was when its reading began.
    fn check_head(&mut self, held: &HeldFile, base: u64) -> io::Result<Option<Step>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        match current.mark {
            Some(mark) if held.still_starts_with(mark)? => Ok(None),
            Some(_) => Ok(Some(self.emptied(held, base))),
            None => {
                current.mark = held.head()?;
                Ok(None)
            }
        }
    }
}

/// What to subtract from an index to get its generation, by a file that the cursor names. A compressed file is known by its content,
/// but only if that reaches as far as it was read.
fn find_known(files: &[Arc<HeldFile>], cursor: &FileCursor, committed: Position) -> io::Result<Option<u64>> {
    let known = &cursor.files;
    for held in files {
        let Some(fingerprint) = held.fingerprint()? else { continue };
        let is_same = |known: &Fingerprint| {
            known.file == fingerprint.file
                || held.is_compressed() && known.content.is_some() && known.content == fingerprint.content
        };
        let Some((generation, _)) = known.iter().find(|(_, known)| is_same(known)) else { continue };
        let is_reached = |place: Position| -> io::Result<bool> {
            let last = place.minor.checked_sub(1).filter(|_| place.major == *generation);
            Ok(last.map(|last| held.read_at(&mut [0], last)).transpose()?.is_none_or(|read| read > 0))
        };
        // In this order, so that what is inflated last is where reading starts.
        if !held.is_compressed() || is_reached(committed)? && is_reached(cursor.resume)? {
            return Ok(Some(held.index.wrapping_sub(*generation)));
        }
    }
    Ok(None)
}

//! Reads one journal through a child `journalctl`, into the batch being built.
//!
//! What always holds:
//! - reading begins with the entry that was read last, which the child is asked to show once more: only if it does, nothing was
//!   missed. `--after-cursor` would not tell, and passes over an entry too many where that one is gone;
//! - positions are (generation, number << 8 | part): the sequence number of the entry, and which row of a long message;
//! - a child that has ended is started again where reading stands, after a while.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use beeacon_record::limits::LINE_BYTES_MAX;
use beeacon_record::{GapReason, IdentityError, Level, Line, Origin, OriginId, Position, Source, Stream};
use rustix::fs::{OFlags, fcntl_setfl};

use super::export::{ExportParser, JournalEntry, Place};
use super::{JournaldConfig, PREFIX};
use crate::backoff::Backoff;
use crate::docker::cursor::{JournalCursor, read_journal};
use crate::docker::merge::cut_place;
use crate::filter::Filter;
use crate::level;
use crate::limits::{BLOCK_BYTES, JOURNALD_BLOCKS_PER_TURN};
use crate::names::Names;
use crate::progress::{Acked, Progress, Sink, Step};

/// What reads journals.
const JOURNALCTL: &str = "journalctl";

/// How many rows a message may have: its limit in bytes, in rows of at least half a row's.
const PART_BITS: u32 = 8;

/// A journal.
pub struct JournalSource {
    /// How far it has been read.
    pub progress: Progress,
    /// How it is read.
    pub config: Arc<JournaldConfig>,
    host: String,
    names: Names,
    /// In the batch being built.
    origins: HashMap<Arc<Origin>, OriginId>,
    child: Option<Follower>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    is_mapped: bool,
    generation: u64,
    /// The entry that was read last, if any was.
    place: Option<Place>,
    /// Whether the next entry shall be that one.
    is_again: bool,
    /// An entry that did not fit into the batch.
    held: Option<JournalEntry>,
}

/// A child, and what came from it.
struct Follower {
    child: Child,
    parser: ExportParser,
    bytes: Vec<u8>,
    /// What of them is taken.
    taken: usize,
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl JournalSource {
    /// A journal as this section says.
    ///
    /// # Errors
    /// Never: its name is short and of our making.
    pub fn new(config: Arc<JournaldConfig>, host: &str) -> Result<Self, IdentityError> {
        let source = Source::new(format!("{PREFIX}{:016x}", config.number()))?;
        Ok(JournalSource {
            progress: Progress::new(source),
            config,
            host: host.to_owned(),
            names: Names::default(),
            origins: HashMap::new(),
            child: None,
            backoff: Backoff::default(),
            retry_at: None,
            is_mapped: false,
            generation: 1,
            place: None,
            is_again: false,
            held: None,
        })
    }

    /// Another configuration counts from now on. Nothing may be read before [`JournalSource::rewind`].
    pub fn configure(&mut self, host: &str) {
        host.clone_into(&mut self.host);
        self.names.clear();
    }

    /// Forgets what has been read beyond the collector's position; reading starts again there.
    pub fn rewind(&mut self, acked: Option<Acked>) {
        self.progress.acked = acked;
        self.child = None;
        self.held = None;
        self.is_mapped = false;
        self.retry_at = None;
        self.origins.clear();
    }

    /// The batch has been closed.
    pub fn forget_origins(&mut self) {
        self.origins.clear();
    }

    /// What to leave with the collector.
    pub fn cursor(&self) -> Vec<u8> {
        JournalCursor { generation: self.generation, place: self.place }.write()
    }

    /// Takes what the child has written.
    ///
    /// # Errors
    /// When there is no child to be had, or the filter fails on names; try again later.
    pub fn step(&mut self, sink: &mut Sink<'_>, filter: &dyn Filter) -> io::Result<Step> {
        if !self.is_mapped && !self.map() {
            return Ok(Step::Flush);
        }
        if self.child.is_none() {
            if self.retry_at.is_some_and(|at| Instant::now() < at) {
                return Ok(Step::Idle);
            }
            self.retry_at = Some(Instant::now() + self.backoff.next_wait());
            self.child = Some(self.start()?);
        }
        for _ in 0..JOURNALD_BLOCKS_PER_TURN {
            if let Some(entry) = self.held.take()
                && !self.give(entry, sink, filter)?
            {
                return Ok(Step::Flush);
            }
            while let Some(entry) = self.child.as_mut().and_then(Follower::next) {
                if !self.give(entry, sink, filter)? {
                    return Ok(Step::Flush);
                }
            }
            let Some(child) = &mut self.child else { return Ok(Step::Idle) };
            match child.read() {
                Ok(0) => {
                    let status = child.child.wait()?;
                    self.child = None;
                    self.retry_at = Some(Instant::now() + self.backoff.next_wait());
                    if self.backoff.failures().is_power_of_two() {
                        tracing::warn!(%status, "journalctl has ended, it is started again");
                    }
                    return Ok(Step::Idle);
                }
                Ok(_) => self.backoff.reset(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Idle),
                Err(error) => return Err(error),
            }
        }
        Ok(Step::Progress)
    }

    /// Finds the collector's position. `false` when the batch must be closed first.
    fn map(&mut self) -> bool {
        let first = Position::new(1, 0);
        self.progress.rewind(first);
        match &self.progress.acked {
            None => (self.generation, self.place) = (1, None),
            Some(acked) => match read_journal(&acked.cursor) {
                Some(cursor) => (self.generation, self.place) = (cursor.generation, cursor.place),
                None => {
                    (self.generation, self.place) = (acked.committed.major + 1, None);
                    let start = Position::new(self.generation, 0);
                    if !self.progress.declare_gap(start, GapReason::Unknown, 0) {
                        return false;
                    }
                }
            },
        }
        self.is_mapped = true;
        true
    }

    fn start(&mut self) -> io::Result<Follower> {
        let mut command = Command::new(JOURNALCTL);
        command.args(["--output=export", "--follow", "--no-tail", "--quiet", "--no-pager"]);
        if let Some(directory) = &self.config.directory {
            command.arg("--directory").arg(directory);
        }
        if let Some(place) = &self.place {
            command.arg(format!("--cursor={place}"));
        }
        command.args(&self.config.matches);
        let mut child = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(output) = &child.stdout
            && let Err(error) = fcntl_setfl(output, OFlags::NONBLOCK)
        {
            child.kill().ok();
            child.wait().ok();
            return Err(error.into());
        }
        self.is_again = self.place.is_some();
        Ok(Follower { child, parser: ExportParser::default(), bytes: Vec::new(), taken: 0 })
    }

    /// Takes an entry. `false` when the batch must be closed first; the entry is kept then.
    fn give(&mut self, entry: JournalEntry, sink: &mut Sink<'_>, filter: &dyn Filter) -> io::Result<bool> {
        let Some(place) = entry.place else {
            // No place, no row: nobody could tell it from another.
            sink.metrics.damaged_bytes.inc_by(entry.message.len() as u64);
            return Ok(true);
        };
        let last = self.place;
        let is_last =
            last.is_some_and(|last| (last.numbering, last.number) == (place.numbering, place.number));
        if self.is_again && is_last {
            self.is_again = false;
            return Ok(true);
        }
        if sink.is_full() {
            self.held = Some(entry);
            return Ok(false);
        }
        // Another numbering, or one that has begun anew.
        let is_next = last.is_none_or(|last| last.numbering == place.numbering && last.number < place.number);
        let generation = if is_next { self.generation } else { self.generation + 1 };
        let from = Position::new(generation, place.number << PART_BITS);
        if self.is_again && !self.progress.declare_gap(from, GapReason::Rotated, 0) {
            self.held = Some(entry);
            return Ok(false);
        }
        let timestamp_ns = i64::try_from(place.realtime_us.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.progress.saw(timestamp_ns);
        // Containers are read through Docker.
        if entry.container_id.is_empty() && !entry.message.is_empty() {
            let origin = match self.origin(&entry, sink, filter) {
                Ok(origin) => origin,
                Err(error) => {
                    self.held = Some(entry);
                    return Err(error);
                }
            };
            self.rows(&entry, origin, timestamp_ns, from, sink);
        }
        (self.is_again, self.generation, self.place) = (false, generation, Some(place));
        self.progress.advance(Position::new(generation, (place.number + 1) << PART_BITS));
        Ok(true)
    }

    fn rows(
        &mut self,
        entry: &JournalEntry,
        origin: OriginId,
        timestamp_ns: i64,
        from: Position,
        sink: &mut Sink<'_>,
    ) {
        let level = level_of(entry);
        let stream =
            if entry.priority.is_some_and(|priority| priority < 4) { Stream::Stderr } else { Stream::Stdout };
        let mut rest = entry.message.as_slice();
        let mut part = 0;
        loop {
            let is_last = rest.len() <= LINE_BYTES_MAX;
            let end = if is_last { rest.len() } else { cut_place(rest, sink.safe_cut) };
            let (text, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let position = Position::new(from.major, from.minor | part);
            if self.progress.is_poisoned(position) {
                sink.metrics.quarantined_rows.inc();
            } else if self.progress.wants(position) {
                sink.metrics.lines.inc();
                sink.metrics.line_bytes.inc_by(text.len() as u64);
                self.progress.rows += 1;
                let line = Line {
                    origin,
                    timestamp_ns,
                    observed_timestamp_ns: sink.observed_ns,
                    stream,
                    level,
                    position,
                };
                sink.builder.push(line, text);
                if part > 0 || !is_last {
                    sink.builder.attribute("part", &part.to_string());
                }
                let cut = entry.cut_bytes.to_string();
                for (name, value) in [
                    ("unit", entry.unit.as_str()),
                    ("identifier", &entry.identifier),
                    ("pid", &entry.pid),
                    ("transport", &entry.transport),
                    ("truncated", if is_last && entry.cut_bytes > 0 { &cut } else { "" }),
                ] {
                    if !value.is_empty() {
                        sink.builder.attribute(name, value);
                    }
                }
            }
            if is_last {
                return;
            }
            rest = behind;
            part += 1;
        }
    }

    fn origin(
        &mut self,
        entry: &JournalEntry,
        sink: &mut Sink<'_>,
        filter: &dyn Filter,
    ) -> io::Result<OriginId> {
        let unit = entry.unit.strip_suffix(".service").unwrap_or(&entry.unit);
        let service =
            [self.config.service.as_deref().unwrap_or_default(), unit, &entry.identifier, &entry.transport];
        let service = service.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let origin = Arc::new(Origin {
            host: entry.host.clone(),
            service: service.to_owned(),
            labels: self.config.labels.clone(),
            ..Origin::default()
        });
        if let Some(id) = self.origins.get(&origin) {
            return Ok(*id);
        }
        let scrubbed = self.names.scrubbed(&origin, &self.host, filter).map_err(io::Error::other)?;
        let id = sink.builder.origin(&scrubbed, &self.progress.source);
        self.origins.insert(origin, id);
        Ok(id)
    }
}

/// By its priority; but 6 (informational) is what journald gives to everything that a service prints, so there the text counts.
fn level_of(entry: &JournalEntry) -> Level {
    match entry.priority {
        Some(0..=2) => Level::Fatal,
        Some(3) => Level::Error,
        Some(4) => Level::Warn,
        Some(5) => Level::Info,
        Some(7) => Level::Debug,
        _ => match level::detect(&entry.message) {
            Level::Unknown if entry.priority.is_some() => Level::Info,
            level => level,
        },
    }
}

impl Follower {
    /// The next whole entry of what came.
    fn next(&mut self) -> Option<JournalEntry> {
        let (taken, entry) = self.parser.push(self.bytes.get(self.taken..).unwrap_or(&[]));
        self.taken += taken;
        entry
    }

    /// Reads more; everything that came before has been taken. 0 at the end.
    fn read(&mut self) -> io::Result<usize> {
        let Some(output) = &mut self.child.stdout else { return Ok(0) };
        self.bytes.resize(BLOCK_BYTES, 0);
        let read = loop {
            match output.read(&mut self.bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        self.taken = 0;
        read
    }
}

//! The spool: scrubbed frames on the agent's own disk, for as long as the collector does not take them.
//!
//! What always holds:
//! - only frames stand in it, so only what came out of the pollen filter;
//! - frames leave in the order in which they came, and each stays until the collector has committed it, or until it was
//!   dropped for want of room and that loss is on record;
//! - where reading goes on without a collector is known from the spool alone, or not at all: once a frame has been sent past
//!   the spool, what the spool says of other sources is void, and durably so before that frame leaves;
//! - it stays within its quota; what that does to reading and to old frames is the configuration's choice.
//!
//! A frame that is sent twice, because a cursor was behind or an answer was lost, is recognised by its positions.
//!
//! # Bytes
//! A `beeacon_journal` in the directory `spool`, whose records [`record`] describes, with two cursors:
//! ```text
//! sent       every frame up to it has been committed by the collector, or is covered by a record of losses behind it
//! positions  every record of positions up to it is void
//! ```
//!
//! # Crash
//! What lies behind `sent` is sent (again). The last record of positions behind `positions`, with all frames behind it, says
//! where every source stands; without one, only the sources of frames that wait are known. The last record of losses behind
//! `sent` says what has to be declared first: it repeats what those before it said.

mod record;
mod split;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use beeacon_journal::{Cursor, Duty, Journal, JournalError, JournalOptions, Lsn, Reader};
use beeacon_record::limits::BATCH_SOURCES_MAX;
use beeacon_record::wire::{Committed, SourceState};
use beeacon_record::{
    AgentId, BatchError, Epoch, FRAME_VERSION, Frame, FrameEncoder, FrameError, Gap, GapReason, Interval,
    Position, Source,
};
use beeacon_settings::Section;
use bytes::Bytes;
use serde::Serialize;

use self::record::Record;
pub use self::record::RecordError;
use crate::limits::{
    SPOOL_BYTES_MIN, SPOOL_SAVE_BYTES, SPOOL_SAVE_EVERY, SPOOL_SEGMENT_BYTES_MAX, SPOOL_SEGMENT_BYTES_MIN,
    SPOOL_SEGMENTS,
};
use crate::progress::Acked;

/// When frames go through the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolMode {
    /// When the collector does not answer, or unread text is about to be removed.
    #[default]
    Auto,
    /// Always: for hosts whose Docker keeps little, and collectors that are seldom there.
    Always,
    /// Never: what Docker keeps is the only buffer. Sources that cannot be read again are refused then.
    Off,
}

/// What happens when the spool's quota is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Reading stops until there is room. What Docker removes meanwhile becomes a gap.
    #[default]
    Pause,
    /// The oldest frames are dropped, and what they held becomes a gap.
    DropOldest,
}

/// How the spool works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// When it is used; `auto` by default.
    pub mode: SpoolMode,
    /// Where it is; the directory `spool` in the agent's data directory by default.
    pub directory: Option<PathBuf>,
    /// How much of the disk it may take; 1 GiB by default.
    pub bytes_max: u64,
    /// What happens at that quota; `pause` by default.
    pub when_full: WhenFull,
    /// How long the collector may leave something unanswered before frames go to the spool; 2 s by default.
    pub patience: Duration,
    /// Unread text that Docker will remove within this time goes to the spool where the collector does not keep up; 30 s by
    /// default.
    pub at_risk_below: Duration,
    /// Free space of the file system that it leaves alone; 256 MiB by default.
    pub free_bytes_min: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        SpoolConfig {
            mode: SpoolMode::Auto,
            directory: None,
            bytes_max: 1 << 30,
            when_full: WhenFull::Pause,
            patience: Duration::from_secs(2),
            at_risk_below: Duration::from_secs(30),
            free_bytes_min: 256 << 20,
        }
    }
}

impl SpoolConfig {
    /// Reads its keys from a section, each with `self`'s value as the default. Faults are noted in the document.
    #[must_use]
    pub fn read(mut self, section: &mut Section<'_>) -> Self {
        let modes = [("auto", SpoolMode::Auto), ("always", SpoolMode::Always), ("off", SpoolMode::Off)];
        self.mode = section.choice("mode", &modes, self.mode);
        self.directory = section.optional_text("directory").map(PathBuf::from).or(self.directory);
        self.bytes_max = section.bytes("bytes_max", self.bytes_max, SPOOL_BYTES_MIN..=u64::MAX);
        let choices = [("pause", WhenFull::Pause), ("drop_oldest", WhenFull::DropOldest)];
        self.when_full = section.choice("when_full", &choices, self.when_full);
        let patiences = Duration::from_millis(100)..=Duration::from_secs(600);
        self.patience = section.duration("patience", self.patience, patiences);
        let times = Duration::ZERO..=Duration::from_secs(24 * 3600);
        self.at_risk_below = section.duration("at_risk_below", self.at_risk_below, times);
        self.free_bytes_min = section.bytes("free_bytes_min", self.free_bytes_min, 0..=u64::MAX);
        self
    }
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its journal fails.
    #[error("use the spool in {}", directory.display())]
    Journal {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// It holds something that this version does not understand.
    #[error("read record {lsn} of the spool")]
    Record {
        /// Which.
        lsn: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A frame cannot be read or written: a fault of ours.
    #[error("work on a frame of the spool")]
    Frame(#[from] FrameError),
    /// Rows of a frame do not fit together: a fault of ours.
    #[error("work on the rows of a frame of the spool")]
    Rows(#[from] BatchError),
}

/// What became of a frame that was given to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// It survives a power cut.
    Durable,
    /// There is no room; nothing was kept.
    Full,
}

/// A frame to send next.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What [`Spool::committed`], [`Spool::declare`] and [`Spool::cut`] know it by.
    pub id: u64,
    /// The bytes, addressed to the session.
    pub frame: Bytes,
    /// How many rows it has.
    pub rows: usize,
    /// Where its sources stand once it is committed.
    pub ends: Vec<Committed>,
}

/// What the spool says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolStatus {
    /// Frames that wait for the collector.
    pub frames: u64,
    /// What the spool takes of the disk, in bytes.
    pub bytes: u64,
    /// How much it may take, in bytes.
    pub bytes_max: u64,
    /// Whether the quota, or the floor of free space, is reached.
    pub is_full: bool,
    /// Frames dropped for want of room since the start.
    pub dropped_frames: u64,
}

/// The last that the spool holds of a source.
struct Behind {
    last: Lsn,
    acked: Acked,
    is_final: bool,
}

/// What is sent at present: a frame of the journal, a half of one, or losses.
struct Head {
    id: u64,
    /// The record that is done with once this has been committed; none for a first half.
    done: Option<Lsn>,
    frame: Frame,
    intervals: Vec<Interval>,
    declares_losses: bool,
}

/// A spool that the pump and the doors share.
pub type SharedSpool = Arc<Mutex<Spool>>;

/// Locks the spool. A panic elsewhere leaves it as usable as it was.
pub fn lock(spool: &SharedSpool) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub struct Spool {
    directory: PathBuf,
    config: SpoolConfig,
    segment_bytes: u64,
    journal: Journal,
    sent: Cursor,
    positions: Cursor,
    reader: Reader,
    heads: VecDeque<Head>,
    heads_made: u64,
    /// Everything up to it has been committed or dropped; the cursor may be behind.
    done: Lsn,
    done_bytes: u64,
    saved_at: Instant,
    /// Where every source stands, if that is known without the collector.
    known: Option<HashMap<Source, Acked>>,
    known_bytes: u64,
    behind: HashMap<Source, Behind>,
    /// What was dropped and not declared yet, one interval a source.
    losses: BTreeMap<Source, Interval>,
    /// A frame without rows, to carry losses.
    carrier: Option<Frame>,
    encoder: FrameEncoder,
    /// The newest version of frames that the collector reads.
    frame_version: u16,
    frames: u64,
    dropped_frames: u64,
    is_full: bool,
}

impl Spool {
    /// Opens the spool of an agent whose data lie in `data`, and reads what waits in it.
    ///
    /// # Errors
    /// When its directory cannot be used, or it was written by a newer version. Damage is no error.
    pub fn open(config: &SpoolConfig, data: &Path, agent: AgentId) -> Result<Self, SpoolError> {
        let directory = config.directory.clone().unwrap_or_else(|| data.join("spool"));
        let at = |source| SpoolError::Journal { directory: directory.clone(), source };
        let segment_bytes =
            (config.bytes_max / SPOOL_SEGMENTS).clamp(SPOOL_SEGMENT_BYTES_MIN, SPOOL_SEGMENT_BYTES_MAX);
        let defaults = JournalOptions::default();
        let options = JournalOptions {
            segment_bytes,
            record_bytes_max: defaults.record_bytes_max.min(segment_bytes - (16 << 10)),
            queue_bytes_max: 16 << 20,
            journal_bytes_max: config.bytes_max.max(segment_bytes * 2),
            free_bytes_min: config.free_bytes_min,
            ..defaults
        };
        let (journal, report) = Journal::open(&directory, options).map_err(at)?;
        if !report.is_clean() {
            tracing::error!(directory = %directory.display(), "the spool was damaged, what could be read is kept");
        }
        let (sent, positions) =
            (journal.cursor("sent").map_err(at)?, journal.cursor("positions").map_err(at)?);
        let encoder = FrameEncoder::new(agent, Epoch::default(), 0, 1)?;
        let mut spool = Spool {
            config: config.clone(),
            segment_bytes,
            reader: journal.reader(Lsn(sent.get().0 + 1)),
            done: sent.get(),
            sent,
            positions,
            heads: VecDeque::new(),
            heads_made: 0,
            done_bytes: 0,
            saved_at: Instant::now(),
            known: None,
            known_bytes: 0,
            behind: HashMap::new(),
            losses: BTreeMap::new(),
            carrier: None,
            encoder,
            frame_version: FRAME_VERSION,
            frames: 0,
            dropped_frames: 0,
            is_full: false,
            journal,
            directory,
        };
        spool.recover()?;
        Ok(spool)
    }

    fn failed(&self, source: JournalError) -> SpoolError {
        SpoolError::Journal { directory: self.directory.clone(), source }
    }

    fn recover(&mut self) -> Result<(), SpoolError> {
        let mut reader = self.journal.reader(Lsn(self.sent.get().0.min(self.positions.get().0) + 1));
        loop {
            let read = match reader.read() {
                Ok(read) => read,
                // Records before the first kept one are gone because both cursors had passed them.
                Err(JournalError::Truncated { first, .. }) => {
                    reader = self.journal.reader(first);
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let Some(read) = read else { return Ok(()) };
            let (lsn, bytes) = (read.lsn, read.payload.len() as u64);
            let waits = lsn > self.done;
            let is_valid = lsn > self.positions.get();
            match Record::read(read.payload).map_err(|source| SpoolError::Record { lsn: lsn.0, source })? {
                Record::Frame(frame) => {
                    if is_valid {
                        self.fold(&frame.header().intervals);
                    }
                    if waits {
                        self.frames += 1;
                        self.put_behind(lsn, &frame.header().intervals);
                    }
                }
                Record::Positions(states) if is_valid => {
                    self.known_bytes = 0;
                    self.known =
                        Some(states.iter().map(|state| (state.source.clone(), Acked::from(state))).collect());
                }
                Record::Losses(frame) if waits => {
                    let intervals = frame.header().intervals.iter();
                    self.losses.extend(intervals.map(|interval| (interval.source.clone(), interval.clone())));
                    self.carrier = Some(frame);
                }
                Record::Positions(_) | Record::Losses(_) => {}
            }
            self.known_bytes += bytes;
        }
    }

    fn fold(&mut self, intervals: &[Interval]) {
        let Some(known) = &mut self.known else { return };
        for interval in intervals {
            if interval.is_final {
                known.remove(&interval.source);
            } else {
                known.insert(interval.source.clone(), acked(interval));
            }
        }
    }

    fn put_behind(&mut self, last: Lsn, intervals: &[Interval]) {
        for interval in intervals {
            let behind = Behind { last, acked: acked(interval), is_final: interval.is_final };
            self.behind.insert(interval.source.clone(), behind);
        }
    }

    /// How it was configured.
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// Where every source stands, if the spool alone knows it.
    pub fn positions(&self) -> Option<&HashMap<Source, Acked>> {
        self.known.as_ref()
    }

    /// Whether something waits for the collector.
    pub fn has_waiting(&self) -> bool {
        self.frames > 0 || !self.losses.is_empty() || !self.heads.is_empty()
    }

    /// Whether something of this source waits: then its next lines have to go the same way.
    pub fn holds(&self, source: &Source) -> bool {
        self.behind.contains_key(source) || self.losses.contains_key(source)
    }

    /// What it says of itself.
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus {
            frames: self.frames,
            bytes: self.journal.statistics().allocated_bytes,
            bytes_max: self.config.bytes_max,
            is_full: self.is_full,
            dropped_frames: self.dropped_frames,
        }
    }

    /// Puts what waits over what the collector says, which gives where reading goes on.
    pub fn overlay(&self, states: &mut HashMap<Source, Acked>) {
        for (source, interval) in &self.losses {
            put_over(states, source, &acked(interval), interval.is_final);
        }
        for (source, behind) in &self.behind {
            put_over(states, source, &behind.acked, behind.is_final);
        }
    }

    // === Keeping ===

    /// From now on the spool knows where every source stands. `false` when there is no room for that.
    ///
    /// # Errors
    /// When the journal has failed.
    pub fn know(&mut self, states: &HashMap<Source, Acked>) -> Result<bool, SpoolError> {
        let list: Vec<SourceState> = states
            .iter()
            .map(|(source, acked)| SourceState {
                source: source.clone(),
                committed: acked.committed,
                open: acked.open.clone(),
                cursor: acked.cursor.clone(),
            })
            .collect();
        let Some(lsn) = self.append(record::positions(&list))? else { return Ok(false) };
        self.move_cursor(&self.positions, Lsn(lsn.0 - 1))?;
        self.known = Some(states.clone());
        self.known_bytes = 0;
        Ok(true)
    }

    /// What the spool knows of sources is void from now on, because a frame is about to go past it. Costs a sync when
    /// something was known, and never needs room.
    ///
    /// # Errors
    /// When the journal has failed.
    pub fn unknow(&mut self) -> Result<(), SpoolError> {
        if self.known.take().is_some() {
            self.move_cursor(&self.positions, self.journal.synced_lsn())?;
        }
        Ok(())
    }

    /// Keeps a frame and returns when it is durable. Blocks for a sync.
    ///
    /// # Errors
    /// When the journal has failed.
    pub fn keep(&mut self, frame: Bytes) -> Result<Kept, SpoolError> {
        if !self.make_room()? {
            return Ok(Kept::Full);
        }
        let parsed = Frame::parse(frame.clone())?;
        let bytes = frame.len() as u64;
        match self.journal.append(record::frame(frame)) {
            Ok(lsn) => {
                self.is_full = false;
                self.frames += 1;
                self.fold(&parsed.header().intervals);
                self.put_behind(lsn, &parsed.header().intervals);
                self.known_bytes += bytes;
                if self.known_bytes >= self.segment_bytes
                    && let Some(known) = self.known.take()
                {
                    // So that old segments are not kept for the positions in them. Tried again when there was no room.
                    let is_written = self.know(&known)?;
                    if !is_written {
                        self.known = Some(known);
                    }
                }
                Ok(Kept::Durable)
            }
            Err(JournalError::TooLarge { .. }) => {
                let intervals = parsed.header().intervals.clone();
                let Some((first, second)) = split::halves(&parsed, &intervals, &mut self.encoder)? else {
                    return Err(FrameError::TooLarge {
                        what: "spooled frame",
                        bytes,
                        limit: self.segment_bytes,
                    }
                    .into());
                };
                match self.keep(first.bytes().clone())? {
                    Kept::Durable => self.keep(second.bytes().clone()),
                    Kept::Full => Ok(Kept::Full),
                }
            }
            Err(error) if error.duty() == Duty::Retry => {
                self.note_full(&error);
                Ok(Kept::Full)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Appends a small record of the spool's own; none when there is no room.
    fn append(&mut self, payload: beeacon_journal::Payload) -> Result<Option<Lsn>, SpoolError> {
        match self.journal.append(payload) {
            Ok(lsn) => Ok(Some(lsn)),
            Err(error) if error.duty() == Duty::Retry => {
                self.note_full(&error);
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn note_full(&mut self, why: &dyn std::fmt::Display) {
        if !self.is_full {
            tracing::warn!(%why, "the spool is full");
        }
        self.is_full = true;
    }

    /// A segment's worth stays free for positions and losses.
    fn has_room(&self) -> bool {
        let taken = self.journal.statistics().allocated_bytes;
        taken.saturating_add(2 * self.segment_bytes) <= self.config.bytes_max
    }

    /// Whether there is room for a frame, after dropping the oldest ones where that is wanted.
    fn make_room(&mut self) -> Result<bool, SpoolError> {
        while !self.has_room() {
            // What has been committed goes first.
            if self.save()? > 0 {
                continue;
            }
            let may_drop = self.config.when_full == WhenFull::DropOldest && self.frames > 0;
            if !may_drop || !self.drop_oldest()? {
                self.note_full(&"its quota is reached");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops about a segment of the oldest frames, after it is on record what they were. `false` when that freed nothing.
    fn drop_oldest(&mut self) -> Result<bool, SpoolError> {
        if let Some(known) = self.known.take() {
            let is_written = self.know(&known)?;
            self.known = Some(known);
            if !is_written {
                return Ok(false);
            }
        } else {
            self.move_cursor(&self.positions, self.journal.synced_lsn())?;
        }
        let mut reader = self.journal.reader(Lsn(self.done.0 + 1));
        let (mut bytes, mut last, mut frames) = (0, self.done, 0);
        let mut losses = self.losses.clone();
        while bytes < self.segment_bytes {
            let Some(read) = reader.read().map_err(|error| self.failed(error))? else { break };
            bytes += read.payload.len() as u64;
            last = read.lsn;
            let lsn = read.lsn.0;
            let read = Record::read(read.payload).map_err(|source| SpoolError::Record { lsn, source })?;
            let Record::Frame(frame) = read else { continue };
            frames += 1;
            for interval in &frame.header().intervals {
                lose(&mut losses, interval);
            }
            if self.carrier.is_none() {
                self.carrier = Some(split::emptied(&frame, Vec::new(), &mut self.encoder)?);
            }
        }
        if frames == 0 {
            return Ok(false);
        }
        for frame in self.loss_frames(&losses)? {
            if self.append(record::losses(frame.bytes().clone()))?.is_none() {
                return Ok(false);
            }
        }
        self.losses = losses;
        self.heads.clear();
        self.done = last;
        self.frames = self.frames.saturating_sub(frames);
        self.dropped_frames += frames;
        self.behind.retain(|_, behind| behind.last > last);
        self.reader = self.journal.reader(Lsn(last.0 + 1));
        tracing::warn!(frames, "the spool is full, its oldest frames were dropped");
        Ok(self.save()? > 0)
    }

    /// Frames that declare these losses.
    fn loss_frames(&self, losses: &BTreeMap<Source, Interval>) -> Result<Vec<Frame>, SpoolError> {
        let Some(carrier) = &self.carrier else { return Ok(Vec::new()) };
        let intervals: Vec<Interval> = losses.values().cloned().collect();
        let frames = intervals
            .chunks(BATCH_SOURCES_MAX)
            .map(|chunk| Ok(Frame::parse(carrier.readdress(Epoch::default(), chunk.to_vec())?)?));
        frames.collect()
    }

    // === Sending ===

    /// From now on [`Spool::next`] gives frames of this version at most. What is kept stays as it is.
    pub fn set_frame_version(&mut self, version: u16) {
        self.frame_version = version;
    }

    /// What to send next, for this session; the same again until [`Spool::committed`] is told of it.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next(&mut self, epoch: Epoch) -> Result<Option<Outgoing>, SpoolError> {
        if self.heads.is_empty() && !self.losses.is_empty() {
            for frame in self.loss_frames(&self.losses)? {
                let head = self.head(frame, None, true);
                self.heads.push_back(head);
            }
        }
        while self.heads.is_empty() {
            let read = match self.reader.read() {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(None),
                Err(JournalError::Truncated { first, .. }) => {
                    self.reader = self.journal.reader(first);
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let lsn = read.lsn;
            self.done_bytes += read.payload.len() as u64;
            match Record::read(read.payload).map_err(|source| SpoolError::Record { lsn: lsn.0, source })? {
                Record::Frame(frame) => {
                    let head = self.head(frame, Some(lsn), false);
                    self.heads.push_back(head);
                }
                Record::Positions(_) | Record::Losses(_) => self.done = self.done.max(lsn),
            }
        }
        let Some(head) = self.heads.front_mut() else { return Ok(None) };
        match head.frame.in_version(self.frame_version, &mut self.encoder) {
            Ok(frame) => head.frame = frame,
            // An older version takes more room.
            Err(FrameError::TooLarge { .. }) => {
                let id = head.id;
                self.cut(id)?;
                return self.next(epoch);
            }
            Err(error) => return Err(error.into()),
        }
        let frame = head.frame.readdress(epoch, head.intervals.clone())?;
        let end = |interval: &Interval| Committed { source: interval.source.clone(), position: interval.to };
        let ends = head.intervals.iter().map(end).collect();
        let rows = usize::try_from(head.frame.header().row_count).unwrap_or(usize::MAX);
        Ok(Some(Outgoing { id: head.id, frame, rows, ends }))
    }

    fn head(&mut self, frame: Frame, done: Option<Lsn>, declares_losses: bool) -> Head {
        self.heads_made += 1;
        let intervals = frame.header().intervals.clone();
        Head { id: self.heads_made, done, frame, intervals, declares_losses }
    }

    /// The head of this id, unless it was dropped while it was under way.
    fn take_head(&mut self, id: u64) -> Option<Head> {
        self.heads.pop_front_if(|head| head.id == id)
    }

    /// The collector has committed what [`Spool::next`] gave under this id.
    ///
    /// # Errors
    /// When the journal has failed.
    pub fn committed(&mut self, id: u64) -> Result<(), SpoolError> {
        let Some(head) = self.take_head(id) else { return Ok(()) };
        if head.declares_losses {
            for interval in &head.intervals {
                self.losses.remove(&interval.source);
            }
        }
        if let Some(done) = head.done {
            self.done = self.done.max(done);
            self.frames = self.frames.saturating_sub(1);
            self.behind.retain(|_, behind| behind.last > done);
        }
        let is_due = self.done_bytes >= SPOOL_SAVE_BYTES || self.saved_at.elapsed() >= SPOOL_SAVE_EVERY;
        if is_due || !self.has_waiting() {
            self.save()?;
        }
        Ok(())
    }

    /// The collector expects some sources further back than the frame to send starts: what lies between is nowhere any more,
    /// and the frame declares it. `false` when that changes nothing.
    pub fn declare(&mut self, id: u64, expected: &[Committed]) -> bool {
        let Some(head) = self.heads.front_mut().filter(|head| head.id == id) else { return true };
        let mut has_changed = false;
        for interval in &mut head.intervals {
            let place = expected.iter().find(|place| place.source == interval.source);
            let Some(place) = place.map(|place| place.position).filter(|place| *place < interval.from) else {
                continue;
            };
            match &mut interval.gap {
                Some(gap) if gap.from <= place => {}
                Some(gap) => {
                    gap.from = place;
                    has_changed = true;
                }
                None => {
                    interval.gap = Some(gap(place, GapReason::Unknown, 0));
                    has_changed = true;
                }
            }
        }
        has_changed
    }

    /// The collector does not take the frame whole: cuts it in two. A single row that is refused is left out, and its place
    /// declared; gives how many rows that were.
    ///
    /// # Errors
    /// When the frame cannot be read.
    pub fn cut(&mut self, id: u64) -> Result<u64, SpoolError> {
        let Some(head) = self.take_head(id) else { return Ok(0) };
        let declares_losses = head.declares_losses;
        if let Some((first, second)) = split::halves(&head.frame, &head.intervals, &mut self.encoder)? {
            for (frame, done) in [(second, head.done), (first, None)] {
                let half = self.head(frame, done, declares_losses);
                self.heads.push_front(half);
            }
            return Ok(0);
        }
        let rows = u64::from(head.frame.header().row_count);
        let intervals: Vec<Interval> = head.intervals.iter().map(lost).collect();
        let frame = split::emptied(&head.frame, intervals, &mut self.encoder)?;
        let emptied = self.head(frame, head.done, declares_losses);
        self.heads.push_front(emptied);
        Ok(rows)
    }

    /// Makes it durable what has been sent; gives how many segments that freed.
    fn save(&mut self) -> Result<usize, SpoolError> {
        self.done_bytes = 0;
        self.saved_at = Instant::now();
        self.move_cursor(&self.sent, self.done)?;
        if self.known.is_none() {
            self.move_cursor(&self.positions, self.journal.synced_lsn())?;
        }
        self.journal.truncate().map_err(|error| self.failed(error))
    }

    fn move_cursor(&self, cursor: &Cursor, lsn: Lsn) -> Result<(), SpoolError> {
        if lsn > cursor.get() {
            cursor.advance(lsn).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Ends in order.
    ///
    /// # Errors
    /// When the journal has failed.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.save()?;
        let directory = self.directory.clone();
        self.journal.close().map_err(|source| SpoolError::Journal { directory, source })
    }
}

fn acked(interval: &Interval) -> Acked {
    Acked { committed: interval.to, open: interval.open.clone(), cursor: interval.cursor.clone() }
}

fn put_over(states: &mut HashMap<Source, Acked>, source: &Source, acked: &Acked, is_final: bool) {
    let is_ahead = states.get(source).is_some_and(|known| known.committed > acked.committed);
    if is_final {
        states.remove(source);
    } else if !is_ahead {
        states.insert(source.clone(), acked.clone());
    }
}

fn gap(from: Position, reason: GapReason, bytes: u64) -> Gap {
    Gap { from, reason, bytes, timestamp_before_ns: 0, timestamp_after_ns: 0 }
}

/// The interval that declares all of this one as missing.
fn lost(interval: &Interval) -> Interval {
    let (from, to) = (interval.from, interval.to);
    let bytes = if from.major == to.major { to.minor - from.minor } else { to.minor };
    // Only a file's positions count bytes.
    let bytes = if interval.source.as_str().contains("file:") { bytes } else { 0 };
    let before = interval.gap.as_ref();
    let start = before.map_or(from, |gap| gap.from.min(from));
    let bytes = bytes + before.map_or(0, |gap| gap.bytes);
    let mut lost = Interval { from: to, gap: Some(gap(start, GapReason::Policy, bytes)), ..interval.clone() };
    lost.open.retain(|open| *open < to);
    lost
}

/// Adds an interval to what is missing of its source.
fn lose(losses: &mut BTreeMap<Source, Interval>, interval: &Interval) {
    let mut missing = lost(interval);
    if let Some(known) = losses.get(&interval.source)
        && let (Some(missing), Some(known)) = (&mut missing.gap, &known.gap)
    {
        missing.from = missing.from.min(known.from);
        missing.bytes += known.bytes;
    }
    losses.insert(interval.source.clone(), missing);
}

#[cfg(test)]
mod tests;

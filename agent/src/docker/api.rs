//! Reads one container's log through the Docker API: two sources, one per output.
//!
//! What always holds: a piece read again gets the position it had before ([`super::api_stream::Ordinals`]), so an attach may
//! start anywhere at or before what is missing; an open line of one output is not passed by that output's position and does
//! not concern the other; when the last committed entry is gone from Docker, what may have been lost with it is a gap.
//!
//! One attach sees one run of the container, so a stream's end means little: it is attached again until Docker says that the
//! container has stopped. The bytes are fetched by [`super::attach`].

use std::time::Duration;

use beeacon_record::{GapReason, IdentityError, Interval, Position, Source, Stream};

use super::api_stream::{Ordinals, Recent};
use super::cursor::{read_since, write_since};
use super::merge::{Merger, Piece};
use crate::clock::ClockMark;
use crate::limits::CLOCK_STEP_MARGIN_NS;
use crate::multiline::{Grouper, Grouping};
use crate::progress::{self, Acked, Progress, Sink};

/// How far before the earliest position Docker is asked, in nanoseconds. stdout and stderr are stamped apart and written
/// later, so entries of the one may stand behind entries of the other with a higher timestamp; older daemons leave out each
/// entry below `since`, wherever it stands.
const MARGIN_NS: i64 = 1_000_000_000;

/// A piece as an attach hands it over.
pub struct OwnedPiece {
    /// The output.
    pub stream: Stream,
    /// Its timestamp.
    pub timestamp_ns: i64,
    /// Whether a newline stood behind it.
    pub ends_line: bool,
    /// Its text: raw, so this type has no `Debug`.
    pub text: Vec<u8>,
}

/// One output of a container.
struct Side {
    progress: Progress,
    ordinals: Ordinals,
    recent: Recent,
    merger: Merger,
    grouper: Option<Grouper>,
    /// Whether the entry right below the committed position has been seen, or need not be.
    is_linked: bool,
    /// Whether the next piece is the first of another attach. Until it comes the open line is kept: Docker may have nothing more.
    is_restarting: bool,
    since_ns: Option<i64>,
    /// How the clock stood when the place was reached.
    clock: Option<ClockMark>,
}

impl Side {
    fn new(id: &str, stream: Stream) -> Result<Self, IdentityError> {
        let source = Source::new(format!("docker-api:{id}:{}", stream.as_str()))?;
        Ok(Side {
            progress: Progress::new(source),
            ordinals: Ordinals::default(),
            recent: Recent::default(),
            merger: Merger::default(),
            grouper: None,
            is_linked: false,
            is_restarting: false,
            since_ns: None,
            clock: None,
        })
    }

    fn rewind(&mut self, acked: Option<Acked>) {
        let known = acked.as_ref().map(|acked| {
            let from_position = (i64::try_from(acked.committed.major).unwrap_or(i64::MAX), None);
            read_since(&acked.cursor).unwrap_or(from_position)
        });
        self.since_ns = known.map(|(since_ns, _)| since_ns);
        self.clock = known.and_then(|(_, clock)| clock);
        self.progress.acked = acked;
        self.progress.rewind(Position::START);
        self.restart();
    }

    /// Reads again without giving out again what was read.
    fn reattach(&mut self) {
        if self.progress.to() > Position::START {
            self.since_ns = Some(self.since_now());
        }
        self.progress.resume();
        self.is_restarting = true;
    }

    fn restart(&mut self) {
        self.ordinals = Ordinals::default();
        self.recent.clear();
        self.merger.clear();
        if let Some(grouper) = &mut self.grouper {
            grouper.clear();
        }
        self.is_restarting = false;
        self.is_linked = self.progress.floor() == Position::START;
    }

    fn since_now(&self) -> i64 {
        match self.since_ns {
            // Nothing was read since the last attach, or not as far as before: the old place is still the right one.
            Some(since_ns) if self.ordinals.end() <= self.progress.floor() => since_ns,
            _ => self.ordinals.since_ns(),
        }
    }

    /// `false` when the batch must be closed first.
    fn push(&mut self, piece: &OwnedPiece, sink: &mut Sink<'_>) -> bool {
        if self.is_restarting {
            self.restart();
        }
        if self.recent.repeats(piece.timestamp_ns, piece.ends_line, &piece.text) {
            return true;
        }
        let mut ordinals = self.ordinals;
        let position = ordinals.next(piece.timestamp_ns);
        let floor = self.progress.floor();
        if !self.is_linked {
            if position.major > floor.major && !self.progress.declare_gap(position, GapReason::Rotated, 0) {
                return false;
            }
            self.is_linked = true;
        }
        self.ordinals = ordinals;
        self.recent.note(piece.timestamp_ns, piece.ends_line, &piece.text);
        self.progress.saw(piece.timestamp_ns);
        let given = Piece {
            stream: piece.stream,
            timestamp_ns: piece.timestamp_ns,
            position,
            ends_line: piece.ends_line,
            text: &piece.text,
        };
        let (progress, grouper, safe_cut) = (&mut self.progress, &mut self.grouper, sink.safe_cut);
        self.merger.push(given, safe_cut, &mut |row| progress.join(row, grouper, sink));
        self.settle();
        true
    }

    /// Moves the position up to the first row that has not been given out.
    fn settle(&mut self) {
        let open = progress::open_lines(&self.merger, &self.grouper);
        let to = open.min().unwrap_or(self.ordinals.end());
        self.progress.advance(to);
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        let (progress, grouper) = (&mut self.progress, &mut self.grouper);
        self.merger.end(&mut |row| progress.join(row, grouper, sink));
        progress.end_groups(grouper, sink);
        if self.ordinals != Ordinals::default() {
            self.settle();
        }
    }
}

/// A container's log, read through the API.
pub struct ApiSource {
    stdout: Side,
    stderr: Side,
    /// Which attach is listened to; pieces of others are dropped.
    pub attach: u64,
    /// Whether the stream has ended, or was never opened.
    pub has_ended: bool,
    /// Whether Docker has no log for this container: not asked again until it is started anew.
    pub is_unsupported: bool,
}

impl ApiSource {
    /// The log of the container with this id.
    ///
    /// # Errors
    /// When the id makes no source name.
    pub fn new(id: &str) -> Result<Self, IdentityError> {
        Ok(ApiSource {
            stdout: Side::new(id, Stream::Stdout)?,
            stderr: Side::new(id, Stream::Stderr)?,
            attach: 0,
            has_ended: true,
            is_unsupported: false,
        })
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.stdout, &self.stderr]
    }

    fn sides_mut(&mut self) -> [&mut Side; 2] {
        [&mut self.stdout, &mut self.stderr]
    }

    /// How far each output has been read.
    pub fn progress(&mut self) -> [&mut Progress; 2] {
        let ApiSource { stdout, stderr, .. } = self;
        [&mut stdout.progress, &mut stderr.progress]
    }

    /// Forgets what has been read beyond the collector's positions. `acked` gives them per source.
    pub fn rewind(&mut self, acked: impl Fn(&Source) -> Option<Acked>) {
        for side in self.sides_mut() {
            let state = acked(&side.progress.source);
            side.rewind(state);
        }
    }

    /// Prepares for another attach, which reads again what this one has read last.
    pub fn reattach(&mut self) {
        for side in self.sides_mut() {
            side.reattach();
        }
    }

    /// From when Docker must be asked; `None` for everything it has. Where the clock has been set back since the place was reached,
    /// what came after it has earlier timestamps, so Docker is asked for that much more.
    pub fn since_ns(&self, now: ClockMark) -> Option<i64> {
        let since = |side: &&Side| {
            let step_ns = side.clock.map_or(0, |clock| now.step_back_ns(clock));
            let margin_ns = if step_ns > 0 { step_ns.saturating_add(CLOCK_STEP_MARGIN_NS) } else { 0 };
            side.since_ns.map(|since_ns| since_ns.saturating_sub(margin_ns))
        };
        let known = self.sides().iter().filter_map(since).min();
        known.map(|since_ns| since_ns.saturating_sub(MARGIN_NS).max(0))
    }

    /// The clock was set back while the stream was open, by so much, or nobody knows by how much: Docker is asked for that much more, or
    /// for everything. What is read again has the positions that it had.
    pub fn look_back(&mut self, by_ns: Option<i64>) {
        let by_ns = by_ns.map_or(i64::MAX, |by_ns| by_ns.saturating_add(CLOCK_STEP_MARGIN_NS));
        for side in self.sides_mut() {
            side.ordinals.look_back(by_ns);
            side.since_ns = side.since_ns.map(|since_ns| since_ns.saturating_sub(by_ns).max(0));
        }
    }

    /// Pieces have been read while the clock stood so. `last_ns` is the timestamp of the last: one that lies ahead was written before
    /// the clock was set back, and what was written after that is still to come.
    pub fn note_clock(&mut self, now_ns: i64, last_ns: i64, now: ClockMark) {
        if last_ns <= now_ns {
            self.sides_mut().into_iter().for_each(|side| side.clock = Some(now));
        }
    }

    /// Takes one piece. `false` when the batch must be closed first; then the piece must be given again.
    #[must_use]
    pub fn push(&mut self, piece: &OwnedPiece, sink: &mut Sink<'_>) -> bool {
        match piece.stream {
            Stream::Stdout => self.stdout.push(piece, sink),
            Stream::Stderr => self.stderr.push(piece, sink),
        }
    }

    /// Joins lines from now on, or no more. Open groups are forgotten: call it before reading starts again.
    pub fn set_grouping(&mut self, grouping: Option<&Grouping>, wait: Duration) {
        for side in self.sides_mut() {
            side.grouper = grouping.cloned().map(|grouping| Grouper::new(grouping, wait));
        }
    }

    /// Gives out the groups that nobody adds to any more.
    pub fn end_idle(&mut self, sink: &mut Sink<'_>) {
        for side in self.sides_mut() {
            // What is read again after a new attach is still to come.
            if !side.is_restarting && side.progress.end_idle(&mut side.grouper, sink) {
                side.settle();
            }
        }
    }

    /// The container has ended and its stream with it: so have the open lines.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        for side in self.sides_mut() {
            side.end(sink);
        }
    }

    /// The container is gone: the next intervals are the last.
    pub fn finish(&mut self) {
        for side in self.sides_mut() {
            if !side.progress.is_final()
                && (side.progress.to() > Position::START || side.progress.acked.is_some())
            {
                side.progress.finish();
            }
        }
    }

    /// How many of its sources say that they have ended.
    pub fn final_count(&self) -> usize {
        self.sides().iter().filter(|side| side.progress.is_final()).count()
    }

    /// How many rows have been put into batches.
    pub fn rows(&self) -> u64 {
        self.sides().iter().map(|side| side.progress.rows).sum()
    }

    /// How many bytes of open lines are held.
    pub fn open_bytes(&self) -> usize {
        self.sides().iter().map(|side| progress::open_bytes(&side.merger, &side.grouper)).sum()
    }

    /// The intervals for the batch being closed.
    pub fn take_intervals(&mut self) -> Vec<Interval> {
        self.sides_mut()
            .into_iter()
            .filter_map(|side| {
                let clock = side.clock.unwrap_or_else(ClockMark::now);
                let cursor = write_since(side.since_now(), clock);
                side.progress.take_interval(Vec::new(), cursor)
            })
            .collect()
    }
}

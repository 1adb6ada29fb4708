//! How far one source has been read, and what the next batch must say about it.
//!
//! What always holds: positions only grow; nothing counts as committed before the collector said so; a line below the
//! committed position is given out only if it was open when that position was committed; a declared gap stands at the start of
//! an interval, never inside.

use std::collections::HashSet;
use std::time::Instant;

use beeacon_record::wire::SourceState;
use beeacon_record::{
    BatchBuilder, Gap, GapReason, Interval, Level, Line, OriginId, Position, Source, Stream,
};

use crate::docker::merge::{End, Merger, Row, SafeCut};
use crate::level;
use crate::metrics::Metrics;
use crate::multiline::{Grouper, Known};
use crate::shaping::Shaping;
use crate::timestamp::LineTime;

/// Where a source's open lines and groups stand.
pub fn open_lines<'a>(
    merger: &Merger,
    grouper: &'a Option<Grouper>,
) -> impl Iterator<Item = Position> + use<'a> {
    grouper.iter().flat_map(Grouper::open).chain(merger.open())
}

/// Where reading must start again so that a source's open lines and groups are seen from their start; `at` where there is none.
pub fn resume(merger: &Merger, grouper: &Option<Grouper>, at: Position) -> Position {
    grouper.iter().flat_map(Grouper::open).chain(merger.resume()).min().unwrap_or(at)
}

/// How many bytes a source's open lines and groups hold.
pub fn open_bytes(merger: &Merger, grouper: &Option<Grouper>) -> usize {
    merger.bytes() + grouper.as_ref().map_or(0, Grouper::bytes)
}

/// What the collector last confirmed for a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Everything below is committed, but for `open`.
    pub committed: Position,
    /// Lines below `committed` that are still to come.
    pub open: Vec<Position>,
    /// The cursor of the last committed interval.
    pub cursor: Vec<u8>,
}

impl From<&SourceState> for Acked {
    fn from(state: &SourceState) -> Self {
        Acked { committed: state.committed, open: state.open.clone(), cursor: state.cursor.clone() }
    }
}

/// Where rows go, and what is the same for all of them.
pub struct Sink<'a> {
    /// The batch being built.
    pub builder: &'a mut BatchBuilder,
    /// The origins of the container's stdout and stderr in that batch.
    pub origins: [OriginId; 2],
    /// Now, in nanoseconds since 1970.
    pub observed_ns: i64,
    /// How many rows the batch may have.
    pub rows_max: usize,
    /// Whether the container has a terminal, whose lines end in a carriage return.
    pub has_terminal: bool,
    /// Where an over-long line may be cut.
    pub safe_cut: SafeCut<'a>,
    /// What is counted.
    pub metrics: &'a Metrics,
}

impl Sink<'_> {
    /// Whether the batch must be closed before anything more is added.
    pub fn is_full(&self) -> bool {
        self.builder.is_full() || self.builder.rows() >= self.rows_max
    }
}

/// How reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new is there.
    Idle,
    /// Something was read; there may be more.
    Progress,
    /// The batch must be closed first: it is full, or a gap must stand at the start of an interval.
    Flush,
}

/// How far a source has been read.
pub struct Progress {
    /// The source.
    pub source: Source,
    /// What the collector confirmed.
    pub acked: Option<Acked>,
    /// Rows below are given out only if they stand in `reopened`.
    floor: Position,
    reopened: Vec<Position>,
    /// Start of the next interval.
    from: Position,
    /// Where reading has come to.
    to: Position,
    gap: Option<Gap>,
    is_touched: bool,
    is_final: bool,
    last_timestamp_ns: i64,
    /// Rows that the collector refuses even alone.
    poisoned: HashSet<Position>,
    /// Which rows are left out by configuration.
    pub shaping: Shaping,
    /// Where lines have their time, where they have one.
    pub line_time: Option<LineTime>,
    /// How many rows have been put into batches, again after a rewind.
    pub rows: u64,
    /// How many were, since the last interval.
    dropped_rows: u32,
}

impl Progress {
    /// A source of which nothing was read.
    pub fn new(source: Source) -> Self {
        Progress {
            source,
            acked: None,
            floor: Position::START,
            reopened: Vec::new(),
            from: Position::START,
            to: Position::START,
            gap: None,
            is_touched: false,
            is_final: false,
            last_timestamp_ns: 0,
            poisoned: HashSet::new(),
            shaping: Shaping::default(),
            line_time: None,
            rows: 0,
            dropped_rows: 0,
        }
    }

    /// Starts again from what the collector confirmed, or from `start` if it knows nothing.
    pub fn rewind(&mut self, start: Position) {
        let acked = self.acked.clone().unwrap_or(Acked { committed: start, ..Acked::default() });
        self.floor = acked.committed;
        self.reopened = acked.open;
        self.from = self.floor;
        self.to = self.floor;
        self.gap = None;
        self.is_touched = false;
        self.is_final = false;
        self.last_timestamp_ns = 0;
        self.dropped_rows = 0;
    }

    /// Keeps what was read, and gives nothing of it out again when it is read once more.
    pub fn resume(&mut self) {
        self.floor = self.floor.max(self.to);
        self.reopened.clear();
    }

    /// Where the collector's part ends; rows below are known to it.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// Where reading has come to.
    pub fn to(&self) -> Position {
        self.to
    }

    /// Docker's time of the line that was read last, in nanoseconds since 1970; 0 before the first.
    pub fn last_timestamp_ns(&self) -> i64 {
        self.last_timestamp_ns
    }

    /// Whether the batch being built has something of this source.
    pub fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// Whether the end of the source has been put into an interval.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Everything below `to` has been read.
    pub fn advance(&mut self, to: Position) {
        if to > self.to {
            self.to = to;
            self.is_touched = true;
        }
    }

    /// An open line has ended though nothing was read.
    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    /// The source has ended: the next interval says so.
    pub fn finish(&mut self) {
        self.is_final = true;
        self.is_touched = true;
    }

    /// Declares that what lay between the last position read and `to` is missing. `false` when the batch must be closed first.
    #[must_use]
    pub fn declare_gap(&mut self, to: Position, reason: GapReason, bytes: u64) -> bool {
        if to <= self.to {
            return true;
        }
        if self.is_touched {
            return false;
        }
        let timestamp_before_ns = self.last_timestamp_ns;
        let from = self.from;
        let gap = Gap { from, reason, bytes, timestamp_before_ns, timestamp_after_ns: 0 };
        self.gap = Some(gap);
        self.from = to;
        self.to = to;
        self.is_touched = true;
        true
    }

    /// Marks rows that the collector refuses even alone.
    pub fn poison(&mut self, position: Position) {
        self.poisoned.insert(position);
    }

    /// Whether the collector refuses this row even alone.
    pub fn is_poisoned(&self, position: Position) -> bool {
        !self.poisoned.is_empty() && self.poisoned.contains(&position)
    }

    /// Whether a row at this position is to be given out.
    pub fn wants(&self, position: Position) -> bool {
        position >= self.floor || self.reopened.contains(&position)
    }

    /// Notes a timestamp for the bounds of gaps.
    pub fn saw(&mut self, timestamp_ns: i64) {
        self.last_timestamp_ns = timestamp_ns;
        if let Some(gap) = &mut self.gap
            && gap.timestamp_after_ns == 0
        {
            gap.timestamp_after_ns = timestamp_ns;
        }
    }

    /// Adds a row, or keeps it for the group that it is a part of.
    pub fn join(&mut self, row: Row<'_>, grouper: &mut Option<Grouper>, sink: &mut Sink<'_>) {
        let Some(grouper) = grouper else { return self.give(row, sink) };
        // At most four positions.
        let (floor, reopened) = (self.floor, self.reopened.clone());
        let known = Known { floor, reopened: &reopened };
        grouper.push(row, Instant::now(), known, &mut |row| self.give(row, sink));
    }

    /// Adds the groups that nobody adds to any more.
    pub fn end_idle(&mut self, grouper: &mut Option<Grouper>, sink: &mut Sink<'_>) -> bool {
        let Some(grouper) = grouper else { return false };
        let has_ended = grouper.end_idle(Instant::now(), &mut |row| self.give(row, sink));
        self.is_touched |= has_ended;
        has_ended
    }

    /// Adds all groups: nothing more will come.
    pub fn end_groups(&mut self, grouper: &mut Option<Grouper>, sink: &mut Sink<'_>) {
        let Some(grouper) = grouper else { return };
        let has_ended = grouper.end(Instant::now(), &mut |row| self.give(row, sink));
        self.is_touched |= has_ended;
    }

    /// Adds a row whose text stands in `row`.
    pub fn give(&mut self, row: Row<'_>, sink: &mut Sink<'_>) {
        if !self.wants(row.position) {
            return;
        }
        if self.is_poisoned(row.position) {
            sink.metrics.quarantined_rows.inc();
            return;
        }
        sink.builder.text_mut().extend_from_slice(row.text);
        if !self.finish_row(row.stream, row.timestamp_ns, row.position, row.end == End::Newline, sink) {
            return;
        }
        if row.part > 0 || row.end == End::Cut {
            sink.builder.attribute("part", &row.part.to_string());
        }
        if row.end == End::Unfinished {
            sink.builder.attribute("truncated", "eof");
        }
    }

    /// Ends a row whose text has been appended to the builder. The caller has asked [`Progress::wants`]. `false` when the row is
    /// left out by configuration, which is counted.
    pub fn finish_row(
        &mut self,
        stream: Stream,
        timestamp_ns: i64,
        position: Position,
        ends_line: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        // Only a terminal writes the carriage return itself; elsewhere it is the program's own, and stays. Those in the midst of
        // a line stay everywhere: a progress bar is one line with all that it showed.
        if sink.has_terminal && ends_line && sink.builder.unfinished_text().last() == Some(&b'\r') {
            sink.builder.text_mut().pop();
        }
        let [stdout, stderr] = sink.origins;
        let origin = if stream == Stream::Stderr { stderr } else { stdout };
        let text = sink.builder.unfinished_text();
        let level: Level = level::detect(text);
        if !self.shaping.keeps(position, timestamp_ns, level, sink.metrics) {
            let length = text.len();
            let start = sink.builder.text_bytes().saturating_sub(length);
            sink.builder.text_mut().truncate(start);
            self.dropped_rows = self.dropped_rows.saturating_add(1);
            self.is_touched = true;
            return false;
        }
        let own = self.line_time.as_ref().and_then(|form| form.read(text, timestamp_ns));
        own.inspect(|_| {
            sink.metrics.own_timestamps.inc();
        });
        let timestamp_ns = own.unwrap_or(timestamp_ns);
        sink.metrics.line_bytes.inc_by(text.len() as u64);
        sink.metrics.lines.inc();
        self.rows += 1;
        sink.builder.finish_line(Line {
            origin,
            timestamp_ns,
            observed_timestamp_ns: sink.observed_ns,
            stream,
            level,
            position,
        });
        self.is_touched = true;
        true
    }

    /// The interval for the batch being closed, if there is something to say.
    pub fn take_interval(&mut self, open: Vec<Position>, cursor: Vec<u8>) -> Option<Interval> {
        if !self.is_touched {
            return None;
        }
        let mut interval = Interval::new(self.source.clone(), self.from, self.to);
        interval.open = open;
        interval.cursor = cursor;
        interval.gap = self.gap.take();
        interval.is_final = self.is_final;
        interval.dropped_rows = std::mem::take(&mut self.dropped_rows);
        self.from = self.to;
        self.is_touched = false;
        Some(interval)
    }
}

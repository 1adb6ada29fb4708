//! What one segment's bytes are worth: which records are kept, what is lost, what was never finished.
//!
//! - A record is **proven** durable when something was written after its sync: a record of a later
//!   group, a seal, or a later segment. Damage to a proven record is corruption: its LSN is lost,
//!   everything valid around it is kept.
//! - What is not proven is the last group of the last segment. Damage there is what an interrupted
//!   write leaves. The records before it are kept, it and what follows are dropped: nobody was told
//!   that they are stored, and keeping a later one without an earlier one would let a consumer
//!   believe that it has both.

use std::io;

use crate::disk::{Access, Disk};
use crate::format::{Lsn, RecordHeader, RecordKind};
use crate::limits::{DAMAGE_LISTED_MAX, RECORD_BYTES_MIN, SEAL_BYTES, SEGMENT_HEADER_BYTES};
use crate::scan::{Found, Scanner};
use crate::segment::Segment;

/// A range of a file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// The segment's file name.
    pub segment: String,
    /// Where the range starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The records lost with it, first and last; none when it held no record, or only such as every
    /// consumer has taken.
    pub lost: Option<(Lsn, Lsn)>,
}

/// One segment as found.
#[derive(Debug, Clone)]
pub(crate) struct SegmentSurvey {
    pub(crate) segment: Segment,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    /// The LSN the next record would have.
    pub(crate) next_lsn: u64,
    /// Where the records that are kept end.
    pub(crate) kept_end: u64,
    /// Where the last group starts, if it is not proven durable.
    pub(crate) unproven_offset: Option<u64>,
    /// Where the last byte other than zero ends.
    pub(crate) used_end: u64,
    /// Whole records that are dropped because one before them in their group is torn.
    pub(crate) dropped_records: u64,
    pub(crate) is_sealed: bool,
    pub(crate) damage: Damage,
}

impl SegmentSurvey {
    /// Bytes of an interrupted write after the records that are kept.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.used_end.saturating_sub(self.kept_end)
    }
}

/// The damaged ranges of one segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Damage {
    /// The first ones.
    pub(crate) listed: Vec<DamagedRange>,
    pub(crate) ranges: u64,
    pub(crate) lost_records: u64,
    segment: String,
    /// Every consumer has taken the records up to this one, so that their loss is none.
    taken: u64,
}

impl Damage {
    fn new(segment: &Segment, taken: u64) -> Self {
        Self { segment: segment.name.to_string(), taken, ..Self::default() }
    }

    /// Notes that the bytes from `offset` to `end` are damaged, and with them the records from `from`
    /// up to but not including `to` lost.
    fn note(&mut self, offset: u64, end: u64, from: u64, to: u64) {
        let from = from.max(self.taken.saturating_add(1));
        let lost = (from < to).then(|| (Lsn(from), Lsn(to - 1)));
        if end <= offset && lost.is_none() {
            return;
        }
        self.ranges += 1;
        self.lost_records += to.saturating_sub(from);
        if self.listed.len() < DAMAGE_LISTED_MAX {
            let bytes = end.saturating_sub(offset);
            self.listed.push(DamagedRange { segment: self.segment.clone(), offset, bytes, lost });
        }
    }
}

/// A place where records are missing that are not proven to have been durable, and what had been
/// found up to there.
#[derive(Debug, Clone, Copy)]
struct Hole {
    offset: u64,
    end: u64,
    from: u64,
    to: u64,
    records: u64,
    payload_bytes: u64,
}

/// The walk through one segment.
struct Walk {
    /// The LSN the next record should have.
    expected: u64,
    /// Every record below this had been synced before something else was written.
    proven: u64,
    records: u64,
    payload_bytes: u64,
    /// Where the last group starts, and its first LSN.
    group: (u64, u64),
    /// Damage since the last valid record.
    open: Option<(u64, u64)>,
    /// Holes in the last group only, so no more than a group has records.
    holes: Vec<Hole>,
    damage: Damage,
}

impl Walk {
    fn damaged(&mut self, offset: u64, end: u64, header: Option<RecordHeader>) {
        if let Some(header) = header {
            self.prove(header.group_lsn());
        }
        let start = self.open.map_or(offset, |(start, _)| start);
        self.open = Some((start, end));
    }

    /// Everything below `lsn` is proven; what is missing there is lost.
    fn prove(&mut self, lsn: u64) {
        if lsn > self.proven {
            self.proven = lsn;
            let (lost, open) = self.holes.iter().partition(|hole| hole.to <= lsn);
            self.holes = open;
            let lost: Vec<Hole> = lost;
            for hole in lost {
                self.damage.note(hole.offset, hole.end, hole.from, hole.to);
            }
        }
    }

    /// The records from the expected one up to `to` are missing, and with them the damaged bytes
    /// before `at`.
    fn missing_up_to(&mut self, to: u64, at: u64) {
        let (offset, end) = self.open.take().unwrap_or((at, at));
        let from = self.expected;
        self.expected = from.max(to);
        if to <= self.proven {
            self.damage.note(offset, end, from, to.max(from));
        } else if to > from {
            let (records, payload_bytes) = (self.records, self.payload_bytes);
            self.holes.push(Hole { offset, end, from, to, records, payload_bytes });
        } else {
            self.damage.note(offset, end, from, from);
        }
    }

    fn data(&mut self, offset: u64, header: &RecordHeader) {
        self.prove(header.group_lsn());
        self.missing_up_to(header.lsn, offset);
        self.expected = header.lsn.saturating_add(1);
        if header.group_lsn() != self.group.1 {
            self.group = (offset, header.group_lsn());
        }
        self.records += 1;
        self.payload_bytes += u64::from(header.payload_bytes);
    }
}

/// How a walk ended.
struct Ending {
    is_sealed: bool,
    /// Where the last thing that was understood ends.
    end: u64,
    /// Where the last byte other than zero ends.
    used_end: u64,
}

/// Judges one segment. `bound` is the first LSN of its successor.
pub(crate) fn judge_segment(
    disk: &dyn Disk,
    segment: Segment,
    damaged_half: Option<u64>,
    bound: Option<u64>,
    taken: u64,
) -> io::Result<SegmentSurvey> {
    let first_lsn = segment.name.first_lsn;
    let mut damage = Damage::new(&segment, taken);
    let Some(uuid) = segment.uuid else {
        return Ok(judge_headless(segment, bound, damage));
    };
    if let Some(offset) = damaged_half {
        damage.note(offset, offset + SEGMENT_HEADER_BYTES / 2, 0, 0);
    }
    let mut walk = Walk {
        expected: first_lsn,
        proven: bound.unwrap_or(first_lsn),
        records: 0,
        payload_bytes: 0,
        group: (SEGMENT_HEADER_BYTES, 0),
        open: None,
        holes: Vec::new(),
        damage,
    };
    let mut scanner = Scanner::new(disk.open(&segment.path, Access::Read)?, uuid);
    let mut is_sealed = false;
    let ending = loop {
        match scanner.next()? {
            Found::Record { offset, header } if header.kind == RecordKind::Seal => {
                walk.prove(header.lsn);
                walk.missing_up_to(header.lsn, offset);
                is_sealed = true;
            }
            // Written here first, never acknowledged, and written again in the next segment.
            Found::Record { offset, header } if bound.is_some_and(|bound| header.lsn >= bound) => {
                break Ending { is_sealed, end: offset, used_end: offset };
            }
            // An LSN never goes back within a segment; what claims to is not ours.
            Found::Record { offset, header } if header.lsn < walk.expected => {
                walk.damaged(offset, offset + header.record_bytes(), None);
            }
            Found::Record { offset, header } => walk.data(offset, &header),
            Found::Damage { offset, end, header } => walk.damaged(offset, end, header),
            Found::End { offset, used_end } => {
                break Ending { is_sealed, end: offset, used_end: used_end.max(offset) };
            }
        }
    };
    Ok(conclude(segment, walk, bound, &ending))
}

/// Turns a finished walk into a judgement.
fn conclude(segment: Segment, mut walk: Walk, bound: Option<u64>, ending: &Ending) -> SegmentSurvey {
    let mut kept_end = walk.open.map_or(ending.end, |(start, _)| start);
    let mut used_end = ending.used_end.max(ending.end);
    let mut unproven_offset = None;
    let found_records = walk.records;
    // What is damaged after the last record; false when it is only an unfinished or abandoned write.
    let is_damage = match bound {
        // The rest of a segment that has a successor had all been acknowledged. A finished segment
        // ends with its seal, so a few bytes more are a seal that is damaged.
        Some(bound) => walk.expected < bound || segment.bytes <= kept_end + SEAL_BYTES,
        None => ending.is_sealed || (walk.holes.is_empty() && walk.expected < walk.proven),
    };
    if is_damage {
        walk.damaged(kept_end, used_end, None);
        walk.missing_up_to(walk.proven, kept_end);
        kept_end = used_end;
    } else if bound.is_some() {
        used_end = kept_end;
    } else {
        unproven_offset = Some(walk.group.0);
        if let Some(hole) = walk.holes.first().copied() {
            walk.records = hole.records;
            walk.payload_bytes = hole.payload_bytes;
            walk.expected = hole.from.max(walk.proven);
            // What of it is proven is lost; the rest was never finished.
            walk.damage.note(hole.offset, hole.offset, hole.from, walk.proven);
            kept_end = hole.offset;
            unproven_offset = Some(walk.group.0.min(kept_end));
        }
    }
    SegmentSurvey {
        records: walk.records,
        payload_bytes: walk.payload_bytes,
        next_lsn: walk.expected,
        kept_end,
        unproven_offset,
        used_end,
        dropped_records: found_records - walk.records,
        is_sealed: ending.is_sealed,
        damage: walk.damage,
        segment,
    }
}

/// A segment without a header: its records cannot be told from other bytes.
fn judge_headless(segment: Segment, bound: Option<u64>, mut damage: Damage) -> SegmentSurvey {
    let first_lsn = segment.name.first_lsn;
    // Without a successor nobody knows how many records it held, so LSNs go on above the most it can
    // have held: one must never be given twice.
    let most = segment.bytes / RECORD_BYTES_MIN;
    let next_lsn = bound.unwrap_or_else(|| first_lsn.saturating_add(most));
    damage.note(0, segment.bytes, first_lsn, next_lsn);
    SegmentSurvey {
        records: 0,
        payload_bytes: 0,
        next_lsn,
        kept_end: segment.bytes,
        unproven_offset: None,
        used_end: segment.bytes,
        dropped_records: 0,
        is_sealed: false,
        damage,
        segment,
    }
}

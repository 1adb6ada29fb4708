//! What a directory holds, found by reading alone.
//!
//! Recovery acts on a survey and `verify` prints one; both therefore judge damage alike:
//!
//! - A record is **proven** durable when something was written after its sync: a record of a later
//!   group, a seal, or a later segment. Damage to a proven record is corruption: its LSN is lost,
//!   everything valid around it is kept.
//! - What is not proven is the last group of the last segment. Damage there is what an interrupted
//!   write leaves. The records before it are kept, it and what follows are dropped: nobody was told
//!   that they are stored, and keeping a later one without an earlier one would let a consumer
//!   believe it has both.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, read_full_at};
use crate::error::JournalError;
use crate::format::{
    CursorFound, CursorSlot, FORMAT_VERSION, HeaderFound, Lsn, RecordHeader, RecordKind, SegmentHeader,
    SegmentName, cursor_of_file,
};
use crate::limits::{CURSOR_SLOT_BYTES, RECORD_BYTES_MIN, SEAL_BYTES, SEGMENT_HEADER_BYTES};
use crate::scan::{Found, Scanner};
use crate::segment::{Segment, UNFINISHED_SUFFIX};

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

/// A consumer's cursor as found.
#[derive(Debug, Clone)]
pub(crate) struct CursorSurvey {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// None when both slots are damaged.
    pub(crate) newest: Option<CursorSlot>,
    pub(crate) damaged_slot: bool,
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
    pub(crate) damage: Vec<DamagedRange>,
}

impl SegmentSurvey {
    /// Bytes of an interrupted write after the records that are kept.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.used_end.saturating_sub(self.kept_end)
    }
}

/// Everything found in a directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<SegmentSurvey>,
    pub(crate) cursors: Vec<CursorSurvey>,
    pub(crate) unfinished: Vec<PathBuf>,
    /// The highest epoch any file name has.
    pub(crate) epoch_max: u64,
}

impl Survey {
    /// Reads a directory.
    ///
    /// # Errors
    /// When it cannot be read, or holds a file of a newer version: that is found before any record
    /// is looked at.
    pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Self, JournalError> {
        let mut survey = Self::default();
        let mut segments = Vec::new();
        let names = disk.list(directory).map_err(JournalError::io("list", directory))?;
        for name in names {
            let path = directory.join(&name);
            let finished = name.strip_suffix(UNFINISHED_SUFFIX);
            if let Some(parsed) = SegmentName::parse(finished.unwrap_or(&name)) {
                survey.epoch_max = survey.epoch_max.max(parsed.epoch);
            }
            if finished.is_some() {
                survey.unfinished.push(path);
            } else if let Some(parsed) = SegmentName::parse(&name) {
                segments.push(open_segment(disk, parsed, path)?);
            } else if let Some(cursor) = cursor_of_file(&name) {
                survey.cursors.push(read_cursor(disk, cursor, path)?);
            }
        }
        segments.sort_by_key(|(segment, _, _)| segment.name);
        survey.cursors.sort_by(|left, right| left.name.cmp(&right.name));
        let bounds: Vec<Option<u64>> = segments
            .iter()
            .skip(1)
            .map(|(segment, _, _)| Some(segment.name.first_lsn))
            .chain([None])
            .collect();
        for ((segment, file, damaged_half), bound) in segments.into_iter().zip(bounds) {
            let path = segment.path.clone();
            let found =
                survey_segment(segment, file, bound).map_err(JournalError::io("read segment", &path))?;
            survey.segments.push(found.with_damaged_half(damaged_half));
        }
        Ok(survey)
    }

    /// Every consumer has taken the records up to this one; zero without consumers.
    pub(crate) fn slowest_cursor(&self) -> Lsn {
        let lowest = self.cursors.iter().map(|cursor| cursor.newest.map_or(0, |slot| slot.lsn)).min();
        Lsn(lowest.unwrap_or(0))
    }

    /// Losses that every consumer had already taken are none: a crash can bring back a part of the
    /// segments that were just removed.
    pub(crate) fn forgive_losses_up_to(&mut self, taken: Lsn) {
        for range in self.segments.iter_mut().flat_map(|segment| &mut segment.damage) {
            range.lost =
                range.lost.map(|(from, to)| (from.max(taken.next()), to)).filter(|(from, to)| from <= to);
        }
        for segment in &mut self.segments {
            segment.damage.retain(|range| range.bytes > 0 || range.lost.is_some());
        }
    }
}

type OpenSegment = (Segment, Arc<dyn DiskFile>, Option<u64>);

fn open_segment(disk: &dyn Disk, name: SegmentName, path: PathBuf) -> Result<OpenSegment, JournalError> {
    let read = || -> io::Result<(Arc<dyn DiskFile>, u64, HeaderFound)> {
        let file = disk.open(&path, Access::Read)?;
        let bytes = file.bytes()?;
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        // A header the device cannot read is as lost as one that is damaged.
        let read = read_full_at(&*file, &mut page, 0).unwrap_or(0);
        page.truncate(read);
        Ok((file, bytes, SegmentHeader::decode(&page)))
    };
    let (file, bytes, header) = read().map_err(JournalError::io("open segment", &path))?;
    let (uuid, damaged_half) = match header {
        HeaderFound::Valid { header, damaged_half } => (Some(header.uuid), damaged_half),
        HeaderFound::Damaged => (None, None),
        HeaderFound::Newer(found) => {
            return Err(JournalError::NewerVersion { path, found, supported: FORMAT_VERSION });
        }
    };
    Ok((Segment { name, path, uuid, bytes }, file, damaged_half))
}

fn read_cursor(disk: &dyn Disk, name: &str, path: PathBuf) -> Result<CursorSurvey, JournalError> {
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(&path, Access::Read)?;
        let mut bytes = Vec::new();
        for slot in 0..2 {
            let mut page = vec![0; CURSOR_SLOT_BYTES as usize];
            let read = read_full_at(&*file, &mut page, slot * CURSOR_SLOT_BYTES).unwrap_or(0);
            page.truncate(read);
            bytes.append(&mut page);
        }
        Ok(bytes)
    };
    let bytes = read().map_err(JournalError::io("read cursor", &path))?;
    let (newest, damaged_slot) = match CursorSlot::decode_file(&bytes) {
        CursorFound::Valid { newest, damaged_slot } => (Some(newest), damaged_slot),
        CursorFound::Damaged => (None, true),
        CursorFound::Newer(found) => {
            return Err(JournalError::NewerVersion { path, found, supported: FORMAT_VERSION });
        }
    };
    Ok(CursorSurvey { name: name.to_owned(), path, newest, damaged_slot })
}

/// A place where records are missing, and what had been found up to there.
#[derive(Clone, Copy)]
struct Hole {
    offset: u64,
    end: u64,
    from: u64,
    to: u64,
    records: u64,
    payload_bytes: u64,
    group_offset: u64,
}

/// The walk through one segment.
struct Walk {
    /// The LSN the next record should have.
    expected: u64,
    /// Every record below this had been synced before something else was written.
    proven: u64,
    records: u64,
    payload_bytes: u64,
    group_offset: u64,
    group_lsn: u64,
    /// Damage since the last valid record.
    open_damage: Option<(u64, u64)>,
    holes: Vec<Hole>,
    /// Damaged bytes that cost no record.
    harmless: Vec<(u64, u64)>,
}

impl Walk {
    fn damage(&mut self, offset: u64, end: u64, header: Option<RecordHeader>) {
        if let Some(header) = header {
            self.proven = self.proven.max(header.group_lsn());
        }
        let start = self.open_damage.map_or(offset, |(start, _)| start);
        self.open_damage = Some((start, end));
    }

    /// The records from the expected one up to `to` are missing.
    fn close_hole(&mut self, to: u64, at: u64) {
        let (offset, end) = self.open_damage.take().unwrap_or((at, at));
        if to > self.expected {
            self.holes.push(Hole {
                offset,
                end,
                from: self.expected,
                to,
                records: self.records,
                payload_bytes: self.payload_bytes,
                group_offset: self.group_offset,
            });
            self.expected = to;
        } else if end > offset {
            self.harmless.push((offset, end));
        }
    }

    fn data(&mut self, offset: u64, header: &RecordHeader) {
        self.close_hole(header.lsn, offset);
        self.expected = header.lsn.saturating_add(1);
        self.proven = self.proven.max(header.group_lsn());
        if header.group_lsn() != self.group_lsn {
            self.group_lsn = header.group_lsn();
            self.group_offset = offset;
        }
        self.records += 1;
        self.payload_bytes += u64::from(header.payload_bytes);
    }
}

/// Judges one segment. `bound` is the first LSN of the next one.
fn survey_segment(
    segment: Segment,
    file: Arc<dyn DiskFile>,
    bound: Option<u64>,
) -> io::Result<SegmentSurvey> {
    let first_lsn = segment.name.first_lsn;
    let Some(uuid) = segment.uuid else {
        return Ok(survey_headless(segment, bound));
    };
    let mut scanner = Scanner::new(file, uuid);
    let mut walk = Walk {
        expected: first_lsn,
        proven: bound.unwrap_or(first_lsn),
        records: 0,
        payload_bytes: 0,
        group_offset: SEGMENT_HEADER_BYTES,
        group_lsn: 0,
        open_damage: None,
        holes: Vec::new(),
        harmless: Vec::new(),
    };
    let mut is_sealed = false;
    let (end, used_end) = loop {
        match scanner.next()? {
            Found::Record { offset, header } if header.kind == RecordKind::Seal => {
                walk.close_hole(header.lsn, offset);
                walk.proven = walk.proven.max(header.lsn);
                is_sealed = true;
            }
            // Written here first, never acknowledged, and written again in the next segment.
            Found::Record { offset, header } if bound.is_some_and(|bound| header.lsn >= bound) => {
                break (offset, offset);
            }
            // An LSN never goes back within a segment; what claims to is not ours.
            Found::Record { offset, header } if header.lsn < walk.expected => {
                walk.damage(offset, offset + header.record_bytes(), None);
            }
            Found::Record { offset, header } => walk.data(offset, &header),
            Found::Damage { offset, end, header } => walk.damage(offset, end, header),
            Found::End { offset, used_end } => break (offset, used_end.max(offset)),
        }
    };
    Ok(conclude(segment, walk, bound, is_sealed, end, used_end))
}

/// Turns a finished walk into a judgement.
fn conclude(
    segment: Segment,
    mut walk: Walk,
    bound: Option<u64>,
    is_sealed: bool,
    end: u64,
    used_end: u64,
) -> SegmentSurvey {
    let kept_end = walk.open_damage.map_or(end, |(start, _)| start);
    let mut found = SegmentSurvey {
        records: walk.records,
        payload_bytes: walk.payload_bytes,
        next_lsn: walk.expected,
        kept_end,
        unproven_offset: None,
        used_end: used_end.max(end),
        dropped_records: 0,
        is_sealed,
        damage: Vec::new(),
        segment,
    };
    match bound {
        Some(bound) if walk.expected < bound => {
            // The rest of a segment that had a successor was all acknowledged, so it is lost.
            walk.damage(end, used_end, None);
            walk.close_hole(bound, end);
            found.next_lsn = bound;
            found.kept_end = found.used_end;
        }
        // A sealed segment ends with its seal, so this is one that is damaged.
        Some(_) if found.used_end > found.kept_end && found.segment.bytes <= found.kept_end + SEAL_BYTES => {
            walk.harmless.push((found.kept_end, found.used_end));
            found.kept_end = found.used_end;
        }
        // Whatever follows the last acknowledged record was abandoned.
        Some(_) => found.used_end = found.kept_end,
        None if is_sealed => {
            walk.damage(end, used_end, None);
            walk.close_hole(walk.expected, end);
            found.kept_end = found.used_end;
        }
        None => {
            found.unproven_offset = Some(walk.group_offset);
            let cut = walk.holes.iter().position(|hole| hole.to > walk.proven);
            if let Some(hole) = cut.and_then(|index| walk.holes.get(index).copied()) {
                found.dropped_records = walk.records - hole.records;
                found.records = hole.records;
                found.payload_bytes = hole.payload_bytes;
                found.kept_end = hole.offset;
                found.unproven_offset = Some(hole.group_offset);
                found.next_lsn = hole.from.max(walk.proven);
                walk.holes.truncate(cut.unwrap_or(0));
                if walk.proven > hole.from {
                    walk.holes.push(Hole { to: walk.proven, end: hole.offset, ..hole });
                }
            } else if walk.proven > walk.expected {
                // A header past the last whole record proves that the ones before it were synced.
                let proven = walk.proven;
                walk.damage(found.kept_end, found.used_end, None);
                walk.close_hole(proven, found.kept_end);
                found.next_lsn = proven;
                found.kept_end = found.used_end;
            }
        }
    }
    let name = found.segment.name.to_string();
    let range = |offset: u64, end: u64, lost| DamagedRange {
        segment: name.clone(),
        offset,
        bytes: end.saturating_sub(offset),
        lost,
    };
    found.damage = walk
        .holes
        .iter()
        .map(|hole| range(hole.offset, hole.end, Some((Lsn(hole.from), Lsn(hole.to.saturating_sub(1))))))
        .chain(
            walk.harmless
                .iter()
                .filter(|(offset, end)| end > offset && *offset < found.kept_end)
                .map(|(offset, end)| range(*offset, *end, None)),
        )
        .collect();
    found.damage.sort_by_key(|range| range.offset);
    found
}

/// A segment without a header: its records cannot be told from other bytes.
fn survey_headless(segment: Segment, bound: Option<u64>) -> SegmentSurvey {
    let first_lsn = segment.name.first_lsn;
    // Without a successor nobody knows how many records it held, so LSNs go on above the most it
    // can have held: one must never be given twice.
    let next_lsn = bound.unwrap_or_else(|| first_lsn.saturating_add(segment.bytes / RECORD_BYTES_MIN));
    let lost = (next_lsn > first_lsn).then(|| (Lsn(first_lsn), Lsn(next_lsn - 1)));
    let range = DamagedRange { segment: segment.name.to_string(), offset: 0, bytes: segment.bytes, lost };
    SegmentSurvey {
        records: 0,
        payload_bytes: 0,
        next_lsn,
        kept_end: segment.bytes,
        unproven_offset: None,
        used_end: segment.bytes,
        dropped_records: 0,
        is_sealed: false,
        damage: vec![range],
        segment,
    }
}

impl SegmentSurvey {
    fn with_damaged_half(mut self, damaged_half: Option<u64>) -> Self {
        if let Some(offset) = damaged_half {
            let bytes = SEGMENT_HEADER_BYTES / 2;
            let segment = self.segment.name.to_string();
            self.damage.insert(0, DamagedRange { segment, offset, bytes, lost: None });
        }
        self
    }
}

//! Looking into a journal that nobody has open, without changing anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, Held, SystemDisk};
use crate::error::JournalError;
use crate::format::{Lsn, RecordKind};
use crate::judge::DamagedRange;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::recover::LOCK_FILE;
use crate::scan::{Found, Scanner};
use crate::survey::Survey;

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments.
    pub segments: u64,
    /// Valid records.
    pub records: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Bytes of all segments.
    pub allocated_bytes: u64,
    /// The oldest LSN kept.
    pub first_lsn: Option<Lsn>,
    /// The last LSN kept.
    pub last_lsn: Option<Lsn>,
    /// Bytes of an interrupted write at the end; the next start cuts them off.
    pub torn_bytes: u64,
    /// Whole records that it will cut off with them.
    pub torn_records: u64,
    /// Damaged ranges among bytes that had been durable.
    pub corrupt_ranges: u64,
    /// The first thousand of these in each segment.
    pub damage: Vec<DamagedRange>,
    /// Records lost to it.
    pub lost_records: u64,
    /// Cursors with their positions; none where both slots are damaged.
    pub cursors: Vec<(String, Option<Lsn>)>,
    /// Unfinished files; the next start removes them.
    pub unfinished: u64,
    /// Whether the last segment was ended in order.
    pub is_sealed: bool,
}

impl VerifyReport {
    /// Whether everything that had been durable is there. A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corrupt_ranges == 0 && self.cursors.iter().all(|(_, lsn)| lsn.is_some())
    }
}

/// Reads a whole journal and says what state it is in. Changes nothing.
///
/// # Errors
/// When the directory cannot be read, the journal is open, or a file was written by a newer
/// version. Damage is no error; it is in the report.
pub fn verify(directory: impl AsRef<Path>) -> Result<VerifyReport, JournalError> {
    verify_on(&SystemDisk, directory.as_ref())
}

pub(crate) fn verify_on(disk: &dyn Disk, directory: &Path) -> Result<VerifyReport, JournalError> {
    let _held = keep_writers_out(disk, directory)?;
    let survey = Survey::read(disk, directory)?;
    let mut report = VerifyReport {
        segments: survey.segments.len() as u64,
        first_lsn: survey.segments.first().map(|found| Lsn(found.segment.name.first_lsn)),
        last_lsn: survey.segments.last().map(|found| Lsn(found.next_lsn.saturating_sub(1))),
        unfinished: survey.unfinished.len() as u64,
        is_sealed: survey.segments.last().is_some_and(|found| found.is_sealed),
        cursors: survey
            .cursors
            .iter()
            .map(|cursor| (cursor.name.clone(), cursor.newest.map(|slot| Lsn(slot.lsn))))
            .collect(),
        ..VerifyReport::default()
    };
    for found in survey.segments {
        report.records += found.records;
        report.payload_bytes += found.payload_bytes;
        report.allocated_bytes += found.segment.bytes;
        report.torn_bytes += found.torn_bytes();
        report.torn_records += found.dropped_records;
        report.corrupt_ranges += found.damage.ranges;
        report.lost_records += found.damage.lost_records;
        report.damage.extend(found.damage.listed);
    }
    Ok(report)
}

/// What state an entry of a dump is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryState {
    /// Both checksums match.
    Valid,
    /// Both match, but the next segment begins at or before this LSN: it was never acknowledged
    /// here, and was written again there.
    Superseded,
    /// The header's checksum matches, the payload's does not.
    DamagedPayload,
    /// Not a record: damage, or what an interrupted write left.
    Unreadable,
}

/// One thing found in a segment.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The segment's file name.
    pub segment: String,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Bytes it takes in the file.
    pub bytes: u64,
    /// What it is, where its header can be read.
    pub kind: Option<RecordKind>,
    /// Its LSN, where its header can be read.
    pub lsn: Option<Lsn>,
    /// The state of its checksums.
    pub state: EntryState,
    /// A valid record's bytes; empty otherwise.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload is somebody's logs: it has no place in ours.
        formatter
            .debug_struct("Entry")
            .field("segment", &self.segment)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes)
            .field("kind", &self.kind)
            .field("lsn", &self.lsn)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

struct DumpSegment {
    name: String,
    path: PathBuf,
    bytes: u64,
    uuid: Option<uuid::Uuid>,
    bound: Option<u64>,
}

/// Gives out everything in a journal, segment by segment, in the order of the files.
pub struct Dump {
    _held: Option<Held>,
    segments: std::vec::IntoIter<DumpSegment>,
    current: Option<(DumpSegment, Scanner)>,
}

impl fmt::Debug for Dump {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dump").finish_non_exhaustive()
    }
}

/// Iterates over all records of a journal, valid or not, holding one of them in memory at a time.
/// Changes nothing.
///
/// # Errors
/// As [`verify`].
pub fn dump(directory: impl AsRef<Path>) -> Result<Dump, JournalError> {
    let directory = directory.as_ref();
    let held = keep_writers_out(&SystemDisk, directory)?;
    let survey = Survey::read(&SystemDisk, directory)?;
    let bounds: Vec<Option<u64>> = survey
        .segments
        .iter()
        .skip(1)
        .map(|found| Some(found.segment.name.first_lsn))
        .chain([None])
        .collect();
    let segments: Vec<DumpSegment> = survey
        .segments
        .into_iter()
        .zip(bounds)
        .map(|(found, bound)| DumpSegment {
            name: found.segment.name.to_string(),
            path: found.segment.path,
            bytes: found.segment.bytes,
            uuid: found.segment.uuid,
            bound,
        })
        .collect();
    Ok(Dump { _held: held, segments: segments.into_iter(), current: None })
}

fn keep_writers_out(disk: &dyn Disk, directory: &Path) -> Result<Option<Held>, JournalError> {
    let path = directory.join(LOCK_FILE);
    match disk.lock_shared(&path) {
        Ok(held) => Ok(Some(held)),
        // A copy of a journal may come without its lock file; nobody has that open.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(JournalError::Locked { path }),
        Err(error) => Err(JournalError::io("lock", &path)(error)),
    }
}

impl Dump {
    fn advance(&mut self) -> Result<Option<Entry>, JournalError> {
        loop {
            let Some((segment, scanner)) = &mut self.current else {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                let Some(uuid) = segment.uuid else {
                    return Ok(Some(unreadable(&segment.name, 0, segment.bytes)));
                };
                let file = SystemDisk
                    .open(&segment.path, Access::Read)
                    .map_err(JournalError::io("open segment", &segment.path))?;
                self.current = Some((segment, Scanner::new(file, uuid)));
                continue;
            };
            let found =
                next_entry(segment, scanner).map_err(JournalError::io("read segment", &segment.path))?;
            match found {
                Step::Entry(entry) => return Ok(Some(entry)),
                Step::Last(entry) => {
                    self.current = None;
                    if entry.is_some() {
                        return Ok(entry);
                    }
                }
            }
        }
    }
}

enum Step {
    Entry(Entry),
    Last(Option<Entry>),
}

fn next_entry(segment: &DumpSegment, scanner: &mut Scanner) -> io::Result<Step> {
    let entry = match scanner.next()? {
        Found::Record { offset, header } => Entry {
            segment: segment.name.clone(),
            offset,
            bytes: header.record_bytes(),
            kind: Some(header.kind),
            lsn: Some(Lsn(header.lsn)),
            state: match segment.bound {
                Some(bound) if header.kind == RecordKind::Data && header.lsn >= bound => {
                    EntryState::Superseded
                }
                _ => EntryState::Valid,
            },
            payload: scanner.payload()?.to_vec(),
        },
        Found::Damage { offset, end, header: Some(header) } => Entry {
            kind: Some(header.kind),
            lsn: Some(Lsn(header.lsn)),
            state: EntryState::DamagedPayload,
            ..unreadable(&segment.name, offset, end - offset)
        },
        Found::Damage { offset, end, header: None } => unreadable(&segment.name, offset, end - offset),
        Found::End { offset, used_end } => {
            let tail = (used_end > offset.max(SEGMENT_HEADER_BYTES))
                .then(|| unreadable(&segment.name, offset, used_end - offset));
            return Ok(Step::Last(tail));
        }
    };
    Ok(Step::Entry(entry))
}

fn unreadable(segment: &str, offset: u64, bytes: u64) -> Entry {
    Entry {
        segment: segment.to_owned(),
        offset,
        bytes,
        kind: None,
        lsn: None,
        state: EntryState::Unreadable,
        payload: Vec::new(),
    }
}

impl Iterator for Dump {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.advance();
        if found.is_err() {
            // What cannot be read once is not asked again.
            self.current = None;
            self.segments = Vec::new().into_iter();
        }
        found.transpose()
    }
}

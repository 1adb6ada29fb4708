//! What a directory holds, found by reading alone. Recovery acts on a survey and `verify` prints one;
//! both therefore judge damage alike.
//!
//! Always holds: one file is open at a time, however many segments there are; a file of a newer
//! version is met before any record is looked at.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, read_full_at};
use crate::error::JournalError;
use crate::format::{
    CursorFound, CursorSlot, FORMAT_VERSION, HeaderFound, SegmentHeader, SegmentName, cursor_of_file,
};
use crate::judge::{SegmentSurvey, judge_segment};
use crate::limits::{CURSOR_SLOT_BYTES, SEGMENT_HEADER_BYTES};
use crate::segment::{Segment, UNFINISHED_SUFFIX};

/// A consumer's cursor as found.
#[derive(Debug, Clone)]
pub(crate) struct CursorSurvey {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// None when both slots are damaged.
    pub(crate) newest: Option<CursorSlot>,
    pub(crate) damaged_slot: bool,
}

/// Everything found in a directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// In order of epoch, and with that of first LSN.
    pub(crate) segments: Vec<SegmentSurvey>,
    pub(crate) cursors: Vec<CursorSurvey>,
    pub(crate) unfinished: Vec<PathBuf>,
    /// The highest epoch any file name has.
    pub(crate) epoch_max: u64,
}

impl Survey {
    /// Reads a directory. Other people's files in it are not looked at.
    ///
    /// # Errors
    /// When it cannot be read, or holds a file of a newer version.
    pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Self, JournalError> {
        let mut survey = Self::default();
        let mut headers = Vec::new();
        for name in disk.list(directory).map_err(JournalError::io("list", directory))? {
            let path = directory.join(&name);
            let finished = name.strip_suffix(UNFINISHED_SUFFIX);
            let segment = SegmentName::parse(finished.unwrap_or(&name));
            let cursor = cursor_of_file(finished.unwrap_or(&name));
            survey.epoch_max = survey.epoch_max.max(segment.map_or(0, |segment| segment.epoch));
            match (segment, cursor) {
                (None, None) => {}
                _ if finished.is_some() => survey.unfinished.push(path),
                (Some(segment), _) => headers.push(read_header(disk, segment, path)?),
                (None, Some(cursor)) => survey.cursors.push(read_cursor(disk, cursor, path)?),
            }
        }
        survey.cursors.sort_by(|left, right| left.name.cmp(&right.name));
        headers.sort_by_key(|(segment, _)| segment.name);
        let successors = headers.iter().skip(1).map(|(next, _)| Some(next.name.first_lsn));
        let bounds: Vec<Option<u64>> = successors.chain([None]).collect();
        let taken = survey.slowest_cursor();
        for ((segment, damaged_half), bound) in headers.into_iter().zip(bounds) {
            let path = segment.path.clone();
            let judged = judge_segment(disk, segment, damaged_half, bound, taken)
                .map_err(JournalError::io("read segment", &path))?;
            survey.segments.push(judged);
        }
        Ok(survey)
    }

    /// Every consumer has taken the records up to this one; zero without consumers. A loss before it
    /// is none: a crash can bring back a part of the segments that were just removed.
    fn slowest_cursor(&self) -> u64 {
        let positions = self.cursors.iter().map(|cursor| cursor.newest.map_or(0, |slot| slot.lsn));
        positions.min().unwrap_or(0)
    }
}

/// The segment, and the offset of the copy of its header that is damaged, if one is.
fn read_header(
    disk: &dyn Disk,
    name: SegmentName,
    path: PathBuf,
) -> Result<(Segment, Option<u64>), JournalError> {
    let read = || -> io::Result<(u64, HeaderFound)> {
        let file = disk.open(&path, Access::Read)?;
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        // A header that the device cannot read is as lost as one that is damaged.
        let read = read_full_at(&*file, &mut page, 0).unwrap_or(0);
        page.truncate(read);
        Ok((file.bytes()?, SegmentHeader::decode(&page)))
    };
    let (bytes, header) = read().map_err(JournalError::io("open segment", &path))?;
    let (uuid, damaged_half) = match header {
        HeaderFound::Valid { header, damaged_half } => (Some(header.uuid), damaged_half),
        HeaderFound::Damaged => (None, None),
        HeaderFound::Newer(found) => {
            return Err(JournalError::NewerVersion { path, found, supported: FORMAT_VERSION });
        }
    };
    Ok((Segment { name, path, uuid, bytes }, damaged_half))
}

fn read_cursor(disk: &dyn Disk, name: &str, path: PathBuf) -> Result<CursorSurvey, JournalError> {
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(&path, Access::Read)?;
        let mut bytes = Vec::new();
        for slot in 0..2 {
            let mut page = vec![0; CURSOR_SLOT_BYTES as usize];
            // A slot that the device cannot read is as lost as one that is damaged: it stays zero.
            drop(read_full_at(&*file, &mut page, slot * CURSOR_SLOT_BYTES));
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

//! From a directory in whatever state to an open journal.
//!
//! Always holds when it returns: what readers will be given is on the disk, not only in its cache;
//! evidence was copied before anything was cut; nothing but unfinished files and the tail after
//! the last kept record was removed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cursor::CursorFile;
use crate::disk::{Access, Disk, DiskFile, Held, read_full_at, write_whole_at};
use crate::error::JournalError;
use crate::format::Lsn;
use crate::journal::JournalOptions;
use crate::judge::{DamagedRange, SegmentSurvey};
use crate::limits::{CURSOR_SLOT_BYTES, DAMAGE_LISTED_MAX, DAMAGE_LOGGED_MAX, SCAN_BUFFER_BYTES};
use crate::quarantine::{Evidence, copy_evidence};
use crate::queue::Queue;
use crate::segment::create_directories;
use crate::shared::{Catalog, Durable, Shared};
use crate::statistics::Counters;
use crate::survey::Survey;
use crate::writer::NextPlace;

/// The lock file's name.
pub(crate) const LOCK_FILE: &str = "lock";

/// What opening a journal found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segments kept.
    pub segments: u64,
    /// Records kept.
    pub records: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// The oldest LSN kept, if there is a segment.
    pub first_lsn: Option<Lsn>,
    /// The last durable LSN; new records follow it.
    pub last_lsn: Lsn,
    /// Bytes of an interrupted write that were cut off. Normal after a crash: nobody had been told
    /// that they are stored.
    pub torn_bytes: u64,
    /// Whole records cut off with it.
    pub torn_records: u64,
    /// Damaged ranges among bytes that had been durable.
    pub corrupt_ranges: u64,
    /// The first thousand of these.
    pub damage: Vec<DamagedRange>,
    /// Records lost to damage.
    pub lost_records: u64,
    /// Cursors whose both slots were damaged: they start again from the oldest record.
    pub cursors_reset: Vec<String>,
    /// Cursors of which one slot was damaged, or torn by a crash; the other one was used.
    pub cursor_slots_damaged: u64,
    /// Bytes copied to `quarantine/` in this run.
    pub quarantined_bytes: u64,
    /// Unfinished files removed.
    pub unfinished_removed: u64,
    /// How long opening took.
    pub duration: Duration,
}

impl RecoveryReport {
    /// Whether everything that had been durable was there. A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corrupt_ranges == 0 && self.lost_records == 0 && self.cursors_reset.is_empty()
    }
}

/// Opens a directory: everything but the writer thread.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: JournalOptions,
) -> Result<(Shared, NextPlace, RecoveryReport), JournalError> {
    create_directories(&*disk, directory)?;
    let held = take_lock(&*disk, directory)?;
    let mut survey = Survey::read(&*disk, directory)?;
    let mut report = describe(&survey);
    copy_damage(&*disk, directory, &survey, &mut report);
    for path in &survey.unfinished {
        disk.remove(path).map_err(JournalError::io("remove", path))?;
        report.unfinished_removed += 1;
    }
    if let Some(last) = survey.segments.last_mut() {
        settle(&*disk, last).map_err(JournalError::io("settle segment", &last.segment.path))?;
    }
    disk.sync_directory(directory).map_err(JournalError::io("sync directory", directory))?;

    let highest_cursor = survey.cursors.iter().filter_map(|cursor| cursor.newest).map(|slot| slot.lsn).max();
    let next = NextPlace {
        // Above everything that was ever durable, also where it is lost: an LSN that a consumer
        // has seen must not be given to another record.
        lsn: survey
            .segments
            .last()
            .map_or(1, |last| last.next_lsn)
            .max(highest_cursor.unwrap_or(0).saturating_add(1))
            .max(options.known_lsn.next().0),
        epoch: survey.epoch_max,
    };
    report.last_lsn = Lsn(next.lsn - 1);
    let catalog = Catalog {
        cursors: open_cursors(&*disk, directory, &survey, next.lsn - 1)?,
        segments: survey.segments.into_iter().map(|found| found.segment).collect(),
    };
    let counters = Counters::default();
    counters.torn_tails.add(u64::from(report.torn_bytes > 0));
    counters.corrupt_ranges.add(report.corrupt_ranges);
    tell(&report);
    let shared = Shared {
        queue: Queue::new(options.queue_bytes_max),
        durable: Durable::new(next.lsn - 1),
        catalog: Mutex::new(catalog),
        directory: directory.to_owned(),
        held: Mutex::new(Some(held)),
        counters,
        options,
        disk,
    };
    Ok((shared, next, report))
}

fn take_lock(disk: &dyn Disk, directory: &Path) -> Result<Held, JournalError> {
    let path = directory.join(LOCK_FILE);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => JournalError::Locked { path },
        _ => JournalError::io("lock", &path)(error),
    })
}

/// Makes sure that the last segment's records are on the disk and that nothing follows them.
///
/// After a crash of the process alone, the last group may have been read from the cache. If its
/// sync had failed, the cache also believes that it is written, and another sync would say so
/// without writing anything. Writing the same bytes once more makes the sync mean what it says.
fn settle(disk: &dyn Disk, last: &mut SegmentSurvey) -> io::Result<()> {
    if last.segment.uuid.is_none() {
        return Ok(());
    }
    let file = disk.open(&last.segment.path, Access::Write)?;
    if let Some(start) = last.unproven_offset {
        rewrite(&*file, start, last.kept_end)?;
        file.truncate(last.kept_end)?;
        last.segment.bytes = last.kept_end;
    }
    file.sync_all()
}

fn rewrite(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; SCAN_BUFFER_BYTES];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(SCAN_BUFFER_BYTES);
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let read = read_full_at(file, chunk, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_whole_at(file, chunk.get(..read).unwrap_or_default(), at)?;
        at += read as u64;
    }
    Ok(())
}

fn open_cursors(
    disk: &dyn Disk,
    directory: &Path,
    survey: &Survey,
    last_lsn: u64,
) -> Result<std::collections::BTreeMap<String, Arc<CursorFile>>, JournalError> {
    // Before the oldest record lies nothing that a cursor could still be waiting for.
    let oldest = survey.segments.first().map_or(last_lsn, |found| found.segment.name.first_lsn - 1);
    survey
        .cursors
        .iter()
        .map(|found| {
            let file = match found.newest {
                Some(slot) => CursorFile::open(disk, &found.path, &found.name, slot, slot.lsn.max(oldest))?,
                None => CursorFile::create(disk, directory, &found.name, oldest)?,
            };
            Ok((found.name.clone(), Arc::new(file)))
        })
        .collect()
}

/// What a survey says, in the words of a report.
fn describe(survey: &Survey) -> RecoveryReport {
    let mut report = RecoveryReport {
        segments: survey.segments.len() as u64,
        first_lsn: survey.segments.first().map(|found| Lsn(found.segment.name.first_lsn)),
        ..RecoveryReport::default()
    };
    for found in &survey.segments {
        report.records += found.records;
        report.payload_bytes += found.payload_bytes;
        report.torn_bytes += found.torn_bytes();
        report.torn_records += found.dropped_records;
        report.corrupt_ranges += found.damage.ranges;
        report.lost_records += found.damage.lost_records;
        let more = DAMAGE_LISTED_MAX - report.damage.len();
        report.damage.extend(found.damage.listed.iter().take(more).cloned());
    }
    for cursor in &survey.cursors {
        match cursor.newest {
            None => report.cursors_reset.push(cursor.name.clone()),
            Some(_) => report.cursor_slots_damaged += u64::from(cursor.damaged_slot),
        }
    }
    report
}

fn copy_damage(disk: &dyn Disk, directory: &Path, survey: &Survey, report: &mut RecoveryReport) {
    let mut copy = |path: &Path, offset: u64, bytes: u64, evidence: Evidence| {
        if bytes > 0 {
            report.quarantined_bytes += copy_evidence(disk, directory, path, offset, bytes, evidence);
        }
    };
    for found in &survey.segments {
        let path = &found.segment.path;
        for range in &found.damage.listed {
            copy(path, range.offset, range.bytes, Evidence::Damage);
        }
        copy(path, found.kept_end, found.torn_bytes(), Evidence::Torn);
    }
    for cursor in survey.cursors.iter().filter(|cursor| cursor.newest.is_none()) {
        copy(&cursor.path, 0, 2 * CURSOR_SLOT_BYTES, Evidence::Damage);
    }
}

fn tell(report: &RecoveryReport) {
    if report.torn_bytes > 0 {
        tracing::info!(
            bytes = report.torn_bytes,
            records = report.torn_records,
            "cut off an interrupted write"
        );
    }
    for range in report.damage.iter().take(DAMAGE_LOGGED_MAX) {
        tracing::error!(
            segment = range.segment,
            offset = range.offset,
            bytes = range.bytes,
            lost_from = range.lost.map(|(from, _)| from.0),
            lost_to = range.lost.map(|(_, to)| to.0),
            "found damage in the journal"
        );
    }
    if report.corrupt_ranges > 0 {
        tracing::error!(
            ranges = report.corrupt_ranges,
            lost_records = report.lost_records,
            quarantined_bytes = report.quarantined_bytes,
            "the journal is damaged and goes on with what is left"
        );
    }
    for name in &report.cursors_reset {
        tracing::error!(cursor = name, "a damaged cursor starts again from the oldest record");
    }
}

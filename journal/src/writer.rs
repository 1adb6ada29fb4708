//! The one thread that writes: group commit, rotation, and what happens when the disk fails.
//!
//! Always holds: a record is answered with its LSN only after the sync that covers it; a segment
//! whose write or sync failed is never written or synced again; when one record is given back, so
//! is everything behind it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uuid::Uuid;

use crate::disk::DiskFile;
use crate::error::{FullCause, JournalError, is_no_space};
use crate::format::{Lsn, RecordHeader, RecordKind, SegmentName, padding_bytes, record_bytes, seed};
use crate::limits::{
    COPY_BELOW_BYTES, GROUP_BYTES_MAX, GROUP_RECORDS_MAX, RECORD_HEADER_BYTES, SEAL_BYTES,
    VECTORS_PER_WRITE_MAX,
};
use crate::queue::{Submission, lock};
use crate::segment::{ActiveSegment, CreateFailure, create_segment};
use crate::shared::Shared;

/// How often one group is tried: once, and once more in a new segment.
const ATTEMPTS: u32 = 2;

/// Where the writer goes on after recovery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextPlace {
    pub(crate) lsn: u64,
    pub(crate) epoch: u64,
}

/// Why a group was not stored.
enum Failure {
    /// There is no room: the records go back, the journal stays.
    Full(FullCause),
    /// The file failed; a new one may be tried once.
    File(JournalError),
    /// Nothing can be promised any more.
    Fatal(JournalError),
}

/// The writing end of a journal.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Option<ActiveSegment>,
    next: NextPlace,
    pending: VecDeque<Submission>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, next: NextPlace) -> Self {
        Self { shared, active: None, next, pending: VecDeque::new() }
    }

    /// Writes until the journal is closed or has failed.
    pub(crate) fn run(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            while let Some(work) = self.shared.queue.wait() {
                self.pending = work;
                if self.commit_pending().is_err() {
                    return;
                }
            }
            self.finish();
        }));
        if worked.is_err() {
            self.end(JournalError::WriterPanicked);
        }
    }

    /// Takes what is queued now and commits it.
    #[cfg(test)]
    pub(crate) fn step(&mut self) -> Result<(), JournalError> {
        self.pending = self.shared.queue.take();
        self.commit_pending()
    }

    /// Ends in order: seals the segment and lets go of the directory.
    pub(crate) fn finish(&mut self) {
        self.seal();
        self.end(JournalError::Closed);
    }

    /// Commits everything pending, group by group. An error is the end of the journal.
    fn commit_pending(&mut self) -> Result<(), JournalError> {
        while !self.pending.is_empty() {
            match self.commit_group() {
                Ok(()) => {}
                Err(Failure::Full(cause)) => self.turn_back(cause),
                Err(Failure::File(error) | Failure::Fatal(error)) => {
                    tracing::error!(error = error_chain(&error), "the journal failed and stops");
                    let error = JournalError::Poisoned(Arc::new(error));
                    self.end(error.clone());
                    return Err(error);
                }
            }
        }
        self.watch_the_floor();
        Ok(())
    }

    /// Stores as many of the pending records as fit into one group, and answers them.
    fn commit_group(&mut self) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            match self.try_group() {
                Ok((count, payload_bytes)) => {
                    self.acknowledge(count, payload_bytes);
                    return Ok(());
                }
                Err(Failure::File(error)) if attempt < ATTEMPTS => {
                    tracing::error!(
                        error = error_chain(&error),
                        "a segment is given up; its unacknowledged records go into a new one"
                    );
                    attempt += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn try_group(&mut self) -> Result<(usize, u64), Failure> {
        let first = self.pending.front().map_or(0, |submission| submission.payload.bytes());
        let mut active = self.active_with_room(record_bytes(first))?;
        let count = fitting(&self.pending, self.room(&active));
        let mut group = Group::default();
        let mut payload_bytes = 0;
        for (index, submission) in self.pending.iter().take(count).enumerate() {
            let header = RecordHeader {
                kind: RecordKind::Data,
                group_index: u16::try_from(index).unwrap_or(u16::MAX),
                payload_bytes: u32::try_from(submission.payload.bytes()).unwrap_or(u32::MAX),
                lsn: self.next.lsn + index as u64,
            };
            group.push(active.uuid, active.offset, header, submission.payload.slices());
            payload_bytes += submission.payload.bytes();
        }
        match group.write(&*active.file, active.offset).and_then(|()| self.sync(&*active.file)) {
            Ok(()) => {
                active.offset += group.bytes;
                active.records += count as u64;
                self.active = Some(active);
                Ok((count, payload_bytes))
            }
            // Dropping `active` is the rule: this file is never written or synced again.
            Err(error) => {
                self.shared.counters.suspect_segments.add(1);
                Err(self.write_failure(error, &active))
            }
        }
    }

    fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        let synced = file.sync_data();
        let counters = &self.shared.counters;
        if synced.is_ok() { &counters.fsyncs } else { &counters.fsync_failures }.add(1);
        synced
    }

    fn write_failure(&self, error: io::Error, active: &ActiveSegment) -> Failure {
        if is_no_space(&error) {
            let wanted_bytes = self.shared.reopening_bytes(self.shared.options.segment_bytes);
            return Failure::Full(FullCause::Device { wanted_bytes });
        }
        Failure::File(JournalError::io("write or sync segment", &active.segment.path)(error))
    }

    /// Bytes that records may still take in a segment.
    fn room(&self, active: &ActiveSegment) -> u64 {
        (self.shared.options.segment_bytes - SEAL_BYTES).saturating_sub(active.offset)
    }

    /// The active segment if the record fits, or a new one. Taken out of `self`: it is put back
    /// only after a write and sync that succeeded.
    fn active_with_room(&mut self, bytes: u64) -> Result<ActiveSegment, Failure> {
        if let Some(active) = self.active.take() {
            if self.room(&active) >= bytes {
                return Ok(active);
            }
            self.active = Some(active);
            self.shared.check_allocation().map_err(Failure::Full)?;
            self.seal();
        } else {
            self.shared.check_allocation().map_err(Failure::Full)?;
        }
        self.next.epoch += 1;
        let name = SegmentName { epoch: self.next.epoch, first_lsn: self.next.lsn };
        let shared = &self.shared;
        let created = create_segment(&*shared.disk, &shared.directory, name, shared.options.segment_bytes);
        let active = created.map_err(|failure| match failure {
            CreateFailure::Space => {
                let wanted_bytes = shared.reopening_bytes(shared.options.segment_bytes);
                Failure::Full(FullCause::Device { wanted_bytes })
            }
            CreateFailure::File(error) => Failure::File(error),
            CreateFailure::Directory(error) => Failure::Fatal(error),
        })?;
        lock(&shared.catalog).segments.push(active.segment.clone());
        shared.counters.rotations.add(1);
        Ok(active)
    }

    /// Publishes what was synced and answers those who waited for it.
    fn acknowledge(&mut self, count: usize, payload_bytes: u64) {
        let first = self.next.lsn;
        self.next.lsn += count as u64;
        let counters = &self.shared.counters;
        counters.groups.add(1);
        counters.records.add(count as u64);
        counters.bytes.add(payload_bytes);
        self.shared.durable.publish(self.next.lsn - 1);
        for lsn in first..self.next.lsn {
            let Some(submission) = self.pending.pop_front() else { break };
            // The promise itself, checked in release builds too.
            assert!(lsn <= self.shared.durable.get(), "acknowledged lsn must be synced");
            self.shared.queue.release(submission.charge());
            (submission.done)(Ok(Lsn(lsn)));
        }
        self.shared.durable.tell_listeners(self.next.lsn - 1);
    }

    /// Closes the gate while space is merely short, before anything has to fail.
    fn watch_the_floor(&self) {
        let (free_bytes, floor) = (self.shared.free_bytes(), self.shared.options.free_bytes_min);
        if free_bytes < floor {
            let wanted_bytes = self.shared.reopening_bytes(0);
            let cause = FullCause::Floor { free_bytes, wanted_bytes };
            if self.shared.queue.close_gate(cause) {
                self.tell_full(cause);
            }
        }
    }

    /// Gives back everything that waits, and lets nothing in until there is room.
    fn turn_back(&mut self, cause: FullCause) {
        let (was_open, waiting) = self.shared.queue.turn_back(cause);
        if was_open {
            self.tell_full(cause);
        }
        self.pending.extend(waiting);
        self.shared.counters.refused.add(self.pending.len() as u64);
        self.fail_pending(&JournalError::Full(cause));
    }

    fn tell_full(&self, cause: FullCause) {
        self.shared.counters.full_episodes.add(1);
        tracing::warn!(%cause, "the journal takes nothing in until there is room");
    }

    /// Answers everybody for the last time and lets other processes in.
    fn end(&mut self, error: JournalError) {
        self.active = None;
        let waiting = self.shared.queue.end(error.clone());
        self.pending.extend(waiting);
        self.fail_pending(&error);
        drop(lock(&self.shared.held).take());
    }

    fn fail_pending(&mut self, error: &JournalError) {
        while let Some(submission) = self.pending.pop_front() {
            self.shared.queue.release(submission.charge());
            (submission.done)(Err(error.clone()));
        }
    }

    /// Ends the active segment: a seal, and no unused space. Everything in it is durable already,
    /// so a failure costs nothing but the space.
    fn seal(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        let header =
            RecordHeader { kind: RecordKind::Seal, group_index: 0, payload_bytes: 8, lsn: self.next.lsn };
        let mut group = Group::default();
        let count = active.records.to_le_bytes();
        group.push(active.uuid, active.offset, header, std::iter::once(count.as_slice()));
        let end = active.offset + group.bytes;
        let sealed = group
            .write(&*active.file, active.offset)
            .and_then(|()| active.file.truncate(end))
            .and_then(|()| self.sync(&*active.file));
        if let Err(error) = sealed {
            tracing::warn!(%error, segment = %active.segment.name, "a finished segment stays unsealed");
            return;
        }
        active.segment.bytes = end;
        let mut catalog = lock(&self.shared.catalog);
        if let Some(segment) = catalog.segments.iter_mut().find(|segment| segment.name == active.segment.name)
        {
            segment.bytes = end;
        }
    }
}

/// An error as a field of an event, its sources with it.
fn error_chain<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error
}

/// How many of the first records fit into one group and into `room` bytes.
fn fitting(pending: &VecDeque<Submission>, room: u64) -> usize {
    let room = room.min(GROUP_BYTES_MAX);
    let mut used = 0;
    pending
        .iter()
        .take(GROUP_RECORDS_MAX)
        .take_while(|submission| {
            used += record_bytes(submission.payload.bytes());
            used <= room
        })
        .count()
}

/// A stretch of a group's bytes.
enum Piece<'a> {
    /// Headers, checksums and short parts, copied together.
    Copied(Range<usize>),
    /// A long part, where the caller left it.
    Part(&'a [u8]),
}

/// The bytes of one group, gathered for one vectored write.
#[derive(Default)]
struct Group<'a> {
    copied: Vec<u8>,
    pieces: Vec<Piece<'a>>,
    bytes: u64,
}

impl<'a> Group<'a> {
    /// Adds a record that will lie at `base` plus what was gathered before.
    fn push(&mut self, uuid: Uuid, base: u64, header: RecordHeader, parts: impl Iterator<Item = &'a [u8]>) {
        let offset = base + self.bytes;
        let start = self.copied.len();
        header.encode_into(uuid, offset, &mut self.copied);
        self.copied_since(start);
        let mut crc = seed(uuid, offset + RECORD_HEADER_BYTES);
        let mut payload_bytes = 0;
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
            payload_bytes += part.len() as u64;
            if part.len() < COPY_BELOW_BYTES {
                let start = self.copied.len();
                self.copied.extend_from_slice(part);
                self.copied_since(start);
            } else {
                self.pieces.push(Piece::Part(part));
            }
        }
        assert!(
            payload_bytes == u64::from(header.payload_bytes),
            "a payload's parts must not change their length"
        );
        let start = self.copied.len();
        self.copied.resize(start + padding_bytes(payload_bytes), 0);
        let padding = self.copied.get(start..).unwrap_or_default();
        let crc = crc32c::crc32c_append(crc, padding);
        self.copied.extend_from_slice(&crc.to_le_bytes());
        self.copied_since(start);
        self.bytes += header.record_bytes();
    }

    /// What was copied since `start` belongs here; it joins the piece before it if that was copied.
    fn copied_since(&mut self, start: usize) {
        let end = self.copied.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) if range.end == start => range.end = end,
            _ => self.pieces.push(Piece::Copied(start..end)),
        }
    }

    /// One vectored write, or more where the system takes no more vectors at once. A short write is
    /// an error: it means that the device is failing or full.
    fn write(&self, file: &dyn DiskFile, offset: u64) -> io::Result<()> {
        let slices: Vec<&[u8]> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Copied(range) => self.copied.get(range.clone()).unwrap_or_default(),
                Piece::Part(part) => part,
            })
            .collect();
        let mut at = offset;
        for slices in slices.chunks(VECTORS_PER_WRITE_MAX) {
            let vectors: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = file.write_at(&vectors, at)?;
            if written != wanted {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
        }
        Ok(())
    }
}

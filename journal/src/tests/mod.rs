//! Tests of the whole crate against the simulated disk, and of real files where those matter.

mod cursors;
mod damage;
mod faults;
mod golden;
mod model;
mod real_files;

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::journal::{Journal, JournalOptions};
use crate::queue::lock;
use crate::recover::RecoveryReport;
use crate::simulation::{Chance, SimDisk};
use crate::writer::Writer;
use crate::{JournalError, Lsn};

pub(super) const DIRECTORY: &str = "/var/beeacon/journal";

/// Segments as small as they may be, so that everything rotates often.
pub(super) fn small() -> JournalOptions {
    JournalOptions {
        segment_bytes: 64 << 10,
        record_bytes_max: 32 << 10,
        queue_bytes_max: 1 << 20,
        journal_bytes_max: 16 << 20,
        free_bytes_min: 0,
        known_lsn: Lsn::ZERO,
    }
}

/// A payload that tells by itself which one it is.
pub(super) fn payload(id: u64, bytes: usize) -> Vec<u8> {
    let mut chance = Chance(id);
    let mut payload = id.to_le_bytes().to_vec();
    payload.resize_with(bytes.max(8), || chance.next() as u8);
    payload
}

pub(super) fn id_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

type Answers = Arc<Mutex<Vec<(u64, Result<Lsn, JournalError>)>>>;

/// A journal on a simulated disk, driven by hand: nothing happens between two calls.
pub(super) struct Bench {
    pub(super) disk: SimDisk,
    pub(super) journal: Journal,
    pub(super) writer: Writer,
    pub(super) report: RecoveryReport,
    pub(super) answers: Answers,
}

impl Bench {
    pub(super) fn try_open(disk: &SimDisk, options: JournalOptions) -> Result<Self, JournalError> {
        let (journal, writer, report) =
            Journal::open_on(Arc::new(disk.clone()), Path::new(DIRECTORY), options)?;
        Ok(Self { disk: disk.clone(), journal, writer, report, answers: Answers::default() })
    }

    pub(super) fn open(disk: &SimDisk) -> Self {
        Self::try_open(disk, small()).unwrap()
    }

    pub(super) fn submit(&self, id: u64, bytes: usize) -> Result<(), JournalError> {
        let answers = Arc::clone(&self.answers);
        self.journal.submit(payload(id, bytes), move |result| lock(&answers).push((id, result)))
    }

    /// Submits one record and commits it as a group of its own.
    pub(super) fn append(&mut self, id: u64, bytes: usize) -> Result<Lsn, JournalError> {
        self.submit(id, bytes)?;
        drop(self.writer.step());
        lock(&self.answers).iter().rev().find(|(of, _)| *of == id).unwrap().1.clone()
    }

    pub(super) fn answers(&self) -> Vec<(u64, Result<Lsn, JournalError>)> {
        lock(&self.answers).clone()
    }

    /// Every durable record from the oldest one: LSN and id.
    pub(super) fn records(&self) -> Vec<(u64, u64)> {
        let first = self.first_lsn();
        let mut reader = self.journal.reader(first);
        let mut found = Vec::new();
        while let Some(record) = reader.read().unwrap() {
            let id = id_of(&record.payload);
            assert_eq!(
                record.payload,
                payload(id, record.payload.len()),
                "record {} is not what was written",
                record.lsn
            );
            found.push((record.lsn.0, id));
        }
        found
    }

    pub(super) fn first_lsn(&self) -> Lsn {
        lock(&self.journal.shared().catalog)
            .segments
            .first()
            .map_or(Lsn(1), |first| Lsn(first.name.first_lsn))
    }

    pub(super) fn segment_paths(&self) -> Vec<std::path::PathBuf> {
        lock(&self.journal.shared().catalog).segments.iter().map(|segment| segment.path.clone()).collect()
    }

    /// Ends in order.
    pub(super) fn finish(mut self) -> SimDisk {
        self.journal.shared().queue.close();
        self.writer.finish();
        self.disk
    }
}

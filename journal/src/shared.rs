//! What the handles, the readers and the writer thread of one journal have in common.
//!
//! Locks are taken in this order and no other: queue, catalog. Neither is held while a caller's
//! code runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cursor::CursorFile;
use crate::disk::{Disk, Held};
use crate::error::{FullCause, JournalError};
use crate::format::Lsn;
use crate::journal::JournalOptions;
use crate::limits::LISTENERS_MAX;
use crate::queue::{Queue, lock};
use crate::segment::Segment;
use crate::statistics::Counters;

/// The segments and cursors that exist.
#[derive(Default)]
pub(crate) struct Catalog {
    /// In order of epoch, and with that of first LSN.
    pub(crate) segments: Vec<Segment>,
    pub(crate) cursors: BTreeMap<String, Arc<CursorFile>>,
}

/// Where an LSN is.
pub(crate) enum Place {
    /// In this segment, which owns LSNs below `bound` if it has a successor.
    In { segment: Segment, bound: Option<u64> },
    /// Before everything that is kept.
    Before { first: Lsn },
    /// There is no segment yet.
    Nowhere,
}

impl Catalog {
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(crate) fn locate(&self, lsn: u64) -> Place {
        let Some(first) = self.segments.first() else {
            return Place::Nowhere;
        };
        // The last segment that starts at or before the LSN: where two start alike, the earlier
        // one owns nothing.
        let after = self.segments.partition_point(|segment| segment.name.first_lsn <= lsn);
        match after.checked_sub(1).and_then(|index| self.segments.get(index)) {
            Some(segment) => Place::In {
                segment: segment.clone(),
                bound: self.segments.get(after).map(|next| next.name.first_lsn),
            },
            None => Place::Before { first: Lsn(first.name.first_lsn) },
        }
    }

    /// How many segments at the front every consumer is done with. The last one always stays, so
    /// that the next LSN and epoch can be read off the directory.
    pub(crate) fn removable(&self) -> usize {
        let Some(slowest) = self.cursors.values().map(|cursor| cursor.durable()).min() else {
            return 0;
        };
        self.segments
            .iter()
            .skip(1)
            .take_while(|next| next.name.first_lsn <= slowest.saturating_add(1))
            .count()
    }
}

type Listener = Box<dyn Fn(Lsn) + Send>;

/// The last durable LSN, and who wants to hear of it.
#[derive(Default)]
pub(crate) struct Durable {
    lsn: Mutex<u64>,
    changed: Condvar,
    listeners: Mutex<Vec<Listener>>,
}

impl Durable {
    pub(crate) fn new(lsn: u64) -> Self {
        Self { lsn: Mutex::new(lsn), ..Self::default() }
    }

    pub(crate) fn get(&self) -> u64 {
        *lock(&self.lsn)
    }

    pub(crate) fn publish(&self, lsn: u64) {
        *lock(&self.lsn) = lsn;
        self.changed.notify_all();
    }

    pub(crate) fn tell_listeners(&self, lsn: u64) {
        for listener in lock(&self.listeners).iter() {
            listener(Lsn(lsn));
        }
    }

    pub(crate) fn wait_beyond(&self, lsn: u64, timeout: Duration) -> u64 {
        let (now, _) = self
            .changed
            .wait_timeout_while(lock(&self.lsn), timeout, |now| *now <= lsn)
            .unwrap_or_else(PoisonError::into_inner);
        *now
    }

    pub(crate) fn listen(&self, listener: Listener) -> Result<(), JournalError> {
        let mut listeners = lock(&self.listeners);
        if listeners.len() >= LISTENERS_MAX {
            return Err(JournalError::TooManyListeners { limit: LISTENERS_MAX });
        }
        listeners.push(listener);
        Ok(())
    }
}

/// One open journal.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: JournalOptions,
    pub(crate) queue: Queue,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) durable: Durable,
    pub(crate) counters: Counters,
    /// Keeps other processes out; let go when the writer is done.
    pub(crate) held: Mutex<Option<Held>>,
}

impl Shared {
    /// Free space at which the gate opens again: the floor, 5 % more so that it does not flap, and
    /// what is about to be allocated.
    pub(crate) fn reopening_bytes(&self, allocation_bytes: u64) -> u64 {
        let floor = self.options.free_bytes_min;
        floor.saturating_add(floor / 20).saturating_add(allocation_bytes)
    }

    /// Free bytes of the file system. One that cannot be asked is taken as not full: the
    /// allocation will tell.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.disk.free_bytes(&self.directory).unwrap_or(u64::MAX)
    }

    /// Whether a new segment may be allocated.
    pub(crate) fn check_allocation(&self) -> Result<(), FullCause> {
        let bytes = self.options.segment_bytes;
        self.check_quota()?;
        let free_bytes = self.free_bytes();
        if free_bytes < self.options.free_bytes_min.saturating_add(bytes) {
            return Err(FullCause::Floor { free_bytes, wanted_bytes: self.reopening_bytes(bytes) });
        }
        Ok(())
    }

    fn check_quota(&self) -> Result<(), FullCause> {
        let allocated_bytes = lock(&self.catalog).allocated_bytes();
        let limit_bytes = self.options.journal_bytes_max;
        if allocated_bytes.saturating_add(self.options.segment_bytes) > limit_bytes {
            return Err(FullCause::Quota { allocated_bytes, limit_bytes });
        }
        Ok(())
    }

    /// Whether what closed the gate still holds. The quota needs no hysteresis of its own: space
    /// comes back in whole segments.
    pub(crate) fn still_full(&self, cause: FullCause) -> Option<FullCause> {
        match cause {
            FullCause::Quota { .. } => self.check_quota().err(),
            FullCause::Floor { wanted_bytes, .. } => {
                let free_bytes = self.free_bytes();
                (free_bytes < wanted_bytes).then_some(FullCause::Floor { free_bytes, wanted_bytes })
            }
            FullCause::Device { wanted_bytes } => {
                (self.free_bytes() < wanted_bytes).then_some(FullCause::Device { wanted_bytes })
            }
        }
    }
}

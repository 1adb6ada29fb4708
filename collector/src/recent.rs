//! The rows of what has just become durable, for whoever follows the journal closely: their records need not be read and inflated
//! once more.
//!
//! What always holds:
//! - a record is here before anybody is told that it is durable, or it is not here at all;
//! - it stays until every reader is past it, or until there is no room: who finds nothing reads the journal;
//! - nothing is kept while there is no reader, and what is kept shares its memory with the store's fresh rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::followers::Found;
use crate::limits::{RECENT_BYTES_MAX, RECENT_RECORD_BYTES};

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    records: BTreeMap<u64, (Found, usize)>,
    bytes: usize,
    /// Where each reader is.
    places: BTreeMap<u64, u64>,
    next_reader: u64,
}

impl Recent {
    /// Keeps what a record holds, whose rows take so many bytes.
    pub(crate) fn insert(&self, lsn: u64, found: Found, bytes: usize) {
        let mut kept = self.kept();
        if kept.places.is_empty() {
            return;
        }
        let bytes = bytes.saturating_add(RECENT_RECORD_BYTES);
        kept.records.insert(lsn, (found, bytes));
        kept.bytes = kept.bytes.saturating_add(bytes);
        while kept.bytes > RECENT_BYTES_MAX {
            kept.drop_first();
        }
    }

    /// A reader that was shown everything up to this record.
    pub(crate) fn reader(&self, place: u64) -> RecentReader {
        let mut kept = self.kept();
        let number = kept.next_reader;
        kept.next_reader += 1;
        kept.places.insert(number, place);
        RecentReader { recent: self.clone(), number }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked with the lock held left at most a record too many behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_first(&mut self) {
        if let Some((_, (_, bytes))) = self.records.pop_first() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Drops what every reader is past.
    fn forget(&mut self) {
        let past = self.places.values().min().copied().unwrap_or(u64::MAX);
        while self.records.first_key_value().is_some_and(|(lsn, _)| *lsn <= past) {
            self.drop_first();
        }
    }
}

/// One reader's way through them.
pub(crate) struct RecentReader {
    recent: Recent,
    number: u64,
}

impl RecentReader {
    /// What this record holds, if it is still here.
    pub(crate) fn get(&self, lsn: u64) -> Option<Found> {
        self.recent.kept().records.get(&lsn).map(|(found, _)| found.clone())
    }

    /// It was shown everything up to this record.
    pub(crate) fn is_at(&self, place: u64) {
        let mut kept = self.recent.kept();
        kept.places.insert(self.number, place);
        kept.forget();
    }
}

impl Drop for RecentReader {
    fn drop(&mut self) {
        let mut kept = self.recent.kept();
        kept.places.remove(&self.number);
        kept.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsns(recent: &Recent) -> Vec<u64> {
        recent.kept().records.keys().copied().collect()
    }

    #[test]
    fn records_stay_until_the_slowest_reader_is_past_them() {
        let recent = Recent::default();
        recent.insert(1, None, 10);
        assert_eq!(lsns(&recent), [] as [u64; 0], "kept for nobody");
        let (fast, slow) = (recent.reader(1), recent.reader(1));
        for lsn in 2..=5 {
            recent.insert(lsn, None, 10);
        }
        fast.is_at(5);
        slow.is_at(3);
        assert_eq!(lsns(&recent), [4, 5]);
        assert!(slow.get(4).is_some() && slow.get(3).is_none());
        drop(slow);
        assert_eq!(lsns(&recent), [] as [u64; 0]);
        assert_eq!(recent.kept().bytes, 0);
    }

    #[test]
    fn without_room_the_oldest_goes() {
        let recent = Recent::default();
        let reader = recent.reader(0);
        for lsn in 1..=3 {
            recent.insert(lsn, None, RECENT_BYTES_MAX / 3);
        }
        assert_eq!(lsns(&recent), [2, 3]);
        assert!(reader.get(1).is_none());
        recent.insert(4, None, usize::MAX);
        assert_eq!((lsns(&recent), recent.kept().bytes), (Vec::new(), 0));
    }
}

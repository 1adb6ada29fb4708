//! Counters of one open journal, for whoever exports metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a journal has done since it was opened. Taken by `Journal::statistics`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct JournalStatistics {
            $($(#[$doc])* pub $name: u64,)*
            /// Segments on disk now.
            pub segments: u64,
            /// Bytes these segments take.
            pub allocated_bytes: u64,
            /// Bytes queued and in flight now.
            pub queued_bytes: u64,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> JournalStatistics {
                JournalStatistics { $($name: self.$name.get(),)* ..Default::default() }
            }
        }
    };
}

counters! {
    /// Successful syncs of segments: one per group, and one per seal.
    fsyncs,
    /// Syncs of segments that failed.
    fsync_failures,
    /// Groups written and synced.
    groups,
    /// Records made durable.
    records,
    /// Payload bytes made durable.
    bytes,
    /// Segments begun.
    rotations,
    /// Segments given up after a failed write or sync.
    suspect_segments,
    /// Records refused by `submit`, or given back because there was no room.
    refused,
    /// Times the journal began to refuse for want of room.
    full_episodes,
    /// Interrupted writes cut off when the journal was opened.
    torn_tails,
    /// Damaged ranges met, by recovery and by readers.
    corrupt_ranges,
    /// Segments removed below the slowest cursor.
    segments_removed,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

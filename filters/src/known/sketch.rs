//! How often windows occur in the set, roughly: what many secrets share, such as a token's header, is a bad place to look for one.

/// Counts by hash. Collisions only ever make a window seem more common than it is.
pub(super) struct Sketch {
    counts: Vec<u16>,
}

/// How many counters, as a power of two: 4 MiB while a set is built, a few per window of ten thousand secrets.
const COUNTERS: usize = 1 << 21;

impl Sketch {
    pub(super) fn new() -> Sketch {
        Sketch { counts: vec![0; COUNTERS] }
    }

    pub(super) fn add(&mut self, hash: u64) {
        if let Some(count) = self.counts.get_mut(place(hash)) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn count(&self, hash: u64) -> u16 {
        self.counts.get(place(hash)).copied().unwrap_or(0)
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash >> 24).unwrap_or(0) & (COUNTERS - 1)
}

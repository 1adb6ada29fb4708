//! Keyed digests of needles, and what each stands for.

use std::hash::{BuildHasher, Hasher, RandomState};

/// What a digest stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Which reference.
    pub(super) reference: u32,
    pub(super) reaches_before: bool,
    pub(super) reaches_behind: bool,
    /// Of several secrets: it says less than a neighbour that is of one.
    pub(super) is_shared: bool,
    /// Only where no letter or digit is beside it.
    pub(super) is_word: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    digest: u64,
    meaning: Meaning,
    is_taken: bool,
}

/// Digests by open addressing, at most two thirds full.
#[derive(Clone)]
pub(super) struct Digests {
    key: RandomState,
    slots: Vec<Slot>,
    used: usize,
}

impl Digests {
    /// Room for `count` digests, keyed at random.
    pub(super) fn with_room(count: usize) -> Digests {
        let slots = (count + count / 2 + 2).next_power_of_two();
        Digests { key: RandomState::new(), slots: vec![Slot::default(); slots], used: 0 }
    }

    /// The digest of one needle.
    pub(super) fn of(&self, needle: &[u8]) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write(needle);
        hasher.write_usize(needle.len());
        hasher.finish()
    }

    /// Adds a digest. The first meaning stays; a second secret makes it shared.
    pub(super) fn add(&mut self, digest: u64, meaning: Meaning) {
        let mask = self.slots.len() - 1;
        let mut at = place(digest) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if !slot.is_taken {
                *slot = Slot { digest, meaning, is_taken: true };
                self.used += 1;
                return;
            }
            if slot.digest == digest {
                let known = &mut slot.meaning;
                known.is_shared |= known.reference != meaning.reference;
                known.is_word &= meaning.is_word;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Those whose meaning is kept, with room for `more`.
    pub(super) fn retained(&self, keeps: impl Fn(&Meaning) -> bool, more: usize) -> Digests {
        let kept = || self.slots.iter().filter(|slot| slot.is_taken && keeps(&slot.meaning));
        let room = Digests::with_room(kept().count() + more);
        let mut digests = Digests { key: self.key.clone(), ..room };
        for slot in kept() {
            digests.add(slot.digest, slot.meaning);
        }
        digests
    }

    pub(super) fn get(&self, digest: u64) -> Option<Meaning> {
        let mask = self.slots.len() - 1;
        let mut at = place(digest) & mask;
        loop {
            let slot = self.slots.get(at)?;
            if !slot.is_taken {
                return None;
            }
            if slot.digest == digest {
                return Some(slot.meaning);
            }
            at = (at + 1) & mask;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.used
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    #[cfg(test)]
    pub(super) fn image(&self, out: &mut Vec<u8>) {
        for slot in &self.slots {
            out.extend_from_slice(&slot.digest.to_le_bytes());
            out.extend_from_slice(&slot.meaning.reference.to_le_bytes());
        }
    }
}

/// A digest's low bits as an index; the caller masks it.
fn place(digest: u64) -> usize {
    usize::try_from(digest & u64::from(u32::MAX)).unwrap_or(0)
}

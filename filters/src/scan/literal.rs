//! Literals: three bytes and more at a fixed place, of which one must stand in every match of a rule.
//!
//! A first look asks of every position whether its four bytes could start one of the literals ([`super::sieve`]). What passes is
//! looked up by a hash of the same four bytes, and compared with up to eight. So the cost of one more literal is next to nothing.

use std::collections::BTreeMap;

use super::bytes::ByteSet;
use super::sieve::{self, DEPTH, fold};
use super::simd::{SIEVE_BYTES, SieveTable, VIEW_BYTES};

/// The shortest literal, in bytes.
pub(crate) const LITERAL_BYTES_MIN: usize = 3;

/// The most bytes of a literal that are compared.
pub(crate) const LITERAL_BYTES_MAX: usize = 8;

/// How many spellings, case aside, the first four bytes of a literal may have.
const SPELLINGS_MAX: usize = 160;

const SLOTS: usize = 1 << 13;

/// A text of sets of bytes, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// Three to eight sets.
    pub(crate) sets: Vec<ByteSet>,
    /// How far behind the place that the anchor is counted from.
    pub(crate) offset: u8,
}

impl Literal {
    /// The spellings of the first four bytes with case folded; nothing if they are too many.
    fn keys(&self) -> Option<Vec<[u8; DEPTH]>> {
        let mut keys = vec![[0; DEPTH]];
        for place in 0..DEPTH {
            // What stands behind the literal may be anything.
            let set = self.sets.get(place).copied().unwrap_or(ByteSet::ALL);
            let mut folded: Vec<u8> = set.iter().map(fold).collect();
            folded.sort_unstable();
            folded.dedup();
            if keys.len() * folded.len() > SPELLINGS_MAX {
                return None;
            }
            let with = |key: &[u8; DEPTH], byte: u8| {
                let mut key = *key;
                if let Some(slot) = key.get_mut(place) {
                    *slot = byte;
                }
                key
            };
            keys = keys.iter().flat_map(|key| folded.iter().map(|byte| with(key, *byte))).collect();
        }
        Some(keys)
    }

    /// How much of ordinary text passes the first look, and the comparison, by how often its bytes stand in logs.
    pub(crate) fn shares(&self) -> (f64, f64) {
        let share = |count: usize| self.sets.iter().take(count).map(ByteSet::share).product::<f64>();
        (share(DEPTH), share(LITERAL_BYTES_MAX))
    }

    /// How much of made-up log text passes the first look, and the comparison; nothing if the literal cannot be looked up.
    pub(crate) fn counted(&self) -> Option<(f64, f64)> {
        let (value, mask) = self.compared();
        let (mut first, mut whole) = (0.0, 0.0);
        for key in self.keys()? {
            let (all, alike) = sieve::shares(key, |eight| u64::from_le_bytes(eight) & mask == value);
            first += all;
            whole += alike;
        }
        Some((first, whole))
    }

    /// What eight bytes are compared with, and which of their bits are.
    fn compared(&self) -> (u64, u64) {
        let (mut value, mut mask) = (0, 0);
        for (place, set) in self.sets.iter().take(LITERAL_BYTES_MAX).enumerate() {
            // The bits that all bytes of the set agree on; of a letter in either case all but one.
            let (all, any) = set.iter().fold((255, 0), |(all, any), byte| (all & byte, any | byte));
            let agreed = !(all ^ any);
            value |= u64::from(all & agreed) << (8 * place);
            mask |= u64::from(agreed) << (8 * place);
        }
        (value, mask)
    }
}

/// A rule, and how far before the literal its place is.
type Target = (u32, u8);

/// A comparison with eight bytes, and for whom it is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: u64,
    mask: u64,
    /// Which of the targets are its.
    first: u32,
    count: u16,
    /// Whether the next entry is of the same slot.
    goes_on: bool,
}

/// Collects literals.
#[derive(Default)]
pub(crate) struct Builder {
    literals: Vec<(Literal, u32)>,
}

impl Builder {
    pub(crate) fn add(&mut self, literal: Literal, rule: u32) {
        self.literals.push((literal, rule));
    }

    pub(crate) fn build(self) -> Literals {
        let keys: Vec<_> =
            self.literals.iter().map(|(literal, _)| literal.keys().unwrap_or_default()).collect();
        let mut slots: BTreeMap<usize, BTreeMap<(u64, u64), Vec<Target>>> = BTreeMap::new();
        for ((literal, rule), keys) in self.literals.iter().zip(&keys) {
            for key in keys {
                let targets = slots
                    .entry(slot_of(u32::from_le_bytes(*key)))
                    .or_default()
                    .entry(literal.compared())
                    .or_default();
                if !targets.contains(&(*rule, literal.offset)) {
                    targets.push((*rule, literal.offset));
                }
            }
        }
        let mut literals = Literals {
            sieve: sieve::of(&keys.concat()),
            slots: Box::new([0; SLOTS]),
            entries: Vec::new(),
            targets: Vec::new(),
        };
        for (slot, all) in slots {
            if let Some(slot) = literals.slots.get_mut(slot) {
                *slot = u16::try_from(literals.entries.len() + 1).unwrap_or(u16::MAX);
            }
            let last = all.len() - 1;
            for (number, ((value, mask), targets)) in all.into_iter().enumerate() {
                literals.entries.push(Entry {
                    value,
                    mask,
                    first: u32::try_from(literals.targets.len()).unwrap_or(u32::MAX),
                    count: u16::try_from(targets.len()).unwrap_or(u16::MAX),
                    goes_on: number < last,
                });
                literals.targets.extend(targets);
            }
        }
        literals
    }
}

/// Literals compiled for finding.
pub(crate) struct Literals {
    pub(crate) sieve: SieveTable,
    /// For each hash one more than the first entry's number; 0 for none.
    slots: Box<[u16; SLOTS]>,
    entries: Vec<Entry>,
    targets: Vec<Target>,
}

fn slot_of(bytes: u32) -> usize {
    let hash = bytes.wrapping_mul(0x85eb_ca6b) >> 19;
    usize::try_from(hash).unwrap_or(0) & (SLOTS - 1)
}

impl Literals {
    /// How much memory the tables take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let targets = self.targets.len() * size_of::<Target>();
        SIEVE_BYTES + 2 * SLOTS + self.entries.len() * size_of::<Entry>() + targets
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there are more than can be numbered.
    pub(crate) fn is_too_many(&self) -> bool {
        self.entries.len() >= usize::from(u16::MAX)
    }

    /// Calls with (rule, offset) of every literal at `at`.
    #[inline]
    pub(crate) fn at(&self, view: &[u8; VIEW_BYTES], at: u16, mut call: impl FnMut(u32, u8)) {
        let Some(eight) = view.get(usize::from(at)..).and_then(<[u8]>::first_chunk) else { return };
        let text = u64::from_le_bytes(*eight);
        let [a, b, c, d, ..] = *eight;
        let slot = self.slots.get(slot_of(u32::from_le_bytes([a, b, c, d].map(fold)))).copied().unwrap_or(0);
        let Some(first) = usize::from(slot).checked_sub(1) else { return };
        for entry in self.entries.get(first..).unwrap_or(&[]) {
            if text & entry.mask == entry.value {
                let targets = usize::try_from(entry.first).ok().and_then(|first| self.targets.get(first..));
                for (rule, offset) in targets.unwrap_or(&[]).iter().take(usize::from(entry.count)) {
                    call(*rule, *offset);
                }
            }
            if !entry.goes_on {
                return;
            }
        }
    }
}

//! Literals: three bytes and more at a fixed place, of which one must stand in every match of a rule.
//!
//! A first look asks of every position whether its four bytes could start one of the literals ([`super::sieve`]). What passes is
//! looked up by a hash of the same four bytes, and compared with up to eight. So the cost of one more literal is next to nothing.

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

    /// How much of made-up log text passes the first look; nothing if the literal cannot be looked up.
    pub(crate) fn counted(&self) -> Option<f64> {
        Some(self.keys()?.into_iter().map(sieve::share).sum())
    }
}

/// A comparison with eight bytes, and whose rule's it is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: u64,
    mask: u64,
    rule: u32,
    offset: u8,
    next: u16,
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
        let mut table =
            Literals { sieve: sieve::of(&keys.concat()), slots: Box::new([0; SLOTS]), entries: Vec::new() };
        for ((literal, rule), keys) in self.literals.iter().zip(keys) {
            for key in keys {
                table.insert(literal, key, *rule);
            }
        }
        table
    }
}

/// Literals compiled for finding.
pub(crate) struct Literals {
    pub(crate) sieve: SieveTable,
    /// For each hash one more than the first entry's number; 0 for none.
    slots: Box<[u16; SLOTS]>,
    entries: Vec<Entry>,
}

fn slot_of(bytes: u32) -> usize {
    let hash = bytes.wrapping_mul(0x85eb_ca6b) >> 19;
    usize::try_from(hash).unwrap_or(0) & (SLOTS - 1)
}

impl Literals {
    fn insert(&mut self, literal: &Literal, key: [u8; DEPTH], rule: u32) {
        let (mut value, mut mask) = (0, 0);
        for (place, set) in literal.sets.iter().take(LITERAL_BYTES_MAX).enumerate() {
            // The bits that all bytes of the set agree on; of a letter in either case all but one.
            let (all, any) = set.iter().fold((255, 0), |(all, any), byte| (all & byte, any | byte));
            let agreed = !(all ^ any);
            value |= u64::from(all & agreed) << (8 * place);
            mask |= u64::from(agreed) << (8 * place);
        }
        let slot = slot_of(u32::from_le_bytes(key));
        let Some(head) = self.slots.get_mut(slot) else { return };
        let offset = literal.offset;
        let mut at = *head;
        while let Some(entry) = at.checked_sub(1).and_then(|at| self.entries.get(usize::from(at))) {
            if (entry.value, entry.mask, entry.rule, entry.offset) == (value, mask, rule, offset) {
                return;
            }
            at = entry.next;
        }
        self.entries.push(Entry { value, mask, rule, offset, next: *head });
        *head = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
    }

    /// How much memory the tables take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        SIEVE_BYTES + 2 * SLOTS + self.entries.len() * size_of::<Entry>()
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
        let mut next =
            self.slots.get(slot_of(u32::from_le_bytes([a, b, c, d].map(fold)))).copied().unwrap_or(0);
        while let Some(entry) = next.checked_sub(1).and_then(|at| self.entries.get(usize::from(at))) {
            if text & entry.mask == entry.value {
                call(entry.rule, entry.offset);
            }
            next = entry.next;
        }
    }
}

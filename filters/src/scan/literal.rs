//! Literals: three bytes and more at a fixed place, of which one must stand in every match of a rule.
//!
//! A first look asks of every position whether its four bytes could start one of the literals ([`super::simd`]): literals are sorted
//! into sixteen buckets such that few other texts pass. What passes is looked up by a hash of three bytes, and compared with up to
//! eight. So the cost of one more literal is next to nothing.

use super::bytes::ByteSet;
use super::simd::{BUCKETS, DEPTH, Fingerprints, Nibbles, VIEW_BYTES};

/// The shortest literal, in bytes.
pub(crate) const LITERAL_BYTES_MIN: usize = 3;

/// The most bytes of a literal that are compared.
pub(crate) const LITERAL_BYTES_MAX: usize = 8;

/// How many spellings, case aside, the first three bytes of a literal may have.
const SPELLINGS_MAX: usize = 64;

const SLOTS: usize = 1 << 12;

/// A text of sets of bytes, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// Three to eight sets.
    pub(crate) sets: Vec<ByteSet>,
    /// How far behind the place that the anchor is counted from.
    pub(crate) offset: u8,
}

impl Literal {
    /// The spellings of the first three bytes with case folded; nothing if they are too many.
    fn keys(&self) -> Option<Vec<[u8; LITERAL_BYTES_MIN]>> {
        let mut keys = vec![[0; LITERAL_BYTES_MIN]];
        for place in 0..LITERAL_BYTES_MIN {
            let mut folded: Vec<u8> = self.sets.get(place)?.iter().map(|byte| byte | 0x20).collect();
            folded.sort_unstable();
            folded.dedup();
            if keys.len() * folded.len() > SPELLINGS_MAX {
                return None;
            }
            let mut longer = Vec::with_capacity(keys.len() * folded.len());
            for key in &keys {
                for byte in &folded {
                    let mut key = *key;
                    if let Some(slot) = key.get_mut(place) {
                        *slot = *byte;
                    }
                    longer.push(key);
                }
            }
            keys = longer;
        }
        Some(keys)
    }

    /// Whether it can be looked up.
    pub(crate) fn is_short_list(&self) -> bool {
        self.keys().is_some()
    }

    /// How much of ordinary text passes the first look, and the comparison.
    pub(crate) fn shares(&self) -> (f64, f64) {
        let share = |count: usize| self.sets.iter().take(count).map(ByteSet::share).product::<f64>();
        (share(DEPTH), share(LITERAL_BYTES_MAX))
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
        let mut table = Literals {
            fingerprints: Fingerprints::new(buckets(&self.literals)),
            slots: Box::new([0; SLOTS]),
            entries: Vec::new(),
        };
        for (literal, rule) in &self.literals {
            for key in literal.keys().unwrap_or_default() {
                table.insert(literal, key, *rule);
            }
        }
        table
    }
}

/// Literals compiled for finding.
pub(crate) struct Literals {
    pub(crate) fingerprints: Fingerprints,
    /// For each hash one more than the first entry's number; 0 for none.
    slots: Box<[u16; SLOTS]>,
    entries: Vec<Entry>,
}

fn slot_of(bytes: u32) -> usize {
    let hash = ((bytes & 0x00ff_ffff) | 0x0020_2020).wrapping_mul(0x9e37_79b1) >> 20;
    usize::try_from(hash).unwrap_or(0) & (SLOTS - 1)
}

impl Literals {
    fn insert(&mut self, literal: &Literal, key: [u8; LITERAL_BYTES_MIN], rule: u32) {
        let (mut value, mut mask) = (0, 0);
        for (place, set) in literal.sets.iter().take(LITERAL_BYTES_MAX).enumerate() {
            // The bits that all bytes of the set agree on; of a letter in either case all but one.
            let (all, any) = set.iter().fold((255, 0), |(all, any), byte| (all & byte, any | byte));
            let agreed = !(all ^ any);
            value |= u64::from(all & agreed) << (8 * place);
            mask |= u64::from(agreed) << (8 * place);
        }
        let [a, b, c] = key;
        let slot = slot_of(u32::from_le_bytes([a, b, c, 0]));
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
        let [a, b, c, ..] = *eight;
        let mut next = self.slots.get(slot_of(u32::from_le_bytes([a, b, c, 0]))).copied().unwrap_or(0);
        while let Some(entry) = next.checked_sub(1).and_then(|at| self.entries.get(usize::from(at))) {
            if text & entry.mask == entry.value {
                call(entry.rule, entry.offset);
            }
            next = entry.next;
        }
    }
}

/// What a bucket admits at each place, by halves of bytes.
#[derive(Clone, Copy, Default)]
struct Bucket {
    halves: [[u16; 2]; DEPTH],
    cost: f64,
}

impl Bucket {
    fn with(&self, literal: &Literal, shares: &Shares) -> Bucket {
        let mut wider = *self;
        for (place, halves) in wider.halves.iter_mut().enumerate() {
            let Some(set) = literal.sets.get(place) else {
                *halves = [u16::MAX; 2];
                continue;
            };
            for byte in set.iter() {
                halves[0] |= 1 << (byte & 15);
                halves[1] |= 1 << (byte >> 4);
            }
        }
        wider.cost = wider.halves.iter().map(|[low, high]| shares.of(*low, *high)).product();
        wider
    }
}

/// How much of ordinary text has its halves in given sets.
struct Shares([[f64; 16]; 16]);

impl Shares {
    fn new() -> Shares {
        let byte = |high: usize, low: usize| u8::try_from(16 * high + low).unwrap_or(0);
        let row = |high: usize| std::array::from_fn(|low| ByteSet::one(byte(high, low)).share());
        Shares(std::array::from_fn(row))
    }

    fn of(&self, low: u16, high: u16) -> f64 {
        let chosen = |set: u16| (0..16_usize).filter(move |place| set >> place & 1 == 1);
        let row = |high: usize| {
            self.0.get(high).map_or(0.0, |row| chosen(low).filter_map(|low| row.get(low)).sum())
        };
        chosen(high).map(row).sum::<f64>().min(1.0)
    }
}

/// Sorts literals into buckets: each goes where it adds least to what passes by chance.
fn buckets(literals: &[(Literal, u32)]) -> Nibbles {
    let shares = Shares::new();
    let mut buckets = [Bucket::default(); BUCKETS];
    let mut different: Vec<&Literal> = Vec::new();
    for (literal, _) in literals {
        let head = literal.sets.get(..DEPTH.min(literal.sets.len()));
        if !different.iter().any(|known| known.sets.get(..DEPTH.min(known.sets.len())) == head) {
            different.push(literal);
        }
    }
    // The commonest first: they decide what a bucket costs anyway.
    different.sort_by(|one, other| other.shares().0.total_cmp(&one.shares().0));
    for literal in different {
        let wider = buckets.map(|bucket| bucket.with(literal, &shares));
        let added = |(one, other): (&Bucket, &Bucket)| one.cost - other.cost;
        let best =
            wider.iter().zip(&buckets).map(added).enumerate().min_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((best, _)) = best
            && let (Some(slot), Some(wider)) = (buckets.get_mut(best), wider.get(best))
        {
            *slot = *wider;
        }
    }
    let mut nibbles = Nibbles::default();
    for (number, bucket) in buckets.iter().enumerate() {
        for (place, halves) in nibbles.tables.iter_mut().zip(bucket.halves) {
            for (half, set) in place.iter_mut().zip(halves) {
                let Some(part) = half.get_mut(number / 8) else { continue };
                for (nibble, row) in part.iter_mut().enumerate() {
                    *row |= u8::from(set >> nibble & 1 == 1) << (number % 8);
                }
            }
        }
    }
    nibbles
}

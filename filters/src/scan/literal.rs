//! Literals: short texts of which one must stand in every match of a rule.
//!
//! Every position gets a fingerprint: the buckets, eight at most, whose literals could start with the four bytes there. Four table
//! look-ups a position, whatever the number of literals; case is folded by the tables.

use super::masks::WINDOW_BYTES;
use super::masks::{VALID, WINDOW_STRIDE};

const BUCKETS: usize = 8;
const DEPTH: usize = 4;

/// A literal and the rules it may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    bytes: Vec<u8>,
    ignore_case: bool,
    pub(crate) rules: Vec<u32>,
}

impl Literal {
    fn starts(&self, text: &[u8]) -> bool {
        text.get(..self.bytes.len()).is_some_and(|head| {
            if self.ignore_case { head.eq_ignore_ascii_case(&self.bytes) } else { head == self.bytes }
        })
    }
}

/// Collects literals.
#[derive(Default)]
pub(crate) struct Builder {
    literals: Vec<Literal>,
}

impl Builder {
    pub(crate) fn add(&mut self, bytes: Vec<u8>, ignore_case: bool, rule: u32) {
        let same = |known: &&mut Literal| known.bytes == bytes && known.ignore_case == ignore_case;
        match self.literals.iter_mut().find(same) {
            Some(known) => known.rules.push(rule),
            None => self.literals.push(Literal { bytes, ignore_case, rules: vec![rule] }),
        }
    }

    /// Sorts literals into buckets: the short ones apart, because they match at any byte further on; the others so that
    /// neighbours in the alphabet, which share bytes, share a bucket.
    pub(crate) fn build(mut self) -> Literals {
        self.literals.sort_by_key(|literal| literal.bytes.to_ascii_lowercase());
        let long = self.literals.iter().filter(|literal| literal.bytes.len() >= DEPTH).count().max(1);
        let mut literals = Literals {
            tables: Box::new([[0; 256]; DEPTH]),
            buckets: std::array::from_fn(|_| Vec::new()),
            is_empty: self.literals.is_empty(),
        };
        let mut rank = 0;
        for literal in self.literals {
            let bucket = match literal.bytes.len() {
                0..=1 => 0,
                2..=3 => 1,
                _ => {
                    rank += 1;
                    2 + (rank - 1) * (BUCKETS - 2) / long
                }
            };
            literals.admit(bucket.min(BUCKETS - 1), literal);
        }
        literals
    }
}

/// Literals compiled for finding.
pub(crate) struct Literals {
    tables: Box<[[u8; 256]; DEPTH]>,
    buckets: [Vec<Literal>; BUCKETS],
    is_empty: bool,
}

impl Literals {
    fn admit(&mut self, bucket: usize, literal: Literal) {
        for (depth, table) in self.tables.iter_mut().enumerate() {
            for (byte, slot) in (0..=255_u8).zip(table.iter_mut()) {
                let admitted = literal.bytes.get(depth).is_none_or(|wanted| {
                    *wanted == byte || (literal.ignore_case && wanted.eq_ignore_ascii_case(&byte))
                });
                if admitted {
                    *slot |= 1 << bucket;
                }
            }
        }
        if let Some(slot) = self.buckets.get_mut(bucket) {
            slot.push(literal);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a byte is a place in a table of 256")]
    /// The buckets of every position that the window decides, and a mask of those that have any.
    #[inline]
    pub(crate) fn fingerprints(&self, window: &[u8; WINDOW_BYTES], out: &mut [u8; WINDOW_BYTES]) -> u64 {
        if self.is_empty {
            return 0;
        }
        let [first, second, third, fourth] = &*self.tables;
        let mut mask = 0_u64;
        let quads = window.windows(DEPTH).zip(out.iter_mut()).take(WINDOW_STRIDE + 1).enumerate();
        for (at, (quad, slot)) in quads {
            let &[a, b, c, d] = quad else { continue };
            let found = first[usize::from(a)]
                & second[usize::from(b)]
                & third[usize::from(c)]
                & fourth[usize::from(d)];
            *slot = found;
            mask |= u64::from(found != 0) << at;
        }
        mask & VALID
    }

    /// The literals of these buckets that `text` starts with.
    pub(crate) fn matching<'a>(&'a self, buckets: u8, text: &'a [u8]) -> impl Iterator<Item = &'a Literal> {
        let chosen = self.buckets.iter().enumerate().filter(move |(index, _)| buckets >> index & 1 == 1);
        chosen.flat_map(|(_, bucket)| bucket).filter(move |literal| literal.starts(text))
    }
}

//! Sets of byte values, and how often each byte stands in a log.

use regex_syntax::hir::{ClassBytes, Hir, HirKind};

use crate::pattern::syntax_config;

/// A set of byte values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const ALL: ByteSet = ByteSet([u64::MAX; 4]);

    pub(crate) fn one(byte: u8) -> ByteSet {
        let mut set = ByteSet::default();
        set.insert(byte);
        set
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a byte's two highest bits are a place among four")]
    pub(crate) fn holds(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    #[expect(clippy::indexing_slicing, reason = "a byte's two highest bits are a place among four")]
    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn union(self, other: ByteSet) -> ByteSet {
        let mut all = self;
        for (word, more) in all.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        all
    }

    pub(crate) fn within(&self, other: &ByteSet) -> bool {
        self.0.iter().zip(other.0).all(|(mine, theirs)| mine & !theirs == 0)
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().zip([0_u8, 64, 128, 192]).flat_map(|(word, base)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let next = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
                left &= left - 1;
                Some(base + next)
            })
        })
    }

    pub(crate) fn of_class(class: &ClassBytes) -> ByteSet {
        let mut set = ByteSet::default();
        for range in class.ranges() {
            for byte in range.start()..=range.end() {
                set.insert(byte);
            }
        }
        set
    }

    /// The set of a class such as `[a-z0-9]`.
    pub(crate) fn parse(class: &str) -> Option<ByteSet> {
        let hir = regex_automata::util::syntax::parse_with(class, &syntax_config()).ok()?;
        ByteSet::of_hir(&hir)
    }

    /// The set of a pattern that matches exactly one byte.
    pub(crate) fn of_hir(hir: &Hir) -> Option<ByteSet> {
        match hir.kind() {
            HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => Some(ByteSet::of_class(class)),
            HirKind::Literal(literal) => match literal.0.as_ref() {
                [byte] => Some(ByteSet::one(*byte)),
                _ => None,
            },
            _ => None,
        }
    }

    /// How much of ordinary log text is of this set, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let high = if self.0[2] | self.0[3] != 0 { 0.01 } else { 0.0 };
        let parts = |byte: u8| FREQUENCIES.get(usize::from(byte)).copied().map_or(0.0, f64::from);
        let low: f64 = self.iter().map(parts).sum();
        (low / TOTAL + high).min(1.0)
    }
}

const TOTAL: f64 = 21_500.0;

/// How often each ASCII byte stands in logs of servers, in about twenty-thousandths; what was not seen counts a little.
#[rustfmt::skip]
const FREQUENCIES: [u16; 128] = [
    4, 2, 2, 2, 2, 2, 2, 2, 2, 60, 193, 2, 2, 120, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4, 2, 2, 2, 2,
    2383, 5, 400, 31, 12, 12, 14, 30, 60, 60, 19, 12, 150, 324, 427, 180, 956, 881, 619, 395, 356, 393, 308, 298, 273, 262, 476, 12, 10, 120, 10, 10,
    17, 71, 47, 87, 65, 74, 72, 20, 27, 100, 20, 21, 80, 63, 106, 58, 45, 8, 96, 155, 65, 32, 12, 35, 8, 12, 17, 100, 12, 100, 2, 140,
    4, 685, 184, 459, 439, 1091, 156, 202, 238, 586, 19, 138, 357, 231, 643, 735, 237, 12, 640, 492, 724, 315, 105, 74, 84, 126, 15, 40, 36, 40, 9, 2,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_its_bytes_and_no_other() {
        let set = ByteSet::parse(r"[a-c\xe6_]").unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [b'_', b'a', b'b', b'c', 0xe6]);
        assert_eq!(set.count(), 5);
        assert!(ByteSet::one(b'a').within(&set) && !set.within(&ByteSet::one(b'a')));
        assert!(ByteSet::ALL.share() > 0.9);
    }
}

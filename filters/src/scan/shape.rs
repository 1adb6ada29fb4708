//! Shapes: what a match looks like in bit masks, for patterns that start with no literal.
//!
//! A shape is a necessary condition at one position of a match (its start, or the joint that a look-back starts from). Lines are
//! concatenated without a separator, so "a word starts here" also holds at a line's first byte, and "it ends here" before one.

use super::masks::Masks;

/// How many shapes there are.
pub(crate) const SHAPES: usize = 7;

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Shape {
    /// `ddd-dd-dddd`.
    Ssn,
    /// `ddd?ddd?dddd` with a space, dot or dash for `?`.
    Phone,
    /// Thirteen digits, or four with a separator behind, or eight with one soon.
    Card,
    /// The first of three dots between digits.
    Ipv4,
    /// `::`, or four colons near one another.
    Ipv6,
    /// Five joints three apart, the first of them.
    Mac,
    /// Two capitals, two digits, four of either.
    Iban,
}

impl Shape {
    const ALL: [(&'static str, Shape); SHAPES] = [
        ("ssn", Shape::Ssn),
        ("phone", Shape::Phone),
        ("card", Shape::Card),
        ("ipv4", Shape::Ipv4),
        ("ipv6", Shape::Ipv6),
        ("mac", Shape::Mac),
        ("iban", Shape::Iban),
    ];

    pub(crate) fn by_name(name: &str) -> Option<Shape> {
        Shape::ALL.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape)
    }

    pub(crate) fn name(self) -> &'static str {
        Shape::ALL.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Where each shape is found, by [`Shape::index`].
#[inline]
pub(crate) fn find(masks: &Masks) -> [u64; SHAPES] {
    let Masks { digit, lead, dot, dash, space, colon, word, upper, edge } = *masks;
    let starts = !(word << 1) | edge;
    let ends = !word | edge;
    let two = digit & digit >> 1;
    let three = two & digit >> 2;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    let blank = dash | space;
    let joint = dot | blank;

    let ssn = three & dash >> 3 & two >> 4 & dash >> 6 & four >> 7 & starts & ends >> 11;
    let phone = three & joint >> 3 & three >> 4 & joint >> 7 & four >> 8 & starts & ends >> 12;
    let run = eight & four >> 8 & digit >> 12;
    let early = four & blank >> 4 & four >> 5;
    let later = eight & (blank >> 8 & four >> 9 | two >> 8 & blank >> 10 | four >> 8 & blank >> 12);
    let card = lead & starts & (run | early | later);
    let between = dot & digit << 1 & digit >> 1;
    let pair = between & (between >> 2 | between >> 3 | between >> 4);
    let ipv4 = between & (pair >> 2 | pair >> 3 | pair >> 4);
    let near = |mask: u64| colon & (mask >> 2 | mask >> 3 | mask >> 4 | mask >> 5);
    let ipv6 = colon & colon >> 1 | near(near(near(colon)));
    let knot = colon | dash;
    let mac = knot & knot >> 3 & knot >> 6 & knot >> 9 & knot >> 12;
    let either = upper | digit;
    let group = either & either >> 1 & either >> 2 & either >> 3;
    let iban = upper & upper >> 1 & two >> 2 & starts & (group >> 4 | space >> 4 & group >> 5);
    [ssn, phone, card, ipv4, ipv6, mac, iban]
}

//! Evidence about fields: whether the values of a field pass a check because they are what the rule looks for, or by chance.
//!
//! Of random numbers of sixteen digits at most one in ten has a valid Luhn sum, and one in thirty also a network's prefix. A field of
//! order ids shows it: nearly all of its values fail. A field of cards shows the opposite. For rules that say `strength = "weak"`, and
//! for matches without context, every distinct candidate of a field is counted, those that fail too, and the match is redacted unless
//! the field's values are clearly random.
//!
//! The test is sequential (Wald's ratio of likelihoods). A field is taken for *random* when its distinct values speak for a share of
//! [`RANDOM`] valid ones at most, against a share of one half, by 100,000 to 1; it is taken for *real*, for as long as it is
//! remembered, when they speak for one half by 1,000 to 1. So, for values that do not depend on each other:
//! - a field of which half or more of the distinct values are valid is taken for random with a probability below 0.00001;
//! - a field of random numbers is taken for real with a probability below 0.001. Else it is found out after 20 to 35 distinct values:
//!   one of them redacted where one in thirty passes, three where one in ten does;
//! - a field that has been found out comes back into doubt, and all of it is redacted, when its latest values speak for one half by
//!   10,000 to 1 (a cumulative sum): six valid ones in a row do, or more with failing ones among them. Of random values where one in
//!   ten passes that happens at most once in 10,000, and costs three redactions. A lower bar costs more than it gains: at 100 to 1
//!   every random field would be in doubt again after a few hundred values, for ever.
//!
//! - a valid value stays in such a field only if it looks like those that failed: two of them began with the same character and had the
//!   same length. Numbers that no card looks like, however many, hide no card.
//!
//! What remains: a valid value among random numbers like it stays, as nothing tells it from its neighbours, and of a field that turns
//! from random to real numbers the first five do. Somebody who may write freely into a field that has not been taken for real can
//! make it random with failing values, three of them or more for each valid one. Where that matters, `evidence = false` redacts
//! every valid value. Context before a value is never weighed against, nor are numbers in groups, which are another rule's: they are
//! redacted whatever the field is.
//!
//! What always holds: for one source the result depends on its lines and their order only; memory is bounded; no text is held.

use std::collections::HashMap;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::limits::{EVIDENCE_FIELDS_MAX, EVIDENCE_SEEN_MAX, FIELD_KEY_BYTES_MAX};

/// The share of random values that pass: one check digit of ten. Stricter checks only make the test quicker.
#[cfg(test)]
const RANDOM: f64 = 0.1;

/// The share of valid values that a real field is held against.
#[cfg(test)]
const REAL: f64 = 0.5;

/// What a value that fails says for random, in thousandths of a natural logarithm: ln((1 - 1/10) / (1 - 1/2)).
const FAILED: i32 = 588;

/// What a value that passes says against it: ln((1/2) / (1/10)).
const PASSED: i32 = 1609;

/// ln(100,000).
const RANDOM_AT: i32 = 11_513;

/// ln(1,000).
const REAL_AT: i32 = 6_908;

/// ln(10,000).
const DOUBT_AT: i32 = 9_210;

/// What a field's values have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Undecided,
    Random,
    Real,
}

/// What is known of one field under one rule.
#[derive(Clone, Debug, Default)]
struct Field {
    verdict: Verdict,
    /// For random while undecided; against it once it is random.
    weight: i32,
    /// A filter of the values seen, so that one value that is repeated counts once.
    seen: [u64; 8],
    seen_count: u32,
    /// The kinds of values of which one has failed, and those of which two have.
    failed_once: u64,
    failed_twice: u64,
    /// A valid value of the line in hand is of no such kind.
    is_unlike: bool,
    /// The line in hand has been asked about.
    is_read: bool,
    touched: u64,
}

impl Field {
    fn is_new(&mut self, value: u64) -> bool {
        let places = [value & 511, value >> 9 & 511];
        let mut new = false;
        if self.seen_count >= EVIDENCE_SEEN_MAX {
            self.seen = [0; 8];
            self.seen_count = 0;
        }
        for place in places {
            let word = usize::try_from(place / 64).ok().and_then(|word| self.seen.get_mut(word));
            let Some(word) = word else { continue };
            new |= *word >> (place % 64) & 1 == 0;
            *word |= 1 << (place % 64);
        }
        self.seen_count += u32::from(new);
        new
    }

    fn observe(&mut self, value: u64, kind: u64, passes: bool) {
        self.is_unlike &= !self.is_read;
        self.is_read = false;
        self.is_unlike |= passes && self.failed_twice & kind == 0;
        if !self.is_new(value) {
            return;
        }
        if !passes {
            self.failed_twice |= self.failed_once & kind;
            self.failed_once |= kind;
        }
        let says_random = if passes { -PASSED } else { FAILED };
        match self.verdict {
            Verdict::Undecided => {
                self.weight += says_random;
                if self.weight >= RANDOM_AT {
                    (self.verdict, self.weight) = (Verdict::Random, 0);
                } else if self.weight <= -REAL_AT {
                    self.verdict = Verdict::Real;
                }
            }
            Verdict::Random => {
                self.weight = (self.weight - says_random).max(0);
                if self.weight >= DOUBT_AT {
                    (self.verdict, self.weight) = (Verdict::Undecided, 0);
                }
            }
            Verdict::Real => {}
        }
    }
}

/// What is known of the fields of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    fields: HashMap<u64, Field>,
    clock: u64,
}

impl Evidence {
    /// Counts a candidate of a field.
    pub(crate) fn observe(&mut self, field: u64, value: &[u8], passes: bool) {
        self.clock += 1;
        if self.fields.len() >= EVIDENCE_FIELDS_MAX && !self.fields.contains_key(&field) {
            let oldest = self.fields.iter().min_by_key(|(_, field)| field.touched).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.fields.remove(&oldest);
            }
        }
        let entry = self.fields.entry(field).or_default();
        entry.touched = self.clock;
        entry.observe(digest(value), kind(value), passes);
    }

    /// Whether the field's values are clearly random, and those of the line in hand look like the others. All candidates of a line are
    /// counted before it is asked about.
    pub(crate) fn is_random(&mut self, field: u64) -> bool {
        self.fields.get_mut(&field).is_some_and(|field| {
            field.is_read = true;
            field.verdict == Verdict::Random && !field.is_unlike
        })
    }
}

/// One bit of 64: by the first character, and the length modulo four.
fn kind(value: &[u8]) -> u64 {
    let mut characters = value.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let first = u32::from(characters.next().copied().unwrap_or(0) & 15);
    let length = u32::try_from(characters.count() & 3).unwrap_or(0);
    1 << (first * 4 + length)
}

/// Letters and digits only, so that two spellings of one number are one value.
fn digest(value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for piece in value.split(|byte| !byte.is_ascii_alphanumeric()) {
        hash.update(piece);
    }
    hash.digest()
}

/// The field that holds the value at `start` of `line`, for `rule`: its key where one stands before it, else the last words.
pub(crate) fn field(rule: u32, line: &[u8], start: usize) -> u64 {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'\\' | b'(' | b'[' | b'<' | b'#');
    let trimmed = |mut text: &[u8]| {
        while let Some((last, head)) = text.split_last() {
            if !blank(last) {
                break;
            }
            text = head;
        }
        text.len()
    };
    let head = line.get(..start).unwrap_or(&[]);
    let head = head.get(..trimmed(head)).unwrap_or(&[]);
    let mut name = Vec::with_capacity(FIELD_KEY_BYTES_MAX + 8);
    name.extend_from_slice(&rule.to_le_bytes());
    if let Some((b'=' | b':', before)) = head.split_last() {
        let before = before.get(..trimmed(before)).unwrap_or(&[]);
        let is_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$' | b'@');
        let bytes = before.iter().rev().take(FIELD_KEY_BYTES_MAX).take_while(|byte| is_name(byte)).count();
        if bytes > 0 {
            name.push(b'k');
            plain(before.get(before.len() - bytes..).unwrap_or(&[]), &mut name);
            return xxh3_64(&name);
        }
    }
    name.push(b't');
    let words = head.rsplit(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    for word in words.take(2) {
        let from = word.len().saturating_sub(FIELD_KEY_BYTES_MAX / 2);
        let word = word.get(from..).unwrap_or(&[]);
        plain(word, &mut name);
        name.push(b' ');
        // A word is enough; what stands before it varies.
        if word.iter().filter(|byte| byte.is_ascii_alphabetic()).count() >= 2 {
            break;
        }
    }
    xxh3_64(&name)
}

/// In small letters, every number the same.
fn plain(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if !byte.is_ascii_digit() {
            out.push(byte.to_ascii_lowercase());
        } else if out.last() != Some(&b'0') {
            out.push(b'0');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Dice;

    /// Values of which this many in a thousand pass; how many are seen before the field is random, at most 10,000.
    fn until_random(dice: &mut Dice, pass_per_mille: u64) -> Option<u32> {
        let mut evidence = Evidence::default();
        for count in 1..=10_000 {
            let passes = dice.within(0, 999) < pass_per_mille;
            evidence.observe(1, &dice.draw().to_le_bytes().map(|byte| b'a' + byte % 26), passes);
            if evidence.is_random(1) {
                return Some(count);
            }
        }
        None
    }

    #[test]
    fn the_weights_are_the_logarithms_they_say_they_are() {
        let milli = |ratio: f64| ratio.ln() * 1000.0;
        let wanted = [
            milli((1.0 - RANDOM) / (1.0 - REAL)),
            milli(REAL / RANDOM),
            milli(100_000.0),
            milli(1_000.0),
            milli(10_000.0),
        ];
        for (weight, wanted) in [FAILED, PASSED, RANDOM_AT, REAL_AT, DOUBT_AT].iter().zip(wanted) {
            assert!((f64::from(*weight) - wanted).abs() < 1.0, "{weight} {wanted}");
        }
    }

    #[test]
    fn random_fields_are_found_out_soon_and_real_ones_never() {
        let mut dice = Dice::new(1);
        for (pass_per_mille, most) in [(100, 40), (33, 26)] {
            let counts: Vec<Option<u32>> =
                (0..1000).map(|_| until_random(&mut dice, pass_per_mille)).collect();
            let found: Vec<u32> = counts.iter().flatten().copied().collect();
            assert!(found.len() >= 995, "{} of 1000", found.len());
            let mean = found.iter().sum::<u32>() / u32::try_from(found.len()).unwrap();
            assert!((20..most).contains(&mean), "{mean}");
        }
        for share in [500, 700, 900, 1000] {
            assert!((0..200).all(|_| until_random(&mut dice, share).is_none()), "{share}");
        }
    }

    #[test]
    fn a_random_field_stays_found_out() {
        // Of 300,000 random values, of which one in ten passes: those that would be redacted.
        let (mut dice, mut evidence) = (Dice::new(3), Evidence::default());
        let mut redacted = 0;
        for _ in 0..300_000 {
            let passes = dice.within(0, 9) == 0;
            evidence.observe(1, &dice.draw().to_le_bytes().map(|byte| b'a' + byte % 26), passes);
            redacted += u32::from(passes && !evidence.is_random(1));
        }
        assert!(redacted < 150, "{redacted} of about 30,000");
    }

    #[test]
    fn a_valid_value_unlike_those_that_failed_stays_in_no_field() {
        let (mut dice, mut evidence) = (Dice::new(7), Evidence::default());
        let mut invalid = |head: &str| format!("{head}{}", dice.text("0123456789", 15));
        for _ in 0..2000 {
            evidence.observe(1, invalid("9").as_bytes(), false);
        }
        assert!(evidence.is_random(1));
        // One that looks otherwise is not covered, nor is what stands beside it in a line; the next line is asked about anew.
        evidence.observe(1, b"4156284385211721", true);
        evidence.observe(1, b"9792749163845105", true);
        assert!(!evidence.is_random(1) && !evidence.is_random(1));
        evidence.observe(1, b"9792749163845105", true);
        assert!(evidence.is_random(1));
        evidence.observe(1, b"979274916384510", true);
        assert!(!evidence.is_random(1), "another length");
        for _ in 0..2 {
            evidence.observe(1, invalid("4").as_bytes(), false);
        }
        evidence.observe(1, b"4156284385211721", true);
        assert!(evidence.is_random(1));
    }

    #[test]
    fn one_value_repeated_is_one_value() {
        let mut evidence = Evidence::default();
        for _ in 0..10_000 {
            evidence.observe(1, b"4111111111111112", false);
        }
        assert!(!evidence.is_random(1));
    }

    #[test]
    fn a_field_that_was_real_cannot_be_made_random_and_six_valid_values_bring_a_random_one_back() {
        let mut evidence = Evidence::default();
        for value in 0..6_u32 {
            evidence.observe(1, format!("a{value}").as_bytes(), true);
        }
        for value in 0..10_000_u32 {
            evidence.observe(1, format!("b{value}").as_bytes(), false);
            evidence.observe(2, format!("b{value}").as_bytes(), false);
        }
        assert!(!evidence.is_random(1) && evidence.is_random(2));
        for value in 0..6_u32 {
            assert!(evidence.is_random(2), "{value} valid values are not enough");
            evidence.observe(2, format!("b-x{value}y").as_bytes(), true);
        }
        assert!(!evidence.is_random(2));
    }

    #[test]
    fn a_field_is_its_key_or_the_word_before() {
        let of = |line: &str| field(1, line.as_bytes(), line.find("4111").unwrap());
        let key = of(r#"{"a":1,"order_id":"4111"#);
        assert_eq!(key, of(r#"{"b":"x y","Order_Id": 4111"#));
        assert_eq!(of("x id7=4111"), of("y id12=4111"));
        assert_ne!(key, of("user_id=4111"));
        assert_eq!(of("7 retry order 4111"), of("shipped Order #4111"));
        assert_ne!(of("order 4111"), of("card 4111"));
        assert_ne!(field(1, b"order 4111", 6), field(2, b"order 4111", 6));
    }

    #[test]
    fn memory_is_bounded() {
        let mut evidence = Evidence::default();
        for field in 0..10_000 {
            evidence.observe(field, b"1", true);
        }
        assert_eq!(evidence.fields.len(), EVIDENCE_FIELDS_MAX);
    }
}

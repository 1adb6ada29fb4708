//! Validators: what a match must satisfy beyond its pattern. One per file, each with its table of cases.
//!
//! A check sees the line and the span of the candidate, so that it can look at the neighbours too, and answers with the span
//! that is really meant (a pattern may have taken too much) or with nothing.

mod card;
mod dotted;
mod flag_value;
mod iban;
mod ipv6;
mod mac;
mod phone;
mod secret_shape;
mod secret_value;
mod slack;
mod ssn;
mod token;

use std::ops::Range;

/// A validator.
pub(crate) type Check = fn(line: &[u8], span: Range<usize>) -> Option<Range<usize>>;

/// Every validator by the name that rules use.
const CHECKS: &[(&str, Check)] = &[
    ("flag_value", flag_value::check),
    ("iban", iban::check),
    ("ipv4", dotted::check),
    ("ipv6", ipv6::check),
    ("luhn", card::check),
    ("mac", mac::check),
    ("phone", phone::check),
    ("secret_shape", secret_shape::check),
    ("secret_value", secret_value::check),
    ("slack", slack::check),
    ("ssn", ssn::check),
    ("token", token::check),
    ("token_crc62", token::check_crc62),
    ("token_mixed", token::check_mixed),
    ("token_three", token::check_three),
];

/// The validator of this name.
pub(crate) fn by_name(name: &str) -> Option<Check> {
    CHECKS.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

/// The names a rule may use.
pub(crate) fn names() -> String {
    CHECKS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The byte before `at`.
fn before(line: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| line.get(at)).copied()
}

/// The two bytes before `at`, nearest first.
fn two_before(line: &[u8], at: usize) -> (Option<u8>, Option<u8>) {
    (before(line, at), at.checked_sub(1).and_then(|at| before(line, at)))
}

/// The two bytes from `at` on.
fn two_from(line: &[u8], at: usize) -> (Option<u8>, Option<u8>) {
    (line.get(at).copied(), line.get(at + 1).copied())
}

fn is_digit(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_digit())
}

/// Whether a group of one to `most` hexadecimal digits, and no longer word, ends before `at`. `mac` before a colon is none.
fn hex_group_before(line: &[u8], at: usize, most: usize) -> bool {
    let head = line.get(..at).unwrap_or(&[]);
    let digits = head.iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (1..=most).contains(&digits) && !is_word(before(line, at - digits))
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether the span goes on as a longer dotted or dashed number, on either side.
fn is_part_of_longer_number(line: &[u8], span: &Range<usize>, joints: &[u8]) -> bool {
    let joint = |byte: Option<u8>| byte.is_some_and(|byte| joints.contains(&byte));
    let (last, earlier) = two_before(line, span.start);
    let (next, later) = two_from(line, span.end);
    (joint(last) && is_digit(earlier)) || (joint(next) && is_digit(later))
}

#[cfg(test)]
fn judge(check: Check, line: &str, part: &str) -> Option<String> {
    let start = line.find(part).unwrap();
    let span = check(line.as_bytes(), start..start + part.len())?;
    line.get(span).map(str::to_owned)
}

#[cfg(test)]
fn table(check: Check, valid: &[&str], invalid: &[&str]) {
    for text in valid {
        assert_eq!(judge(check, text, text).as_deref(), Some(*text), "{text} is valid");
    }
    for text in invalid {
        assert_eq!(judge(check, text, text), None, "{text} is not");
    }
}

//! Tokens with a form of their own: the form is telling, so what remains to be told apart is a placeholder such as `ghp_xxxx`.

use std::ops::Range;

use super::{before, is_word};

/// How many bytes of a token are needed before a repeated one says anything.
const FILLED_BYTES_MIN: usize = 8;

/// What is longer is no placeholder, in bytes. It also bounds what rejected candidates cost: a long match is always accepted.
pub(super) const PLACEHOLDER_BYTES_MAX: usize = 160;

/// How many bytes are needed before their entropy says anything, and what random hexadecimal digits never fall below.
const ENTROPY_BYTES_MIN: usize = 24;
const ENTROPY_MIN: f64 = 2.5;

/// The digits of base 62 in the order that GitHub and npm write them.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The random part of a token of GitHub's and npm's form, in bytes, and the checksum behind it.
const RANDOM_BYTES: usize = 30;
const CHECKSUM_BYTES: usize = 6;

/// Whether one letter or digit makes up most of the text: `xxxx-xxxx`, `0000`.
pub(super) fn is_filled(text: &[u8]) -> bool {
    if !(FILLED_BYTES_MIN..=PLACEHOLDER_BYTES_MAX).contains(&text.len()) {
        return false;
    }
    let mut counts = [0_u8; 256];
    let (mut all, mut most) = (0_usize, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b'=')) {
        all += 1;
        if let Some(count) = counts.get_mut(usize::from(byte.to_ascii_lowercase())) {
            *count += 1;
            most = most.max(*count);
        }
    }
    2 * usize::from(most) > all || (all >= ENTROPY_BYTES_MIN && entropy(&counts, all) < ENTROPY_MIN)
}

const _: () = assert!(PLACEHOLDER_BYTES_MAX < 256, "counts are bytes");

/// Shannon's entropy of these counts, in bits for each byte.
fn entropy(counts: &[u8; 256], all: usize) -> f64 {
    let share = |count: u8| f64::from(count) / all as f64;
    counts.iter().filter(|count| **count > 0).map(|count| -share(*count) * share(*count).log2()).sum()
}

/// A token that is no placeholder.
pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    (!is_filled(line.get(span.clone())?)).then_some(span)
}

/// The same, of letters and digits, so that no name or word in its place is one.
pub(super) fn check_mixed(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    (text.len() > PLACEHOLDER_BYTES_MAX || (digits >= 2 && letters >= 2 && !is_filled(text))).then_some(span)
}

/// The same, of digits and letters of both cases: for forms that a name in code has, too.
pub(super) fn check_three(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let kinds = [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase];
    (text.len() > PLACEHOLDER_BYTES_MAX
        || (kinds.iter().all(|kind| text.iter().any(kind)) && !is_filled(text)))
    .then_some(span)
}

/// A token whose last six digits are the CRC-32 of the thirty before them in base 62 is one wherever it stands. Where they are not it
/// may be an older or a cut one: then it has to stand as a word, and must not be a placeholder.
pub(super) fn check_crc62(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let body = text.iter().position(|byte| *byte == b'_').and_then(|at| text.get(at + 1..)).unwrap_or(text);
    let certain = body.split_at_checked(RANDOM_BYTES).is_some_and(|(random, checksum)| {
        checksum.len() == CHECKSUM_BYTES && base62(crc32(random)) == checksum
    });
    let stands = !is_word(before(line, span.start)) && !is_filled(text);
    (certain || stands).then_some(span)
}

/// CRC-32 as in zip, PNG and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn base62(mut value: u32) -> [u8; CHECKSUM_BYTES] {
    let mut digits = [b'0'; CHECKSUM_BYTES];
    for slot in digits.iter_mut().rev() {
        let digit = usize::try_from(value % 62).unwrap_or(0);
        *slot = BASE62.get(digit).copied().unwrap_or(b'0');
        value /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn placeholders_are_no_tokens() {
        table(
            check,
            &["xoxb-012345678901-abcdefghij", "AKIAIOSFODNN7EXAMPLE", "aaa"],
            &[
                "5555555dAAAAA7777777CcccCFaaaaaaaaaaaaaa",
                "ghp_xxxxxxxxxxxxxxxxxxxxxxxx",
                "glpat-XXXXXXXX-XXXXXX",
                "00000000-0000-0000",
            ],
        );
    }

    #[test]
    fn a_mixed_token_has_letters_and_digits() {
        table(check_mixed, &["EAAB12cd", "a1b2"], &["access_token", "12345678", "xxxxxxxx12"]);
    }

    #[test]
    fn a_token_of_both_cases_and_digits_is_no_name() {
        table(check_three, &["s.0a1B2c3D4e5F"], &["s.makeKubeConfigController", "s.thisstringis1lower"]);
    }

    #[test]
    fn a_checksum_makes_a_token_certain_and_the_lack_of_one_does_not_cancel_it() {
        let random = "0123456789abcdefghijABCDEFGHIJ";
        let checksum = String::from_utf8(base62(crc32(random.as_bytes())).to_vec()).unwrap();
        let certain = format!("ghp_{random}{checksum}");
        assert_eq!(judge(check_crc62, &format!("see{certain}"), &certain).as_deref(), Some(certain.as_str()));
        let other = format!("ghp_{random}00000a");
        assert_eq!(judge(check_crc62, &other, &other).as_deref(), Some(other.as_str()));
        assert_eq!(judge(check_crc62, &format!("see{other}"), &other), None);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}

//! Lines of an armoured private key that arrives line by line.
//!
//! A log line holds a header of the block (`-----BEGIN ... PRIVATE KEY-----`), a piece of its body, its end, or something else.
//! What a line is does not depend on other lines; `continuity` knows which line follows which. Before a piece of the body a
//! logger's prefix may stand: a time stamp, a level, an indent. The prefix is not part of what is redacted.

use std::ops::Range;

use memchr::memmem;

use crate::limits::{BODY_BYTES_MAX, BODY_BYTES_MIN, BODY_PREFIX_BYTES_MAX, BODY_SURE_BYTES_MIN};

/// The widths of body lines that writers of keys use, in characters: PEM, OpenSSH, MIME.
const WIDTHS: [usize; 3] = [64, 70, 76];

/// Header lines inside of a block, by their names.
const HEADERS: [&[u8]; 8] = [
    b"Proc-Type:",
    b"DEK-Info:",
    b"Version:",
    b"Comment:",
    b"Hash:",
    b"Charset:",
    b"MessageID:",
    b"Subject:",
];

/// What a line may be to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Base64 as long as body lines are. Its place.
    Full(Range<usize>),
    /// Fewer characters of base64, as a body's last line has.
    Short(Range<usize>),
    /// A header of the block.
    Header(Range<usize>),
    /// The block's end, with the body before it in the same line.
    End(Range<usize>),
    /// Nothing, or spaces.
    Blank,
    /// Something that stands in no block.
    Other,
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Whether a private key begins in `line` at `at` and does not end in it.
pub(crate) fn begins(line: &[u8], at: usize) -> bool {
    let rest = line.get(at..).unwrap_or(&[]);
    let Some(opened) = rest.strip_prefix(b"-----BEGIN ").or_else(|| rest.strip_prefix(b"---- BEGIN ")) else {
        return false;
    };
    let kind = opened.get(..opened.iter().position(|byte| *byte == b'-').unwrap_or(opened.len()));
    memmem::find(kind.unwrap_or(&[]), b"PRIVATE KEY").is_some()
        && memmem::find(opened, b"-- END ").is_none()
        && memmem::find(opened, b"--END ").is_none()
}

/// What `line` may be to a block whose last line began behind `prefix_bytes` bytes.
pub(crate) fn part(line: &[u8], prefix_bytes: usize) -> Part {
    let end = trimmed_end(line);
    let Some(text) = line.get(..end).filter(|text| !text.trim_ascii_start().is_empty()) else {
        return Part::Blank;
    };
    for sign in [&b"-----END "[..], b"---- END "] {
        if let Some(at) = memmem::find(text, sign) {
            let close = memmem::find(text.get(at + sign.len()..).unwrap_or(&[]), b"----");
            let end = close.map_or(end, |close| {
                let from = at + sign.len() + close;
                from + text.get(from..).unwrap_or(&[]).iter().take_while(|byte| **byte == b'-').count()
            });
            return Part::End(token_start(text, at)..end);
        }
    }
    if let Some(at) = HEADERS.iter().find_map(|name| memmem::find(text, name)) {
        let starts =
            at.checked_sub(1).and_then(|at| text.get(at)).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if starts && at <= BODY_PREFIX_BYTES_MAX {
            return Part::Header(at..end);
        }
    }
    let last = piece(text, token_start(text, end)..end, prefix_bytes);
    if last != Part::Other {
        return last;
    }
    // A logger may have put the line into quotes, with more behind it.
    let mut at = 0;
    let mut quotes = memchr::memchr_iter(b'"', text);
    let mut found = Part::Other;
    while let (Part::Other, Some(quote)) = (&found, quotes.next()) {
        let inner = text.get(at..quote).unwrap_or(&[]);
        let span = at..at + trimmed_end(inner);
        if at > 0 && text.get(span.clone()).is_some_and(|inner| token_start(inner, inner.len()) == 0) {
            found = piece(text, span, prefix_bytes);
        }
        at = quote + 1;
    }
    found
}

/// What a run of base64 is, by its length and where it stands.
fn piece(text: &[u8], span: Range<usize>, prefix_bytes: usize) -> Part {
    let token = text.get(span.clone()).unwrap_or(&[]);
    let before = span.start.checked_sub(1).and_then(|at| text.get(at));
    let stands_apart = before.is_none_or(|byte| byte.is_ascii_whitespace() || b"\"'|>]):".contains(byte));
    if token.is_empty() || span.start > BODY_PREFIX_BYTES_MAX || !stands_apart {
        return Part::Other;
    }
    let is_long = token.len() >= BODY_SURE_BYTES_MIN;
    if is_long && is_mixed(token) {
        return Part::Full(span);
    }
    // One in three thousand lines of 48 random characters has no digit: inside of a key it is its body all the same.
    if is_long && !has_both_cases(token) {
        return Part::Other;
    }
    // A body is a whole number of groups of four, though its lines need not be; a checksum of PGP is one group behind an equals sign.
    let whole =
        is_long || token.len().is_multiple_of(4) || (token.len() == 5 && token.first() == Some(&b'='));
    // The few last lines that are a word by chance have next to nothing in them.
    let is_word =
        token.iter().skip(1).all(u8::is_ascii_lowercase) || token.iter().all(u8::is_ascii_uppercase);
    if whole && !is_word && prefix_fits(text, span.start, prefix_bytes) {
        Part::Short(span)
    } else {
        Part::Other
    }
}

/// Whether what stands before a piece of a body is a prefix of `bytes` bytes, or only what sets it off.
fn prefix_fits(line: &[u8], start: usize, bytes: usize) -> bool {
    // Fractions of a second and line numbers may change their width.
    start.abs_diff(bytes) <= 3
        || line
            .get(..start)
            .unwrap_or(&[])
            .iter()
            .all(|byte| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'|' | b'>'))
}

/// Whether a piece is exactly as wide as writers of keys make body lines.
pub(crate) fn has_width(part: &Range<usize>) -> bool {
    WIDTHS.contains(&part.len())
}

/// The body line that `line` is without anything around it but spaces: this is redacted without knowing what came before.
pub(crate) fn bare_body(line: &[u8]) -> Option<Range<usize>> {
    let start = line.len() - line.trim_ascii_start().len();
    let end = line.trim_ascii_end().len();
    if end.checked_sub(start).is_none_or(|bytes| !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&bytes)) {
        return None;
    }
    let text = line.get(start..end)?;
    // Most lines of this length have a space near their front.
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = text.get(..text.len() - padding).filter(|_| padding <= 2)?;
    (body.iter().all(|byte| is_base64(*byte)) && is_mixed(body) && is_varied(body)).then_some(start..end)
}

/// Letters of both cases and digits, as random base64 of some length has. Hashes in hexadecimal and words have not.
fn is_mixed(token: &[u8]) -> bool {
    has_both_cases(token) && token.iter().any(u8::is_ascii_digit)
}

fn has_both_cases(token: &[u8]) -> bool {
    token.iter().any(u8::is_ascii_uppercase) && token.iter().any(u8::is_ascii_lowercase)
}

/// As varied as random base64, and unlike a path or a long name: in 48 random characters of base64 fewer than 18 different ones, or
/// fewer than 5 capitals, or more than 6 strokes come less than once in 100,000 times.
fn is_varied(body: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in body {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    let different = seen.iter().filter(|seen| **seen).count();
    let capitals = body.iter().filter(|byte| byte.is_ascii_uppercase()).count();
    let strokes = body.iter().filter(|byte| **byte == b'/').count();
    let strokes_max = 6 + body.len().saturating_sub(BODY_BYTES_MIN) / 32;
    different >= 18 && capitals >= 5 && strokes <= strokes_max
}

/// The end of a line without line ends, quotes and separators, also escaped ones.
fn trimmed_end(line: &[u8]) -> usize {
    let mut text = line;
    loop {
        let shorter = text.trim_ascii_end();
        let shorter = [&b"\\n"[..], b"\\r", b"\"", b"'", b",", b"\\"]
            .iter()
            .find_map(|suffix| shorter.strip_suffix(*suffix))
            .unwrap_or(shorter);
        if shorter.len() == text.len() {
            return text.len();
        }
        text = shorter;
    }
}

/// Where the base64 starts that ends at `end`.
fn token_start(text: &[u8], end: usize) -> usize {
    let head = text.get(..end).unwrap_or(&[]);
    let padding = head.iter().rev().take_while(|byte| **byte == b'=').count().min(2);
    let body = head.get(..end - padding).unwrap_or(&[]);
    let bytes = body.iter().rev().take_while(|byte| is_base64(**byte)).count();
    let start = end - padding - bytes;
    // PGP's checksum.
    let checksum =
        bytes == 4 && padding == 0 && start.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'=');
    start - usize::from(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "MIIEpAIBAAKCAQEA1c7GqLk3o9TzFvNwYb2sXhJ5dRm8uPqE0WtKyZ4aBcDfGhI7";

    #[test]
    fn a_line_is_what_it_looks_like() {
        let full = BODY;
        let of = |text: &str| match part(text.as_bytes(), 9) {
            Part::Full(span) => format!("full {}", text.get(span).unwrap()),
            Part::Short(span) => format!("short {}", text.get(span).unwrap()),
            Part::Header(span) => format!("header {}", text.get(span).unwrap()),
            Part::End(span) => format!("end {}", text.get(span).unwrap()),
            Part::Blank => "blank".to_owned(),
            Part::Other => "other".to_owned(),
        };
        assert_eq!(of(full), format!("full {full}"));
        assert_eq!(of(&format!("2026-11-26T10:00:00Z INFO  {full}\r")), format!("full {full}"));
        assert_eq!(of(&format!("    \"{full}\\n\",")), format!("full {full}"));
        assert_eq!(of("12:00:01 AbCd12=="), "short AbCd12==");
        assert_eq!(of("=njUN"), "short =njUN");
        let letters = "UYYsMpOHYsGyUTNGWPPBpWsevcOGvmauMJVkaFrPRbKswuUa";
        assert_eq!(of(&format!("12:00:01 {letters}")), format!("short {letters}"));
        assert_eq!(of(&"0123456789abcdef".repeat(4)), "other", "a hash");
        assert_eq!(of("12:00:01 Proc-Type: 4,ENCRYPTED"), "header Proc-Type: 4,ENCRYPTED");
        assert_eq!(of("x -----END RSA PRIVATE KEY----- y"), "end -----END RSA PRIVATE KEY-----");
        assert_eq!(of("12:00 AbCd==-----END PRIVATE KEY-----"), "end AbCd==-----END PRIVATE KEY-----");
        assert_eq!((of(" \r"), of("")), ("blank".to_owned(), "blank".to_owned()));
        assert_eq!(of(&format!(r#"{{"a":"b","m":"{full}\\n","l":"info"}}"#)), format!("full {full}"));
        assert_eq!(of(r#"{"a":"b","m":"AbCd12==","l":"info"}"#), "other", "stands elsewhere");
        assert_eq!(of(r#"{"m2345":"AbCd12==","l":"info"}"#), "short AbCd12==");
        assert_eq!(of("GET /health 200 in 4 ms."), "other");
        for word in ["connected", "12:00:01 DONE", "12:00:01 done", "12:00:01 Finished"] {
            assert_eq!(of(word), "other");
        }
    }

    #[test]
    fn only_private_keys_that_do_not_end_begin_a_block() {
        let opens = |text: &str| begins(text.as_bytes(), text.find("--").unwrap());
        assert!(opens("key -----BEGIN RSA PRIVATE KEY-----"));
        assert!(opens("-----BEGIN PGP PRIVATE KEY BLOCK-----"));
        assert!(opens("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----"));
        assert!(!opens("-----BEGIN CERTIFICATE-----"));
        assert!(!opens("-----BEGIN EC PRIVATE KEY-----\\nAbCd\\n-----END EC PRIVATE KEY-----"));
    }

    #[test]
    fn body_lines_are_told_from_what_only_resembles_them() {
        let bare = |text: &str| bare_body(text.as_bytes()).map(|span| text.get(span).unwrap().to_owned());
        let full = BODY;
        assert_eq!(bare(&format!("  {full}\r")).as_deref(), Some(full));
        assert_eq!(
            bare(&format!("{}==", full.get(..62).unwrap())).as_deref(),
            Some(&*format!("{}==", full.get(..62).unwrap()))
        );
        for other in [
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "github/com/Example/Library/src/main/java/org/Example/Thing4/Impl",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaB1",
            "ThisIsAVeryLongCamelCaseNameOfATestThatSomebodyWroteOnAFriday",
            "shortAbc123",
        ] {
            assert_eq!(bare(other), None, "{other}");
        }
        assert_eq!(bare(&format!("at {full}")), None);
    }
}

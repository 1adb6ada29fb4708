//! How a secret may be written: as it is, escaped for JSON once or twice, percent-encoded, in hexadecimal, and in base64 wherever
//! in the encoded text it starts.
//!
//! Every buffer here holds plain text and is wiped when it goes; none of them grows after it was made, which would leave a copy.

use zeroize::Zeroizing;

use crate::limits::{KNOWN_LINE_BYTES_MIN, KNOWN_PIECE_BYTES};

/// One way to write a secret.
pub(super) struct Variant {
    pub(super) text: Zeroizing<Vec<u8>>,
    /// The character before belongs to it in part: base64 keeps six bits in each.
    pub(super) reaches_before: bool,
    /// The character behind belongs to it in part.
    pub(super) reaches_behind: bool,
    /// A part of an encoded text that has no beginning or end of its own.
    pub(super) is_part: bool,
}

impl Variant {
    fn plain(text: Zeroizing<Vec<u8>>) -> Variant {
        Variant { text, reaches_before: false, reaches_behind: false, is_part: false }
    }
}

/// Every way to write `secret`, the plain one first, none twice.
pub(super) fn all(secret: &[u8]) -> Vec<Variant> {
    let mut variants = vec![Variant::plain(copy(secret))];
    let mut add = |variant: Variant| {
        if !variants.iter().any(|known: &Variant| *known.text == *variant.text) {
            variants.push(variant);
        }
    };
    for style in &JSON_STYLES {
        let once = json(secret, style);
        add(Variant::plain(json(&once, &JSON_STYLES[0])));
        add(Variant::plain(once));
    }
    for kept in PERCENT_KEEPS {
        for digits in [UPPER, LOWER] {
            let once = percent(secret, kept, digits);
            add(Variant::plain(percent(&once, kept, digits)));
            add(Variant::plain(once));
        }
    }
    for digits in [LOWER, UPPER] {
        add(Variant::plain(hexadecimal(secret, digits)));
    }
    for alphabet in [STANDARD, URL_SAFE] {
        if secret.len() < BASE64_ANYWHERE_BYTES_MIN {
            add(base64_whole(secret, alphabet));
        }
        for phase in 0..3 {
            add(base64(secret, phase, alphabet));
        }
    }
    variants
}

/// The lines of a secret that has several, without those that mark a PEM block, which are no secret.
pub(super) fn lines(secret: &[u8]) -> Vec<Variant> {
    if !secret.contains(&b'\n') {
        return Vec::new();
    }
    let mut variants = Vec::new();
    let trimmed = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    for line in trimmed.filter(|line| line.len() >= KNOWN_LINE_BYTES_MIN && !line.starts_with(b"-----")) {
        for style in &JSON_STYLES {
            let once = json(line, style);
            if *once != line {
                variants.push(Variant::plain(json(&once, &JSON_STYLES[0])));
                variants.push(Variant::plain(once));
            }
        }
        variants.push(Variant::plain(copy(line)));
    }
    variants
}

/// Where a long text is cut: pieces of [`KNOWN_PIECE_BYTES`], the last one ending where the text does.
pub(super) fn pieces(bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let whole = bytes / KNOWN_PIECE_BYTES;
    let rest = !bytes.is_multiple_of(KNOWN_PIECE_BYTES);
    let last = bytes.saturating_sub(KNOWN_PIECE_BYTES)..bytes;
    (0..whole)
        .map(|piece| piece * KNOWN_PIECE_BYTES..(piece + 1) * KNOWN_PIECE_BYTES)
        .chain(rest.then_some(last))
}

fn copy(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

/// A buffer that is never outgrown by `factor` bytes for each of `bytes`.
fn room(bytes: usize, factor: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(bytes * factor + 8))
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn digit(digits: &[u8; 16], value: u16) -> u8 {
    digits.get(usize::from(value & 15)).copied().unwrap_or(b'0')
}

fn hexadecimal(secret: &[u8], digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut out = room(secret.len(), 2);
    for byte in secret {
        out.push(digit(digits, u16::from(byte >> 4)));
        out.push(digit(digits, u16::from(*byte)));
    }
    out
}

/// What stays as it is beside letters and digits; with `+` for a space where a space is listed.
const PERCENT_KEEPS: [&[u8]; 5] = [
    b"-_.~",                 // RFC 3986
    b"-_.~/",                // the same within a path
    b"-_.!~*'()",            // encodeURIComponent
    b"-_.!~*'();/?:@&=+$,#", // encodeURI
    b"*-._ ",                // application/x-www-form-urlencoded
];

fn percent(secret: &[u8], kept: &[u8], digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut out = room(secret.len(), 3);
    for byte in secret {
        match byte {
            b' ' if kept.contains(&b' ') => out.push(b'+'),
            byte if byte.is_ascii_alphanumeric() || kept.contains(byte) => out.push(*byte),
            byte => {
                out.push(b'%');
                out.push(digit(digits, u16::from(byte >> 4)));
                out.push(digit(digits, u16::from(*byte)));
            }
        }
    }
    out
}

/// What a JSON writer escapes beside quote, backslash and control characters.
struct JsonStyle {
    /// ASCII characters written as `\u00XX`.
    by_number: &'static [u8],
    /// `/` as `\/`.
    slash: bool,
    /// Everything beyond ASCII by number.
    ascii: bool,
    digits: &'static [u8; 16],
}

/// The writers in use: plain; Python; Jackson; PHP with and without its flag for Unicode; Go; Rails and others; .NET.
static JSON_STYLES: [JsonStyle; 8] = [
    JsonStyle { by_number: b"", slash: false, ascii: false, digits: LOWER },
    JsonStyle { by_number: b"", slash: false, ascii: true, digits: LOWER },
    JsonStyle { by_number: b"", slash: false, ascii: true, digits: UPPER },
    JsonStyle { by_number: b"", slash: true, ascii: true, digits: LOWER },
    JsonStyle { by_number: b"", slash: true, ascii: false, digits: LOWER },
    JsonStyle { by_number: b"<>&", slash: false, ascii: false, digits: LOWER },
    JsonStyle { by_number: b"<>&", slash: false, ascii: false, digits: UPPER },
    JsonStyle { by_number: b"<>&\"'+`", slash: false, ascii: true, digits: UPPER },
];

fn json(secret: &[u8], style: &JsonStyle) -> Zeroizing<Vec<u8>> {
    let mut out = room(secret.len(), 6);
    let by_number = |unit: u16, out: &mut Zeroizing<Vec<u8>>| {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            out.push(digit(style.digits, unit >> shift));
        }
    };
    for chunk in secret.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut bytes = [0; 4];
            let encoded = character.encode_utf8(&mut bytes).as_bytes();
            let short = match character {
                '"' => Some(b'"'),
                '\\' => Some(b'\\'),
                '\n' => Some(b'n'),
                '\r' => Some(b'r'),
                '\t' => Some(b't'),
                '\u{8}' => Some(b'b'),
                '\u{c}' => Some(b'f'),
                '/' if style.slash => Some(b'/'),
                _ => None,
            };
            let numbered = character < ' '
                || (style.ascii && !character.is_ascii())
                || encoded.first().is_some_and(|byte| style.by_number.contains(byte));
            match short {
                Some(byte) if !encoded.first().is_some_and(|first| style.by_number.contains(first)) => {
                    out.extend_from_slice(&[b'\\', byte]);
                }
                _ if numbered => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        by_number(*unit, &mut out);
                    }
                }
                _ => out.extend_from_slice(encoded),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
    out
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Whether a byte stands for six bits in either alphabet.
pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// The characters of `secret` behind `phase` other bytes, as far as they depend on nothing else.
fn base64(secret: &[u8], phase: usize, alphabet: &[u8; 64]) -> Variant {
    let bits = 8 * (phase + secret.len());
    let first = (8 * phase).div_ceil(6);
    let mut out = room(secret.len(), 2);
    let mut value = 0_u32;
    let mut held = 0;
    let mut at = 0;
    for byte in std::iter::repeat_n(&0, phase).chain(secret) {
        value = (value << 8) | u32::from(*byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            if at >= first {
                out.push(sextet(alphabet, value >> held));
            }
            at += 1;
        }
        value &= (1 << held) - 1;
    }
    Variant { text: out, reaches_before: phase > 0, reaches_behind: !bits.is_multiple_of(6), is_part: true }
}

/// From how many bytes on the characters that depend on nothing else are enough to be looked for anywhere.
const BASE64_ANYWHERE_BYTES_MIN: usize = (KNOWN_LINE_BYTES_MIN * 6).div_ceil(8);

/// The secret encoded by itself, to its last bit and without padding.
fn base64_whole(secret: &[u8], alphabet: &[u8; 64]) -> Variant {
    let mut out = room(secret.len(), 2);
    for three in secret.chunks(3) {
        let value = three.iter().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
        let value = value << (8 * (3 - three.len()));
        for index in 0..=three.len() {
            out.push(sextet(alphabet, value >> (18 - 6 * index)));
        }
    }
    Variant { text: out, reaches_before: false, reaches_behind: false, is_part: false }
}

fn sextet(alphabet: &[u8; 64], value: u32) -> u8 {
    usize::try_from(value & 63).ok().and_then(|index| alphabet.get(index)).copied().unwrap_or(b'A')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(secret: &str) -> Vec<String> {
        all(secret.as_bytes()).into_iter().map(|one| String::from_utf8(one.text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_secret_is_written_in_every_way_that_others_write_it() {
        let texts = texts("p\"ä/s <w>+!");
        for expected in [
            r#"p\"ä/s <w>+!"#,
            r#"p\"\u00e4/s <w>+!"#,
            r#"p\"\u00E4/s <w>+!"#,
            r#"p\"\u00e4\/s <w>+!"#,
            r#"p\"ä/s \u003cw\u003e+!"#,
            r#"p\u0022\u00E4/s \u003Cw\u003E\u002B!"#,
            r#"p\\\"ä/s <w>+!"#,
            "p%22%C3%A4%2Fs%20%3Cw%3E%2B%21",
            "p%22%c3%a4%2fs%20%3cw%3e%2b%21",
            "p%22%C3%A4%2Fs%20%3Cw%3E%2B!",
            "p%22%C3%A4%2Fs+%3Cw%3E%2B%21",
            "p%2522%25C3%25A4%252Fs%2520%253Cw%253E%252B%2521",
            "7022c3a42f73203c773e2b21",
            "7022C3A42F73203C773E2B21",
            "cCLDpC9zIDx3Pish",
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected} is not in {texts:?}");
        }
    }

    #[test]
    fn what_needs_no_escape_is_not_listed_twice() {
        // Plain, two in hexadecimal, and three phases of base64.
        assert_eq!(texts("synthetic-0").len(), 6, "{:?}", texts("synthetic-0"));
    }

    #[test]
    fn base64_is_that_of_rfc_4648_and_phases_hold_what_is_theirs() {
        let whole = |text: &str| String::from_utf8(base64_whole(text.as_bytes(), STANDARD).text.to_vec());
        assert_eq!(whole("f").unwrap(), "Zg");
        assert_eq!(whole("fo").unwrap(), "Zm8");
        assert_eq!(whole("foobar").unwrap(), "Zm9vYmFy");
        // "xfoobar" is eGZvb2Jhcg==, "xxfoobar" is eHhmb29iYXI=.
        let phase = |phase| String::from_utf8(base64(b"foobar", phase, STANDARD).text.to_vec()).unwrap();
        assert_eq!(
            (phase(0).as_str(), phase(1).as_str(), phase(2).as_str()),
            ("Zm9vYmFy", "Zvb2Jhc", "mb29iYX")
        );
    }

    #[test]
    fn pieces_cover_the_whole_text() {
        for bytes in [0, 1, 127, 128, 129, 256, 300, 1000] {
            let mut reached = 0;
            for piece in pieces(bytes) {
                assert!(piece.start <= reached && piece.end > reached && piece.end <= bytes, "{bytes}");
                reached = piece.end;
            }
            assert_eq!(reached, bytes);
        }
    }
}

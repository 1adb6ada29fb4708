//! What stands in a value's place, and how it is known again.
//!
//! A marker is `<NAME>` or `<NAME:v1:token>`: capitals, digits and `_`; a key version; 20 characters of base32; or
//! `<VAULT_REF:reference>` with the reference of a known secret. It holds no quote and no backslash, so it is valid inside any
//! JSON string. A finding that covers nothing but markers is none: this is what makes
//! scrubbing twice the same as scrubbing once.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::action::Action;
use crate::key::Key;
use crate::known::{Shelf, reference};
use crate::limits::{HASH_CHARACTERS, MARKER_BYTES_MAX, MARKER_NAME_BYTES_MAX};
use crate::rule::Normalise;

/// The name of the marker that replaces a line which does not settle.
pub(crate) const LINE_NAME: &str = "LINE";

/// What a known secret's marker is called.
pub(crate) const KNOWN_NAME: &str = "VAULT_REF";

/// The names by which markers are known again.
pub(crate) struct Names {
    names: Vec<Vec<u8>>,
    /// The references that may stand in a marker now.
    known: Shelf,
}

impl Names {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Names {
        let mut sorted: Vec<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
        sorted.push(LINE_NAME.as_bytes().to_vec());
        sorted.sort_unstable();
        sorted.dedup();
        Names { names: sorted, known: Shelf::default() }
    }

    /// The same, for markers of what is known here too.
    pub(crate) fn with_known(self, known: Shelf) -> Names {
        Names { known, ..self }
    }

    /// The length of the marker that starts at `at`.
    fn length_at(&self, line: &[u8], at: usize) -> Option<usize> {
        let rest = line.get(at..)?.strip_prefix(b"<")?;
        let window = rest.get(..rest.len().min(MARKER_BYTES_MAX))?;
        let name_bytes = window
            .iter()
            .position(|byte| !(byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_'))
            .filter(|bytes| *bytes <= MARKER_NAME_BYTES_MAX)?;
        let (name, rest) = window.split_at_checked(name_bytes)?;
        let suffix = match rest.first() {
            Some(b'>') => 0,
            Some(b':') if name == KNOWN_NAME.as_bytes() => {
                let reference = rest.strip_prefix(b":")?;
                let plain = |byte: u8| reference::is_plain(byte) || byte == b'%';
                let bytes = reference.iter().position(|byte| !plain(*byte))?;
                let (reference, rest) = reference.split_at_checked(bytes)?;
                let closes = rest.first() == Some(&b'>') && self.known.has_reference(reference);
                return closes.then_some(1 + name_bytes + 1 + bytes + 1);
            }
            Some(b':') => {
                let version = rest.strip_prefix(b":v")?;
                let digits =
                    version.iter().position(|byte| !byte.is_ascii_digit()).filter(|count| *count > 0)?;
                let token = version.get(digits..)?.strip_prefix(b":")?;
                let base32 = |byte: &u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
                let closes = token.get(..HASH_CHARACTERS)?.iter().all(base32)
                    && token.get(HASH_CHARACTERS) == Some(&b'>');
                closes.then_some(2 + digits + 1 + HASH_CHARACTERS)?
            }
            _ => return None,
        };
        self.names.binary_search_by(|known| known.as_slice().cmp(name)).ok()?;
        Some(1 + name_bytes + suffix + 1)
    }

    /// What remains to be redacted of `span`: nothing when markers cover it; otherwise the span, grown over markers that it cuts.
    pub(crate) fn outside(&self, line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
        let first = span.start.saturating_sub(MARKER_BYTES_MAX);
        if memchr::memchr(b'<', line.get(first..span.end)?).is_none() {
            return Some(span);
        }
        let next = |at: usize| line.get(at..span.end).and_then(|rest| memchr::memchr(b'<', rest));
        let (mut grown, mut covered_to, mut at) = (span.clone(), span.start, first);
        while let Some(ahead) = next(at) {
            at += ahead;
            match self.length_at(line, at) {
                Some(bytes) if at + bytes > span.start => {
                    let end = at + bytes;
                    if at <= covered_to {
                        covered_to = covered_to.max(end);
                    }
                    grown = grown.start.min(at)..grown.end.max(end);
                    at = end;
                }
                Some(bytes) => at += bytes,
                None => at += 1,
            }
        }
        (covered_to < span.end).then_some(grown)
    }
}

/// Writes what stands for `value` under `action`.
pub(crate) fn write(
    action: Action,
    name: &str,
    normalise: Normalise,
    key: Option<&Key>,
    value: &[u8],
    covered: &[u8],
    out: &mut Vec<u8>,
) {
    match action {
        Action::Mask { keep_first, keep_last } => {
            mask(covered, usize::from(keep_first), usize::from(keep_last), out)
        }
        Action::Truncate if value.len() == covered.len() && truncated(value, out) => {}
        Action::Truncate => plain(name, out),
        Action::Hash => {
            match key.and_then(|key| Some((key.version(), key.token(name, &normalise.apply(value))?))) {
                Some((version, token)) => {
                    out.push(b'<');
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b":v");
                    out.extend_from_slice(version.to_string().as_bytes());
                    out.push(b':');
                    out.extend_from_slice(&token);
                    out.push(b'>');
                }
                None => plain(name, out),
            }
        }
        Action::Marker | Action::Remove | Action::Drop | Action::Tag | Action::Off => plain(name, out),
    }
}

/// `<VAULT_REF:reference>`.
pub(crate) fn known(reference: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(KNOWN_NAME.as_bytes());
    out.push(b':');
    out.extend_from_slice(reference.as_bytes());
    out.push(b'>');
}

/// `<NAME>`.
pub(crate) fn plain(name: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

fn mask(value: &[u8], keep_first: usize, keep_last: usize, out: &mut Vec<u8>) {
    let starts = value.iter().filter(|byte| !is_continuation(**byte)).count();
    let (keep_first, keep_last) =
        if 2 * (keep_first + keep_last) > starts { (0, 0) } else { (keep_first, keep_last) };
    let mut index = 0_usize;
    for (at, byte) in value.iter().enumerate() {
        if is_continuation(*byte) && at > 0 {
            // Belongs to the character before; kept or masked with it.
            if index <= keep_first || index > starts - keep_last {
                out.push(*byte);
            }
            continue;
        }
        index += 1;
        let kept = index <= keep_first || index > starts - keep_last;
        // A quote or a backslash may be half of an escape sequence: it never stays.
        out.push(if kept && !matches!(byte, b'"' | b'\\') { *byte } else { b'*' });
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Writes the network that an address is of; nothing if it is no address.
fn truncated(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    if text.parse::<Ipv4Addr>().is_ok() {
        // What parses is written in the one way there is, so its first three numbers stay as they are.
        let last = value.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
        out.extend_from_slice(value.get(..last).unwrap_or(&[]));
        out.push(b'0');
        return true;
    }
    let Ok(address) = text.parse::<Ipv6Addr>() else { return false };
    let [a, b, c, ..] = address.segments();
    out.extend_from_slice(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string().as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(["EMAIL", "SSN"].into_iter())
    }

    #[test]
    fn markers_of_known_names_are_known_again_and_nothing_else() {
        let length = |text: &str| names().length_at(text.as_bytes(), 0);
        assert_eq!(length("<EMAIL>x"), Some(7));
        assert_eq!(length("<SSN:v12:abcdefghijklmnopqrst>"), Some(30));
        for other in
            ["<B>", "<EMAIL", "<EMAIL:v1:short>", "<EMAIL:v:abcdefghijklmnopqrst>", "EMAIL>", "<email>", "<>"]
        {
            assert_eq!(length(other), None, "{other}");
        }
    }

    #[test]
    fn a_span_of_markers_is_nothing_and_a_cut_marker_is_taken_whole() {
        let line = b"a<EMAIL>b<SSN>";
        let outside = |span| names().outside(line, span);
        assert_eq!(outside(1..8), None);
        assert_eq!(outside(2..6), None);
        assert_eq!(outside(0..1), Some(0..1));
        assert_eq!(outside(0..4), Some(0..8));
        assert_eq!(outside(1..9), Some(1..9));
        assert_eq!(outside(3..11), Some(1..14));
        assert_eq!(names().outside(b"<EMAIL><SSN>", 0..12), None);
    }

    fn masked(text: &str, first: usize, last: usize) -> String {
        let mut out = Vec::new();
        mask(text.as_bytes(), first, last, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn masks_keep_whole_characters_and_at_most_half() {
        assert_eq!(masked("4111111111111111", 0, 4), "************1111");
        assert_eq!(masked("äöüßabéñ", 1, 2), "ä*****éñ");
        assert_eq!(masked("abcd", 2, 1), "****");
        assert_eq!(masked("äb", 1, 0), "ä*");
        assert_eq!(masked("a\\u00e9xyz", 3, 0), "a*u*******");
    }

    #[test]
    fn addresses_keep_their_network() {
        let truncated = |value: &str| {
            let mut out = Vec::new();
            truncated(value.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(truncated("203.0.113.77").as_deref(), Some("203.0.113.0"));
        assert_eq!(truncated("203.0.113.077"), None);
        assert_eq!(truncated("2001:db8:85a3::8a2e:370:7334").as_deref(), Some("2001:db8:85a3::"));
        assert_eq!(truncated("::ffff:203.0.113.77").as_deref(), Some("::"));
        assert_eq!(truncated("no address"), None);
    }
}

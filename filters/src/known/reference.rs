//! References: where a secret is kept, written so that it can stand in a marker.

use crate::limits::KNOWN_REFERENCE_BYTES_MAX;

/// Whether a byte may stand in a reference as it is.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/')
}

/// The reference with every other byte percent-encoded. One that is too long keeps its end, which tells more, behind a hash of
/// the whole.
pub(crate) fn written(reference: &str) -> String {
    let mut out = String::with_capacity(reference.len());
    for byte in reference.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    if out.is_empty() {
        out.push_str("unnamed");
    }
    if out.len() > KNOWN_REFERENCE_BYTES_MAX {
        let hash = format!("{:016x}...", xxhash_rust::xxh3::xxh3_64(reference.as_bytes()));
        let from = out.len() - (KNOWN_REFERENCE_BYTES_MAX - hash.len());
        let end = out.get(from..).unwrap_or_default().to_owned();
        return hash + &end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_holds_nothing_but_a_safe_alphabet_and_has_a_limit() {
        assert_eq!(written("shop/db/password"), "shop/db/password");
        assert_eq!(written("a b>\"ä"), "a%20b%3E%22%C3%A4");
        assert_eq!(written(""), "unnamed");
        let long = "x/".repeat(100) + "password";
        let short = written(&long);
        assert_eq!(short.len(), KNOWN_REFERENCE_BYTES_MAX);
        assert!(short.ends_with("/password") && short.bytes().all(is_plain), "{short}");
        assert_ne!(short, written(&("y/".repeat(100) + "password")));
    }
}

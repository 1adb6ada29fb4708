//! IPv4 addresses against version numbers: what goes on as a longer dotted number is none, nor is a product's version.

use std::ops::Range;

use super::{is_digit, is_part_of_longer_number, two_before};

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    if is_part_of_longer_number(line, &span, b".") {
        return None;
    }
    let text = line.get(span.clone())?;
    let (last, earlier) = two_before(line, span.start);
    // `Chrome/126.0.0.0`: a product token of a user agent. An address that ends in two zeros names no host.
    let product = last == Some(b'/') && earlier.is_some_and(|byte| byte.is_ascii_alphabetic());
    if product && text.ends_with(b".0.0") {
        return None;
    }
    Some(span)
}

/// Whether no dotted number goes on over `at` from the left.
pub(super) fn may_begin(line: &[u8], at: usize) -> bool {
    let (last, earlier) = two_before(line, at);
    !(last == Some(b'.') && is_digit(earlier))
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn plain_addresses_pass() {
        table(check, &["10.0.0.1", "255.255.255.255"], &[]);
    }

    #[test]
    fn versions_are_no_addresses() {
        assert_eq!(judge(check, "1.2.3.4.5", "1.2.3.4"), None);
        assert_eq!(judge(check, "1.2.3.4.5", "2.3.4.5"), None);
        assert_eq!(judge(check, "Chrome/126.0.0.0 Safari", "126.0.0.0"), None);
        assert!(judge(check, "http://126.0.0.0/x", "126.0.0.0").is_some());
        assert!(judge(check, "from/10.1.2.3", "10.1.2.3").is_some());
        assert!(judge(check, "10.1.2.3.", "10.1.2.3").is_some());
    }
}

//! IPv6 addresses: they parse, they hold a digit (a path of names such as `fade::bead` does not), and stand alone.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::{before, hex_group_before, is_word, two_from};

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let (next, later) = two_from(line, span.end);
    let alone_behind = !is_word(next) && (next != Some(b':') || !is_word(later));
    if !alone_behind || !may_begin(line, span.start) {
        return None;
    }
    let text = std::str::from_utf8(line.get(span.clone())?).ok()?;
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    let is_address = has_digit
        && !is_dotted_tail(text, line.get(span.end..).unwrap_or(&[]))
        && text.parse::<Ipv6Addr>().is_ok();
    is_address.then_some(span)
}

/// Whether an address that starts at `at` would stand alone to its left.
pub(super) fn may_begin(line: &[u8], at: usize) -> bool {
    match before(line, at) {
        Some(b':') => before(line, at - 1) != Some(b':') && !hex_group_before(line, at - 1, 4),
        last => last != Some(b'.') && !is_word(last),
    }
}

/// Whether the last group is the first number of a dotted address, which is another rule's.
fn is_dotted_tail(text: &str, tail: &[u8]) -> bool {
    let last = text.rsplit(':').next().unwrap_or("");
    let number = |digits: &[u8]| (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let mut groups = tail
        .split(|byte| !byte.is_ascii_digit() && *byte != b'.')
        .next()
        .unwrap_or(&[])
        .split(|byte| *byte == b'.');
    number(last.as_bytes())
        && groups.next() == Some(&[])
        && groups.take_while(|group| number(group)).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn addresses_pass_and_times_and_paths_do_not() {
        table(
            check,
            &[
                "2001:db8::1",
                "fe80::1ff:fe23:4567:890a",
                "2001:0db8:0000:0000:0000:ff00:0042:8329",
                "2001:db8::",
            ],
            &["12:34:56:78", "fade::bead", "1:2:3:4:5:6:7:8:9", "a::b::1"],
        );
        assert_eq!(judge(check, "1:fe80::1", "fe80::1"), None);
        assert!(judge(check, "peer:fe80::1", "fe80::1").is_some());
    }
}

//! Hardware addresses: six bytes, not a piece of a longer fingerprint, and neither all zero nor broadcast.

use std::ops::Range;

use super::{before, hex_group_before, two_from};

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let joint = |byte: Option<u8>| matches!(byte, Some(b':' | b'-'));
    let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    let last = before(line, span.start);
    let (next, later) = two_from(line, span.end);
    let longer = (joint(last) && hex_group_before(line, span.start - 1, 2)) || (joint(next) && hex(later));
    let mut digits = text.iter().filter(|byte| byte.is_ascii_hexdigit()).map(u8::to_ascii_lowercase);
    let first = digits.next()?;
    let constant = matches!(first, b'0' | b'f') && digits.all(|digit| digit == first);
    let mixed = text.contains(&b':') && text.contains(&b'-');
    (!longer && !constant && !mixed).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn fingerprints_and_constants_are_no_hardware_addresses() {
        table(
            check,
            &["00:1a:2b:3c:4d:5e", "00-1A-2B-3C-4D-5E"],
            &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"],
        );
        assert_eq!(judge(check, "aa:00:1a:2b:3c:4d:5e", "00:1a:2b:3c:4d:5e"), None);
        assert_eq!(judge(check, "00:1a:2b:3c:4d:5e:01", "00:1a:2b:3c:4d:5e"), None);
        assert!(judge(check, "mac:00:1a:2b:3c:4d:5e", "00:1a:2b:3c:4d:5e").is_some());
        assert!(judge(check, "mac=00:1a:2b:3c:4d:5e,", "00:1a:2b:3c:4d:5e").is_some());
    }
}

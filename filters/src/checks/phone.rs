//! Telephone numbers: 9 to 15 digits, not a piece of a longer number. `1-` before a North American number belongs to it.

use std::ops::Range;

use super::digits::{is_listed, stands_alone};
use super::{is_digit, is_part_of_longer_number, two_before, two_from};

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    if !(9..=15).contains(&digits) {
        return None;
    }
    let (last, earlier) = two_before(line, span.start);
    if matches!(last, Some(b'-' | b'.')) && earlier == Some(b'1') {
        let (further, _) = two_before(line, span.start - 2);
        let alone = !is_digit(further) && !matches!(further, Some(b'.' | b'-'));
        if alone {
            // Judged as if the country code and its joint were not there.
            let rest = line.get(span.start..)?;
            return (!is_part_of_longer_number(rest, &(0..text.len()), b"-.")).then_some(span);
        }
    }
    (!is_part_of_longer_number(line, &span, b"-.")).then_some(span)
}

/// National writing, which a host's name or a list of numbers may have, too.
pub(super) fn check_national(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let (next, later) = two_from(line, span.end);
    let named = matches!(next, Some(b'.' | b'_')) && later.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let listed = text.contains(&b' ') && is_listed(line, &span);
    (!named && !listed && stands_alone(line, &span)).then_some(span).and_then(|span| check(line, span))
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn a_host_and_a_list_are_no_national_number() {
        assert_eq!(judge(check_national, "rhost=302-555-40-29.dsl.example", "302-555-40-29"), None);
        assert_eq!(judge(check_national, "AB12 0108 0000 0009 4217", "0108 0000 0009"), None);
        assert!(judge(check_national, "call 302-555-40-29.", "302-555-40-29").is_some());
        assert!(judge(check_national, "0 (906) 555 0142", "0 (906) 555 0142").is_some());
    }

    #[test]
    fn a_piece_of_a_longer_number_is_no_telephone_number() {
        table(check, &["212-555-0100", "+4915112345678", "(212) 555-0100"], &["+49 151 1"]);
        assert!(judge(check, "1-212-555-0100", "212-555-0100").is_some());
        assert_eq!(judge(check, "21-212-555-0100", "212-555-0100"), None);
        assert_eq!(judge(check, "212-555-0100-77", "212-555-0100"), None);
        assert_eq!(judge(check, "0.212.555.0100", "212.555.0100"), None);
    }
}

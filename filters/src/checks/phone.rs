//! Telephone numbers: 9 to 15 digits, not a piece of a longer number. `1-` before a North American number belongs to it.

use std::ops::Range;

use super::{is_digit, is_part_of_longer_number, two_before};

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

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn a_piece_of_a_longer_number_is_no_telephone_number() {
        table(check, &["212-555-0100", "+4915112345678", "(212) 555-0100"], &["+49 151 1"]);
        assert!(judge(check, "1-212-555-0100", "212-555-0100").is_some());
        assert_eq!(judge(check, "21-212-555-0100", "212-555-0100"), None);
        assert_eq!(judge(check, "212-555-0100-77", "212-555-0100"), None);
        assert_eq!(judge(check, "0.212.555.0100", "212.555.0100"), None);
    }
}

//! Payment cards: the Luhn sum over the digits, 12 to 19 of them.

use std::ops::Range;

use super::is_part_of_longer_number;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    if is_part_of_longer_number(line, &span, b"-.") {
        return None;
    }
    let (mut sum, mut count, mut first, mut alike) = (0_u32, 0_u32, None, true);
    for digit in text.iter().rev().filter(|byte| byte.is_ascii_digit()) {
        let value = u32::from(digit - b'0');
        let weighed = if count % 2 == 1 { value * 2 } else { value };
        sum += if weighed > 9 { weighed - 9 } else { weighed };
        count += 1;
        alike &= *first.get_or_insert(value) == value;
    }
    ((12..=19).contains(&count) && sum % 10 == 0 && !alike).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn luhn_decides() {
        table(
            check,
            &[
                "4111111111111111",
                "4111 1111 1111 1111",
                "378282246310005",
                "3782-822463-10005",
                "30569309025904",
            ],
            &["4111111111111112", "378282246310006", "4444444444444444", "79927398713"],
        );
    }

    #[test]
    fn a_piece_of_a_longer_dashed_number_is_no_card() {
        assert_eq!(judge(check, "12-4111-1111-1111-1111", "4111-1111-1111-1111"), None);
        assert!(judge(check, "pan=4111111111111111,", "4111111111111111").is_some());
    }
}

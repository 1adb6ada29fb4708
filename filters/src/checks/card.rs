//! Payment cards: a network's prefix, a length that the network has, and the Luhn sum; groups joined alike.

use std::ops::Range;

use super::{before, is_part_of_longer_number};

/// The most digits a card has.
const DIGITS_MAX: usize = 19;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let is_negative = before(line, span.start) == Some(b'-')
        && span.start.checked_sub(1).and_then(|at| before(line, at)) == Some(b'_');
    // The head of an account number before groups of four.
    let is_account = text.contains(&b' ')
        && matches!(line.get(..span.start), Some([.., a, b, c, d, b' ']) if a.is_ascii_uppercase()
            && b.is_ascii_uppercase() && c.is_ascii_digit() && d.is_ascii_digit());
    if is_negative || is_account || is_part_of_longer_number(line, &span, b"-.") {
        return None;
    }
    let mut joints = text.iter().filter(|byte| !byte.is_ascii_digit());
    let joint = joints.next();
    if joints.any(|other| Some(other) != joint) {
        return None;
    }
    let (mut sum, mut count, mut head, mut alike) = (0_u32, 0_usize, 0_u32, true);
    let digits = || text.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    let first = digits().next()?;
    for digit in digits() {
        count += 1;
        alike &= digit == first;
        if count <= 4 {
            head = head * 10 + digit;
        }
    }
    if count > DIGITS_MAX || alike || !is_issued(head, count) {
        return None;
    }
    for (index, digit) in digits().enumerate() {
        let weighed = if (count - index).is_multiple_of(2) { digit * 2 } else { digit };
        sum += if weighed > 9 { weighed - 9 } else { weighed };
    }
    sum.is_multiple_of(10).then_some(span)
}

/// Whether a network gives out cards of so many digits whose first four are `head`.
fn is_issued(head: u32, digits: usize) -> bool {
    match head {
        // Visa.
        4000..=4999 => matches!(digits, 13 | 16 | 19),
        // American Express.
        3400..=3499 | 3700..=3799 => digits == 15,
        // Diners Club.
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => matches!(digits, 14 | 16..=19),
        // JCB.
        3528..=3589 => matches!(digits, 16..=19),
        // Mastercard.
        5100..=5599 | 2221..=2720 => digits == 16,
        // Mir.
        2200..=2204 => matches!(digits, 16..=19),
        // Discover, RuPay, UnionPay.
        6011 | 6440..=6599 | 6200..=6299 | 8100..=8299 => matches!(digits, 16..=19),
        // Maestro, and with it Elo, Verve, Dankort, Hipercard, RuPay and others that share its ranges.
        5000..=5099 | 5600..=5899 | 6000..=6099 | 6300..=6399 | 6700..=6799 => matches!(digits, 12..=19),
        // Troy.
        9792 => digits == 16,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn prefix_length_and_luhn_decide() {
        table(
            check,
            &[
                "4156284385211721",
                "4572168047458",
                "4576642039525285430",
                "5307 5095 4777 0791",
                "2291020812318196",
                "377741967518980",
                "3777-419675-18980",
                "36127293496039",
                "3541407964279746",
                "6214437136829572",
                "6071301003218644",
                "2202280235674892",
                "9792749163845105",
            ],
            &[
                "4156284385211722",
                "377741967518981",
                "4444444444444444",
                "79927398713",
                "5307-5095 4777-0791",
                "7156284385211727",
                "2121020812318192",
                "361272934960395",
            ],
        );
    }

    #[test]
    fn a_piece_of_a_longer_dashed_number_is_no_card() {
        assert_eq!(judge(check, "12-4156-2843-8521-1721", "4156-2843-8521-1721"), None);
        assert_eq!(judge(check, "blk_-4156284385211721", "4156284385211721"), None);
        let account = "RS17 4156 2843 8521 1721";
        assert_eq!(judge(check, account, "4156 2843 8521 1721"), None);
        assert!(judge(check, "pan=4156284385211721,", "4156284385211721").is_some());
        assert!(judge(check, "card-4156284385211721", "4156284385211721").is_some());
    }
}

//! International bank account numbers: the length of the country and the remainder 1 modulo 97.

use std::ops::Range;

use super::is_word;

/// Length by country, from the SWIFT registry, and of countries whose banks write such numbers without standing in it.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AO", 25),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BF", 28),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BJ", 28),
    (b"BR", 29),
    (b"BY", 28),
    (b"CF", 27),
    (b"CG", 27),
    (b"CH", 21),
    (b"CI", 28),
    (b"CM", 27),
    (b"CR", 22),
    (b"CV", 25),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"DZ", 26),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GA", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GQ", 27),
    (b"GR", 27),
    (b"GT", 28),
    (b"GW", 25),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IR", 26),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KM", 27),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MA", 28),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MG", 27),
    (b"MK", 19),
    (b"ML", 28),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"MZ", 25),
    (b"NE", 28),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SN", 28),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TD", 27),
    (b"TG", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let country = text.get(..2)?;
    let wanted = LENGTHS.iter().find(|(code, _)| code.as_slice() == country)?.1;
    // The pattern takes groups of four as long as they come; the country says where the number ends.
    let (mut seen, mut bytes) = (0, 0);
    for byte in text {
        bytes += 1;
        seen += usize::from(*byte != b' ');
        if seen == wanted {
            break;
        }
    }
    let end = span.start + bytes;
    if seen < wanted || is_word(line.get(end).copied()) {
        return None;
    }
    let number = line.get(span.start..end)?;
    (remainder(number)? == 1).then_some(span.start..end)
}

/// The number modulo 97, its first four characters taken last.
fn remainder(number: &[u8]) -> Option<u32> {
    let (head, tail) = number.split_at_checked(4)?;
    let mut remainder = 0;
    for byte in tail.iter().chain(head).filter(|byte| **byte != b' ') {
        remainder = match byte {
            b'0'..=b'9' => remainder * 10 + u32::from(byte - b'0'),
            b'A'..=b'Z' => remainder * 100 + u32::from(byte - b'A') + 10,
            _ => return None,
        } % 97;
    }
    Some(remainder)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn country_length_and_remainder_decide() {
        table(
            check,
            &[
                "DE89370400440532013000",
                "GB29 NWBK 6016 1331 9268 19",
                "NL91ABNA0417164300",
                "NO9386011117947",
                "MA52230780402188370055190142",
            ],
            &["DE89370400440532013001", "DE8937040044053201300", "ZZ89370400440532013000"],
        );
    }

    #[test]
    fn what_follows_the_number_is_left_out() {
        let line = "DE89 3704 0044 0532 0130 00 USD1";
        assert_eq!(judge(check, line, line).as_deref(), Some("DE89 3704 0044 0532 0130 00"));
    }
}

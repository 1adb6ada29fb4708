//! Identifiers of letters and digits: their check characters, as the authorities that give them out publish them.

use std::ops::Range;

use super::digits::{is_day, stands_alone};

/// Judges the letters and digits of a span, in upper case.
fn judged(line: &[u8], span: Range<usize>, valid: fn(&[u8]) -> bool) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let compact: Vec<u8> =
        text.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase).collect();
    (stands_alone(line, &span) && valid(&compact)).then_some(span)
}

/// A digit's value, or a letter's: 10 for A and so on.
fn value(byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        _ => 0,
    }
}

fn at(text: &[u8], index: usize) -> u8 {
    text.get(index).copied().unwrap_or(0)
}

fn number(text: &[u8]) -> u32 {
    text.iter().fold(0, |number: u32, byte| number.wrapping_mul(10).wrapping_add(value(*byte)))
}

fn letter_of(table: &[u8], index: u32) -> u8 {
    usize::try_from(index).ok().and_then(|index| table.get(index)).copied().unwrap_or(0)
}

fn head(text: &[u8], bytes: usize) -> &[u8] {
    text.get(..bytes).unwrap_or(&[])
}

fn last(text: &[u8]) -> u8 {
    text.last().copied().unwrap_or(0)
}

/// The sum of digits, each product split into its own digits, weights in turn.
fn cross_sum(digits: impl Iterator<Item = u32>, weights: &[u32]) -> u32 {
    digits
        .zip(weights.iter().cycle())
        .map(|(digit, weight)| digit * weight)
        .map(|sum| sum / 10 + sum % 10)
        .sum()
}

/// Digits, with a letter written as its two-digit place in the alphabet.
fn spelled(text: &[u8]) -> Vec<u32> {
    let mut digits = Vec::new();
    for byte in text {
        if byte.is_ascii_digit() {
            digits.push(value(*byte));
        } else {
            let place = value(*byte) - 9;
            digits.extend([place / 10, place % 10]);
        }
    }
    digits
}

/// The 7-3-1 sum of machine-readable documents.
fn is_document(text: &[u8]) -> bool {
    if at(text, 0) == b'T' && text.iter().skip(1).all(u8::is_ascii_digit) {
        return true; // A series of identity cards without letters has no check digit.
    }
    let body = head(text, text.len().saturating_sub(1));
    let sum: u32 =
        body.iter().zip([7, 3, 1].iter().cycle()).map(|(byte, weight)| value(*byte) * weight).sum();
    sum % 10 == value(last(text))
}

fn cnpj_digit(text: &[u8], length: usize) -> u8 {
    let weights = [2, 3, 4, 5, 6, 7, 8, 9];
    let values = head(text, length).iter().rev().map(|byte| u32::from(byte - b'0'));
    let sum: u32 = values.zip(weights.iter().cycle()).map(|(value, weight)| value * weight).sum();
    match sum % 11 {
        0 | 1 => b'0',
        rest => letter_of(b"0123456789", 11 - rest),
    }
}

fn is_vin(text: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let read = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'H' => u32::from(byte - b'A') + 1,
        b'J'..=b'R' => u32::from(byte - b'J') + 1,
        _ => u32::from(byte.saturating_sub(b'S')) + 2,
    };
    let sum: u32 = text.iter().zip(WEIGHTS).map(|(byte, weight)| read(*byte) * weight).sum();
    let check = letter_of(b"0123456789X", sum % 11);
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    at(text, 8) == check && (2..15).contains(&letters) && text.iter().skip(13).all(u8::is_ascii_digit)
}

/// Digits before a small letter up to `f` are hexadecimal more often.
pub(super) fn es_nif(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let hexadecimal = at(text, 0).is_ascii_digit() && matches!(last(text), b'a'..=b'f');
    judged(line, span, is_nif).filter(|_| !hexadecimal)
}

fn is_nif(text: &[u8]) -> bool {
    let turned = match at(text, 0) {
        b'X' => 0,
        b'Y' => 10_000_000,
        b'Z' => 20_000_000,
        digit if digit.is_ascii_digit() => {
            return nif_letter(number(head(text, text.len() - 1))) == last(text);
        }
        _ => return false,
    };
    let rest = text.get(1..text.len() - 1).unwrap_or(&[]);
    nif_letter(turned + number(rest)) == last(text)
}

fn nif_letter(number: u32) -> u8 {
    letter_of(b"TRWAGMYFPDXBNJZSQVHLCKE", number % 23)
}

checks! {
    br_cnpj: |t| t.len() == 14 && cnpj_digit(t, 12) == at(t, 12) && cnpj_digit(t, 13) == at(t, 13) && t.iter().any(|b| *b != at(t, 0));
    cl_rut: |t| {
        let values = head(t, t.len() - 1).iter().rev().map(|byte| value(*byte));
        let sum: u32 = values.zip([2, 3, 4, 5, 6, 7].iter().cycle()).map(|(value, weight)| value * weight).sum();
        letter_of(b"0123456789K", (11 - sum % 11) % 11) == last(t)
    };
    /// Chinese resident numbers: a date, and ISO 7064 modulus 11 and 2.
    cn_id: |t| {
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
        let sum: u32 = t.iter().zip(weights).map(|(byte, weight)| value(*byte) * weight).sum();
        letter_of(b"10X98765432", sum % 11) == last(t)
    };
    dea: |t| {
        let digit = |index: usize| value(at(t, index + 1));
        let sum = digit(1) + digit(3) + digit(5) + 2 * (digit(2) + digit(4) + digit(6));
        sum % 10 == digit(7)
    };
    de_health_insurance: |t| cross_sum(spelled(head(t, 9)).into_iter(), &[1, 2]) % 10 == value(last(t));
    de_pension: |t| cross_sum(spelled(head(t, 11)).into_iter(), &[2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1]) % 10 == value(last(t))
        && (1..=12).contains(&number(t.get(4..6).unwrap_or(&[])));
    document: is_document;
    fi_hetu: |t| {
        // The sign between date and number may be a letter, which is left out.
        let serial = t.get(t.len().saturating_sub(4)..t.len() - 1).unwrap_or(&[]);
        let date = head(t, 6);
        let dated = is_day(number(date.get(2..4).unwrap_or(&[])), number(head(date, 2)));
        dated && number(serial) >= 2
            && letter_of(b"0123456789ABCDEFHJKLMNPRSTUVWXY", (number(date) * 1000 + number(serial)) % 31) == last(t)
    };
    /// The form is telling: a day of birth, raised by 40 for women. The check letter of a mistyped one is wrong, and it is one still.
    it_fiscal_code: |t| {
        let digit = |index: usize| match at(t, index) {
            letter if letter.is_ascii_digit() => value(letter),
            letter => b"LMNPQRSTUV".iter().zip(0..).find(|(known, _)| **known == letter).map_or(9, |(_, digit)| digit),
        };
        matches!(digit(9) * 10 + digit(10), 1..=31 | 41..=71)
    };
    uk_nino: |t| !matches!(head(t, 2), b"BG" | b"GB" | b"KN" | b"NK" | b"NT" | b"TN" | b"ZZ");
    vin: is_vin;
    /// Any of letters and digits that is no piece of something longer; context or form say what it is.
    alone_lettered: |_| true;
    /// The same, with at least one digit.
    with_digit: |t| t.iter().any(u8::is_ascii_digit);
}

#[cfg(test)]
mod tests {
    use super::super::{Check, table};
    use super::*;

    #[test]
    fn check_characters_decide() {
        let cases: &[(Check, &[&str], &[&str])] = &[
            (br_cnpj, &["44.721.093/0001-19", "7K.D2M.90R/0001-22"], &["44.721.093/0001-18"]),
            (cl_rut, &["13.226.942-4"], &["13.226.942-5"]),
            (cn_id, &["330106198704111267"], &["330106198704111268"]),
            (dea, &["FG3515989"], &["FG3515988"]),
            (de_health_insurance, &["W238189965"], &["W238189964"]),
            (de_pension, &["23220362W381"], &["23220362W382"]),
            (document, &["R7W4R5734", "VP2X53RP7"], &["R7W4R5735"]),
            (
                es_nif,
                &["62262545G", "X2377686S", "Z2398294-C", "62262545g"],
                &["62262545H", "X2377686T", "0247017c"],
            ),
            (fi_hetu, &["071171-6611", "140666Y3484"], &["071171-6612", "310271-6619"]),
            (it_fiscal_code, &["BNCLRA79C52F205X"], &["BNCLRA79C92F205X"]),
            (uk_nino, &["CE 40 21 88 C"], &["BG 40 21 88 C"]),
            (vin, &["2T1BURHE5JC034461"], &["2T1BURHE4JC034461"]),
        ];
        for (check, valid, invalid) in cases {
            table(*check, valid, invalid);
        }
    }
}

//! Identifiers of digits alone: their check digits, dates and ranges, as the authorities that give them out publish them.
//!
//! None of them is a piece of a longer number or identifier, separated by one kind of separator at most, or one digit repeated.

use std::ops::Range;

use super::{is_digit, two_before, two_from};

/// The most digits an identifier has here.
const DIGITS_MAX: usize = 20;

/// Judges the digits of a span.
fn judged(line: &[u8], span: Range<usize>, valid: fn(&[u32]) -> bool) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let mut digits = Vec::with_capacity(DIGITS_MAX);
    let mut separator = None;
    for byte in text {
        if byte.is_ascii_digit() {
            digits.push(u32::from(byte - b'0'));
        } else if *separator.get_or_insert(*byte) != *byte && !matches!(byte, b'.' | b'/' | b'-') {
            return None;
        }
    }
    let alike = digits.iter().all(|digit| digits.first() == Some(digit));
    (digits.len() <= DIGITS_MAX && !alike && stands_alone(line, &span) && valid(&digits)).then_some(span)
}

/// Whether no joint makes the span a piece of a longer number, version, or identifier such as a UUID.
pub(super) fn stands_alone(line: &[u8], span: &Range<usize>) -> bool {
    let (last, earlier) = two_before(line, span.start);
    let (next, later) = two_from(line, span.end);
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let before = matches!(last, Some(b'-')) && outer(earlier) || last == Some(b'.') && is_digit(earlier);
    let behind = matches!(next, Some(b'-')) && outer(later) || next == Some(b'.') && is_digit(later);
    !before && !behind
}

fn weighed(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

fn at(digits: &[u32], index: usize) -> u32 {
    digits.get(index).copied().unwrap_or(0)
}

fn pair(digits: &[u32], index: usize) -> u32 {
    at(digits, index) * 10 + at(digits, index + 1)
}

/// Whether a day of the month and a month stand at these places.
fn is_date(digits: &[u32], month: usize, day: usize) -> bool {
    (1..=12).contains(&pair(digits, month)) && (1..=31).contains(&pair(digits, day))
}

/// The sum in which every second digit from the right, from the check digit on, is doubled.
fn luhn(digits: &[u32]) -> u32 {
    let doubled = |(index, digit): (usize, &u32)| match (index % 2, digit * 2) {
        (0, _) => *digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    digits.iter().rev().enumerate().map(doubled).sum()
}

/// ISO 7064, modulus 11 and 10.
fn is_iso_11_10(digits: &[u32]) -> bool {
    let mut product = 10;
    for digit in digits.iter().take(digits.len().saturating_sub(1)) {
        let sum = (digit + product) % 10;
        product = (if sum == 0 { 10 } else { sum }) * 2 % 11;
    }
    (11 - product) % 10 == digits.last().copied().unwrap_or(0)
}

fn number(digits: &[u32]) -> u64 {
    digits.iter().fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(*digit)))
}

/// The check digit of weights modulo 11, where remainders 0 and 1 give 0.
fn eleven(digits: &[u32], weights: &[u32]) -> u32 {
    match weighed(digits, weights) % 11 {
        0 | 1 => 0,
        rest => 11 - rest,
    }
}

const DIHEDRAL: [[u8; 10]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
    [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
    [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
    [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
    [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
    [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
];

const PERMUTED: [[u8; 10]; 8] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
    [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
    [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
    [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
    [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
    [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
    [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
];

/// Verhoeff's check over the dihedral group of order ten.
fn is_verhoeff(digits: &[u32]) -> bool {
    let look = |table: &[[u8; 10]], row: usize, column: usize| {
        usize::from(table.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0))
    };
    let mut state = 0;
    for (index, digit) in digits.iter().rev().enumerate() {
        let digit = usize::try_from(*digit).unwrap_or(0);
        state = look(&DIHEDRAL, state, look(&PERMUTED, index % 8, digit));
    }
    state == 0
}

/// Seconds since 1970 between 2014 and 2036, which a number of ten digits in a log is more often than anything else.
fn is_epoch(digits: &[u32]) -> bool {
    digits.len() == 10 && (1_400_000_000..2_100_000_000).contains(&number(digits))
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident: $valid:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
            judged(line, span, $valid)
        })*
    };
}

checks! {
    /// US bank routing numbers: a Federal Reserve district and the 3-7-1 sum.
    aba: |d| matches!(pair(d, 0), 1..=12 | 21..=32 | 61..=72 | 80) && weighed(d, &[3, 7, 1, 3, 7, 1, 3, 7, 1]) % 10 == 0;
    au_tfn: |d| d.len() == 9 && weighed(d, &[1, 4, 3, 7, 5, 8, 6, 9, 10]) % 11 == 0;
    au_abn: |d| at(d, 0) > 0 && (weighed(d, &[10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]) - 10) % 89 == 0;
    au_acn: |d| (10 - weighed(d, &[8, 7, 6, 5, 4, 3, 2, 1]) % 10) % 10 == at(d, 8);
    au_medicare: |d| matches!(at(d, 0), 2..=6) && weighed(d, &[1, 3, 7, 9, 1, 3, 7, 9]) % 10 == at(d, 8) && at(d, 9) > 0;
    be_nrn: |d| {
        let (base, check) = (number(d) / 100, number(d) % 100);
        97 - base % 97 == check || 97 - (base + 2_000_000_000) % 97 == check
    };
    br_cpf: |d| eleven(d, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 9) && eleven(d, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 10);
    ca_sin: |d| !matches!(at(d, 0), 0 | 8) && luhn(d) % 10 == 0;
    ch_ahv: |d| d.starts_with(&[7, 5, 6]) && weighed(d, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]) % 10 == 0;
    de_tax_id: |d| at(d, 0) > 0 && is_iso_11_10(d);
    de_lanr: |d| (10 - weighed(d, &[4, 9, 4, 9, 4, 9]) % 10) % 10 == at(d, 6);
    dk_cpr: |d| is_date(d, 2, 0);
    ee_lt_code: |d| {
        let first = weighed(d, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
        let second = weighed(d, &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11 % 10;
        is_date(d, 3, 5) && (if first < 10 { first } else { second }) == at(d, 10)
    };
    fr_nir: |d| 97 - number(d) / 100 % 97 == number(d) % 100;
    hr_oib: is_iso_11_10;
    imei: |d| luhn(d) % 10 == 0;
    in_aadhaar: |d| at(d, 0) > 1 && is_verhoeff(d) && !d.iter().eq(d.iter().rev());
    it_vat: |d| luhn(d) % 10 == 0 && number(d) / 10_000 > 0;
    /// Dates and the digit of sex and century; numbers given out since October 2020 have no check digit.
    kr_rrn: |d| is_date(d, 2, 4) && matches!(at(d, 6), 1..=4) && !matches!(pair(d, 0), 14..=19);
    kr_frn: |d| is_date(d, 2, 4) && matches!(at(d, 6), 5..=8) && {
        let sum = weighed(d, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11;
        (13 - sum) % 10 == at(d, 12)
    };
    kr_brn: |d| {
        let sum = weighed(d, &[1, 3, 7, 1, 3, 7, 1, 3, 5]) + at(d, 8) * 5 / 10;
        (10 - sum % 10) % 10 == at(d, 9)
    };
    nl_bsn: |d| d.len() == 9 && (weighed(d, &[9, 8, 7, 6, 5, 4, 3, 2]) + 10 * at(d, 8)) % 11 == 0;
    no_fnr: |d| {
        weighed(d, &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]) % 11 == 0 && weighed(d, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]) % 11 == 0
    };
    npi: |d| matches!(at(d, 0), 1 | 2) && (luhn(d) + 24) % 10 == 0;
    npi_alone: |d| matches!(at(d, 0), 1 | 2) && (luhn(d) + 24) % 10 == 0 && !is_epoch(d);
    pl_pesel: |d| {
        let month = pair(d, 2) % 20;
        (1..=12).contains(&month) && (1..=31).contains(&pair(d, 4))
            && (10 - weighed(d, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10 == at(d, 10)
    };
    pt_nif: |d| matches!(at(d, 0), 1..=3 | 5 | 6 | 8 | 9) && eleven(d, &[9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 8);
    ro_cnp: |d| is_date(d, 3, 5) && match weighed(d, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11 {
        10 => at(d, 12) == 1,
        rest => at(d, 12) == rest,
    };
    /// Day or coordination number, and the sum of the last ten digits.
    se_personnummer: |d| {
        let last = d.get(d.len().saturating_sub(10)..).unwrap_or(&[]);
        let day = pair(last, 4);
        (1..=12).contains(&pair(last, 2)) && matches!(day, 1..=31 | 61..=91) && luhn(last) % 10 == 0
            && (d.len() == 10 || matches!(pair(d, 0), 18..=20)) && !is_epoch(d)
    };
    se_organisation: |d| pair(d, 2) >= 20 && luhn(d) % 10 == 0 && !is_epoch(d);
    th_id: |d| {
        let province = pair(d, 1);
        let given = matches!(province, 10..=27 | 30..=58 | 60..=67 | 70..=77 | 80..=86 | 90..=96);
        given && (11 - weighed(d, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 10 == at(d, 12)
    };
    tr_id: |d| {
        let odd = at(d, 0) + at(d, 2) + at(d, 4) + at(d, 6) + at(d, 8);
        let even = at(d, 1) + at(d, 3) + at(d, 5) + at(d, 7);
        let all: u32 = d.iter().take(10).sum();
        at(d, 0) > 0 && (odd * 7 + 100 - even) % 10 == at(d, 9) && all % 10 == at(d, 10)
    };
    uk_nhs: |d| match 11 - weighed(d, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11 {
        11 => at(d, 9) == 0 && !is_epoch(d),
        check => at(d, 9) == check && !is_epoch(d),
    };
    za_id: |d| is_date(d, 2, 4) && matches!(at(d, 10), 0..=2) && matches!(at(d, 11), 8 | 9) && luhn(d) % 10 == 0;
    /// Nine digits of a US social security number, in any writing.
    ssn_digits: |d| !matches!(number(d) / 1_000_000, 0 | 666 | 900..) && number(d) / 10_000 % 100 > 0 && number(d) % 10_000 > 0;
    itin: |d| at(d, 0) == 9 && matches!(pair(d, 3), 50..=65 | 70..=88 | 90..=92 | 94..=99);
    /// Anything of digits that is no piece of something longer; context says what it is.
    alone: |_| true;
}

#[cfg(test)]
mod tests {
    use super::super::{Check, judge, table};
    use super::*;

    #[test]
    fn check_digits_decide() {
        let cases: &[(Check, &[&str], &[&str])] = &[
            (aba, &["021000021", "0110-0001-5"], &["021000022", "421000021"]),
            (au_tfn, &["123 456 782", "876543210"], &["123 456 783"]),
            (au_abn, &["51 824 753 556", "83914571673"], &["52 824 753 556"]),
            (au_acn, &["004 085 616", "010 499 966"], &["004 085 617"]),
            (au_medicare, &["2123 45670 1"], &["2123 45671 1", "7123456701"]),
            (be_nrn, &["93.05.18-223.61"], &["93.05.18-223.62"]),
            (br_cpf, &["529.982.247-25", "11144477735"], &["529.982.247-26", "11111111111"]),
            (ca_sin, &["130 692 544", "130-692-544"], &["130 692 545", "046 454 286"]),
            (ch_ahv, &["756.9217.0769.85"], &["756.9217.0769.84"]),
            (de_tax_id, &["86095742719"], &["86095742718"]),
            (ee_lt_code, &["37605030299"], &["37605030298"]),
            (fr_nir, &["1 84 12 76 451 089 46", "255081416802538"], &["255081416802539"]),
            (hr_oib, &["33392005961"], &["33392005962"]),
            (imei, &["490154203237518"], &["490154203237519"]),
            (in_aadhaar, &["2345 6789 0124"], &["2345 6789 0125"]),
            (it_vat, &["07643520567"], &["07643520568"]),
            (kr_rrn, &["960121-1234567"], &["961321-1234567"]),
            (nl_bsn, &["111222333"], &["111222334"]),
            (no_fnr, &["15076500565"], &["15076500566"]),
            (npi, &["1234567893"], &["1234567890"]),
            (pl_pesel, &["44051401359"], &["44051401358"]),
            (pt_nif, &["501964843"], &["501964842"]),
            (ro_cnp, &["1630615123457"], &["1630615123458"]),
            (se_personnummer, &["811228-9874", "198112289874"], &["811228-9873"]),
            (se_organisation, &["556703-7485"], &["556703-7486"]),
            (th_id, &["1234567890121"], &["1234567890122"]),
            (tr_id, &["10000000146"], &["10000000145"]),
            (uk_nhs, &["943 476 5919"], &["943 476 5918"]),
            (za_id, &["8001015009087"], &["8001015009086"]),
            (itin, &["911-70-1234"], &["911-89-1234"]),
        ];
        for (check, valid, invalid) in cases {
            table(*check, valid, invalid);
        }
    }

    #[test]
    fn a_piece_of_something_longer_is_no_identifier() {
        assert_eq!(judge(tr_id, "a716-10000000146", "10000000146"), None);
        assert_eq!(judge(tr_id, "10000000146-4", "10000000146"), None);
        assert_eq!(judge(tr_id, "0.10000000146", "10000000146"), None);
        assert!(judge(tr_id, "id: 10000000146.", "10000000146").is_some());
    }

    #[test]
    fn seconds_since_1970_are_no_provider_without_context() {
        table(npi_alone, &["1245319599"], &["1790000009", "1790000017"]);
    }
}

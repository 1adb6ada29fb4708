//! Identifiers of digits alone: their check digits, dates and ranges, as the authorities that give them out publish them.
//!
//! None of them is a piece of a longer number or identifier, separated by one kind of separator at most, or one digit repeated.

use std::ops::Range;

use super::{is_digit, two_before, two_from};

/// The most digits an identifier has here.
const DIGITS_MAX: usize = 20;

/// The longest group of an identifier or of a list of numbers, in bytes.
const GROUP_BYTES_MAX: usize = 8;

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
    let listed = separator == Some(b' ') && is_listed(line, &span);
    (digits.len() <= DIGITS_MAX && !alike && !listed && stands_alone(line, &span) && valid(&digits))
        .then_some(span)
}

/// Whether a list of numbers, or of groups of a longer identifier, goes on before or behind the span.
pub(super) fn is_listed(line: &[u8], span: &Range<usize>) -> bool {
    let head = line.get(..span.start).unwrap_or(&[]);
    let tail = line.get(span.end..).unwrap_or(&[]);
    let group = |mut word: &mut dyn Iterator<Item = &u8>| {
        let (mut bytes, mut digits) = (0, 0);
        for byte in &mut word {
            match byte {
                b' ' | b'\t' => break,
                byte if !byte.is_ascii_alphanumeric() => return false,
                byte => digits += usize::from(byte.is_ascii_digit()),
            }
            bytes += 1;
            if bytes > GROUP_BYTES_MAX {
                return false;
            }
        }
        digits > 0
    };
    head.strip_suffix(b" ").is_some_and(|head| group(&mut head.iter().rev()))
        || tail.strip_prefix(b" ").is_some_and(|tail| group(&mut tail.iter()))
}

/// Whether no joint makes the span a piece of a longer number, version, or identifier such as a UUID.
pub(super) fn stands_alone(line: &[u8], span: &Range<usize>) -> bool {
    let (last, earlier) = two_before(line, span.start);
    let (next, later) = two_from(line, span.end);
    if is_digit(last) || is_digit(next) {
        return false;
    }
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

/// Whether a month and one of its days stand at these places.
fn is_date(digits: &[u32], month: usize, day: usize) -> bool {
    is_day(pair(digits, month), pair(digits, day))
}

/// Whether a month has this day in some year.
pub(super) fn is_day(month: u32, day: u32) -> bool {
    let days = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
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

/// The first of January 2021, in seconds since 1970.
const SECONDS_MIN: u64 = 1_609_459_200;

/// Seconds or milliseconds since 1970 between 2021 and 2036, which such a number in a log is more often than anything else.
fn is_epoch(digits: &[u32]) -> bool {
    let seconds = match digits.len() {
        10 => number(digits),
        13 => number(digits) / 1000,
        _ => return false,
    };
    (SECONDS_MIN..2_100_000_000).contains(&seconds)
}

/// Whether somebody born in this year and century may be alive: of foreigners the digit is raised by four.
fn is_korean_century(year: u32, digit: u32) -> bool {
    match digit {
        1 | 2 | 5 | 6 => year > 9,
        3 | 4 | 7 | 8 => year < 40,
        _ => false,
    }
}

/// A province that has given out numbers, and the check digit.
fn is_thai(digits: &[u32]) -> bool {
    let province = pair(digits, 1);
    let given = matches!(province, 10..=27 | 30..=58 | 60..=67 | 70..=77 | 80..=86 | 90..=96);
    let sum = weighed(digits, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    given && (11 - sum) % 10 == at(digits, 12)
}

checks! {
    /// US bank routing numbers: a Federal Reserve district and the 3-7-1 sum.
    aba: |d| matches!(pair(d, 0), 1..=12 | 21..=32 | 61..=72 | 80) && weighed(d, &[3, 7, 1, 3, 7, 1, 3, 7, 1]).is_multiple_of(10);
    au_tfn: |d| d.len() == 9 && weighed(d, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11);
    au_abn: |d| at(d, 0) > 0 && (weighed(d, &[10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]) - 10).is_multiple_of(89);
    au_acn: |d| (10 - weighed(d, &[8, 7, 6, 5, 4, 3, 2, 1]) % 10) % 10 == at(d, 8);
    au_medicare: |d| matches!(at(d, 0), 2..=6) && weighed(d, &[1, 3, 7, 9, 1, 3, 7, 9]) % 10 == at(d, 8) && at(d, 9) > 0;
    be_nrn: |d| {
        let (base, check) = (number(d) / 100, number(d) % 100);
        97 - base % 97 == check || 97 - (base + 2_000_000_000) % 97 == check
    };
    br_cpf: |d| eleven(d, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 9) && eleven(d, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 10);
    ca_sin: |d| !matches!(at(d, 0), 0 | 8) && luhn(d).is_multiple_of(10);
    ch_ahv: |d| d.starts_with(&[7, 5, 6]) && weighed(d, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10);
    de_tax_id: |d| at(d, 0) > 0 && is_iso_11_10(d);
    /// Of the first ten digits one stands twice or three times, or in old examples none, as they are given out.
    de_tax_id_alone: |d| {
        let ten = d.get(..10).unwrap_or(&[]);
        let repeated = (0..10).filter(|digit| ten.iter().filter(|other| *other == digit).count() > 1);
        at(d, 0) > 0 && is_iso_11_10(d) && repeated.count() < 2
    };
    /// Behind the check digit stand two of the speciality, 01 and up.
    de_lanr: |d| (10 - weighed(d, &[4, 9, 4, 9, 4, 9]) % 10) % 10 == at(d, 6) && pair(d, 7) > 0;
    dk_cpr: |d| is_date(d, 2, 0);
    ee_lt_code: |d| {
        let first = weighed(d, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
        let second = weighed(d, &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11 % 10;
        is_date(d, 3, 5) && (if first < 10 { first } else { second }) == at(d, 10)
    };
    fr_nir: |d| 97 - number(d) / 100 % 97 == number(d) % 100;
    hr_oib: is_iso_11_10;
    in_aadhaar: |d| d.len() == 12 && at(d, 0) > 1 && is_verhoeff(d) && !d.iter().eq(d.iter().rev());
    it_vat: |d| luhn(d).is_multiple_of(10) && number(d) / 10_000 > 0;
    /// Dates and the digit of sex and century; numbers given out since October 2020 have no check digit.
    kr_rrn: |d| is_date(d, 2, 4) && is_korean_century(pair(d, 0), at(d, 6));
    /// Of citizens, not of foreigners.
    kr_citizen: |d| is_date(d, 2, 4) && matches!(at(d, 6), 1..=4) && is_korean_century(pair(d, 0), at(d, 6));
    /// With the check digit, which foreigners have two steps further.
    kr_rrn_checked: |d| is_date(d, 2, 4) && matches!(at(d, 6), 1..=8) && {
        let sum = weighed(d, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11;
        let first = if at(d, 6) > 4 { 13 } else { 11 };
        (first - sum) % 10 == at(d, 12)
    };
    kr_brn: |d| {
        let sum = weighed(d, &[1, 3, 7, 1, 3, 7, 1, 3, 5]) + at(d, 8) * 5 / 10;
        (10 - sum % 10) % 10 == at(d, 9)
    };
    /// Any number with a Luhn digit.
    luhn_digit: |d| luhn(d).is_multiple_of(10);
    nl_bsn: |d| d.len() == 9 && (weighed(d, &[9, 8, 7, 6, 5, 4, 3, 2]) + 10 * at(d, 8)).is_multiple_of(11);
    no_fnr: |d| {
        // A day may be raised by 40, a month by 40 or 80.
        is_day(pair(d, 2) % 40, pair(d, 0) % 40) && weighed(d, &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]).is_multiple_of(11) && weighed(d, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
    };
    npi: |d| matches!(at(d, 0), 1 | 2) && (luhn(d) + 24).is_multiple_of(10);
    /// Those that have been given out begin with 1.
    npi_alone: |d| at(d, 0) == 1 && (luhn(d) + 24).is_multiple_of(10) && !is_epoch(d);
    pl_pesel: |d| {
        let month = pair(d, 2) % 20;
        is_day(month, pair(d, 4)) && (10 - weighed(d, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10 == at(d, 10)
    };
    pt_nif: |d| matches!(at(d, 0), 1..=3 | 5 | 6 | 8 | 9) && eleven(d, &[9, 8, 7, 6, 5, 4, 3, 2]) == at(d, 8);
    ro_cnp: |d| is_date(d, 3, 5) && match weighed(d, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11 {
        10 => at(d, 12) == 1,
        rest => at(d, 12) == rest,
    };
    /// Day or coordination number, and the sum of the last ten digits.
    se_personnummer: |d| {
        let last = d.get(d.len().saturating_sub(10)..).unwrap_or(&[]);
        let day = pair(last, 4) % 60;
        is_day(pair(last, 2), day) && pair(last, 4) < 92 && luhn(last).is_multiple_of(10)
            && (d.len() == 10 || matches!(pair(d, 0), 18..=20))
    };
    se_organisation: |d| pair(d, 2) >= 20 && luhn(d).is_multiple_of(10);
    th_id: is_thai;
    th_id_alone: |d| is_thai(d) && !is_epoch(d);
    tr_id: |d| {
        let odd = at(d, 0) + at(d, 2) + at(d, 4) + at(d, 6) + at(d, 8);
        let even = at(d, 1) + at(d, 3) + at(d, 5) + at(d, 7);
        let all: u32 = d.iter().take(10).sum();
        at(d, 0) > 0 && (odd * 7 + 100 - even) % 10 == at(d, 9) && all % 10 == at(d, 10)
    };
    uk_nhs: |d| match 11 - weighed(d, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11 {
        11 => at(d, 9) == 0,
        check => at(d, 9) == check,
    };
    za_id: |d| is_date(d, 2, 4) && matches!(at(d, 10), 0..=2) && matches!(at(d, 11), 8 | 9) && luhn(d).is_multiple_of(10);
    /// Nine digits of a US social security number, in any writing.
    ssn_digits: |d| d.len() == 9 && !matches!(number(d) / 1_000_000, 0 | 666 | 900..) && !(number(d) / 10_000).is_multiple_of(100) && !number(d).is_multiple_of(10_000);
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
            (aba, &["129052434", "1241-8557-1"], &["129052435", "429052431"]),
            (au_tfn, &["889 719 290", "144381775"], &["889 719 291"]),
            (au_abn, &["15 664 887 566", "58711648816"], &["16 664 887 566"]),
            (au_acn, &["152 451 995", "611470270"], &["152 451 996"]),
            (au_medicare, &["4501 54999 1"], &["4501 54998 1", "7501549991"]),
            (be_nrn, &["61.07.05-802.87"], &["61.07.05-802.88"]),
            (br_cpf, &["559.273.204-06", "81327245850"], &["559.273.204-07", "22222222222"]),
            (ca_sin, &["650 349 749", "157-007-972"], &["650 349 748", "046 349 749"]),
            (ch_ahv, &["756.8219.4482.02"], &["756.8219.4482.03"]),
            (de_tax_id, &["17408329600", "20784159310"], &["17408329601"]),
            (ee_lt_code, &["49004069692"], &["49004069693"]),
            (fr_nir, &["2 94 03 70 516 024 64", "291047254059051"], &["291047254059052"]),
            (hr_oib, &["17088865696"], &["17088865697"]),
            (luhn_digit, &["352367944018883"], &["352367944018884"]),
            (in_aadhaar, &["3277 9365 1758"], &["3277 9365 1759"]),
            (it_vat, &["07201836835"], &["07201836836"]),
            (kr_rrn_checked, &["6109262624649", "9608135702335"], &["6109262624648", "9608135702336"]),
            (kr_citizen, &["610926-2624649"], &["040926-2624649", "610926-6624649"]),
            (kr_rrn, &["610926-2624649"], &["611326-2624649"]),
            (nl_bsn, &["266299866"], &["266299867"]),
            (no_fnr, &["15056832103"], &["15056832104"]),
            (npi, &["1278055045"], &["1278055046"]),
            (pl_pesel, &["49010861319"], &["49010861318"]),
            (pt_nif, &["246325453"], &["246325452"]),
            (ro_cnp, &["1521015254687"], &["1521015254688"]),
            (se_personnummer, &["870105-5678", "194611188212"], &["870105-5679", "870230-5670"]),
            (se_organisation, &["556120-1699"], &["556120-1698"]),
            (th_id, &["1126629302220"], &["1126629302221"]),
            (tr_id, &["76302456654"], &["76302456655"]),
            (uk_nhs, &["954 763 8203"], &["954 763 8204"]),
            (za_id, &["8705014611087"], &["8705014611086"]),
            (itin, &["934-72-4418"], &["934-89-4418"]),
        ];
        for (check, valid, invalid) in cases {
            table(*check, valid, invalid);
        }
    }

    #[test]
    fn a_piece_of_something_longer_is_no_identifier() {
        assert_eq!(judge(tr_id, "a716-76302456654", "76302456654"), None);
        assert_eq!(judge(tr_id, "76302456654-4", "76302456654"), None);
        assert_eq!(judge(tr_id, "0.76302456654", "76302456654"), None);
        assert!(judge(tr_id, "id: 76302456654.", "76302456654").is_some());
    }

    #[test]
    fn a_piece_of_a_list_is_no_identifier() {
        for line in ["7 650 349 749", "650 349 749 12", "AB12 650 349 749", "650 349 749 A1"] {
            assert_eq!(judge(ca_sin, line, "650 349 749"), None, "{line}");
        }
        for line in ["sin 650 349 749 ok", "10:00:00 650 349 749", "2026-11-20 650 349 749, 7"] {
            assert!(judge(ca_sin, line, "650 349 749").is_some(), "{line}");
        }
    }

    #[test]
    fn seconds_since_1970_are_no_provider_without_context() {
        table(npi_alone, &["1278055045"], &["1790000009", "1790000017", "2312714761"]);
    }
}

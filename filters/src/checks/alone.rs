//! Texts that are nothing but one value: there are no words around it that could say what it is, so any authority's form counts.

use std::ops::Range;

use super::{Check, digits, lettered};

/// The forms of numbers of so many digits.
fn forms(digits: usize) -> &'static [Check] {
    match digits {
        9 => &[digits::aba, digits::au_tfn, digits::au_acn, digits::de_lanr, digits::itin],
        10 => &[digits::npi_alone, digits::au_medicare],
        11 => &[digits::de_tax_id_alone, digits::it_vat, digits::pl_pesel],
        12 => &[digits::in_aadhaar, digits::se_personnummer],
        13 => &[digits::th_id_alone, digits::kr_citizen],
        _ => &[],
    }
}

/// A number that some authority's check digit allows.
pub(super) fn number(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let count = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    if text.contains(&b'-') {
        return digits::aba(line, span);
    }
    forms(count).iter().find_map(|form| form(line, span.clone()))
}

/// A document's number: of nine characters those with the check digit of passports, or eight digits behind a T; longer ones by form.
pub(super) fn document(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    if text.len() == 9 { lettered::document(line, span) } else { Some(span) }
}

/// A telephone number of Turkey without its zero, or a Chinese mobile number: an area or a network that there is.
pub(super) fn phone(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let even = |byte: u8| (byte - b'0').is_multiple_of(2);
    match *text {
        [b'5', b'0'..=b'5', ..] if text.len() == 10 => Some(span),
        [b'2'..=b'4', b'1'..=b'8', third, ..] if text.len() == 10 && even(third) => Some(span),
        [b'1', b'3'..=b'9', ..] if text.len() == 11 => Some(span),
        _ => None,
    }
}

/// A number plate: of its digits not all are zero.
pub(super) fn plate(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let mut digits = text.iter().filter(|byte| byte.is_ascii_digit());
    digits.any(|digit| *digit != b'0').then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn any_authority_s_check_digit_is_enough() {
        table(
            number,
            &[
                "129052434",
                "1290-5243-4",
                "889719290",
                "152451995",
                "661488834",
                "1278055045",
                "4501549991",
                "17408329600",
                "07201836835",
                "49010861319",
                "327793651758",
                "194611188212",
                "1126629302220",
                "6109262624640",
            ],
            &["528014401", "1278055046", "17408329601", "327793651759", "1126629302221", "1765000000003"],
        );
    }

    #[test]
    fn documents_have_their_check_digit_and_plates_a_digit() {
        table(document, &["WT42H3100", "T40218837", "HN40218837K"], &["WT42H3101", "A40218837"]);
        table(phone, &["5550104217", "3125550142", "13800550142"], &["3135550142", "6125550142"]);
        table(plate, &["HN KR 402"], &["HN KR 0"]);
    }
}

//! Validators: what a match must satisfy beyond its pattern. One kind per file, with its table of cases.
//!
//! A check sees the line and the span of the candidate, so that it can look at the neighbours too, and answers with the span
//! that is really meant (a pattern may have taken too much) or with nothing.

/// Checks by name, each with what its `judged` asks of the candidate's characters.
macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident: $valid:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
            judged(line, span, $valid)
        })*
    };
}

mod alone;
mod card;
mod coordinates;
mod digits;
mod dotted;
mod flag_value;
mod iban;
mod ipv6;
mod lettered;
mod mac;
mod phone;
mod secret_shape;
mod secret_value;
mod slack;
mod ssn;
mod token;
mod wallet;

use std::ops::Range;

/// A validator.
pub(crate) type Check = fn(line: &[u8], span: Range<usize>) -> Option<Range<usize>>;

/// Every validator by the name that rules use.
const CHECKS: &[(&str, Check)] = &[
    ("aba", digits::aba),
    ("alone", digits::alone),
    ("alone_lettered", lettered::alone_lettered),
    ("au_abn", digits::au_abn),
    ("au_acn", digits::au_acn),
    ("au_medicare", digits::au_medicare),
    ("au_tfn", digits::au_tfn),
    ("base58", wallet::check_base58),
    ("be_nrn", digits::be_nrn),
    ("bech32", wallet::check_bech32),
    ("br_cnpj", lettered::br_cnpj),
    ("br_cpf", digits::br_cpf),
    ("ca_sin", digits::ca_sin),
    ("card", card::check),
    ("ch_ahv", digits::ch_ahv),
    ("cl_rut", lettered::cl_rut),
    ("cn_id", lettered::cn_id),
    ("coordinates", coordinates::check),
    ("de_health_insurance", lettered::de_health_insurance),
    ("de_lanr", digits::de_lanr),
    ("de_pension", lettered::de_pension),
    ("de_tax_id", digits::de_tax_id),
    ("dea", lettered::dea),
    ("dk_cpr", digits::dk_cpr),
    ("document", lettered::document),
    ("document_alone", alone::document),
    ("ee_lt_code", digits::ee_lt_code),
    ("es_nif", lettered::es_nif),
    ("fi_hetu", lettered::fi_hetu),
    ("flag_value", flag_value::check),
    ("fr_nir", digits::fr_nir),
    ("hr_oib", digits::hr_oib),
    ("iban", iban::check),
    ("in_aadhaar", digits::in_aadhaar),
    ("ipv4", dotted::check),
    ("ipv6", ipv6::check),
    ("it_fiscal_code", lettered::it_fiscal_code),
    ("it_vat", digits::it_vat),
    ("itin", digits::itin),
    ("kr_brn", digits::kr_brn),
    ("kr_rrn", digits::kr_rrn),
    ("kr_rrn_checked", digits::kr_rrn_checked),
    ("luhn", digits::luhn_digit),
    ("mac", mac::check),
    ("nl_bsn", digits::nl_bsn),
    ("no_fnr", digits::no_fnr),
    ("npi", digits::npi),
    ("number_alone", alone::number),
    ("phone", phone::check),
    ("phone_alone", alone::phone),
    ("phone_national", phone::check_national),
    ("pl_pesel", digits::pl_pesel),
    ("plate_alone", alone::plate),
    ("pt_nif", digits::pt_nif),
    ("ro_cnp", digits::ro_cnp),
    ("se_organisation", digits::se_organisation),
    ("se_personnummer", digits::se_personnummer),
    ("secret_shape", secret_shape::check),
    ("secret_value", secret_value::check),
    ("slack", slack::check),
    ("ssn", ssn::check),
    ("ssn_digits", digits::ssn_digits),
    ("th_id", digits::th_id),
    ("token", token::check),
    ("token_crc62", token::check_crc62),
    ("token_mixed", token::check_mixed),
    ("token_three", token::check_three),
    ("tr_id", digits::tr_id),
    ("uk_nhs", digits::uk_nhs),
    ("uk_nino", lettered::uk_nino),
    ("vin", lettered::vin),
    ("with_digit", lettered::with_digit),
    ("za_id", digits::za_id),
];

/// The validator of this name.
pub(crate) fn by_name(name: &str) -> Option<Check> {
    CHECKS.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

/// Whether a check could accept a value that starts at `at`, by what stands before it.
pub(crate) type Gate = fn(line: &[u8], at: usize) -> bool;

/// Checks that are asked before a match is looked for, since they refuse most starts of some texts by what stands before them.
const GATES: &[(&str, Gate)] = &[("ipv4", dotted::may_begin), ("ipv6", ipv6::may_begin)];

/// What may be asked before the check of this name.
pub(crate) fn gate(name: &str) -> Option<Gate> {
    GATES.iter().find(|(known, _)| *known == name).map(|(_, gate)| *gate)
}

/// The names a rule may use.
pub(crate) fn names() -> String {
    CHECKS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The byte before `at`.
fn before(line: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| line.get(at)).copied()
}

/// The two bytes before `at`, nearest first.
fn two_before(line: &[u8], at: usize) -> (Option<u8>, Option<u8>) {
    (before(line, at), at.checked_sub(1).and_then(|at| before(line, at)))
}

/// The two bytes from `at` on.
fn two_from(line: &[u8], at: usize) -> (Option<u8>, Option<u8>) {
    (line.get(at).copied(), line.get(at + 1).copied())
}

fn is_digit(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_digit())
}

/// Whether a group of one to `most` hexadecimal digits, and no longer word, ends before `at`. `mac` before a colon is none.
fn hex_group_before(line: &[u8], at: usize, most: usize) -> bool {
    let head = line.get(..at).unwrap_or(&[]);
    let digits = head.iter().rev().take(most + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    (1..=most).contains(&digits) && !is_word(before(line, at - digits))
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether the span goes on as a longer dotted or dashed number, on either side.
fn is_part_of_longer_number(line: &[u8], span: &Range<usize>, joints: &[u8]) -> bool {
    let joint = |byte: Option<u8>| byte.is_some_and(|byte| joints.contains(&byte));
    let (last, earlier) = two_before(line, span.start);
    let (next, later) = two_from(line, span.end);
    (joint(last) && is_digit(earlier)) || (joint(next) && is_digit(later))
}

#[cfg(test)]
fn judge(check: Check, line: &str, part: &str) -> Option<String> {
    let start = line.find(part).unwrap();
    let span = check(line.as_bytes(), start..start + part.len())?;
    line.get(span).map(str::to_owned)
}

#[cfg(test)]
fn table(check: Check, valid: &[&str], invalid: &[&str]) {
    for text in valid {
        assert_eq!(judge(check, text, text).as_deref(), Some(*text), "{text} is valid");
    }
    for text in invalid {
        assert_eq!(judge(check, text, text), None, "{text} is not");
    }
}

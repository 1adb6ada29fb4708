//! The value of a key such as `token` or `api_key`, which holds words and numbers as often as secrets: judged by its shape.
//!
//! A secret mixes letters and digits, or letters of both cases, without the structure of words. Identifiers, paths, class names, dates,
//! numbers and addresses have one.

use std::ops::Range;

use super::secret_value::is_placeholder;
use super::token::{PLACEHOLDER_BYTES_MAX, is_filled};

/// The shortest random text that is worth a name, in bytes.
const BYTES_MIN: usize = 6;

/// From this length on letters followed by digits are no name such as `sha256`, in bytes.
const WORD_BYTES_MAX: usize = 8;

/// The shortest that has no digits, in bytes: words are shorter.
const LETTERS_MIN: usize = 16;

/// How far before the value its key is looked for, in bytes.
const KEY_BYTES: usize = 48;

/// Keys under which a UUID is a secret and no mere name of something.
const CERTAIN: &[&str] = &[
    "api", "access", "auth", "refresh", "secret", "session", "private", "signing", "encrypt", "bearer",
    "licen", "id_token", "client",
];

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let ends_words = |byte: &u8| matches!(byte, b'.' | b'-' | b'%' | b'~' | b'!' | b'_' | b'/' | b'+');
    let text = line.get(span.clone())?;
    let kept = text.len() - text.iter().rev().take_while(|byte| ends_words(byte)).count();
    let text = text.get(..kept)?;
    let span = span.start..span.start + kept;
    if text.len() > PLACEHOLDER_BYTES_MAX {
        return widen(line, span);
    }
    if text.is_empty() || is_placeholder(text) || is_filled(text) {
        return None;
    }
    if text.iter().all(u8::is_ascii_digit) {
        return (text.len() >= 5 && is_number_of_token(line.get(..span.start)?)).then_some(span);
    }
    if text.len() < BYTES_MIN || has_structure(text) {
        return None;
    }
    let is_certain = || {
        let key =
            line.get(span.start.saturating_sub(KEY_BYTES)..span.start).unwrap_or(&[]).to_ascii_lowercase();
        CERTAIN.iter().any(|word| key.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    if is_uuid(text) {
        return is_certain().then_some(span);
    }
    if text.split(|byte| !byte.is_ascii_alphanumeric()).any(is_random) || (is_mixed(text) && is_certain()) {
        return widen(line, span);
    }
    None
}

/// Over what follows without a break: a secret may have characters that others do not. `ns:TypeName` is a name.
fn widen(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let goes_on = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'_' | b'+' | b'/' | b'=' | b'.' | b'~' | b'%' | b':' | b'|' | b'$' | b'*' | b'!'
            )
            || matches!(byte, b'@' | b'#' | b'^' | b'-')
    };
    let rest = line.get(span.end..)?;
    let more = rest.iter().take_while(|byte| goes_on(byte)).count();
    match rest.get(..more)? {
        [b':', name @ ..] if !name.is_empty() && name.iter().all(u8::is_ascii_alphabetic) => None,
        _ => Some(span.start..span.end + more),
    }
}

/// Whether what stands before is exactly the key `"token":` of JSON: a number there is a code that opens something.
fn is_number_of_token(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let Some((b':', before)) = before.split_last() else { return false };
    let Some((b'"', before)) = before.trim_ascii_end().split_last() else { return false };
    let slashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    let before = before.get(..before.len() - slashes).unwrap_or(&[]);
    before.len().checked_sub(6).and_then(|at| before.get(at..)).is_some_and(|key| {
        let (quote, word) = key.split_at(1);
        quote == b"\"" && word.eq_ignore_ascii_case(b"token")
    })
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| {
            if matches!(at, 8 | 13 | 18 | 23) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
        })
}

/// Addresses, paths, dates, pointers, numbers with a unit.
fn has_structure(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let address = text.windows(3).any(|part| part == b"://");
    let path = matches!(text.first(), Some(b'/' | b'~' | b'.'))
        && (digits < 2 || text.iter().filter(|byte| **byte == b'/').count() >= 2);
    let date = text.len() >= 10
        && text
            .iter()
            .take(10)
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() });
    let pointer = text
        .strip_prefix(b"0x")
        .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_hexdigit));
    let unit = text.iter().rev().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'%').count();
    let number = unit <= 3
        && text
            .iter()
            .rev()
            .skip(unit)
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'_' | b'-'));
    address || path || date || pointer || number
}

/// Whether a run of letters and digits is no word and no number.
fn is_random(run: &[u8]) -> bool {
    let digits = run.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = run.len() - digits;
    let pairs = |wanted: fn(u8, u8) -> bool| {
        run.windows(2).filter(|pair| matches!(pair, &&[one, next] if wanted(one, next))).count()
    };
    if digits > 0 {
        let turns = pairs(|one, next| one.is_ascii_digit() != next.is_ascii_digit());
        return letters > 0
            && run.len() >= BYTES_MIN
            && (turns >= 2 || (run.len() >= WORD_BYTES_MAX && digits >= 3 && letters >= 3));
    }
    // `TokenAuthenticationFilter` has a capital every five letters or so, random text one in four.
    let humps = pairs(|one, next| one.is_ascii_lowercase() && next.is_ascii_uppercase());
    let vowels = run.iter().filter(|byte| b"aeiou".contains(&byte.to_ascii_lowercase())).count();
    run.len() >= LETTERS_MIN && (4 * humps >= run.len() || (run.len() >= 24 && 5 * vowels < run.len()))
}

/// Whether a text without the joints of names mixes three kinds of characters, or capitals among small letters as no name does. Under a
/// key that names a secret this is enough.
fn is_mixed(text: &[u8]) -> bool {
    if text.len() < WORD_BYTES_MAX || text.iter().any(|byte| matches!(byte, b'.' | b'/' | b'_' | b'-' | b'='))
    {
        return false;
    }
    let count = |kind: fn(&u8) -> bool| text.iter().filter(|byte| kind(byte)).count();
    let (small, capitals) = (count(u8::is_ascii_lowercase), count(u8::is_ascii_uppercase));
    let kinds = [small, capitals, count(u8::is_ascii_digit), count(u8::is_ascii_punctuation)];
    let humps = text
        .windows(2)
        .filter(|pair| matches!(pair, [one, next] if one.is_ascii_lowercase() && next.is_ascii_uppercase()))
        .count();
    kinds.iter().filter(|kind| **kind > 0).count() >= 3
        || (humps >= 2 && (4 * humps >= text.len() || 3 * capitals >= text.len()))
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn what_looks_random_is_a_secret_and_what_has_structure_is_not() {
        table(
            check,
            &[
                "abc123def",
                "abcd1234",
                "JqRtXwPzBcNvKgHsLmDf",
                "0123456789abcdef0123456789abcdef",
                "sm_pat_2hwg9kai54",
            ],
            &[
                "expired",
                "4096",
                "123456",
                "com.example.TokenFilter",
                "SimpleTokenAuthenticationProvider",
                "bearer_token",
                "/var/run/secrets/token",
                "2026-11-26T10:11:12Z",
                "0x14f05578bd80001",
                "1.2.3",
                "30s",
                "user_2",
                "sha256",
                "01234567-89ab-cdef-0123-456789abcdef",
                "xxxxxxxxxxxx",
                "my-token-name",
                "https://example.org/a1b2c3d4",
            ],
        );
    }

    #[test]
    fn the_key_decides_over_uuids_and_numbers() {
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        assert!(judge(check, &format!("api_key={uuid}"), uuid).is_some());
        assert!(judge(check, &format!("request token: {uuid}"), uuid).is_none());
        for random in ["kvFpUwyjGQatdWV", "KrXCOhMh4", "mX**05bb9", "fmIkvMgK"] {
            assert!(judge(check, &format!("api_key={random}"), random).is_some(), "{random}");
            assert!(judge(check, &format!("my token={random}"), random).is_none(), "{random}");
        }
        for name in ["getApiKey", "configService", "XMLHttpRequest", "orders-db1", "secretName"] {
            assert!(judge(check, &format!("api_key={name}"), name).is_none(), "{name}");
        }
        assert!(judge(check, "{\"token\": 123456}", "123456").is_some());
        assert!(judge(check, "{\"max_token\": 123456}", "123456").is_none());
    }

    #[test]
    fn all_of_a_secret_goes_and_a_qualified_name_stays() {
        assert_eq!(judge(check, "token=a1b2c3:d4", "a1b2c3").as_deref(), Some("a1b2c3:d4"));
        assert_eq!(judge(check, "token=a1b2c3d4.", "a1b2c3d4.").as_deref(), Some("a1b2c3d4."));
        assert_eq!(judge(check, "token=clm98727:TypeName", "clm98727"), None);
    }
}

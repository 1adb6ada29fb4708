//! Context: words before a value that say what it is.
//!
//! `npi` in `provider_npi=1234567893` makes ten digits a provider's number. Context raises what is known of a value, or is asked
//! for where a value has no form of its own; it never cancels a finding.
//!
//! What always holds: a search reads [`CONTEXT_BYTES`] before the value and one byte more, whatever stands there, and only for
//! values that passed their rule's validator.

use crate::limits::CONTEXT_BYTES;
use crate::scan::bytes::ByteSet;

/// Words of which one stands before a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    words: Vec<Vec<u8>>,
    /// The bytes that a word may begin with, letters in either case.
    first: ByteSet,
}

impl Context {
    /// Nothing for a rule that names no words. `words` are in lower case, a space stands for any joint of two words.
    pub(crate) fn new(words: &[String]) -> Option<Context> {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let mut first = ByteSet::default();
        for byte in words.iter().filter_map(|word| word.first()) {
            first.insert(*byte);
            first.insert(byte.to_ascii_uppercase());
        }
        (!words.is_empty()).then_some(Context { words, first })
    }

    /// Where the nearest of the words before `at` starts.
    pub(crate) fn before(&self, line: &[u8], at: usize) -> Option<usize> {
        let from = at.saturating_sub(CONTEXT_BYTES);
        let may_begin = |start: &usize| line.get(*start).is_some_and(|byte| self.first.holds(*byte));
        let starts = (from..at).rev().filter(|start| may_begin(start) && begins_word(line, *start));
        starts.into_iter().find(|start| self.words.iter().any(|word| stands_at(line, *start, at, word)))
    }

    /// Whether a part of one of the words, which was found at `start`, may be a part of that word. Of several words that belong
    /// together only one was found: they are not looked at here.
    pub(crate) fn may_stand_at(&self, line: &[u8], start: usize) -> bool {
        let may = |word: &Vec<u8>| {
            word.contains(&b' ') || begins_word(line, start) && stands_at(line, start, line.len(), word)
        };
        self.words.iter().any(may)
    }
}

/// Which of `words` stands at `start`, before `limit`: the longest, where one begins another.
pub(crate) fn word_at<'a>(words: &'a [String], line: &[u8], start: usize, limit: usize) -> Option<&'a str> {
    let stands = |word: &&String| begins_word(line, start) && stands_at(line, start, limit, word.as_bytes());
    words.iter().filter(stands).max_by_key(|word| word.len()).map(String::as_str)
}

/// Whether no longer word reaches over `start` from the left: `npi` does in `unpick`, and not in `the_npi` or `theNpi`.
fn begins_word(line: &[u8], start: usize) -> bool {
    let last = start.checked_sub(1).and_then(|at| line.get(at)).copied().unwrap_or(b' ');
    let first = line.get(start).copied().unwrap_or(b' ');
    first != b' '
        && (!last.is_ascii_alphabetic() || (last.is_ascii_lowercase() && first.is_ascii_uppercase()))
}

/// Whether `word` stands at `start`, before `limit`, and is no part of a longer word to the right.
fn stands_at(line: &[u8], start: usize, limit: usize, word: &[u8]) -> bool {
    let mut at = start;
    let byte_at = |at: usize| if at < limit { line.get(at).copied() } else { None };
    for wanted in word {
        let found = byte_at(at);
        if *wanted == b' ' {
            at += usize::from(matches!(found, Some(b' ' | b'_' | b'-' | b'.' | b'+')));
            continue;
        }
        if found.map(|byte| byte.to_ascii_lowercase()) != Some(*wanted) {
            return false;
        }
        at += 1;
    }
    let last = at.checked_sub(1).and_then(byte_at).unwrap_or(b' ');
    // Words such as `cc` are pieces of hexadecimal numbers more often.
    let digit_before = start.checked_sub(1).and_then(byte_at).is_some_and(|byte| byte.is_ascii_digit());
    let digit_behind = byte_at(at).is_some_and(|byte| byte.is_ascii_digit());
    if (digit_before || digit_behind) && word.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    match byte_at(at) {
        Some(next) if next.is_ascii_alphabetic() => {
            !last.is_ascii_alphabetic() || (last.is_ascii_lowercase() && next.is_ascii_uppercase())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str], text: &str) -> Option<usize> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Context::new(&words).unwrap().before(text.as_bytes(), text.find('7').unwrap_or(text.len()))
    }

    #[test]
    fn the_word_that_stands_before_a_value_is_named() {
        let words = ["card", "card number"].map(str::to_owned);
        assert_eq!(word_at(&words, b"my card: 7", 3, 9), Some("card"));
        assert_eq!(word_at(&words, b"my cardNumber: 7", 3, 15), Some("card number"));
        assert_eq!(word_at(&words, b"my Card_Number: 7", 3, 16), Some("card number"));
        assert_eq!(word_at(&words, b"my discard 7", 6, 11), None);
    }

    #[test]
    fn a_word_is_found_in_every_writing_of_names() {
        for (text, start) in [
            ("npi 7", 0),
            ("the NPI: 7", 4),
            ("provider_npi=7", 9),
            ("providerNpi=7", 8),
            ("npiNumber=7", 0),
            ("npi-number=7", 0),
            ("npi7", 0),
            ("provider id 7", 0),
            ("provider_id 7", 0),
            ("x.providerId 7", 2),
            ("providerid 7", 0),
            ("npi, then npi 7", 10),
        ] {
            assert_eq!(found(&["npi", "provider id"], text), Some(start), "{text}");
        }
        for text in ["unpick 7", "npis 7", "snpi 7", "7 npi", "provider  id 7", "provider", "np7i"] {
            assert_eq!(found(&["npi", "provider id"], text), None, "{text}");
        }
        assert_eq!(found(&["cc", "aba"], "id=14cc6fb0-3aba f 7"), None);
        assert_eq!(found(&["cc"], "cc: 7"), Some(0));
        assert_eq!(found(&["번호"], "주민번호는 7"), Some(6));
    }

    #[test]
    fn a_word_too_far_away_does_not_count() {
        let text = |gap: usize| format!("npi{}7", " ".repeat(gap));
        assert_eq!(found(&["npi"], &text(CONTEXT_BYTES - 3)), Some(0));
        assert_eq!(found(&["npi"], &text(CONTEXT_BYTES - 2)), None);
    }
}

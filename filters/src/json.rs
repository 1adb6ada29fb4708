//! JSON lines: what is rewritten stays valid.
//!
//! Inside a string a marker needs nothing. A bare value, such as a number, is replaced whole and gets quotes. Whether a
//! position is inside a string is counted from the line's start, and only in lines that start like JSON.

use std::ops::Range;

/// Whether a line starts like a JSON object or array.
pub(crate) fn starts_like_json(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Walks a line from left to right, and knows whether it is inside a string.
pub(crate) struct Strings {
    at: usize,
    inside: bool,
}

impl Strings {
    pub(crate) fn new() -> Strings {
        Strings { at: 0, inside: false }
    }

    /// Whether `at` is inside a string; `at` never falls from call to call.
    fn inside(&mut self, line: &[u8], at: usize) -> bool {
        while self.at < at {
            match line.get(self.at) {
                Some(b'\\') if self.inside => self.at += 1,
                Some(b'"') => self.inside = !self.inside,
                Some(_) => {}
                None => break,
            }
            self.at += 1;
        }
        self.inside
    }

    /// The bare value that holds `span`, if `span` is not inside a string: it is to be replaced whole, in quotes.
    pub(crate) fn bare_value(&mut self, line: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
        if self.inside(line, span.start) {
            return None;
        }
        let whole = line.get(span.clone())?;
        if matches!((whole.first(), whole.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))) {
            // All of an object or array, as only field rules find it.
            return (span.start > 0).then(|| span.clone());
        }
        let bare = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'))
        };
        let (mut start, mut end) = (span.start, span.end);
        while start > 0 && bare(line.get(start - 1)) {
            start -= 1;
        }
        while bare(line.get(end)) {
            end += 1;
        }
        let before = line.get(..start)?.trim_ascii_end().last();
        let behind = line.get(end..)?.trim_ascii_start().first();
        let token = line.get(start..end)?;
        let number = token
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
        if !number && !matches!(token, b"true" | b"false" | b"null") {
            return None;
        }
        let value =
            matches!(before, Some(b':' | b',' | b'[')) && matches!(behind, Some(b',' | b'}' | b']') | None);
        value.then_some(start..end)
    }
}

/// The span grown so that it cuts no escape sequence: `\nbob@...` is found as `nbob@...`, and goes with its backslash.
pub(crate) fn whole_escapes(line: &[u8], span: &Range<usize>) -> Range<usize> {
    let at = |index: usize| line.get(index).copied();
    // The backslashes that end before `end`.
    let run =
        |end: usize| line.get(..end).unwrap_or(&[]).iter().rev().take_while(|byte| **byte == b'\\').count();
    let (mut start, mut end) = (span.start, span.end);
    // Inside `\uXXXX`, of which `u` and up to three digits stand before the span.
    for back in 1..=4 {
        let Some(u) = start.checked_sub(back) else { break };
        let digits = line.get(u + 1..start).unwrap_or(&[]);
        if at(u) == Some(b'u') && run(u) > 0 && digits.iter().all(u8::is_ascii_hexdigit) {
            start = u;
            break;
        }
    }
    start -= run(start);
    if run(end) % 2 == 1 {
        end += if at(end) == Some(b'u') { 5 } else { 1 };
    } else {
        for back in 1..=4 {
            let Some(u) = end.checked_sub(back).filter(|u| *u >= start) else { break };
            if at(u) == Some(b'u') && run(u) % 2 == 1 {
                end = u + 5;
                break;
            }
        }
    }
    start..end.min(line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(line: &str, part: &str) -> Option<String> {
        let start = line.find(part).unwrap();
        let span = start..start + part.len();
        Strings::new().bare_value(line.as_bytes(), &span).and_then(|span| line.get(span).map(str::to_owned))
    }

    #[test]
    fn escape_sequences_are_taken_whole() {
        let grown = |line: &str, part: &str| {
            let start = line.find(part).unwrap();
            line.get(whole_escapes(line.as_bytes(), &(start..start + part.len()))).unwrap().to_owned()
        };
        assert_eq!(grown(r#"{"a":"\nbob@x.y"}"#, "nbob@x.y"), r"\nbob@x.y");
        assert_eq!(grown(r#"{"a":"\u0000bob@x.y"}"#, "u0000bob@x.y"), r"\u0000bob@x.y");
        assert_eq!(grown(r#"{"a":"\u00e9bob@x.y"}"#, "9bob@x.y"), r"\u00e9bob@x.y");
        assert_eq!(grown(r#"{"a":"\\\\nbob@x.y"}"#, "nbob@x.y"), r"\\\\nbob@x.y");
        assert_eq!(grown(r#"{"a":"ab\u00e9"}"#, r"ab\u0"), r"ab\u00e9");
        assert_eq!(grown(r#"{"a":"ab\\u00e9"}"#, r"ab\\u0"), r"ab\\u0");
        assert_eq!(grown(r#"{"a":"ab\n"}"#, r"ab\"), r"ab\n");
        assert_eq!(grown(r#"{"a":"yu12"}"#, "12"), "12");
    }

    #[test]
    fn numbers_are_bare_and_strings_are_not() {
        assert_eq!(bare(r#"{"card": 4111, "x": 1}"#, "4111").as_deref(), Some("4111"));
        assert_eq!(bare(r#"[-4111.5]"#, "4111").as_deref(), Some("-4111.5"));
        assert_eq!(bare(r#"{"card":"4111"}"#, "4111"), None);
        assert_eq!(bare(r#"{"a\"b":"c:4111,"}"#, "4111"), None);
        assert_eq!(bare("{not json} 4111 x", "4111"), None);
        assert_eq!(bare("[2001:db8::1]", "2001:db8::1"), None);
    }
}

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
        let value = matches!(before, Some(b':' | b',' | b'[')) && matches!(behind, Some(b',' | b'}' | b']') | None);
        value.then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(line: &str, part: &str) -> Option<String> {
        let start = line.find(part).unwrap();
        let span = start..start + part.len();
        Strings::new().bare_value(line.as_bytes(), &span).map(|span| line[span].to_owned())
    }

    #[test]
    fn numbers_are_bare_and_strings_are_not() {
        assert_eq!(bare(r#"{"card": 4111, "x": 1}"#, "4111").as_deref(), Some("4111"));
        assert_eq!(bare(r#"[-4111.5]"#, "4111").as_deref(), Some("-4111.5"));
        assert_eq!(bare(r#"{"card":"4111"}"#, "4111"), None);
        assert_eq!(bare(r#"{"a\"b":"c:4111,"}"#, "4111"), None);
        assert_eq!(bare("{not json} 4111 x", "4111"), None);
    }
}

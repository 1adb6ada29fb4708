//! Removing a field: where the field ends that holds a finding.
//!
//! In a line of JSON a member goes with its key and one comma, an element of an array with one comma; what is left is still JSON. In
//! logfmt, and in query strings, a pair goes with one separator. A header keeps its name and loses its value. What stands in no field
//! gets a marker.

use std::ops::Range;

use crate::limits::JSON_DEPTH_MAX;

/// A level of nesting in a JSON line.
#[derive(Clone, Debug, Default)]
struct Level {
    is_object: bool,
    /// The key of the member that is being read, with its quotes.
    key: Option<Range<usize>>,
}

/// Walks a line of JSON from left to right and knows in which field a position is.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    /// The token that holds the last position starts here.
    at: usize,
    levels: Vec<Level>,
    /// The string at `at`, if its end has been looked for.
    string: Option<Range<usize>>,
    too_deep: bool,
}

/// The end of the string that starts at `start`, behind its quote.
fn string_end(line: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = line.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    line.len()
}

fn skip_space(line: &[u8], at: usize) -> usize {
    at + line.get(at..).unwrap_or(&[]).iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

impl Walker {
    /// Goes to the token that holds `to`, which never falls from call to call.
    fn advance(&mut self, line: &[u8], to: usize) {
        while self.at < to {
            let Some(byte) = line.get(self.at) else { return };
            match byte {
                b'"' => {
                    let end = match &self.string {
                        Some(string) if string.start == self.at => string.end,
                        _ => string_end(line, self.at),
                    };
                    self.string = Some(self.at..end);
                    if end > to {
                        return;
                    }
                    let is_key = line.get(skip_space(line, end)) == Some(&b':');
                    if let Some(level) = self.levels.last_mut().filter(|level| level.is_object && is_key) {
                        level.key = Some(self.at..end);
                    }
                    self.at = end;
                }
                b'{' | b'[' => {
                    self.too_deep |= self.levels.len() >= JSON_DEPTH_MAX;
                    if !self.too_deep {
                        self.levels.push(Level { is_object: *byte == b'{', key: None });
                    }
                    self.at += 1;
                }
                b'}' | b']' => {
                    self.levels.pop();
                    self.at += 1;
                }
                b',' => {
                    if let Some(level) = self.levels.last_mut() {
                        level.key = None;
                    }
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// The keys above `at`, outermost first, without their quotes; nothing if that cannot be said.
    pub(crate) fn path<'a>(&mut self, line: &'a [u8], at: usize) -> Option<Vec<&'a [u8]>> {
        self.advance(line, at);
        if self.too_deep || self.levels.is_empty() {
            return None;
        }
        let keys = self.levels.iter().filter_map(|level| level.key.clone());
        keys.map(|key| line.get(key.start + 1..key.end.saturating_sub(1))).collect()
    }

    /// The field that holds `span`: a member with its key, or an element of an array.
    fn field(&mut self, line: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
        self.advance(line, span.start);
        let level = self.levels.last().filter(|_| !self.too_deep)?;
        let (start, end) = match line.get(self.at) {
            Some(b'"') if self.at < span.start => {
                let string = self.string.clone().filter(|string| string.start == self.at)?;
                (string.start, string.end)
            }
            Some(b'"') => (self.at, string_end(line, self.at)),
            _ => {
                let bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                let head = line.get(..span.start)?.iter().rev().take_while(|byte| bare(byte)).count();
                let tail = line.get(span.end..)?.iter().take_while(|byte| bare(byte)).count();
                (span.start - head, span.end + tail)
            }
        };
        let start = if level.is_object { level.key.as_ref()?.start } else { start };
        // A finding in a key itself goes with its value, which is not known here.
        let stands_well = matches!(line.get(skip_space(line, end)), Some(b',' | b'}' | b']'));
        (start <= span.start && span.end <= end && stands_well).then_some(start..end)
    }

    /// What to leave out so that the field of `span` is gone.
    pub(crate) fn removal(&mut self, line: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
        let field = self.field(line, span)?;
        let behind = skip_space(line, field.end);
        let end = if line.get(behind) == Some(&b',') { skip_space(line, behind + 1) } else { field.end };
        Some(field.start..end)
    }
}

/// The same in a line that is not JSON.
pub(crate) fn plain_removal(line: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
    let at = |index: usize| line.get(index).copied();
    let before = |index: usize| index.checked_sub(1).and_then(at);
    let (mut start, mut end) = (span.start, span.end);
    let quote = before(start).filter(|byte| matches!(byte, b'"' | b'\''));
    if quote.is_some() && at(end) == quote {
        (start, end) = (start - 1, end + 1);
    }
    if before(start) != Some(b'=') {
        // A header: its value goes.
        let name = line
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            .count();
        let value = skip_space(line, name + 1);
        let is_header = name > 0 && at(name) == Some(b':') && value <= span.start;
        return is_header.then_some(value..line.len());
    }
    start -= 1;
    let name = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']' | b'$' | b'@' | b'%')
    };
    let bytes = line.get(..start)?.iter().rev().take_while(|byte| name(byte)).count();
    if bytes == 0 {
        return None;
    }
    start -= bytes;
    match (before(start), at(end)) {
        (_, Some(b' ' | b'\t' | b'&' | b',' | b';')) => Some(start..end + 1),
        (Some(b' ' | b'\t' | b'&' | b',' | b';'), None | Some(b'"' | b'\'' | b')' | b']' | b'}')) => {
            Some(start - 1..end)
        }
        (_, None | Some(b'"' | b'\'' | b')' | b']' | b'}')) => Some(start..end),
        // More of the value follows.
        _ => None,
    }
}

/// Whether what was removed is a member or element of JSON.
pub(crate) fn is_whole_field(text: &[u8]) -> bool {
    !text.is_empty()
}

/// Cuts a comma that ends `out`, where the last member of an object went.
pub(crate) fn cut_comma(out: &mut Vec<u8>, from: usize) {
    let kept = out.get(from..).unwrap_or(&[]).trim_ascii_end();
    if let Some(kept) = kept.strip_suffix(b",") {
        out.truncate(from + kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(line: &str, part: &str) -> Option<String> {
        let start = line.find(part).unwrap();
        let span = start..start + part.len();
        let bytes = line.as_bytes();
        let gone = match line.starts_with(['{', '[']) {
            true => Walker::default().removal(bytes, &span)?,
            false => plain_removal(bytes, &span)?,
        };
        let mut out = bytes.get(..gone.start).unwrap().to_vec();
        if line.starts_with(['{', '[']) && matches!(bytes.get(skip_space(bytes, gone.end)), Some(b'}' | b']'))
        {
            cut_comma(&mut out, 0);
        }
        out.extend_from_slice(bytes.get(gone.end..).unwrap());
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_field_goes_with_its_key_and_one_separator() {
        for (line, part, wanted) in [
            (r#"{"a":"x V y","b":2}"#, "V", r#"{"b":2}"#),
            (r#"{"a":1, "b":"V"}"#, "V", r#"{"a":1}"#),
            (r#"{"b":"V"}"#, "V", "{}"),
            (r#"{"a":{"b":12},"c":3}"#, "12", r#"{"a":{},"c":3}"#),
            (r#"["a","V","c"]"#, "V", r#"["a","c"]"#),
            (r#"{"a":[1,22]}"#, "22", r#"{"a":[1]}"#),
            (r#"{"a,}\"":"V","c":3}"#, "V", r#"{"c":3}"#),
            (r#"{"m":"{\"k\":\"V\"}","c":3}"#, "V", r#"{"c":3}"#),
            ("a=1 k=V b=2", "V", "a=1 b=2"),
            ("a=1 k=\"V W\"", "V W", "a=1"),
            ("GET /?k=V&b=2", "V", "GET /?b=2"),
            ("GET /?b=2&k=V", "V", "GET /?b=2"),
            ("X-Phone: +1 V", "V", "X-Phone: "),
        ] {
            assert_eq!(removed(line, part).as_deref(), Some(wanted), "{line}");
        }
        assert_eq!(removed("call V now", "V"), None);
        assert_eq!(removed(r#"{"V":1}"#, "V"), None);
    }
}

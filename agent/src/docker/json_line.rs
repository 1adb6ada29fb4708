//! One record of a json-file log: `{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`.
//!
//! What always holds: pure bytes to values; text is unescaped straight into the caller's buffer, copying the runs between
//! backslashes; nothing is left in that buffer when a record is refused. Records of the shape that Docker writes are taken
//! apart from both ends; any other key order, `attrs`, or white space goes through a small general reader. What is glued to
//! a torn record is found behind it, and the damaged bytes are counted.

use beeacon_record::Stream;
use memchr::{memchr, memchr2, memmem, memrchr};

use super::time::TimeParser;

/// How deep a value may nest in a record that the general reader skips over. Docker's `attrs` has depth one.
const DEPTH_MAX: usize = 16;

/// What a record says beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The output it was written to.
    pub stream: Stream,
    /// When, in nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// Whether the text ended with a newline, which is not among the bytes appended: a piece without one is continued.
    pub ends_line: bool,
    /// How many bytes before the record were no record.
    pub damaged_bytes: usize,
    /// How many characters Docker had replaced because they were no UTF-8: they stand as `\ufffd` in the file.
    pub destroyed_characters: u32,
}

/// Reads records of one file.
#[derive(Clone, Debug, Default)]
pub struct LineParser {
    time: TimeParser,
}

impl LineParser {
    /// Reads one record, without the newline behind it, and appends its text to `text`. `None` when there is no record in
    /// `line`; `text` is as before then.
    ///
    /// ```
    /// use beeacon_agent::docker::json_line::LineParser;
    /// let mut text = Vec::new();
    /// let line = br#"{"log":"a \"b\"\n","stream":"stderr","time":"1970-01-01T00:00:01Z"}"#;
    /// let record = LineParser::default().parse(line, &mut text).unwrap();
    /// assert_eq!((text.as_slice(), record.ends_line), (b"a \"b\"".as_slice(), true));
    /// ```
    pub fn parse(&mut self, line: &[u8], text: &mut Vec<u8>) -> Option<Record> {
        let start = text.len();
        let found = self.parse_shape(line, text).or_else(|| {
            text.truncate(start);
            self.parse_general(line, text)
        });
        if found.is_some() {
            return found;
        }
        text.truncate(start);
        // A torn record or a hole, and perhaps a whole record glued to its end: the last place where one may start.
        for needle in [b"{\"log\":\"".as_slice(), b"{\"stream\":\"".as_slice()] {
            if let Some(at) = memmem::rfind(line, needle).filter(|at| *at > 0) {
                let rest = line.get(at..).unwrap_or(&[]);
                let found = self.parse_shape(rest, text).or_else(|| {
                    text.truncate(start);
                    self.parse_general(rest, text)
                });
                if let Some(record) = found {
                    return Some(Record { damaged_bytes: at, ..record });
                }
                text.truncate(start);
            }
        }
        None
    }

    /// The shape that Docker writes when a record has neither attributes nor an empty text.
    fn parse_shape(&mut self, line: &[u8], text: &mut Vec<u8>) -> Option<Record> {
        let rest = line.strip_prefix(b"{\"log\":\"")?.strip_suffix(b"\"}")?;
        let quote = memrchr(b'"', rest)?;
        let time = rest.get(quote + 1..)?;
        let rest = rest.get(..=quote)?;
        let (rest, stream) = match rest.strip_suffix(b"\",\"stream\":\"stdout\",\"time\":\"") {
            Some(rest) => (rest, Stream::Stdout),
            None => (rest.strip_suffix(b"\",\"stream\":\"stderr\",\"time\":\"")?, Stream::Stderr),
        };
        let timestamp_ns = self.time.parse(time)?;
        let destroyed_characters = unescape(rest, text)?;
        Some(finish(stream, timestamp_ns, destroyed_characters, text, !rest.is_empty()))
    }

    /// Any JSON object with `stream` and `time`.
    fn parse_general(&mut self, line: &[u8], text: &mut Vec<u8>) -> Option<Record> {
        let mut reader = Reader { rest: line };
        reader.spaces();
        reader.expect(b'{')?;
        let (mut stream, mut timestamp_ns, mut log) = (None, None, None);
        loop {
            reader.spaces();
            let key = reader.string()?;
            reader.spaces();
            reader.expect(b':')?;
            reader.spaces();
            match key {
                b"log" => log = Some(reader.string()?),
                b"stream" => {
                    stream = match reader.string()? {
                        b"stdout" => Some(Stream::Stdout),
                        b"stderr" => Some(Stream::Stderr),
                        _ => return None,
                    }
                }
                b"time" => timestamp_ns = Some(self.time.parse(reader.string()?)?),
                _ => reader.skip_value(0)?,
            }
            reader.spaces();
            match reader.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        reader.spaces();
        if !reader.rest.is_empty() {
            return None;
        }
        let (stream, timestamp_ns) = (stream?, timestamp_ns?);
        let log = log.unwrap_or(&[]);
        let destroyed_characters = unescape(log, text)?;
        Some(finish(stream, timestamp_ns, destroyed_characters, text, !log.is_empty()))
    }
}

/// Takes the newline off. `has_text` guards against taking a newline that an earlier line left in the buffer.
fn finish(stream: Stream, timestamp_ns: i64, destroyed: u32, text: &mut Vec<u8>, has_text: bool) -> Record {
    let ends_line = has_text && text.last() == Some(&b'\n');
    if ends_line {
        text.pop();
    }
    Record { stream, timestamp_ns, ends_line, damaged_bytes: 0, destroyed_characters: destroyed }
}

/// Appends the text of a JSON string's inside. `None` at a bare quote, a control character's NUL or an unknown escape: the
/// bytes are then no string that an encoder wrote. Gives how often `\ufffd` stood there.
fn unescape(mut inside: &[u8], text: &mut Vec<u8>) -> Option<u32> {
    let mut destroyed = 0;
    while let Some(at) = memchr2(b'\\', b'"', inside) {
        let (run, rest) = inside.split_at_checked(at)?;
        text.extend_from_slice(run);
        let (mark, rest) = rest.split_first()?;
        if *mark == b'"' {
            return None;
        }
        let (escape, rest) = rest.split_first()?;
        inside = rest;
        match escape {
            b'n' => text.push(b'\n'),
            b'"' | b'\\' | b'/' => text.push(*escape),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'u' => {
                let (unit, rest) = code_unit(inside)?;
                inside = rest;
                let (character, rest) = character(unit, inside);
                inside = rest;
                destroyed += u32::from(character == char::REPLACEMENT_CHARACTER);
                let mut buffer = [0; 4];
                text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            }
            _ => return None,
        }
    }
    // A hole of zeros is no text; any other raw control character is taken as it stands.
    if memchr(0, inside).is_some() {
        return None;
    }
    text.extend_from_slice(inside);
    Some(destroyed)
}

fn code_unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}

/// The character of a code unit, with the second half of a surrogate pair when it follows. A lone half becomes U+FFFD.
fn character(unit: u32, rest: &[u8]) -> (char, &[u8]) {
    if (0xd800..0xdc00).contains(&unit)
        && let Some(after) = rest.strip_prefix(b"\\u")
        && let Some((low, after)) = code_unit(after)
        && (0xdc00..0xe000).contains(&low)
    {
        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), after);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), rest)
}

/// Walks over JSON without building it.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// A string's inside, escapes and all.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let whole = self.rest;
        let mut from = 0;
        loop {
            let at = from + memchr2(b'\\', b'"', whole.get(from..)?)?;
            if whole.get(at) == Some(&b'"') {
                self.rest = whole.get(at + 1..)?;
                return whole.get(..at);
            }
            from = at + 2;
        }
    }

    fn skip_value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.rest.first()? {
            b'"' => self.string().map(|_| ()),
            open @ (b'{' | b'[') => {
                let (is_object, close) = (*open == b'{', if *open == b'{' { b'}' } else { b']' });
                self.next()?;
                self.spaces();
                if self.rest.first() == Some(&close) {
                    return self.next().map(|_| ());
                }
                loop {
                    self.spaces();
                    if is_object {
                        self.string()?;
                        self.spaces();
                        self.expect(b':')?;
                        self.spaces();
                    }
                    self.skip_value(depth + 1)?;
                    self.spaces();
                    match self.next()? {
                        b',' => {}
                        byte if byte == close => return Some(()),
                        _ => return None,
                    }
                }
            }
            _ => {
                let is_scalar =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                let end = self.rest.iter().position(|byte| !is_scalar(byte)).unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..)?;
                (end > 0).then_some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[u8]) -> Option<(String, Record)> {
        let mut text = b"before\n".to_vec();
        let record = LineParser::default().parse(line, &mut text);
        assert!(text.starts_with(b"before\n"), "earlier text was touched");
        if record.is_none() {
            assert_eq!(text, b"before\n");
        }
        record.map(|record| (String::from_utf8_lossy(&text[7..]).into_owned(), record))
    }

    #[test]
    fn every_escape_and_shape_is_read() {
        let time = "2023-08-30T12:34:56.5Z";
        let ns = 1_693_398_896_500_000_000;
        let table: &[(String, &str, Stream, bool)] = &[
            (
                format!(r#"{{"log":"plain\n","stream":"stdout","time":"{time}"}}"#),
                "plain",
                Stream::Stdout,
                true,
            ),
            (format!(r#"{{"log":"\n","stream":"stderr","time":"{time}"}}"#), "", Stream::Stderr, true),
            (
                format!(r#"{{"log":"piece","stream":"stdout","time":"{time}"}}"#),
                "piece",
                Stream::Stdout,
                false,
            ),
            (format!(r#"{{"stream":"stdout","time":"{time}"}}"#), "", Stream::Stdout, false),
            (format!(r#"{{"log":"","stream":"stdout","time":"{time}"}}"#), "", Stream::Stdout, false),
            (
                format!(r#"{{"log":"\"q\" \\ \/ \r\t\b\f\n","stream":"stdout","time":"{time}"}}"#),
                "\"q\" \\ / \r\t\u{8}\u{c}",
                Stream::Stdout,
                true,
            ),
            (
                format!(r#"{{"log":"\u0041\u00e9\u2028\u003c\n","stream":"stdout","time":"{time}"}}"#),
                "A\u{e9}\u{2028}<",
                Stream::Stdout,
                true,
            ),
            (
                format!(r#"{{"log":"\ud83d\udc1d\n","stream":"stdout","time":"{time}"}}"#),
                "\u{1f41d}",
                Stream::Stdout,
                true,
            ),
            (
                format!(r#"{{"log":"\ud83d!\n","stream":"stdout","time":"{time}"}}"#),
                "\u{fffd}!",
                Stream::Stdout,
                true,
            ),
            (
                format!(r#"{{"log":"\ud83d\u0041\n","stream":"stdout","time":"{time}"}}"#),
                "\u{fffd}A",
                Stream::Stdout,
                true,
            ),
            (
                format!(
                    r#"{{"log":"a\n","stream":"stdout","attrs":{{"tag":"x\"y","n":"1"}},"time":"{time}"}}"#
                ),
                "a",
                Stream::Stdout,
                true,
            ),
            (
                format!(
                    r#"{{ "time" : "{time}", "extra":[1,{{"a":null}}], "stream":"stderr", "log":"b\n" }}"#
                ),
                "b",
                Stream::Stderr,
                true,
            ),
            (
                format!(
                    r#"{{"log":"fake \",\"stream\":\"stderr\",\"time\":\"\n","stream":"stdout","time":"{time}"}}"#
                ),
                "fake \",\"stream\":\"stderr\",\"time\":\"",
                Stream::Stdout,
                true,
            ),
        ];
        for (line, text, stream, ends_line) in table {
            let (found, record) = read(line.as_bytes()).unwrap_or_else(|| panic!("{line} was refused"));
            assert_eq!(&found, text, "{line}");
            assert_eq!((record.stream, record.ends_line), (*stream, *ends_line), "{line}");
            assert_eq!((record.timestamp_ns, record.damaged_bytes), (ns, 0), "{line}");
        }
    }

    #[test]
    fn what_docker_destroyed_is_counted() {
        let (text, record) =
            read(br#"{"log":"\ufffd\ufffd ok\n","stream":"stdout","time":"2023-08-30T12:34:56Z"}"#).unwrap();
        assert_eq!((text.as_str(), record.destroyed_characters), ("\u{fffd}\u{fffd} ok", 2));
    }

    #[test]
    fn a_record_behind_damage_is_found_and_the_damage_counted() {
        let good = br#"{"log":"good\n","stream":"stdout","time":"2023-08-30T12:34:56Z"}"#;
        let empty = br#"{"stream":"stdout","time":"2023-08-30T12:34:56Z"}"#;
        let table: [&[u8]; 5] = [
            br#"{"log":"torn half"#,
            br#"{"log":"torn\n","stream":"stdo"#,
            br#"{"log":"torn\n","stream":"stdout","time":"2023-08-30T12:"#,
            b"\0\0\0\0\0\0\0\0",
            b"garbage }} ",
        ];
        for damage in table {
            for record in [good.as_slice(), empty.as_slice()] {
                let (_, found) = read(&[damage, record].concat()).unwrap();
                assert_eq!(found.damaged_bytes, damage.len(), "{}", String::from_utf8_lossy(damage));
            }
        }
    }

    #[test]
    fn what_holds_no_record_is_refused() {
        let table: [&[u8]; 10] = [
            b"",
            b"{",
            b"\0\0\0",
            b"plain text",
            br#"{"log":"a\n","stream":"stdin","time":"2023-08-30T12:34:56Z"}"#,
            br#"{"log":"a\n","stream":"stdout","time":"now"}"#,
            br#"{"log":"a\n","stream":"stdout"}"#,
            br#"{"log":"a\x","stream":"stdout","time":"2023-08-30T12:34:56Z"}"#,
            br#"{"log":"a\u12g4","stream":"stdout","time":"2023-08-30T12:34:56Z"}"#,
            br#"{"log":"a\n","stream":"stdout","time":"2023-08-30T12:34:56Z"} more"#,
        ];
        for line in table {
            assert!(read(line).is_none(), "{}", String::from_utf8_lossy(line));
        }
        let deep = format!(r#"{{"attrs":{},"stream":"stdout"}}"#, "[".repeat(100_000));
        assert!(read(deep.as_bytes()).is_none());
    }

    /// As dockerd's encoder writes a record.
    pub(crate) fn print(text: &str, stream: Stream, time: &str) -> Vec<u8> {
        let mut line = b"{".to_vec();
        if !text.is_empty() {
            line.extend_from_slice(b"\"log\":\"");
            for character in text.chars() {
                match character {
                    '"' => line.extend_from_slice(b"\\\""),
                    '\\' => line.extend_from_slice(b"\\\\"),
                    '\n' => line.extend_from_slice(b"\\n"),
                    '\r' => line.extend_from_slice(b"\\r"),
                    c if c < ' ' || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                        line.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                    }
                    c => line.extend_from_slice(c.to_string().as_bytes()),
                }
            }
            line.extend_from_slice(b"\",");
        }
        line.extend_from_slice(format!(r#""stream":"{}","time":"{time}"}}"#, stream.as_str()).as_bytes());
        line
    }

    proptest! {
        #[test]
        fn reading_what_was_printed_gives_it_back(
            text in any::<String>(), newline in any::<bool>(), stderr in any::<bool>(),
            seconds in 0i64..4_000_000_000, ns in 0i64..1_000_000_000,
        ) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let timestamp_ns = seconds * 1_000_000_000 + ns;
            let time = jiff::Timestamp::from_nanosecond(i128::from(timestamp_ns)).unwrap().to_string();
            let text = text.trim_end_matches('\n').to_owned();
            let written = if newline { format!("{text}\n") } else { text.clone() };
            let line = print(&written, stream, &time);
            let (found, record) = read(&line).unwrap();
            prop_assert_eq!(found, text);
            prop_assert_eq!((record.stream, record.timestamp_ns, record.ends_line), (stream, timestamp_ns, newline));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&line);
        }
    }
}

//! A line's severity from its first bytes.
//!
//! Cheap and pure. A named field (`level=warn`, `"severity":"ERROR"`, `"level":40`) decides before any bare word; then glog's
//! `E0102` or syslog's `<11>` at the start; then the first severity word that stands alone. Only of a JSON object that is longer
//! than what is looked at, and names no level there, the rest is searched for a field. A guess by nature: it never changes the
//! text.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::Span;
use aho_corasick::packed::Searcher;
use beeacon_record::Level;

/// How far into a line is looked, in bytes.
const LOOKED_AT_BYTES: usize = 160;

/// How much of a word or a name is searched for, in bytes: none is shorter.
const BEGINNING_BYTES: usize = 3;

/// Words, in lower case.
const WORDS: &[(&[u8], Level)] = &[
    (b"info", Level::Info),
    (b"error", Level::Error),
    (b"warn", Level::Warn),
    (b"debug", Level::Debug),
    (b"warning", Level::Warn),
    (b"trace", Level::Trace),
    (b"fatal", Level::Fatal),
    (b"notice", Level::Info),
    (b"critical", Level::Fatal),
    (b"panic", Level::Fatal),
    (b"err", Level::Error),
    (b"severe", Level::Error),
    (b"alert", Level::Fatal),
    (b"emergency", Level::Fatal),
    (b"crit", Level::Fatal),
    (b"emerg", Level::Fatal),
    (b"dbg", Level::Debug),
    (b"information", Level::Unknown),
];

/// Names of fields that hold a severity, in lower case.
const FIELDS: &[&[u8]] = &[
    b"level",
    b"severity",
    b"lvl",
    b"loglevel",
    b"log_level",
    b"levelname",
    b"severity_text",
    b"severitytext",
];

/// Fields of long JSON objects that are searched for behind what is looked at.
const FAR_FIELDS: [&[u8]; 3] = [b"\"level\"", b"\"severity\"", b"\"levelname\""];

/// The severity that a line states, or [`Level::Unknown`].
///
/// ```
/// use beeacon_agent::level::detect;
/// use beeacon_record::Level;
/// assert_eq!(detect(b"2024-01-01 [ERROR] no route"), Level::Error);
/// assert_eq!(detect(b"level=warn msg=\"an error\""), Level::Warn);
/// assert_eq!(detect(b"reign of terror"), Level::Unknown);
/// ```
pub fn detect(text: &[u8]) -> Level {
    let head = text.get(..LOOKED_AT_BYTES).unwrap_or(text);
    let mut first = prefix(head);
    let mut folded = [0; LOOKED_AT_BYTES];
    let folded = folded.get_mut(..head.len()).unwrap_or_default();
    folded.copy_from_slice(head);
    folded.make_ascii_lowercase();
    let mut at = 0;
    while let Some(start) = beginning(folded, at) {
        let from = head.get(start..).unwrap_or(&[]);
        let (word, behind) =
            from.split_at(from.iter().position(|byte| !is_word(*byte)).unwrap_or(from.len()));
        at = start + word.len().max(1);
        let is_alone =
            start.checked_sub(1).and_then(|before| head.get(before)).is_none_or(|byte| !is_word(*byte));
        // A word cut off by the end of what is looked at is no word.
        let is_whole = !behind.is_empty() || head.len() == text.len();
        if is_alone && is_whole {
            if let Some(level) = field(word, behind) {
                return level;
            }
            if first == Level::Unknown {
                first = by_word(word);
            }
        }
    }
    if head.len() < text.len() && head.first() == Some(&b'{') {
        return far_field(text).unwrap_or(first);
    }
    first
}

/// Where from `at` on one of the words or names could begin: most lines have few such places, and they are found many bytes at a time.
fn beginning(folded: &[u8], at: usize) -> Option<usize> {
    static BEGINNINGS: LazyLock<Option<Searcher>> =
        LazyLock::new(|| Searcher::new(beginnings().collect::<BTreeSet<_>>()));
    let rest = folded.get(at..)?;
    match &*BEGINNINGS {
        Some(searcher) => {
            searcher.find_in(folded, Span { start: at, end: folded.len() }).map(|found| found.start())
        }
        // A processor without vectors.
        None => rest
            .windows(BEGINNING_BYTES)
            .position(|three| beginnings().any(|one| one == three))
            .map(|found| at + found),
    }
}

/// The first bytes of all words and names.
fn beginnings() -> impl Iterator<Item = &'static [u8]> {
    let all = WORDS.iter().map(|(word, _)| *word).chain(FIELDS.iter().copied());
    all.filter_map(|word| word.get(..BEGINNING_BYTES))
}

/// The severity that the value of a severity field states, or [`Level::Unknown`].
pub(crate) fn of_value(value: &str) -> Level {
    detect(format!("level={value}").as_bytes())
}

fn far_field(text: &[u8]) -> Option<Level> {
    FAR_FIELDS.iter().find_map(|name| {
        let at = memchr::memmem::find(text, name)?;
        let name = name.get(1..name.len() - 1)?;
        field(name, text.get(at + 1 + name.len()..)?)
    })
}

/// Bytes of words.
#[expect(clippy::indexing_slicing, reason = "there is a place for every byte")]
const IS_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 0x80 || byte == b'_' as usize || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

#[expect(clippy::indexing_slicing, reason = "there is a place for every byte")]
fn is_word(byte: u8) -> bool {
    IS_WORD[usize::from(byte)]
}

fn by_word(word: &[u8]) -> Level {
    let found = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map_or(Level::Unknown, |(_, level)| *level)
}

/// The value of a severity field, when `name` is one and `behind` starts with its value.
fn field(name: &[u8], behind: &[u8]) -> Option<Level> {
    // `log.level` is two words here; its last one is `level`.
    if !FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
        return None;
    }
    let behind = behind.strip_prefix(b"\\").unwrap_or(behind);
    let behind = behind.strip_prefix(b"\"").unwrap_or(behind).trim_ascii_start();
    let value = behind.strip_prefix(b"=").or_else(|| behind.strip_prefix(b":"))?.trim_ascii_start();
    let value = value.strip_prefix(b"\\").unwrap_or(value);
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let end = value.iter().position(|byte| !is_word(*byte)).unwrap_or(value.len());
    let level = match value.get(..end)? {
        b"10" => Level::Trace,
        b"20" => Level::Debug,
        b"30" => Level::Info,
        b"40" => Level::Warn,
        b"50" => Level::Error,
        b"60" => Level::Fatal,
        [digit @ b'0'..=b'7'] => syslog(digit - b'0'),
        [letter] => by_letter(letter.to_ascii_uppercase()),
        word if b"information".eq_ignore_ascii_case(word) => Level::Info,
        word => by_word(word),
    };
    (level != Level::Unknown).then_some(level)
}

/// `E0102 15:04:05`: a letter and four digits at the line's start, as glog and klog write.
fn glog(head: &[u8]) -> Level {
    let Some(([letter, digits @ ..], [b' ', ..])) = head.split_first_chunk::<5>() else {
        return Level::Unknown;
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Level::Unknown;
    }
    if matches!(letter, b'I' | b'W' | b'E' | b'F') { by_letter(*letter) } else { Level::Unknown }
}

/// What stands at the line's start and is no word: glog's letter, or syslog's priority.
fn prefix(head: &[u8]) -> Level {
    let Some(behind) = head.strip_prefix(b"<") else { return glog(head) };
    let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=3).contains(&digits) || behind.get(digits) != Some(&b'>') {
        return Level::Unknown;
    }
    // The severity is the priority modulo eight.
    let priority = behind.iter().take(digits).fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    u8::try_from(priority % 8).map_or(Level::Unknown, syslog)
}

/// The severities of RFC 5424, 0 to 7, which GELF writes as a level, too.
pub(crate) fn syslog(severity: u8) -> Level {
    match severity {
        0..=2 => Level::Fatal,
        3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        7 => Level::Debug,
        _ => Level::Unknown,
    }
}

fn by_letter(letter: u8) -> Level {
    match letter {
        b'T' | b'V' => Level::Trace,
        b'D' => Level::Debug,
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'F' | b'C' => Level::Fatal,
        _ => Level::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_every_line_of_the_table_is_right() {
        let table: &[(&str, Level)] = &[
            ("", Level::Unknown),
            ("INFO started", Level::Info),
            ("info: started", Level::Info),
            ("[ERROR] failed", Level::Error),
            ("<Warning> disk", Level::Warn),
            ("2024-01-01T00:00:00Z WARN error rate is high", Level::Warn),
            ("ts=1 level=error msg=\"info\"", Level::Error),
            ("msg=\"error in x\" level=info", Level::Info),
            ("{\"msg\":\"an error\",\"level\":\"debug\"}", Level::Debug),
            ("{\"severity\" : \"CRITICAL\"}", Level::Fatal),
            ("{\"level\":30,\"msg\":\"error\"}", Level::Info),
            ("{\"level\":50}", Level::Error),
            ("{\"log.level\":\"warn\"}", Level::Warn),
            ("{\"level\":\"Information\"}", Level::Info),
            ("lvl=dbg x", Level::Debug),
            ("E0102 15:04:05.000 1 main.go] x", Level::Error),
            ("W1231 x", Level::Warn),
            ("E01020 x", Level::Unknown),
            ("terror", Level::Unknown),
            ("information", Level::Unknown),
            ("for your information", Level::Unknown),
            ("errors were counted", Level::Unknown),
            ("error_count=0", Level::Unknown),
            ("my_error=1", Level::Unknown),
            ("na\u{ef}veerror", Level::Unknown),
            ("level= x", Level::Unknown),
            ("levels", Level::Unknown),
            ("thread 'main' panicked", Level::Unknown),
            ("panic: runtime error", Level::Fatal),
            ("FATAL: no", Level::Fatal),
            ("NOTICE: ok", Level::Info),
            ("TRACE", Level::Trace),
            ("level", Level::Unknown),
            // syslog
            ("<11>Jan  2 15:04:05 host app: x", Level::Error),
            ("<165>1 2024-01-02T15:04:05Z host app - - - x", Level::Info),
            ("<7>x", Level::Debug),
            ("<1000>x", Level::Unknown),
            ("<>x", Level::Unknown),
            ("<11>level=warn", Level::Warn),
            // log4j, logback, Elasticsearch, Spring
            ("2024-01-02 15:04:05,123 ERROR [main] c.x.Y - no error", Level::Error),
            ("15:04:05.123 [main] WARN  c.x.Y - x", Level::Warn),
            ("[2024-01-02T15:04:05,123][INFO ][o.e.n.Node] [x] started", Level::Info),
            ("2024-01-02 15:04:05.123 DEBUG 1 --- [main] x", Level::Debug),
            // Python, Ruby, nginx, PostgreSQL, Rust
            ("ERROR:root:x", Level::Error),
            ("I, [2024-01-02T15:04:05.1 #1]  INFO -- : x", Level::Info),
            ("2024/01/02 15:04:05 [crit] 29#29: *1 x", Level::Fatal),
            ("2024-01-02 15:04:05 UTC [1] FATAL:  x", Level::Fatal),
            ("2024-01-02T15:04:05.123456Z  WARN app::x: y", Level::Warn),
            ("[2024-01-02T15:04:05Z ERROR app] x", Level::Error),
            // JSON
            ("{\"short_message\":\"an error\",\"level\":6}", Level::Info),
            ("{\"levelname\": \"WARNING\"}", Level::Warn),
            ("{\"SeverityText\":\"Error\"}", Level::Error),
            ("{\"level\":\"E\"}", Level::Error),
            ("{\"level\":8}", Level::Unknown),
            ("{\"level\":{\"name\":\"warn\"}}", Level::Warn),
            ("{\"msg\":\"{\\\"level\\\":\\\"error\\\"}\"}", Level::Error),
        ];
        for (line, level) in table {
            assert_eq!(detect(line.as_bytes()), *level, "{line}");
        }
    }

    /// As [`detect`] means it: every word of what is looked at, one after another.
    fn word_by_word(text: &[u8]) -> Level {
        let head = text.get(..LOOKED_AT_BYTES).unwrap_or(text);
        let (mut first, mut at) = (prefix(head), 0);
        for word in head.split(|byte| !is_word(*byte)) {
            let behind = &head[at + word.len()..];
            at += word.len() + 1;
            if behind.is_empty() && head.len() < text.len() {
                break;
            }
            if let Some(level) = field(word, behind) {
                return level;
            }
            first = if first == Level::Unknown { by_word(word) } else { first };
        }
        first
    }

    #[test]
    fn what_is_found_by_beginnings_is_what_every_word_says() {
        let pieces = "[ =:\"_{-]|[a-z]|ERR|err|or|ERROR|Warn|ing|info|rmation|level|LEVEL|lvl|_level|sever|ity|e|\u{e9}|[0-9]| {40}";
        let config = proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
        proptest::proptest!(config, |(pieces in proptest::collection::vec(pieces, 0..60))| {
            let text = pieces.concat();
            proptest::prop_assume!(!text.starts_with('{'));
            proptest::prop_assert_eq!(detect(text.as_bytes()), word_by_word(text.as_bytes()), "{}", text);
        });
    }

    #[test]
    fn only_the_start_of_a_line_is_looked_at_and_a_word_cut_there_does_not_count() {
        let far = format!("{} error", "x".repeat(200));
        assert_eq!(detect(far.as_bytes()), Level::Unknown);
        let cut = format!("{} errors", "x".repeat(LOOKED_AT_BYTES - 6));
        assert_eq!(detect(cut.as_bytes()), Level::Unknown);
        let whole = format!("{} error at", "x".repeat(LOOKED_AT_BYTES - 7));
        assert_eq!(detect(whole.as_bytes()), Level::Error);
    }

    #[test]
    fn a_long_json_object_has_its_level_wherever_its_field_stands() {
        let text = "an error ".repeat(40);
        let object = |fields: &str| format!("{{\"msg\":\"{text}\",{fields}}}");
        assert_eq!(detect(object("\"level\":\"info\"").as_bytes()), Level::Info);
        assert_eq!(detect(object("\"a\":1,\"severity\" : \"WARNING\"").as_bytes()), Level::Warn);
        assert_eq!(detect(object("\"a\":1").as_bytes()), Level::Error);
        assert_eq!(detect(format!("{text} level=info").as_bytes()), Level::Error);
    }
}

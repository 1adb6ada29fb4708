//! A line's severity from its first bytes.
//!
//! Cheap and pure. A named field (`level=warn`, `"severity":"ERROR"`, `"level":40`) decides before any bare word; then glog's
//! `E0102` at the start; then the first severity word that stands alone. A guess by nature: it never changes the text.

use beeacon_record::Level;

/// How far into a line is looked, in bytes.
const LOOKED_AT_BYTES: usize = 160;

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
const FIELDS: &[&[u8]] = &[b"level", b"severity", b"lvl", b"loglevel", b"log_level", b"log.level"];

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
    let mut first = glog(head);
    let mut at = 0;
    while at < head.len() {
        let rest = head.get(at..).unwrap_or(&[]);
        let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        if length == 0 {
            at += 1;
            continue;
        }
        let (word, behind) = rest.split_at(length);
        // A word cut off by the end of what is looked at is no word.
        let is_whole = !behind.is_empty() || head.len() == text.len();
        if is_whole && may_matter(word) {
            if let Some(level) = field(word, behind) {
                return level;
            }
            if first == Level::Unknown {
                first = by_word(word);
            }
        }
        at += length;
    }
    first
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// A look at the length and first letter, which spares most words the table.
fn may_matter(word: &[u8]) -> bool {
    (3..=11).contains(&word.len())
        && word.first().is_some_and(|first| {
            matches!(
                first | 0x20,
                b'i' | b'e' | b'w' | b'd' | b't' | b'f' | b'n' | b'c' | b'p' | b's' | b'a' | b'l'
            )
        })
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
    match letter {
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'F' => Level::Fatal,
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
        ];
        for (line, level) in table {
            assert_eq!(detect(line.as_bytes()), *level, "{line}");
        }
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
}

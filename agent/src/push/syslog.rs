//! Syslog messages, RFC 5424 and RFC 3164, and how they stand in a stream of bytes, RFC 6587. Pure.
//!
//! What always holds: no byte of a message is lost. What does not look like syslog becomes a line as it is; only an announced
//! length beyond the limit is refused, for behind it nobody knows where a message begins.

use std::sync::Arc;

use beeacon_record::{Level, Origin, Stream};
use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

use super::{PushLine, is_name};
use crate::level;
use crate::limits::SYSLOG_MESSAGE_BYTES_MAX;

/// Why a connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message is announced that is too long.
    #[error("syslog message of {bytes} bytes is announced, the limit is {SYSLOG_MESSAGE_BYTES_MAX}")]
    Length {
        /// How long.
        bytes: u64,
    },
}

/// Takes the next whole message out of `buffer`: one with its length before it, or up to a newline or NUL. A message without an
/// end is given out when it has reached the limit; the rest comes as another one.
///
/// # Errors
/// When a message is announced that is too long.
pub fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
    loop {
        if let Some((digits, bytes)) = announced(buffer) {
            if bytes > SYSLOG_MESSAGE_BYTES_MAX as u64 {
                return Err(FramingError::Length { bytes });
            }
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if buffer.len() < digits + 1 + bytes {
                return Ok(None);
            }
            buffer.advance(digits + 1);
            return Ok(Some(buffer.split_to(bytes).freeze()));
        }
        let Some(end) = memchr2(b'\n', 0, buffer) else {
            if buffer.len() < SYSLOG_MESSAGE_BYTES_MAX {
                return Ok(None);
            }
            return Ok(Some(buffer.split().freeze()));
        };
        let mut message = buffer.split_to(end);
        buffer.advance(1);
        if message.last() == Some(&b'\r') {
            message.truncate(message.len() - 1);
        }
        // Some senders end a message with a newline and a NUL, or leave empty lines between.
        if !message.is_empty() {
            return Ok(Some(message.freeze()));
        }
    }
}

/// How many digits a length has that stands before a message, and the length. A message of its own begins with `<`.
fn announced(buffer: &[u8]) -> Option<(usize, u64)> {
    let digits = buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_length = (1..=9).contains(&digits) && buffer.first() != Some(&b'0');
    if !is_length || buffer.get(digits) != Some(&b' ') || buffer.get(digits + 1).is_some_and(|b| *b != b'<') {
        return None;
    }
    let text = std::str::from_utf8(buffer.get(..digits)?).ok()?;
    Some((digits, text.parse().ok()?))
}

/// A message as a line. `peer` stands for a host that the message does not name.
pub fn parse(message: &Bytes, peer: &str) -> PushLine {
    let parsed = priority(message).and_then(|(priority, rest)| {
        let mut parsed = new_form(rest).unwrap_or_else(|| old_form(rest));
        let facility = FACILITIES.get(usize::from(priority >> 3))?;
        parsed.attributes.insert(0, ("facility".to_owned(), (*facility).to_owned()));
        parsed.level = Some(level::syslog(priority & 7));
        Some(parsed)
    });
    let parsed = parsed.unwrap_or_else(|| Parsed { text: message, ..Parsed::default() });
    let mut attributes = parsed.attributes;
    let mut name = |key: &str, text: &str, otherwise: &str| {
        if is_name(text) {
            return text.to_owned();
        }
        if !text.is_empty() {
            attributes.push((key.to_owned(), text.to_owned()));
        }
        otherwise.to_owned()
    };
    let host = name("hostname", &parsed.host, peer);
    let service = name("app_name", &parsed.application, "syslog");
    PushLine {
        origin: Arc::new(Origin { host, service, ..Origin::default() }),
        timestamp_ns: parsed.timestamp_ns,
        level: parsed.level,
        stream: Stream::Stdout,
        attributes,
        text: message.slice_ref(parsed.text),
    }
}

#[derive(Default)]
struct Parsed<'a> {
    timestamp_ns: Option<i64>,
    level: Option<Level>,
    host: String,
    application: String,
    attributes: Vec<(String, String)>,
    text: &'a [u8],
}

/// The names of facilities, by number.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// `<PRI>`, and what stands behind it.
fn priority(message: &[u8]) -> Option<(u8, &[u8])> {
    let rest = message.strip_prefix(b"<")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = std::str::from_utf8(rest.get(..digits)?).ok()?;
    let priority: u8 = text.parse().ok().filter(|priority| *priority < 192)?;
    Some((priority, rest.get(digits..)?.strip_prefix(b">")?))
}

/// RFC 5424: `1 TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA MESSAGE`.
fn new_form(rest: &[u8]) -> Option<Parsed<'_>> {
    let mut rest = rest.strip_prefix(b"1 ")?;
    let mut fields = Vec::with_capacity(5);
    for _ in 0..5 {
        let end = memchr::memchr(b' ', rest)?;
        let (field, behind) = rest.split_at_checked(end)?;
        // Names are ASCII; anything else is another format.
        fields.push(std::str::from_utf8(field).ok()?);
        rest = behind.get(1..)?;
    }
    let [time, host, application, process, message_id] = fields.as_slice() else { return None };
    let value = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    let mut attributes = Vec::new();
    for (key, text) in [("procid", process), ("msgid", message_id)] {
        if *text != "-" {
            attributes.push((key.to_owned(), (*text).to_owned()));
        }
    }
    let text = structured_data(rest, &mut attributes)?;
    let timestamp_ns = time_of(time);
    if timestamp_ns.is_none() && *time != "-" {
        attributes.push(("timestamp".to_owned(), (*time).to_owned()));
    }
    Some(Parsed {
        timestamp_ns,
        level: None,
        host: value(host),
        application: value(application),
        attributes,
        text: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
    })
}

fn time_of(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// `-`, or `[id name="value" …]…`; gives what stands behind it.
fn structured_data<'a>(rest: &'a [u8], attributes: &mut Vec<(String, String)>) -> Option<&'a [u8]> {
    if let Some(behind) = rest.strip_prefix(b"-") {
        return if behind.is_empty() { Some(behind) } else { behind.strip_prefix(b" ") };
    }
    let mut rest = rest;
    while let Some(element) = rest.strip_prefix(b"[") {
        let end = element.iter().position(|byte| matches!(byte, b' ' | b']'))?;
        let id = std::str::from_utf8(element.get(..end)?).ok()?;
        let mut at = element.get(end..)?;
        loop {
            if let Some(behind) = at.strip_prefix(b"]") {
                rest = behind;
                break;
            }
            at = at.strip_prefix(b" ")?;
            let equals = memchr::memchr(b'=', at)?;
            let name = std::str::from_utf8(at.get(..equals)?).ok()?;
            at = at.get(equals + 1..)?.strip_prefix(b"\"")?;
            let mut value = Vec::new();
            loop {
                let (byte, behind) = at.split_first()?;
                at = behind;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let (escaped, behind) = at.split_first()?;
                        if !matches!(escaped, b'"' | b'\\' | b']') {
                            value.push(b'\\');
                        }
                        value.push(*escaped);
                        at = behind;
                    }
                    byte => value.push(*byte),
                }
            }
            attributes.push((format!("{id}.{name}"), String::from_utf8_lossy(&value).into_owned()));
        }
    }
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b" ") }
}

/// RFC 3164, of which every part may be missing: `Mmm dd hh:mm:ss HOST TAG[PID]: MESSAGE`. Its time names neither year nor zone,
/// so the time of arrival counts, and what it says stays as an attribute.
fn old_form(rest: &[u8]) -> Parsed<'_> {
    let mut parsed = Parsed { text: rest, ..Parsed::default() };
    let mut text = rest;
    if let Some((time, behind)) = old_time(rest) {
        parsed.attributes.push(("timestamp".to_owned(), time.to_owned()));
        text = behind;
        parsed.text = behind;
        // A host stands only behind a time.
        if let Some(end) = memchr::memchr(b' ', text)
            && let Some((host, behind)) = text.split_at_checked(end)
            && let Ok(host) = std::str::from_utf8(host)
            && is_name(host)
            && !host.ends_with(':')
        {
            parsed.host = host.to_owned();
            text = behind.get(1..).unwrap_or(&[]);
            parsed.text = text;
        }
    }
    let is_tag = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    let end = text.iter().take_while(|byte| is_tag(byte)).count();
    if end == 0 || end > 64 {
        return parsed;
    }
    let (Some(tag), Some(behind)) = (text.get(..end), text.get(end..)) else { return parsed };
    let (process, behind) = match behind.strip_prefix(b"[") {
        Some(inside) => {
            let Some(close) = memchr::memchr(b']', inside.get(..32).unwrap_or(inside)) else { return parsed };
            (inside.get(..close), inside.get(close + 1..).unwrap_or(&[]))
        }
        None => (None, behind),
    };
    let Some(message) = behind.strip_prefix(b":") else { return parsed };
    parsed.application = String::from_utf8_lossy(tag).into_owned();
    if let Some(process) = process {
        parsed.attributes.push(("procid".to_owned(), String::from_utf8_lossy(process).into_owned()));
    }
    parsed.text = message.strip_prefix(b" ").unwrap_or(message);
    parsed
}

/// `Mmm dd hh:mm:ss `.
fn old_time(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (time, behind) = rest.split_at_checked(15)?;
    let [_, _, _, b' ', _, _, b' ', _, _, b':', _, _, b':', _, _] = time else { return None };
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    if !MONTHS.contains(&time.get(..3)?) {
        return None;
    }
    Some((std::str::from_utf8(time).ok()?, behind.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host, service, level, attributes in order, text.
    type Expected<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

    fn shown(line: &PushLine) -> (String, String, String, String, String) {
        let attributes: Vec<String> =
            line.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (
            line.origin.host.clone(),
            line.origin.service.clone(),
            line.level.map_or("none", Level::as_str).to_owned(),
            attributes.join(" "),
            String::from_utf8_lossy(&line.text).into_owned(),
        )
    }

    #[test]
    fn messages_of_both_forms_and_of_none_become_lines() {
        let table: &[(&[u8], Expected<'_>)] = &[
            (
                b"<165>1 2003-10-11T22:14:15.003Z web-1 evntslog 77 ID47 [ex@32473 iut=\"3\" q=\"a\\\"b\\]\"] \xef\xbb\xbfAn event",
                ("web-1", "evntslog", "info", "facility=local4 procid=77 msgid=ID47 ex@32473.iut=3 ex@32473.q=a\"b]", "An event"),
            ),
            (b"<34>1 - - - - - -", ("peer", "syslog", "fatal", "facility=auth", "")),
            (b"<34>1 never web app - - - x", ("web", "app", "fatal", "facility=auth timestamp=never", "x")),
            (
                b"<34>Oct 11 22:14:15 mymachine su[42]: 'su root' failed",
                ("mymachine", "su", "fatal", "facility=auth timestamp=Oct 11 22:14:15 procid=42", "'su root' failed"),
            ),
            (b"<13>app: no time", ("peer", "app", "info", "facility=user", "no time")),
            (b"<13>just words here", ("peer", "syslog", "info", "facility=user", "just words here")),
            (b"<13>1 2003-10-11T22:14:15Z cut off", ("peer", "syslog", "info", "facility=user", "1 2003-10-11T22:14:15Z cut off")),
            (b"<13>1 - h a - - [open x=\"1", ("peer", "syslog", "info", "facility=user", "1 - h a - - [open x=\"1")),
            (b"<999>x", ("peer", "syslog", "none", "", "<999>x")),
            (b"no priority", ("peer", "syslog", "none", "", "no priority")),
            (b"<13>1 - h\xff a - - - x", ("peer", "syslog", "info", "facility=user", "1 - h\u{fffd} a - - - x")),
            (b"<13>1 - ho{st a - - - x", ("peer", "a", "info", "facility=user hostname=ho{st", "x")),
        ];
        for (message, expected) in table {
            let line = parse(&Bytes::from_static(message), "peer");
            let (host, service, level, attributes, text) = expected;
            let expected = (*host, *service, *level, *attributes, *text);
            let shown = shown(&line);
            let found = (&*shown.0, &*shown.1, &*shown.2, &*shown.3, &*shown.4);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(message));
        }
        let line = parse(&Bytes::from_static(b"<165>1 2003-10-11T22:14:15.003Z - - - - - x"), "peer");
        assert_eq!(line.timestamp_ns, Some(1_065_910_455_003_000_000));
    }

    #[test]
    fn messages_are_told_apart_however_the_bytes_arrive() {
        let stream: &[u8] = b"<1>one\n14 <2>two\nlines\n.<3>three\r\n\n\0<4>four\x0007 <5>no length\n";
        let expected: [&[u8]; 5] =
            [b"<1>one", b"<2>two\nlines\n.", b"<3>three", b"<4>four", b"07 <5>no length"];
        for cut in 1..stream.len() {
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for part in stream.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(message) = next_message(&mut buffer).unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, expected, "cut {cut}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_and_an_endless_message_comes_in_parts() {
        let mut buffer = BytesMut::from(&b"999999999 <1>x"[..]);
        assert_eq!(next_message(&mut buffer), Err(FramingError::Length { bytes: 999_999_999 }));
        let mut buffer = BytesMut::from(vec![b'x'; SYSLOG_MESSAGE_BYTES_MAX].as_slice());
        assert_eq!(next_message(&mut buffer).unwrap().unwrap().len(), SYSLOG_MESSAGE_BYTES_MAX);
        assert!(buffer.is_empty());
    }
}

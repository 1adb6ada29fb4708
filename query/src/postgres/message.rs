//! The messages of the PostgreSQL protocol, version 3.0, as bytes. Pure: no socket, no session.
//!
//! ```text
//! opening   length u32 | code u32 | …                SSLRequest, GSSENCRequest, CancelRequest, StartupMessage
//! message   kind u8 | length u32 (of itself and what follows) | …
//! ```
//! Numbers are big-endian, texts end with a zero byte. What is longer than its limit, runs past its end or is no UTF-8 is a
//! [`Malformed`], which ends the connection: after it nobody knows where the next message begins.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{POSTGRES_MESSAGE_BYTES_MAX, POSTGRES_OPENING_BYTES_MAX};

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("message of {bytes} bytes, allowed are {max}")]
    Length { bytes: usize, max: usize },
    #[error("message ends too early")]
    Short,
    #[error("message has text that is not UTF-8")]
    Text,
    #[error("message of an unknown kind")]
    Kind,
    #[error("protocol version {major}.{minor} is not spoken, 3.0 is")]
    Version { major: u16, minor: u16 },
}

/// What opens a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Tls,
    Gss,
    Cancel { process: i32, secret: i32 },
    Startup { minor: u16, parameters: Vec<(String, String)> },
}

/// What a client says afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Query(String),
    Parse {
        statement: String,
        text: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        rows_max: u32,
    },
    Close(Target),
    Flush,
    Sync,
    Password(Bytes),
    Terminate,
    /// `COPY` and function calls: understood, and refused.
    Unsupported,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) parameter_formats: Formats,
    pub(crate) parameters: Vec<Option<Bytes>>,
    pub(crate) result_formats: Formats,
}

/// Whether values are binary: of none, of all, or of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Formats(Vec<i16>);

impl Formats {
    /// Whether the value at this place is binary. One format is for all; places beyond the list are text.
    pub(crate) fn is_binary(&self, index: usize) -> bool {
        match self.0.as_slice() {
            [all] => *all == 1,
            each => each.get(index).is_some_and(|format| *format == 1),
        }
    }

    /// Whether it is a list for this many values.
    pub(crate) fn fits(&self, count: usize) -> bool {
        self.0.len() <= 1 || self.0.len() == count
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// Takes an opening from the front of the buffer, once it is there in full.
pub(crate) fn opening(buffer: &mut BytesMut) -> Result<Option<Opening>, Malformed> {
    let Some(mut body) = framed(buffer, 0, POSTGRES_OPENING_BYTES_MAX)? else { return Ok(None) };
    let code = body.number()?;
    Ok(Some(match code {
        80_877_103 => Opening::Tls,
        80_877_104 => Opening::Gss,
        80_877_102 => Opening::Cancel { process: body.number()?, secret: body.number()? },
        version => {
            let [major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
            let major = u16::from_be_bytes([major_high, major_low]);
            let minor = u16::from_be_bytes([minor_high, minor_low]);
            if major != 3 {
                return Err(Malformed::Version { major, minor });
            }
            let mut parameters = Vec::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, body.text()?));
            }
            Opening::Startup { minor, parameters }
        }
    }))
}

/// Takes a message from the front of the buffer, once it is there in full.
pub(crate) fn message(buffer: &mut BytesMut) -> Result<Option<Message>, Malformed> {
    let Some(kind) = buffer.first().copied() else { return Ok(None) };
    if !b"QPBDECHSpXdcfF".contains(&kind) {
        return Err(Malformed::Kind);
    }
    let Some(mut body) = framed(buffer, 1, POSTGRES_MESSAGE_BYTES_MAX)? else { return Ok(None) };
    Ok(Some(match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (statement, text) = (body.text()?, body.text()?);
            let count = body.count(4)?;
            let types = (0..count).map(|_| Ok(body.number()?.cast_unsigned()));
            Message::Parse { statement, text, types: types.collect::<Result<_, Malformed>>()? }
        }
        b'B' => {
            let (portal, statement) = (body.text()?, body.text()?);
            let parameter_formats = body.formats()?;
            let count = body.count(4)?;
            let parameters = (0..count).map(|_| match usize::try_from(body.number()?) {
                Ok(length) => Ok(Some(body.take(length)?)),
                Err(_) => Ok(None),
            });
            let parameters = parameters.collect::<Result<_, Malformed>>()?;
            let result_formats = body.formats()?;
            Message::Bind(Bind { portal, statement, parameter_formats, parameters, result_formats })
        }
        b'D' => Message::Describe(body.target()?),
        b'E' => {
            let portal = body.text()?;
            Message::Execute { portal, rows_max: u32::try_from(body.number()?).unwrap_or(0) }
        }
        b'C' => Message::Close(body.target()?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'p' => Message::Password(body.0),
        b'X' => Message::Terminate,
        _ => Message::Unsupported,
    }))
}

/// The body of the message at the front, with what precedes its length left out.
fn framed(buffer: &mut BytesMut, before: usize, max: usize) -> Result<Option<Body>, Malformed> {
    let Some(length) = buffer.get(before..before + 4) else { return Ok(None) };
    let length = <[u8; 4]>::try_from(length).map_err(|_| Malformed::Short)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(Malformed::Length { bytes: length, max });
    }
    if length < 4 {
        return Err(Malformed::Short);
    }
    if buffer.len() < before + length {
        return Ok(None);
    }
    buffer.advance(before + 4);
    Ok(Some(Body(buffer.split_to(length - 4).freeze())))
}

struct Body(Bytes);

impl Body {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < length { Err(Malformed::Short) } else { Ok(self.0.split_to(length)) }
    }

    fn number(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32().map_err(|_| Malformed::Short)
    }

    /// A count of values that take at least `bytes` each, so that a made-up count reserves nothing.
    fn count(&mut self, bytes: usize) -> Result<usize, Malformed> {
        let count = usize::from(self.0.try_get_u16().map_err(|_| Malformed::Short)?);
        if count * bytes > self.0.len() { Err(Malformed::Short) } else { Ok(count) }
    }

    fn formats(&mut self) -> Result<Formats, Malformed> {
        let count = self.count(2)?;
        let formats = (0..count).map(|_| self.0.try_get_i16().map_err(|_| Malformed::Short));
        Ok(Formats(formats.collect::<Result<_, _>>()?))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed::Short)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.into()).map_err(|_| Malformed::Text)
    }

    fn target(&mut self) -> Result<Target, Malformed> {
        match self.0.try_get_u8() {
            Ok(b'S') => Ok(Target::Statement(self.text()?)),
            Ok(b'P') => Ok(Target::Portal(self.text()?)),
            _ => Err(Malformed::Kind),
        }
    }
}

/// A column as it is described before its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) oid: u32,
    pub(crate) bytes: i16,
    pub(crate) is_binary: bool,
}

/// Where a session stands, as `ReadyForQuery` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Idle,
    InTransaction,
    Failed,
}

/// Messages to a client, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    fn framed(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(kind);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        body(&mut self.0);
        close(&mut self.0, start);
    }

    /// Asks for the mechanism of a login.
    pub(crate) fn sasl(&mut self, mechanism: &str) {
        self.framed(b'R', |out| {
            out.extend_from_slice(&10_i32.to_be_bytes());
            text(out, mechanism);
            out.push(0);
        });
    }

    pub(crate) fn sasl_continue(&mut self, data: &str) {
        self.framed(b'R', |out| {
            out.extend_from_slice(&11_i32.to_be_bytes());
            out.extend_from_slice(data.as_bytes());
        });
    }

    pub(crate) fn sasl_final(&mut self, data: &str) {
        self.framed(b'R', |out| {
            out.extend_from_slice(&12_i32.to_be_bytes());
            out.extend_from_slice(data.as_bytes());
        });
    }

    pub(crate) fn authenticated(&mut self) {
        self.framed(b'R', |out| out.extend_from_slice(&0_i32.to_be_bytes()));
    }

    /// Says that 3.0 is spoken, and which options are not known.
    pub(crate) fn negotiate(&mut self, unknown: &[&str]) {
        self.framed(b'v', |out| {
            out.extend_from_slice(&196_608_i32.to_be_bytes());
            out.extend_from_slice(&i32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
            unknown.iter().for_each(|name| text(out, name));
        });
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) {
        self.framed(b'S', |out| {
            text(out, name);
            text(out, value);
        });
    }

    pub(crate) fn key(&mut self, process: i32, secret: i32) {
        self.framed(b'K', |out| {
            out.extend_from_slice(&process.to_be_bytes());
            out.extend_from_slice(&secret.to_be_bytes());
        });
    }

    pub(crate) fn ready(&mut self, standing: Standing) {
        self.framed(b'Z', |out| {
            out.push(match standing {
                Standing::Idle => b'I',
                Standing::InTransaction => b'T',
                Standing::Failed => b'E',
            });
        });
    }

    pub(crate) fn fields(&mut self, fields: &[Field]) {
        self.framed(b'T', |out| {
            out.extend_from_slice(&count(fields.len()));
            for field in fields {
                text(out, &field.name);
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&field.oid.to_be_bytes());
                out.extend_from_slice(&field.bytes.to_be_bytes());
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                out.extend_from_slice(&i16::from(field.is_binary).to_be_bytes());
            }
        });
    }

    pub(crate) fn parameters(&mut self, types: &[u32]) {
        self.framed(b't', |out| {
            out.extend_from_slice(&count(types.len()));
            types.iter().for_each(|oid| out.extend_from_slice(&oid.to_be_bytes()));
        });
    }

    /// A row of texts.
    pub(crate) fn row(&mut self, values: &[&str]) {
        self.framed(b'D', |out| {
            out.extend_from_slice(&count(values.len()));
            for value in values {
                out.extend_from_slice(&i32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                out.extend_from_slice(value.as_bytes());
            }
        });
    }

    pub(crate) fn complete(&mut self, tag: &str) {
        self.framed(b'C', |out| text(out, tag));
    }

    /// An error: letters and texts.
    pub(crate) fn error(&mut self, fields: &[(u8, &str)]) {
        self.framed(b'E', |out| {
            for (letter, value) in fields {
                out.push(*letter);
                text(out, value);
            }
            out.push(0);
        });
    }

    pub(crate) fn empty_query(&mut self) {
        self.framed(b'I', |_| {});
    }

    pub(crate) fn parsed(&mut self) {
        self.framed(b'1', |_| {});
    }

    pub(crate) fn bound(&mut self) {
        self.framed(b'2', |_| {});
    }

    pub(crate) fn closed(&mut self) {
        self.framed(b'3', |_| {});
    }

    pub(crate) fn no_data(&mut self) {
        self.framed(b'n', |_| {});
    }

    pub(crate) fn suspended(&mut self) {
        self.framed(b's', |_| {});
    }
}

/// Writes a message's length into the four bytes kept for it.
pub(crate) fn close(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// How many values follow. There are never more columns than fit.
pub(crate) fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

/// A text; a zero byte within would end it early.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed_bytes(kind: &[u8], body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(kind);
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_startup_message_has_parameters_and_leaves_what_follows() {
        let mut bytes = framed_bytes(b"", b"\x00\x03\x00\x00user\0ada\0database\0beeacon\0\0");
        bytes.extend_from_slice(b"next");
        let expected = vec![("user".into(), "ada".into()), ("database".into(), "beeacon".into())];
        assert_eq!(opening(&mut bytes), Ok(Some(Opening::Startup { minor: 0, parameters: expected })));
        assert_eq!(&bytes[..], b"next");
    }

    #[test]
    fn a_message_waits_for_its_last_byte() {
        let whole = framed_bytes(b"P", b"s\0select $1\0\x00\x01\x00\x00\x00\x19");
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(message(&mut part), Ok(None), "{end}");
            assert_eq!(part.len(), end, "nothing is taken");
        }
        let expected = Message::Parse { statement: "s".into(), text: "select $1".into(), types: vec![25] };
        assert_eq!(message(&mut whole.clone()), Ok(Some(expected)));
    }

    #[test]
    fn a_bind_has_values_nulls_and_formats() {
        let body = b"\0s\0\x00\x01\x00\x01\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x00";
        let Ok(Some(Message::Bind(bind))) = message(&mut framed_bytes(b"B", body)) else { panic!() };
        assert_eq!(bind.parameters, [Some(Bytes::from_static(b"x")), None]);
        assert!(bind.parameter_formats.is_binary(1) && !bind.result_formats.is_binary(0));
        assert!(bind.result_formats.fits(3));
    }

    #[test]
    fn nonsense_is_malformed_and_never_a_panic() {
        let table: [(&[u8], &[u8], Malformed); 6] = [
            (b"?", b"", Malformed::Kind),
            (b"Q", b"no end", Malformed::Short),
            (b"Q", b"\xff\0", Malformed::Text),
            (b"P", b"\0\0\xff\xff", Malformed::Short),
            (b"B", b"\0\0\0\0\0\x01\0\0\0\x09ab", Malformed::Short),
            (b"D", b"Xa\0", Malformed::Kind),
        ];
        for (kind, body, expected) in table {
            assert_eq!(message(&mut framed_bytes(kind, body)), Err(expected), "{body:?}");
        }
        let mut long = BytesMut::from(&b"Q\x7f\xff\xff\xff"[..]);
        assert!(matches!(message(&mut long), Err(Malformed::Length { .. })));
        assert!(matches!(message(&mut BytesMut::from(&b"Q\0\0\0\x03"[..])), Err(Malformed::Short)));
        let mut old = framed_bytes(b"", b"\x00\x02\x00\x00");
        assert_eq!(opening(&mut old), Err(Malformed::Version { major: 2, minor: 0 }));
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut bytes = BytesMut::new();
            for _ in 0..40 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.extend_from_slice(&[(state >> 24) as u8 % 20]);
            }
            bytes[0] = b"QPBDEC"[(state >> 8) as usize % 6];
            bytes[1..4].fill(0);
            drop(message(&mut bytes));
        }
    }

    #[test]
    fn answers_carry_their_length_and_no_zero_byte_within_a_text() {
        let mut answer = Answer::default();
        answer.complete("SELECT 3");
        answer.ready(Standing::Idle);
        assert_eq!(answer.0, b"C\0\0\0\x0dSELECT 3\0Z\0\0\0\x05I");
        let mut answer = Answer::default();
        answer.parameter("a\0b", "");
        assert_eq!(answer.0, b"S\0\0\0\x08ab\0\0");
    }
}

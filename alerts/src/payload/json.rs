//! JSON as Go's `encoding/json` writes it, so that bodies are equal to Alertmanager's byte for byte.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Escapes what Go escapes: `<`, `>`, `&` and the two line separators of Unicode; and, which Go does not, the control characters
/// from DEL on, so that a terminal that a body is shown in obeys none of them. Whoever reads the JSON sees the same.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) =
            rest.find(|c| matches!(c, '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}'))
        {
            let (plain, behind) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = behind.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    /// Go writes a whole number without `.0`.
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{value}")
    }
}

/// A value in one line, with its newline.
pub(crate) fn go_line<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, GoFormatter);
    value.serialize(&mut serializer)?;
    out.push(b'\n');
    Ok(out)
}

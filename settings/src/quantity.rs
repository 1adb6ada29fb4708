//! Amounts of bytes and spans of time as people write them.

use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIME_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `64 MiB`, `64MiB`, `1000`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    parse(text, &BYTE_UNITS, Some(1))
}

/// A span of time: `200 ms`, `30s`, `10 m`.
pub fn read_duration(text: &str) -> Option<Duration> {
    parse(text, &TIME_UNITS, None).map(Duration::from_millis)
}

fn parse(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let number: u64 = digits.replace('_', "").parse().ok()?;
    let unit = unit.trim();
    let factor = match unit {
        "" => bare?,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

/// An amount of bytes in its largest whole unit, such as `64 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    for (name, factor) in BYTE_UNITS.iter().take(4) {
        if bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{} {name}", bytes / factor);
        }
    }
    format!("{bytes} B")
}

/// A span of time in its largest whole unit, such as `30 s`.
pub fn show_duration(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    for (name, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{} {name}", millis / factor);
        }
    }
    format!("{millis} ms")
}

//! RFC 3339 timestamps as Docker writes them, in nanoseconds since 1970.
//!
//! The hot form, UTC with `Z`, is read at fixed offsets and its date is remembered, for consecutive lines share it. Any other
//! form goes through a general parser.

const SECOND_NS: i64 = 1_000_000_000;

/// Parses timestamps and remembers the last date.
#[derive(Clone, Debug, Default)]
pub struct TimeParser {
    date: [u8; 10],
    date_ns: i64,
}

impl TimeParser {
    /// The timestamp in nanoseconds since 1970, or `None` when `text` is none or lies outside of 64 bits.
    ///
    /// ```
    /// use beeacon_agent::docker::time::TimeParser;
    /// let mut parser = TimeParser::default();
    /// assert_eq!(parser.parse(b"1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
    /// assert_eq!(parser.parse(b"yesterday"), None);
    /// ```
    pub fn parse(&mut self, text: &[u8]) -> Option<i64> {
        self.parse_utc(text).or_else(|| parse_general(text))
    }

    /// `2006-01-02T15:04:05[.fraction of 1 to 9 digits]Z`.
    fn parse_utc(&mut self, text: &[u8]) -> Option<i64> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        let (clock, rest) = rest.split_first_chunk::<9>()?;
        let [b'T', h1, h2, b':', m1, m2, b':', s1, s2] = *clock else { return None };
        let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let fraction_ns = match rest {
            b"Z" => 0,
            [b'.', digits @ .., b'Z'] if !digits.is_empty() && digits.len() <= 9 => {
                let mut value = 0i64;
                for byte in digits {
                    value = value * 10 + digit(*byte)?;
                }
                for _ in digits.len()..9 {
                    value *= 10;
                }
                value
            }
            _ => return None,
        };
        if *date != self.date {
            let midnight = parse_midnight(date)?;
            self.date = *date;
            self.date_ns = midnight;
        }
        self.date_ns.checked_add((hour * 3600 + minute * 60 + second) * SECOND_NS + fraction_ns)
    }
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two(high: u8, low: u8) -> Option<i64> {
    Some(digit(high)? * 10 + digit(low)?)
}

fn parse_midnight(date: &[u8; 10]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else { return None };
    let year = i16::try_from(two(y1, y2)? * 100 + two(y3, y4)?).ok()?;
    let month = i8::try_from(two(m1, m2)?).ok()?;
    let day = i8::try_from(two(d1, d2)?).ok()?;
    let date = jiff::civil::Date::new(year, month, day).ok()?;
    let timestamp = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    i64::try_from(timestamp.as_nanosecond()).ok()
}

fn parse_general(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// A timestamp as Docker's `since` takes it: seconds, a point and nine digits. Times before 1970 become 0.
pub fn since_text(timestamp_ns: i64) -> String {
    let ns = timestamp_ns.max(0);
    format!("{}.{:09}", ns / SECOND_NS, ns % SECOND_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fraction_width_gives_the_same_value() {
        let mut parser = TimeParser::default();
        let base = 1_693_398_896_000_000_000;
        for (text, fraction) in [
            ("2023-08-30T12:34:56Z", 0),
            ("2023-08-30T12:34:56.1Z", 100_000_000),
            ("2023-08-30T12:34:56.123Z", 123_000_000),
            ("2023-08-30T12:34:56.123456789Z", 123_456_789),
            ("2023-08-30T12:34:56.000000000Z", 0),
            ("2023-08-30T14:34:56.123456789+02:00", 123_456_789),
        ] {
            assert_eq!(parser.parse(text.as_bytes()), Some(base + fraction), "{text}");
        }
    }

    #[test]
    fn the_remembered_date_is_not_taken_for_another_one() {
        let mut parser = TimeParser::default();
        let first = parser.parse(b"2024-02-28T23:59:59Z").unwrap();
        let second = parser.parse(b"2024-02-29T00:00:00Z").unwrap();
        let third = parser.parse(b"2024-03-01T00:00:00Z").unwrap();
        assert_eq!(second - first, SECOND_NS);
        assert_eq!(third - second, 86_400 * SECOND_NS);
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        let mut parser = TimeParser::default();
        for text in [
            "",
            "Z",
            "2024-13-01T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01 00:00:00Z ",
            "9999-01-01T00:00:00Z",
            "2024-01-01T00:00:00.1234567890123Z!",
        ] {
            assert_eq!(parser.parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn since_has_nine_digits_behind_the_point() {
        assert_eq!(since_text(1_500_000_000), "1.500000000");
        assert_eq!(since_text(-1), "0.000000000");
    }
}

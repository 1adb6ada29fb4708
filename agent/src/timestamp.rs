//! When a line says that it was written, where that is better than the time at which Docker received it.
//!
//! What always holds: pure; only containers whose configuration asks for it pay anything; a time that lies far from Docker's
//! is not believed, for it is the time of something else, or of another time zone. Whatever is found, the line's text and its
//! `observed_timestamp` stay as they are, and no position depends on it.

use std::fmt;

use beeacon_record::calendar::Date;

use crate::limits::{TIMESTAMP_AHEAD_NS_MAX, TIMESTAMP_BEHIND_NS_MAX, TIMESTAMP_FIELD_BYTES_MAX};
use crate::picking::{self, Value};

const SECOND_NS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Names of fields that hold the time of the line, the usual ones first.
const FIELDS: [&str; 6] = ["time", "ts", "timestamp", "@timestamp", "@t", "eventTime"];

/// How far an access log's bracket is looked for, in bytes: behind an address and two names.
const BRACKET_WITHIN_BYTES: usize = 128;

/// Where a line's time stands, and in which zone it is when it names none.
#[derive(Clone, PartialEq, Eq)]
pub struct LineTime {
    place: Place,
    offset_seconds: i64,
    text: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    /// At the start, else in a field with a usual name.
    Auto,
    /// In this field.
    Field(String),
}

/// A text that does not say where a line's time stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "wanted none, auto or field:<name>, each with a zone such as +02:00 behind it for times that name none"
)]
pub struct LineTimeError;

impl fmt::Debug for LineTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl LineTime {
    /// Reads `auto`, `auto +02:00`, `field:created_at` and the like; `none` is `None`.
    ///
    /// ```
    /// use beeacon_agent::timestamp::LineTime;
    /// let auto = LineTime::parse("auto").unwrap().unwrap();
    /// let docker_ns = 1_704_207_845_900_000_000;
    /// assert_eq!(auto.read(b"2024-01-02T15:04:05.5Z started", docker_ns), Some(1_704_207_845_500_000_000));
    /// assert_eq!(auto.read(b"2024-01-02 started", docker_ns), None);
    /// ```
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Option<Self>, LineTimeError> {
        let text = text.trim();
        if text == "none" {
            return Ok(None);
        }
        let (what, zone) = text.split_once(' ').unwrap_or((text, "Z"));
        let place = match what.split_once(':') {
            None if what == "auto" => Place::Auto,
            Some(("field", name)) if !name.is_empty() && name.len() <= TIMESTAMP_FIELD_BYTES_MAX => {
                Place::Field(name.to_owned())
            }
            _ => return Err(LineTimeError),
        };
        let mut rest = Reader(zone.trim().as_bytes());
        let offset_seconds = rest.zone().filter(|_| rest.0.is_empty()).ok_or(LineTimeError)?;
        Ok(Some(LineTime { place, offset_seconds, text: text.to_owned() }))
    }

    /// The time that the line states, in nanoseconds since 1970, when it is near `docker_ns`.
    pub fn read(&self, line: &[u8], docker_ns: i64) -> Option<i64> {
        let (offset, near) = (self.offset_seconds, docker_ns);
        let found = match &self.place {
            Place::Field(name) => field(line, name, offset, near),
            Place::Auto if picking::is_object(line) => {
                FIELDS.iter().find_map(|name| field(line, name, offset, near))
            }
            Place::Auto => {
                at_start(line, offset, near).or_else(|| bracketed(line, offset, near)).or_else(|| {
                    memchr::memchr(b'=', line)?;
                    FIELDS.iter().find_map(|name| field(line, name, offset, near))
                })
            }
        }?;
        let is_near = found <= docker_ns.saturating_add(TIMESTAMP_AHEAD_NS_MAX)
            && found >= docker_ns.saturating_sub(TIMESTAMP_BEHIND_NS_MAX);
        is_near.then_some(found)
    }
}

fn field(line: &[u8], name: &str, offset: i64, near: i64) -> Option<i64> {
    let mut found = None;
    let text = std::str::from_utf8(line).ok()?;
    picking::find(text, &[name], &mut |_, Value { range, .. }| {
        found.get_or_insert(range);
    });
    at_start(text.get(found?)?.as_bytes(), offset, near)
}

/// `203.0.113.7 - - [02/Jan/2024:15:04:05 +0100] "GET /`: the form of access logs.
fn bracketed(line: &[u8], offset: i64, near: i64) -> Option<i64> {
    let head = line.get(..BRACKET_WITHIN_BYTES).unwrap_or(line);
    let open = memchr::memchr(b'[', head)?;
    at_start(line.get(open..)?, offset, near)
}

/// A time at the start of a text, behind a bracket or the priority of syslog.
fn at_start(text: &[u8], offset: i64, near: i64) -> Option<i64> {
    let mut rest = Reader(text.trim_ascii_start());
    if rest.take(b'<') {
        rest.digits(1, 3).filter(|_| rest.take(b'>'))?;
        // The version of RFC 5424.
        if rest.0.starts_with(b"1 ") {
            rest = Reader(rest.0.get(2..)?);
        }
    }
    rest.take(b'[');
    match rest.0.first()? {
        b'0'..=b'9' => numbered(rest, offset),
        b'I' | b'W' | b'E' | b'F' if rest.0.get(1).is_some_and(u8::is_ascii_digit) => {
            klog(rest, offset, near)
        }
        b'A'..=b'Z' => worded(rest, offset, near),
        _ => None,
    }
}

fn numbered(mut rest: Reader<'_>, offset: i64) -> Option<i64> {
    let start = rest.clone();
    let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match (digits, rest.0.get(digits)) {
        (4, Some(mark @ (b'-' | b'/'))) => {
            let mark = *mark;
            let year = rest.digits(4, 4).filter(|_| rest.take(mark))?;
            let month = rest.digits(2, 2).filter(|_| rest.take(mark))?;
            let day = rest.digits(2, 2)?;
            if !(rest.take(b'T') || rest.take(b't') || rest.take(b' ')) {
                return None;
            }
            rest.clock((year, month, day), offset)
        }
        (1 | 2, Some(b'/')) => {
            let day = rest.digits(1, 2).filter(|_| rest.take(b'/'))?;
            let month = rest.month().filter(|_| rest.take(b'/'))?;
            let year = rest.digits(4, 4).filter(|_| rest.take(b':'))?;
            rest.clock((year, month, day), offset)
        }
        (1 | 2, Some(b' ')) => {
            // RFC 1123 without its week day, as some daemons write: 02 Jan 2024 15:04:05.
            let day = rest.digits(1, 2).filter(|_| rest.take(b' '))?;
            let month = rest.month().filter(|_| rest.take(b' '))?;
            let year = rest.digits(4, 4).filter(|_| rest.take(b' '))?;
            rest.clock((year, month, day), offset)
        }
        (10 | 13 | 16 | 19, _) => epoch(start),
        _ => None,
    }
}

/// Seconds, milli-, micro- or nanoseconds since 1970, told apart by their length until the year 2286.
fn epoch(mut rest: Reader<'_>) -> Option<i64> {
    let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = rest.digits(digits, digits)?;
    if digits != 10 {
        let unit = 10i64.checked_pow(u32::try_from(19usize.checked_sub(digits)?).ok()?)?;
        return number.checked_mul(unit).filter(|_| rest.ends_number());
    }
    let fraction = rest.fraction();
    number.checked_mul(SECOND_NS)?.checked_add(fraction).filter(|_| rest.ends_number())
}

/// `I0102 15:04:05.000000`, without a year.
fn klog(mut rest: Reader<'_>, offset: i64, near: i64) -> Option<i64> {
    rest = Reader(rest.0.get(1..)?);
    let month = rest.digits(2, 2)?;
    let day = rest.digits(2, 2).filter(|_| rest.take(b' '))?;
    rest.clock_in_year_near(month, day, offset, near)
}

/// `Jan  2 15:04:05` without a year, and `Tue, 02 Jan 2024 15:04:05 GMT`.
fn worded(mut rest: Reader<'_>, offset: i64, near: i64) -> Option<i64> {
    if let Some(month) = rest.clone().month() {
        rest = Reader(rest.0.get(3..)?);
        while rest.take(b' ') {}
        let day = rest.digits(1, 2).filter(|_| rest.take(b' '))?;
        return rest.clock_in_year_near(month, day, offset, near);
    }
    let behind = rest.0.get(3..)?.strip_prefix(b", ")?;
    numbered(Reader(behind), offset)
}

/// What is left of a text.
#[derive(Clone)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits.iter().try_fold(0i64, |number, digit| {
            number.checked_mul(10)?.checked_add(i64::from(digit.saturating_sub(b'0')))
        })
    }

    fn month(&mut self) -> Option<i64> {
        const NAMES: [&[u8; 3]; 12] =
            [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
        let (name, rest) = self.0.split_first_chunk::<3>()?;
        let month = (1..).zip(NAMES).find(|(_, known)| *known == name)?.0;
        self.0 = rest;
        Some(month)
    }

    /// A fraction of a second behind a point or comma, in nanoseconds.
    fn fraction(&mut self) -> i64 {
        let mut rest = Reader(self.0);
        if !(rest.take(b'.') || rest.take(b',')) {
            return 0;
        }
        let count = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, behind) = rest.0.split_at(count);
        if count == 0 {
            return 0;
        }
        self.0 = behind;
        let scale =
            |(at, digit): (u32, &u8)| i64::from(digit.saturating_sub(b'0')).saturating_mul(10i64.pow(8 - at));
        (0..9u32).zip(digits).map(scale).sum()
    }

    fn ends_number(&self) -> bool {
        !self.0.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
    }

    /// `Z`, `UTC`, `GMT`, `+02:00`, `+0200`, `+02`, in seconds east of Greenwich.
    fn zone(&mut self) -> Option<i64> {
        for name in [&b"Z"[..], b"z", b"UTC", b"GMT"] {
            if let Some(rest) = self.0.strip_prefix(name) {
                self.0 = rest;
                return Some(0);
            }
        }
        let sign = if self.take(b'+') {
            1
        } else if self.take(b'-') {
            -1
        } else {
            return None;
        };
        let hours = self.digits(2, 2)?;
        self.take(b':');
        let minutes = self.digits(2, 2).unwrap_or(0);
        (hours <= 14 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }

    /// `15:04:05`, a fraction and a zone behind a date.
    fn clock(&mut self, (year, month, day): (i64, i64, i64), offset: i64) -> Option<i64> {
        let hour = self.digits(2, 2).filter(|_| self.take(b':'))?;
        let minute = self.digits(2, 2).filter(|_| self.take(b':'))?;
        let second = self.digits(2, 2)?;
        let fraction = self.fraction();
        let mut behind = Reader(self.0);
        while behind.take(b' ') {}
        let offset = behind.zone().unwrap_or(offset);
        let is_time = hour < 24 && minute < 60 && second <= 60;
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && (1970..2262).contains(&year);
        let seconds =
            Date { year, month, day }.day_number() * DAY_SECONDS + hour * 3600 + minute * 60 + second
                - offset;
        let total = seconds.checked_mul(SECOND_NS)?.checked_add(fraction)?;
        (is_time && is_date).then_some(total)
    }

    /// The same where no year is written: the one that brings it nearest.
    fn clock_in_year_near(&mut self, month: i64, day: i64, offset: i64, near: i64) -> Option<i64> {
        let year = 1970 + near.div_euclid(SECOND_NS * DAY_SECONDS) * 400 / 146_097;
        (year - 1..=year + 1)
            .filter_map(|year| self.clone().clock((year, month, day), offset))
            .min_by_key(|time| time.abs_diff(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let time: jiff::Timestamp = text.parse().unwrap();
        i64::try_from(time.as_nanosecond()).unwrap()
    }

    #[test]
    fn every_time_of_the_table_is_read() {
        let docker = "2024-01-02T15:04:06.25Z";
        let table: &[(&str, &str, Option<&str>)] = &[
            ("auto", "2024-01-02T15:04:05.123456789Z started", Some("2024-01-02T15:04:05.123456789Z")),
            ("auto", "2024-01-02T15:04:05.1234567891Z", Some("2024-01-02T15:04:05.123456789Z")),
            ("auto", "2024-01-02 15:04:05,250 INFO x", Some("2024-01-02T15:04:05.25Z")),
            ("auto", "[2024-01-02T15:04:05+01:00] x", Some("2024-01-02T14:04:05Z")),
            ("auto", "2024-01-02 15:04:05 -0130 x", None),
            ("auto", "2024-01-02 13:34:05 -0130 x", Some("2024-01-02T15:04:05Z")),
            ("auto", "2024/01/02 15:04:05 [error] 29#29: x", Some("2024-01-02T15:04:05Z")),
            ("auto +02:00", "2024-01-02 17:04:05 x", Some("2024-01-02T15:04:05Z")),
            ("auto", "2024-01-02 17:04:05 x", None),
            ("auto +02:00", "2024-01-02T15:04:05Z x", Some("2024-01-02T15:04:05Z")),
            ("auto", "I0102 15:04:05.500000       1 main.go:7] x", Some("2024-01-02T15:04:05.5Z")),
            ("auto", "Jan  2 15:04:05 host x[1]: y", Some("2024-01-02T15:04:05Z")),
            ("auto", "<34>Jan  2 15:04:05 host x", Some("2024-01-02T15:04:05Z")),
            ("auto", "<34>1 2024-01-02T15:04:05.003Z host x", Some("2024-01-02T15:04:05.003Z")),
            ("auto", "Tue, 02 Jan 2024 15:04:05 GMT x", Some("2024-01-02T15:04:05Z")),
            ("auto", "203.0.113.7 - - [02/Jan/2024:16:04:05 +0100] \"GET /", Some("2024-01-02T15:04:05Z")),
            ("auto", "1704207845 x", Some("2024-01-02T15:04:05Z")),
            ("auto", "1704207845.25 x", Some("2024-01-02T15:04:05.25Z")),
            ("auto", "1704207845250 x", Some("2024-01-02T15:04:05.25Z")),
            ("auto", "{\"msg\":\"x\",\"ts\":1704207845.5}", Some("2024-01-02T15:04:05.5Z")),
            ("auto", "{\"time\":\"2024-01-02T15:04:05Z\",\"a\":1}", Some("2024-01-02T15:04:05Z")),
            ("auto", "{\"a\":{\"time\":\"2024-01-02T15:04:05Z\"}}", None),
            ("auto", "level=info ts=2024-01-02T15:04:05Z msg=x", Some("2024-01-02T15:04:05Z")),
            ("auto", "time=\"2024-01-02T15:04:05Z\" level=info", Some("2024-01-02T15:04:05Z")),
            (
                "field:at",
                "{\"time\":\"2024-01-02T15:04:04Z\",\"at\":\"2024-01-02T15:04:05Z\"}",
                Some("2024-01-02T15:04:05Z"),
            ),
            ("field:at", "2024-01-02T15:04:05Z x", None),
            ("auto", "17042078451 x", None),
            ("auto", "1704207845x", None),
            ("auto", "2024-13-02T15:04:05Z", None),
            ("auto", "2024-01-02T25:04:05Z", None),
            ("auto", "2023-01-02T15:04:05Z of last year", None),
            ("auto", "started", None),
            ("auto", "", None),
            ("auto", "<", None),
            ("auto", "[", None),
            ("auto", "\u{1f41d}", None),
        ];
        for (form, line, wanted) in table {
            let form = LineTime::parse(form).unwrap().unwrap();
            assert_eq!(form.read(line.as_bytes(), at(docker)), wanted.map(at), "{line}");
        }
    }

    #[test]
    fn a_year_that_is_not_written_is_the_nearest() {
        let form = LineTime::parse("auto").unwrap().unwrap();
        let new_year = at("2024-01-01T00:00:01Z");
        let line = b"E1231 23:59:59.000000 1 x] y";
        assert_eq!(form.read(line, new_year), Some(at("2023-12-31T23:59:59Z")));
        let leap_day = at("2024-02-29T12:00:00Z");
        assert_eq!(form.read(b"Feb 29 12:00:00 h x", leap_day), Some(leap_day));
    }

    #[test]
    fn what_says_nothing_about_times_is_refused() {
        assert_eq!(LineTime::parse("none"), Ok(None));
        for bad in ["", "iso", "field:", "auto +2", "auto +25:00", "auto Z x"] {
            assert!(LineTime::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange(line: Vec<u8>, near: i64) {
            for form in ["auto", "field:a -02:00"] {
                LineTime::parse(form).unwrap().unwrap().read(&line, near);
            }
        }
    }
}

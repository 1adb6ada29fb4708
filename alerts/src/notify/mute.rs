//! Times of the week, month and year at which nobody is told, or only then: Alertmanager's time intervals.
//!
//! A route is muted while one of its `mute_time_intervals` holds, or while none of its `active_time_intervals` does. Times are
//! of UTC, or of a fixed offset written as `location: "+02:00"`.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};

/// A time interval: all of its parts have to hold; a part that is empty always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeInterval {
    /// Minutes of the day, from and up to.
    pub times: Vec<(u16, u16)>,
    /// Days of the week, 0 is Sunday, both included.
    pub weekdays: Vec<(i8, i8)>,
    /// Days of the month, both included; -1 is the last one.
    pub days_of_month: Vec<(i8, i8)>,
    /// Months, both included.
    pub months: Vec<(i8, i8)>,
    /// Years, both included.
    pub years: Vec<(i16, i16)>,
    /// Where its clock stands.
    pub offset: Offset,
}

impl Default for TimeInterval {
    fn default() -> Self {
        TimeInterval {
            times: Vec::new(),
            weekdays: Vec::new(),
            days_of_month: Vec::new(),
            months: Vec::new(),
            years: Vec::new(),
            offset: Offset::UTC,
        }
    }
}

impl TimeInterval {
    /// Whether it holds at a time.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(TimeZone::fixed(self.offset));
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let weekday = weekday_number(local.weekday());
        let days_in_month = local.days_in_month();
        let day_of =
            |day: i8| if day < 0 { (days_in_month + 1 + day).max(1) } else { day.min(days_in_month) };
        holds(&self.times, |(from, to)| (*from..*to).contains(&minute))
            && holds(&self.weekdays, |(from, to)| (*from..=*to).contains(&weekday))
            && holds(&self.days_of_month, |(from, to)| {
                // A range that begins after this month's end holds on none of its days.
                let begins = *from < 0 || *from <= days_in_month;
                begins && (day_of(*from)..=day_of(*to)).contains(&local.day())
            })
            && holds(&self.months, |(from, to)| (*from..=*to).contains(&local.month()))
            && holds(&self.years, |(from, to)| (*from..=*to).contains(&local.year()))
    }
}

fn holds<T>(ranges: &[T], is_in: impl Fn(&T) -> bool) -> bool {
    ranges.is_empty() || ranges.iter().any(is_in)
}

fn weekday_number(weekday: Weekday) -> i8 {
    weekday.to_sunday_zero_offset()
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Reads `09:00` as a minute of the day; `24:00` is its end.
pub(crate) fn read_minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= 24 * 60).then_some(all)
}

/// Reads `monday:friday` or `saturday`.
pub(crate) fn read_weekdays(text: &str) -> Option<(i8, i8)> {
    range(text, |word| WEEKDAYS.iter().position(|day| *day == word).and_then(|at| i8::try_from(at).ok()))
}

/// Reads `january:march`, `1:3` or `5`.
pub(crate) fn read_months(text: &str) -> Option<(i8, i8)> {
    range(text, |word| {
        let named = MONTHS.iter().position(|month| *month == word).and_then(|at| i8::try_from(at + 1).ok());
        named.or_else(|| word.parse().ok()).filter(|month| (1..=12).contains(month))
    })
}

/// Reads `1:5`, `-3:-1` or `15`.
pub(crate) fn read_days_of_month(text: &str) -> Option<(i8, i8)> {
    let day = |word: &str| word.parse().ok().filter(|day: &i8| *day != 0 && (-31..=31).contains(day));
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let (from, to) = (day(from)?, day(to)?);
    // A range from the end to the beginning is none; of mixed signs it depends on the month.
    ((from < 0) != (to < 0) || from <= to).then_some((from, to)).filter(|(from, to)| !(*from < 0 && *to > 0))
}

/// Reads `2026:2027` or `2026`.
pub(crate) fn read_years(text: &str) -> Option<(i16, i16)> {
    range(text, |word| word.parse().ok().filter(|year: &i16| (1..=9_999).contains(year)))
}

/// Reads `UTC` or `+02:00`.
pub(crate) fn read_offset(text: &str) -> Option<Offset> {
    if text == "UTC" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let minutes = read_minute(rest).filter(|minutes| *minutes <= 15 * 60)?;
    Offset::from_seconds(sign * i32::from(minutes) * 60).ok()
}

fn range<T: PartialOrd + Copy>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let (from, to) = (read(from)?, read(to)?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_when_each_of_its_parts_does() {
        let office = TimeInterval {
            times: vec![(read_minute("09:00").unwrap(), read_minute("17:00").unwrap())],
            weekdays: vec![read_weekdays("monday:friday").unwrap()],
            offset: read_offset("+02:00").unwrap(),
            ..TimeInterval::default()
        };
        for (time, expected) in [
            ("2026-11-26T06:59:59Z", false),
            ("2026-11-26T07:00:00Z", true),
            ("2026-11-26T14:59:59Z", true),
            ("2026-11-26T15:00:00Z", false),
            ("2026-11-28T10:00:00Z", false),
        ] {
            assert_eq!(office.holds(time.parse().unwrap()), expected, "{time}");
        }
        let month_end = TimeInterval { days_of_month: vec![(-2, -1)], ..TimeInterval::default() };
        for (time, expected) in [
            ("2026-02-26T00:00:00Z", false),
            ("2026-02-27T00:00:00Z", true),
            ("2026-02-28T00:00:00Z", true),
            ("2028-02-28T00:00:00Z", true),
            ("2028-02-27T00:00:00Z", false),
        ] {
            assert_eq!(month_end.holds(time.parse().unwrap()), expected, "{time}");
        }
        let never_in_february = TimeInterval { days_of_month: vec![(30, 31)], ..TimeInterval::default() };
        assert!(!never_in_february.holds("2026-02-28T00:00:00Z".parse().unwrap()));
        assert!(never_in_february.holds("2026-04-30T00:00:00Z".parse().unwrap()));
        let spring =
            TimeInterval { months: vec![(3, 5)], years: vec![(2026, 2026)], ..TimeInterval::default() };
        assert!(spring.holds("2026-05-31T23:59:59Z".parse().unwrap()));
        assert!(!spring.holds("2027-05-31T23:59:59Z".parse().unwrap()));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["9:00", "24:01", "10:60", "x", "10", "1000"] {
            assert_eq!(read_minute(text), None, "{text}");
        }
        assert_eq!((read_weekdays("friday:monday"), read_weekdays("fri")), (None, None));
        assert_eq!(
            (read_months("13"), read_months("may:march"), read_months("may")),
            (None, None, Some((5, 5)))
        );
        for text in ["0", "32", "-32", "-1:1", "5:3"] {
            assert_eq!(read_days_of_month(text), None, "{text}");
        }
        assert_eq!(read_days_of_month("1:-1"), Some((1, -1)));
        assert_eq!((read_offset("Europe/Paris"), read_offset("+99:00")), (None, None));
    }
}

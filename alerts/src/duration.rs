//! Durations as Prometheus writes them: `90s`, `5m`, `1h30m`, `7d`, `250ms`.

use std::time::Duration;

use thiserror::Error;

use crate::limits::DURATION_MAX;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// It is not a row of numbers with units.
    #[error(
        "{0:?} is no duration: write numbers with units from large to small, as in 1h30m (y, w, d, h, m, s, ms)"
    )]
    Shape(String),
    /// It is longer than a year.
    #[error("{0:?} is longer than a year")]
    Long(String),
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration. Units stand from large to small, each at most once; `0` needs none.
///
/// # Errors
///
/// When the text has another shape, or says more than a year.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(beeacon_alerts::duration::parse("1h30m"), Ok(Duration::from_secs(5_400)));
/// assert!(beeacon_alerts::duration::parse("5").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let shape = || DurationError::Shape(text.chars().take(40).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut next_unit, mut total_ms) = (text, 0, 0_u64);
    while !rest.is_empty() || next_unit == 0 {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(shape)?;
        let (digits, behind) = rest.split_at(digits_end);
        let unit_end = behind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let number: u64 = digits.parse().map_err(|_| shape())?;
        let (at, factor) = UNITS
            .iter()
            .enumerate()
            .skip(next_unit)
            .find_map(|(at, (name, factor))| (*name == unit).then_some((at, *factor)))
            .ok_or_else(shape)?;
        total_ms = number
            .checked_mul(factor)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or_else(|| DurationError::Long(text.chars().take(40).collect()))?;
        next_unit = at + 1;
        rest = behind;
    }
    let duration = Duration::from_millis(total_ms);
    if duration > DURATION_MAX {
        return Err(DurationError::Long(text.chars().take(40).collect()));
    }
    Ok(duration)
}

/// Writes a duration as [`parse`] reads it, in days and below.
#[must_use]
pub fn write(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, factor) in UNITS.iter().skip(2) {
        if left >= *factor {
            out.push_str(&format!("{}{unit}", left / factor));
            left %= factor;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_takes_is_taken_and_the_rest_is_refused() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "5", "m", "5 m", "-5m", "5M", "1m1h", "1m1m", "1.5h", "5mm", "5m ", "99999999999999999999s"]
        {
            assert!(matches!(parse(text), Err(DurationError::Shape(_))), "{text}");
        }
        for text in ["2y", "9999999999999999999y", "9999999999w"] {
            assert!(matches!(parse(text), Err(DurationError::Long(_))), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for milliseconds in [1, 999, 1_000, 60_500, 5_400_000, 86_400_001, 31_536_000_000] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse(&write(duration)), Ok(duration));
        }
    }
}

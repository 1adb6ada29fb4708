//! Promtool's notation of series: `name{label="value"}` and values such as `1+2x5`, `3x4`, `_`, `_x3`, `stale`, `NaN`, `-Inf`.

use std::time::Duration;

use crate::labels::Labels;
use crate::limits::UNIT_TEST_VALUES_MAX;

/// How far back the last value of a series is looked for: Prometheus' default.
const LOOKED_BACK: Duration = Duration::from_secs(5 * 60);

/// A series with its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    interval: Duration,
    values: Vec<Step>,
}

/// What a series says at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Value(f64),
    Nothing,
    /// It ends here.
    Stale,
}

impl Series {
    /// Reads name and labels, and the values at multiples of an interval. None when one of them has another shape, or there are
    /// more than [`UNIT_TEST_VALUES_MAX`] values.
    #[must_use]
    pub fn read(series: &str, values: &str, interval: Duration) -> Option<Series> {
        let (name, labels) = read_name(series.trim())?;
        let mut steps = Vec::new();
        for text in values.split_whitespace() {
            read_steps(text, &mut steps)?;
        }
        Some(Series { name, labels, interval, values: steps })
    }

    /// Its value at a time since the start, as PromQL sees it: the last one within five minutes.
    #[must_use]
    pub fn value(&self, at: Duration) -> Option<f64> {
        let newest = usize::try_from(at.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(usize::MAX);
        for step in (0..=newest.min(self.values.len().checked_sub(1)?)).rev() {
            let age =
                at.saturating_sub(self.interval.saturating_mul(u32::try_from(step).unwrap_or(u32::MAX)));
            if age > LOOKED_BACK {
                return None;
            }
            match self.values.get(step)? {
                Step::Value(value) => return Some(*value),
                Step::Stale => return None,
                Step::Nothing => {}
            }
        }
        None
    }
}

/// `name{a="b",c="d"}`. Values end at the next quote that has no backslash before it.
fn read_name(text: &str) -> Option<(String, Labels)> {
    let (name, rest) = match text.split_once('{') {
        Some((name, rest)) => (name.trim(), rest.strip_suffix('}')?.trim()),
        None => (text, ""),
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    if name.is_empty() || !name.chars().all(is_part) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mut labels, mut rest) = (Labels::new(), rest);
    while !rest.is_empty() {
        let (label, behind) = rest.split_once('=')?;
        let mut value = String::new();
        let mut chars = behind.trim_start().strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    c => c,
                }),
                c => value.push(c),
            }
        }
        labels.set(label.trim(), value);
        rest = chars.as_str().trim_start();
        rest = match rest.strip_prefix(',') {
            Some(behind) => behind.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some((name.to_owned(), labels))
}

/// One word of the values.
fn read_steps(text: &str, steps: &mut Vec<Step>) -> Option<()> {
    let (what, times) = match text.rsplit_once('x') {
        Some((what, times)) => (what, Some(times.parse::<usize>().ok()?)),
        None => (text, None),
    };
    if steps.len().saturating_add(times.unwrap_or(0)) >= UNIT_TEST_VALUES_MAX {
        return None;
    }
    match (what, times) {
        ("_", times) => steps.extend(std::iter::repeat_n(Step::Nothing, times.unwrap_or(1))),
        ("stale", None) => steps.push(Step::Stale),
        (number, None) => steps.push(Step::Value(number.parse().ok()?)),
        (what, Some(times)) => {
            // `a+bxn` and `a-bxn`, or `axn`: n + 1 values. A sign at the start or behind an exponent is the number's own.
            let bytes = what.as_bytes();
            let split = (1..bytes.len()).rev().find(|at| {
                matches!(bytes.get(*at), Some(b'+' | b'-')) && !matches!(bytes.get(at - 1), Some(b'e' | b'E'))
            });
            let (first, by) = match split {
                Some(at) => (what.get(..at)?.parse::<f64>().ok()?, what.get(at..)?.parse::<f64>().ok()?),
                None => (what.parse().ok()?, 0.0),
            };
            // A count this small is a float exactly.
            steps.extend((0..=times).map(|step| Step::Value(first + by * step as f64)));
        }
    }
    Some(())
}

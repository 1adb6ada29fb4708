//! Counts over what flows by: how often a redaction rule hit, a level or a text came, within a window, per service.
//!
//! `stream: {count: redaction, of: email, window: 1m, at_least: 100}` in a rule file. `count` is `redaction`, `level`, `text`
//! or `lines`; `of` names the redaction rule, the level, or the text that a scrubbed line contains (for `redaction`, without
//! `of`, every rule counts); `service` limits it to one service; `by: all` counts services together.
//!
//! Lines are counted when they come, not when they were written: a leak in lines that arrive late is a leak all the same.
//!
//! What always holds:
//! - Memory is bounded: [`STREAM_SERIES_MAX`] series of [`STREAM_PARTS`] numbers per rule; what would be more is counted as
//!   refused and told, never silently.
//! - A window's count is that of a naive list of events, cut at a sixtieth of the window; time that runs backwards adds to
//!   the newest part.
//! - No text of a line is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::labels::{Labels, quoted};
use crate::limits::{
    STREAM_PARTS, STREAM_SERIES_MAX, STREAM_SERVICE_BYTES_MAX, STREAM_TEXT_BYTES_MAX, STREAM_WINDOW_MAX,
};
use crate::state::Sample;
use crate::template::cut;
use crate::yaml::{Faults, Node, Taker};

/// What a streaming rule counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCount {
    /// What is counted.
    pub what: Counted,
    /// Of one service only.
    pub service: Option<String>,
    /// Whether each service has its own count.
    pub by_service: bool,
    /// Within which time.
    pub window: Duration,
    /// From how many on there is an alert.
    pub at_least: u64,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// What the pollen filter took out, by one rule or by any.
    Redaction(Option<String>),
    /// Lines of a level.
    Level(String),
    /// Lines that contain a text.
    Text(String),
    /// Lines.
    Lines,
}

/// As users see it; two rules that count otherwise have other words.
impl fmt::Display for StreamCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Counted::Redaction(None) => f.write_str("redactions")?,
            Counted::Redaction(Some(rule)) => write!(f, "redactions by {}", quoted(rule))?,
            Counted::Level(level) => write!(f, "lines of level {}", quoted(level))?,
            Counted::Text(text) => write!(f, "lines that contain {}", quoted(text))?,
            Counted::Lines => f.write_str("lines")?,
        }
        if let Some(service) = &self.service {
            write!(f, " of service {}", quoted(service))?;
        }
        let by = if self.by_service { "per service" } else { "of all services together" };
        write!(f, ", {by}: at least {} within {} s", self.at_least, self.window.as_secs_f64())
    }
}

/// A scrubbed line as a streaming rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct StreamLine<'a> {
    /// The service it came from.
    pub service: &'a str,
    /// Its level.
    pub level: &'a str,
    /// Its text, scrubbed.
    pub message: &'a str,
    /// What was taken out of it: rules and how often.
    pub redactions: &'a [(&'a str, u64)],
}

const KEYS: [&str; 6] = ["count", "of", "service", "by", "window", "at_least"];

/// Reads the map behind `stream:`.
pub(crate) fn read(node: Node, faults: &mut Faults) -> Option<StreamCount> {
    let mut taker = Taker::new(node, "`stream`", faults)?;
    let place = taker.place;
    let count = taker.text("count", faults);
    let of = taker.text("of", faults);
    let service = taker.text("service", faults).map(|(_, service)| service);
    let by = taker.text("by", faults);
    let window = taker.duration("window", faults);
    let at_least = taker.count("at_least", faults);
    taker.finish(&KEYS, faults);

    let what = match (count.as_ref().map(|(_, word)| word.as_str()), of) {
        (Some("redaction"), of) => Some(Counted::Redaction(of.map(|(_, rule)| rule))),
        (Some("level"), Some((_, level))) => Some(Counted::Level(level)),
        (Some("text"), Some((place, text))) => {
            if text.is_empty() || text.len() > STREAM_TEXT_BYTES_MAX {
                faults.add(place, format!("the text of `of` has 1 to {STREAM_TEXT_BYTES_MAX} bytes"));
            }
            Some(Counted::Text(text))
        }
        (Some("lines"), None) => Some(Counted::Lines),
        (Some("lines"), Some((place, _))) => {
            faults.add(place, "`count: lines` has no `of`");
            None
        }
        (Some("level" | "text"), None) => {
            faults.add(place, "`of` is missing: which level or text is counted");
            None
        }
        _ => {
            faults.add(count.map_or(place, |(place, _)| place), "`count` is redaction, level, text or lines");
            None
        }
    };
    let by_service = match by.as_ref().map(|(_, word)| word.as_str()) {
        None | Some("service") => true,
        Some("all") => false,
        Some(_) => {
            faults.add(by.map_or(place, |(place, _)| place), "`by` is service or all");
            false
        }
    };
    let (least, most) = (Duration::from_secs(1), STREAM_WINDOW_MAX);
    if window.is_none_or(|window| window < least || window > most) {
        faults.add(place, "`window` is a duration from 1s to 1d");
    }
    if at_least.is_none_or(|count| count == 0) {
        faults.add(place, "`at_least` is a count from 1 on");
    }
    Some(StreamCount { what: what?, service, by_service, window: window?, at_least: at_least? })
}

/// The counts of one streaming rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    series: BTreeMap<String, Window>,
    /// Lines that were not counted because there were too many series.
    pub refused: u64,
}

/// The counts of one series, by part of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    /// The number of the newest part since 1970.
    newest: i64,
    /// Counts, the newest part first; shorter while the window is young.
    parts: Vec<u64>,
    total: u64,
}

impl Window {
    fn advance(&mut self, part: i64) {
        if self.parts.is_empty() {
            self.newest = part;
            self.parts.push(0);
        }
        let steps = part.saturating_sub(self.newest);
        if steps <= 0 {
            return;
        }
        let steps = usize::try_from(steps).unwrap_or(usize::MAX).min(STREAM_PARTS);
        self.newest = part;
        self.parts.splice(0..0, std::iter::repeat_n(0, steps));
        self.total -= self.parts.drain(STREAM_PARTS.min(self.parts.len())..).sum::<u64>();
    }

    fn add(&mut self, part: i64, count: u64) {
        self.advance(part);
        if let Some(first) = self.parts.first_mut() {
            let before = *first;
            *first = first.saturating_add(count);
            self.total = self.total.saturating_add(*first - before);
        }
    }
}

impl StreamState {
    /// Counts the lines of a batch. Answers whether a series reached its number with them, so that the rule is to be
    /// evaluated now and not at the next moment of its group.
    pub fn observe<'a>(
        &mut self,
        rule: &StreamCount,
        now: Timestamp,
        lines: impl IntoIterator<Item = StreamLine<'a>>,
    ) -> bool {
        let finder = match &rule.what {
            Counted::Text(text) => Some(memmem::Finder::new(text)),
            _ => None,
        };
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for line in lines {
            if rule.service.as_deref().is_some_and(|service| service != line.service) {
                continue;
            }
            let count = match &rule.what {
                Counted::Redaction(of) => line
                    .redactions
                    .iter()
                    .filter(|(rule, _)| of.as_deref().is_none_or(|of| of == *rule))
                    .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count)),
                Counted::Level(level) => u64::from(line.level == level),
                Counted::Text(_) => u64::from(
                    finder.as_ref().is_some_and(|finder| finder.find(line.message.as_bytes()).is_some()),
                ),
                Counted::Lines => 1,
            };
            if count > 0 {
                let sum = counts.entry(if rule.by_service { line.service } else { "" }).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        let part = part_at(rule, now);
        let mut is_reached = false;
        for (service, count) in counts {
            is_reached |= self.add(rule, part, service, count);
        }
        is_reached
    }

    fn add(&mut self, rule: &StreamCount, part: i64, service: &str, count: u64) -> bool {
        let key = cut(service.to_owned(), STREAM_SERVICE_BYTES_MAX);
        if !self.series.contains_key(&key) && self.series.len() >= STREAM_SERIES_MAX {
            self.forget(part);
            if self.series.len() >= STREAM_SERIES_MAX {
                self.refused = self.refused.saturating_add(count);
                return false;
            }
        }
        let window = self.series.entry(key).or_default();
        window.advance(part);
        let was_below = window.total < rule.at_least;
        window.add(part, count);
        was_below && window.total >= rule.at_least
    }

    /// Drops series whose window is empty.
    fn forget(&mut self, part: i64) {
        self.series.retain(|_, window| {
            window.advance(part);
            window.total > 0
        });
    }

    /// The rows of the rule at a moment: the series that have reached its number.
    pub fn rows(&mut self, rule: &StreamCount, now: Timestamp) -> Vec<Sample> {
        self.forget(part_at(rule, now));
        self.series
            .iter()
            .filter(|(_, window)| window.total >= rule.at_least)
            .map(|(service, window)| Sample {
                labels: labels(rule, service),
                // Counts beyond 2^53 lose their last digits, which nobody reads.
                value: window.total as f64,
            })
            .collect()
    }
}

/// What a row of a streaming rule is about.
fn labels(rule: &StreamCount, service: &str) -> Labels {
    let mut labels = Labels::new();
    let service = if rule.by_service { service } else { rule.service.as_deref().unwrap_or("") };
    labels.set("service", service);
    match &rule.what {
        Counted::Redaction(Some(of)) => labels.set("redaction", of.as_str()),
        Counted::Level(level) => labels.set("level", level.as_str()),
        Counted::Redaction(None) | Counted::Text(_) | Counted::Lines => {}
    }
    labels
}

fn part_at(rule: &StreamCount, now: Timestamp) -> i64 {
    let parts = i128::try_from(STREAM_PARTS).unwrap_or(1);
    let part_ns = (i128::try_from(rule.window.as_nanos()).unwrap_or(i128::MAX) / parts).max(1);
    i64::try_from(now.as_nanosecond().div_euclid(part_ns)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

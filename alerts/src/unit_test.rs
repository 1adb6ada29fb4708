//! Unit tests of rules, in the shape of promtool's, with log lines as input.
//!
//! ```yaml
//! rule_files: [leaks.yaml]
//! evaluation_interval: 1m
//! tests:
//!   - name: a service that leaks is told
//!     interval: 1m
//!     input_lines:
//!       - {at: 30s, service: web, message: "login of ada@example.com", repeat: 20, every: 2s}
//!     input_series:
//!       - {series: 'beeacon_collector_journal_bytes{}', values: '10+5x10'}
//!     input_gaps:
//!       - {at: 2m, service: web, reason: rotated, bytes: 100}
//!     input_agents:
//!       - {host: web-1, from: 0m, until: 5m}
//!     alert_rule_test:
//!       - eval_time: 5m
//!         alertname: PiiLeakRate
//!         exp_alerts:
//!           - exp_labels: {service: web, severity: high}
//!             exp_annotations: {summary: "web leaks"}
//! ```
//!
//! Promtool's keys mean what they mean there: time starts at zero, rules are evaluated at every multiple of their group's
//! interval (`evaluation_interval` where a group names none, or a minute), a case looks at the alerts that fire at the last
//! evaluation up to its time, and an alert is right when all of its labels (but `alertname`) and all of its texts are.
//!
//! - `input_lines` are log lines: `at` and `message`, and `service`, `host`, `container`, `level` (found in the text when not
//!   said), `repeat` times, one `every` so long. They go through the pollen filter.
//! - `input_series` in promtool's notation are the rows of the table `metrics`: the last value of each series within five
//!   minutes, as PromQL would see it.
//! - `input_gaps` are rows of `gaps`, `input_agents` of `agents`: an agent is heard of all the time `from` … `until`.
//!
//! Pure but for what a [`World`] does: it takes lines in and answers queries, with the real filter and the real engine.

mod read;
mod run;
mod series;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::run::{Failure, News, World, run};
pub use self::series::Series;
use crate::labels::Labels;
use crate::yaml::Place;

/// A file of unit tests.
#[derive(Clone, Debug, PartialEq)]
pub struct TestFile {
    /// The rule files that are tested, as they are written; relative ones stand beside this file.
    pub rule_files: Vec<String>,
    /// How often groups that name no interval are evaluated.
    pub evaluation_interval: Duration,
    /// The tests.
    pub tests: Vec<Test>,
}

/// A test: what comes in, and what has to fire.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Its name; empty when it has none.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Log lines.
    pub lines: Vec<InputLine>,
    /// Metrics.
    pub series: Vec<Series>,
    /// Losses.
    pub gaps: Vec<InputGap>,
    /// Agents.
    pub agents: Vec<InputAgent>,
    /// What is looked at.
    pub cases: Vec<Case>,
}

/// A log line that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLine {
    /// When, since the start.
    pub at: Duration,
    /// The service.
    pub service: String,
    /// The host.
    pub host: String,
    /// The container.
    pub container: String,
    /// Its level; found in the text when not said.
    pub level: Option<String>,
    /// Its text, not scrubbed yet.
    pub message: String,
}

/// A loss that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputGap {
    /// When it was received, since the start.
    pub at: Duration,
    /// The service.
    pub service: String,
    /// Why.
    pub reason: String,
    /// The bytes lost.
    pub bytes: u64,
}

/// An agent that is heard of for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputAgent {
    /// Its host.
    pub host: String,
    /// From when on, since the start.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

impl InputAgent {
    /// When it was last heard of, at a time since the start; none when it was not yet.
    #[must_use]
    pub fn last_seen(&self, now: Duration) -> Option<Duration> {
        (now >= self.from).then(|| now.min(self.until))
    }
}

/// What is looked at, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// When, since the start.
    pub eval_time: Duration,
    /// Which rule's alerts.
    pub alertname: String,
    /// The alerts that have to fire, and no others.
    pub expected: Vec<Expected>,
    /// Where it stands.
    pub place: Place,
}

/// An alert that has to fire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// All of its labels but `alertname`.
    pub labels: Labels,
    /// All of its texts.
    pub annotations: Labels,
}

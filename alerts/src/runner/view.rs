//! What is shown of rules and their alerts: plain values, made under the lock and used outside of it.

use jiff::Timestamp;
use serde::Serialize;

use crate::labels::{Fingerprint, Labels};
use crate::state::Sample;

/// A group of rules.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The file that it is from.
    pub file: String,
    /// How often it is evaluated, in seconds.
    #[serde(rename = "interval")]
    pub interval_seconds: f64,
    /// Its rules.
    pub rules: Vec<RuleView>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    /// Names it.
    pub id: String,
    /// The value of `alertname`, or the series' name.
    pub name: String,
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `sql` or `stream`.
    pub source: &'static str,
    /// The query, or what is counted.
    pub query: String,
    /// `for`, in seconds.
    #[serde(rename = "duration")]
    pub duration_seconds: f64,
    /// `keep_firing_for`, in seconds.
    #[serde(rename = "keepFiringFor")]
    pub keep_firing_for_seconds: f64,
    /// `inactive`, `pending` or `firing`; none of a rule that records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// `ok`, `err` or `unknown`.
    pub health: &'static str,
    /// Why the last evaluation failed, if it did.
    #[serde(rename = "lastError")]
    pub last_error: String,
    /// The moment of the last evaluation.
    #[serde(rename = "lastEvaluation")]
    pub last_evaluation: Option<Timestamp>,
    /// How long it took, in seconds.
    #[serde(rename = "evaluationTime")]
    pub evaluation_seconds: f64,
    /// Evaluations since the start.
    pub evaluations: u64,
    /// Those that failed.
    pub failures: u64,
    /// Evaluations that were never made, ever.
    pub missed: u64,
    /// Lines that a streaming rule did not count, because there were too many services.
    pub refused: u64,
    /// Its alerts.
    pub alerts: Vec<AlertView>,
    /// What it recorded last.
    #[serde(skip)]
    pub recorded: Vec<Sample>,
}

/// An alert.
#[derive(Clone, Debug, Serialize)]
pub struct AlertView {
    /// Its labels.
    pub labels: Labels,
    /// Its texts.
    pub annotations: Labels,
    /// `pending`, `firing` or `resolved`.
    pub state: &'static str,
    /// Since when its row has been there.
    #[serde(rename = "activeAt")]
    pub active_at: Timestamp,
    /// When it began to fire.
    #[serde(rename = "firedAt")]
    pub fired_at: Option<Timestamp>,
    /// When it ended.
    #[serde(rename = "resolvedAt")]
    pub resolved_at: Option<Timestamp>,
    /// Its number.
    pub value: String,
    /// Names its labels.
    pub fingerprint: Fingerprint,
    /// Whether a silence covers it.
    pub silenced: bool,
    /// Whether another alert keeps it quiet.
    pub inhibited: bool,
}

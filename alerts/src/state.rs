//! The states of one rule's alerts: inactive, pending, firing, resolved.
//!
//! Pure: `on(now, evaluation)` answers with the transitions. The meaning is Prometheus': every row of the rule's query is an
//! alert; it is pending until it has been there for `for`, then it fires; gone, it stays firing for `keep_firing_for`, then it
//! is resolved. A pending alert that goes away was nothing and leaves no resolution.
//!
//! What always holds:
//! - An evaluation that failed changes no alert (unless the rule says otherwise); the error is kept and shown.
//! - Every transition to firing or resolved has an event id, made from the rule, the labels, the state and the moment: an
//!   evaluation that is repeated after a crash makes the same ids.
//! - The state is serialisable, and what is read back goes on as if nothing had been.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::labels::{ALERTNAME, Fingerprint, Labels};
use crate::limits::{
    ANNOTATION_BYTES_MAX, ERROR_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, RESOLVED_KEPT_FOR,
};
use crate::rules::{AlertRule, WhenMissing};
use crate::sign::short_hex;
use crate::template::{Scope, cut};

/// A row of a rule's query: its labels and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What the row is about.
    pub labels: Labels,
    /// Its number.
    pub value: f64,
}

/// What became of a rule's query.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// It gave these rows.
    Rows(Vec<Sample>),
    /// It failed. The text is shown to users: it says what failed, never what a line held.
    Failed(String),
}

/// Where an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its row is there, not yet for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It fired and does no more.
    Resolved,
}

impl Phase {
    /// The word that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Firing => "firing",
            Phase::Resolved => "resolved",
        }
    }
}

/// One alert of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// All of its labels, `alertname` among them.
    pub labels: Labels,
    /// Its texts.
    pub annotations: Labels,
    /// Where it is.
    pub phase: Phase,
    /// The number of its row when it was last there.
    #[serde(with = "float")]
    pub value: f64,
    /// Since when its row has been there.
    pub active_at: Timestamp,
    /// When it began to fire.
    pub fired_at: Option<Timestamp>,
    /// Since when it fires without its row.
    pub kept_since: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
}

/// How an evaluation went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// There was none yet.
    #[default]
    Unknown,
    /// It gave rows, or none.
    Ok,
    /// It failed, with this text.
    Failed(String),
}

/// The state of a rule. Made by [`Default`] for a rule that is new.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    alerts: BTreeMap<Fingerprint, Alert>,
    /// How the last evaluation went.
    pub health: Health,
    /// The moment of the last evaluation.
    pub evaluated_at: Option<Timestamp>,
    /// Evaluations that were never made, in all.
    pub missed: u64,
}

/// A change of one alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The event's id: the same for the same change, however often it is seen.
    pub event_id: String,
    /// The alert as it is now.
    pub alert: Alert,
    /// What it became.
    pub change: Change,
    /// When.
    pub at: Timestamp,
}

/// What an alert became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Its row appeared.
    Pending,
    /// It fires.
    Firing,
    /// It does not fire any more.
    Resolved,
    /// It was pending and its row is gone.
    Cancelled,
}

impl Change {
    /// Whether somebody has to be told.
    #[must_use]
    pub fn is_told(self) -> bool {
        matches!(self, Change::Firing | Change::Resolved)
    }
}

impl RuleState {
    /// The alerts, resolved ones too.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// Takes an evaluation in.
    pub fn on(
        &mut self,
        rule: &AlertRule,
        external_labels: &Labels,
        now: Timestamp,
        evaluation: Evaluation,
    ) -> Vec<Transition> {
        self.evaluated_at = Some(now);
        let (rows, answer) = match evaluation {
            Evaluation::Rows(rows) if rows.is_empty() => {
                self.health = Health::Ok;
                match rule.no_data {
                    WhenMissing::Ok => (Vec::new(), Answer::Given),
                    WhenMissing::Keep => return Vec::new(),
                    WhenMissing::Alert => (vec![missing("no_data")], Answer::Given),
                }
            }
            Evaluation::Rows(rows) => {
                self.health = Health::Ok;
                (rows, Answer::Given)
            }
            Evaluation::Failed(text) => {
                self.health = Health::Failed(cut(text, ERROR_BYTES_MAX));
                match rule.on_error {
                    WhenMissing::Keep => return Vec::new(),
                    WhenMissing::Ok => (Vec::new(), Answer::Given),
                    WhenMissing::Alert => (vec![missing("error")], Answer::Missing),
                }
            }
        };
        match labelled(rule, external_labels, now, rows) {
            Ok(active) => self.step(rule, now, active, answer),
            Err(text) => {
                self.health = Health::Failed(text);
                Vec::new()
            }
        }
    }

    fn step(
        &mut self,
        rule: &AlertRule,
        now: Timestamp,
        active: BTreeMap<Fingerprint, Alert>,
        answer: Answer,
    ) -> Vec<Transition> {
        let mut transitions = Vec::new();
        // A missing answer says nothing about the rows that were there: they stay until there is an answer again.
        if answer == Answer::Given {
            self.step_absent(rule, now, &active, &mut transitions);
        }
        for (fingerprint, mut fresh) in active {
            let known = self.alerts.get(&fingerprint).filter(|alert| alert.phase != Phase::Resolved);
            let is_new = known.is_none();
            if let Some(known) = known {
                fresh.phase = known.phase;
                fresh.active_at = known.active_at;
                fresh.fired_at = known.fired_at;
            }
            let has_waited = elapsed(fresh.active_at, now) >= rule.hold;
            if fresh.phase == Phase::Pending && has_waited {
                fresh.phase = Phase::Firing;
                fresh.fired_at = Some(now);
                transitions.push(transition(rule, &fresh, Change::Firing, now));
            } else if is_new {
                transitions.push(transition(rule, &fresh, Change::Pending, now));
            }
            self.alerts.insert(fingerprint, fresh);
        }
        transitions
    }

    /// What becomes of the alerts whose row is not there.
    fn step_absent(
        &mut self,
        rule: &AlertRule,
        now: Timestamp,
        active: &BTreeMap<Fingerprint, Alert>,
        transitions: &mut Vec<Transition>,
    ) {
        self.alerts.retain(|fingerprint, alert| {
            if active.contains_key(fingerprint) {
                return true;
            }
            match alert.phase {
                Phase::Pending => {
                    transitions.push(transition(rule, alert, Change::Cancelled, now));
                    false
                }
                Phase::Firing => {
                    let kept_since = *alert.kept_since.get_or_insert(now);
                    if elapsed(kept_since, now) >= rule.keep_firing_for {
                        alert.phase = Phase::Resolved;
                        alert.resolved_at = Some(now);
                        transitions.push(transition(rule, alert, Change::Resolved, now));
                    }
                    true
                }
                Phase::Resolved => alert.resolved_at.is_some_and(|at| elapsed(at, now) <= RESOLVED_KEPT_FOR),
            }
        });
    }

    /// Resolves everything: the rule is gone.
    pub fn end(&mut self, rule_id: &str, now: Timestamp) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for alert in self.alerts.values_mut().filter(|alert| alert.phase == Phase::Firing) {
            alert.phase = Phase::Resolved;
            alert.resolved_at = Some(now);
            transitions.push(transition_of(rule_id, alert, Change::Resolved, now));
        }
        self.alerts.clear();
        transitions
    }
}

/// Whether the query answered, be it with no rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Given,
    Missing,
}

fn missing(reason: &str) -> Sample {
    Sample { labels: Labels::from_iter([("reason", reason)]), value: 0.0 }
}

/// The rows as alerts, with the rule's labels and texts.
fn labelled(
    rule: &AlertRule,
    external_labels: &Labels,
    now: Timestamp,
    rows: Vec<Sample>,
) -> Result<BTreeMap<Fingerprint, Alert>, String> {
    if rows.len() > rule.limit {
        return Err(format!("the query gave {} rows, the limit of the group is {}", rows.len(), rule.limit));
    }
    let mut active = BTreeMap::new();
    for Sample { labels: row, value } in rows {
        let scope = Scope { labels: &row, external_labels, value };
        let mut labels = row.clone();
        for (name, template) in &rule.labels {
            labels.set(name, template.render(scope, LABEL_VALUE_BYTES_MAX));
        }
        labels.set(ALERTNAME, rule.name.clone());
        if labels.len() > LABELS_MAX {
            return Err(format!("an alert has {} labels, the limit is {LABELS_MAX}", labels.len()));
        }
        let annotations = rule
            .annotations
            .iter()
            .map(|(name, template)| (name.clone(), template.render(scope, ANNOTATION_BYTES_MAX)))
            .collect();
        let alert = Alert {
            labels,
            annotations,
            phase: Phase::Pending,
            value,
            active_at: now,
            fired_at: None,
            kept_since: None,
            resolved_at: None,
        };
        if active.insert(alert.labels.fingerprint(), alert).is_some() {
            return Err(
                "two rows have the same labels once the rule's are applied: group the query by what the \
                        rows are about"
                    .to_owned(),
            );
        }
    }
    Ok(active)
}

fn transition(rule: &AlertRule, alert: &Alert, change: Change, at: Timestamp) -> Transition {
    transition_of(&rule.id, alert, change, at)
}

fn transition_of(rule_id: &str, alert: &Alert, change: Change, at: Timestamp) -> Transition {
    let event_id = event_id(rule_id, alert.labels.fingerprint(), change, alert.active_at, at);
    Transition { event_id, alert: alert.clone(), change, at }
}

/// The id of a change: the hash of all that makes it this change.
fn event_id(
    rule_id: &str,
    labels: Fingerprint,
    change: Change,
    active_at: Timestamp,
    at: Timestamp,
) -> String {
    let mut hash = Sha256::new();
    hash.update(b"beeacon-alert-event-1\0");
    hash.update(rule_id.as_bytes());
    hash.update([0]);
    hash.update(labels.0.to_be_bytes());
    hash.update([change as u8]);
    hash.update(active_at.as_nanosecond().to_be_bytes());
    hash.update(at.as_nanosecond().to_be_bytes());
    format!("evt_{}", short_hex(&hash.finalize()))
}

/// How long ago something was; nothing for what lies ahead, as when a clock was set back.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// Floats as text, since JSON has no NaN and no infinity.
mod float {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;

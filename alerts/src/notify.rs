//! Who is told what, and when: routes, groups, silences, inhibition, mute times, repeats.
//!
//! Pure and deterministic: [`Notifier::on`] takes changes of alerts, [`Notifier::tick`] takes a time and answers with the
//! messages that are due, [`Notifier::next_wake`] says when to call it again. The meaning is Alertmanager's:
//! - an alert goes down the tree of routes to the deepest ones that match, and at each joins the group of its `group_by`;
//! - a new group waits `group_wait`, then it is looked at every `group_interval`;
//! - a look sends a message when the group has new alerts or new resolutions since the last one to this receiver, or when
//!   `repeat_interval` has passed;
//! - silenced, inhibited and muted alerts are left out of the look; what a message said stands in the notification log, which
//!   is part of the state and survives restarts.
//!
//! What always holds: a message's id is made from the receiver, the group and what it says, so it is the same however often
//! the message is sent; a message is in the answer of `tick` exactly when the log says that it was.

pub mod config;
pub mod mute;
pub mod silence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::config::{Config, Receiver, RouteOptions};
use self::silence::Silence;
use crate::labels::{Fingerprint, Labels};
use crate::limits::{NOTIFIER_ALERTS_MAX, NOTIFIER_RESOLVED_KEPT_FOR, SILENCES_MAX};
use crate::matchers::all_match;
use crate::sign::short_hex;
use crate::state::{Change, Transition, elapsed};

/// An alert as receivers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveAlert {
    /// Its labels.
    pub labels: Labels,
    /// Its texts.
    pub annotations: Labels,
    /// When it began.
    pub starts_at: Timestamp,
    /// When it ended, once it has.
    pub ends_at: Option<Timestamp>,
    /// The number of its row, as text.
    pub value: String,
    /// Where it can be looked at.
    pub generator_url: String,
    /// The id of its last change.
    pub event_id: String,
}

impl ActiveAlert {
    /// Whether it fires.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.ends_at.is_none()
    }
}

/// Why a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The group's first.
    First,
    /// New alerts fire in the group.
    NewAlerts,
    /// Alerts of the group were resolved.
    NewResolved,
    /// All alerts of the group are resolved.
    AllResolved,
    /// The repeat interval has passed.
    Repeat,
}

/// A message that is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The same for the same message, however often it is sent.
    pub id: String,
    /// Whom it is for.
    pub receiver: String,
    /// The group's key, in Alertmanager's writing.
    pub group_key: String,
    /// The labels that the group is made by.
    pub group_labels: Labels,
    /// Why it is sent.
    pub reason: Reason,
    /// What it says, in Alertmanager's order.
    pub alerts: Vec<ActiveAlert>,
    /// When it became due.
    pub at: Timestamp,
}

/// What the last message of a group to a receiver said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LogEntry {
    at: Timestamp,
    firing: BTreeSet<Fingerprint>,
    resolved: BTreeSet<Fingerprint>,
}

/// Alerts that are told together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Group {
    route: String,
    labels: Labels,
    members: BTreeSet<Fingerprint>,
    next_at: Timestamp,
    log: BTreeMap<String, LogEntry>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotifierState {
    alerts: BTreeMap<Fingerprint, ActiveAlert>,
    groups: BTreeMap<String, Group>,
    silences: BTreeMap<String, Silence>,
    /// Alerts that were not taken in, because there were too many.
    pub refused: u64,
}

/// Decides who is told what.
#[derive(Clone, Debug)]
pub struct Notifier {
    config: Config,
    state: NotifierState,
}

impl Notifier {
    /// A notifier that goes on from a state. Groups of routes that are no more are dropped; their alerts go down the tree anew.
    #[must_use]
    pub fn new(config: Config, state: NotifierState, now: Timestamp) -> Notifier {
        let mut notifier = Notifier { config, state };
        let Notifier { config, state } = &mut notifier;
        state.groups.retain(|_, group| config.route(&group.route).is_some());
        let firing = state.alerts.iter().filter(|(_, alert)| alert.is_firing());
        let firing: Vec<_> = firing.map(|(key, alert)| (*key, alert.labels.clone())).collect();
        for (fingerprint, labels) in firing {
            notifier.route(fingerprint, &labels, now);
        }
        notifier
    }

    /// What survives a restart.
    #[must_use]
    pub fn state(&self) -> &NotifierState {
        &self.state
    }

    /// The alerts it knows.
    pub fn alerts(&self) -> impl Iterator<Item = &ActiveAlert> {
        self.state.alerts.values()
    }

    /// The silences, ended ones too until they are forgotten.
    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.state.silences.values()
    }

    /// A receiver by its name.
    #[must_use]
    pub fn receiver(&self, name: &str) -> Option<&Receiver> {
        self.config.receiver(name)
    }

    /// Sets a silence, or changes the one of that id. Answers whether there was room for it.
    pub fn silence(&mut self, silence: Silence, now: Timestamp) -> bool {
        self.state.silences.retain(|_, known| known.is_remembered(now));
        let has_room =
            self.state.silences.len() < SILENCES_MAX || self.state.silences.contains_key(&silence.id);
        if has_room {
            self.state.silences.insert(silence.id.clone(), silence);
        }
        has_room
    }

    /// Ends a silence now. Answers whether there was one.
    pub fn expire_silence(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(silence) = self.state.silences.get_mut(id) else { return false };
        silence.ends_at = silence.ends_at.min(now);
        true
    }

    /// Takes changes of alerts in. Pending alerts are nobody's matter.
    pub fn on(&mut self, now: Timestamp, generator_url: &str, transitions: &[Transition]) {
        for transition in transitions.iter().filter(|transition| transition.change.is_told()) {
            let alert = &transition.alert;
            let active = ActiveAlert {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at: alert.fired_at.unwrap_or(transition.at),
                ends_at: (transition.change == Change::Resolved).then_some(transition.at),
                value: crate::template::general(alert.value),
                generator_url: generator_url.to_owned(),
                event_id: transition.event_id.clone(),
            };
            let fingerprint = active.labels.fingerprint();
            let is_known = self.state.alerts.contains_key(&fingerprint);
            if !is_known && (!active.is_firing() || self.state.alerts.len() >= NOTIFIER_ALERTS_MAX) {
                // Nobody was told of it: neither is its end told.
                self.state.refused += u64::from(active.is_firing());
                continue;
            }
            let is_firing = active.is_firing();
            self.state.alerts.insert(fingerprint, active);
            if is_firing {
                self.route(fingerprint, &alert.labels, now);
            }
        }
    }

    /// Puts an alert into the groups of the routes that it comes to.
    fn route(&mut self, fingerprint: Fingerprint, labels: &Labels, now: Timestamp) {
        for route in self.config.routes_of(labels) {
            let group_labels = route.group_labels(labels);
            let key = format!("{}:{group_labels}", route.id);
            let group = self.state.groups.entry(key).or_insert_with(|| Group {
                route: route.id.clone(),
                labels: group_labels,
                members: BTreeSet::new(),
                next_at: later(now, route.group_wait),
                log: BTreeMap::new(),
            });
            group.members.insert(fingerprint);
        }
    }

    /// When the next group is to be looked at.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.state.groups.values().map(|group| group.next_at).min()
    }

    /// Looks at every group whose time has come, and answers with the messages that are due.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Notification> {
        let mut due = Vec::new();
        let keys: Vec<String> = self
            .state
            .groups
            .iter()
            .filter(|(_, group)| group.next_at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &keys {
            due.extend(self.look_at(key, now));
        }
        if !keys.is_empty() || self.state.groups.is_empty() {
            self.forget(now);
        }
        due
    }

    fn look_at(&mut self, key: &str, now: Timestamp) -> Option<Notification> {
        let mut group = self.state.groups.remove(key)?;
        let route = self.config.route(&group.route)?;
        group.next_at = later(now, route.group_interval);
        let mut notification = None;
        if !self.config.is_muted(route, now) {
            let mut alerts: Vec<ActiveAlert> = group
                .members
                .iter()
                .filter_map(|fingerprint| self.state.alerts.get(fingerprint))
                .filter(|alert| !self.is_silenced(&alert.labels, now) && !self.is_inhibited(&alert.labels))
                .cloned()
                .collect();
            alerts.sort_by(|left, right| alertmanager_order(&left.labels, &right.labels));
            notification = self.message(&mut group, route, alerts, now);
        }
        // Whoever had to be told of an end has been, or was silenced. What does not fire any more is forgotten by the log, so
        // that it is news when it fires again.
        let alerts = &self.state.alerts;
        let fires = |fingerprint: &Fingerprint| alerts.get(fingerprint).is_some_and(ActiveAlert::is_firing);
        group.members.retain(fires);
        for entry in group.log.values_mut() {
            entry.firing.retain(fires);
        }
        if !group.members.is_empty() {
            self.state.groups.insert(key.to_owned(), group);
        }
        notification
    }

    /// The message of a look, if one is due.
    fn message(
        &self,
        group: &mut Group,
        route: &RouteOptions,
        mut alerts: Vec<ActiveAlert>,
        now: Timestamp,
    ) -> Option<Notification> {
        let receiver = self.receiver(&route.receiver)?;
        let group_key = format!("{}:{}", route.key, group.labels);
        let part = |is_firing: bool| -> BTreeSet<Fingerprint> {
            alerts
                .iter()
                .filter(|alert| alert.is_firing() == is_firing)
                .map(|alert| alert.labels.fingerprint())
                .collect()
        };
        let (firing, resolved) = (part(true), part(false));
        let last = group.log.get(&receiver.name);
        let reason = reason(last, &firing, &resolved, receiver.send_resolved, route, now)?;
        group.log.insert(
            receiver.name.clone(),
            LogEntry { at: now, firing: firing.clone(), resolved: resolved.clone() },
        );
        if !receiver.send_resolved {
            if firing.is_empty() {
                return None;
            }
            alerts.retain(ActiveAlert::is_firing);
        }
        Some(Notification {
            id: message_id(&receiver.name, &group_key, reason, &alerts, now),
            receiver: receiver.name.clone(),
            group_key,
            group_labels: group.labels.clone(),
            reason,
            alerts,
            at: now,
        })
    }

    /// Whether a silence covers the labels.
    #[must_use]
    pub fn is_silenced(&self, labels: &Labels, now: Timestamp) -> bool {
        self.state.silences.values().any(|silence| silence.covers(labels, now))
    }

    /// Whether an alert that fires inhibits one with these labels.
    #[must_use]
    pub fn is_inhibited(&self, labels: &Labels) -> bool {
        self.config.inhibit_rules.iter().any(|rule| {
            if !all_match(&rule.target_matchers, labels) {
                return false;
            }
            let is_source_too = all_match(&rule.source_matchers, labels);
            self.state.alerts.values().filter(|alert| alert.is_firing()).any(|source| {
                all_match(&rule.source_matchers, &source.labels)
                    && rule.equal.iter().all(|name| source.labels.value(name) == labels.value(name))
                    // Two alerts that both are on both sides do not silence each other, nor does one itself.
                    && !(is_source_too && all_match(&rule.target_matchers, &source.labels))
            })
        })
    }

    /// Drops what nobody waits for any more.
    fn forget(&mut self, now: Timestamp) {
        let groups = &self.state.groups;
        let is_member =
            |fingerprint: &Fingerprint| groups.values().any(|group| group.members.contains(fingerprint));
        self.state.alerts.retain(|fingerprint, alert| match alert.ends_at {
            None => true,
            Some(ends_at) => is_member(fingerprint) || elapsed(ends_at, now) < NOTIFIER_RESOLVED_KEPT_FOR,
        });
    }
}

/// Whether a message is due, and why: Alertmanager's rules.
fn reason(
    last: Option<&LogEntry>,
    firing: &BTreeSet<Fingerprint>,
    resolved: &BTreeSet<Fingerprint>,
    sends_resolved: bool,
    route: &RouteOptions,
    now: Timestamp,
) -> Option<Reason> {
    let Some(last) = last else {
        return (!firing.is_empty()).then_some(Reason::First);
    };
    if !firing.is_subset(&last.firing) {
        return Some(Reason::NewAlerts);
    }
    if firing.is_empty() {
        // What is left out because it is silenced did not end: there is an end only with somebody resolved.
        return (!last.firing.is_empty() && !resolved.is_empty()).then_some(Reason::AllResolved);
    }
    if sends_resolved && !resolved.is_subset(&last.resolved) {
        return Some(Reason::NewResolved);
    }
    (elapsed(last.at, now) >= route.repeat_interval).then_some(Reason::Repeat)
}

/// Alertmanager's order of the alerts in a message: by `job`, by `instance`, then by all labels.
fn alertmanager_order(left: &Labels, right: &Labels) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    for name in ["job", "instance"] {
        match (left.get(name), right.get(name)) {
            (None, None) => {}
            (None, Some(_)) => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (Some(left), Some(right)) if left != right => return left.cmp(right),
            (Some(_), Some(_)) => {}
        }
    }
    left.len().cmp(&right.len()).then_with(|| {
        let names: BTreeSet<&str> = left.iter().chain(right.iter()).map(|(name, _)| name).collect();
        names
            .into_iter()
            .map(|name| left.get(name).cmp(&right.get(name)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    })
}

fn message_id(receiver: &str, key: &str, reason: Reason, alerts: &[ActiveAlert], at: Timestamp) -> String {
    let mut hash = Sha256::new();
    hash.update(b"beeacon-notification-1\0");
    for text in [receiver, key] {
        hash.update(text.len().to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update([reason as u8]);
    hash.update(at.as_nanosecond().to_be_bytes());
    for alert in alerts {
        hash.update(alert.event_id.as_bytes());
        hash.update([0]);
    }
    format!("msg_{}", short_hex(&hash.finalize()))
}

fn later(now: Timestamp, wait: std::time::Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

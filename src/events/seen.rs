//! Events of what others write down first: the changes of alerts in their ledger, and what people changed in the audit trail.
//!
//! Both are read from a place that is written together with the events, so that a kill between their writing and ours changes nothing.

use beeacon_access::{Audit, AuditLine, AuditPlace, AuditResult, Routes};
use beeacon_alerts::ledger::Severity;
use beeacon_alerts::runner::Handle;
use beeacon_alerts::state::{Change, Transition};
use beeacon_events::{Event, EventType, Step};
use beeacon_record::wire::SESSION_PATH;
use serde_json::Value;
use tokio::sync::watch;

use super::Events;
use super::limits::{CHANGES_MAX, LOOK_EVERY, WRITE_AGAIN_AFTER};
use crate::doors;

/// The names under which the places are kept.
const ALERTS_PLACE: &str = "alerts";
pub(super) const AUDIT_PLACE: &str = "audit";

/// The label, and its value, that says of a rule that its alerts are about a threat.
const THREAT: (&str, &str) = ("category", "threat");

/// Follows the ledger of alerts until told to stop.
pub(super) async fn alerts(events: Events, handle: Handle, mut stop: watch::Receiver<bool>) {
    let mut changes = handle.changes();
    let mut place = None;
    loop {
        match read_changes(&events, &handle, &mut place, &mut stop).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "changes of alerts are read again later");
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            }
        }
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            // Whether one came or some were missed: the ledger has them.
            _ = changes.recv() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Writes the events of all changes behind the place; false when it was told to stop.
async fn read_changes(
    events: &Events,
    handle: &Handle,
    place: &mut Option<u64>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<bool> {
    let mut last = match *place {
        Some(place) => place,
        None => events.0.log.kept(ALERTS_PLACE).await?.and_then(|place| place.parse().ok()).unwrap_or(0),
    };
    loop {
        *place = Some(last);
        let changes = handle.ledger().changes_after(last, CHANGES_MAX).await?;
        let Some((newest, ..)) = changes.last() else { return Ok(true) };
        last = *newest;
        let step = Step {
            events: changes.iter().flat_map(|(_, rule, change)| of_change(events, rule, change)).collect(),
            kept: vec![(ALERTS_PLACE.to_owned(), Some(last.to_string()))],
        };
        if !events.write_until(&step, stop).await {
            return Ok(false);
        }
    }
}

/// The events of a change: of one that nobody is told of, none; of one that is about a threat, two.
fn of_change(events: &Events, rule: &str, change: &Transition) -> Vec<Event> {
    let kind = match change.change {
        Change::Firing => EventType::AlertTriggered,
        Change::Resolved => EventType::AlertResolved,
        Change::Pending | Change::Cancelled => return Vec::new(),
    };
    let (maker, alert) = (&events.0.maker, &change.alert);
    let fingerprint = alert.labels.fingerprint().to_string();
    let fired = alert.fired_at.map_or(String::new(), |at| at.to_string());
    let together = maker.id(&["alert", rule, &fingerprint, &fired]);
    let payload = || {
        [
            ("alert", Value::from(alert.labels.value("alertname"))),
            ("rule", rule.into()),
            ("severity", Severity::of(&alert.labels).name().into()),
            ("service", alert.labels.value("service").into()),
            ("fingerprint", fingerprint.as_str().into()),
            ("value", alert.value.into()),
            ("event_id", change.event_id.as_str().into()),
        ]
    };
    let id = maker.id(&["alert", &change.event_id]);
    let mut all = vec![maker.event(kind, id, change.at, "alerts", payload()).correlated(&together)];
    let (label, value) = THREAT;
    if kind == EventType::AlertTriggered && alert.labels.value(label) == value {
        let payload = [("kind", Value::from("alert"))].into_iter().chain(payload());
        let id = maker.id(&["threat", &change.event_id]);
        all.push(
            maker.event(EventType::ThreatDetected, id, change.at, "alerts", payload).correlated(together),
        );
    }
    all
}

/// Follows the audit trail until told to stop.
pub(super) async fn audit(events: Events, audit: Audit, routes: Routes, mut stop: watch::Receiver<bool>) {
    let mut written = audit.written();
    let mut place = None;
    loop {
        match read_audit(&events, &audit, &routes, &mut place, &mut stop).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the audit trail is read again later");
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            }
        }
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = written.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Writes the events of all lines behind the place; false when it was told to stop.
async fn read_audit(
    events: &Events,
    audit: &Audit,
    routes: &Routes,
    place: &mut Option<AuditPlace>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<bool> {
    let mut last = match *place {
        Some(place) => place,
        None => match events.0.log.kept(AUDIT_PLACE).await?.as_deref().and_then(AuditPlace::parse) {
            Some(place) => place,
            None => audit.end()?,
        },
    };
    loop {
        *place = Some(last);
        let reading = audit.clone();
        let (lines, next) = tokio::task::spawn_blocking(move || reading.after(last)).await??;
        if next == last {
            return Ok(true);
        }
        let step = Step {
            events: lines.iter().filter_map(|line| of_line(events, routes, line)).collect(),
            kept: vec![(AUDIT_PLACE.to_owned(), Some(next.to_string()))],
        };
        if !events.write_until(&step, stop).await {
            return Ok(false);
        }
        last = next;
    }
}

/// The event of a line: of what was done or refused, and not of agents, which open sessions all the time.
fn of_line(events: &Events, routes: &Routes, line: &AuditLine) -> Option<Event> {
    let result = match line.result {
        AuditResult::Begun => return None,
        AuditResult::Done => "done",
        AuditResult::Refused => "refused",
    };
    let path = routes.path_of(&line.path).filter(|path| *path != SESSION_PATH)?;
    let at = line.time.parse().ok()?;
    let maker = &events.0.maker;
    let id = maker.id(&["audit", &line.time, &line.request_id, result, &line.path]);
    let payload = [
        ("user", Value::from(line.who.as_str())),
        ("role", line.role.as_str().into()),
        ("from", line.from.map_or(Value::Null, |from| from.to_string().into())),
        ("method", line.method.as_str().into()),
        ("path", path.into()),
        ("result", result.into()),
        ("status", line.status.map_or(Value::Null, Value::from)),
    ];
    let event = maker.event(EventType::UserAction, id, at, "access", payload);
    Some(event.correlated(&line.request_id))
}

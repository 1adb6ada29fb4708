//! Events of what others write down first: the changes of alerts in their ledger, and what people changed in the audit trail.
//!
//! Both are read from a place that is written together with the events, so that a kill between their writing and ours changes nothing.

use std::future::Future;

use beeacon_access::{Audit, AuditLine, AuditPlace, AuditResult, Routes};
use beeacon_alerts::ledger::Severity;
use beeacon_alerts::runner::Handle;
use beeacon_alerts::state::{Change, Transition};
use beeacon_events::{Event, EventType, Step};
use beeacon_record::wire::SESSION_PATH;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::Events;
use super::limits::{CHANGES_MAX, LOOK_EVERY, WRITE_AGAIN_AFTER};
use crate::doors;

/// The name under which the place in the audit trail is kept.
pub(super) const AUDIT_PLACE: &str = "audit";

/// The label, and its value, that says of a rule that its alerts are about a threat.
const THREAT: (&str, &str) = ("category", "threat");

/// What others write down, from a place on.
pub(super) trait Source: Send + Sync + 'static {
    /// Where one is in it.
    type Place: Clone + ToString + Send + Sync;

    /// The name under which the place is kept.
    const KEPT: &'static str;

    /// How people call it.
    const NAME: &'static str;

    /// The place that was kept, or where one begins without one.
    fn place(&self, kept: Option<&str>) -> anyhow::Result<Self::Place>;

    /// The events of what comes behind a place, and the place behind that; none where there is nothing.
    fn read(
        &self,
        events: &Events,
        behind: &Self::Place,
    ) -> impl Future<Output = anyhow::Result<Option<(Vec<Event>, Self::Place)>>> + Send;

    /// Ends when there may be more.
    fn told(&mut self) -> impl Future<Output = ()> + Send;
}

/// Follows something until told to stop.
pub(super) async fn follow<S: Source>(events: Events, mut source: S, mut stop: watch::Receiver<bool>) {
    let mut place = None;
    loop {
        match catch_up(&events, &source, &mut place, &mut stop).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "{} is read again later", S::NAME);
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            }
        }
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            () = source.told() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Writes the events of everything behind the place; false when it was told to stop.
async fn catch_up<S: Source>(
    events: &Events,
    source: &S,
    place: &mut Option<S::Place>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<bool> {
    let mut last = match place.take() {
        Some(place) => place,
        None => source.place(events.0.log.kept(S::KEPT).await?.as_deref())?,
    };
    loop {
        *place = Some(last.clone());
        let Some((found, behind)) = source.read(events, &last).await? else { return Ok(true) };
        let step = Step { events: found, kept: vec![(S::KEPT.to_owned(), Some(behind.to_string()))] };
        if !events.write_until(&step, stop).await {
            return Ok(false);
        }
        last = behind;
    }
}

/// The changes of alerts, in their ledger.
pub(super) struct Changes {
    handle: Handle,
    told: broadcast::Receiver<Transition>,
}

impl Changes {
    pub(super) fn new(handle: Handle) -> Self {
        let told = handle.changes();
        Changes { handle, told }
    }
}

impl Source for Changes {
    type Place = u64;
    const KEPT: &'static str = "alerts";
    const NAME: &'static str = "the ledger of alerts";

    fn place(&self, kept: Option<&str>) -> anyhow::Result<u64> {
        Ok(kept.and_then(|place| place.parse().ok()).unwrap_or(0))
    }

    async fn read(&self, events: &Events, behind: &u64) -> anyhow::Result<Option<(Vec<Event>, u64)>> {
        let changes = self.handle.ledger().changes_after(*behind, CHANGES_MAX).await?;
        let Some((newest, ..)) = changes.last() else { return Ok(None) };
        let found = changes.iter().flat_map(|(_, rule, change)| of_change(events, rule, change));
        Ok(Some((found.collect(), *newest)))
    }

    async fn told(&mut self) {
        // Whether one came or some were missed: the ledger has them.
        if matches!(self.told.recv().await, Err(RecvError::Closed)) {
            std::future::pending::<()>().await;
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

/// What people changed, in the audit trail.
pub(super) struct Trail {
    audit: Audit,
    routes: Routes,
    written: watch::Receiver<u64>,
}

impl Trail {
    pub(super) fn new(audit: Audit, routes: Routes) -> Self {
        let written = audit.written();
        Trail { audit, routes, written }
    }
}

impl Source for Trail {
    type Place = AuditPlace;
    const KEPT: &'static str = AUDIT_PLACE;
    const NAME: &'static str = "the audit trail";

    fn place(&self, kept: Option<&str>) -> anyhow::Result<AuditPlace> {
        Ok(match kept.and_then(AuditPlace::parse) {
            Some(place) => place,
            None => self.audit.end()?,
        })
    }

    async fn read(
        &self,
        events: &Events,
        behind: &AuditPlace,
    ) -> anyhow::Result<Option<(Vec<Event>, AuditPlace)>> {
        let (audit, behind) = (self.audit.clone(), *behind);
        let (lines, next) = tokio::task::spawn_blocking(move || audit.after(behind)).await??;
        let found = lines.iter().filter_map(|line| of_line(events, &self.routes, line));
        Ok((next != behind).then(|| (found.collect(), next)))
    }

    async fn told(&mut self) {
        if self.written.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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

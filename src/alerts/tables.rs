//! The tables `alerts`, `incidents` and `incident_events` in SQL.

use std::sync::{Arc, OnceLock};

use beeacon_alerts::ledger::{Case, CaseFilter, Incident, IncidentEvent, LedgerError};
use beeacon_alerts::runner::Handle;
use beeacon_query::relation::{ColumnKind, Relation, RelationError, RelationRows, Value, Wanted};
use jiff::Timestamp;

/// The most rows of one of the tables, the newest ones. More are in the ledger, and the doors page through them.
const ROWS_MAX: usize = 100_000;

/// Where the tables look, once alerts are open.
pub(crate) type Source = Arc<OnceLock<Handle>>;

/// The tables, over a source that is filled later; without one they are empty.
pub(crate) fn all(source: Option<&Source>) -> Vec<Arc<dyn Relation>> {
    [Table::Alerts, Table::Incidents, Table::IncidentEvents]
        .map(|table| Arc::new(Shown { table, source: source.cloned() }) as Arc<dyn Relation>)
        .into()
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Alerts,
    Incidents,
    IncidentEvents,
}

struct Shown {
    table: Table,
    source: Option<Source>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("table", &self.table).finish_non_exhaustive()
    }
}

const ALERTS: &[(&str, ColumnKind)] = &[
    ("id", ColumnKind::Text),
    ("alert_type", ColumnKind::Text),
    ("severity", ColumnKind::Text),
    ("title", ColumnKind::Text),
    ("description", ColumnKind::Text),
    ("status", ColumnKind::Text),
    ("assigned_to", ColumnKind::Text),
    ("created_at", ColumnKind::Time),
    ("resolved_at", ColumnKind::Time),
    ("service", ColumnKind::Text),
    ("rule", ColumnKind::Text),
    ("labels", ColumnKind::Text),
    ("value", ColumnKind::Real),
    ("acknowledged_by", ColumnKind::Text),
    ("acknowledged_at", ColumnKind::Time),
    ("resolved_by", ColumnKind::Text),
    ("resolution", ColumnKind::Text),
    ("incident", ColumnKind::Text),
    ("fingerprint", ColumnKind::Text),
];

const INCIDENTS: &[(&str, ColumnKind)] = &[
    ("id", ColumnKind::Text),
    ("subject", ColumnKind::Text),
    ("severity", ColumnKind::Text),
    ("title", ColumnKind::Text),
    ("status", ColumnKind::Text),
    ("opened_at", ColumnKind::Time),
    ("resolved_at", ColumnKind::Time),
    ("alerts", ColumnKind::Number),
];

const INCIDENT_EVENTS: &[(&str, ColumnKind)] = &[
    ("incident", ColumnKind::Text),
    ("timestamp", ColumnKind::Time),
    ("kind", ColumnKind::Text),
    ("alert", ColumnKind::Text),
    ("actor", ColumnKind::Text),
    ("note", ColumnKind::Text),
];

impl Relation for Shown {
    fn name(&self) -> &'static str {
        match self.table {
            Table::Alerts => "alerts",
            Table::Incidents => "incidents",
            Table::IncidentEvents => "incident_events",
        }
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        match self.table {
            Table::Alerts => ALERTS,
            Table::Incidents => INCIDENTS,
            Table::IncidentEvents => INCIDENT_EVENTS,
        }
    }

    fn rows(&self, _tenant: &str, _wanted: &Wanted) -> RelationRows {
        let (table, source) = (self.table, self.source.clone());
        Box::pin(async move {
            let Some(source) = source else { return Ok(Vec::new()) };
            let handle = source.get().ok_or_else(|| RelationError("alerts are not open yet".to_owned()))?;
            let ledger = handle.ledger();
            let failed = |error: LedgerError| RelationError(error.to_string());
            Ok(match table {
                Table::Alerts => {
                    let cases = ledger.cases(&CaseFilter::default(), ROWS_MAX).await.map_err(failed)?;
                    cases.into_iter().map(alert).collect()
                }
                Table::Incidents => {
                    let incidents = ledger.incidents(None, ROWS_MAX).await.map_err(failed)?;
                    incidents.into_iter().map(incident).collect()
                }
                Table::IncidentEvents => {
                    let events = ledger.timeline(None, ROWS_MAX).await.map_err(failed)?;
                    events.into_iter().map(event).collect()
                }
            })
        })
    }
}

fn alert(case: Case) -> Vec<Value> {
    vec![
        Value::Text(case.id),
        Value::Text(case.alertname),
        Value::Text(case.severity),
        Value::Text(case.title),
        Value::Text(case.description),
        Value::Text(case.status),
        text(case.assigned_to),
        time(Some(case.created_at)),
        time(case.resolved_at),
        Value::Text(case.service),
        Value::Text(case.rule),
        Value::Text(case.labels.to_string()),
        case.value.parse().map_or(Value::Null, Value::Real),
        text(case.acknowledged_by),
        time(case.acknowledged_at),
        text(case.resolved_by),
        text(case.resolution),
        Value::Text(case.incident),
        Value::Text(case.fingerprint),
    ]
}

fn incident(incident: Incident) -> Vec<Value> {
    vec![
        Value::Text(incident.id),
        Value::Text(incident.subject),
        Value::Text(incident.severity),
        Value::Text(incident.title),
        Value::Text(incident.status),
        time(Some(incident.opened_at)),
        time(incident.resolved_at),
        Value::Number(i64::try_from(incident.alerts).unwrap_or(i64::MAX)),
    ]
}

fn event(event: IncidentEvent) -> Vec<Value> {
    vec![
        Value::Text(event.incident),
        time(Some(event.at)),
        Value::Text(event.kind),
        text(event.alert),
        Value::Text(event.actor),
        Value::Text(event.note),
    ]
}

fn text(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::Text)
}

fn time(time: Option<Timestamp>) -> Value {
    time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).map_or(Value::Null, Value::Time)
}

//! The table `events` in SQL.

use std::sync::{Arc, OnceLock};

use beeacon_events::{Event, EventType, Head, LogError, Selection, Stored};
use beeacon_query::relation::{ColumnKind, Relation, RelationError, RelationRows, Value, Wanted};
use jiff::Timestamp;

use super::Events;
use super::limits::ROWS_MAX;

/// Where the table looks, once the log is open.
pub(crate) type Source = Arc<OnceLock<Events>>;

/// The table; without a source it is empty.
pub(crate) struct Table(pub(crate) Option<Source>);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Relation for Table {
    fn name(&self) -> &'static str {
        "events"
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        COLUMNS
    }

    fn narrowed_by(&self) -> Option<(&'static str, &'static str)> {
        Some(("timestamp", "type"))
    }

    fn rows(&self, _tenant: &str, wanted: &Wanted) -> RelationRows {
        let (source, wanted) = (self.0.clone(), wanted.clone());
        Box::pin(async move {
            let Some(source) = source else { return Ok(Vec::new()) };
            let Some(events) = source.get() else {
                return Err(RelationError("events are not open yet".to_owned()));
            };
            let Some(selection) = selection(&wanted) else { return Ok(Vec::new()) };
            let log = &events.0.log;
            let failed = |error: LogError| RelationError(error.to_string());
            if wanted.columns.is_some_and(|columns| columns.iter().all(|column| OF_A_HEAD.contains(column))) {
                let heads = log.newest_heads(&selection, ROWS_MAX).await.map_err(failed)?;
                return Ok(heads.into_iter().map(head).collect());
            }
            let found = log.newest(&selection, ROWS_MAX).await.map_err(failed)?;
            Ok(found.into_iter().map(row).collect())
        })
    }
}

const COLUMNS: &[(&str, ColumnKind)] = &[
    ("sequence", ColumnKind::Number),
    ("id", ColumnKind::Text),
    ("type", ColumnKind::Text),
    ("timestamp", ColumnKind::Time),
    ("source", ColumnKind::Text),
    ("service", ColumnKind::Text),
    ("severity", ColumnKind::Text),
    ("payload", ColumnKind::Text),
    ("metadata", ColumnKind::Text),
    ("correlation_id", ColumnKind::Text),
    ("server", ColumnKind::Text),
];

/// The columns that the head of an event has: its number, its type and its time.
const OF_A_HEAD: [usize; 3] = [0, 2, 3];

/// The events that are wanted; none where there are none of that type.
fn selection(wanted: &Wanted) -> Option<Selection> {
    let time = |ns: i64| Timestamp::from_nanosecond(i128::from(ns)).ok();
    let (since, until) = wanted.time_ns.unzip();
    let types: Option<Vec<EventType>> =
        wanted.texts.as_ref().map(|names| names.iter().filter_map(|name| EventType::of(name)).collect());
    if types.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    Some(Selection {
        types: types.unwrap_or_default(),
        since: since.and_then(time),
        until: until.and_then(time),
    })
}

fn head(head: Head) -> Vec<Value> {
    let mut row = vec![
        Value::Number(i64::try_from(head.number).unwrap_or(i64::MAX)),
        Value::Null,
        Value::Text(head.kind.name().to_owned()),
        Value::Time(head.at_ns),
    ];
    row.resize(COLUMNS.len(), Value::Null);
    row
}

fn row(stored: Stored) -> Vec<Value> {
    let Stored { number, event } = stored;
    let said = |name: &str| match event.payload.get(name).and_then(|value| value.as_str()) {
        Some(text) if !text.is_empty() => Value::Text(text.to_owned()),
        _ => Value::Null,
    };
    let (service, severity) = (said("service"), said("severity"));
    let server = event.server().to_owned();
    let Event { id, kind, timestamp, source, payload, metadata, correlation_id } = event;
    let json = |members| Value::Text(serde_json::Value::Object(members).to_string());
    vec![
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Text(id),
        Value::Text(kind.name().to_owned()),
        i64::try_from(timestamp.as_nanosecond()).map_or(Value::Null, Value::Time),
        Value::Text(source),
        service,
        severity,
        json(payload),
        json(metadata),
        correlation_id.map_or(Value::Null, Value::Text),
        Value::Text(server),
    ]
}

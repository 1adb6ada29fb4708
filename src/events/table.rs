//! The table `events` in SQL.

use std::sync::{Arc, OnceLock};

use beeacon_events::{Event, Selection, Stored};
use beeacon_query::relation::{ColumnKind, Relation, RelationError, RelationRows, Value};

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
        &[
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
        ]
    }

    fn rows(&self, _tenant: &str) -> RelationRows {
        let source = self.0.clone();
        Box::pin(async move {
            let Some(source) = source else { return Ok(Vec::new()) };
            let Some(events) = source.get() else {
                return Err(RelationError("events are not open yet".to_owned()));
            };
            let found = events.0.log.newest(&Selection::default(), ROWS_MAX).await;
            let found = found.map_err(|error| RelationError(error.to_string()))?;
            Ok(found.into_iter().map(row).collect())
        })
    }
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

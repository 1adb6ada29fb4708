//! Log schema, version 1: the columns from the agent to SQL.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `timestamp` | timestamp(ns, UTC) | when the line was written, from Docker or parsed |
//! | `observed_timestamp` | timestamp(ns, UTC) | when the agent read it |
//! | `host`, `service`, `container`, `container_id`, `image`, `stream` | dictionary(utf8) | origin |
//! | `level` | dictionary(utf8) | trace, debug, info, warn, error, fatal, or unknown |
//! | `message` | utf8 | the line, scrubbed, without its newline |
//! | `labels` | dictionary(utf8) | a JSON object with sorted keys; SQL shows it as map(utf8, utf8) |
//! | `attributes` | map(utf8, utf8) | structured metadata |
//! | `redactions` | list(struct(rule utf8, count u32)) | what the pollen filter took out, never the value |
//! | `agent`, `source` | dictionary(utf8) | identity |
//! | `position_major`, `position_minor` | u64 | identity |
//! | `tenant` | dictionary(utf8) | set by the collector; absent in a batch |
//!
//! `labels` are few and the same for every line of a container: as a map they would be written out for each row, as a
//! dictionary once per batch. The query room turns them into a map when somebody asks for them.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// The version of this schema. It travels with Parquet files.
pub const SCHEMA_VERSION: u16 = 1;

/// The columns of a batch, in order. `tenant` follows them once the collector knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the column of its name, in the table above")]
pub enum Column {
    Timestamp,
    ObservedTimestamp,
    Host,
    Service,
    Container,
    ContainerId,
    Image,
    Stream,
    Level,
    Message,
    Labels,
    Attributes,
    Redactions,
    Agent,
    Source,
    PositionMajor,
    PositionMinor,
    Tenant,
}

impl Column {
    /// Every column, in order.
    pub const ALL: [Column; 18] = [
        Column::Timestamp,
        Column::ObservedTimestamp,
        Column::Host,
        Column::Service,
        Column::Container,
        Column::ContainerId,
        Column::Image,
        Column::Stream,
        Column::Level,
        Column::Message,
        Column::Labels,
        Column::Attributes,
        Column::Redactions,
        Column::Agent,
        Column::Source,
        Column::PositionMajor,
        Column::PositionMinor,
        Column::Tenant,
    ];

    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Column::Timestamp => "timestamp",
            Column::ObservedTimestamp => "observed_timestamp",
            Column::Host => "host",
            Column::Service => "service",
            Column::Container => "container",
            Column::ContainerId => "container_id",
            Column::Image => "image",
            Column::Stream => "stream",
            Column::Level => "level",
            Column::Message => "message",
            Column::Labels => "labels",
            Column::Attributes => "attributes",
            Column::Redactions => "redactions",
            Column::Agent => "agent",
            Column::Source => "source",
            Column::PositionMajor => "position_major",
            Column::PositionMinor => "position_minor",
            Column::Tenant => "tenant",
        }
    }

    /// The column's place, in a batch and in a stored row.
    pub const fn index(self) -> usize {
        self as usize
    }

    fn data_type(self) -> DataType {
        match self {
            Column::Timestamp | Column::ObservedTimestamp => timestamp(),
            Column::Message => DataType::Utf8,
            Column::Attributes => attributes(),
            Column::Redactions => redactions(),
            Column::PositionMajor | Column::PositionMinor => DataType::UInt64,
            _ => dictionary(),
        }
    }
}

/// Timestamps: nanoseconds, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// Text with few distinct values.
pub fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The fields of one attribute: `keys`, `values`.
pub fn attribute_fields() -> Fields {
    Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, false)])
}

/// The entries field of the attributes map.
pub fn attributes_entries() -> Field {
    Field::new("entries", DataType::Struct(attribute_fields()), false)
}

/// Structured metadata: map(utf8, utf8).
pub fn attributes() -> DataType {
    DataType::Map(Arc::new(attributes_entries()), false)
}

/// The fields of one redaction: `rule`, `count`.
pub fn redaction_fields() -> Fields {
    Fields::from(vec![
        Field::new("rule", DataType::Utf8, false),
        Field::new("count", DataType::UInt32, false),
    ])
}

/// The item field of the redactions list.
pub fn redactions_item() -> Field {
    Field::new("item", DataType::Struct(redaction_fields()), false)
}

/// What the pollen filter took out: list(struct(rule, count)).
pub fn redactions() -> DataType {
    DataType::List(Arc::new(redactions_item()))
}

fn schema_of(has: impl Fn(Column) -> bool) -> SchemaRef {
    let columns = Column::ALL.into_iter().filter(|column| has(*column));
    let fields: Vec<Field> = columns.map(|c| Field::new(c.name(), c.data_type(), false)).collect();
    Arc::new(Schema::new(fields))
}

static BATCH: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(|column| column != Column::Tenant));
static LOG: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(|_| true));

/// The columns of a batch: all but `tenant`.
pub fn batch_schema() -> SchemaRef {
    BATCH.clone()
}

/// The columns of a stored row: those of a batch, then `tenant`.
pub fn log_schema() -> SchemaRef {
    LOG.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_stands_where_its_index_says() {
        for (index, column) in Column::ALL.into_iter().enumerate() {
            assert_eq!(column.index(), index);
            assert_eq!(log_schema().field(index).name(), column.name());
        }
        assert_eq!(batch_schema().fields().len() + 1, log_schema().fields().len());
    }
}

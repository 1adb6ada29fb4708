//! What the collector hands over: one journal record's worth of rows, positions, gaps and epochs.
//!
//! A [`Commit`] is visible as a whole or not at all, and its parts reach the catalog in one transaction.

use std::sync::{Arc, LazyLock};

use arrow_array::{RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use beeacon_record::{AgentId, Batch, Epoch, GapReason, Position, Scrubbed, Source, schema};

use crate::error::StoreError;
use crate::limits::TENANT_BYTES_MAX;

/// One durable record of the collector's journal, as the store takes it.
#[derive(Clone)]
pub struct Commit {
    /// The record's number in the journal: dense, from 1, each once.
    pub lsn: u64,
    /// Whose rows these are: 1 to 64 letters, digits, underscores or hyphens.
    pub tenant: String,
    /// When the collector received them, in nanoseconds since 1970.
    pub received_ns: i64,
    /// The rows, if any. Those already stored have been filtered out.
    pub batch: Option<Scrubbed<Batch>>,
    /// Where the sources stand after this record.
    pub progress: Vec<SourceProgress>,
    /// Declared losses.
    pub gaps: Vec<GapRow>,
    /// A session that was opened.
    pub epoch: Option<(AgentId, Epoch)>,
}

impl Commit {
    /// A commit of nothing, to be filled in.
    pub fn new(lsn: u64, tenant: impl Into<String>, received_ns: i64) -> Self {
        Commit {
            lsn,
            tenant: tenant.into(),
            received_ns,
            batch: None,
            progress: Vec::new(),
            gaps: Vec::new(),
            epoch: None,
        }
    }
}

/// Where one source of one agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProgress {
    /// Whose source.
    pub agent: AgentId,
    /// Which.
    pub source: Source,
    /// Everything below is stored, but for `open`.
    pub committed: Position,
    /// Starts of lines below `committed` that are still to come.
    pub open: Vec<Position>,
    /// The agent's own bytes of the last committed interval.
    pub cursor: Vec<u8>,
}

/// One declared loss: what lay in `[from, to)` of a source can't be had any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// Whose.
    pub tenant: String,
    /// Which agent declared it.
    pub agent: AgentId,
    /// In which source.
    pub source: Source,
    /// The host's name.
    pub host: String,
    /// The service's name.
    pub service: String,
    /// The container's name.
    pub container: String,
    /// The container's id.
    pub container_id: String,
    /// Where the missing part starts.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// Why.
    pub reason: GapReason,
    /// How many bytes of the source are missing at least; zero where unknown.
    pub bytes: u64,
    /// The last timestamp before the gap, in nanoseconds; zero where unknown.
    pub timestamp_before_ns: i64,
    /// The first timestamp after the gap, in nanoseconds; zero where unknown.
    pub timestamp_after_ns: i64,
    /// When the collector took it, in nanoseconds since 1970.
    pub received_ns: i64,
}

static GAP: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name| Field::new(name, DataType::UInt64, false);
    let time = |name, nullable| Field::new(name, schema::timestamp(), nullable);
    Arc::new(Schema::new(vec![
        text("tenant"),
        text("agent"),
        text("source"),
        text("host"),
        text("service"),
        text("container"),
        text("container_id"),
        number("from_major"),
        number("from_minor"),
        number("to_major"),
        number("to_minor"),
        text("reason"),
        number("bytes"),
        time("timestamp_before", true),
        time("timestamp_after", true),
        time("received_timestamp", false),
    ]))
});

/// The columns of [`crate::Store::gaps`]: those of [`GapRow`], positions as two numbers each, unknown timestamps null.
pub fn gap_schema() -> SchemaRef {
    GAP.clone()
}

/// Gap rows as Arrow.
pub(crate) fn gap_batch(gaps: &[GapRow]) -> Result<RecordBatch, StoreError> {
    fn text<'a>(gaps: &'a [GapRow], value: impl Fn(&'a GapRow) -> &'a str) -> Arc<StringArray> {
        Arc::new(StringArray::from_iter_values(gaps.iter().map(value)))
    }
    let number = |value: fn(&GapRow) -> u64| Arc::new(UInt64Array::from_iter_values(gaps.iter().map(value)));
    let time = |value: fn(&GapRow) -> i64| {
        let known = gaps.iter().map(|gap| Some(value(gap)).filter(|ns| *ns != 0));
        Arc::new(TimestampNanosecondArray::from_iter(known).with_timezone("UTC"))
    };
    let received = TimestampNanosecondArray::from_iter_values(gaps.iter().map(|gap| gap.received_ns));
    let agents = StringArray::from_iter_values(gaps.iter().map(|gap| gap.agent.to_string()));
    Ok(RecordBatch::try_new(
        gap_schema(),
        vec![
            text(gaps, |gap| &gap.tenant),
            Arc::new(agents),
            text(gaps, |gap| gap.source.as_str()),
            text(gaps, |gap| &gap.host),
            text(gaps, |gap| &gap.service),
            text(gaps, |gap| &gap.container),
            text(gaps, |gap| &gap.container_id),
            number(|gap| gap.from.major),
            number(|gap| gap.from.minor),
            number(|gap| gap.to.major),
            number(|gap| gap.to.minor),
            text(gaps, |gap| gap.reason.as_str()),
            number(|gap| gap.bytes),
            time(|gap| gap.timestamp_before_ns),
            time(|gap| gap.timestamp_after_ns),
            Arc::new(received.with_timezone("UTC")),
        ],
    )?)
}

/// Checks that a tenant's name can be a directory's name, on every file system and in every object store.
pub(crate) fn check_tenant(tenant: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let fits = !tenant.is_empty() && tenant.len() <= TENANT_BYTES_MAX;
    if fits && tenant.bytes().all(plain) { Ok(()) } else { Err(StoreError::Tenant) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "\u{e4}", &"x".repeat(TENANT_BYTES_MAX + 1)] {
            assert!(check_tenant(bad).is_err(), "{bad:?}");
        }
        for good in ["default", "A-1_b", &"x".repeat(TENANT_BYTES_MAX)] {
            assert!(check_tenant(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn unknown_times_of_a_gap_are_null() {
        let gap = GapRow {
            tenant: "default".into(),
            agent: AgentId::from_bytes([1; 16]),
            source: Source::new("docker-file:4f").unwrap(),
            host: "h".into(),
            service: "web".into(),
            container: "web-1".into(),
            container_id: "4f".into(),
            from: Position::new(1, u64::MAX),
            to: Position::new(2, 7),
            reason: GapReason::Rotated,
            bytes: 9,
            timestamp_before_ns: 0,
            timestamp_after_ns: 5,
            received_ns: 6,
        };
        let batch = gap_batch(&[gap]).unwrap();
        let nulls = |name| batch.column_by_name(name).unwrap().null_count();
        assert_eq!((nulls("timestamp_before"), nulls("timestamp_after")), (1, 0));
    }
}

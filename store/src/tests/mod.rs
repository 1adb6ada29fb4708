//! Stories over the whole store, on real directories and a real SQLite. This file holds what they share.

mod exactly_once;
mod faults;
mod golden;
mod kill;
mod protocol;
mod pruning;
mod recovery;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use beeacon_record::schema::Column;
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Interval, Level, Line, Origin, Position, RuleSetId, Scrubbed, Source,
    Stream,
};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::snapshot::{LogFile, Prune, Snapshot};
use crate::{Commit, SourceProgress, Store, StoreError, StoreOptions};

/// 20 November 2026, noon, UTC.
pub(crate) const NOON_NS: i64 = 1_795_176_000_000_000_000;
pub(crate) const DAY_NS: i64 = 86_400 * 1_000_000_000;

pub(crate) fn agent() -> AgentId {
    AgentId::from_bytes([7; 16])
}

pub(crate) fn source(service: &str) -> Source {
    Source::new(format!("docker-file:{service}")).unwrap()
}

/// Rows of one service: row `i` stands at `(1, first + i)` and was written at `times_ns[i]`.
pub(crate) fn batch(service: &str, first: u64, times_ns: &[i64]) -> Scrubbed<Batch> {
    let mut builder = BatchBuilder::new(agent().to_string());
    let origin = Origin {
        host: "host-1".into(),
        service: service.into(),
        container: format!("{service}-1"),
        container_id: format!("{service}-id"),
        image: "image:1".into(),
        labels: vec![("team".into(), service.into())],
    };
    let origin = builder.origin(&origin, &source(service));
    for (minor, timestamp_ns) in (first..).zip(times_ns) {
        let line = Line {
            origin,
            timestamp_ns: *timestamp_ns,
            observed_timestamp_ns: timestamp_ns + 5,
            stream: Stream::Stdout,
            level: Level::Info,
            position: Position::new(1, minor),
        };
        builder.push(line, format!("{service} line {minor}").as_bytes());
        builder.attribute("n", &minor.to_string());
    }
    let to = Position::new(1, first + times_ns.len() as u64);
    let batch = builder.finish(vec![Interval::new(source(service), Position::new(1, first), to)]).unwrap();
    Scrubbed::seal(batch, RuleSetId(0xfeed))
}

/// How many rows a plain commit has, and how far apart the positions of two commits are.
pub(crate) const ROWS: u64 = 5;

/// A commit of [`ROWS`] rows of one service, whose positions are `lsn * ROWS` and the following.
pub(crate) fn commit_of(lsn: u64, tenant: &str, service: &str) -> Commit {
    let times: Vec<i64> =
        (0..ROWS).map(|i| NOON_NS + i64::try_from(lsn * ROWS + i).unwrap() * 1_000_000).collect();
    let mut commit = Commit::new(lsn, tenant, NOON_NS);
    commit.batch = Some(batch(service, lsn * ROWS, &times));
    commit.progress = vec![SourceProgress {
        agent: agent(),
        source: source(service),
        committed: Position::new(1, (lsn + 1) * ROWS),
        open: vec![Position::new(1, lsn)],
        cursor: lsn.to_le_bytes().to_vec(),
    }];
    commit
}

pub(crate) fn commit(lsn: u64) -> Commit {
    commit_of(lsn, "default", "web")
}

/// Opens a store, waiting for the one before it to let go of the directory.
pub(crate) async fn open(directory: &FilePath) -> Store {
    open_options(StoreOptions::new(directory)).await
}

pub(crate) async fn open_options(options: StoreOptions) -> Store {
    loop {
        match Store::open(options.clone()).await {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            store => return store.unwrap(),
        }
    }
}

/// What a test compares of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) tenant: String,
    pub(crate) service: String,
    pub(crate) minor: u64,
    pub(crate) message: String,
}

fn text(batch: &RecordBatch, column: Column, row: usize) -> String {
    let array = batch.column(column.index()).as_dictionary::<Int32Type>();
    array.values().as_string::<i32>().value(usize::try_from(array.keys().value(row)).unwrap()).to_owned()
}

pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let minors = batch.column(Column::PositionMinor.index()).as_primitive::<UInt64Type>();
    let messages = batch.column(Column::Message.index()).as_string::<i32>();
    let row = |row| Row {
        tenant: text(batch, Column::Tenant, row),
        service: text(batch, Column::Service, row),
        minor: minors.value(row),
        message: messages.value(row).to_owned(),
    };
    (0..batch.num_rows()).map(row).collect()
}

pub(crate) async fn file_batches(objects: &Arc<dyn ObjectStore>, file: &LogFile) -> Vec<RecordBatch> {
    let bytes = objects.get(&file.path).await.unwrap().bytes().await.unwrap();
    ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap().map(Result::unwrap).collect()
}

/// Every row of a snapshot, read from memory and files.
pub(crate) async fn read(store: &Store, snapshot: &Snapshot) -> Vec<Row> {
    let mut rows: Vec<Row> = snapshot.fresh.iter().flat_map(rows_of).collect();
    for file in &snapshot.files {
        rows.extend(file_batches(&store.object_store(), file).await.iter().flat_map(rows_of));
    }
    rows.sort();
    rows
}

pub(crate) async fn all_rows(store: &Store, tenant: &str) -> Vec<Row> {
    read(store, &store.snapshot(tenant, &Prune::default()).await.unwrap()).await
}

/// How often each position occurs.
pub(crate) async fn counts(store: &Store, tenant: &str) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for row in all_rows(store, tenant).await {
        *counts.entry(row.minor).or_default() += 1;
    }
    counts
}

/// What [`counts`] gives when the commits `lsns` are stored exactly once.
pub(crate) fn once(lsns: std::ops::RangeInclusive<u64>) -> BTreeMap<u64, usize> {
    (lsns.start() * ROWS..(lsns.end() + 1) * ROWS).map(|minor| (minor, 1)).collect()
}

/// Every Parquet file below a data directory, whatever the catalog says.
pub(crate) fn files_on_disk(directory: &FilePath) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.join("parquet")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

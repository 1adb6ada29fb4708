//! Files and catalogs of earlier versions still read. What is in `fixtures/` is never rewritten: a new version adds to it.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampNanosecondType;
use beeacon_record::schema::{Column, log_schema};
use beeacon_record::{GapReason, Position};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{NOON_NS, ROWS, commit_of, counts, files_on_disk, once, open, rows_of, source};
use crate::GapRow;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

pub(crate) fn gap(lsn: u64) -> GapRow {
    GapRow {
        tenant: "default".into(),
        agent: super::agent(),
        source: source("web"),
        host: "host-1".into(),
        service: "web".into(),
        container: "web-1".into(),
        container_id: "web-id".into(),
        from: Position::new(1, lsn),
        to: Position::new(1, lsn + 1),
        reason: GapReason::Rotated,
        bytes: 1,
        timestamp_before_ns: NOON_NS,
        timestamp_after_ns: 0,
        received_ns: NOON_NS,
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(std::fs::copy(&path, &target).unwrap() > 0) }
    }
}

/// Writes the data directory of version 1, when asked to by `BEEACON_WRITE_FIXTURES` and there is none yet.
#[tokio::test]
async fn the_fixture_of_version_1_is_there() {
    if std::env::var_os("BEEACON_WRITE_FIXTURES").is_some() && !fixtures().join("catalog.sqlite").exists() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        for (lsn, service) in (1..).zip(["web", "db", "web"]) {
            let mut commit = commit_of(lsn, "default", service);
            commit.gaps = if lsn == 3 { vec![gap(3)] } else { Vec::new() };
            commit.epoch = Some((super::agent(), beeacon_record::Epoch(lsn)));
            store.publish(commit).await.unwrap();
        }
        store.close().await.unwrap();
        copy(&directory.path().join("parquet/tenants"), &fixtures().join("parquet/tenants"));
        std::fs::copy(directory.path().join("catalog.sqlite"), fixtures().join("catalog.sqlite")).unwrap();
        let file = files_on_disk(directory.path()).remove(0);
        std::fs::copy(file, fixtures().join("plain.parquet")).unwrap();
    }
    assert!(fixtures().join("plain.parquet").exists() && fixtures().join("catalog.sqlite").exists());
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect()
}

/// A file of version 1 has today's columns, the rows that were written, and their order: service, then time.
#[test]
fn a_parquet_file_of_version_1_reads_as_it_was_written() {
    let batches = read(&fixtures().join("plain.parquet"));
    assert_eq!(batches[0].schema().fields(), log_schema().fields());
    let rows: Vec<_> = batches.iter().flat_map(rows_of).collect();
    let found: Vec<(&str, u64)> = rows.iter().map(|row| (row.service.as_str(), row.minor)).collect();
    let written = [("db", 2), ("web", 1), ("web", 3)];
    let expected: Vec<(&str, u64)> = written
        .iter()
        .flat_map(|(service, lsn)| (lsn * ROWS..(lsn + 1) * ROWS).map(|minor| (*service, minor)))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(rows[0].message, "db line 10");
    let times = batches[0].column(Column::Timestamp.index()).as_primitive::<TimestampNanosecondType>();
    assert_eq!(times.value(0), NOON_NS + 10_000_000);
    let attributes = batches[0].column(Column::Attributes.index()).as_map();
    assert_eq!(attributes.values().as_string::<i32>().value(0), "10");
}

/// What a reader of the file alone can know of it.
#[test]
fn the_footer_of_version_1_names_what_the_file_is() {
    let file = std::fs::File::open(fixtures().join("plain.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = reader.metadata().file_metadata();
    let value = |key: &str| {
        let pairs = metadata.key_value_metadata().unwrap();
        pairs
            .iter()
            .find(|pair| pair.key == format!("beeacon.{key}"))
            .and_then(|pair| pair.value.clone())
            .unwrap()
    };
    assert_eq!(
        ["schema_version", "tenant", "day", "from_lsn", "to_lsn"].map(value),
        ["1", "default", "2026-11-20", "1", "3"]
    );
    assert_eq!(value("rule_sets"), "000000000000feed");
    assert_eq!(value("sort"), "service,timestamp,source,position_major,position_minor");
    assert_eq!(value("file_id").len(), 36);
}

/// A whole data directory of version 1 opens, with its rows, gaps, positions and epochs, and can be written on.
#[tokio::test]
async fn a_data_directory_of_version_1_opens_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixtures(), directory.path());
    let store = open(directory.path()).await;
    assert!(store.recovery().damaged.is_empty(), "{:?}", store.recovery());
    assert!(store.verify().await.unwrap().is_clean());
    assert_eq!(counts(&store, "default").await, once(1..=3));
    assert_eq!(store.gaps("default").await.unwrap().num_rows(), 1);
    assert_eq!(store.epochs().await.unwrap(), [(super::agent(), beeacon_record::Epoch(3))]);
    assert_eq!(store.sources().await.unwrap().len(), 2);
    store.publish(super::commit(4)).await.unwrap();
    assert_eq!(store.flush().await.unwrap(), 4);
    assert_eq!(counts(&store, "default").await, once(1..=4));
}

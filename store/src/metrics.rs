//! What the store counts, for people and for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::catalog::Totals;
use crate::fresh::Fresh;

/// The store's figures at one moment. Counts of flushes start with the process, the others are true of what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Rows in memory only.
    pub fresh_rows: u64,
    /// What they take, in bytes.
    pub fresh_bytes: u64,
    /// Commits in memory only.
    pub fresh_commits: u64,
    /// Up to which LSN everything is in files.
    pub flushed_lsn: u64,
    /// Live files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
    /// Files that are missing or damaged and are left out of queries.
    pub damaged_files: u64,
    /// Flushes that were committed.
    pub flushes: u64,
    /// Flushes that failed and were or will be tried again.
    pub flush_errors: u64,
    /// Whether commits are taken at once.
    pub has_room: bool,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) flushes: Counter<u64, AtomicU64>,
    pub(crate) flush_errors: Counter<u64, AtomicU64>,
    pub(crate) flush_seconds: Histogram,
    pub(crate) published_rows: Counter<u64, AtomicU64>,
    pub(crate) publish_waits: Counter<u64, AtomicU64>,
    pub(crate) written_rows: Counter<u64, AtomicU64>,
    pub(crate) written_bytes: Counter<u64, AtomicU64>,
    fresh_rows: Gauge<i64, AtomicI64>,
    fresh_bytes: Gauge<i64, AtomicI64>,
    flushed_lsn: Gauge<i64, AtomicI64>,
    files: Gauge<i64, AtomicI64>,
    rows: Gauge<i64, AtomicI64>,
    bytes: Gauge<i64, AtomicI64>,
    damaged_files: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        Metrics {
            flushes: Counter::default(),
            flush_errors: Counter::default(),
            flush_seconds: Histogram::new(seconds),
            published_rows: Counter::default(),
            publish_waits: Counter::default(),
            written_rows: Counter::default(),
            written_bytes: Counter::default(),
            fresh_rows: Gauge::default(),
            fresh_bytes: Gauge::default(),
            flushed_lsn: Gauge::default(),
            files: Gauge::default(),
            rows: Gauge::default(),
            bytes: Gauge::default(),
            damaged_files: Gauge::default(),
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    pub(crate) fn set_fresh(&self, fresh: &Fresh) {
        self.fresh_rows.set(gauge(fresh.rows() as u64));
        self.fresh_bytes.set(gauge(fresh.bytes() as u64));
        self.flushed_lsn.set(gauge(fresh.flushed_lsn()));
    }

    pub(crate) fn set_totals(&self, totals: Totals) {
        self.files.set(gauge(totals.files));
        self.rows.set(gauge(totals.rows));
        self.bytes.set(gauge(totals.bytes));
        self.damaged_files.set(gauge(totals.damaged_files));
    }

    pub(crate) fn observe_flush(&self, took: Duration) {
        self.flushes.inc();
        self.flush_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let store = registry.sub_registry_with_prefix("beeacon_store");
        store.register("flushes", "Flushes that were committed to the catalog", self.flushes.clone());
        store.register(
            "flush_errors",
            "Flushes that failed; their rows stay in memory and are tried again",
            self.flush_errors.clone(),
        );
        store.register(
            "flush_seconds",
            "Time from taking rows to the committed catalog",
            self.flush_seconds.clone(),
        );
        store.register("published_rows", "Rows taken into memory", self.published_rows.clone());
        store.register("publish_waits", "Commits that had to wait for room", self.publish_waits.clone());
        store.register("written_rows", "Rows written to Parquet files", self.written_rows.clone());
        store.register("written_bytes", "Bytes of Parquet files written", self.written_bytes.clone());
        store.register("fresh_rows", "Rows that are in memory and in no file yet", self.fresh_rows.clone());
        store.register("fresh_bytes", "Bytes of the rows that are in no file yet", self.fresh_bytes.clone());
        store.register(
            "flushed_lsn",
            "The journal's record up to which everything is in files",
            self.flushed_lsn.clone(),
        );
        store.register("files", "Live Parquet files", self.files.clone());
        store.register("rows", "Rows in live Parquet files", self.rows.clone());
        store.register("file_bytes", "Bytes of live Parquet files", self.bytes.clone());
        store.register(
            "damaged_files",
            "Files that are missing or damaged and are left out of queries",
            self.damaged_files.clone(),
        );
    }
}

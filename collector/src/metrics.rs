//! What the collector counts.

use std::sync::atomic::AtomicU64;

use beeacon_record::wire::RefusalCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Which refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CodeLabel {
    pub(crate) code: &'static str,
}

/// Why Loki did not take something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// Where followers of the journal got a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FromLabel {
    pub(crate) from: &'static str,
}

type Count = Counter<u64, AtomicU64>;

/// The collector's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) frames: Count,
    pub(crate) frame_bytes: Count,
    pub(crate) rows: Count,
    pub(crate) duplicate_rows: Count,
    pub(crate) duplicate_frames: Count,
    pub(crate) trimmed_frames: Count,
    pub(crate) gaps: Count,
    pub(crate) sessions: Count,
    pub(crate) refusals: Family<CodeLabel, Count>,
    pub(crate) commit_seconds: Histogram,
    pub(crate) unstorable_entries: Count,
    pub(crate) followed_records: Family<FromLabel, Count>,
    pub(crate) loki_pushes: Count,
    pub(crate) loki_entries: Count,
    pub(crate) loki_bytes: Count,
    pub(crate) loki_failures: Family<ReasonLabel, Count>,
    pub(crate) loki_refused_entries: Family<ReasonLabel, Count>,
    pub(crate) loki_skipped_entries: Count,
    pub(crate) loki_skipped_records: Count,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Metrics {
            frames: Counter::default(),
            frame_bytes: Counter::default(),
            rows: Counter::default(),
            duplicate_rows: Counter::default(),
            duplicate_frames: Counter::default(),
            trimmed_frames: Counter::default(),
            gaps: Counter::default(),
            sessions: Counter::default(),
            refusals: Family::default(),
            commit_seconds: Histogram::new(seconds),
            unstorable_entries: Counter::default(),
            followed_records: Family::default(),
            loki_pushes: Counter::default(),
            loki_entries: Counter::default(),
            loki_bytes: Counter::default(),
            loki_failures: Family::default(),
            loki_refused_entries: Family::default(),
            loki_skipped_entries: Counter::default(),
            loki_skipped_records: Counter::default(),
        }
    }
}

impl Metrics {
    /// Adds them to a registry. `prometheus-client` appends `_total` to counters by itself.
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("frames", "Frames committed", self.frames.clone());
        r.register("frame_bytes", "Bytes of frames committed, as sent", self.frame_bytes.clone());
        r.register("rows", "Rows stored", self.rows.clone());
        r.register(
            "duplicate_rows",
            "Rows left out because they were stored before",
            self.duplicate_rows.clone(),
        );
        r.register("duplicate_frames", "Frames that were committed before", self.duplicate_frames.clone());
        r.register(
            "trimmed_frames",
            "Frames committed without some of their rows",
            self.trimmed_frames.clone(),
        );
        r.register("gaps", "Gap rows stored", self.gaps.clone());
        r.register("sessions", "Agent sessions opened", self.sessions.clone());
        r.register("refusals", "Requests refused, by code", self.refusals.clone());
        r.register(
            "commit_seconds",
            "Time from a decoded frame to its durable and visible commit, in seconds",
            self.commit_seconds.clone(),
        );
        r.register(
            "unstorable_entries",
            "Journal entries whose rows the store refused for good",
            self.unstorable_entries.clone(),
        );
        r.register(
            "followed_records",
            "Records shown to those who follow the journal, from memory or from the journal",
            self.followed_records.clone(),
        );
        r.register("loki_pushes", "Pushes that Loki took", self.loki_pushes.clone());
        r.register("loki_entries", "Entries that Loki took", self.loki_entries.clone());
        r.register("loki_bytes", "Compressed bytes of pushes that Loki took", self.loki_bytes.clone());
        r.register("loki_failures", "Pushes that failed and are tried again", self.loki_failures.clone());
        r.register(
            "loki_refused_entries",
            "Entries that Loki refused for good, by reason",
            self.loki_refused_entries.clone(),
        );
        r.register(
            "loki_skipped_entries",
            "Entries never sent to Loki, because the journal needed the room",
            self.loki_skipped_entries.clone(),
        );
        r.register(
            "loki_skipped_records",
            "Journal records never sent to Loki: skipped for room, lost, or unreadable",
            self.loki_skipped_records.clone(),
        );
    }

    pub(crate) fn refused(&self, code: RefusalCode) {
        self.refusals.get_or_create(&CodeLabel { code: code_name(code) }).inc();
    }

    pub(crate) fn followed(&self, from: &'static str) {
        self.followed_records.get_or_create(&FromLabel { from }).inc();
    }
}

/// A code as the envelope spells it.
pub(crate) const fn code_name(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Fenced => "fenced",
        RefusalCode::Position => "position",
        RefusalCode::NoSession => "no_session",
        RefusalCode::Malformed => "malformed",
        RefusalCode::Newer => "newer",
        RefusalCode::TooLarge => "too_large",
        RefusalCode::Unauthorized => "unauthorized",
        RefusalCode::Busy => "busy",
        RefusalCode::Internal => "internal",
        RefusalCode::NotFound => "not_found",
    }
}

/// A number as a gauge takes it.
pub(crate) fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

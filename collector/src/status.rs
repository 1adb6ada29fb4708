//! How the collector is doing: as a document for people, and as levels for Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use beeacon_record::AgentId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;

use crate::collector::Inner;
use crate::error::chain;
use crate::limits::STATUS_AGENTS_MAX;
use crate::loki::{FailureKind, LokiState, RefusalReason};
use crate::metrics::{ReasonLabel, gauge};
use crate::replay::ReplayReport;

/// How the collector is doing. Holds names, numbers and positions, never text of a line.
#[derive(Clone, Debug, Serialize)]
pub struct CollectorStatus {
    /// Whether a frame would be taken now.
    pub is_ready: bool,
    /// What stopped the collector, if something did.
    pub failure: Option<String>,
    /// The last thing that went wrong without stopping it.
    pub trouble: Option<String>,
    /// Agents known.
    pub agents_count: usize,
    /// Sources remembered, of all agents.
    pub sources_count: usize,
    /// The agents last heard of, at most 256.
    pub agents: Vec<AgentStatus>,
    /// Since the start.
    pub totals: Totals,
    /// The journal.
    pub journal: JournalStatus,
    /// What the start replayed.
    pub replay: ReplayReport,
    /// The way to Loki, if there is one.
    pub loki: Option<LokiStatus>,
}

/// One agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentStatus {
    /// Its id.
    pub agent: AgentId,
    /// Its host's name, as it says; empty until its next session.
    pub host: String,
    /// Its version, as it says; empty until its next session.
    pub version: String,
    /// Its session.
    pub epoch: u64,
    /// Its sources.
    pub sources: usize,
    /// When it was last heard of, in nanoseconds since 1970; zero for never.
    pub received_ns: i64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Frames committed.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Rows stored.
    pub rows: u64,
    /// Rows left out because they were stored before.
    pub duplicate_rows: u64,
    /// Frames that were committed before as a whole.
    pub duplicate_frames: u64,
    /// Frames of which some rows were left out.
    pub trimmed_frames: u64,
    /// Gap rows stored.
    pub gaps: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Records whose rows the store refused for good.
    pub unstorable_entries: u64,
}

/// The journal, and what was found in it at the start.
#[derive(Clone, Debug, Serialize)]
pub struct JournalStatus {
    /// The last durable record.
    pub synced_lsn: u64,
    /// The last record that is in Parquet and the catalog.
    pub stored_lsn: u64,
    /// How many records lie between.
    pub store_lag_records: u64,
    /// Bytes its segments take.
    pub allocated_bytes: u64,
    /// What they may take.
    pub bytes_max: u64,
    /// Why it takes nothing now, if it does not.
    pub refusing: Option<String>,
    /// Records found at the start.
    pub recovered_records: u64,
    /// Bytes of an interrupted write that were cut off at the start; normal after a crash.
    pub torn_bytes: u64,
    /// Damaged ranges found at the start.
    pub corrupt_ranges: u64,
    /// Records lost to them.
    pub lost_records: u64,
    /// Bytes of damage copied aside.
    pub quarantined_bytes: u64,
}

/// The way to Loki.
#[derive(Clone, Debug, Serialize)]
pub struct LokiStatus {
    /// Whether the last push got through.
    pub state: LokiState,
    /// Why the last push that failed did.
    pub last_failure: Option<FailureKind>,
    /// The last record done with.
    pub lsn: u64,
    /// How many records behind the journal.
    pub lag_records: u64,
    /// Entries that Loki took since the start.
    pub entries: u64,
    /// Entries that Loki refused for good since the start, by reason.
    pub refused_entries: BTreeMap<&'static str, u64>,
    /// Entries never sent, because the journal needed the room.
    pub skipped_entries: u64,
    /// Journal records never sent: skipped for room, lost or unreadable.
    pub skipped_records: u64,
}

pub(crate) fn status(inner: &Inner) -> CollectorStatus {
    let metrics = &inner.metrics;
    let failure = inner.has_failed().map(|error| chain(error));
    CollectorStatus {
        is_ready: failure.is_none() && inner.journal.health().is_ok() && inner.store.has_room(),
        failure,
        trouble: inner.trouble(),
        agents_count: inner.agents.len(),
        sources_count: inner.agents.sources(),
        agents: agents(inner),
        totals: Totals {
            frames: metrics.frames.get(),
            frame_bytes: metrics.frame_bytes.get(),
            rows: metrics.rows.get(),
            duplicate_rows: metrics.duplicate_rows.get(),
            duplicate_frames: metrics.duplicate_frames.get(),
            trimmed_frames: metrics.trimmed_frames.get(),
            gaps: metrics.gaps.get(),
            sessions: metrics.sessions.get(),
            unstorable_entries: metrics.unstorable_entries.get(),
        },
        journal: journal(inner),
        replay: inner.replay.clone(),
        loki: loki(inner),
    }
}

fn agents(inner: &Inner) -> Vec<AgentStatus> {
    let mut agents = inner.agents.all();
    agents.sort_by_key(|agent| (std::cmp::Reverse(agent.received_ns()), agent.id));
    agents.truncate(STATUS_AGENTS_MAX);
    let one = |agent: Arc<crate::agents::Agent>| {
        let who = agent.who();
        AgentStatus {
            agent: agent.id,
            host: who.host,
            version: who.version,
            epoch: agent.epoch().0,
            sources: agent.sources(),
            received_ns: agent.received_ns(),
        }
    };
    agents.into_iter().map(one).collect()
}

fn journal(inner: &Inner) -> JournalStatus {
    let (synced_lsn, stored_lsn) = (inner.journal.synced_lsn().0, inner.store.flushed_lsn());
    let report = &inner.journal_recovery;
    JournalStatus {
        synced_lsn,
        stored_lsn,
        store_lag_records: synced_lsn.saturating_sub(stored_lsn),
        allocated_bytes: inner.journal.statistics().allocated_bytes,
        bytes_max: inner.journal_bytes_max,
        refusing: inner.journal.health().err().map(|error| chain(&error)),
        recovered_records: report.records,
        torn_bytes: report.torn_bytes,
        corrupt_ranges: report.corrupt_ranges,
        lost_records: report.lost_records,
        quarantined_bytes: report.quarantined_bytes,
    }
}

fn loki(inner: &Inner) -> Option<LokiStatus> {
    let loki = inner.loki.as_ref()?;
    let metrics = &inner.metrics;
    let refused = |reason: RefusalReason| {
        let label = ReasonLabel { reason: reason.as_str() };
        let count = metrics.loki_refused_entries.get(&label).map_or(0, |count| count.get());
        (reason.as_str(), count)
    };
    Some(LokiStatus {
        state: loki.state(),
        last_failure: loki.last_failure(),
        lsn: loki.place(),
        lag_records: inner.journal.synced_lsn().0.saturating_sub(loki.place()),
        entries: metrics.loki_entries.get(),
        refused_entries: RefusalReason::ALL
            .map(refused)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect(),
        skipped_entries: metrics.loki_skipped_entries.get(),
        skipped_records: metrics.loki_skipped_records.get(),
    })
}

/// What has a level rather than a count, looked at when it is asked for.
pub(crate) struct Levels(Weak<Inner>);

impl Levels {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Levels(Arc::downgrade(inner))
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Levels")
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let (journal, statistics) = (journal(&inner), inner.journal.statistics());
        let report = &inner.replay;
        let mut levels: Vec<(&str, &str, u64)> = vec![
            ("agents", "Agents known", inner.agents.len() as u64),
            ("sources", "Sources remembered", inner.agents.sources() as u64),
            ("journal_bytes", "Bytes allocated by the journal", journal.allocated_bytes),
            ("journal_bytes_max", "Bytes the journal may allocate", journal.bytes_max),
            ("journal_synced_lsn", "Last durable journal record", journal.synced_lsn),
            ("journal_fsyncs", "Successful syncs of the journal since it was opened", statistics.fsyncs),
            (
                "journal_refusing",
                "Whether the journal takes nothing now",
                u64::from(journal.refusing.is_some()),
            ),
            (
                "store_lag_records",
                "Journal records that are in no Parquet file yet",
                journal.store_lag_records,
            ),
            ("replayed_records", "Journal records replayed at start", report.records),
            ("lost_records", "Journal records found lost at start", report.lost_records),
            ("undecodable_records", "Journal records found unreadable at start", report.undecodable_records),
            ("body_bytes", "Memory reserved for request bodies, in bytes", inner.bodies.taken() as u64),
            ("decode_bytes", "Memory reserved for decoded frames, in bytes", inner.decodes.taken() as u64),
        ];
        if let Some(loki) = loki(&inner) {
            let is_failing = u64::from(loki.state == LokiState::Failing);
            levels.push(("loki_lag_records", "Journal records not yet forwarded to Loki", loki.lag_records));
            levels.push(("loki_failing", "Whether the last push to Loki failed", is_failing));
        }
        for (name, help, level) in levels {
            let level = ConstGauge::new(gauge(level));
            level.encode(encoder.encode_descriptor(name, help, None, level.metric_type())?)?;
        }
        Ok(())
    }
}

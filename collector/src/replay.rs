//! Start is recovery: what the store does not have in files yet is read from the journal and published again.
//!
//! Always holds: every LSN from the store's last one to the journal's last one is published, in order, each once; one that
//! is lost or can't be read is published empty, and counted. Memory is one record and what the store holds: it makes the
//! replay wait while it writes.

use beeacon_journal::{Journal, JournalError, Lsn, Reader};
use beeacon_record::{Batch, Frame, Scrubbed};
use beeacon_store::{Commit, Store};
use bytes::Bytes;
use serde::Serialize;

use crate::agents::{Agents, Memory};
use crate::collector::{blocking, publish};
use crate::commit::{Progress, reconcile};
use crate::entry::{self, Entry, EntryKind};
use crate::error::CollectorError;
use crate::metrics::Metrics;
use crate::plan::{Known, Plan};

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Records read and published.
    pub records: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows left out because an earlier record had them: a record that was durable and never answered.
    pub duplicate_rows: u64,
    /// Records that are missing from the journal.
    pub lost_records: u64,
    /// Records that are whole and can't be read.
    pub undecodable_records: u64,
    /// Gap rows made for what the lost and unreadable records covered, where later records show it.
    pub damage_gaps: u64,
}

/// A record, read as far as it can be.
enum Found {
    Session(Entry),
    Batch { entry: Entry, before: Vec<Option<Progress>>, frame: Frame, batch: Box<Scrubbed<Batch>> },
    Unreadable,
}

/// Replays the journal into the store, and the store's state and the journal's into `agents`.
pub(crate) async fn replay(
    journal: &Journal,
    store: &Store,
    agents: &Agents,
    metrics: &Metrics,
) -> Result<ReplayReport, CollectorError> {
    restore(store, agents).await?;
    let mut replay =
        Replay { store, agents, metrics, next: store.flushed_lsn() + 1, report: ReplayReport::default() };
    let last = journal.synced_lsn().0;
    let mut reader = journal.reader(Lsn(replay.next));
    while replay.next <= last {
        let (back, read) = blocking("read the journal", move || read(reader)).await?;
        reader = back;
        match read {
            Ok(Some((lsn, found))) => {
                replay.pass_over(lsn.0).await?;
                replay.take(lsn.0, found).await?;
                replay.next = lsn.0 + 1;
            }
            Ok(None) => replay.pass_over(last + 1).await?,
            Err(JournalError::Truncated { first, .. }) if first.0 > replay.next => {
                replay.pass_over(first.0).await?;
                reader = journal.reader(first);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(replay.report)
}

/// What the store knew when it last wrote.
async fn restore(store: &Store, agents: &Agents) -> Result<(), CollectorError> {
    for (id, epoch) in store.epochs().await? {
        let agent = agents.restore(id);
        let mut state = agent.state.lock().await;
        agents.begin(&agent, &mut state, epoch);
    }
    for stored in store.sources().await? {
        let agent = agents.restore(stored.agent);
        let mut state = agent.state.lock().await;
        let memory = Memory::from_stored(&stored);
        agents.remember(&agent, &mut state, [(stored.source, memory)]);
    }
    Ok(())
}

/// Reads and decodes one record: all that blocks.
fn read(mut reader: Reader) -> (Reader, Result<Option<(Lsn, Found)>, JournalError>) {
    let read = reader.read().map(|record| record.map(|record| (record.lsn, decode(record.payload))));
    (reader, read)
}

fn decode(payload: Vec<u8>) -> Found {
    let Ok(entry) = entry::read(&Bytes::from(payload)) else { return Found::Unreadable };
    let EntryKind::Batch { before, frame } = &entry.kind else { return Found::Session(entry) };
    let Ok(frame) = Frame::parse(frame.clone()) else { return Found::Unreadable };
    if before.len() != frame.header().intervals.len() {
        return Found::Unreadable;
    }
    let before = before.clone();
    match frame.decode() {
        Ok(batch) => Found::Batch { entry, before, frame, batch: Box::new(batch) },
        Err(_) => Found::Unreadable,
    }
}

struct Replay<'a> {
    store: &'a Store,
    agents: &'a Agents,
    metrics: &'a Metrics,
    /// The LSN to be published next.
    next: u64,
    report: ReplayReport,
}

impl Replay<'_> {
    async fn publish(&self, commit: Commit) -> Result<(), CollectorError> {
        Ok(publish(self.store, commit, self.metrics).await?)
    }

    /// Publishes what is missing before `lsn` as empty.
    async fn pass_over(&mut self, lsn: u64) -> Result<(), CollectorError> {
        if lsn > self.next {
            tracing::error!(from = self.next, to = lsn - 1, "journal records are lost");
        }
        while self.next < lsn {
            self.publish(Commit::new(self.next, "default", 0)).await?;
            self.report.lost_records += 1;
            self.next += 1;
        }
        Ok(())
    }

    async fn take(&mut self, lsn: u64, found: Found) -> Result<(), CollectorError> {
        let commit = match found {
            Found::Unreadable => None,
            Found::Session(entry) => self.session(lsn, &entry).await,
            Found::Batch { entry, before, frame, batch } => {
                self.batch(lsn, &entry, &before, &frame, &batch).await
            }
        };
        match commit {
            Some(commit) => {
                self.report.records += 1;
                self.publish(commit).await
            }
            None => {
                tracing::error!(lsn, "a journal record can't be read");
                self.report.undecodable_records += 1;
                self.publish(Commit::new(lsn, "default", 0)).await
            }
        }
    }

    async fn session(&self, lsn: u64, entry: &Entry) -> Option<Commit> {
        let EntryKind::Session { agent: id, epoch } = entry.kind else { return None };
        let agent = self.agents.restore(id);
        let mut state = agent.state.lock().await;
        self.agents.begin(&agent, &mut state, epoch);
        let commit = Commit::new(lsn, entry.tenant.as_str(), entry.received_ns);
        Some(Commit { epoch: Some((id, epoch)), ..commit })
    }

    async fn batch(
        &mut self,
        lsn: u64,
        entry: &Entry,
        before: &[Option<Progress>],
        frame: &Frame,
        batch: &Scrubbed<Batch>,
    ) -> Option<Commit> {
        let agent = self.agents.restore(frame.header().agent);
        let mut state = agent.state.lock().await;
        let known: Vec<Known> = frame
            .header()
            .intervals
            .iter()
            .zip(before)
            .map(|(interval, noted)| {
                let seen = state.sources.get(&interval.source);
                let (progress, lost) = reconcile(seen.map(|seen| &seen.progress), noted.as_ref());
                let memory =
                    progress.map(|progress| Memory { progress, ..seen.cloned().unwrap_or_default() });
                Known { memory, lost }
            })
            .collect();
        let lost = known.iter().filter(|known| known.lost.is_some()).count();
        let plan = Plan::new(agent.id, &entry.tenant, entry.received_ns, batch, &known).ok()?;
        self.agents.begin(&agent, &mut state, frame.header().epoch);
        self.agents.remember(&agent, &mut state, plan.after.iter().cloned());
        self.report.rows += plan.rows;
        self.report.duplicate_rows += plan.duplicate_rows.saturating_sub(trimmed(before, batch));
        self.report.damage_gaps += lost as u64;
        Some(plan.commit(agent.id, &entry.tenant, entry.received_ns, lsn))
    }
}

/// How many rows were left out when the record was written.
fn trimmed(before: &[Option<Progress>], batch: &Scrubbed<Batch>) -> u64 {
    let verdicts = crate::plan::noted_verdicts(before, batch.get().intervals());
    crate::plan::wanted_rows(batch.get(), &verdicts)
        .map_or(0, |(wanted, _)| wanted.iter().filter(|wanted| !**wanted).count() as u64)
}

//! Following the journal from outside the room: whoever wants to see every line after it is durable, apart from its ack.
//!
//! Always holds:
//! - a follower delays no answer to an agent: it reads the journal from a durable place of its own;
//! - it sees every row that was stored, once per life, in the journal's order; what was lost before it was seen is counted;
//! - its claim on the journal ends where it would keep the doors shut.
//!
//! Who keeps up with the journal is shown the rows as they came out of their frames ([`crate::recent`]); who does not, or was away,
//! reads and inflates what the journal has.
//!
//! A new follower starts with what comes from then on. Whoever keeps a place of its own, written together with what was made
//! of the rows, starts there, and sees no row twice.

use std::sync::Arc;

use arrow_array::{Array, Int32Array, ListArray, StringArray, StructArray, UInt32Array};
use beeacon_journal::{Cursor, Journal, JournalError, Lsn, Reader};
use beeacon_record::schema::Column;
use beeacon_record::{Batch, Frame, Scrubbed};
use beeacon_store::GapRow;
use bytes::Bytes;
use tokio::sync::watch;

use crate::collector::{Collector, Inner, blocking};
use crate::consumers::advance;
use crate::entry::{self, EntryKind};
use crate::error::CollectorError;
use crate::plan::{Plan, noted_gaps, noted_verdicts, wanted_rows};
use crate::recent::RecentReader;

/// A row as a follower sees it.
#[derive(Clone, Copy, Debug)]
pub struct FollowedRow<'a> {
    /// The service it came from.
    pub service: &'a str,
    /// Its level, as the log schema spells it.
    pub level: &'a str,
    /// Its text, scrubbed.
    pub message: &'a str,
    /// What was taken out of it: rules and how often.
    pub redactions: &'a [(&'a str, u64)],
}

/// Lines that are missing right before those of a record, as its agent declared them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedGap {
    /// The source that they are missing from.
    pub source: String,
    /// Why, as the table `gaps` has it.
    pub reason: &'static str,
    /// How many bytes are missing at least; zero where that is not known.
    pub bytes: u64,
}

/// The rows of one record. Cheap to clone.
#[derive(Clone)]
pub struct FollowedRows {
    batch: Option<Scrubbed<Batch>>,
    /// Which of them were stored; all without it.
    wanted: Option<Arc<[bool]>>,
    gaps: Arc<[FollowedGap]>,
}

/// What a follower meets.
pub enum Followed {
    /// A record with rows.
    Rows {
        /// Its number.
        lsn: u64,
        /// When the collector received it, in nanoseconds since 1970.
        received_ns: i64,
        /// Records before it that are lost.
        lost_records: u64,
        /// Its rows: those that were stored.
        rows: FollowedRows,
    },
    /// Records without rows, rows that nobody wanted, or records that are lost.
    Passed {
        /// The last one's number.
        upto: u64,
        /// How many are lost or unreadable.
        lost_records: u64,
    },
    /// Told once: what was in the journal at the start has been shown.
    Current,
}

/// A place in the journal, and the way from there.
pub struct Follower {
    inner: Arc<Inner>,
    cursor: Cursor,
    recent: RecentReader,
    reader: Option<Reader>,
    place: u64,
    synced: watch::Receiver<u64>,
    is_current: bool,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("name", &self.cursor.name()).field("place", &self.place).finish()
    }
}

impl Collector {
    /// The follower of this name, one of those that the collector was opened with. It goes on behind `place`, or, without one,
    /// behind what it was done with last.
    ///
    /// # Errors
    /// When the journal cannot be used.
    pub async fn follow(&self, name: &str, place: Option<u64>) -> Result<Follower, CollectorError> {
        let (journal, name) = (self.inner.journal.clone(), name.to_owned());
        let cursor = blocking("open a follower's place", move || journal.cursor(&name)).await??;
        let synced = self.inner.journal.synced_lsn().0;
        let place = place.unwrap_or(cursor.get().0).min(synced);
        Ok(Follower {
            inner: Arc::clone(&self.inner),
            cursor,
            recent: self.inner.recent.reader(place),
            reader: None,
            place,
            synced: self.inner.synced.clone(),
            is_current: false,
        })
    }
}

impl Follower {
    /// The last record it was shown.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// What comes next; waits for it. Without `wants_rows` nothing is read or decoded.
    ///
    /// # Errors
    /// When the journal can't be read; also when it is closed.
    pub async fn next(&mut self, wants_rows: bool) -> Result<Followed, CollectorError> {
        loop {
            // Who watches is told a moment later than the journal knows it, and an answer may be out by then.
            let told = *self.synced.borrow_and_update();
            let synced = told.max(self.inner.journal.synced_lsn().0);
            if synced > self.place {
                let met = if wants_rows { self.read(synced).await? } else { Some(self.pass(synced)) };
                if let Some(met) = met {
                    return Ok(met);
                }
                continue;
            }
            if !std::mem::replace(&mut self.is_current, true) {
                return Ok(Followed::Current);
            }
            if self.synced.changed().await.is_err() {
                return Err(JournalError::Closed.into());
            }
        }
    }

    /// Goes past everything.
    fn pass(&mut self, synced: u64) -> Followed {
        self.reader = None;
        self.place = synced;
        self.recent.is_at(synced);
        Followed::Passed { upto: synced, lost_records: 0 }
    }

    /// One record, from memory or from the journal.
    async fn read(&mut self, synced: u64) -> Result<Option<Followed>, CollectorError> {
        let lsn = self.place + 1;
        let met = match self.recent.get(lsn) {
            Some(found) => {
                self.inner.metrics.followed("memory");
                self.reader = None;
                self.place = lsn;
                Some(met(lsn, 0, found))
            }
            None => self.read_journal(synced).await?,
        };
        self.recent.is_at(self.place);
        Ok(met)
    }

    /// Reads one record of the journal. None when a reader had to be placed anew.
    async fn read_journal(&mut self, synced: u64) -> Result<Option<Followed>, CollectorError> {
        let journal = self.inner.journal.clone();
        let reader = self.reader.take().unwrap_or_else(|| journal.reader(Lsn(self.place + 1)));
        let (reader, read) = blocking("read the journal for a follower", move || read(reader)).await?;
        match read {
            Ok(Some((lsn, found))) => {
                self.inner.metrics.followed("journal");
                self.reader = Some(reader);
                let lost_records = lsn.saturating_sub(self.place + 1);
                self.place = lsn;
                Ok(Some(match found {
                    Some(found) => met(lsn, lost_records, found),
                    None => Followed::Passed { upto: lsn, lost_records: lost_records + 1 },
                }))
            }
            // What is durable and was not given out is lost.
            Ok(None) => {
                let lost_records = synced.saturating_sub(self.place);
                self.place = synced;
                Ok(Some(Followed::Passed { upto: synced, lost_records }))
            }
            Err(JournalError::Truncated { first, .. }) if first.0 > self.place + 1 => {
                let lost_records = first.0 - 1 - self.place;
                self.place = first.0 - 1;
                Ok(Some(Followed::Passed { upto: self.place, lost_records }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The follower's claim on the journal.
    pub fn claim(&self) -> Claim {
        Claim { inner: Arc::clone(&self.inner), cursor: self.cursor.clone() }
    }
}

/// What a follower may still ask the journal for.
#[derive(Clone)]
pub struct Claim {
    inner: Arc<Inner>,
    cursor: Cursor,
}

impl Claim {
    /// Everything up to this record, which the follower was shown, will never be asked for again. Costs a sync.
    ///
    /// # Errors
    /// When the journal can promise nothing more.
    pub async fn done_with(&self, upto: u64) -> Result<(), CollectorError> {
        if Lsn(upto) <= self.cursor.get() {
            return Ok(());
        }
        advance(&self.inner, &self.cursor, Lsn(upto)).await
    }
}

/// A record's time of arrival and rows; none of a record without rows.
pub(crate) type Found = Option<(i64, FollowedRows)>;

fn met(lsn: u64, lost_records: u64, found: Found) -> Followed {
    match found {
        Some((received_ns, rows)) => Followed::Rows { lsn, received_ns, lost_records, rows },
        None => Followed::Passed { upto: lsn, lost_records },
    }
}

/// A record's number and what is in it; the inner none is a record that can't be read.
type Record = Option<(u64, Option<Found>)>;

/// Reads and decodes one record: all that blocks.
fn read(mut reader: Reader) -> (Reader, Result<Record, JournalError>) {
    let read = reader.read().map(|record| record.map(|record| (record.lsn.0, decode(record.payload))));
    (reader, read)
}

fn decode(payload: Vec<u8>) -> Option<Found> {
    let entry = entry::read(&Bytes::from(payload)).ok()?;
    let EntryKind::Batch { before, frame } = entry.kind else { return Some(None) };
    let batch = Frame::parse(frame).ok()?.decode().ok()?;
    let verdicts = noted_verdicts(&before, batch.get().intervals());
    let (wanted, _) = wanted_rows(batch.get(), &verdicts).ok()?;
    let gaps = noted_gaps(&before, batch.get().intervals());
    let gaps = gaps.map(|(source, gap)| FollowedGap {
        source: source.to_string(),
        reason: gap.reason.as_str(),
        bytes: gap.bytes,
    });
    let gaps = gaps.collect();
    let rows = FollowedRows { batch: Some(batch), wanted: Some(wanted.into()), gaps };
    Some(Some((entry.received_ns, rows)))
}

impl FollowedRows {
    /// All rows of a batch, as a follower would be shown those of a record that holds it.
    pub fn all(batch: Scrubbed<Batch>) -> FollowedRows {
        FollowedRows { batch: Some(batch), wanted: None, gaps: Arc::default() }
    }

    /// What a frame's plan stores.
    pub(crate) fn of(plan: &Plan) -> FollowedRows {
        let gap = |gap: &GapRow| FollowedGap {
            source: gap.source.to_string(),
            reason: gap.reason.as_str(),
            bytes: gap.bytes,
        };
        FollowedRows { batch: plan.batch.clone(), wanted: None, gaps: plan.gaps.iter().map(gap).collect() }
    }

    /// What is missing right before them.
    pub fn gaps(&self) -> &[FollowedGap] {
        &self.gaps
    }

    /// Shows the rows, once and all together.
    pub fn visit(&self, see: &mut dyn FnMut(&[FollowedRow<'_>])) {
        self.visit_those(|_| true, see);
    }

    /// Shows the rows that had something taken out, once and all together.
    pub fn visit_redacted(&self, see: &mut dyn FnMut(&[FollowedRow<'_>])) {
        self.visit_those(|redactions| redactions > 0, see);
    }

    /// Shows the rows whose number of redactions is wanted.
    fn visit_those(&self, is_wanted: impl Fn(usize) -> bool, see: &mut dyn FnMut(&[FollowedRow<'_>])) {
        let Some(batch) = self.batch.as_ref().map(Scrubbed::get) else { return see(&[]) };
        let column = |column| batch.dictionary_column(column).ok();
        let (Some(services), Some(levels)) = (column(Column::Service), column(Column::Level)) else { return };
        let word = |(keys, values): (&Int32Array, &'_ StringArray), row: usize| {
            let key = keys.values().get(row).and_then(|key| usize::try_from(*key).ok());
            key.filter(|key| *key < values.len())
        };
        let messages = batch.messages();
        let (redactions, ends) = redactions(batch.redactions());
        let mut rows = Vec::new();
        let mut end = 0;
        for row in 0..batch.rows() {
            let start = end;
            end = ends.get(row).copied().unwrap_or(start);
            let is_stored =
                self.wanted.as_ref().is_none_or(|wanted| wanted.get(row).copied().unwrap_or(false));
            if !is_stored || !is_wanted(end - start) {
                continue;
            }
            let text = |words: (&Int32Array, &'_ StringArray)| word(words, row);
            rows.push(FollowedRow {
                service: text(services).map_or("", |key| services.1.value(key)),
                level: text(levels).map_or("", |key| levels.1.value(key)),
                message: if row < messages.len() { messages.value(row) } else { "" },
                redactions: redactions.get(start..end).unwrap_or_default(),
            });
        }
        see(&rows);
    }
}

/// All redactions of a batch, and where those of each row end.
fn redactions(lists: &ListArray) -> (Vec<(&str, u64)>, Vec<usize>) {
    let entries = lists.values().as_any().downcast_ref::<StructArray>();
    let rules = entries.and_then(|entries| entries.column(0).as_any().downcast_ref::<StringArray>());
    let counts = entries.and_then(|entries| entries.column(1).as_any().downcast_ref::<UInt32Array>());
    let (Some(rules), Some(counts)) = (rules, counts) else { return (Vec::new(), Vec::new()) };
    let (mut all, mut ends) = (Vec::with_capacity(rules.len()), Vec::with_capacity(lists.len()));
    for bounds in lists.value_offsets().windows(2) {
        let bound = |at: usize| bounds.get(at).and_then(|bound| usize::try_from(*bound).ok()).unwrap_or(0);
        for index in bound(0)..bound(1).min(rules.len()) {
            let count = counts.values().get(index).copied().unwrap_or(0);
            all.push((rules.value(index), u64::from(count)));
        }
        ends.push(all.len());
    }
    (all, ends)
}

/// Makes the places of these followers, where they are new behind what there is, and forgets those of others.
pub(crate) fn open_places(journal: &Journal, names: &[String], others: &[&str]) -> Result<(), JournalError> {
    let known: Vec<String> = journal.cursors().into_iter().map(|(name, _)| name).collect();
    for name in names {
        let cursor = journal.cursor(name)?;
        if !known.contains(name) {
            cursor.advance(journal.synced_lsn())?;
        }
    }
    for name in known {
        if !names.contains(&name) && !others.contains(&name.as_str()) {
            tracing::info!(name, "nobody of this name follows the journal any more: its place is given up");
            journal.forget_cursor(&name)?;
        }
    }
    Ok(())
}

/// Moves the places of followers that hold what the store is done with, where the journal needs the room.
pub(crate) async fn press(inner: &Inner) -> Result<(), CollectorError> {
    let stored = inner.store_cursor.get();
    for name in &inner.followers {
        let (journal, name) = (inner.journal.clone(), name.clone());
        let cursor = match blocking("open a follower's place", move || journal.cursor(&name)).await? {
            Ok(cursor) => cursor,
            Err(JournalError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let place = cursor.get();
        if place < stored {
            tracing::warn!(
                follower = cursor.name(),
                records = stored.0 - place.0,
                "the journal needs room: a follower's claim on it ends"
            );
            advance(inner, &cursor, stored).await?;
        }
    }
    Ok(())
}

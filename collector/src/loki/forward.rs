//! The loop: read the journal, make entries, push, move on. The only place here that waits.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use beeacon_journal::{Cursor, Journal, JournalError, Lsn, Reader};
use beeacon_record::Frame;
use bytes::Bytes;
use tokio::sync::watch;

use super::answer::{Answer, FailureKind, RefusalReason};
use super::push::Load;
use super::{Loki, rows};
use crate::collector::{Inner, blocking};
use crate::consumers::{LOKI_CURSOR, advance};
use crate::entry::{self, EntryKind};
use crate::error::CollectorError;
use crate::limits::{LOKI_BISECT_REQUESTS_MAX, LOKI_PUSH_BYTES_TARGET, LOKI_PUSH_ENTRIES_MAX};
use crate::metrics::ReasonLabel;
use crate::plan::{noted_verdicts, wanted_rows};

/// Forwards until the journal can't be read.
pub(crate) async fn forward(inner: &Arc<Inner>, loki: &Arc<Loki>) -> CollectorError {
    match run(inner, loki).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn run(inner: &Arc<Inner>, loki: &Arc<Loki>) -> Result<std::convert::Infallible, CollectorError> {
    let journal = inner.journal.clone();
    let cursor = blocking("open loki's place", move || journal.cursor(LOKI_CURSOR)).await??;
    loki.set_place(cursor.get().0);
    let mut synced = inner.synced.clone();
    let mut reader = inner.journal.reader(Lsn(loki.place() + 1));
    let leg = Leg { inner, loki, cursor };
    let mut pressure = loki.pressure.subscribe();
    loop {
        synced.borrow_and_update();
        let (back, gathered) = leg.gather(reader).await?;
        reader = back;
        if gathered.upto <= loki.place() {
            if synced.changed().await.is_err() {
                // The journal is closed.
                std::future::pending::<()>().await;
            }
            continue;
        }
        inner.metrics.loki_skipped_records.inc_by(gathered.unreadable);
        // Giving up a push half-way is safe: what it carries counts as skipped.
        tokio::select! {
            () = leg.deliver(Arc::new(gathered.load)) => leg.done_with(gathered.upto).await?,
            bytes = pressed(&mut pressure) => {
                leg.skip(bytes).await?;
                reader = inner.journal.reader(Lsn(loki.place() + 1));
            }
        }
    }
}

/// Waits until the journal needs room.
async fn pressed(pressure: &mut watch::Receiver<u64>) -> u64 {
    let bytes = pressure.wait_for(|bytes| *bytes > 0).await.map(|bytes| *bytes).ok();
    match bytes {
        Some(bytes) => bytes,
        None => std::future::pending().await,
    }
}

/// What was read in one go.
struct Gathered {
    load: Load,
    /// The last record looked at, or lost.
    upto: u64,
    /// Records that are lost or can't be read.
    unreadable: u64,
}

struct Leg<'a> {
    inner: &'a Arc<Inner>,
    loki: &'a Arc<Loki>,
    cursor: Cursor,
}

impl Leg<'_> {
    /// Reads on. The reader comes back: a new one would read its segment from the beginning.
    async fn gather(&self, reader: Reader) -> Result<(Reader, Gathered), CollectorError> {
        let journal = self.inner.journal.clone();
        let labels = self.loki.options.labels.clone();
        let place = self.loki.place();
        let work = move || gather(&journal, reader, place, &labels);
        Ok(blocking("read the journal for loki", work).await??)
    }

    /// Pushes everything of a load, in order.
    async fn deliver(&self, load: Arc<Load>) {
        for run in load.runs(LOKI_PUSH_BYTES_TARGET, LOKI_PUSH_ENTRIES_MAX) {
            self.deliver_run(&load, run).await;
        }
    }

    /// Pushes a run; where Loki refuses entries it is halved until they are alone.
    async fn deliver_run(&self, load: &Arc<Load>, run: Range<usize>) {
        let metrics = &self.inner.metrics;
        let mut waiting = vec![run];
        let mut requests = 0;
        while let Some(run) = waiting.pop() {
            let body = compress(load, run.clone()).await;
            let body_bytes = body.len() as u64;
            requests += 1;
            match self.push(body).await {
                Ok(()) => {
                    metrics.loki_pushes.inc();
                    metrics.loki_entries.inc_by(run.len() as u64);
                    metrics.loki_bytes.inc_by(body_bytes);
                }
                Err(reason) if run.len() <= 1 || requests >= LOKI_BISECT_REQUESTS_MAX => {
                    let label = ReasonLabel { reason: reason.as_str() };
                    metrics.loki_refused_entries.get_or_create(&label).inc_by(run.len() as u64);
                }
                Err(_) => {
                    let middle = run.start + run.len() / 2;
                    waiting.push(middle..run.end);
                    waiting.push(run.start..middle);
                }
            }
        }
    }

    /// Sends one body until Loki takes or refuses it.
    async fn push(&self, body: Bytes) -> Result<(), RefusalReason> {
        let mut failures = 0;
        loop {
            let (kind, after) = match self.loki.client.push(body.clone()).await {
                Answer::Accepted => {
                    self.loki.set_failing(None);
                    return Ok(());
                }
                Answer::Refused { reason } => {
                    self.loki.set_failing(None);
                    return Err(reason);
                }
                Answer::Again { kind, after } => (kind, after),
            };
            self.note_failure(kind, failures);
            let pause = pause(failures, &self.loki.options, random());
            tokio::time::sleep(after.unwrap_or_default().max(pause)).await;
            failures = failures.saturating_add(1);
        }
    }

    fn note_failure(&self, kind: FailureKind, failures: u32) {
        if failures == 0 {
            tracing::warn!(kind = kind.as_str(), "loki does not take a push; it is tried again");
        }
        self.loki.set_failing(Some(kind));
        let label = ReasonLabel { reason: kind.as_str() };
        self.inner.metrics.loki_failures.get_or_create(&label).inc();
    }

    async fn done_with(&self, upto: u64) -> Result<(), CollectorError> {
        self.loki.set_place(upto);
        advance(self.inner, &self.cursor, Lsn(upto)).await
    }

    /// Lets go of so many bytes of the journal, though not of what the store needs too, and counts what was in them.
    async fn skip(&self, bytes: u64) -> Result<(), CollectorError> {
        let (journal, place) = (self.inner.journal.clone(), self.loki.place());
        let end = self.inner.store_cursor.get().0;
        let skipped = blocking("skip records for loki", move || skip(&journal, place, end, bytes)).await??;
        self.loki.press(0);
        if skipped.upto > place {
            tracing::warn!(
                records = skipped.upto - place,
                entries = skipped.entries,
                "the journal needs room: records are not forwarded to loki"
            );
            let metrics = &self.inner.metrics;
            metrics.loki_skipped_records.inc_by(skipped.upto - place);
            metrics.loki_skipped_entries.inc_by(skipped.entries);
            self.done_with(skipped.upto).await?;
        }
        // Look whether it was enough.
        self.inner.cramped.notify_one();
        Ok(())
    }
}

async fn compress(load: &Arc<Load>, run: Range<usize>) -> Bytes {
    let load = Arc::clone(load);
    let work = move || {
        let request = load.request(run);
        // Fails only beyond four gigabytes.
        snap::raw::Encoder::new().compress_vec(&request).map(Bytes::from).unwrap_or_default()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// Reads records after `place` until there is enough for a push, or no more.
fn gather(
    journal: &Journal,
    mut reader: Reader,
    place: u64,
    labels: &[(String, String)],
) -> Result<(Reader, Gathered), JournalError> {
    let mut gathered = Gathered { load: Load::new(), upto: place, unreadable: 0 };
    let synced = journal.synced_lsn().0;
    while gathered.load.bytes() < LOKI_PUSH_BYTES_TARGET && gathered.load.entries() < LOKI_PUSH_ENTRIES_MAX {
        match reader.read() {
            Ok(Some(record)) => {
                gathered.miss_up_to(record.lsn.0 - 1);
                gathered.upto = record.lsn.0;
                if append(&mut gathered.load, record.payload, labels).is_none() {
                    gathered.unreadable += 1;
                }
            }
            Ok(None) => {
                // What is durable and was not given out is lost.
                gathered.miss_up_to(synced);
                break;
            }
            Err(JournalError::Truncated { first, .. }) if first.0 > gathered.upto + 1 => {
                gathered.miss_up_to(first.0 - 1);
                reader = journal.reader(first);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((reader, gathered))
}

impl Gathered {
    fn miss_up_to(&mut self, lsn: u64) {
        self.unreadable += lsn.saturating_sub(self.upto);
        self.upto = self.upto.max(lsn);
    }
}

/// Adds the rows that a record stored when it was written; none when it can't be read.
fn append(load: &mut Load, payload: Vec<u8>, labels: &[(String, String)]) -> Option<()> {
    let EntryKind::Batch { before, frame } = entry::read(&Bytes::from(payload)).ok()?.kind else {
        return Some(());
    };
    let batch = Frame::parse(frame).ok()?.decode().ok()?;
    let verdicts = noted_verdicts(&before, batch.get().intervals());
    let (wanted, _) = wanted_rows(batch.get(), &verdicts).ok()?;
    rows::append(load, batch.get(), &wanted, labels).ok()
}

struct Skipped {
    upto: u64,
    entries: u64,
}

/// Counts records after `place`, up to `end`, until they make `bytes`.
fn skip(journal: &Journal, place: u64, end: u64, bytes: u64) -> Result<Skipped, JournalError> {
    let mut skipped = Skipped { upto: place, entries: 0 };
    let mut reader = journal.reader(Lsn(place + 1));
    let mut seen_bytes = 0;
    while seen_bytes < bytes && skipped.upto < end {
        match reader.read() {
            Ok(Some(record)) if record.lsn.0 > end => skipped.upto = end,
            Ok(Some(record)) => {
                skipped.upto = record.lsn.0;
                seen_bytes += record.payload.len() as u64;
                skipped.entries += frame_rows(record.payload).unwrap_or(0);
            }
            Ok(None) => skipped.upto = end,
            Err(JournalError::Truncated { first, .. }) if first.0 > skipped.upto + 1 => {
                skipped.upto = end.min(first.0 - 1);
                reader = journal.reader(first);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(skipped)
}

/// A record's rows, by its header.
fn frame_rows(payload: Vec<u8>) -> Option<u64> {
    match entry::read(&Bytes::from(payload)).ok()?.kind {
        EntryKind::Batch { frame, .. } => Some(u64::from(Frame::parse(frame).ok()?.header().row_count)),
        EntryKind::Session { .. } => Some(0),
    }
}

/// The pause after so many failures: doubling, capped, and between half and all of that, so that many collectors do not
/// come back at one moment.
fn pause(failures: u32, options: &super::LokiOptions, random: u64) -> Duration {
    let whole = options.pause_min.saturating_mul(1 << failures.min(16)).min(options.pause_max);
    let half = whole / 2;
    let part = u32::try_from(random % 1024).unwrap_or(0);
    half + half * part / 1024
}

/// A number that differs from call to call and from process to process.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loki::LokiOptions;

    #[test]
    fn pauses_double_up_to_their_limit_and_vary_by_half() {
        let options = LokiOptions {
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(1),
            ..LokiOptions::new("http://loki")
        };
        let milliseconds = |failures, random| pause(failures, &options, random).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 40].map(|n| milliseconds(n, 0)), [50, 100, 200, 400, 500, 500]);
        assert_eq!(milliseconds(1, 512), 150);
        assert!(milliseconds(40, u64::MAX) <= 1000);
    }
}

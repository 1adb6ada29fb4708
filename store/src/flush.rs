//! From fresh rows to a committed file: the protocol that the crate's documentation describes, and the task that runs it.

use std::sync::Arc;
use std::time::Duration;

use beeacon_record::{AgentId, Epoch, Source};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::{CommitOutcome, FlushCommit, StagedFile};
use crate::commit::SourceProgress;
use crate::encode::{EncodedFile, encode};
use crate::error::{Duty, StoreError};
use crate::footer::check_footer;
use crate::fresh::FreshCommit;
use crate::hooks::Step;
use crate::limits::{FLUSH_CHUNK_BYTES_MAX, FLUSH_CHUNK_COMMITS_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use crate::recover::sweep_staged;
use crate::store::Shared;

/// Flushes by size and age until the store is closed or every handle is gone.
pub(crate) async fn run_flushes(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut pause = Duration::ZERO;
    loop {
        let due_in = until_due(&shared).map(|due_in| due_in.max(pause));
        if due_in.is_none() {
            // Somebody else wrote what had failed here.
            pause = Duration::ZERO;
        }
        let timer = async {
            match due_in {
                Some(due_in) => tokio::time::sleep(due_in).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = timer => {}
            () = shared.wake.notified(), if pause.is_zero() => continue,
        }
        let upto = shared.fresh().prefix_end();
        pause = match flush_through(&shared, upto).await {
            Ok(_) => Duration::ZERO,
            Err(error) if error.duty() == Duty::Stop => {
                tracing::error!(error = &error as &dyn std::error::Error, "stopped writing fresh rows");
                return;
            }
            Err(error) => {
                let next = (pause * 2).clamp(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
                tracing::warn!(error = &error as &dyn std::error::Error, retry_in = ?next, "fresh rows could not be written");
                next
            }
        };
    }
}

/// How long until a flush is due by itself; nothing when there is nothing to write.
fn until_due(shared: &Shared) -> Option<Duration> {
    let waiting = shared.waiting.load(std::sync::atomic::Ordering::Relaxed) > 0;
    let fresh = shared.fresh();
    let age = fresh.oldest_arrival()?.elapsed();
    let is_due = waiting || fresh.prefix_bytes() >= shared.options.flush_bytes;
    Some(if is_due { Duration::ZERO } else { shared.options.flush_age.saturating_sub(age) })
}

/// Writes the unbroken run of commits up to `upto`, in chunks. Gives the LSN up to which everything is in files.
pub(crate) async fn flush_through(shared: &Arc<Shared>, upto: u64) -> Result<u64, StoreError> {
    let mut must_mend = shared.flushing.lock().await;
    loop {
        if *must_mend {
            let mended = mend(shared).await;
            if mended.is_err() {
                shared.metrics.flush_errors.inc();
            }
            mended?;
            *must_mend = false;
        }
        let (chunk, flushed_lsn) = {
            let fresh = shared.fresh();
            (fresh.next_chunk(upto, FLUSH_CHUNK_BYTES_MAX, FLUSH_CHUNK_COMMITS_MAX), fresh.flushed_lsn())
        };
        if chunk.is_empty() {
            return Ok(flushed_lsn);
        }
        // Set before the first side effect: an error, a panic or a lost task leaves it set.
        *must_mend = true;
        match write_chunk(shared, chunk).await {
            Ok(()) => *must_mend = false,
            Err(error) => {
                shared.metrics.flush_errors.inc();
                return Err(error);
            }
        }
    }
}

/// After a failure: finds out whether the last transaction was committed after all, and removes what it announced if not.
async fn mend(shared: &Shared) -> Result<(), StoreError> {
    let upto = shared.catalog.upto().await?;
    let (flushed_lsn, prefix_end) = {
        let fresh = shared.fresh();
        (fresh.flushed_lsn(), fresh.prefix_end())
    };
    if upto < flushed_lsn || upto > prefix_end {
        return Err(StoreError::Fenced { found: upto, expected: flushed_lsn });
    }
    if upto > flushed_lsn {
        finish(shared, upto).await?;
    }
    sweep_staged(shared.catalog.as_ref(), &shared.objects).await?;
    Ok(())
}

/// Lets memory go of what is in files, and tells everybody.
async fn finish(shared: &Shared, upto: u64) -> Result<(), StoreError> {
    {
        let mut fresh = shared.fresh();
        fresh.release(upto);
        shared.metrics.set_fresh(&fresh);
    }
    shared.flushed.send_replace(upto);
    shared.room.notify_waiters();
    let totals = shared.catalog.totals().await?;
    *shared.totals() = totals;
    shared.metrics.set_totals(totals);
    Ok(())
}

/// The protocol for one chunk: encode, T0, put, read back, T1, forget.
async fn write_chunk(shared: &Arc<Shared>, chunk: Vec<Arc<FreshCommit>>) -> Result<(), StoreError> {
    let started = Instant::now();
    let commit = FlushCommit::new(&chunk);
    let encoded =
        tokio::task::spawn_blocking(move || encode(&chunk)).await.map_err(|_| StoreError::TaskLost)??;
    shared.reach(Step::BeforeStage)?;
    if !encoded.is_empty() {
        let staged: Vec<StagedFile> = encoded.iter().map(|file| file.staged.clone()).collect();
        shared.catalog.stage(&staged).await?;
        shared.reach(Step::AfterStage)?;
        for file in &encoded {
            put(shared, file).await?;
            shared.reach(Step::AfterFirstPut)?;
        }
        shared.reach(Step::AfterPut)?;
        for file in &encoded {
            check_footer(&shared.objects, &file.staged.path, &file.facts).await?;
        }
    }
    let commit = commit.with_files(&encoded);
    shared.reach(Step::BeforeCommit)?;
    if let CommitOutcome::Elsewhere { upto } = shared.catalog.commit(&commit).await? {
        return Err(StoreError::Fenced { found: upto, expected: commit.from_lsn.saturating_sub(1) });
    }
    shared.reach(Step::AfterCommit)?;
    let rows: u64 = encoded.iter().map(|file| file.facts.rows).sum();
    let bytes: u64 = encoded.iter().map(|file| file.facts.bytes).sum();
    shared.metrics.written_rows.inc_by(rows);
    shared.metrics.written_bytes.inc_by(bytes);
    shared.metrics.observe_flush(started.elapsed());
    tracing::debug!(
        from_lsn = commit.from_lsn,
        to_lsn = commit.to_lsn,
        files = encoded.len(),
        rows,
        bytes,
        "flushed"
    );
    finish(shared, commit.to_lsn).await
}

async fn put(shared: &Shared, file: &EncodedFile) -> Result<(), StoreError> {
    let path = &file.staged.path;
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let put = shared.objects.put_opts(path, PutPayload::from(file.bytes.clone()), options).await;
    put.map_err(|error| StoreError::object("write", path, error))?;
    let meta = shared.objects.head(path).await.map_err(|error| StoreError::object("look at", path, error))?;
    if meta.size != file.facts.bytes {
        let fault = format!("size is {}, written were {} bytes", meta.size, file.facts.bytes);
        return Err(StoreError::ReadBack { path: path.to_string(), fault });
    }
    Ok(())
}

impl FlushCommit {
    /// What consecutive commits change, but for files. Where one source or agent occurs in several, the last one counts.
    fn new(chunk: &[Arc<FreshCommit>]) -> Self {
        let mut progress: BTreeMap<(AgentId, Source), SourceProgress> = BTreeMap::new();
        let mut epochs: BTreeMap<AgentId, Epoch> = BTreeMap::new();
        let mut gaps = Vec::new();
        for commit in chunk {
            for source in &commit.progress {
                progress.insert((source.agent, source.source.clone()), source.clone());
            }
            if let Some((agent, epoch)) = commit.epoch {
                epochs.insert(agent, epoch);
            }
            gaps.extend(
                commit.gaps.iter().cloned().enumerate().map(|(ordinal, gap)| (commit.lsn, ordinal, gap)),
            );
        }
        FlushCommit {
            from_lsn: chunk.first().map_or(0, |commit| commit.lsn),
            to_lsn: chunk.last().map_or(0, |commit| commit.lsn),
            files: Vec::new(),
            progress: progress.into_values().collect(),
            epochs: epochs.into_iter().collect(),
            gaps,
        }
    }

    fn with_files(mut self, encoded: &[EncodedFile]) -> Self {
        self.files = encoded.iter().map(|file| file.facts.clone()).collect();
        self
    }
}

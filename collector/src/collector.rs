//! The collector as the program composes it: open, its doors, its consumers, close.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::{MethodRouter, post};
use beeacon_journal::{Journal, JournalError, JournalOptions, Lsn, Payload};
use beeacon_record::wire::{INGEST_PATH, RefusalCode, SESSION_PATH};
use beeacon_store::{Commit, Duty, Store, StoreError};
use http::StatusCode;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::agents::Agents;
use crate::consumers;
use crate::error::{CollectorError, chain};
use crate::followers::{self, Found};
use crate::limits::{
    BODY_BYTES_IN_FLIGHT_MAX, CLOSE_WAIT_MAX, COMMITS_IN_FLIGHT_MAX, DECODE_BYTES_IN_FLIGHT_MAX,
    PUBLISH_RETRY_PAUSE, TENANT_BYTES_MAX,
};
use crate::loki::{Loki, LokiOptions};
use crate::metrics::Metrics;
use crate::permits::ByteBudget;
use crate::recent::Recent;
use crate::refusal::Refused;
use crate::replay::{ReplayReport, replay};
use crate::status::CollectorStatus;
use crate::{ingest, session, status};

/// How a collector is opened.
#[derive(Clone, Debug)]
pub struct CollectorOptions {
    /// Where the journal lives. Made if it does not exist.
    pub journal_directory: PathBuf,
    /// The journal's sizes. `known_lsn` is set by the collector.
    pub journal: JournalOptions,
    /// Where to forward to, if anywhere. A Loki that is not named any more has no claim on the journal.
    pub loki: Option<LokiOptions>,
    /// The names of those who follow the journal beside the store and Loki: each has a durable place in it, which holds it until
    /// there is no other room. A place whose name is not among them any more is given up.
    pub followers: Vec<String>,
    /// Whose rows arrive. One tenant in this version.
    pub tenant: String,
    /// Request bodies in memory at once, in bytes; at least one frame of the largest size.
    pub body_bytes_in_flight_max: usize,
    /// Memory for decoding frames at once, in bytes; at least twice the most that a frame may inflate to.
    pub decode_bytes_in_flight_max: usize,
}

impl CollectorOptions {
    /// The defaults, with the journal in this directory and without Loki.
    pub fn new(journal_directory: impl Into<PathBuf>) -> Self {
        CollectorOptions {
            journal_directory: journal_directory.into(),
            journal: JournalOptions::default(),
            loki: None,
            followers: Vec::new(),
            tenant: "default".to_owned(),
            body_bytes_in_flight_max: BODY_BYTES_IN_FLIGHT_MAX,
            decode_bytes_in_flight_max: DECODE_BYTES_IN_FLIGHT_MAX,
        }
    }

    fn check(&self) -> Result<(), CollectorError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let (bytes, limit) = (self.tenant.len(), TENANT_BYTES_MAX);
        if bytes == 0 || bytes > limit || !self.tenant.bytes().all(plain) {
            return Err(CollectorError::Tenant { bytes, limit });
        }
        Ok(())
    }
}

/// Takes frames in, makes them durable, answers, and feeds what reads the journal. Clones are handles to the same one.
#[derive(Clone)]
pub struct Collector {
    pub(crate) inner: Arc<Inner>,
}

/// What the doors, the commits and the consumers share.
pub(crate) struct Inner {
    pub(crate) tenant: String,
    pub(crate) journal: Journal,
    pub(crate) journal_bytes_max: u64,
    pub(crate) journal_recovery: beeacon_journal::RecoveryReport,
    pub(crate) replay: ReplayReport,
    pub(crate) store: Store,
    pub(crate) store_cursor: beeacon_journal::Cursor,
    pub(crate) agents: Agents,
    pub(crate) bodies: ByteBudget,
    pub(crate) decodes: ByteBudget,
    /// One permit per commit on its way; closing takes them all.
    pub(crate) commits: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) loki: Option<Arc<Loki>>,
    pub(crate) followers: Vec<String>,
    pub(crate) recent: Recent,
    /// The last durable record, for whoever follows the journal.
    pub(crate) synced: watch::Receiver<u64>,
    /// The journal refused for want of room: look at once.
    pub(crate) cramped: Notify,
    failure: OnceLock<CollectorError>,
    failed: Notify,
    /// The last thing that went wrong without stopping anything.
    trouble: Mutex<Option<String>>,
}

impl Collector {
    /// Opens the journal and replays into the store what the store does not have in files yet. Memory stays bounded: the
    /// replay waits while the store writes. Records that are damaged or can't be read are counted and passed over.
    ///
    /// # Errors
    /// When an option is wrong, the journal can't be opened, or the store can't be read or takes nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer.
    pub async fn open(options: CollectorOptions, store: Store) -> Result<Collector, CollectorError> {
        options.check()?;
        let loki = options.loki.map(Loki::new).transpose()?.map(Arc::new);
        let journal_options = JournalOptions { known_lsn: Lsn(store.flushed_lsn()), ..options.journal };
        let journal_bytes_max = journal_options.journal_bytes_max;
        let directory = options.journal_directory;
        let is_forwarding = loki.is_some();
        let followers = options.followers.clone();
        let (journal, journal_recovery, store_cursor) = blocking("open the journal", move || {
            let (journal, report) = Journal::open(directory, journal_options)?;
            let cursor = journal.cursor(consumers::STORE_CURSOR)?;
            if is_forwarding {
                journal.cursor(consumers::LOKI_CURSOR)?;
            } else if journal.forget_cursor(consumers::LOKI_CURSOR)? {
                tracing::info!("loki is not configured any more: its place in the journal is given up");
                journal.truncate()?;
            }
            followers::open_places(&journal, &followers, &[consumers::STORE_CURSOR, consumers::LOKI_CURSOR])?;
            Ok::<_, JournalError>((journal, report, cursor))
        })
        .await??;
        let (sender, synced) = watch::channel(journal.synced_lsn().0);
        journal.on_synced(move |lsn| {
            sender.send_replace(lsn.0);
        })?;
        let agents = Agents::default();
        let metrics = Metrics::default();
        let replay = replay(&journal, &store, &agents, &metrics).await?;
        let inner = Inner {
            tenant: options.tenant,
            journal,
            journal_bytes_max,
            journal_recovery,
            replay,
            store,
            store_cursor,
            agents,
            bodies: ByteBudget::new(options.body_bytes_in_flight_max),
            decodes: ByteBudget::new(options.decode_bytes_in_flight_max),
            commits: Arc::new(Semaphore::new(COMMITS_IN_FLIGHT_MAX)),
            metrics,
            loki,
            followers: options.followers,
            recent: Recent::default(),
            synced,
            cramped: Notify::new(),
            failure: OnceLock::new(),
            failed: Notify::new(),
            trouble: Mutex::new(None),
        };
        Ok(Collector { inner: Arc::new(inner) })
    }

    /// The doors: [`SESSION_PATH`] and [`INGEST_PATH`]. Who may come in is for the layers around them.
    pub fn router(&self) -> Router {
        let door = |route: MethodRouter<Arc<Inner>>| route.fallback(wrong_method);
        Router::new()
            .route(SESSION_PATH, door(post(session::session)))
            .route(INGEST_PATH, door(post(ingest::ingest)))
            .with_state(Arc::clone(&self.inner))
    }

    /// Drives what reads the journal (the store's place in it, the Loki leg, truncation) until `shutdown` completes or the
    /// collector fails. Ingest works without it, until the journal is full.
    ///
    /// # Errors
    /// When the journal or the store can promise nothing more: stop the process and start again.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), CollectorError> {
        let keeper = consumers::keep_house(&self.inner);
        let forwarder = async {
            match &self.inner.loki {
                Some(loki) => crate::loki::forward(&self.inner, loki).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown => Ok(()),
            error = self.failure() => Err(error),
            error = keeper => Err(error),
            error = forwarder => Err(error),
        }
    }

    /// How the collector is doing, for people.
    pub fn status(&self) -> CollectorStatus {
        status::status(&self.inner)
    }

    /// Adds the metrics, named `beeacon_collector_…`, and looks at sizes and lags whenever they are read.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("beeacon_collector");
        self.inner.metrics.register(registry);
        registry.register_collector(Box::new(status::Levels::new(&self.inner)));
    }

    /// Whether a frame would be taken now: for a readiness check.
    pub fn is_ready(&self) -> bool {
        self.inner.failure.get().is_none()
            && self.inner.journal.health().is_ok()
            && self.inner.store.has_room()
    }

    /// Waits for commits on their way, lets the store write what it can, gives up the journal's room for it, and closes the
    /// journal. The doors refuse from then on. The store stays open.
    ///
    /// # Errors
    /// When the journal had failed before. What the store could not write stays in the journal.
    pub async fn close(&self) -> Result<(), CollectorError> {
        let inner = &self.inner;
        let all = u32::try_from(COMMITS_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        if !inner.commits.is_closed() {
            let all = tokio::time::timeout(CLOSE_WAIT_MAX, inner.commits.acquire_many(all)).await;
            inner.commits.close();
            if all.is_err() {
                tracing::warn!("some frames wait for room in the store; the next start replays them");
            }
            if let Err(error) = inner.store.flush().await {
                tracing::warn!(error = chain(&error), "the last flush failed; the journal keeps the rows");
            }
            if let Err(error) = consumers::advance_store(inner).await {
                tracing::warn!(error = chain(&error), "the store's place in the journal stays behind");
            }
        }
        let journal = inner.journal.clone();
        Ok(blocking("close the journal", move || journal.close()).await??)
    }

    async fn failure(&self) -> CollectorError {
        loop {
            let notified = self.inner.failed.notified();
            if let Some(error) = self.inner.failure.get() {
                return error.clone();
            }
            notified.await;
        }
    }
}

impl Inner {
    /// Stops everything: nothing more can be promised. The first cause stays.
    pub(crate) fn fail(&self, error: CollectorError) {
        tracing::error!(error = chain(&error), "the collector can't go on");
        // A later cause follows from the first.
        drop(self.failure.set(error));
        self.failed.notify_waiters();
    }

    pub(crate) fn has_failed(&self) -> Option<&CollectorError> {
        self.failure.get()
    }

    pub(crate) fn note_trouble(&self, what: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses while there is no room, before anything is written.
    pub(crate) fn check_room(&self) -> Result<(), Refused> {
        if self.has_failed().is_some() {
            return Err(Refused::internal("the collector has failed and has to be started again"));
        }
        if self.commits.is_closed() {
            return Err(Refused::full("the collector is closing"));
        }
        if !self.store.has_room() {
            return Err(Refused::full("the store has no room"));
        }
        Ok(())
    }

    /// How many bytes of frames one agent may send now: its share of what is free for request bodies, and of the journal's room.
    pub(crate) fn credit_bytes(&self) -> u64 {
        if self.check_room().is_err() || self.journal.health().is_err() {
            return 0;
        }
        let statistics = self.journal.statistics();
        let journal =
            self.journal_bytes_max.saturating_sub(statistics.allocated_bytes + statistics.queued_bytes);
        let sharing = self.agents.heard_lately(now_ns()).max(1);
        journal.min(self.bodies.left() as u64) / sharing as u64
    }

    /// Makes a record durable and gives its LSN. Who follows the journal is shown what is in it, whose rows take so many bytes.
    pub(crate) async fn append(
        &self,
        payload: Payload,
        found: Found,
        row_bytes: usize,
    ) -> Result<u64, Refused> {
        let (sender, receiver) = oneshot::channel();
        let recent = self.recent.clone();
        let submitted = self.journal.submit(payload, move |result| {
            // The journal answers whoever submitted before it tells its listeners, and so those who follow it.
            if let Ok(lsn) = &result {
                recent.insert(lsn.0, found, row_bytes);
            }
            // Whoever waited may be gone with the runtime.
            drop(sender.send(result));
        });
        let result = match submitted {
            Ok(()) => receiver.await.unwrap_or(Err(JournalError::WriterPanicked)),
            Err(error) => Err(error),
        };
        result.map(|lsn| lsn.0).map_err(|error| {
            let is_over = error.duty() == beeacon_journal::Duty::Stop;
            if is_over && !matches!(error, JournalError::Closed) {
                self.fail(error.clone().into());
            }
            if matches!(error, JournalError::Full(_)) {
                self.cramped.notify_one();
            }
            Refused::from(&error)
        })
    }

    /// Gives a durable commit to the store; it comes back when queries see it.
    pub(crate) async fn publish(&self, commit: Commit) -> Result<(), Refused> {
        publish(&self.store, commit, &self.metrics).await.map_err(|error| {
            if !matches!(error, StoreError::Closed) {
                self.fail(error.into());
            }
            Refused::internal("the frame is durable, and the store can't show it")
        })
    }
}

/// Gives a durable commit to the store, as often as it takes. Rows that the store refuses for good are left out, counted
/// and told; the record's number is published all the same, so that nothing behind it waits for ever.
pub(crate) async fn publish(store: &Store, commit: Commit, metrics: &Metrics) -> Result<(), StoreError> {
    let mut commit = commit;
    loop {
        let Err(error) = store.publish(commit.clone()).await else { return Ok(()) };
        match (error.duty(), &error) {
            (_, StoreError::LsnTwice { .. }) => return Ok(()),
            (Duty::Retry, _) => {
                tracing::warn!(lsn = commit.lsn, error = chain(&error), "the store can't take a commit yet");
                tokio::time::sleep(PUBLISH_RETRY_PAUSE).await;
            }
            (Duty::Drop, _) if commit.batch.is_some() || !commit.gaps.is_empty() => {
                tracing::error!(
                    lsn = commit.lsn,
                    error = chain(&error),
                    "the store refuses the rows of a record"
                );
                metrics.unstorable_entries.inc();
                commit = Commit { batch: None, gaps: Vec::new(), ..commit };
            }
            _ => return Err(error),
        }
    }
}

async fn wrong_method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, RefusalCode::NotFound, "only POST is understood here")
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CollectorError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CollectorError::TaskLost { what })
}

/// Now, in nanoseconds since 1970. The collector reads the clock here only; nothing is decided by it but when an ended
/// source is forgotten.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Measures a commit.
pub(crate) fn seconds_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

//! The store as its callers see it: open, publish, snapshot, close.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use beeacon_record::{AgentId, Epoch};
use object_store::ObjectStore;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{Catalog, Totals};
use crate::commit::{Commit, GapRow, SourceProgress, check_tenant, gap_batch};
use crate::durable::{DurableDirectory, sync_directory};
use crate::error::StoreError;
use crate::flush::run_flushes;
use crate::fresh::{Admission, Fresh, FreshCommit, rows_beyond};
use crate::limits::{
    FLUSH_AGE_DEFAULT, FLUSH_BYTES_DEFAULT, FRESH_BYTES_MAX_DEFAULT, FRESH_BYTES_MAX_LEAST,
    PUBLISH_WAIT_DEFAULT,
};
use crate::metrics::{Metrics, Statistics};
use crate::recover::{RecoveryReport, recover};
use crate::rollup::{Redactions, Rows};
use crate::snapshot::{LogFile, Prune, Snapshot};
use crate::verify::{VerifyReport, verify};

/// How a store is opened. Everything but the directory has a default.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data directory: `catalog.sqlite` and `parquet/` are in it. Made if it does not exist.
    pub directory: PathBuf,
    /// The size of fresh rows at which they are written, in bytes of memory. Larger: fewer and better files, more memory, a
    /// longer replay after a crash.
    pub flush_bytes: usize,
    /// The age at which fresh rows are written, however few.
    pub flush_age: Duration,
    /// The most fresh rows, in bytes of memory; beyond it `publish` waits. At least twice `flush_bytes`.
    pub fresh_bytes_max: usize,
    /// How long `publish` waits for room.
    pub publish_wait: Duration,
}

impl StoreOptions {
    /// The defaults, in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        StoreOptions {
            directory: directory.into(),
            flush_bytes: FLUSH_BYTES_DEFAULT,
            flush_age: FLUSH_AGE_DEFAULT,
            fresh_bytes_max: FRESH_BYTES_MAX_DEFAULT,
            publish_wait: PUBLISH_WAIT_DEFAULT,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let refuse =
            |option, value: String, allowed: String| Err(StoreError::Option { option, value, allowed });
        if self.fresh_bytes_max < FRESH_BYTES_MAX_LEAST {
            let allowed = format!("at least {FRESH_BYTES_MAX_LEAST} bytes");
            return refuse("fresh_bytes_max", self.fresh_bytes_max.to_string(), allowed);
        }
        if self.flush_bytes == 0 || self.flush_bytes > self.fresh_bytes_max / 2 {
            let allowed = format!("1 to {} bytes, half of fresh_bytes_max", self.fresh_bytes_max / 2);
            return refuse("flush_bytes", self.flush_bytes.to_string(), allowed);
        }
        if self.flush_age.is_zero() {
            return refuse("flush_age", "0".to_owned(), "more than nothing".to_owned());
        }
        Ok(())
    }
}

/// Fresh rows, Parquet files and the catalog as one table. Clones are handles to the same store.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// use beeacon_store::{Commit, Prune, Store, StoreOptions};
/// let directory = tempfile::tempdir().unwrap();
/// let store = Store::open(StoreOptions::new(directory.path())).await.unwrap();
/// store.publish(Commit::new(store.flushed_lsn() + 1, "default", 0)).await.unwrap();
/// assert_eq!(store.flush().await.unwrap(), 1);
/// assert!(store.snapshot("default", &Prune::default()).await.unwrap().files.is_empty());
/// store.close().await.unwrap();
/// # });
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

/// What handles and background tasks share.
pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) fresh: Mutex<Fresh>,
    pub(crate) metrics: Metrics,
    pub(crate) totals: Mutex<Totals>,
    pub(crate) recovery: RecoveryReport,
    /// One flush at a time. Inside: whether the last one failed, so that something may have to be mended first.
    pub(crate) flushing: tokio::sync::Mutex<bool>,
    /// Something for the flush task to look at.
    pub(crate) wake: Notify,
    /// Room was made, or the store closed.
    pub(crate) room: Notify,
    pub(crate) waiting: AtomicUsize,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) flushed: watch::Sender<u64>,
    closed: AtomicBool,
    lock: Mutex<Option<File>>,
    #[cfg(test)]
    pub(crate) stop_at: Mutex<Option<crate::hooks::Step>>,
}

/// Ends the background task when the last handle is gone.
struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Shared {
    pub(crate) fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A test may stop the protocol here.
    #[cfg(test)]
    pub(crate) fn reach(&self, step: crate::hooks::Step) -> Result<(), StoreError> {
        let mut stop_at = self.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *stop_at == Some(step) {
            *stop_at = None;
            return Err(StoreError::Stopped(format!("{step:?}")));
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the same shape as in tests")]
    pub(crate) fn reach(&self, _: crate::hooks::Step) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A commit that waits for room counts as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the data directory and locks it.
fn take_directory(directory: &FilePath) -> Result<File, StoreError> {
    std::fs::create_dir_all(directory).map_err(|e| StoreError::io("create directory", directory, e))?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(|e| StoreError::io("sync directory", parent, e))?;
    }
    lock_directory(directory)
}

fn lock_directory(directory: &FilePath) -> Result<File, StoreError> {
    let path = directory.join("store.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| StoreError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: directory.to_owned() }),
        Err(std::fs::TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
    }
}

impl Store {
    /// Opens the store in its directory: takes the directory's lock, brings the catalog up to date, removes what an
    /// interrupted flush left, and looks whether every file is there.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Open`] (nothing is changed where a newer program made the catalog), [`StoreError::Option`], and what the file system and
    /// SQLite report. Missing and damaged files are not errors: see [`Store::recovery`].
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer.
    pub async fn open(options: StoreOptions) -> Result<Store, StoreError> {
        options.check()?;
        let directory = options.directory.clone();
        let lock = take_directory(&directory)?;
        let objects = Arc::new(DurableDirectory::open(&directory.join("parquet"))?);
        Store::assemble(options, lock, objects).await
    }

    /// Like [`Store::open`], with another place for the Parquet files. Its `put` must be durable when it returns.
    ///
    /// # Errors
    /// As [`Store::open`].
    ///
    /// # Panics
    /// As [`Store::open`].
    pub async fn open_with(
        options: StoreOptions,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<Store, StoreError> {
        options.check()?;
        let directory = options.directory.clone();
        let lock = take_directory(&directory)?;
        Store::assemble(options, lock, objects).await
    }

    async fn assemble(
        options: StoreOptions,
        lock: File,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<Store, StoreError> {
        let catalog: Arc<dyn Catalog> =
            Arc::new(SqliteCatalog::open(&options.directory.join("catalog.sqlite")).await?);
        let directory = &options.directory;
        sync_directory(directory).map_err(|e| StoreError::io("sync directory", directory, e))?;
        let recovery = recover(catalog.as_ref(), &objects).await?;
        let flushed_lsn = catalog.upto().await?;
        let totals = catalog.totals().await?;
        let fresh = Fresh::new(flushed_lsn, options.fresh_bytes_max);
        let metrics = Metrics::default();
        metrics.set_fresh(&fresh);
        metrics.set_totals(totals);
        let stop = watch::Sender::new(false);
        let shared = Arc::new(Shared {
            options,
            catalog,
            objects,
            fresh: Mutex::new(fresh),
            metrics,
            totals: Mutex::new(totals),
            recovery,
            flushing: tokio::sync::Mutex::new(false),
            wake: Notify::new(),
            room: Notify::new(),
            waiting: AtomicUsize::new(0),
            stop: stop.clone(),
            flushed: watch::Sender::new(flushed_lsn),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            #[cfg(test)]
            stop_at: Mutex::new(None),
        });
        tokio::spawn(run_flushes(Arc::clone(&shared), stop.subscribe()));
        Ok(Store { shared, _stop: Arc::new(StopOnDrop(stop)) })
    }

    /// What had to be mended or was found damaged when the store was opened.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.shared.recovery
    }

    /// Everything up to this LSN is in files and the catalog; the journal has to be replayed from the next one.
    pub fn flushed_lsn(&self) -> u64 {
        *self.shared.flushed.borrow()
    }

    /// Tells whenever [`Store::flushed_lsn`] has grown.
    pub fn watch_flushed(&self) -> watch::Receiver<u64> {
        self.shared.flushed.subscribe()
    }

    /// Where every source stood at [`Store::flushed_lsn`].
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn sources(&self) -> Result<Vec<SourceProgress>, StoreError> {
        self.shared.catalog.sources().await
    }

    /// Every agent's newest epoch at [`Store::flushed_lsn`].
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn epochs(&self) -> Result<Vec<(AgentId, Epoch)>, StoreError> {
        self.shared.catalog.epochs().await
    }

    /// Takes a commit. When this returns, its rows and gaps are in every snapshot taken from then on. Commits may come in any
    /// order, each LSN once; what is written to files is always an unbroken run of them. Waits while there is no room.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there was no room for `publish_wait`; the commit was not taken and has to be published
    /// again, or nothing beyond it is ever written. [`StoreError::LsnTwice`], [`StoreError::Tenant`], [`StoreError::Closed`].
    pub async fn publish(&self, commit: Commit) -> Result<(), StoreError> {
        let shared = &self.shared;
        let commit = Arc::new(FreshCommit::new(commit, Instant::now())?);
        if self.admit(&commit)? == Admission::Admitted {
            return Ok(());
        }
        shared.metrics.publish_waits.inc();
        let waiting = Waiting::new(&shared.waiting);
        let deadline = Instant::now() + shared.options.publish_wait;
        loop {
            let mut room = pin!(shared.room.notified());
            room.as_mut().enable();
            if self.admit(&commit)? == Admission::Admitted {
                drop(waiting);
                return Ok(());
            }
            shared.wake.notify_one();
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                let limit_bytes = shared.options.fresh_bytes_max;
                return Err(StoreError::Full { limit_bytes, waited: shared.options.publish_wait });
            }
        }
    }

    fn admit(&self, commit: &Arc<FreshCommit>) -> Result<Admission, StoreError> {
        let mut fresh = self.shared.fresh();
        let admission = fresh.admit(commit)?;
        if admission == Admission::Admitted {
            self.shared.metrics.set_fresh(&fresh);
            self.shared.metrics.published_rows.inc_by(commit.row_count() as u64);
            self.shared.wake.notify_one();
        }
        Ok(admission)
    }

    /// Whether a commit would be taken at once. False when fresh rows are at their limit, for instance because the disk is
    /// full; true again by itself. The collector asks before it journals.
    pub fn has_room(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) == 0 && self.shared.fresh().has_room()
    }

    /// Writes what can be written now and was published before the call. Gives the LSN up to which everything is in files.
    ///
    /// # Errors
    /// What stopped it; the rows stay in memory and are tried again by themselves.
    pub async fn flush(&self) -> Result<u64, StoreError> {
        let upto = self.shared.fresh().prefix_end();
        let shared = Arc::clone(&self.shared);
        // A task of its own, so that a caller who stops waiting does not stop it half-way.
        let flush = tokio::spawn(async move { crate::flush::flush_through(&shared, upto).await });
        flush.await.map_err(|_| StoreError::TaskLost)?
    }

    /// Every row of a tenant exactly once, without files and fresh rows that hold nothing a query wants.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn snapshot(&self, tenant: &str, prune: &Prune) -> Result<Snapshot, StoreError> {
        check_tenant(tenant)?;
        // The order matters. A commit that leaves memory after this view was taken is still in the view, and is left out
        // below if the catalog, read later, has it in a file.
        let view = self.shared.fresh().view(|commit| commit.tenant == tenant && commit.rows.is_some());
        let at = self.shared.catalog.files(tenant, prune).await?;
        Ok(Snapshot {
            fresh: rows_beyond(&view, at.upto, prune),
            files_pruned: at.total.saturating_sub(at.files.len() as u64),
            files: at.files,
            files_total: at.total,
            files_damaged: at.damaged,
            flushed_lsn: at.upto,
            catalog_version: at.version,
        })
    }

    /// What the pollen filter took out of the lines of these files of a snapshot, which was taken with the same bounds, as far as it is
    /// known without reading them.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn redactions(
        &self,
        tenant: &str,
        prune: &Prune,
        files: &[LogFile],
    ) -> Result<Redactions, StoreError> {
        check_tenant(tenant)?;
        // A file that became live after the snapshot is in its fresh rows.
        let wanted: HashSet<Uuid> = files.iter().map(|file| file.file_id).collect();
        let mut rows = Rows::default();
        for (file_id, counts) in self.shared.catalog.redactions(tenant, prune).await? {
            if wanted.contains(&file_id) {
                rows.add(file_id, &counts, prune.time_ns);
            }
        }
        rows.finish()
    }

    /// Every gap row of a tenant exactly once, in the order in which they were declared: [`crate::gap_schema`].
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn gaps(&self, tenant: &str) -> Result<RecordBatch, StoreError> {
        check_tenant(tenant)?;
        let view = self.shared.fresh().view(|commit| !commit.gaps.is_empty());
        let (upto, mut gaps) = self.shared.catalog.gaps(tenant).await?;
        let fresh = view.iter().filter(|commit| commit.lsn > upto).flat_map(|commit| &commit.gaps);
        gaps.extend(fresh.filter(|gap: &&GapRow| gap.tenant == tenant).cloned());
        gap_batch(&gaps)
    }

    /// Where the files of a [`Snapshot`] are read. Only the store writes there.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.shared.objects)
    }

    /// The store's figures now.
    pub fn statistics(&self) -> Statistics {
        let has_room = self.has_room();
        let totals = *self.shared.totals();
        let fresh = self.shared.fresh();
        Statistics {
            fresh_rows: fresh.rows() as u64,
            fresh_bytes: fresh.bytes() as u64,
            fresh_commits: fresh.commits() as u64,
            flushed_lsn: fresh.flushed_lsn(),
            files: totals.files,
            rows: totals.rows,
            bytes: totals.bytes,
            damaged_files: totals.damaged_files,
            flushes: self.shared.metrics.flushes.get(),
            flush_errors: self.shared.metrics.flush_errors.get(),
            has_room,
        }
    }

    /// Adds the store's metrics, named `beeacon_store_…`.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Reads every live file whole and compares checksums. Changes nothing.
    ///
    /// # Errors
    /// When the catalog can't be read. What is wrong with files is in the report.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        verify(self.shared.catalog.as_ref(), &self.shared.objects).await
    }

    /// Takes nothing more, writes what can be written, and lets go of catalog and directory. Later calls fail with
    /// [`StoreError::Closed`] or as the catalog says.
    ///
    /// # Errors
    /// When the last flush failed. The store is closed all the same, and the journal still has the rows.
    pub async fn close(&self) -> Result<(), StoreError> {
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.shared.fresh().close();
        self.shared.room.notify_waiters();
        let flushed = self.flush().await;
        self.shared.stop.send_replace(true);
        // Whoever flushes now is done before the catalog goes.
        let flushing = self.shared.flushing.lock().await;
        self.shared.catalog.close().await;
        drop(flushing);
        self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        flushed.map(|_| ())
    }
}

//! Object stores that fail, and a disk that is full.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{commit, counts, once};
use crate::limits::FRESH_BYTES_MAX_LEAST;
use crate::{Store, StoreError, StoreOptions};

/// What goes wrong with puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// No space; nothing is written.
    Full,
    /// The object is written, and an error is reported all the same.
    Unknown,
    /// The last byte is missing, and nothing is reported.
    Short,
    /// One byte of the footer's length is another, and nothing is reported.
    Flipped,
}

#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    fault: Mutex<Fault>,
    puts: AtomicU64,
}

impl Faulty {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Faulty { inner: InMemory::new(), fault: Mutex::new(fault), puts: AtomicU64::new(0) })
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

fn error(kind: std::io::ErrorKind) -> Error {
    Error::Generic { store: "Faulty", source: Box::new(std::io::Error::from(kind)) }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None | Fault::Unknown => {}
            Fault::Full => return Err(error(std::io::ErrorKind::StorageFull)),
            Fault::Short => drop(bytes.pop()),
            Fault::Flipped => {
                let at = bytes.len() - 7;
                bytes[at] ^= 1;
            }
        }
        let put = self.inner.put_opts(location, Bytes::from(bytes).into(), options).await;
        if fault == Fault::Unknown { Err(error(std::io::ErrorKind::ConnectionReset)) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn object_count(objects: &Faulty) -> usize {
    use futures_util::StreamExt;
    objects.list(None).count().await
}

/// Scenario: a put fails in every way, then the object store works again.
/// Guarantees: the flush says so, the rows stay readable, the next flush writes them once and leaves no orphan.
#[tokio::test]
async fn a_put_that_fails_or_lies_is_noticed_and_mended() {
    for fault in [Fault::Full, Fault::Unknown, Fault::Short, Fault::Flipped] {
        let directory = tempfile::tempdir().unwrap();
        let objects = Faulty::new(fault);
        let shared: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&objects);
        let store = Store::open_with(StoreOptions::new(directory.path()), shared).await.unwrap();
        store.publish(commit(1)).await.unwrap();
        let failed = store.flush().await.unwrap_err();
        assert!(
            matches!(failed, StoreError::Object { .. } | StoreError::ReadBack { .. }),
            "{fault:?}: {failed}"
        );
        assert_eq!((store.flushed_lsn(), counts(&store, "default").await), (0, once(1..=1)), "{fault:?}");
        objects.set(Fault::None);
        assert_eq!(store.flush().await.unwrap(), 1);
        assert_eq!(counts(&store, "default").await, once(1..=1));
        assert_eq!(object_count(&objects).await, 1, "{fault:?}");
    }
}

/// Scenario: the disk is full while commits keep coming, and then it is not.
/// Guarantees: rows are taken up to the limit; then `has_room` is false and `publish` waits; the flush is tried again by
/// itself, not in a tight loop; afterwards everything is there once and there is room.
#[tokio::test]
async fn a_full_disk_holds_commits_back_until_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let objects = Faulty::new(Fault::Full);
    let mut options = StoreOptions::new(directory.path());
    options.fresh_bytes_max = FRESH_BYTES_MAX_LEAST;
    options.flush_bytes = FRESH_BYTES_MAX_LEAST / 4;
    let shared: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&objects);
    let store = Store::open_with(options, shared).await.unwrap();
    let mut taken = 0;
    let mut publish = loop {
        let lsn = taken + 1;
        let task = tokio::spawn({
            let store = store.clone();
            async move { store.publish(commit(lsn)).await }
        });
        while !task.is_finished() && store.shared.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        if !task.is_finished() {
            break task;
        }
        task.await.unwrap().unwrap();
        taken += 1;
    };
    assert!(!store.has_room());
    assert!(taken > 50 && store.statistics().fresh_bytes as usize <= FRESH_BYTES_MAX_LEAST);
    assert_eq!(counts(&store, "default").await, once(1..=taken));
    // The pause after a failure is 250 ms at least, so half a second sees a handful of tries, not thousands.
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut publish).await.is_err());
    let puts = objects.puts.load(Ordering::SeqCst);
    assert!((1..=6).contains(&puts), "{puts} puts");
    objects.set(Fault::None);
    publish.await.unwrap().unwrap();
    store.flush().await.unwrap();
    assert!(store.has_room());
    assert_eq!(counts(&store, "default").await, once(1..=taken + 1));
    assert!(store.statistics().flush_errors > 0);
}

/// Scenario: no space until the wait is over.
/// Guarantees: the commit is given back with what was waited for, was not taken, and can be published again.
#[tokio::test]
async fn a_commit_that_waited_too_long_is_given_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let objects = Faulty::new(Fault::Full);
    let mut options = StoreOptions::new(directory.path());
    (options.fresh_bytes_max, options.flush_bytes) = (FRESH_BYTES_MAX_LEAST, FRESH_BYTES_MAX_LEAST / 2);
    options.publish_wait = Duration::from_millis(1);
    let shared: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&objects);
    let store = Store::open_with(options, shared).await.unwrap();
    let mut lsn = 1;
    while store.publish(commit(lsn)).await.is_ok() {
        lsn += 1;
    }
    assert!(matches!(
        store.publish(commit(lsn)).await,
        Err(StoreError::Full { limit_bytes: FRESH_BYTES_MAX_LEAST, .. })
    ));
    assert_eq!(counts(&store, "default").await, once(1..=lsn - 1));
    objects.set(Fault::None);
    store.flush().await.unwrap();
    store.publish(commit(lsn)).await.unwrap();
    assert_eq!(counts(&store, "default").await, once(1..=lsn));
}

/// Scenario: memory is full of commits behind a hole, and then the hole's commit comes.
/// Guarantees: it is taken although there is no room, or nothing would ever move again.
#[tokio::test]
async fn the_commit_that_fills_the_first_hole_is_always_taken() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(directory.path());
    (options.fresh_bytes_max, options.flush_bytes) = (FRESH_BYTES_MAX_LEAST, FRESH_BYTES_MAX_LEAST / 2);
    options.publish_wait = Duration::from_millis(1);
    let store = super::open_options(options).await;
    let mut last = 2;
    while store.publish(commit(last)).await.is_ok() {
        last += 1;
    }
    let mut flushed = store.watch_flushed();
    store.publish(commit(1)).await.unwrap();
    flushed.wait_for(|lsn| *lsn == last - 1).await.unwrap();
    assert_eq!(counts(&store, "default").await, once(1..=last - 1));
}

/// Scenario: whoever asked for a flush stops waiting for it.
/// Guarantees: the flush goes on.
#[tokio::test]
async fn a_flush_outlives_the_caller_who_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = super::open(directory.path()).await;
    store.publish(commit(1)).await.unwrap();
    let mut flushed = store.watch_flushed();
    assert!(tokio::time::timeout(Duration::ZERO, store.flush()).await.is_err());
    flushed.wait_for(|lsn| *lsn == 1).await.unwrap();
    assert_eq!(counts(&store, "default").await, once(1..=1));
}

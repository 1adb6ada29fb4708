//! Readers beside writers beside flushes: every row exactly once at every moment.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uuid::Uuid;

use super::{ROWS, commit, counts, file_batches, once, open_options, rows_of};
use crate::snapshot::Prune;
use crate::{Store, StoreOptions};

const COMMITS: u64 = 1_500;
const WRITERS: u64 = 6;
const AHEAD_MAX: u64 = 40;
const READERS: usize = 3;

/// The positions in a snapshot; files are read once.
async fn positions(store: &Store, cache: &mut HashMap<Uuid, Vec<u64>>) -> BTreeMap<u64, usize> {
    let snapshot = store.snapshot("default", &Prune::default()).await.unwrap();
    let mut counts = BTreeMap::new();
    for row in snapshot.fresh.iter().flat_map(rows_of) {
        *counts.entry(row.minor).or_default() += 1;
    }
    for file in &snapshot.files {
        if let Entry::Vacant(unread) = cache.entry(file.file_id) {
            let batches = file_batches(&store.object_store(), file).await;
            unread.insert(batches.iter().flat_map(rows_of).map(|row| row.minor).collect());
        }
        for minor in &cache[&file.file_id] {
            *counts.entry(*minor).or_default() += 1;
        }
    }
    counts
}

/// Scenario: six writers publish in an order of their own, flushes run whenever there is something, three readers look.
/// Guarantees: what was published before a snapshot began is in it; nothing is in it twice; commits are whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_row_is_read_exactly_once_while_flushes_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(directory.path());
    options.flush_bytes = 1;
    let store = open_options(options).await;
    let published: Arc<Vec<AtomicBool>> = Arc::new((0..=COMMITS).map(|_| AtomicBool::new(false)).collect());
    let next = Arc::new(AtomicU64::new(1));
    let done = Arc::new(AtomicBool::new(false));

    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (store, published, next) = (store.clone(), Arc::clone(&published), Arc::clone(&next));
        writers.push(tokio::spawn(async move {
            loop {
                let lsn = next.fetch_add(1, Ordering::SeqCst);
                if lsn > COMMITS {
                    return;
                }
                // Some are slower between taking a number and publishing it: numbers arrive out of order.
                for _ in 0..(lsn * 7 + writer) % 5 {
                    tokio::task::yield_now().await;
                }
                // And nobody runs away from the flushes, so that there are many of them.
                let mut flushed = store.watch_flushed();
                flushed.wait_for(|flushed| flushed + AHEAD_MAX >= lsn).await.unwrap();
                store.publish(commit(lsn)).await.unwrap();
                published[usize::try_from(lsn).unwrap()].store(true, Ordering::SeqCst);
            }
        }));
    }
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (store, published, done) = (store.clone(), Arc::clone(&published), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let (mut cache, mut mixed) = (HashMap::new(), 0_u64);
            loop {
                let is_last = done.load(Ordering::SeqCst);
                let flags = published.iter().map(|flag| flag.load(Ordering::SeqCst)).collect::<Vec<_>>();
                let counts = positions(&store, &mut cache).await;
                assert!(counts.values().all(|count| *count == 1), "a row is there twice");
                for lsn in (1..=COMMITS).filter(|lsn| flags[usize::try_from(*lsn).unwrap()]) {
                    let found = counts.range(lsn * ROWS..(lsn + 1) * ROWS).count() as u64;
                    assert_eq!(found, ROWS, "rows of a published commit are missing: {lsn}");
                }
                assert!((counts.len() as u64).is_multiple_of(ROWS), "half a commit");
                mixed += u64::from(!counts.is_empty() && !is_last);
                if is_last {
                    return mixed;
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut snapshots = 0;
    for reader in readers {
        snapshots += reader.await.unwrap();
    }
    store.flush().await.unwrap();
    let statistics = store.statistics();
    println!("{snapshots} snapshots beside {} flushes into {} files", statistics.flushes, statistics.files);
    assert!(statistics.flushes > 10, "flushes did not run beside the readers: {}", statistics.flushes);
    assert!(snapshots > 10, "readers did not run beside the flushes: {snapshots}");
    assert_eq!(counts(&store, "default").await, once(1..=COMMITS));
    assert_eq!((statistics.fresh_rows, statistics.rows), (0, COMMITS * ROWS));
}

/// Scenario: like above for gap rows, which have a path of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_gap_is_read_exactly_once_while_flushes_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(directory.path());
    options.flush_bytes = 1;
    let store = open_options(options).await;
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < 200 {
                let from = store.flushed_lsn();
                let count = store.gaps("default").await.unwrap().num_rows() as u64;
                assert!(count >= seen && count >= from, "gaps went away: {seen}, {from}, then {count}");
                seen = count;
            }
            seen
        })
    };
    for lsn in 1..=200 {
        let mut commit = commit(lsn);
        commit.gaps = vec![super::golden::gap(lsn)];
        store.publish(commit).await.unwrap();
    }
    assert_eq!(reader.await.unwrap(), 200);
}

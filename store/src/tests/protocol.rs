//! The commit protocol: a crash after each of its steps, and a failure after each of them without a crash.

use super::{all_rows, commit, commit_of, counts, files_on_disk, once, open, source};
use crate::hooks::Step;
use crate::{Commit, GapRow, Store, StoreError};
use beeacon_record::{Epoch, GapReason, Position};

fn gap(tenant: &str, from: u64) -> GapRow {
    GapRow {
        tenant: tenant.into(),
        agent: super::agent(),
        source: source("web"),
        host: "host-1".into(),
        service: "web".into(),
        container: "web-1".into(),
        container_id: "web-id".into(),
        from: Position::new(1, from),
        to: Position::new(1, from + 1),
        reason: GapReason::Rotated,
        bytes: 1,
        timestamp_before_ns: 1,
        timestamp_after_ns: 2,
        received_ns: 3,
    }
}

/// The commits of the stories: rows of two services and two tenants, gaps, an epoch, and one commit of nothing at all.
fn story(lsn: u64) -> Commit {
    let mut commit = match lsn % 4 {
        0 => commit_of(lsn, "other", "db"),
        1 => commit_of(lsn, "default", "db"),
        2 => commit_of(lsn, "default", "web"),
        _ => Commit::new(lsn, "default", 0),
    };
    if lsn.is_multiple_of(2) {
        commit.gaps = vec![gap("default", 2 * lsn), gap("other", 2 * lsn + 1), gap("default", 2 * lsn + 1)];
    }
    commit.epoch = Some((super::agent(), Epoch(lsn)));
    commit
}

async fn publish(store: &Store, lsns: std::ops::RangeInclusive<u64>) {
    for lsn in lsns {
        store.publish(story(lsn)).await.unwrap();
    }
}

/// Everything up to 9 is there, once: rows of both tenants, gaps, positions and epochs.
async fn check_story(store: &Store, is_flushed: bool) {
    let expected = |tenant: &str| {
        let lsns = (1..=9_u64).filter(|lsn| lsn % 4 != 3 && (lsn % 4 == 0) == (tenant == "other"));
        lsns.flat_map(|lsn| once(lsn..=lsn)).collect::<std::collections::BTreeMap<_, _>>()
    };
    for tenant in ["default", "other"] {
        assert_eq!(counts(store, tenant).await, expected(tenant));
        assert!(all_rows(store, tenant).await.iter().all(|row| row.tenant == tenant));
    }
    assert_eq!(store.gaps("default").await.unwrap().num_rows(), 8);
    assert_eq!(store.gaps("other").await.unwrap().num_rows(), 4);
    if is_flushed {
        assert_eq!(store.flushed_lsn(), 9);
        assert_eq!(store.epochs().await.unwrap(), [(super::agent(), Epoch(9))]);
        let sources = store.sources().await.unwrap();
        let at = |service| sources.iter().find(|s| s.source == source(service)).unwrap();
        assert_eq!((at("db").committed, at("web").committed), (Position::new(1, 50), Position::new(1, 35)));
        assert_eq!(
            (at("db").open.as_slice(), at("db").cursor.as_slice()),
            ([Position::new(1, 9)].as_slice(), 9_u64.to_le_bytes().as_slice())
        );
        assert_eq!(sources.len(), 2);
    }
}

fn fresh_at_stop(step: Step) -> bool {
    step != Step::AfterCommit
}

/// Scenario: the process dies after each step, is started again and replays its journal from `flushed_lsn + 1`.
/// Guarantees: nothing lost, nothing twice, no file without a row in the catalog.
#[tokio::test]
async fn a_crash_after_any_step_loses_nothing_and_doubles_nothing() {
    for step in Step::ALL {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        publish(&store, 1..=4).await;
        store.flush().await.unwrap();
        publish(&store, 5..=9).await;
        *store.shared.stop_at.lock().unwrap() = Some(step);
        assert!(matches!(store.flush().await, Err(StoreError::Stopped(at)) if at == format!("{step:?}")));
        drop(store);

        let store = open(directory.path()).await;
        assert_eq!(store.flushed_lsn(), if fresh_at_stop(step) { 4 } else { 9 }, "{step:?}");
        let staged = if matches!(step, Step::BeforeStage | Step::AfterCommit) { 0 } else { 2 };
        assert_eq!(store.recovery().staged_removed, staged, "{step:?}");
        publish(&store, store.flushed_lsn() + 1..=9).await;
        check_story(&store, false).await;
        store.flush().await.unwrap();
        check_story(&store, true).await;
        assert_eq!(files_on_disk(directory.path()).len() as u64, store.statistics().files, "{step:?}");
        assert!(store.verify().await.unwrap().is_clean());
    }
}

/// Scenario: a step fails, the process lives on and flushes again. After `AfterCommit` it does not know that it committed.
/// Guarantees: as above, and the rows can be read all the time.
#[tokio::test]
async fn a_failure_after_any_step_is_mended_by_the_next_flush() {
    for step in Step::ALL {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        publish(&store, 1..=9).await;
        *store.shared.stop_at.lock().unwrap() = Some(step);
        assert!(store.flush().await.is_err());
        check_story(&store, false).await;
        assert_eq!(store.flush().await.unwrap(), 9);
        check_story(&store, true).await;
        assert_eq!(files_on_disk(directory.path()).len() as u64, store.statistics().files, "{step:?}");
        assert_eq!((store.statistics().flush_errors, store.statistics().fresh_rows), (1, 0));
        store.close().await.unwrap();
    }
}

/// Scenario: the same range is committed to the catalog a second time, as a retry after an unknown result would.
/// Guarantees: the second one changes nothing.
#[tokio::test]
async fn a_transaction_that_is_retried_changes_nothing() {
    use crate::catalog::{CommitOutcome, FlushCommit};
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    publish(&store, 1..=4).await;
    store.flush().await.unwrap();
    let version = store.snapshot("default", &crate::Prune::default()).await.unwrap().catalog_version;
    let again = FlushCommit {
        from_lsn: 1,
        to_lsn: 4,
        files: Vec::new(),
        progress: Vec::new(),
        epochs: vec![(super::agent(), Epoch(77))],
        gaps: Vec::new(),
    };
    let outcome = store.shared.catalog.commit(&again).await.unwrap();
    assert_eq!(outcome, CommitOutcome::Elsewhere { upto: 4 });
    assert_eq!(store.epochs().await.unwrap(), [(super::agent(), Epoch(4))]);
    assert_eq!(store.snapshot("default", &crate::Prune::default()).await.unwrap().catalog_version, version);
}

/// Scenario: another writer moved the catalog on behind this process's back.
/// Guarantees: this process stops writing rather than storing rows a second time.
#[tokio::test]
async fn a_second_writer_is_noticed() {
    use crate::catalog::FlushCommit;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    publish(&store, 1..=2).await;
    let theirs = FlushCommit {
        from_lsn: 1,
        to_lsn: 7,
        files: Vec::new(),
        progress: Vec::new(),
        epochs: Vec::new(),
        gaps: Vec::new(),
    };
    store.shared.catalog.commit(&theirs).await.unwrap();
    let error = store.flush().await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { found: 7, .. }));
    assert_eq!(error.duty(), crate::Duty::Stop);
    assert!(matches!(store.flush().await, Err(StoreError::Fenced { .. })));
}

/// Scenario: commits arrive out of order, with a hole.
/// Guarantees: all can be read at once; only the unbroken run is written; the hole's commit lets the rest follow.
#[tokio::test]
async fn only_the_unbroken_run_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for lsn in [5, 2, 1, 4] {
        store.publish(commit(lsn)).await.unwrap();
    }
    assert_eq!(store.flush().await.unwrap(), 2);
    let mut expected = once(1..=2);
    expected.extend(once(4..=5));
    assert_eq!(counts(&store, "default").await, expected);
    store.publish(commit(3)).await.unwrap();
    assert_eq!(store.flush().await.unwrap(), 5);
    assert_eq!(counts(&store, "default").await, once(1..=5));
    assert_eq!(store.statistics().fresh_bytes, 0);
}

#[tokio::test]
async fn an_lsn_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.publish(commit(1)).await.unwrap();
    store.publish(commit(3)).await.unwrap();
    store.flush().await.unwrap();
    for lsn in [0, 1, 3] {
        let error = store.publish(commit(lsn)).await.unwrap_err();
        assert!(matches!(error, StoreError::LsnTwice { flushed_lsn: 1, .. }), "{lsn}");
    }
    assert_eq!(store.statistics().fresh_rows, super::ROWS);
}

/// Scenario: commits without rows, as sessions and pure positions are.
/// Guarantees: they are flushed, and make no file.
#[tokio::test]
async fn a_flush_without_rows_commits_positions_and_makes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut session = Commit::new(1, "default", 0);
    session.epoch = Some((super::agent(), Epoch(u64::MAX)));
    store.publish(session).await.unwrap();
    assert_eq!(store.flush().await.unwrap(), 1);
    assert_eq!(store.epochs().await.unwrap(), [(super::agent(), Epoch(u64::MAX))]);
    assert!(files_on_disk(directory.path()).is_empty());
}

/// Scenario: a size limit and an age limit, nobody calls `flush`.
/// Guarantees: each alone leads to a flush, and everybody who watches hears of it.
#[tokio::test]
async fn flushes_come_by_size_and_by_age() {
    let by_size = |options: &mut crate::StoreOptions| options.flush_bytes = 1;
    let by_age = |options: &mut crate::StoreOptions| options.flush_age = std::time::Duration::from_millis(1);
    for set in [by_size as fn(&mut _), by_age] {
        let directory = tempfile::tempdir().unwrap();
        let mut options = crate::StoreOptions::new(directory.path());
        set(&mut options);
        let store = super::open_options(options).await;
        let mut flushed = store.watch_flushed();
        store.publish(commit(1)).await.unwrap();
        flushed.wait_for(|lsn| *lsn == 1).await.unwrap();
        assert_eq!(counts(&store, "default").await, once(1..=1));
    }
}

#[tokio::test]
async fn a_closed_store_has_written_everything_and_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.publish(commit(1)).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.flushed_lsn(), 1);
    assert!(matches!(store.publish(commit(2)).await, Err(StoreError::Closed)));
    store.close().await.unwrap();
    let store = open(directory.path()).await;
    assert_eq!(counts(&store, "default").await, once(1..=1));
}

#[tokio::test]
async fn a_directory_has_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path()).await;
    let second = Store::open(crate::StoreOptions::new(directory.path())).await;
    assert!(matches!(second.err(), Some(StoreError::InUse { .. })));
}

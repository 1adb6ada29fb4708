//! Pruning leaves out what can't match, and nothing else.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{DAY_NS, NOON_NS, batch, open, read};
use crate::limits::FILE_SERVICES_MAX;
use crate::snapshot::Prune;
use crate::{Commit, Store};

fn times(time_ns: (i64, i64)) -> Prune {
    Prune { time_ns: Some(time_ns), services: None }
}

fn services(names: &[&str]) -> Prune {
    Prune { time_ns: None, services: Some(names.iter().map(|name| (*name).to_owned()).collect()) }
}

/// One commit: a row of this service at each of these times.
async fn publish(store: &Store, lsn: u64, service: &str, times_ns: &[i64]) {
    let mut commit = Commit::new(lsn, "default", NOON_NS);
    commit.batch = Some(batch(service, lsn * 100, times_ns));
    store.publish(commit).await.unwrap();
}

/// Scenario: three files of three hours and two services, asked for by time and by service; then the same rows fresh.
/// Guarantees: what can't match is left out and counted; a range that touches a row's time includes it.
#[tokio::test]
async fn files_and_fresh_rows_that_cannot_match_are_left_out() {
    let hour = DAY_NS / 24;
    let all = [("web", NOON_NS - 2 * hour), ("db", NOON_NS - hour), ("web", NOON_NS)];
    for is_flushed in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        for (lsn, (service, time)) in (1..).zip(all) {
            publish(&store, lsn, service, &[time, time + 10]).await;
            if is_flushed {
                store.flush().await.unwrap();
            }
        }
        let found = async |prune: Prune| {
            let snapshot = store.snapshot("default", &prune).await.unwrap();
            assert_eq!(snapshot.files_total, snapshot.files_pruned + snapshot.files.len() as u64);
            let rows = read(&store, &snapshot).await;
            rows.iter().map(|row| row.minor / 100).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found(Prune::default()).await, [1, 2, 3]);
        assert_eq!(found(times((NOON_NS + 10, i64::MAX))).await, [3]);
        assert_eq!(found(times((NOON_NS + 11, i64::MAX))).await, [] as [u64; 0]);
        assert_eq!(found(times((i64::MIN, NOON_NS - 2 * hour))).await, [1]);
        assert_eq!(found(times((i64::MIN, NOON_NS - 2 * hour - 1))).await, [] as [u64; 0]);
        assert_eq!(found(times((NOON_NS - hour + 5, NOON_NS - hour + 6))).await, [2]);
        assert_eq!(found(services(&["web"])).await, [1, 3]);
        assert_eq!(found(services(&["db", "nobody"])).await, [2]);
        assert_eq!(found(services(&["we", "WEB", "' OR 1=1 --"])).await, [] as [u64; 0]);
        assert_eq!(found(services(&[])).await, [] as [u64; 0]);
        assert_eq!(found(Prune { time_ns: Some((NOON_NS, NOON_NS)), ..services(&["web"]) }).await, [3]);
    }
}

/// Scenario: a file with more services than are remembered, and a query with more services than are asked about.
/// Guarantees: the file is read rather than left out.
#[tokio::test]
async fn too_many_services_to_remember_means_reading_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for lsn in 1..=FILE_SERVICES_MAX as u64 + 1 {
        publish(&store, lsn, &format!("service-{lsn}"), &[NOON_NS]).await;
    }
    store.flush().await.unwrap();
    assert_eq!(store.snapshot("default", &services(&["unheard-of"])).await.unwrap().files.len(), 1);
    publish(&store, store.flushed_lsn() + 1, "one", &[NOON_NS]).await;
    store.flush().await.unwrap();
    assert_eq!(store.snapshot("default", &services(&["unheard-of"])).await.unwrap().files.len(), 1);
    let many: Vec<String> = (0..crate::limits::PRUNE_SERVICES_MAX + 1).map(|n| format!("x{n}")).collect();
    let prune = Prune { time_ns: None, services: Some(many) };
    assert_eq!(store.snapshot("default", &prune).await.unwrap().files.len(), 2);
}

/// Scenario: lines from within the last week, from last year and from tomorrow, in one flush.
/// Guarantees: each is filed under its own day or, when its clock can't be right, under today's, apart from the good ones,
/// whose files keep narrow time ranges.
#[tokio::test]
async fn rows_are_filed_under_their_own_day_unless_their_clock_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    publish(&store, 1, "web", &[NOON_NS, NOON_NS - DAY_NS, NOON_NS - 365 * DAY_NS, NOON_NS + DAY_NS]).await;
    store.flush().await.unwrap();
    let snapshot = store.snapshot("default", &Prune::default()).await.unwrap();
    let mut files: Vec<(String, u64, i64)> = snapshot
        .files
        .iter()
        .map(|file| {
            (
                file.path.parts().nth(2).unwrap().as_ref().to_owned(),
                file.rows,
                file.time_max_ns - file.time_min_ns,
            )
        })
        .collect();
    files.sort();
    let expected = [("2026-11-19", 1, 0), ("2026-11-20", 1, 0), ("2026-11-20", 2, 366 * DAY_NS)];
    assert_eq!(files, expected.map(|(day, rows, range)| (day.to_owned(), rows, range)));
    assert_eq!(read(&store, &snapshot).await.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any rows, flushed wherever, and any question: pruned reading gives every row that matches.
    #[test]
    fn pruning_gives_a_superset_of_what_matches(
        commits in proptest::collection::vec((0_usize..4, proptest::collection::vec(-9_i64..9, 1..5), any::<bool>()), 1..12),
        range in (-10_i64..10, 0_i64..6),
        wanted in proptest::collection::btree_set(0_usize..5, 0..3),
        by in 0_u8..3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path()).await;
            let name = |service: &usize| format!("s{service}");
            let time = |days: &i64| NOON_NS + days * DAY_NS;
            let mut all = Vec::new();
            for (lsn, (service, days, is_flushed)) in (1..).zip(&commits) {
                let times_ns: Vec<i64> = days.iter().map(time).collect();
                publish(&store, lsn, &name(service), &times_ns).await;
                all.extend((lsn * 100..).zip(times_ns).map(|(minor, time)| (minor, time, name(service))));
                if *is_flushed {
                    store.flush().await.unwrap();
                }
            }
            let (from, to) = (time(&range.0), time(&(range.0 + range.1)));
            let prune = Prune {
                time_ns: Some((from, to)).filter(|_| by != 1),
                services: Some(wanted.iter().map(name).collect::<Vec<_>>()).filter(|_| by != 0),
            };
            let found: Vec<u64> =
                read(&store, &store.snapshot("default", &prune).await.unwrap()).await.iter().map(|row| row.minor).collect();
            for (minor, time, service) in all {
                let matches = prune.time_ns.is_none_or(|(from, to)| (from..=to).contains(&time))
                    && prune.services.as_ref().is_none_or(|names| names.contains(&service));
                let count = found.iter().filter(|found| **found == minor).count();
                assert!(count == 1 || (count == 0 && !matches), "{minor} was found {count} times");
            }
        });
    }
}

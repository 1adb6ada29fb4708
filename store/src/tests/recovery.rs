//! Opening what is damaged, newer, or half gone.

use std::fs;
use std::path::{Path, PathBuf};

use beeacon_sqlite::OpenError;

use super::{commit, commit_of, counts, files_on_disk, once, open};
use crate::snapshot::Prune;
use crate::{Store, StoreError, StoreOptions};

/// A closed store with two files, of commits 1 and 2, in the order of their commits.
async fn two_files(directory: &Path) -> Vec<PathBuf> {
    let store = open(directory).await;
    for lsn in 1..=2 {
        store.publish(commit(lsn)).await.unwrap();
        store.flush().await.unwrap();
    }
    store.close().await.unwrap();
    // Names are UUIDs of version 7: in the order of time.
    let files = files_on_disk(directory);
    assert_eq!(files.len(), 2);
    files
}

/// A word of the report, and what is done to the file.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

/// Scenario: a file is missing, too short, too long, or has another file's content.
/// Guarantees: found when the store opens, reported, left out; the rest is read; once it is back it is read again.
#[tokio::test]
async fn a_missing_or_damaged_file_is_reported_and_does_not_stop_the_rest() {
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let zero_footer = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len();
        bytes[end - 100..].fill(0);
        fs::write(path, bytes).unwrap();
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let empty = |path: &Path| fs::write(path, b"").unwrap();
    let damages: [Damage<'_>; 4] =
        [("missing", &remove), ("has", &cut), ("magic", &zero_footer), ("has 0 bytes", &empty)];
    for (word, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let files = two_files(directory.path()).await;
        let whole = fs::read(&files[0]).unwrap();
        damage(&files[0]);
        let store = open(directory.path()).await;
        let damaged = &store.recovery().damaged;
        assert_eq!((damaged.len(), damaged[0].rows), (1, super::ROWS), "{word}");
        assert!(damaged[0].fault.contains(word), "{word}: {}", damaged[0].fault);
        assert_eq!(counts(&store, "default").await, once(2..=2), "{word}");
        let snapshot = store.snapshot("default", &Prune::default()).await.unwrap();
        assert_eq!((snapshot.files_total, snapshot.files_damaged), (1, 1));
        assert_eq!((store.statistics().files, store.statistics().damaged_files), (1, 1));
        assert_eq!(store.verify().await.unwrap().damaged.len(), 1, "{word}");
        store.close().await.unwrap();

        fs::write(&files[0], whole).unwrap();
        let store = open(directory.path()).await;
        assert_eq!((store.recovery().damaged.len(), store.recovery().healed), (0, 1), "{word}");
        assert_eq!(counts(&store, "default").await, once(1..=2), "{word}");
        assert!(store.verify().await.unwrap().is_clean());
    }
}

/// Scenario: two files have changed places; both have a whole footer and the same size.
/// Guarantees: neither is taken for the other.
#[tokio::test]
async fn files_that_changed_places_are_found_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let files = two_files(directory.path()).await;
    let (first, second) = (fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
    fs::write(&files[0], second).unwrap();
    fs::write(&files[1], first).unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.recovery().damaged.len(), 2);
}

/// Scenario: each byte of a file in turn has one bit flipped (every byte of head and tail, every 13th between).
/// Guarantees: `verify` finds every one, and names the row group when it lies in one.
#[tokio::test]
async fn verify_finds_every_flipped_bit() {
    let directory = tempfile::tempdir().unwrap();
    let file = two_files(directory.path()).await.remove(0);
    let store = open(directory.path()).await;
    let whole = fs::read(&file).unwrap();
    let (mut tried, mut in_group) = (0, 0);
    for at in (0..whole.len()).filter(|at| *at < 64 || *at + 64 > whole.len() || at.is_multiple_of(13)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&file, flipped).unwrap();
        let report = store.verify().await.unwrap();
        assert_eq!((report.files, report.damaged.len()), (2, 1), "byte {at}");
        in_group += usize::from(report.damaged[0].fault.contains("in row group 0 (5 rows)"));
        tried += 1;
    }
    assert!(in_group > 0 && in_group < tried, "{in_group} of {tried}");
    fs::write(&file, whole).unwrap();
    assert!(store.verify().await.unwrap().is_clean());
}

/// Scenario: the catalog was written by a program that knows one more migration.
/// Guarantees: it is refused by name of both versions, and not one byte in the directory changes.
#[tokio::test]
async fn a_newer_catalog_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    two_files(directory.path()).await;
    let path = directory.path().join("catalog.sqlite");
    let url = format!("sqlite:{}", path.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (99, 'later', CURRENT_TIMESTAMP, 1, x'00', 1)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let before = (fs::read(&path).unwrap(), files_on_disk(directory.path()));
    let error = Store::open(StoreOptions::new(directory.path())).await.err().unwrap();
    assert!(matches!(error, StoreError::Open(OpenError::Newer { found: 99, known: 2, .. })), "{error}");
    assert_eq!((fs::read(&path).unwrap(), files_on_disk(directory.path())), before);
}

/// Scenario: the catalog is no database.
/// Guarantees: an error, nothing deleted, no new catalog in its place.
#[tokio::test]
async fn a_catalog_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let files = two_files(directory.path()).await;
    let path = directory.path().join("catalog.sqlite");
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(Store::open(StoreOptions::new(directory.path())).await.is_err());
    assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 8192]);
    assert_eq!(files_on_disk(directory.path()), files);
}

/// Scenario: a put was interrupted half-way, before its file had its name.
/// Guarantees: gone after the next start.
#[tokio::test]
async fn an_unfinished_put_is_removed_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let files = two_files(directory.path()).await;
    fs::write(directory.path().join("parquet/incoming/half.parquet"), b"PAR1").unwrap();
    let store = open(directory.path()).await;
    assert_eq!(files_on_disk(directory.path()), files);
    assert_eq!(counts(&store, "default").await, once(1..=2));
}

/// Scenario: one flush with rows of two tenants, one of whose values is nowhere in the other.
/// Guarantees: a snapshot of one lists neither files nor rows of the other, fresh or written, and the files themselves hold
/// nothing of the other, not even in a dictionary.
#[tokio::test]
async fn a_tenant_sees_nothing_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.publish(commit_of(1, "first", "canary-one")).await.unwrap();
    store.publish(commit_of(2, "second", "canary-two")).await.unwrap();
    for _ in ["fresh", "written"] {
        assert_eq!(counts(&store, "first").await, once(1..=1));
        assert_eq!(counts(&store, "second").await, once(2..=2));
        let nobody = store.snapshot("third", &Prune::default()).await.unwrap();
        assert_eq!((nobody.fresh.len(), nobody.files.len(), nobody.files_total), (0, 0, 0));
        store.flush().await.unwrap();
    }
    for (tenant, other) in [("first", "second"), ("second", "first")] {
        let snapshot = store.snapshot(tenant, &Prune::default()).await.unwrap();
        assert_eq!(snapshot.files.len(), 1);
        for batch in super::file_batches(&store.object_store(), &snapshot.files[0]).await {
            let text = format!("{batch:?}");
            let (own, foreign) =
                if tenant == "first" { ("canary-one", "canary-two") } else { ("canary-two", "canary-one") };
            assert!(text.contains(own) && !text.contains(foreign) && !text.contains(&format!("\"{other}\"")));
        }
    }
    for path in files_on_disk(directory.path()) {
        let bytes = fs::read(&path).unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(holds("canary-one") != holds("canary-two"), "{}", path.display());
    }
    assert!(store.snapshot("../second", &Prune::default()).await.is_err());
}

#[tokio::test]
async fn options_that_could_never_work_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = async |change: fn(&mut StoreOptions)| {
        let mut options = StoreOptions::new(directory.path());
        change(&mut options);
        match Store::open(options).await.err() {
            Some(StoreError::Option { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|o| o.flush_bytes = 0).await, "flush_bytes");
    assert_eq!(refused(|o| o.flush_bytes = o.fresh_bytes_max).await, "flush_bytes");
    assert_eq!(refused(|o| o.fresh_bytes_max = 1).await, "fresh_bytes_max");
    assert_eq!(refused(|o| o.flush_age = std::time::Duration::ZERO).await, "flush_age");
}

#[tokio::test]
async fn every_metric_has_its_name_and_a_help_text() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.publish(commit(1)).await.unwrap();
    store.flush().await.unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    store.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "beeacon_store_flushes_total 1",
        "beeacon_store_written_rows_total 5",
        "beeacon_store_files 1",
        "beeacon_store_fresh_rows 0",
        "beeacon_store_flushed_lsn 1",
        "beeacon_store_rows 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let types = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    let helps =
        text.lines().filter(|line| line.starts_with("# HELP ") && line.split(' ').count() > 5).count();
    assert_eq!((types, helps), (14, 14), "{text}");
    assert!(!text.contains("_total_total"));
}

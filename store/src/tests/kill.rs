//! A process that publishes and flushes without end, killed at any moment.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ROWS, commit, counts, files_on_disk, open, open_options};
use crate::StoreOptions;

const DIRECTORY: &str = "BEEACON_STORE_KILL_DIRECTORY";
const KILLS: u64 = 25;

/// Not a story of its own: what the child process runs. It says each LSN that it knows to be flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_publishes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut options = StoreOptions::new(directory);
    options.flush_bytes = 1;
    let store = open_options(options).await;
    let mut flushed = store.watch_flushed();
    tokio::spawn(async move {
        while flushed.changed().await.is_ok() {
            let lsn = *flushed.borrow_and_update();
            println!("\nflushed {lsn}");
        }
    });
    for lsn in store.flushed_lsn() + 1.. {
        store.publish(commit(lsn)).await.unwrap();
    }
}

/// Runs the child until it has said `flushes` times that it flushed, and a little longer; gives the last LSN it said.
fn run_and_kill(directory: &Path, flushes: usize, spin: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["tests::kill::child_that_publishes_until_it_is_killed", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines
        .filter_map(|line| line.unwrap().strip_prefix("flushed ").map(|lsn| lsn.parse::<u64>().unwrap()));
    let last = said.take(flushes).last().unwrap();
    for _ in 0..spin {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    last
}

/// Scenario: killed 25 times, after one to three flushes and a pause of its own each time.
/// Guarantees: what was said to be flushed is there; every row up to `flushed_lsn` exactly once, none beyond it; no file that
/// the catalog does not know; checksums hold.
#[tokio::test]
async fn every_flushed_row_is_there_once_after_kills_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let (mut removed, mut last) = (0, 0);
    for kill in 0..KILLS {
        let flushes = usize::try_from(1 + kill % 3).unwrap();
        let said = run_and_kill(directory.path(), flushes, (kill * 7_919 % 97) * 40_000);
        let store = open(directory.path()).await;
        let flushed = store.flushed_lsn();
        assert!(flushed >= said && flushed > last, "said {said}, found {flushed}");
        last = flushed;
        let expected = (1..=flushed).flat_map(|lsn| lsn * ROWS..(lsn + 1) * ROWS).map(|minor| (minor, 1));
        assert!(counts(&store, "default").await.into_iter().eq(expected), "kill {kill}");
        removed += store.recovery().staged_removed;
        assert!(store.recovery().damaged.is_empty());
        assert_eq!(files_on_disk(directory.path()).len() as u64, store.statistics().files);
        assert!(store.verify().await.unwrap().is_clean());
        store.close().await.unwrap();
    }
    println!("{KILLS} kills, {last} commits kept, {removed} files of interrupted flushes removed");
}

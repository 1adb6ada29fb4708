//! Rotated logs that Docker has compressed, and the agent where it was down meanwhile.

use std::path::Path;

use beeacon_record::GapReason;
use tempfile::TempDir;

use crate::collector::{Collector, State};
use crate::dockerd::Log;
use crate::stories::{Running, directory, log, number};

fn compressed(directory: &TempDir, size_max: u64, file_max: usize) -> Log {
    let mut log = log(directory, "c0", size_max, file_max);
    log.compresses = true;
    log
}

fn write(log: &mut Log, lines: std::ops::Range<usize>) {
    for line in lines {
        log.line(if line % 7 == 0 { "stderr" } else { "stdout" }, &format!("a line of some length {line}"));
    }
}

async fn read(collector: &Collector, directory: &Path, rows: usize) {
    let running = Running::start(collector, directory);
    collector.until("all rows", |state| state.rows.len() >= rows).await;
    running.stop().await;
}

fn assert_all(state: &State, lines: usize) {
    let numbers: Vec<usize> =
        state.rows.iter().map(|(_, _, row)| usize::try_from(number(&row.message)).unwrap()).collect();
    assert_eq!(numbers, (0..lines).collect::<Vec<_>>());
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0, "{:?}", state.gaps);
}

/// The file in which the agent stopped has been rotated twice and compressed when it comes back, with and without a disk of its own.
/// Fails when files are told apart by their inodes alone, and when what was compressed is read from its start.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_goes_on_within_a_file_that_was_compressed_while_it_was_down() {
    for is_erased in [false, true] {
        let (collector, directory) = (Collector::start().await, directory());
        let mut log = compressed(&directory, 20_000, 6);
        write(&mut log, 0..500);
        read(&collector, directory.path(), 500).await;
        write(&mut log, 500..900);
        assert!(directory.path().join("containers/c0/c0-json.log.3.gz").exists());
        assert!(!directory.path().join("containers/c0/c0-json.log.1").exists());
        if is_erased {
            std::fs::remove_dir_all(directory.path().join("data")).unwrap();
        }
        read(&collector, directory.path(), 900).await;
        // Once more, with nothing new.
        read(&collector, directory.path(), 900).await;
        assert_all(&collector.state.lock().unwrap(), 900);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_reads_compressed_files_from_the_oldest_on() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = compressed(&directory, 20_000, 50);
    write(&mut log, 0..2000);
    read(&collector, directory.path(), 2000).await;
    assert_all(&collector.state.lock().unwrap(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_with_compression_under_the_reader_loses_and_repeats_nothing() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = compressed(&directory, 20_000, 30);
    let running = Running::start(&collector, directory.path());
    for start in (0..4000).step_by(100) {
        write(&mut log, start..start + 100);
        collector.until("read so far", |state| state.rows.len() + 500 >= start).await;
    }
    collector.until("every row", |state| state.rows.len() >= 4000).await;
    running.stop().await;
    assert_all(&collector.state.lock().unwrap(), 4000);
}

/// Docker was stopped while it compressed: both files are there, and the compressed one ends anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_beside_its_half_written_compressed_twin_is_read_once() {
    for part in [0.0, 0.5, 1.0] {
        let (collector, directory) = (Collector::start().await, directory());
        let mut log = log(&directory, "c0", 20_000, 6);
        write(&mut log, 0..100);
        read(&collector, directory.path(), 100).await;
        write(&mut log, 100..300);
        log.compress(false);
        log.cut(1, part);
        read(&collector, directory.path(), 300).await;
        assert_all(&collector.state.lock().unwrap(), 300);
        // Compressed to the end while nobody reads.
        log.compress(true);
        write(&mut log, 300..310);
        read(&collector, directory.path(), 310).await;
        assert_all(&collector.state.lock().unwrap(), 310);
    }
}

/// Fails when a file that ends too early counts as whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_compressed_file_no_more_holds_is_one_gap() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut log = compressed(&directory, 20_000, 6);
    write(&mut log, 0..100);
    read(&collector, directory.path(), 100).await;
    write(&mut log, 100..600);
    log.cut(2, 0.5);
    let running = Running::start(&collector, directory.path());
    let last = |state: &State| state.rows.last().map(|(_, _, row)| number(&row.message));
    collector.until("the last line", |state| last(state) == Some(599)).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let [(_, gap, _)] = state.gaps.as_slice() else { panic!("{:?}", state.gaps) };
    assert_eq!(gap.reason, GapReason::Damaged);
    assert_eq!(state.duplicates_stored, 0);
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    assert!(numbers.is_sorted() && numbers.len() < 600 && numbers.len() > 300, "{}", numbers.len());
    let holes = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(holes, 1, "what is missing is missing in one place");
}

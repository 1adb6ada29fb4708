//! Failing writes and syncs, full disks, and the order of things around a sync.

use std::path::Path;

use super::{Bench, DIRECTORY, small};
use crate::queue::lock;
use crate::simulation::{Fault, Operation, SimDisk};
use crate::{Duty, FullCause, JournalError, JournalOptions, Lsn};

/// Scenario: the power goes at the very moment a caller is told that its record is stored.
/// Guarantees: the record is on the disk then, and so are the names that lead to it.
#[test]
fn a_record_is_on_the_disk_when_its_caller_is_told() {
    let mut bench = Bench::open(&SimDisk::new(1));
    for id in 1..=12 {
        let (disk, told) = (bench.disk.clone(), bench.answers.clone());
        bench
            .journal
            .submit(super::payload(id, 16_000), move |result| {
                let lsn = result.unwrap();
                for seed in 0..8 {
                    let after = Bench::open(&disk.image(seed));
                    assert!(after.records().contains(&(lsn.0, id)), "record {id} after cut {seed}");
                }
                lock(&told).push((id, Ok(lsn)));
            })
            .unwrap();
        bench.writer.step().unwrap();
    }
    assert_eq!(bench.answers().len(), 12);
    assert!(bench.journal.statistics().rotations > 2);
}

/// Scenario: the power goes in a new data directory, made with all its ancestors.
#[test]
fn new_ancestor_directories_are_durable_before_the_first_record() {
    for seed in 0..64 {
        let mut bench = Bench::open(&SimDisk::new(1));
        bench.append(1, 10).unwrap();
        assert_eq!(Bench::open(&bench.disk.power_cut(seed)).records(), [(1, 1)]);
    }
}

#[test]
fn a_thousand_records_share_one_sync() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.append(1, 10).unwrap();
    let before = bench.disk.count(Operation::Sync);
    for id in 2..=1001 {
        bench.submit(id, 10).unwrap();
    }
    bench.writer.step().unwrap();
    // 1,000 records of 48 bytes fit into the segment together.
    assert_eq!(bench.disk.count(Operation::Sync), before + 1);
    assert_eq!(bench.disk.count(Operation::Write), 3, "a header, the first record, and one vectored write");
    assert_eq!(bench.journal.synced_lsn(), Lsn(1001));
    let statistics = bench.journal.statistics();
    assert_eq!((statistics.groups, statistics.records, statistics.queued_bytes), (2, 1001, 0));
}

/// Scenario: a sync fails once, and the pages are marked clean without having been written.
/// Guarantees: the file is never synced again (the simulated disk panics on that), the group is
/// written into a new segment, and only then acknowledged.
#[test]
fn after_a_failed_sync_the_group_goes_into_a_new_segment() {
    for fault in [Operation::Sync, Operation::Write] {
        for kind in [Fault::Eio, Fault::Short] {
            let mut bench = Bench::open(&SimDisk::new(1));
            bench.append(1, 100).unwrap();
            for id in 2..=4 {
                bench.submit(id, 100).unwrap();
            }
            bench.disk.fail_next(fault, kind);
            bench.writer.step().unwrap();
            assert_eq!(bench.segment_paths().len(), 2);
            assert_eq!(bench.journal.statistics().suspect_segments, 1);
            assert_eq!(bench.append(5, 100).unwrap(), Lsn(5));
            let expected: Vec<(u64, u64)> = (1..=5).map(|id| (id, id)).collect();
            assert_eq!(bench.records(), expected);
            for seed in 0..16 {
                let after = Bench::open(&bench.disk.image(seed));
                assert_eq!(after.records(), expected);
                assert!(after.report.is_clean(), "{:?}", after.report);
            }
            // What the given up segment holds beyond is not counted a second time.
            assert_eq!(Bench::open(&bench.disk.kill()).report.records, 5);
        }
    }
}

/// Scenario: the new segment fails as well.
/// Guarantees: everybody who waits is told to stop, nobody is acknowledged, nothing more enters.
#[test]
fn a_second_failure_poisons_the_journal() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.append(1, 100).unwrap();
    for id in 2..=4 {
        bench.submit(id, 100).unwrap();
    }
    // The second sync is that of the new segment's header, the next one that of the group.
    for _ in 0..2 {
        bench.disk.fail_next(Operation::Sync, Fault::Eio);
    }
    assert!(bench.writer.step().is_err());
    let answers = bench.answers();
    assert_eq!(answers.len(), 4);
    for (_, answer) in &answers[1..] {
        let error = answer.clone().unwrap_err();
        assert!(matches!(error, JournalError::Poisoned(_)), "{error}");
        assert_eq!(error.duty(), Duty::Stop);
    }
    assert_eq!(bench.submit(5, 1).unwrap_err().duty(), Duty::Stop);
    assert_eq!(bench.journal.health().unwrap_err().duty(), Duty::Stop);
    assert_eq!(bench.journal.synced_lsn(), Lsn(1));
    assert_eq!(bench.records(), [(1, 1)], "what was durable can still be read");
    let after = Bench::open(&bench.disk.power_cut(1));
    assert_eq!(after.records()[0], (1, 1));
}

#[test]
fn a_failed_directory_sync_poisons_at_once() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.disk.fail_next(Operation::SyncDirectory, Fault::Eio);
    let error = bench.append(1, 100).unwrap_err();
    assert!(matches!(error, JournalError::Poisoned(_)), "{error}");
}

/// Scenario: a sync fails, the process dies before it could write elsewhere, and what it had
/// written is still in the cache, marked clean. The next process reads it; then the power goes.
/// Guarantees: what the next process gave to its readers is on the disk.
#[test]
fn what_recovery_reads_from_the_cache_is_on_the_disk_before_it_is_used() {
    for seed in 0..64 {
        let mut bench = Bench::open(&SimDisk::new(seed));
        bench.append(1, 100).unwrap();
        bench.submit(2, 3000).unwrap();
        bench.disk.fail_next(Operation::Sync, Fault::Eio);
        bench.disk.fail_next(Operation::Create, Fault::Eio);
        bench.disk.fail_next(Operation::Create, Fault::Eio);
        assert!(bench.writer.step().is_err());
        let disk = bench.disk.kill();
        disk.heal();
        let bench = Bench::open(&disk);
        let given = bench.records();
        assert_eq!(given, [(1, 1), (2, 2)]);
        assert_eq!(Bench::open(&bench.disk.power_cut(seed)).records(), given);
    }
}

/// Scenario: the device runs out of space.
/// Guarantees: callers are told to try again, with everything behind the first one refused too,
/// and once there is space the journal goes on by itself.
#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let mut bench = Bench::open(&SimDisk::new(1));
    for id in 1..=3 {
        bench.append(id, 16_000).unwrap();
    }
    bench.disk.set_free_bytes(10_000);
    for id in 4..=6 {
        bench.submit(id, 16_000).unwrap();
    }
    bench.submit(7, 10).unwrap();
    bench.writer.step().unwrap();
    for (id, answer) in bench.answers().into_iter().skip(3) {
        let error = answer.expect_err("everything behind a refused record is refused");
        assert!(matches!(error, JournalError::Full(_)) && error.duty() == Duty::Retry, "{id}: {error}");
    }
    let error = bench.submit(8, 10).unwrap_err();
    assert_eq!(error.duty(), Duty::Retry, "refused at once now");
    bench.disk.set_free_bytes(1 << 20);
    assert_eq!(bench.append(9, 16_000).unwrap(), Lsn(4));
    assert_eq!(bench.records(), [(1, 1), (2, 2), (3, 3), (4, 9)]);
    assert_eq!(bench.journal.statistics().full_episodes, 1);
    let after = Bench::open(&bench.disk.power_cut(5));
    assert_eq!(after.records(), [(1, 1), (2, 2), (3, 3), (4, 9)]);
}

/// Scenario: a write meets a full device although its space had been reserved.
#[test]
fn a_segment_that_met_a_full_device_is_never_written_again() {
    for operation in [Operation::Write, Operation::Sync, Operation::Allocate] {
        let mut bench = Bench::open(&SimDisk::new(1));
        if operation != Operation::Allocate {
            bench.append(1, 100).unwrap();
        }
        bench.disk.fail_next(operation, Fault::NoSpace);
        let error = bench.append(2, 100).unwrap_err();
        assert!(matches!(error, JournalError::Full(FullCause::Device { .. })), "{operation:?}: {error}");
        bench.append(3, 100).unwrap();
        let ids: Vec<u64> = bench.records().into_iter().map(|(_, id)| id).collect();
        assert!(ids == [1, 3] || ids == [3], "{operation:?}: {ids:?}");
        let after = Bench::open(&bench.disk.power_cut(9));
        assert_eq!(after.records().into_iter().map(|(_, id)| id).collect::<Vec<_>>(), ids);
    }
}

#[test]
fn the_floor_closes_the_gate_before_the_disk_is_full_and_opens_it_with_hysteresis() {
    let floor = 1_000_000;
    let options = JournalOptions { free_bytes_min: floor, ..small() };
    let mut bench = Bench::try_open(&SimDisk::new(1), options).unwrap();
    bench.append(1, 100).unwrap();
    bench.disk.set_free_bytes(floor - 1);
    assert_eq!(bench.append(2, 100).unwrap(), Lsn(2), "its space was reserved");
    let error = bench.submit(3, 100).unwrap_err();
    assert!(matches!(error, JournalError::Full(FullCause::Floor { .. })), "{error}");
    bench.disk.set_free_bytes(floor + floor / 20 - 1);
    assert!(bench.submit(4, 100).is_err(), "a little more than the floor is not enough");
    bench.disk.set_free_bytes(floor + floor / 20);
    assert_eq!(bench.append(5, 100).unwrap(), Lsn(3));
    assert!(bench.journal.health().is_ok());
}

#[test]
fn the_quota_refuses_until_the_slowest_consumer_has_come_far_enough() {
    let options = JournalOptions { journal_bytes_max: 128 << 10, ..small() };
    let mut bench = Bench::try_open(&SimDisk::new(1), options).unwrap();
    let cursor = bench.journal.cursor("store").unwrap();
    let mut id = 0;
    let refused = loop {
        id += 1;
        if let Err(error) = bench.append(id, 16_000) {
            break error;
        }
    };
    assert!(matches!(refused, JournalError::Full(FullCause::Quota { .. })), "{refused}");
    assert!(bench.submit(id + 1, 10).is_err());
    cursor.advance(bench.journal.synced_lsn()).unwrap();
    assert_eq!(bench.journal.truncate().unwrap(), 1);
    bench.append(id + 2, 16_000).unwrap();
    let allocated = bench.journal.statistics().allocated_bytes;
    assert!(allocated <= 128 << 10);
}

/// Scenario: the quota was lowered below what there is.
/// Guarantees: the journal opens and is read; it takes records again once it has been emptied.
#[test]
fn a_quota_below_what_there_is_keeps_nobody_from_starting() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.journal.cursor("store").unwrap();
    for id in 1..=20 {
        bench.append(id, 16_000).unwrap();
    }
    let disk = bench.finish().kill();
    let options = JournalOptions { journal_bytes_max: 128 << 10, ..small() };
    let mut bench = Bench::try_open(&disk, options).unwrap();
    assert_eq!(bench.records().len(), 20);
    assert_eq!(bench.append(21, 10).unwrap_err().duty(), Duty::Retry);
    bench.journal.cursor("store").unwrap().advance(Lsn(20)).unwrap();
    bench.journal.truncate().unwrap();
    assert_eq!(bench.append(22, 10).unwrap(), Lsn(21));
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let bench = Bench::open(&SimDisk::new(1));
    let mut accepted = 0;
    let error = loop {
        match bench.submit(accepted, 10_000) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::QueueFull { .. }) && error.duty() == Duty::Retry);
    assert_eq!(accepted, (1 << 20) / (10_000 + crate::limits::QUEUE_OVERHEAD_BYTES));
    assert_eq!(bench.journal.statistics().refused, 1);
    let error = bench.submit(1, 33 << 10).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }) && error.duty() == Duty::Drop);
}

#[test]
fn options_out_of_range_are_refused_with_their_range() {
    let cases = [
        (JournalOptions { segment_bytes: 1, ..small() }, "segment_bytes"),
        (JournalOptions { segment_bytes: 2 << 30, ..small() }, "segment_bytes"),
        (JournalOptions { record_bytes_max: 64 << 10, ..small() }, "record_bytes_max"),
        (JournalOptions { record_bytes_max: 0, ..small() }, "record_bytes_max"),
        (JournalOptions { queue_bytes_max: 1, ..small() }, "queue_bytes_max"),
        (JournalOptions { journal_bytes_max: 100 << 10, ..small() }, "journal_bytes_max"),
    ];
    for (options, name) in cases {
        match Bench::try_open(&SimDisk::new(1), options).err().unwrap() {
            JournalError::Option { option, .. } => assert_eq!(option, name),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn what_was_submitted_before_closing_is_stored_and_nothing_after() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.submit(1, 10).unwrap();
    bench.journal.shared().queue.close();
    assert!(matches!(bench.submit(2, 10), Err(JournalError::Closed)));
    bench.writer.step().unwrap();
    bench.writer.finish();
    assert_eq!(bench.answers().len(), 1);
    let after = Bench::open(&bench.disk.power_cut(1));
    assert_eq!(after.records(), [(1, 1)]);
    let report = crate::inspect::verify_on(&after.disk.kill(), Path::new(DIRECTORY)).unwrap();
    assert!(report.is_sealed && report.is_clean());
}

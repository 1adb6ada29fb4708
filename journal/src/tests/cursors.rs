//! Cursors: torn slots, holding segments back, working on a full disk.

use std::path::Path;

use super::{Bench, DIRECTORY, small};
use crate::format::{CursorFound, CursorSlot, cursor_file_name};
use crate::limits::CURSOR_SLOT_BYTES;
use crate::simulation::{Operation, SimDisk};
use crate::{Duty, JournalError, Lsn};

fn cursor_path(name: &str) -> std::path::PathBuf {
    Path::new(DIRECTORY).join(cursor_file_name(name))
}

/// Fills three segments and a bit, and gives back the first LSN of each.
fn fill(bench: &mut Bench) -> Vec<u64> {
    for id in 1..=14 {
        bench.append(id, 16_000).unwrap();
    }
    let catalog = crate::queue::lock(&bench.journal.shared().catalog);
    catalog.segments.iter().map(|segment| segment.name.first_lsn).collect()
}

/// Scenario: the newer of two slots is written, and the power goes; every one of the 256 ways in
/// which its eight sectors can be old or new.
/// Guarantees: the position is the new one or the one before, never anything else.
#[test]
fn a_torn_slot_gives_the_position_before() {
    let before = CursorSlot { generation: 6, lsn: 600 };
    let current = CursorSlot { generation: 7, lsn: 700 };
    let next = CursorSlot { generation: 8, lsn: 800 };
    for kept in 0_u32..256 {
        let mut slot = before.encode();
        for (sector, (old, new)) in slot.chunks_mut(512).zip(next.encode().chunks(512)).enumerate() {
            if kept & (1 << sector) != 0 {
                old.copy_from_slice(new);
            }
        }
        let file = [slot, current.encode()].concat();
        match CursorSlot::decode_file(&file) {
            CursorFound::Valid { newest, .. } => assert!(newest == current || newest == next),
            other => panic!("sectors {kept:08b}: {other:?}"),
        }
    }
}

#[test]
fn every_bit_flip_in_a_cursor_leaves_one_of_its_two_positions() {
    let (older, newer) = (CursorSlot { generation: 8, lsn: 800 }, CursorSlot { generation: 9, lsn: 900 });
    let whole = [older.encode(), newer.encode()].concat();
    for bit in 0..whole.len() * 8 {
        let mut file = whole.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit / 8 < CURSOR_SLOT_BYTES as usize { newer } else { older };
        let found = CursorSlot::decode_file(&file);
        assert_eq!(found, CursorFound::Valid { newest: expected, damaged_slot: true }, "bit {bit}");
    }
}

#[test]
fn a_cursor_with_both_slots_damaged_starts_again_and_is_reported() {
    let mut bench = Bench::open(&SimDisk::new(1));
    let cursor = bench.journal.cursor("store").unwrap();
    bench.append(1, 100).unwrap();
    cursor.advance(Lsn(1)).unwrap();
    let disk = bench.finish();
    disk.set_content(&cursor_path("store"), &[0xAA; 8192]);
    let bench = Bench::open(&disk.kill());
    assert_eq!(bench.report.cursors_reset, ["store"]);
    assert!(!bench.report.is_clean());
    assert_eq!(bench.journal.cursor("store").unwrap().get(), Lsn(0));
}

#[test]
fn truncation_never_passes_the_slowest_cursor() {
    let mut bench = Bench::open(&SimDisk::new(1));
    let store = bench.journal.cursor("store").unwrap();
    let loki = bench.journal.cursor("loki").unwrap();
    let firsts = fill(&mut bench);
    store.advance(Lsn(14)).unwrap();
    assert_eq!(bench.journal.truncate().unwrap(), 0, "loki has taken nothing");
    // One short of the second segment's end, and then at it.
    loki.advance(Lsn(firsts[2] - 2)).unwrap();
    assert_eq!(bench.journal.truncate().unwrap(), 1);
    loki.advance(Lsn(firsts[2] - 1)).unwrap();
    assert_eq!(bench.journal.truncate().unwrap(), 1);
    assert_eq!(bench.first_lsn(), Lsn(firsts[2]));
    let missing = bench.journal.reader(Lsn(1)).read().unwrap_err();
    assert!(matches!(missing, JournalError::Truncated { wanted: Lsn(1), first } if first == Lsn(firsts[2])));
}

#[test]
fn without_a_cursor_nothing_is_removed_and_the_last_segment_always_stays() {
    let mut bench = Bench::open(&SimDisk::new(1));
    fill(&mut bench);
    assert_eq!(bench.journal.truncate().unwrap(), 0);
    let cursor = bench.journal.cursor("store").unwrap();
    cursor.advance(Lsn(14)).unwrap();
    bench.journal.truncate().unwrap();
    assert_eq!(bench.journal.statistics().segments, 1);
    let bench = Bench::open(&bench.finish().power_cut(3));
    assert_eq!(bench.journal.synced_lsn(), Lsn(14), "lsns go on where they were");
}

/// Scenario: a consumer registered in an earlier run is not opened in this one.
#[test]
fn a_cursor_that_nobody_opened_still_holds_until_it_is_forgotten() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.journal.cursor("loki").unwrap();
    fill(&mut bench);
    let mut bench = Bench::open(&bench.finish().power_cut(1));
    let store = bench.journal.cursor("store").unwrap();
    bench.append(20, 10).unwrap();
    store.advance(Lsn(15)).unwrap();
    assert_eq!(bench.journal.truncate().unwrap(), 0);
    assert_eq!(bench.journal.cursors(), [("loki".to_owned(), Lsn(0)), ("store".to_owned(), Lsn(15))]);

    let loki = bench.journal.cursor("loki").unwrap();
    assert!(bench.journal.forget_cursor("loki").unwrap());
    assert!(!bench.journal.forget_cursor("loki").unwrap());
    assert!(matches!(loki.advance(Lsn(1)), Err(JournalError::CursorForgotten { .. })));
    assert!(bench.journal.truncate().unwrap() > 0);
    let bench = Bench::open(&bench.finish().power_cut(2));
    assert_eq!(bench.journal.cursors().len(), 1, "forgetting is durable");
}

/// Scenario: the process was not killed; the power goes at the moment the segment is removed.
/// Guarantees: whatever reached the disk, the cursor that allowed the removal is on it.
#[test]
fn a_segment_is_removed_only_after_the_cursor_is_on_the_disk() {
    for seed in 0..64 {
        let mut bench = Bench::open(&SimDisk::new(1));
        let store = bench.journal.cursor("store").unwrap();
        fill(&mut bench);
        store.advance(Lsn(14)).unwrap();
        bench.journal.truncate().unwrap();
        let bench = Bench::open(&bench.disk.power_cut(seed));
        assert_eq!(bench.journal.cursor("store").unwrap().get(), Lsn(14));
        assert!(bench.report.is_clean(), "removed segments that came back are no loss: {:?}", bench.report);
    }
}

#[test]
fn a_cursor_moves_forward_only_and_never_past_what_is_durable() {
    let mut bench = Bench::open(&SimDisk::new(1));
    let cursor = bench.journal.cursor("store").unwrap();
    for id in 1..=3 {
        bench.append(id, 10).unwrap();
    }
    cursor.advance(Lsn(2)).unwrap();
    for asked in [Lsn(1), Lsn(4)] {
        let error = cursor.advance(asked).unwrap_err();
        assert!(matches!(error, JournalError::CursorRange { from: Lsn(2), to: Lsn(3), .. }));
        assert_eq!(error.duty(), Duty::Drop);
    }
    let syncs = bench.disk.count(Operation::Sync);
    cursor.advance(Lsn(2)).unwrap();
    assert_eq!(bench.disk.count(Operation::Sync), syncs, "staying costs nothing");
    for name in ["", "Store", "a/b", "a.b", &"x".repeat(65)] {
        assert!(matches!(bench.journal.cursor(name), Err(JournalError::CursorName)));
    }
}

#[test]
fn a_full_disk_can_be_emptied() {
    let mut bench = Bench::open(&SimDisk::new(1));
    let cursor = bench.journal.cursor("store").unwrap();
    fill(&mut bench);
    bench.disk.set_free_bytes(0);
    cursor.advance(Lsn(14)).unwrap();
    assert!(bench.journal.truncate().unwrap() > 0);
    bench.append(99, 16_000).unwrap();
}

/// Scenario: the tail of the journal is lost to damage after a consumer had taken it.
/// Guarantees: the consumer's LSNs are not given to other records, which it would then skip.
#[test]
fn lsns_that_a_consumer_has_seen_are_never_given_again() {
    let mut bench = Bench::open(&SimDisk::new(1));
    let cursor = bench.journal.cursor("store").unwrap();
    for id in 1..=9 {
        bench.append(id, 100).unwrap();
    }
    cursor.advance(Lsn(9)).unwrap();
    let path = bench.segment_paths()[0].clone();
    let disk = bench.disk.kill();
    let content = disk.content(&path);
    disk.set_content(&path, &content[..4096]);
    let mut bench = Bench::open(&disk);
    assert_eq!(bench.append(10, 100).unwrap(), Lsn(10));

    let options = crate::JournalOptions { known_lsn: Lsn(500), ..small() };
    let mut bench = Bench::try_open(&SimDisk::new(1), options).unwrap();
    assert_eq!(bench.append(1, 100).unwrap(), Lsn(501), "an owner's own knowledge counts too");
}

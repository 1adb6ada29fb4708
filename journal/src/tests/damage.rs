//! Bit flips, truncations and missing files: always detected, never fatal, never more lost than hit.

use std::path::{Path, PathBuf};

use super::{Bench, DIRECTORY, payload, small};
use crate::inspect::verify_on;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::simulation::{Chance, SimDisk};
use crate::{Duty, JournalError, Lsn};

/// A journal of one segment with records of several lengths, each synced by itself.
fn one_segment(records: u64) -> (Bench, PathBuf) {
    let mut bench = Bench::open(&SimDisk::new(1));
    for id in 1..=records {
        bench.append(id, [8, 30, 64, 9, 100][id as usize % 5]).unwrap();
    }
    let path = bench.segment_paths()[0].clone();
    (bench, path)
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Opens a disk and checks that what is left is right; the ids found.
fn reopen(disk: &SimDisk) -> (Bench, Vec<u64>) {
    let bench = Bench::open(disk);
    let ids = bench.records().into_iter().map(|(lsn, id)| (lsn == id).then_some(id).unwrap()).collect();
    (bench, ids)
}

/// Scenario: one bit flips, any bit of the file, in a segment that was closed in order.
/// Guarantees: it is told; at most one record is lost, and it is told which; all others are kept.
#[test]
fn every_single_bit_flip_is_detected_and_costs_at_most_the_record_hit() {
    let (bench, path) = one_segment(6);
    let disk = bench.finish();
    let whole = disk.content(&path);
    for bit in 0..whole.len() * 8 {
        let disk = disk.image(0);
        disk.set_content(&path, &flip(&whole, bit));
        let report = verify_on(&disk, Path::new(DIRECTORY)).unwrap();
        assert!(!report.is_clean() || report.torn_bytes > 0, "bit {bit} of byte {} is not detected", bit / 8);
        assert!(
            report.lost_records <= 1 && report.records + report.lost_records == 6,
            "bit {bit}: {report:?}"
        );
        // Opening as well, for each bit of the records and some of the header.
        if bit as u64 >= SEGMENT_HEADER_BYTES * 8 || bit % 97 == 0 {
            let (bench, ids) = reopen(&disk);
            assert_eq!(ids.len() as u64, 6 - bench.report.lost_records, "bit {bit}");
            let lost: Vec<u64> = (1..=6).filter(|id| !ids.contains(id)).collect();
            let told: Vec<u64> =
                bench.report.damage.iter().filter_map(|range| range.lost).map(|(from, _)| from.0).collect();
            assert_eq!(lost, told, "bit {bit}");
        }
    }
}

/// Scenario: the same in a segment that has a successor, which is how most segments live. Its last
/// kilobytes are tried: small records and the seal.
#[test]
fn every_bit_flip_at_the_end_of_a_finished_segment_is_detected() {
    let mut bench = Bench::open(&SimDisk::new(1));
    for id in 1..=2 {
        bench.append(id, 30_000).unwrap();
    }
    for id in 3..=5 {
        bench.append(id, 50).unwrap();
    }
    bench.append(6, 30_000).unwrap();
    assert_eq!(bench.segment_paths().len(), 2);
    let path = bench.segment_paths()[0].clone();
    let disk = bench.disk.kill();
    let whole = disk.content(&path);
    for bit in (whole.len() - 400) * 8..whole.len() * 8 {
        let disk = disk.image(0);
        disk.set_content(&path, &flip(&whole, bit));
        let report = verify_on(&disk, Path::new(DIRECTORY)).unwrap();
        assert!(report.corrupt_ranges > 0, "bit {bit} is not detected");
        assert!(
            report.lost_records <= 1 && report.records + report.lost_records == 6,
            "bit {bit}: {report:?}"
        );
    }
}

/// Scenario: the process was killed, so the segment has no seal and zeros follow its records; one
/// of many bits flips.
/// Guarantees: the last record may be taken for an interrupted write; no other is lost.
#[test]
fn a_bit_flip_in_an_unfinished_segment_costs_at_most_the_record_hit() {
    let (bench, path) = one_segment(6);
    let disk = bench.disk.kill();
    let whole = disk.content(&path);
    let mut chance = Chance(7);
    for _ in 0..3000 {
        let used = SEGMENT_HEADER_BYTES * 8 + 600 * 8;
        let bits = if chance.coin() { used } else { whole.len() as u64 * 8 };
        let bit = chance.below(bits) as usize;
        let disk = disk.kill();
        disk.set_content(&path, &flip(&whole, bit));
        let (bench, ids) = reopen(&disk);
        let report = &bench.report;
        assert!(!report.is_clean() || report.torn_bytes > 0, "bit {bit} is not detected: {report:?}");
        assert!(ids.len() >= 5, "bit {bit}: {ids:?}");
    }
}

/// Scenario: the file ends anywhere.
/// Guarantees: the journal opens, keeps every record that is whole, and takes new ones.
#[test]
fn a_segment_truncated_at_any_byte_opens_and_keeps_what_is_whole() {
    let (bench, path) = one_segment(6);
    let disk = bench.disk.kill();
    let whole = disk.content(&path);
    let ends: Vec<u64> = {
        let mut end = SEGMENT_HEADER_BYTES;
        (1..=6_usize)
            .map(|id| {
                end += crate::format::record_bytes([8, 30, 64, 9, 100][id % 5]);
                end
            })
            .collect()
    };
    let header = (0..SEGMENT_HEADER_BYTES as usize).step_by(61);
    for bytes in header.chain(SEGMENT_HEADER_BYTES as usize..ends[5] as usize + 9) {
        let disk = disk.kill();
        disk.set_content(&path, &whole[..bytes]);
        let (mut bench, ids) = reopen(&disk);
        let expected = ends.iter().filter(|end| **end <= bytes as u64).count() as u64;
        assert_eq!(ids, (1..=expected).collect::<Vec<_>>(), "at {bytes}");
        let lsn = bench.append(100, 20).unwrap();
        assert!(lsn.0 > expected);
        let (lsn, id) = *Bench::open(&bench.disk.power_cut(1)).records().last().unwrap();
        assert_eq!((lsn, id), (bench.journal.synced_lsn().0, 100));
    }
}

/// Scenario: bytes in the middle are damaged, other records follow.
/// Guarantees: what follows is kept, the loss is told with its LSNs, and the bytes are set aside.
#[test]
fn damage_in_the_middle_is_quarantined_and_reading_goes_on() {
    let (bench, path) = one_segment(20);
    let disk = bench.disk.kill();
    let mut content = disk.content(&path);
    let third = SEGMENT_HEADER_BYTES as usize + 200;
    content[third..third + 200].fill(0x5A);
    disk.set_content(&path, &content);
    let (bench, ids) = reopen(&disk);
    let range = bench.report.damage[0].clone();
    let (from, to) = range.lost.unwrap();
    assert_eq!(bench.report.corrupt_ranges, 1);
    assert_eq!(bench.report.torn_bytes, 0);
    assert_eq!(bench.report.lost_records, to.0 - from.0 + 1);
    assert_eq!(ids, (1..from.0).chain(to.0 + 1..=20).collect::<Vec<_>>());
    assert_eq!(bench.report.quarantined_bytes, range.bytes);
    let kept =
        format!("{DIRECTORY}/quarantine/{}-{:016x}-{:016x}.bin", range.segment, range.offset, range.bytes);
    let start = range.offset as usize;
    assert_eq!(bench.disk.content(Path::new(&kept)), content[start..start + range.bytes as usize]);
    // The next start tells it again and copies nothing twice.
    let again = Bench::open(&bench.finish().kill());
    assert_eq!((again.report.corrupt_ranges, again.report.quarantined_bytes), (1, 0));
}

/// Scenario: several records were written together, and a power cut tore the second of them.
/// Guarantees: the later ones go with it, because nobody was told of them and a consumer that sees
/// a later one would believe that it has the earlier one too. It is an interrupted write, not damage.
#[test]
fn a_torn_group_is_cut_at_its_first_torn_record() {
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.append(1, 100).unwrap();
    for id in 2..=5 {
        bench.submit(id, 100).unwrap();
    }
    bench.writer.step().unwrap();
    let path = bench.segment_paths()[0].clone();
    let disk = bench.disk.kill();
    let mut content = disk.content(&path);
    let record = crate::format::record_bytes(100) as usize;
    let third = SEGMENT_HEADER_BYTES as usize + 2 * record;
    content[third + 40..third + 60].fill(0);
    disk.set_content(&path, &content);
    let (bench, ids) = reopen(&disk);
    assert_eq!(ids, [1, 2]);
    assert!(bench.report.is_clean());
    assert_eq!((bench.report.torn_bytes, bench.report.torn_records), (3 * record as u64, 2));
    assert_eq!(bench.journal.statistics().torn_tails, 1);

    // Had something been written after that group, it would have been durable, and this be damage.
    let mut bench = Bench::open(&SimDisk::new(1));
    bench.append(1, 100).unwrap();
    for id in 2..=5 {
        bench.submit(id, 100).unwrap();
    }
    bench.writer.step().unwrap();
    bench.append(6, 100).unwrap();
    let disk = bench.disk.kill();
    let mut content = disk.content(&path);
    content[third + 40..third + 60].fill(0);
    disk.set_content(&path, &content);
    let (bench, ids) = reopen(&disk);
    assert_eq!(ids, [1, 2, 4, 5, 6]);
    assert_eq!(bench.report.damage[0].lost, Some((Lsn(3), Lsn(3))));
}

/// Scenario: a header is destroyed whole.
/// Guarantees: the journal opens and tells the loss, and no LSN that may have been in use returns.
#[test]
fn a_segment_without_its_header_is_lost_but_opens() {
    let (bench, path) = one_segment(6);
    let disk = bench.finish();
    let mut content = disk.content(&path);
    content[..4096].fill(0);
    disk.set_content(&path, &content);
    let mut bench = Bench::open(&disk.kill());
    assert!(!bench.report.is_clean());
    assert!(bench.records().is_empty());
    assert!(bench.append(100, 10).unwrap() > Lsn(6));
}

#[test]
fn a_missing_segment_is_a_hole_that_readers_step_over() {
    let mut bench = Bench::open(&SimDisk::new(1));
    for id in 1..=14 {
        bench.append(id, 16_000).unwrap();
    }
    let paths = bench.segment_paths();
    let disk = bench.disk.kill();
    crate::disk::Disk::remove(&disk, &paths[1]).unwrap();
    let (bench, ids) = reopen(&disk);
    assert_eq!(bench.report.lost_records, 14 - ids.len() as u64);
    assert!(ids.contains(&1) && ids.contains(&14) && ids.len() < 14);
}

/// Scenario: a device block cannot be read at all, or damage appears while the journal is open.
/// Guarantees: a reader steps over it and counts it.
#[test]
fn a_reader_counts_damage_that_appears_while_it_is_open() {
    let (bench, path) = one_segment(6);
    let content = bench.disk.content(&path);
    let second = SEGMENT_HEADER_BYTES as usize + crate::format::record_bytes(30) as usize + 30;
    bench.disk.set_content(&path, &flip(&content, second * 8));
    let ids: Vec<u64> = bench.records().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [1, 3, 4, 5, 6]);
    assert_eq!(bench.journal.statistics().corrupt_ranges, 1);
}

#[test]
fn a_newer_version_is_refused_and_nothing_is_changed() {
    let (bench, path) = one_segment(3);
    let disk = bench.finish().kill();
    let unfinished = Path::new(DIRECTORY).join("journal-00000000000000ff-0000000000000001.seg.tmp");
    disk.set_content(&unfinished, b"unfinished");
    let mut content = disk.content(&path);
    for half in [0, 2048] {
        content[half + 8..half + 10].copy_from_slice(&2_u16.to_le_bytes());
    }
    disk.set_content(&path, &content);
    let error = Bench::try_open(&disk, small()).err().unwrap();
    assert!(matches!(error, JournalError::NewerVersion { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(error.duty(), Duty::Stop);
    assert_eq!(disk.content(&path), content);
    assert_eq!(disk.content(&unfinished), b"unfinished");
    // One flipped bit is not a newer version.
    content[8..10].copy_from_slice(&1_u16.to_le_bytes());
    disk.set_content(&path, &content);
    assert_eq!(Bench::open(&disk.kill()).records().len(), 3);
}

/// Scenario: another file's record, or this file's from another place, lies where one is expected.
#[test]
fn records_of_other_files_and_places_are_not_believed() {
    let (bench, path) = one_segment(3);
    let disk = bench.disk.kill();
    let content = disk.content(&path);
    let first = SEGMENT_HEADER_BYTES as usize;
    let length = crate::format::record_bytes(30) as usize;
    let moved = first + 600;
    let mut changed = content.clone();
    changed.copy_within(first..first + length, moved);
    disk.set_content(&path, &changed);
    let (_, ids) = reopen(&disk);
    assert_eq!(ids, [1, 2, 3]);
    assert!(payload(1, 30).starts_with(&1_u64.to_le_bytes()));
}

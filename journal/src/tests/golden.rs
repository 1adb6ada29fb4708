//! Files written by every version so far still read, and this version still writes the same bytes.

use std::path::{Path, PathBuf};

use super::{Bench, DIRECTORY, payload, small};
use crate::format::cursor_file_name;
use crate::simulation::SimDisk;
use crate::{Journal, Lsn};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

const SEGMENT: &str = "journal-0000000000000001-0000000000000001.seg";

/// The records of the golden segment: empty, one byte, both sides of the alignment, and longer.
const LENGTHS: [usize; 6] = [0, 1, 4, 5, 12, 5000];

/// What version 1 writes for a given identity: the segment and a cursor.
fn written() -> (Vec<u8>, Vec<u8>) {
    let mut bench = Bench::open(&SimDisk::new(1));
    let cursor = bench.journal.cursor("store").unwrap();
    for (index, bytes) in LENGTHS.into_iter().enumerate() {
        // The last three go into one group, in parts.
        let whole = if bytes == 0 { Vec::new() } else { payload(index as u64, bytes)[..bytes].to_vec() };
        let (front, back) = whole.split_at(bytes / 2);
        bench.journal.submit(vec![front.to_vec(), back.to_vec()], |result| assert!(result.is_ok())).unwrap();
        if index < 3 {
            bench.writer.step().unwrap();
        }
    }
    bench.writer.step().unwrap();
    cursor.advance(Lsn(2)).unwrap();
    cursor.advance(Lsn(4)).unwrap();
    let disk = bench.finish();
    let directory = Path::new(DIRECTORY);
    (disk.content(&directory.join(SEGMENT)), disk.content(&directory.join(cursor_file_name("store"))))
}

/// `BEEACON_BLESS=1` writes the files of a format that is new; those that exist must never change.
#[test]
fn version_1_is_written_byte_for_byte() {
    let (segment, cursor) = written();
    for (name, bytes) in [("v1/segment.seg", segment), ("v1/cursor.slots", cursor)] {
        let path = golden(name);
        if std::env::var_os("BEEACON_BLESS").is_some() && !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name} is written differently now");
    }
}

#[test]
fn version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(golden("v1/segment.seg"), directory.path().join(SEGMENT)).unwrap();
    std::fs::copy(golden("v1/cursor.slots"), directory.path().join(cursor_file_name("store"))).unwrap();
    let (journal, report) = Journal::open(directory.path(), small()).unwrap();
    assert!(report.is_clean() && report.torn_bytes == 0);
    assert_eq!((report.records, report.last_lsn), (6, Lsn(6)));
    assert_eq!(journal.cursor("store").unwrap().get(), Lsn(4));
    let mut reader = journal.reader(Lsn(1));
    for (index, bytes) in LENGTHS.into_iter().enumerate() {
        let record = reader.read().unwrap().unwrap();
        assert_eq!(record.lsn, Lsn(index as u64 + 1));
        assert_eq!(record.payload, payload(index as u64, bytes)[..bytes]);
    }
    assert_eq!(reader.read().unwrap(), None);
}

/// The first record of the golden segment, field by field: an empty payload at offset 4096.
#[test]
fn the_bytes_of_a_record_are_where_the_documentation_says() {
    let segment = std::fs::read(golden("v1/segment.seg")).unwrap();
    assert_eq!(&segment[..8], b"BEEJRNL\n");
    assert_eq!(segment[8..10], 1_u16.to_le_bytes());
    assert_eq!(segment[12..16], 4096_u32.to_le_bytes());
    assert_eq!(segment[32..40], 1_u64.to_le_bytes(), "epoch");
    assert_eq!(segment[40..48], 1_u64.to_le_bytes(), "first lsn");
    assert_eq!(segment[..2044], segment[2048..4092], "the header is there twice");
    let record = &segment[4096..4128];
    assert_eq!(record[..4], [0xB3, b'r', b'e', b'c']);
    assert_eq!(record[4..8], [1, 0, 0, 0], "type, flags, group index");
    assert_eq!(record[8..12], 0_u32.to_le_bytes(), "length");
    assert_eq!(record[12..20], 1_u64.to_le_bytes(), "lsn");
    assert_eq!(record[24..28], [0; 4], "padding");
    let seal = &segment[segment.len() - 40..];
    assert_eq!(seal[4], 2);
    assert_eq!(seal[12..20], 7_u64.to_le_bytes(), "the lsn that would follow");
    assert_eq!(seal[24..32], 6_u64.to_le_bytes(), "records");
}

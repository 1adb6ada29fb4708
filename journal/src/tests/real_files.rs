//! What only real files, real threads and real locks can show.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{id_of, payload, small};
use crate::queue::lock;
use crate::{EntryState, Journal, JournalError, JournalOptions, Lsn, Payload, RecordKind, dump, verify};

/// Scenario: eight threads append at once, each waiting for its own record.
/// Guarantees: every record is stored once, each thread's in its order, and they share syncs.
#[test]
fn many_threads_share_syncs_and_each_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: 1 << 20, ..small() };
    let (journal, _) = Journal::open(directory.path(), options).unwrap();
    let given = Arc::new(Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (journal, given) = (journal.clone(), Arc::clone(&given));
            scope.spawn(move || {
                // A window of submissions in flight, as a server with many requests has.
                let (sender, receiver) = sync_channel(64);
                for index in 0..500 {
                    let id = thread << 32 | index;
                    let (sender, given) = (sender.clone(), Arc::clone(&given));
                    journal
                        .submit(payload(id, 200), move |result| {
                            lock(&given).insert(result.unwrap().0, id);
                            sender.send(()).unwrap();
                        })
                        .unwrap();
                    if index % 64 == 63 {
                        (0..64).for_each(|_| receiver.recv().unwrap());
                    }
                }
                (0..500 % 64).for_each(|_| receiver.recv().unwrap());
            });
        }
    });
    let statistics = journal.statistics();
    assert_eq!((statistics.records, statistics.queued_bytes), (4000, 0));
    assert!(statistics.fsyncs * 10 < statistics.records, "{statistics:?}");
    assert_eq!(
        statistics.fsyncs,
        statistics.groups + statistics.rotations - 1,
        "one sync a group, one a seal"
    );

    let given = lock(&given).clone();
    let mut reader = journal.reader(Lsn(1));
    let mut last = [None; 8];
    for lsn in 1..=4000 {
        let record = reader.read().unwrap().unwrap();
        let id = id_of(&record.payload);
        assert_eq!((record.lsn.0, given.get(&lsn)), (lsn, Some(&id)));
        let before = &mut last[(id >> 32) as usize];
        assert!(before.is_none_or(|before| before < id));
        *before = Some(id);
    }
}

/// Scenario: a consumer in another thread follows while records are appended, over many segments.
#[test]
fn a_reader_follows_the_writer_over_segments_and_is_woken_by_it() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), small()).unwrap();
    let (sender, woken) = sync_channel(1000);
    journal.on_synced(move |lsn| sender.send(lsn).unwrap()).unwrap();
    let follower = std::thread::spawn({
        let journal = journal.clone();
        move || {
            let cursor = journal.cursor("store").unwrap();
            let mut reader = journal.reader(cursor.get().next());
            let mut next = 1;
            while next <= 60 {
                while let Some(record) = reader.read().unwrap() {
                    assert_eq!((record.lsn.0, id_of(&record.payload)), (next, next));
                    next += 1;
                }
                cursor.advance(Lsn(next - 1)).unwrap();
                journal.truncate().unwrap();
                if next <= 60 {
                    assert!(journal.wait_beyond(Lsn(next - 1), Duration::from_secs(60)) >= Lsn(next));
                }
            }
        }
    });
    for id in 1..=60 {
        assert_eq!(journal.append(payload(id, 10_000)).unwrap(), Lsn(id));
    }
    follower.join().unwrap();
    // Listeners are told right after the callers, so the last word may still be on its way.
    assert!(woken.iter().any(|lsn| lsn == Lsn(60)));
    assert!(journal.statistics().rotations > 8);
    assert!(journal.statistics().segments_removed >= journal.statistics().rotations - 1);
    assert_eq!(journal.wait_beyond(Lsn(60), Duration::ZERO), Lsn(60), "nothing more: the timeout passes");
}

#[test]
fn long_parts_are_stored_as_they_are_given() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), JournalOptions::default()).unwrap();
    let mut expected = Vec::new();
    for id in 0..40_u64 {
        let parts: Vec<Vec<u8>> =
            [3, 4095, 0, 4096, 100_000].iter().map(|bytes| payload(id, *bytes)).collect();
        expected.push(parts.concat());
        journal.submit(parts, |result| assert!(result.is_ok())).unwrap();
    }
    // More vectors than one write takes, in one group behind the first.
    let shared: Arc<[u8]> = payload(99, 5000).into();
    let many: Payload = (0..200).map(|_| Arc::clone(&shared)).collect();
    journal.submit(many, |result| assert!(result.is_ok())).unwrap();
    expected.push(shared.repeat(200));
    let largest = payload(100, 8 << 20);
    journal.append(largest.clone()).unwrap();
    expected.push(largest);
    let error = journal.append(vec![0; (8 << 20) + 1]).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }));
    journal.close().unwrap();

    let (journal, report) = Journal::open(directory.path(), JournalOptions::default()).unwrap();
    assert!(report.is_clean());
    let mut reader = journal.reader(Lsn(1));
    for payload in expected {
        assert!(reader.read().unwrap().unwrap().payload == payload);
    }
}

#[test]
fn a_journal_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), small()).unwrap();
    journal.append(payload(1, 10)).unwrap();
    let again = Journal::open(directory.path(), small()).unwrap_err();
    assert!(matches!(again, JournalError::Locked { .. }), "{again}");
    assert!(matches!(verify(directory.path()).unwrap_err(), JournalError::Locked { .. }));
    // A handle that outlives the close does not keep the directory.
    let (left, cursor) = (journal.clone(), journal.cursor("store").unwrap());
    journal.close().unwrap();
    assert!(matches!(left.append(payload(2, 10)), Err(JournalError::Closed)));
    assert!(matches!(cursor.advance(Lsn(1)), Err(JournalError::Closed)));
    let (_journal, report) = Journal::open(directory.path(), small()).unwrap();
    assert_eq!(report.records, 1);
}

/// Scenario: a callback panics.
/// Guarantees: nobody hangs, and the journal takes nothing more.
#[test]
fn a_panic_on_the_writer_thread_is_told_to_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), small()).unwrap();
    journal.submit(payload(1, 10), |_| panic!("in a callback, on purpose")).unwrap();
    assert!(matches!(journal.append(payload(2, 10)), Err(JournalError::WriterPanicked)));
    assert!(matches!(journal.close(), Err(JournalError::WriterPanicked)));
}

/// Everything in a directory: names, bytes and times.
fn state_of(directory: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, (std::fs::read(entry.path()).unwrap_or_default(), modified))
        })
        .collect()
}

/// Scenario: a journal with damage, a torn tail and an unfinished file is looked into.
/// Guarantees: everything is listed with its state, and nothing in the directory changes.
#[test]
fn verify_and_dump_tell_everything_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(directory.path(), small()).unwrap();
    journal.cursor("store").unwrap();
    for id in 1..=8 {
        journal.append(payload(id, 10_000)).unwrap();
    }
    journal.close().unwrap();
    let sealed = verify(directory.path()).unwrap();
    assert!(sealed.is_clean() && sealed.is_sealed);
    assert_eq!((sealed.segments, sealed.records, sealed.last_lsn), (2, 8, Some(Lsn(8))));
    assert_eq!(sealed.cursors, [("store".to_owned(), Some(Lsn(0)))]);

    let first = directory.path().join("journal-0000000000000001-0000000000000001.seg");
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[4096 + 500] ^= 1;
    let second_record = 4096 + crate::format::record_bytes(10_000) as usize;
    bytes[second_record] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let last = directory.path().join("journal-0000000000000002-0000000000000007.seg");
    let whole = std::fs::read(&last).unwrap();
    std::fs::write(&last, &whole[..whole.len() - 100]).unwrap();
    std::fs::write(directory.path().join("journal-0000000000000003-0000000000000009.seg.tmp"), b"x").unwrap();

    let before = state_of(directory.path());
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.records, report.lost_records, report.unfinished), (5, 2, 1));
    assert!(report.torn_bytes > 0 && !report.is_clean() && !report.is_sealed);
    let entries: Vec<_> = dump(directory.path()).unwrap().map(Result::unwrap).collect();
    let states: Vec<_> = entries.iter().map(|entry| (entry.lsn.map(|lsn| lsn.0), entry.state)).collect();
    use EntryState::{DamagedPayload, Unreadable, Valid};
    assert_eq!(
        states,
        [
            (Some(1), DamagedPayload),
            (None, Unreadable),
            (Some(3), Valid),
            (Some(4), Valid),
            (Some(5), Valid),
            (Some(6), Valid),
            (Some(7), Valid),
            (Some(7), Valid),
            (None, Unreadable),
        ]
    );
    assert_eq!(entries[6].kind, Some(RecordKind::Seal));
    assert_eq!(entries[2].payload, payload(3, 10_000));
    assert!(!format!("{:?}", entries[2]).contains("payload"), "a dump's entry does not print its bytes");
    assert_eq!(state_of(directory.path()), before);

    // Opening acts on what verify told.
    let (journal, report) = Journal::open(directory.path(), small()).unwrap();
    assert_eq!((report.records, report.lost_records, report.unfinished_removed), (5, 2, 1));
    assert_eq!(journal.append(payload(9, 10)).unwrap(), Lsn(8));
}

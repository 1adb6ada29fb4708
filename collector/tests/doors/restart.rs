//! Start is recovery: whatever a kill leaves on the disk, every row is there once and the positions stand.

use beeacon_journal::{Journal, JournalOptions, Lsn};
use beeacon_record::Epoch;

use crate::harness::{Agent, House, Settings, interval, tens};

/// The harness' journal, so that a story may look into one.
fn journal_options() -> JournalOptions {
    JournalOptions { segment_bytes: 1 << 20, record_bytes_max: 512 << 10, ..JournalOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_rows_positions_and_fences_are_as_they_were() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let mut first = interval("s", 0, 50);
    first.open = vec![beeacon_record::Position::new(1, 45)];
    first.cursor = vec![5];
    house.take(agent.frame(&[0, 10], first)).await;
    house.take(agent.frame(&[45, 60], interval("s", 30, 70))).await;

    let again = house.killed().await;
    assert_eq!(again.rows().await, house.rows().await);
    assert_eq!(again.collector.status().replay.records, 3);
    assert_eq!(
        again.take(agent.frame(&[45, 60], interval("s", 30, 70))).await.rows,
        0,
        "the session still holds"
    );
    let session = again.session(&agent).await;
    assert_eq!(session.epoch, Epoch(2));
    assert_eq!(session.sources, house.session(&agent).await.sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_only_the_rest_is_replayed_and_nothing_is_there_twice() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    house.store.flush().await.unwrap();
    house.take(agent.tens(100, 200)).await;

    let again = house.killed().await;
    assert_eq!(again.messages().await, tens(0, 200));
    assert_eq!(again.collector.status().replay.records, 1);
    assert_eq!(
        again.take(agent.tens(50, 250)).await.rows,
        5,
        "positions come from files and journal together"
    );
    again.store.flush().await.unwrap();
    let last = again.killed().await;
    assert_eq!(last.messages().await, tens(0, 250));
    assert_eq!(last.collector.status().replay.records, 0);
    assert_eq!(last.take(agent.tens(200, 250)).await.rows, 0, "positions come from files alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_closed_replays_nothing_and_refuses_from_then_on() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    house.collector.close().await.unwrap();
    let (status, _) = house.send(agent.tens(100, 200)).await.unwrap_err();
    assert_eq!(status.as_u16(), 503);
    house.collector.close().await.unwrap();
    house.store.close().await.unwrap();

    let again = house.killed().await;
    assert_eq!(again.collector.status().replay.records, 0);
    assert_eq!(again.messages().await, tens(0, 100));
    again.take(agent.tens(100, 200)).await;
}

/// A frame may be durable though its answer was an error: the agent sends it again, and the journal has it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_in_the_journal_twice_is_stored_once() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    house.take(agent.tens(100, 200)).await;
    let path = house.copy();
    let (journal, _) = Journal::open(path.join("journal"), journal_options()).unwrap();
    for lsn in [2, 3] {
        let record = journal.reader(Lsn(lsn)).read().unwrap().unwrap();
        journal.append(record.payload).unwrap();
    }
    journal.close().unwrap();

    let again = house.open_copy(path).await;
    assert_eq!(again.messages().await, tens(0, 200));
    let replay = again.collector.status().replay;
    assert_eq!((replay.records, replay.rows, replay.duplicate_rows), (5, 20, 20));
    assert_eq!(again.take(agent.tens(200, 300)).await.rows, 10);
    assert_eq!(again.store.flush().await.unwrap(), 6, "no number is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_counted_and_holds_nothing_up() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    let path = house.copy();
    let (journal, _) = Journal::open(path.join("journal"), journal_options()).unwrap();
    journal.append(b"not an entry".to_vec()).unwrap();
    let mut whole = journal.reader(Lsn(2)).read().unwrap().unwrap().payload;
    whole.truncate(whole.len() - 1);
    journal.append(whole).unwrap();
    journal.close().unwrap();

    let again = house.open_copy(path).await;
    assert_eq!(again.collector.status().replay.undecodable_records, 2);
    assert_eq!(again.messages().await, tens(0, 100));
    again.take(agent.tens(100, 200)).await;
    assert_eq!(again.store.flush().await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_costs_its_own_rows_and_shows_as_a_gap_row() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    for from in [0, 100, 200] {
        house.take(agent.tens(from, from + 100)).await;
    }
    let path = house.copy();
    damage_second_frame(&path.join("journal"));

    let again = house.open_copy(path).await;
    let status = again.collector.status();
    assert_eq!((status.replay.lost_records, status.replay.damage_gaps), (1, 1));
    assert!(status.journal.corrupt_ranges > 0 && status.journal.quarantined_bytes > 0);
    assert_eq!(again.messages().await, [tens(0, 100), tens(200, 300)].concat());
    assert_eq!(again.gaps().await, [(100, 200, "damaged".to_owned())]);
    assert_eq!(again.take(agent.tens(250, 400)).await.rows, 10);
    assert_eq!(again.store.flush().await.unwrap(), 5, "the lost number holds nothing up");
}

fn damage_second_frame(journal: &std::path::Path) {
    let segment = std::fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| frames(&bytes).len() == 3))
        .expect("a segment with three frames");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = frames(&bytes)[1];
    bytes[at + 100] ^= 1;
    std::fs::write(segment, bytes).unwrap();
}

fn frames(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"BEEACONF")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_journal_costs_what_was_in_no_file_and_the_agent_reads_that_again() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    house.store.flush().await.unwrap();
    house.take(agent.tens(100, 200)).await;
    let path = house.copy();
    std::fs::remove_dir_all(path.join("journal")).unwrap();

    let again = house.open_copy(path).await;
    let session = again.begin(&mut agent).await;
    assert_eq!(session.sources[0].committed.minor, 100);
    again.take(agent.tens(100, 200)).await;
    assert_eq!(
        again.messages().await,
        tens(0, 200),
        "records have new numbers, or the store would not take them"
    );
    assert_eq!(again.killed().await.messages().await, tens(0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ended_is_still_known_after_a_restart() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let mut last = interval("s", 0, 50);
    last.is_final = true;
    house.take(agent.frame(&[0, 10], last.clone())).await;
    house.store.flush().await.unwrap();
    let again = house.killed_with(Settings::default()).await;
    assert_eq!(again.take(agent.frame(&[0, 10], last)).await.rows, 0, "its grace is not over");
    assert_eq!(again.collector.status().sources_count, 1);
}

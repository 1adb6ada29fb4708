//! What is taken, what is left out, and who may speak.

use beeacon_record::wire::RefusalCode;
use beeacon_record::{Epoch, Gap, GapReason, Position};

use crate::harness::{Agent, House, interval, refused, tens};

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_stored_answered_with_its_positions_and_remembered_for_the_next_session() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    let session = house.begin(&mut agent).await;
    assert_eq!((session.epoch, session.sources.len()), (Epoch(1), 0));
    let mut first = interval("s", 0, 30);
    first.cursor = vec![0xbe, 0xea];
    first.open = vec![Position::new(1, 25)];
    let answer = house.take(agent.frame(&[0, 10, 20], first)).await;
    assert_eq!((answer.rows, answer.duplicate_rows), (3, 0));
    assert_eq!(answer.committed[0].position, Position::new(1, 30));
    assert_eq!(house.messages().await, tens(0, 30), "queries see the rows once they are answered");

    let session = house.session(&agent).await;
    assert_eq!(session.epoch, Epoch(2));
    let state = &session.sources[0];
    assert_eq!((state.committed, &state.cursor), (Position::new(1, 30), &vec![0xbe, 0xea]));
    assert_eq!(state.open, [Position::new(1, 25)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_alike_and_an_overlap_is_trimmed() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    let again = house.take(agent.tens(0, 100)).await;
    assert_eq!((again.rows, again.duplicate_rows), (0, 10));
    assert_eq!(again.committed[0].position, Position::new(1, 100));
    let overlap = house.take(agent.tens(50, 150)).await;
    assert_eq!((overlap.rows, overlap.duplicate_rows), (5, 5));
    let behind = house.take(agent.tens(20, 60)).await;
    assert_eq!((behind.rows, behind.committed[0].position), (0, Position::new(1, 150)));
    assert_eq!(house.messages().await.len(), 15);
    let totals = house.collector.status().totals;
    assert_eq!((totals.frames, totals.duplicate_frames, totals.trimmed_frames), (2, 2, 1));
    assert_eq!(house.collector.status().journal.synced_lsn, 3, "duplicates cost no journal record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_refused_until_it_is_declared_and_then_shows_as_a_gap_row() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    let (status, refusal) = house.send(agent.tens(200, 300)).await.unwrap_err();
    assert_eq!((status.as_u16(), refusal.error.code), (409, RefusalCode::Position));
    assert_eq!(refusal.expected[0].position, Position::new(1, 100));
    assert_eq!(house.messages().await.len(), 10, "nothing of it was taken");

    let mut declared = interval("s", 200, 300);
    declared.gap = Some(Gap {
        from: Position::new(1, 100),
        reason: GapReason::Rotated,
        bytes: 100,
        timestamp_before_ns: 1,
        timestamp_after_ns: 2,
    });
    let frame = agent.frame(&[200, 250], declared);
    assert_eq!(house.take(frame.clone()).await.rows, 2);
    assert_eq!(house.take(frame).await.duplicate_rows, 2, "sent again it declares nothing anew");
    assert_eq!(house.gaps().await, [(100, 200, "rotated".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_one_source_keeps_the_whole_frame_out() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 100)).await;
    let frame = agent.frame_of(&[(&[5], interval("new", 0, 9)), (&[210], interval("s", 200, 300))]);
    assert_eq!(refused(house.send(frame).await), (409, RefusalCode::Position));
    assert_eq!(house.messages().await.len(), 10);
    assert_eq!(house.session(&agent).await.sources.len(), 1, "the new source was not remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_open_is_taken_once_when_it_ends() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let mut first = interval("s", 0, 100);
    first.open = vec![Position::new(1, 40)];
    house.take(agent.frame(&[0, 50], first)).await;
    let closing = agent.frame(&[40, 120], interval("s", 100, 150));
    assert_eq!(house.take(closing.clone()).await.rows, 2);
    assert_eq!(house.take(closing).await.rows, 0);
    // Read again from the open line on, cut elsewhere.
    assert_eq!(house.take(agent.frame(&[50, 40, 120, 160], interval("s", 40, 170))).await.rows, 1);
    assert_eq!(house.messages().await, ["s 0", "s 40", "s 50", "s 120", "s 160"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_session_is_fenced_and_an_unknown_one_sent_to_the_session_door() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    assert_eq!(refused(house.send(agent.tens(0, 10)).await), (409, RefusalCode::NoSession));
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 10)).await;
    let old = agent.tens(10, 20);
    house.begin(&mut agent).await;
    assert_eq!(refused(house.send(old).await), (409, RefusalCode::Fenced));
    agent.epoch = Epoch(99);
    assert_eq!(refused(house.send(agent.tens(10, 20)).await), (409, RefusalCode::NoSession));
    agent.epoch = Epoch(2);
    house.take(agent.tens(10, 20)).await;
    assert_eq!(house.messages().await, tens(0, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn agents_at_once_and_one_agent_over_itself_store_every_row_once() {
    let house = std::sync::Arc::new(House::new().await);
    let mut tasks = Vec::new();
    for number in 1..=4 {
        let mut agent = Agent::new(number);
        house.begin(&mut agent).await;
        // Two connections of the same session send the same and overlapping frames, in order.
        for shift in [0, 30] {
            let house = std::sync::Arc::clone(&house);
            let agent = Agent { id: agent.id, epoch: agent.epoch };
            tasks.push(tokio::spawn(async move {
                for step in 0..20 {
                    let from = (step * 50_u64).saturating_sub(shift);
                    // A hole may open while the other connection is ahead or behind: read again from there.
                    if let Err((_, refusal)) = house.send(agent.tens(from, (step + 1) * 50)).await {
                        assert_eq!(refusal.error.code, RefusalCode::Position);
                        let expected = refusal.expected[0].position.minor;
                        house.take(agent.tens(expected, (step + 1) * 50)).await;
                    }
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let rows = house.rows().await;
    assert_eq!(rows.len(), 4 * 100);
    assert!(rows.values().all(|count| *count == 1));
    let replayed = house.killed().await;
    assert_eq!(replayed.rows().await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_tell_what_happened_and_no_text_of_a_line() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.frame(&[7], interval("secret-source", 0, 10))).await;
    assert!(house.send(bytes::Bytes::from_static(b"secret")).await.is_err());
    let status = serde_json::to_string(&house.collector.status()).unwrap();
    assert!(status.contains("\"rows\":1") && status.contains("\"host\":\"h\""), "{status}");
    let mut registry = prometheus_client::registry::Registry::default();
    house.collector.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for expected in [
        "beeacon_collector_rows_total 1",
        "beeacon_collector_refusals_total{code=\"malformed\"} 1",
        "beeacon_collector_store_lag_records 2",
        "# HELP beeacon_collector_journal_bytes ",
        "beeacon_collector_commit_seconds_count 1",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("secret-source 7") && !status.contains("secret-source 7"));
    assert!(!text.contains("_total_total"));
}

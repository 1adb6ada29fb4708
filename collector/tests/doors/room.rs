//! No room: refused before anything breaks, reads go on, and it passes by itself.

use beeacon_journal::JournalOptions;
use beeacon_record::wire::{INGEST_PATH, RefusalCode};
use bytes::Bytes;
use http::Request;

use crate::harness::{Agent, House, Settings, answer, refused};

/// Four small segments.
pub(crate) fn small_journal() -> JournalOptions {
    JournalOptions {
        segment_bytes: 64 << 10,
        record_bytes_max: 32 << 10,
        queue_bytes_max: 1 << 20,
        journal_bytes_max: 4 * (64 << 10),
        ..JournalOptions::default()
    }
}

/// Sends heavy frames until all are taken, more than a small journal holds. It refuses now and then, for a moment; with the claim of
/// somebody who sleeps it would be for ever.
pub(crate) async fn fill(house: &House, agent: &Agent, frames: std::ops::Range<u64>) {
    let mut next = frames.start;
    while next < frames.end {
        match house.send(heavy(agent, next * 10)).await {
            Ok(_) => next += 1,
            Err((status, _)) => {
                assert_eq!(status.as_u16(), 503);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A frame of about 15 KiB that no compressor shrinks.
pub(crate) fn heavy(agent: &Agent, from: u64) -> Bytes {
    use beeacon_record::{BatchBuilder, Origin, Position};
    let interval = crate::harness::interval("s", from, from + 10);
    let mut builder = BatchBuilder::new(agent.id.to_string());
    let origin = Origin { host: "h".into(), service: "web".into(), ..Origin::default() };
    let origin = builder.origin(&origin, &interval.source);
    let mut number = from | 1;
    let text: String = (0..12 << 10)
        .map(|_| {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            char::from(33 + (number % 94) as u8)
        })
        .collect();
    builder.push(crate::harness::line(origin, Position::new(1, from)), text.as_bytes());
    agent.encode(builder.finish(vec![interval]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_serves_reads_and_takes_again_by_itself() {
    let house = House::with(Settings { journal: Some(small_journal()), ..Settings::default() }).await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let mut taken = 0;
    // Nobody makes room yet: `run` is not running.
    let response = loop {
        let request = Request::post(INGEST_PATH).body(heavy(&agent, taken * 10).into()).unwrap();
        let response = house.request(request).await;
        if response.status() != 200 {
            break response;
        }
        taken += 1;
        assert!(taken < 100, "the quota was never reached");
    };
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(refused(answer(response).await), (503, RefusalCode::Busy));
    let status = house.collector.status();
    assert!(!status.is_ready && status.journal.refusing.is_some());
    assert_eq!(house.rows().await.len() as u64, taken, "reads go on");

    let collector = house.collector.clone();
    tokio::spawn(async move { collector.run(std::future::pending()).await });
    let mut flushed = house.store.watch_flushed();
    flushed.wait_for(|lsn| *lsn > 0).await.unwrap();
    // The room is there once the journal is cut below what was flushed; an agent asks again until then.
    while house.send(heavy(&agent, taken * 10)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.rows().await.len() as u64, taken + 1);
    assert_eq!(house.killed().await.rows().await.len() as u64, taken + 1);
}

/// Without the share of the journal, or of the other agents, the numbers stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn answers_say_how_much_room_there_is_and_agents_share_it() {
    let house = House::with(Settings { journal: Some(small_journal()), ..Settings::default() }).await;
    let (mut first, mut second) = (Agent::new(1), Agent::new(2));
    let free = house.begin(&mut first).await.credit_bytes.unwrap();
    assert!(free > 0 && free < 4 * (64 << 10), "{free}");
    let before = house.take(heavy(&first, 0)).await.credit_bytes.unwrap();
    assert!(before > 0 && before <= free, "{before} of {free}");
    house.begin(&mut second).await;
    let shared = house.take(heavy(&second, 0)).await.credit_bytes.unwrap();
    assert!(shared > 0 && shared <= before / 2, "{shared} of {before}");
    // Nobody makes room: `run` is not running.
    let mut last = shared;
    for frame in 1.. {
        match house.send(heavy(&second, frame * 10)).await {
            Ok(answer) => {
                let credit = answer.credit_bytes.unwrap();
                assert!(credit <= last, "{credit} after {last}");
                last = credit;
            }
            Err(refusal) => {
                assert_eq!(refused(Err(refusal)), (503, RefusalCode::Busy));
                break;
            }
        }
    }
    // What is left is less than a frame: the last segment was being filled.
    assert!(last < 12 << 10, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_not_write_refuses_when_its_memory_is_full_and_takes_again_when_it_can() {
    let settings = Settings {
        store: Some(|options| {
            options.fresh_bytes_max = 1 << 20;
            options.flush_bytes = 64 << 10;
        }),
        ..Settings::default()
    };
    let house = House::with(settings).await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let parquet = house.path().join("parquet");
    let away = house.path().join("away");
    std::fs::rename(&parquet, &away).unwrap();
    std::fs::write(&parquet, "no directory").unwrap();
    let mut taken = 0;
    let refusal = loop {
        match house.send(heavy(&agent, taken * 10)).await {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken < 1000, "the store always had room");
    };
    assert_eq!(refused(Err(refusal)), (503, RefusalCode::Busy));
    // The last one may be durable and wait for room.
    assert!((taken - 1..=taken).contains(&(house.rows().await.len() as u64)), "reads go on");
    let lsn = house.collector.status().journal.synced_lsn;

    std::fs::remove_file(&parquet).unwrap();
    std::fs::rename(&away, &parquet).unwrap();
    house.store.watch_flushed().wait_for(|flushed| *flushed + 1 >= lsn).await.unwrap();
    while house.send(heavy(&agent, taken * 10)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.rows().await.len() as u64, taken + 1);
}

//! What strangers send: refused with a reason, and nothing changes.

use axum::body::Body;
use beeacon_record::limits::{FRAME_BYTES_MAX, FRAME_INFLATED_BYTES_MAX};
use beeacon_record::wire::{INGEST_PATH, RefusalCode, SESSION_PATH};
use bytes::Bytes;
use futures_util::stream;
use http::Request;

use crate::harness::{Agent, House, answer, interval, refused, tens};

/// Makes the header's checksum right again after a change.
fn resealed(mut bytes: Vec<u8>) -> Bytes {
    let header_bytes = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[..header_bytes - 4]);
    bytes[header_bytes - 4..header_bytes].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(bytes)
}

/// As the frame's module describes it.
fn with_field(frame: &Bytes, at: usize, value: &[u8]) -> Bytes {
    let mut bytes = frame.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    resealed(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_get_a_reason_and_leave_everything_as_it_was() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 50)).await;
    let good = agent.tens(50, 100);
    let announced = u32::try_from(FRAME_INFLATED_BYTES_MAX).unwrap() + 1;
    let bomb = with_field(&good, 20, &announced.to_le_bytes());
    let small_bomb = with_field(&good, 24, &(20_u32 << 20).to_le_bytes());
    let other = Agent { id: Agent::new(2).id, epoch: agent.epoch };
    let foreign_rows = with_field(&agent.tens(50, 100), 32, other.id.as_bytes());
    let mut twice = agent.frame(&[60, 60], interval("s", 50, 100));
    let table = [
        ("nothing", Bytes::new(), (400, RefusalCode::Malformed)),
        ("text", Bytes::from_static(b"GET / HTTP/1.1"), (400, RefusalCode::Malformed)),
        ("newer version", with_field(&good, 8, &3_u16.to_le_bytes()), (400, RefusalCode::Newer)),
        ("unknown flag", with_field(&good, 10, &1_u16.to_le_bytes()), (400, RefusalCode::Malformed)),
        ("inflates beyond the limit", bomb, (413, RefusalCode::TooLarge)),
        ("inflates to less than it says", small_bomb, (400, RefusalCode::Malformed)),
        ("wrong row count", with_field(&good, 28, &7_u32.to_le_bytes()), (400, RefusalCode::Malformed)),
        ("rows at one position", std::mem::take(&mut twice), (400, RefusalCode::Malformed)),
        ("somebody else's session", foreign_rows, (409, RefusalCode::NoSession)),
    ];
    for (name, frame, expected) in table {
        assert_eq!(refused(house.send(frame).await), expected, "{name}");
    }
    for end in (0..good.len()).step_by(7) {
        let (status, _) = refused(house.send(good.slice(..end)).await);
        assert_eq!(status, 400, "{end} bytes were enough");
    }
    for bit in (0..good.len() * 8).step_by(11) {
        let mut damaged = good.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (status, _) = refused(house.send(Bytes::from(damaged)).await);
        assert!((400..500).contains(&status), "bit {bit} got {status}");
    }
    assert_eq!(house.messages().await, tens(0, 50));
    assert_eq!(house.collector.status().journal.synced_lsn, 2);
    house.take(good).await;
    assert_eq!(house.messages().await, tens(0, 100), "the good one is still wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_agent_are_refused_even_in_a_whole_frame() {
    let house = House::new().await;
    let (mut agent, mut other) = (Agent::new(1), Agent::new(2));
    house.begin(&mut agent).await;
    house.begin(&mut other).await;
    let foreign = with_field(&agent.tens(0, 50), 32, other.id.as_bytes());
    assert_eq!(refused(house.send(foreign).await), (400, RefusalCode::Malformed));
    assert!(house.messages().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_refused_by_its_announced_length_before_it_is_read() {
    let house = House::new().await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let request =
        Request::post(INGEST_PATH).header("content-length", FRAME_BYTES_MAX + 1).body(never).unwrap();
    assert_eq!(refused(answer(house.request(request).await).await), (413, RefusalCode::TooLarge));
    for bad in ["many", "-1", "1e3", "99999999999999999999999"] {
        let request = Request::post(INGEST_PATH).header("content-length", bad).body(Body::empty()).unwrap();
        assert_eq!(refused(answer(house.request(request).await).await).0, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let house = House::new().await;
    let parts = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 20])));
    let request = Request::post(INGEST_PATH).body(Body::from_stream(parts)).unwrap();
    assert_eq!(refused(answer(house.request(request).await).await), (413, RefusalCode::TooLarge));
    let status = house.collector.status();
    assert_eq!(status.journal.synced_lsn, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_are_refused_and_so_is_every_method_but_post() {
    let house = House::new().await;
    let request = Request::post(INGEST_PATH).header("content-encoding", "gzip").body(Body::empty()).unwrap();
    assert_eq!(refused(answer(house.request(request).await).await), (400, RefusalCode::Malformed));
    let request = Request::get(INGEST_PATH).body(Body::empty()).unwrap();
    assert_eq!(refused(answer(house.request(request).await).await), (405, RefusalCode::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_in_the_middle_of_a_body_leaves_nothing() {
    let house = House::new().await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    let frame = agent.tens(0, 50);
    let part = frame.slice(..frame.len() - 1);
    let broken = stream::iter([Ok(part.clone()), Err(std::io::Error::other("gone"))]);
    let request = Request::post(INGEST_PATH).body(Body::from_stream(broken)).unwrap();
    assert_eq!(refused(answer(house.request(request).await).await), (400, RefusalCode::Malformed));
    let short =
        Request::post(INGEST_PATH).header("content-length", frame.len()).body(Body::from(part)).unwrap();
    assert_eq!(refused(answer(house.request(short).await).await), (400, RefusalCode::Malformed));
    assert!(house.messages().await.is_empty());
    house.take(frame).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_gives_its_memory_back() {
    let house = House::new().await;
    let request = || {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        Request::post(INGEST_PATH).header("content-length", FRAME_BYTES_MAX).body(never).unwrap()
    };
    tokio::time::pause();
    // Four hold all memory there is for bodies; the fifth is told to come again. Time runs by itself while all wait.
    let slow: Vec<_> = (0..4).map(|_| house.request(request())).collect();
    let (slow, fifth) = tokio::join!(futures_util::future::join_all(slow), house.request(request()));
    assert_eq!(fifth.headers()["retry-after"], "1");
    assert_eq!(refused(answer(fifth).await), (429, RefusalCode::Busy));
    for response in slow {
        assert_eq!(refused(answer(response).await), (503, RefusalCode::Busy));
    }
    tokio::time::resume();
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    house.take(agent.tens(0, 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_requests_that_are_none_are_refused_without_quoting_them() {
    let house = House::new().await;
    let long = format!(r#"{{"agent":"{}","host":"{}","version":"0"}}"#, Agent::new(1).id, "h".repeat(300));
    let huge = "x".repeat(5000);
    for (body, expected) in [
        ("", (400, RefusalCode::Malformed)),
        (r#"{"agent":"secret","host":"h","version":"0"}"#, (400, RefusalCode::Malformed)),
        (long.as_str(), (400, RefusalCode::Malformed)),
        (huge.as_str(), (413, RefusalCode::TooLarge)),
    ] {
        let request = Request::post(SESSION_PATH).body(Body::from(body.to_owned())).unwrap();
        let result = answer(house.request(request).await).await;
        assert!(!format!("{result:?}").contains("secret"));
        assert_eq!(refused(result), expected);
    }
    assert_eq!(house.collector.status().agents_count, 0);
}

//! What Loki gets, and what it can't do to anybody else. Loki here is a server that answers as the test says.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use beeacon_collector::{LokiAuthentication, LokiOptions};
use bytes::Bytes;
use loki_api::logproto as published;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::harness::{Agent, House, Settings, interval, tens};
use crate::room::{fill, heavy, small_journal};

#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A push on the server's side, waiting for the test to answer it.
struct Push {
    headers: HeaderMap,
    request: PushRequest,
    bytes: Vec<u8>,
    answer: oneshot::Sender<Response>,
}

impl Push {
    fn lines(&self) -> Vec<String> {
        self.request
            .streams
            .iter()
            .flat_map(|stream| &stream.entries)
            .map(|entry| entry.line.clone())
            .collect()
    }

    fn answer(self, status: u16, text: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        // The collector may have given the push up.
        drop(self.answer.send((status, text.to_owned()).into_response()));
    }

    fn accept(self) -> Vec<String> {
        let lines = self.lines();
        self.answer(204, "");
        lines
    }
}

struct FakeLoki {
    options: LokiOptions,
    pushes: mpsc::Receiver<Push>,
}

impl FakeLoki {
    async fn new() -> FakeLoki {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        FakeLoki::on(listener)
    }

    fn on(listener: TcpListener) -> FakeLoki {
        let options = LokiOptions {
            pause_min: Duration::from_millis(5),
            pause_max: Duration::from_millis(20),
            ..LokiOptions::new(format!("http://{}", listener.local_addr().unwrap()))
        };
        let (sender, pushes) = mpsc::channel(1);
        let router = Router::new().route("/loki/api/v1/push", post(take)).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await });
        FakeLoki { options, pushes }
    }

    async fn next(&mut self) -> Push {
        // Not waited for in earnest: a story that never gets its push should fail, not hang.
        let push = tokio::time::timeout(Duration::from_secs(60), self.pushes.recv()).await;
        push.expect("no push came").expect("the server is there")
    }
}

async fn take(State(pushes): State<mpsc::Sender<Push>>, headers: HeaderMap, body: Bytes) -> Response {
    let bytes = snap::raw::Decoder::new().decompress_vec(&body).expect("one snappy block");
    let request = PushRequest::decode(bytes.as_slice()).expect("a push request");
    let (answer, answered) = oneshot::channel();
    if pushes.send(Push { headers, request, bytes, answer }).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    answered.await.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

/// A collector that forwards to this Loki.
async fn house(loki: &FakeLoki) -> (House, Agent) {
    house_with(Settings { loki: Some(loki.options.clone()), ..Settings::default() }).await
}

async fn house_with(settings: Settings) -> (House, Agent) {
    let house = House::with(settings).await;
    run(&house);
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    (house, agent)
}

fn run(house: &House) {
    let collector = house.collector.clone();
    tokio::spawn(async move { collector.run(std::future::pending()).await });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_carries_labels_metadata_source_times_and_the_order_of_the_rows() {
    let mut loki = FakeLoki::new().await;
    loki.options.tenant = Some("tenant-a".into());
    loki.options.labels = vec![("cluster".into(), "east".into())];
    loki.options.authentication = LokiAuthentication::Bearer { token: "t0ken".into() };
    let (house, agent) = house(&loki).await;
    let mut builder = beeacon_record::BatchBuilder::new(agent.id.to_string());
    let interval = interval("docker-file:4f2a", 0, 100);
    let origin = beeacon_record::Origin {
        host: "host-1".into(),
        service: "web".into(),
        container: "shop-web-1".into(),
        container_id: "4f2a".into(),
        image: "shop/web:1".into(),
        labels: vec![("team".into(), "shop".into()), ("image".into(), "not this".into())],
    };
    let origin = builder.origin(&origin, &interval.source);
    // A line that ended after a later one: the order is that of the rows, not that of time.
    for minor in [20, 10] {
        let position = beeacon_record::Position::new(1, minor);
        builder.push(crate::harness::line(origin, position), format!("line {minor}").as_bytes());
    }
    builder.attribute("trace.id", "0af7");
    house.take(agent.encode(builder.finish(vec![interval]).unwrap())).await;

    let push = loki.next().await;
    assert_eq!(push.headers["content-type"], "application/x-protobuf");
    assert_eq!(push.headers["x-scope-orgid"], "tenant-a");
    assert_eq!(push.headers["authorization"], "Bearer t0ken");
    let [stream] = push.request.streams.as_slice() else { panic!("one stream") };
    assert_eq!(
        stream.labels,
        r#"{cluster="east", container="shop-web-1", host="host-1", service_name="web"}"#
    );
    assert_eq!(push.lines(), ["line 20", "line 10"]);
    let times: Vec<_> = stream.entries.iter().map(|entry| entry.timestamp.clone().unwrap()).collect();
    assert_eq!(times[0], Timestamp { seconds: 1_700_000_000, nanos: 20 });
    assert_eq!(times[1], Timestamp { seconds: 1_700_000_000, nanos: 10 });
    let metadata = |entry: &Entry| -> Vec<(String, String)> {
        entry.structured_metadata.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
    };
    let shared = [
        ("container_id", "4f2a"),
        ("image", "shop/web:1"),
        ("level", "error"),
        ("stream", "stderr"),
        ("team", "shop"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(metadata(&stream.entries[0]), shared);
    assert_eq!(metadata(&stream.entries[1])[5], ("trace_id".to_owned(), "0af7".to_owned()));
    let other = published::PushRequest::decode(push.bytes.as_slice()).unwrap();
    assert_eq!(
        (&other.streams[0].labels, &other.streams[0].entries[1].line),
        (&stream.labels, &"line 10".into())
    );
    push.accept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_hangs_delays_no_answer_to_an_agent() {
    let mut loki = FakeLoki::new().await;
    let (house, agent) = house(&loki).await;
    house.take(agent.tens(0, 100)).await;
    let hanging = loki.next().await;
    // Answered while the push hangs: were they tied together, this would never return.
    house.take(agent.tens(100, 200)).await;
    house.take(agent.tens(200, 300)).await;
    assert_eq!(house.messages().await, tens(0, 300));
    let mut lines = hanging.accept();
    while lines.len() < 30 {
        lines.extend(loki.next().await.accept());
    }
    assert_eq!(lines, tens(0, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_is_overloaded_broken_or_misconfigured_gets_the_same_again_until_it_takes_it() {
    let mut loki = FakeLoki::new().await;
    let (house, agent) = house(&loki).await;
    house.take(agent.tens(0, 100)).await;
    for (status, text) in [
        (429, "Ingestion rate limit exceeded"),
        (500, "rpc error"),
        (503, ""),
        (401, "no org id"),
        (404, "page not found"),
    ] {
        let push = loki.next().await;
        assert_eq!(push.lines(), tens(0, 100));
        push.answer(status, text);
    }
    let push = loki.next().await;
    let status = house.collector.status().loki.unwrap();
    assert_eq!(serde_json::to_value(&status).unwrap()["state"], "failing");
    assert_eq!(serde_json::to_value(&status).unwrap()["last_failure"], "not_found");
    assert_eq!(push.accept(), tens(0, 100));
    house.take(agent.tens(100, 200)).await;
    assert_eq!(loki.next().await.accept(), tens(100, 200), "nothing was sent twice");
    let status = house.collector.status().loki.unwrap();
    assert!(status.entries >= 10);
    assert_eq!((status.refused_entries.len(), status.skipped_entries), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_is_not_there_is_found_when_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut options = LokiOptions::new(format!("http://{address}"));
    (options.pause_min, options.pause_max) = (Duration::from_millis(5), Duration::from_millis(20));
    let (house, agent) = house_with(Settings { loki: Some(options), ..Settings::default() }).await;
    house.take(agent.tens(0, 100)).await;
    while house.collector.status().loki.unwrap().last_failure.is_none() {
        tokio::task::yield_now().await;
    }
    let mut loki = FakeLoki::on(TcpListener::bind(address).await.unwrap());
    assert_eq!(loki.next().await.accept(), tens(0, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_entries_are_separated_counted_and_passed_over() {
    let mut loki = FakeLoki::new().await;
    let (house, agent) = house(&loki).await;
    house.take(agent.tens(0, 200)).await;
    let far = "entry with timestamp x ignored, reason: 'entry too far behind'";
    let (mut taken, mut requests) = (Vec::new(), 0);
    while taken.len() < 18 {
        let push = loki.next().await;
        requests += 1;
        let lines = push.lines();
        if lines.contains(&"s 30".to_owned()) {
            push.answer(400, far);
        } else if lines.contains(&"s 150".to_owned()) {
            push.answer(422, "");
        } else {
            taken.extend(push.accept());
        }
    }
    let expected: Vec<String> =
        tens(0, 200).into_iter().filter(|line| line != "s 30" && line != "s 150").collect();
    assert_eq!(taken, expected, "in their order");
    assert!(requests <= 25, "{requests} requests");
    house.take(agent.tens(200, 300)).await;
    assert_eq!(loki.next().await.accept(), tens(200, 300), "it goes on");
    let status = house.collector.status().loki.unwrap();
    assert_eq!(status.refused_entries, BTreeMap::from([("other", 1), ("too_far_behind", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_refuses_everything_costs_a_bounded_number_of_requests() {
    let mut loki = FakeLoki::new().await;
    let (house, agent) = house(&loki).await;
    house.take(agent.tens(0, 10_000)).await;
    house.take(agent.frame(&[], interval("t", 0, 1))).await;
    let mut requests = 0;
    let total = loop {
        tokio::select! {
            push = loki.next() => {
                requests += 1;
                push.answer(400, "has timestamp too old");
            }
            () = tokio::task::yield_now() => {}
        }
        let refused = house.collector.status().loki.unwrap().refused_entries;
        let total: u64 = refused.values().sum();
        if total == 1000 {
            break total;
        }
    };
    assert_eq!(total, 1000);
    assert!((2..=80).contains(&requests), "{requests} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_stored_is_pushed_and_after_a_restart_only_what_was_not_answered() {
    let mut loki = FakeLoki::new().await;
    let (house, agent) = house(&loki).await;
    house.take(agent.tens(0, 100)).await;
    assert_eq!(loki.next().await.accept(), tens(0, 100));
    house.take(agent.tens(50, 150)).await;
    let unanswered = loki.next().await;
    assert_eq!(unanswered.lines(), tens(100, 150), "the overlap was trimmed here too");
    // The first push is behind the leg's durable place by now: it was moved before the second began.
    let again = house.killed().await;
    unanswered.accept();
    drop(house);
    run(&again);
    assert_eq!(loki.next().await.accept(), tens(100, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_hangs_loses_its_claim_when_the_journal_needs_room_and_every_entry_is_accounted_for() {
    let mut loki = FakeLoki::new().await;
    let settings =
        Settings { journal: Some(small_journal()), loki: Some(loki.options.clone()), ..Settings::default() };
    let (house, agent) = house_with(settings).await;
    house.take(heavy(&agent, 0)).await;
    let hanging = loki.next().await;
    let taken = 60;
    fill(&house, &agent, 1..taken).await;
    drop(hanging);
    loop {
        let status = house.collector.status().loki.unwrap();
        if status.lag_records == 0 && status.entries + status.skipped_entries >= taken {
            assert!(status.skipped_entries > 0 && status.skipped_records >= status.skipped_entries);
            assert_eq!(status.entries + status.skipped_entries, taken);
            break;
        }
        tokio::select! {
            push = loki.next() => drop(push.accept()),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(house.rows().await.len() as u64, taken, "the store has them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_is_not_configured_any_more_does_not_hold_the_journal() {
    let loki = FakeLoki::new().await;
    let settings =
        Settings { journal: Some(small_journal()), loki: Some(loki.options.clone()), ..Settings::default() };
    let house = House::with(settings.clone()).await;
    let mut agent = Agent::new(1);
    house.begin(&mut agent).await;
    for step in 0..10 {
        house.take(heavy(&agent, step * 10)).await;
    }
    let again = house.killed_with(Settings { loki: None, ..settings }).await;
    run(&again);
    assert!(again.collector.status().loki.is_none());
    let before = again.collector.status().journal.allocated_bytes;
    again.store.flush().await.unwrap();
    while again.collector.status().journal.allocated_bytes >= before {
        tokio::task::yield_now().await;
    }
}

//! The HTTP door: statuses, envelopes, streaming, ends.

use beeacon_query::QueryOptions;
use serde_json::json;

use crate::client::{answer, ask, read_some, send, send_raw, serve};
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_before_the_first_row_are_a_status_and_an_envelope() {
    let world = World::with(QueryOptions { rows_max: 10, ..QueryOptions::default() }).await;
    let address = serve(&world.query).await;
    // (query, status, code, place)
    let long = format!("select '{}'", "x".repeat(65 << 10));
    let table = [
        ("select nope\nfrom logs", 400, "plan", Some((1, 8))),
        ("selec", 400, "syntax", Some((1, 1))),
        ("drop table logs", 400, "read_only", None),
        ("select 1/0", 400, "execution", None),
        ("select value from generate_series(1, 11)", 422, "limit_rows", None),
        (long.as_str(), 413, "query_too_long", None),
    ];
    for (query, status, code, place) in table {
        let answer = ask(address, "text/csv, */*", query).await;
        let error = &answer.json()["error"];
        let shown: String = query.chars().take(60).collect();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{shown}: {error}");
        let found = error["line"].as_u64().zip(error["column"].as_u64());
        assert_eq!(found, place, "{shown}");
        assert!(answer.complete && !error["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_are_refused() {
    let world = World::new().await;
    let address = serve(&world.query).await;
    let body = br#"{"query": "select 1"}"#;
    let large = vec![b' '; 200 << 10];
    // (accept, content type, body, status, code)
    let table: [(&str, &str, &[u8], u16, &str); 8] = [
        ("text/html", "application/json", body, 406, "not_acceptable"),
        ("application/json;q=0", "application/json", body, 406, "not_acceptable"),
        ("*/*", "text/plain", body, 415, "content_type"),
        ("*/*", "application/x-www-form-urlencoded", body, 415, "content_type"),
        ("*/*", "application/json", b"{", 400, "malformed"),
        ("*/*", "application/json", br#"{"query": 1}"#, 400, "malformed"),
        ("*/*", "application/json", br#"{"query": "select 1", "writable": true}"#, 400, "malformed"),
        ("*/*", "application/json", &large, 413, "query_too_long"),
    ];
    for (accept, content_type, body, status, code) in table {
        let answer = answer(send_raw(address, accept, content_type, body).await, Vec::new()).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (status, Some(code)));
    }
    let fine =
        answer(send_raw(address, "*/*", "application/json; charset=utf-8", body).await, Vec::new()).await;
    assert_eq!(fine.json(), json!([{"Int64(1)": 1}]));
}

/// The answer is far larger than every buffer between the query and the client, so while the client has read only its start,
/// the query cannot have ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_sent_while_the_query_still_runs() {
    let world = World::new().await;
    let address = serve(&world.query).await;
    let text = "select value, repeat('x', 100) as filler from generate_series(1, 900000)";
    let mut socket = send(address, "application/x-ndjson", text).await;
    let start = read_some(&mut socket, 2_000).await;
    assert!(String::from_utf8_lossy(&start).contains("{\"value\":1,"));
    let meanwhile = world.query.statistics();
    assert_eq!(meanwhile.running, 1);
    assert!(meanwhile.rows < 900_000, "{} rows had been made", meanwhile.rows);
    let answer = answer(socket, start).await;
    assert!(answer.complete);
    assert_eq!(answer.text().lines().count(), 900_000);
    world.idle().await;
    assert_eq!(world.query.statistics().answered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_midway_leaves_an_answer_that_cannot_be_taken_for_complete() {
    let world = World::with(QueryOptions { answer_bytes_max: 4_000_000, ..QueryOptions::default() }).await;
    let address = serve(&world.query).await;
    let failing = "select 1 / (value - 60000) as a from generate_series(1, 900000)";
    let too_large = "select value from generate_series(1, 900000)";
    for query in [failing, too_large] {
        for accept in
            ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"]
        {
            let answer = ask(address, accept, query).await;
            assert_eq!(answer.status, 200, "{accept}");
            assert!(!answer.complete && !answer.body.is_empty(), "{accept}: {query}");
            if accept == "application/json" {
                assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
            }
        }
    }
    world.idle().await;
    assert_eq!(world.query.statistics().answered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_query() {
    let world = World::with(QueryOptions { rows_max: u64::MAX, ..QueryOptions::default() }).await;
    let address = serve(&world.query).await;
    // One is left while rows come, one before the first row can come.
    let streaming = "select value from generate_series(1, 100000000000)";
    let mut socket = send(address, "application/x-ndjson", streaming).await;
    read_some(&mut socket, 100).await;
    let silent = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let other = send(address, "application/json", silent).await;
    while world.query.statistics().running < 2 {
        tokio::task::yield_now().await;
    }
    drop((socket, other));
    world.idle().await;
    assert_eq!(world.query.statistics().abandoned, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_names_and_help() {
    let world = World::new().await;
    world.one("select count(*) from logs").await;
    world.idle().await;
    world.error("drop table logs").await;
    world.idle().await;
    let mut registry = prometheus_client::registry::Registry::default();
    world.query.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("beeacon_query_queries_total{outcome=\"ok\"} 1"), "{text}");
    assert!(text.contains("beeacon_query_queries_total{outcome=\"read_only\"} 1"), "{text}");
    assert!(text.contains("beeacon_query_duration_seconds_count 2"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(name.starts_with("beeacon_query_") && text.contains(&format!("# HELP {name} ")), "{line}");
    }
}

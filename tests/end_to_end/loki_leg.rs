//! Loki as a consumer of the journal: it gets every row once it can, and whatever it does, no acknowledgement waits for it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::harness::dashboards::{panels, percent};
use crate::harness::frames::Hand;
use crate::harness::http::request;
use crate::harness::loki::{Loki, Mood};
use crate::harness::metrics::Metrics;
use crate::harness::poll::{seconds, wait_for, wait_until};
use crate::harness::probe::skip;
use crate::harness::world::{Alone, seed};

fn lines(from: usize) -> Vec<String> {
    (from..from + 10).map(|index| format!("line {index} for Loki")).collect()
}

/// Scenario: Loki is gone, broken, out of breath, slow; then well again; then it refuses for good.
/// Guarantees: acknowledgements come as fast as without it; afterwards it has every row, in order and without a hole; what it
/// refuses for good is counted, and what follows still goes out.
#[test]
fn a_loki_in_any_mood_delays_no_acknowledgement_and_gets_every_row_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let loki = Loki::start(folder.path());
    let alone = Alone::start_with_loki("loki_moods", None, None, Some(&loki.url()));
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    let mut sent = 0;
    let mut send_some = |mood: &str| {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            let answer = hand.send(&lines(sent));
            slowest = slowest.max(started.elapsed());
            assert_eq!(answer.status, 200, "while Loki is {mood}: {}", answer.text());
            sent += 10;
        }
        println!("Loki {mood}: slowest of 20 acknowledgements {} ms", slowest.as_millis());
        assert!(slowest < Duration::from_secs(2), "an acknowledgement took {slowest:?} while Loki is {mood}");
        sent
    };
    for (name, mood) in [
        ("gone", Mood::Gone),
        ("broken", Mood::Broken),
        ("out of breath", Mood::TooMany),
        ("slow", Mood::Slow(seconds(3))),
    ] {
        loki.set_mood(mood);
        let before = loki.requests();
        send_some(name);
        wait_until("a request to Loki in this mood", seconds(30), || loki.requests() > before);
    }
    loki.set_mood(Mood::Well);
    let sent = send_some("well");
    wait_until("Loki to catch up", seconds(60), || loki.entry_count() >= sent);
    let numbers =
        |text: &str| text.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap();
    // A push that was answered too late may come twice; Loki drops what is equal in stream, time and text.
    let mut got: Vec<usize> = loki.entries().iter().map(|entry| numbers(&entry.line)).collect();
    let pushed = got.len();
    got.sort_unstable();
    got.dedup();
    println!("Loki: {sent} rows sent, {pushed} entries pushed, {} faults", loki.faults().len());
    assert_eq!(got, (0..sent).collect::<Vec<_>>());

    loki.set_mood(Mood::Refusing);
    let sent = send_some("refusing");
    wait_until("the refused entries to be counted", seconds(30), || {
        let metrics = Metrics::scrape(alone.sql.address).unwrap_or_default();
        metrics.sum("beeacon_collector_loki_refused_entries_total") >= 200.0
    });
    loki.set_mood(Mood::Well);
    send_some("well again");
    wait_until("what follows a refusal", seconds(30), || {
        loki.entries().iter().any(|entry| numbers(&entry.line) == sent + 199)
    });
}

/// Scenario: the server is killed while it forwards, and started again.
/// Guarantees: the forwarder goes on where its durable cursor stands; Loki lacks nothing.
#[test]
fn a_killed_server_goes_on_forwarding_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let loki = Loki::start(folder.path());
    let mut alone = Alone::start_with_loki("loki_kill", None, None, Some(&loki.url()));
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    for round in 0..5 {
        loki.set_mood(Mood::Slow(Duration::from_millis(200)));
        for step in 0..10 {
            assert_eq!(hand.send(&lines(round * 100 + step * 10)).status, 200);
        }
        alone.server.kill();
        alone.server.start();
        hand = Hand { next: hand.next, ..Hand::open(alone.sql.address, 1, "web") };
    }
    loki.set_mood(Mood::Well);
    wait_until("Loki to have all 500 lines", seconds(60), || {
        let lines: std::collections::BTreeSet<String> =
            loki.entries().into_iter().map(|entry| entry.line).collect();
        lines.len() == 500
    });
    println!("500 lines, {} entries pushed over 6 lives of the server", loki.entry_count());
    assert_eq!(loki.faults(), Vec::<String>::new());
}

/// The same against a real Loki, where `BEEACON_TEST_LOKI_URL` names one; and no panel that asks Loki is empty there.
#[test]
fn a_real_loki_takes_and_gives_back_what_is_forwarded() {
    let test = "a_real_loki_takes_and_gives_back_what_is_forwarded";
    let Ok(url) = std::env::var("BEEACON_TEST_LOKI_URL") else {
        // Not installed by `make test`, so it is not among what REQUIRE_ALL requires.
        println!("SKIPPED {test} BEEACON_TEST_LOKI_URL is not set");
        return;
    };
    let Some(address) = url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok())
    else {
        return skip(test, "BEEACON_TEST_LOKI_URL is not http://ADDRESS:PORT");
    };
    let service = format!("beeacon-test-{}", seed("real_loki"));
    let alone = Alone::start_with_loki("real_loki", None, None, Some(&url));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    let mut hand = Hand { time_ns: now, ..Hand::open(alone.sql.address, 1, &service) };
    assert_eq!(hand.send(&lines(0)).status, 200);
    assert_eq!(hand.send(&["a mail to <EMAIL>".to_owned()]).status, 200);
    let query = format!("/loki/api/v1/query_range?query=%7Bservice_name%3D%22{service}%22%7D&limit=100");
    let values = wait_for("Loki to give the lines back", seconds(60), || {
        let answer = request(address, "GET", &query, &[], b"").ok()?.json();
        let values: Vec<String> = answer["data"]["result"]
            .as_array()?
            .iter()
            .flat_map(|stream| stream["values"].as_array().cloned().unwrap_or_default())
            .filter_map(|value| value[1].as_str().map(str::to_owned))
            .collect();
        (values.len() == 11).then_some(values)
    });
    assert!(lines(0).iter().all(|line| values.contains(line)));
    let panels = panels("loki");
    assert!(panels.len() >= 5, "{} queries", panels.len());
    for (dashboard, title, expr) in panels {
        wait_for(&format!("something to show in {dashboard}, {title}: {expr}"), seconds(60), || {
            let path = format!("/loki/api/v1/query_range?step=60&limit=500&query={}", percent(&expr));
            let answer = request(address, "GET", &path, &[], b"").ok()?;
            assert_eq!(answer.status, 200, "{expr}: {}", answer.text());
            let answer = answer.json();
            (!answer["data"]["result"].as_array()?.is_empty()).then_some(())
        });
    }
}

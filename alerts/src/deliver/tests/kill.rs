//! A process that writes changes and delivers their messages, killed at any moment, beside a receiver that flaps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::notify::Notifier;
use crate::state::{Alert, Change, Phase, Transition};

const DIRECTORY: &str = "BEEACON_ALERTS_KILL_DIRECTORY";
const PORT: &str = "BEEACON_ALERTS_KILL_PORT";
/// An alert begins with each even change and ends with the next.
const CHANGES: i64 = 1_000;
const KILLS: usize = 50;
/// Between two changes, by the notifier's clock.
const STEP_SECONDS: i64 = 10;

fn flaps(number: usize, _: &str) -> Do {
    match number % 7 {
        1 => Do::Answer(500, ""),
        3 => Do::BreakOff,
        5 => Do::Answer(503, ""),
        _ => Do::Answer(200, ""),
    }
}

fn transition(number: i64) -> Transition {
    let labels = Labels::from_iter([("alertname", "A"), ("n", &(number / 2).to_string())]);
    let change = if number % 2 == 0 { Change::Firing } else { Change::Resolved };
    let moment = at(number * STEP_SECONDS);
    Transition {
        event_id: format!("evt_{number}"),
        alert: Alert {
            labels,
            annotations: Labels::new(),
            phase: if change == Change::Firing { Phase::Firing } else { Phase::Resolved },
            value: 1.0,
            active_at: moment,
            fired_at: Some(at(number / 2 * 2 * STEP_SECONDS)),
            kept_since: None,
            resolved_at: None,
        },
        change,
        at: moment,
    }
}

/// Not a story of its own: what the child process runs, from where its predecessor was killed to the last delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_changes_and_delivers_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let yaml = format!(
        "route: {{receiver: a, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 300d}}\n\
         receivers: [{{name: a, webhook: {{url: \"http://127.0.0.1:{port}/\"}}}}]"
    );
    let config = Config::read(&yaml).unwrap();
    let policy =
        Policy { networks: vec![Network::read("127.0.0.1").unwrap()], ports: vec![port], names: Vec::new() };
    let ledger = Arc::new(Ledger::open(&Path::new(&directory).join("alerts.db")).await.unwrap());
    let loaded = ledger.load().await.unwrap();
    let last = ledger.changes(1).await.unwrap().pop();
    let next = last.map_or(0, |(_, last)| (last.at.as_second() - at(0).as_second()) / STEP_SECONDS + 1);
    let retry =
        Retry { first: Duration::from_millis(1), most: Duration::from_millis(5), tried_for: Duration::MAX };
    let sender = Arc::new(Sender::new(policy, None, "").unwrap());
    let courier = Courier::new(ledger.clone(), Arc::new(config.clone()), sender, retry);
    let (changed, watched) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let runner = courier.clone();
    let running = tokio::spawn(async move { runner.run(watched, stopped).await });
    let mut notifier = Notifier::new(config, loaded.notifier, at(next * STEP_SECONDS));
    for number in next..CHANGES {
        let now = at(number * STEP_SECONDS);
        let change = transition(number);
        notifier.on(now, "", std::slice::from_ref(&change));
        let messages = notifier.tick(now);
        let step = Step {
            notifier: Some(notifier.state().clone()),
            changes: vec![("rule".to_owned(), change)],
            messages,
            ..Step::default()
        };
        ledger.commit(&step).await.unwrap();
        changed.send_modify(|count| *count += 1);
    }
    stop.send(true).unwrap();
    running.await.unwrap();
    // An hour ahead every message is due, so that no round is empty.
    while ledger.counts().await.unwrap().waiting > 0 {
        courier.round(Timestamp::now() + Duration::from_secs(3_600)).await.unwrap();
    }
    println!("all is delivered");
}

fn child(directory: &Path, port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["deliver::tests::kill::child_that_changes_and_delivers_until_it_is_killed", "--exact"])
        .env(DIRECTORY, directory)
        .env(PORT, port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Scenario: a thousand changes; the receiver refuses or breaks off three of seven requests; the process is killed fifty times.
/// Guarantees: every change arrives; what arrives twice has the same id and the same body; no end comes before its beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_lost_by_kills_and_a_receiver_that_flaps() {
    let directory = tempfile::tempdir().unwrap();
    let hook = Hook::start(flaps).await;
    let mut target = 0;
    for kill in 0..KILLS {
        let mut process = child(directory.path(), hook.address.port());
        target += 8 + kill % 11;
        let (seen, changed) = &*hook.seen;
        let count = tokio::task::block_in_place(|| {
            changed.wait_while(seen.lock().unwrap(), |seen| seen.len() < target).unwrap().len()
        });
        process.kill().unwrap();
        process.wait().unwrap();
        target = count;
    }
    let mut last = child(directory.path(), hook.address.port());
    let status = tokio::task::block_in_place(|| last.wait()).unwrap();
    assert!(status.success());

    let seen = hook.seen();
    let taken: Vec<&Seen> = seen.iter().filter(|seen| seen.did == Do::Answer(200, "")).collect();
    let mut bodies: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
    for seen in &seen {
        bodies.entry(seen.header("webhook-id")).or_default().insert(&seen.body);
    }
    assert!(bodies.values().all(|bodies| bodies.len() == 1), "one id has two bodies");
    assert_eq!(i64::try_from(bodies.len()).unwrap(), CHANGES, "ids that are not one a change");
    let mut order: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for taken in &taken {
        let body: serde_json::Value = serde_json::from_slice(&taken.body).unwrap();
        let number = body["commonLabels"]["n"].as_str().unwrap().parse().unwrap();
        order.entry(number).or_default().push(body["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(i64::try_from(order.len()).unwrap(), CHANGES / 2);
    for (number, mut states) in order {
        states.dedup();
        assert_eq!(states, ["firing", "resolved"], "alert {number}");
    }
    println!("{CHANGES} changes, {KILLS} kills: {} requests, {} taken, 0 lost", seen.len(), taken.len());
}

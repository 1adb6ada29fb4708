use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::matchers::Matcher;
use crate::state::{Alert, Phase};

const CONFIG: &str = r#"
route:
  receiver: team
  group_by: [alertname]
  routes:
    - matchers: ['severity="critical"']
      receiver: pager
      group_by: [alertname, service]
      group_wait: 5s
      continue: true
    - matchers: ['severity=~"critical|high"', 'team="db"']
      receiver: database
      repeat_interval: 1h
    - matchers: ['alertname="Quiet"']
      receiver: nobody
    - matchers: ['alertname="Nightly"']
      mute_time_intervals: [nights]
    - matchers: ['alertname="Everything"']
      group_by: ['...']
receivers:
  - name: team
    webhook: {url: "https://example.com/hook"}
  - name: pager
    pagerduty: {routing_key: "synthetic"}
  - name: database
    slack: {url: "https://example.com/slack"}
  - name: nobody
inhibit_rules:
  - source_matchers: ['alertname="AgentLost"']
    target_matchers: ['alertname=~"ServiceSilent|AgentLost"']
    equal: [host]
time_intervals:
  - name: nights
    time_intervals: [{times: [{start_time: "22:00", end_time: "24:00"}]}]
"#;

fn at(seconds: i64) -> Timestamp {
    // 2025-11-26T20:00:00Z.
    Timestamp::from_second(1_764_187_200 + seconds).unwrap()
}

fn notifier() -> Notifier {
    Notifier::new(Config::read(CONFIG).unwrap(), NotifierState::default(), at(0))
}

fn change(labels: &[(&str, &str)], change: Change, second: i64) -> Transition {
    let labels: Labels = labels.iter().copied().collect();
    Transition {
        event_id: format!("evt_{}_{second}", labels.fingerprint()),
        alert: Alert {
            labels,
            annotations: Labels::from_iter([("summary", "s")]),
            phase: if change == Change::Firing { Phase::Firing } else { Phase::Resolved },
            value: 3.0,
            active_at: at(second),
            fired_at: Some(at(second)),
            kept_since: None,
            resolved_at: None,
        },
        change,
        at: at(second),
    }
}

fn fires(notifier: &mut Notifier, labels: &[(&str, &str)], second: i64) {
    notifier.on(at(second), "", &[change(labels, Change::Firing, second)]);
}

fn ends(notifier: &mut Notifier, labels: &[(&str, &str)], second: i64) {
    notifier.on(at(second), "", &[change(labels, Change::Resolved, second)]);
}

/// What is said up to a second: when, to whom, why, about how many that fire and do not.
fn said(notifier: &mut Notifier, until: i64) -> Vec<(i64, String, Reason, usize, usize)> {
    let mut out = Vec::new();
    while let Some(wake) = notifier.next_wake().filter(|wake| *wake <= at(until)) {
        for message in notifier.tick(wake) {
            let firing = message.alerts.iter().filter(|alert| alert.is_firing()).count();
            let second = wake.as_second() - at(0).as_second();
            out.push((second, message.receiver, message.reason, firing, message.alerts.len() - firing));
        }
    }
    out
}

fn line(
    second: i64,
    receiver: &str,
    reason: Reason,
    firing: usize,
    resolved: usize,
) -> (i64, String, Reason, usize, usize) {
    (second, receiver.to_owned(), reason, firing, resolved)
}

#[test]
fn a_group_waits_grows_repeats_and_ends_at_alertmanagers_times() {
    let mut notifier = notifier();
    fires(&mut notifier, &[("alertname", "A"), ("s", "1")], 0);
    fires(&mut notifier, &[("alertname", "A"), ("s", "2")], 20);
    assert_eq!(said(&mut notifier, 31), [line(30, "team", Reason::First, 2, 0)]);
    fires(&mut notifier, &[("alertname", "A"), ("s", "3")], 40);
    assert_eq!(said(&mut notifier, 331), [line(330, "team", Reason::NewAlerts, 3, 0)]);
    ends(&mut notifier, &[("alertname", "A"), ("s", "1")], 400);
    assert_eq!(said(&mut notifier, 631), [line(630, "team", Reason::NewResolved, 2, 1)]);
    // Four hours after the last message, at the next look.
    assert_eq!(said(&mut notifier, 15_100), [line(15_030, "team", Reason::Repeat, 2, 0)]);
    ends(&mut notifier, &[("alertname", "A"), ("s", "2")], 15_101);
    ends(&mut notifier, &[("alertname", "A"), ("s", "3")], 15_102);
    assert_eq!(said(&mut notifier, 100_000), [line(15_330, "team", Reason::AllResolved, 0, 2)]);
    assert_eq!(notifier.next_wake(), None);
    // What fires anew is a new group.
    fires(&mut notifier, &[("alertname", "A"), ("s", "1")], 100_001);
    assert_eq!(said(&mut notifier, 100_100), [line(100_031, "team", Reason::First, 1, 0)]);
}

#[test]
fn an_alert_that_ends_before_anybody_was_told_is_told_to_nobody() {
    let mut notifier = notifier();
    fires(&mut notifier, &[("alertname", "A")], 0);
    ends(&mut notifier, &[("alertname", "A")], 10);
    assert_eq!(said(&mut notifier, 1_000), []);
    ends(&mut notifier, &[("alertname", "Unknown")], 1_000);
    assert_eq!(notifier.alerts().filter(|alert| alert.labels.value("alertname") == "Unknown").count(), 0);
}

#[test]
fn routes_are_the_deepest_that_match_and_continue_goes_on() {
    let config = Config::read(CONFIG).unwrap();
    for (labels, expected) in [
        (vec![("alertname", "A")], vec!["{}"]),
        (vec![("severity", "critical")], vec!["{}/{severity=\"critical\"}"]),
        (
            vec![("severity", "critical"), ("team", "db")],
            vec!["{}/{severity=\"critical\"}", "{}/{severity=~\"critical|high\",team=\"db\"}"],
        ),
        (vec![("severity", "high"), ("team", "db")], vec!["{}/{severity=~\"critical|high\",team=\"db\"}"]),
    ] {
        let labels: Labels = labels.into_iter().collect();
        let keys: Vec<String> =
            config.routes_of(&labels).into_iter().map(|route| route.key.clone()).collect();
        assert_eq!(keys, expected, "{labels}");
    }
    let mut notifier = notifier();
    fires(
        &mut notifier,
        &[("alertname", "A"), ("severity", "critical"), ("service", "x"), ("team", "db")],
        0,
    );
    let mut messages = notifier.tick(at(5));
    assert_eq!(
        messages.remove(0).group_key,
        "{}/{severity=\"critical\"}:{alertname=\"A\", service=\"x\"}",
        "the group key has Alertmanager's writing"
    );
    assert_eq!(said(&mut notifier, 60), [line(30, "database", Reason::First, 1, 0)]);
}

#[test]
fn two_routes_with_the_same_matchers_are_both_told() {
    let config = Config::read(
        "route:
  receiver: a
  routes:
    - {matchers: ['severity=\"critical\"'], receiver: a, continue: true}
    - {matchers: ['severity=\"critical\"'], receiver: b}
receivers: [{name: a}, {name: b}]",
    )
    .unwrap();
    let mut notifier = Notifier::new(config.clone(), NotifierState::default(), at(0));
    fires(&mut notifier, &[("severity", "critical")], 0);
    let mut notifier = Notifier::new(config, notifier.state().clone(), at(1));
    let messages = notifier.tick(at(30));
    let mut told: Vec<_> = messages.iter().map(|message| (&*message.receiver, &*message.group_key)).collect();
    told.sort_unstable();
    assert_eq!(told, [("a", "{}/{severity=\"critical\"}:{}"), ("b", "{}/{severity=\"critical\"}:{}")]);
}

#[test]
fn what_ended_is_forgotten_while_everything_is_silenced() {
    let mut notifier = notifier();
    let silence = Silence {
        id: "s1".into(),
        matchers: vec![Matcher::equal("alertname", "A")],
        starts_at: at(0),
        ends_at: at(100_000),
        created_by: "somebody".into(),
        comment: "maintenance".into(),
    };
    assert!(notifier.silence(silence, at(0)));
    fires(&mut notifier, &[("alertname", "A"), ("s", "1")], 0);
    fires(&mut notifier, &[("alertname", "A"), ("s", "2")], 0);
    ends(&mut notifier, &[("alertname", "A"), ("s", "2")], 10);
    assert_eq!((said(&mut notifier, 900), notifier.alerts().count()), (vec![], 2));
    assert_eq!((said(&mut notifier, 2_000), notifier.alerts().count()), (vec![], 1));
}

#[test]
fn group_by_all_makes_a_group_of_each_alert() {
    let mut notifier = notifier();
    fires(&mut notifier, &[("alertname", "Everything"), ("s", "1")], 0);
    fires(&mut notifier, &[("alertname", "Everything"), ("s", "2")], 0);
    assert_eq!(said(&mut notifier, 60).len(), 2);
}

#[test]
fn who_does_not_want_ends_is_not_told_of_them_and_is_told_when_it_fires_again() {
    let mut notifier = notifier();
    let labels = [("alertname", "A"), ("severity", "high"), ("team", "db")];
    fires(&mut notifier, &labels, 0);
    assert_eq!(said(&mut notifier, 60), [line(30, "database", Reason::First, 1, 0)]);
    ends(&mut notifier, &labels, 60);
    assert_eq!(said(&mut notifier, 400), []);
    fires(&mut notifier, &labels, 400);
    assert_eq!(said(&mut notifier, 500), [line(430, "database", Reason::First, 1, 0)]);
}

#[test]
fn a_silence_holds_its_time_and_what_it_held_back_is_told_after_it() {
    let mut notifier = notifier();
    let silence = Silence {
        id: "s1".into(),
        matchers: vec![Matcher::equal("alertname", "A")],
        starts_at: at(0),
        ends_at: at(600),
        created_by: "somebody".into(),
        comment: "deployment".into(),
    };
    assert!(notifier.silence(silence, at(0)));
    fires(&mut notifier, &[("alertname", "A")], 1);
    fires(&mut notifier, &[("alertname", "B")], 1);
    assert_eq!(said(&mut notifier, 600), [line(31, "team", Reason::First, 1, 0)]);
    assert_eq!(said(&mut notifier, 700), [line(631, "team", Reason::First, 1, 0)]);
    assert!(!notifier.expire_silence("none", at(700)));
    let nothing = Silence {
        id: "s2".into(),
        matchers: vec![],
        starts_at: at(0),
        ends_at: at(9_000),
        created_by: String::new(),
        comment: String::new(),
    };
    notifier.silence(nothing, at(700));
    assert!(!notifier.is_silenced(&Labels::new(), at(701)), "a silence without matchers covers nothing");
}

#[test]
fn a_lost_agent_keeps_its_silent_services_quiet_and_not_itself() {
    let mut notifier = notifier();
    fires(&mut notifier, &[("alertname", "AgentLost"), ("host", "a")], 0);
    fires(&mut notifier, &[("alertname", "ServiceSilent"), ("host", "a"), ("service", "x")], 0);
    fires(&mut notifier, &[("alertname", "ServiceSilent"), ("host", "b"), ("service", "y")], 0);
    let messages = notifier.tick(at(30));
    let told: Vec<String> =
        messages.iter().flat_map(|message| &message.alerts).map(|alert| alert.labels.to_string()).collect();
    assert_eq!(
        told,
        ["{alertname=\"AgentLost\", host=\"a\"}", "{alertname=\"ServiceSilent\", host=\"b\", service=\"y\"}"]
    );
    ends(&mut notifier, &[("alertname", "AgentLost"), ("host", "a")], 100);
    assert_eq!(
        said(&mut notifier, 331),
        [line(330, "team", Reason::AllResolved, 0, 1), line(330, "team", Reason::NewAlerts, 2, 0)]
    );
}

#[test]
fn a_muted_route_tells_nobody_at_night() {
    let mut notifier = notifier();
    // 21:59:50, and the group waits past ten o'clock.
    fires(&mut notifier, &[("alertname", "Nightly")], 7_190);
    assert_eq!(said(&mut notifier, 14_300), []);
    // Midnight is 14,400; the next look after it tells.
    assert_eq!(said(&mut notifier, 15_000), [line(14_420, "team", Reason::First, 1, 0)]);
}

#[test]
fn every_fault_of_the_file_is_told_at_once() {
    let text = r#"
route:
  receiver: nobody
  group_by: ['...', a]
  group_interval: 0s
  matchers: ['a=b']
  routes: [{receiver: x, mute_time_intervals: [y], matchers: ['a b']}]
receivers:
  - name: a
    webhook: {url: "ftp://x", signing: standard}
  - name: a
    webhook: {url: "https://x.example", signing: standard, secret: "whsec_s3cr3t"}
    slack: {}
  - name: b
    webhook: {url: "https://x.example", template: "{{ x"}
inhibit_rules: [{equal: [a]}]
time_intervals: [{name: t, time_intervals: [{location: Europe/Paris, weekdays: [noday], times: [{start_time: "9"}]}]}]
global: {}
"#;
    let error = Config::read(text).unwrap_err().to_string();
    for expected in [
        "there is no receiver `nobody`",
        "means all labels and stands alone",
        "`group_interval` is longer than nothing",
        "the first route has no `matchers`",
        "there is no receiver `x`",
        "there is no time interval `y`",
        "\"a b\" is no matcher",
        "`url` begins with https:// or http://",
        "`secret` is missing",
        "the receiver `a` is there twice",
        "`secret` of Standard Webhooks is whsec_",
        "one of webhook, slack, teams, pagerduty, email and alertmanager",
        "`template` cannot be read",
        "has `source_matchers` and `target_matchers`",
        "`location` is UTC or an offset",
        "`weekdays` has a part that is no range",
        "`start_time` before `end_time`",
        "unknown key `global`",
    ] {
        assert!(error.contains(expected), "{expected}\nis not in\n{error}");
    }
    assert!(!error.contains("s3cr3t"));
    assert!(!format!("{:?}", Config::read(CONFIG).unwrap()).contains("synthetic"), "a secret is shown");
}

#[derive(Clone, Debug)]
enum Step {
    Fires(u8),
    Ends(u8),
    Restarts,
    Waits(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u8..6).prop_map(Step::Fires),
        (0_u8..6).prop_map(Step::Ends),
        Just(Step::Restarts),
        (1_i64..900).prop_map(Step::Waits),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Guarantees: restarts change nothing that is said; no id comes twice; after two looks everybody has been told the
    /// state as it is: what fires as firing, what does not as resolved.
    #[test]
    fn restarts_change_nothing_and_the_last_word_is_the_truth(steps in steps()) {
        let (mut plain, mut restarting) = (notifier(), notifier());
        let mut now = 0;
        let mut firing: BTreeSet<u8> = BTreeSet::new();
        let mut believed: BTreeMap<Fingerprint, bool> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let labels = |number: u8| -> Vec<(&'static str, &'static str)> {
            let name = ["A", "B"][usize::from(number % 2)];
            vec![("alertname", name), ("s", ["0", "1", "2"][usize::from(number / 2)])]
        };
        let mut run = |plain: &mut Notifier, restarting: &mut Notifier, until: i64| {
            while let Some(wake) = plain.next_wake().filter(|wake| *wake <= at(until)) {
                prop_assert_eq!(restarting.next_wake(), Some(wake));
                let messages = plain.tick(wake);
                prop_assert_eq!(&restarting.tick(wake), &messages);
                for message in messages {
                    prop_assert!(ids.insert(message.id));
                    for alert in message.alerts {
                        believed.insert(alert.labels.fingerprint(), alert.is_firing());
                    }
                }
            }
            Ok(())
        };
        for step in steps {
            now += 1;
            match step {
                Step::Fires(number) if firing.insert(number) => {
                    fires(&mut plain, &labels(number), now);
                    fires(&mut restarting, &labels(number), now);
                }
                Step::Ends(number) if firing.remove(&number) => {
                    ends(&mut plain, &labels(number), now);
                    ends(&mut restarting, &labels(number), now);
                }
                Step::Restarts => {
                    let text = serde_json::to_string(restarting.state()).unwrap();
                    restarting = Notifier::new(Config::read(CONFIG).unwrap(), serde_json::from_str(&text).unwrap(), at(now));
                }
                Step::Waits(seconds) => now += seconds,
                Step::Fires(_) | Step::Ends(_) => {}
            }
            run(&mut plain, &mut restarting, now)?;
        }
        run(&mut plain, &mut restarting, now + 700)?;
        let truth: BTreeSet<Fingerprint> =
            firing.iter().map(|number| Labels::from_iter(labels(*number)).fingerprint()).collect();
        for (fingerprint, is_firing) in &believed {
            prop_assert_eq!(truth.contains(fingerprint), *is_firing);
        }
        for fingerprint in &truth {
            prop_assert_eq!(believed.get(fingerprint), Some(&true));
        }
    }
}

#[test]
fn a_repeat_comes_no_sooner_than_its_interval() {
    let config = Config::read(CONFIG).unwrap();
    let route = config.route("{}/{severity=~\"critical|high\",team=\"db\"}").unwrap();
    assert_eq!(
        (route.repeat_interval, route.group_wait),
        (Duration::from_secs(3_600), Duration::from_secs(30))
    );
}

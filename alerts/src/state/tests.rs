use proptest::prelude::*;

use super::*;
use crate::rules::{Rule, RuleFile};

fn rule(keys: &str) -> AlertRule {
    let text = format!(
        "groups:\n- name: g\n  rules:\n  - alert: A\n    sql: SELECT 1\n    labels: {{severity: high}}\n    \
         annotations: {{summary: \"{{{{ $labels.s }}}} {{{{ $value }}}}\"}}\n{keys}"
    );
    match RuleFile::read(&text).unwrap().groups.remove(0).rules.remove(0) {
        Rule::Alert(rule) => rule,
        Rule::Record(_) => unreachable!(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_150_000 + seconds).unwrap()
}

fn rows(names: &[&str]) -> Evaluation {
    Evaluation::Rows(
        names.iter().map(|name| Sample { labels: Labels::from_iter([("s", *name)]), value: 7.0 }).collect(),
    )
}

/// A story: at each second an evaluation, and the changes it makes.
fn told(rule: &AlertRule, story: &[(i64, Evaluation, &[Change])]) -> RuleState {
    let mut state = RuleState::default();
    for (second, evaluation, expected) in story {
        let changes: Vec<_> = state
            .on(rule, &Labels::new(), at(*second), evaluation.clone())
            .into_iter()
            .map(|transition| transition.change)
            .collect();
        assert_eq!(changes, *expected, "at second {second}");
    }
    state
}

#[test]
fn without_for_an_alert_fires_at_once_and_is_resolved_at_once() {
    let state = told(
        &rule(""),
        &[
            (0, rows(&["a"]), &[Change::Firing]),
            (60, rows(&["a"]), &[]),
            (120, rows(&[]), &[Change::Resolved]),
            (180, rows(&["a"]), &[Change::Firing]),
        ],
    );
    let alert = state.alerts().next().unwrap();
    assert_eq!(alert.labels.to_string(), "{alertname=\"A\", s=\"a\", severity=\"high\"}");
    assert_eq!(alert.annotations.value("summary"), "a 7");
    assert_eq!(alert.active_at, at(180));
}

#[test]
fn for_is_waited_and_what_goes_before_was_nothing() {
    told(
        &rule("    for: 2m\n"),
        &[
            (0, rows(&["a"]), &[Change::Pending]),
            (60, rows(&["a"]), &[]),
            (90, rows(&[]), &[Change::Cancelled]),
            (100, rows(&["a"]), &[Change::Pending]),
            (219, rows(&["a"]), &[]),
            (220, rows(&["a"]), &[Change::Firing]),
            (280, rows(&[]), &[Change::Resolved]),
        ],
    );
}

#[test]
fn keep_firing_for_bridges_what_flaps() {
    told(
        &rule("    keep_firing_for: 2m\n"),
        &[
            (0, rows(&["a"]), &[Change::Firing]),
            (60, rows(&[]), &[]),
            (120, rows(&["a"]), &[]),
            (180, rows(&[]), &[]),
            (299, rows(&[]), &[]),
            (300, rows(&[]), &[Change::Resolved]),
        ],
    );
}

#[test]
fn an_error_changes_nothing_and_is_shown() {
    let state = told(
        &rule(""),
        &[(0, rows(&["a"]), &[Change::Firing]), (60, Evaluation::Failed("no table logs".into()), &[])],
    );
    assert_eq!(state.health, Health::Failed("no table logs".into()));
    assert_eq!(state.alerts().next().unwrap().phase, Phase::Firing);
}

#[test]
fn an_error_and_no_data_can_be_alerts() {
    let state = told(
        &rule("    on_error: alert\n    no_data: alert\n"),
        &[
            (0, rows(&["a"]), &[Change::Firing]),
            (60, Evaluation::Failed("x".into()), &[Change::Firing]),
            (120, rows(&[]), &[Change::Resolved, Change::Resolved, Change::Firing]),
            (180, rows(&["a"]), &[Change::Resolved, Change::Firing]),
        ],
    );
    let reasons: Vec<_> = state.alerts().map(|alert| alert.labels.value("reason").to_owned()).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
}

#[test]
fn no_data_can_keep_and_an_error_can_be_well() {
    told(
        &rule("    no_data: keep\n    on_error: ok\n"),
        &[
            (0, rows(&["a"]), &[Change::Firing]),
            (60, rows(&[]), &[]),
            (120, Evaluation::Failed("x".into()), &[Change::Resolved]),
        ],
    );
}

#[test]
fn rows_that_cannot_be_told_apart_are_an_error_and_too_many_are_too() {
    let twice = Evaluation::Rows(vec![Sample { labels: Labels::new(), value: 1.0 }; 2]);
    let state = told(&rule(""), &[(0, rows(&["a"]), &[Change::Firing]), (60, twice, &[])]);
    assert!(matches!(&state.health, Health::Failed(text) if text.contains("same labels")));

    let many: Vec<String> = (0..1_001).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let state = told(&rule(""), &[(0, rows(&many), &[])]);
    assert!(
        matches!(&state.health, Health::Failed(text) if text.contains("1001 rows, the limit of the group is 1000"))
    );
}

#[test]
fn a_change_that_is_seen_twice_has_one_event_id_and_every_change_its_own() {
    let rule = rule("");
    let mut state = RuleState::default();
    let mut ids = Vec::new();
    for second in 0..40 {
        let evaluation = if second % 2 == 0 { rows(&["a", "b"]) } else { rows(&["b"]) };
        let mut again = state.clone();
        let transitions = state.on(&rule, &Labels::new(), at(second), evaluation.clone());
        assert_eq!(again.on(&rule, &Labels::new(), at(second), evaluation), transitions);
        ids.extend(transitions.into_iter().map(|transition| transition.event_id));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count), (41, 41));
}

#[test]
fn a_rule_that_is_gone_resolves_what_it_fired() {
    let mut state = told(&rule(""), &[(0, rows(&["a", "b"]), &[Change::Firing, Change::Firing])]);
    let ended = state.end("g/A", at(60));
    assert!(ended.iter().all(|transition| transition.change == Change::Resolved) && ended.len() == 2);
    assert_eq!(state.alerts().count(), 0);
}

#[test]
fn a_resolved_alert_is_forgotten_after_a_quarter_of_an_hour() {
    let state = told(
        &rule(""),
        &[(0, rows(&["a"]), &[Change::Firing]), (60, rows(&[]), &[Change::Resolved]), (960, rows(&[]), &[])],
    );
    assert_eq!(state.alerts().count(), 1);
    let state = told(
        &rule(""),
        &[(0, rows(&["a"]), &[Change::Firing]), (60, rows(&[]), &[Change::Resolved]), (961, rows(&[]), &[])],
    );
    assert_eq!(state.alerts().count(), 0);
}

/// The history of one series, looked at from its beginning each time: whether it fires.
fn fires_by_the_model(history: &[(i64, bool)], hold: i64, keep: i64) -> bool {
    let (mut since, mut firing, mut gone_since) = (None, false, None);
    for (now, is_there) in history {
        if *is_there {
            let start = *since.get_or_insert(*now);
            firing = firing || now - start >= hold;
            gone_since = None;
        } else if firing {
            let gone = *gone_since.get_or_insert(*now);
            if now - gone >= keep {
                (since, firing, gone_since) = (None, false, None);
            }
        } else {
            since = None;
        }
    }
    firing
}

proptest! {
    /// Guarantees: after any history an alert fires exactly when a naive look at the whole history says so, also when the
    /// state is written and read between evaluations; changes alternate.
    #[test]
    fn the_machine_agrees_with_a_look_at_the_whole_history(
        steps in proptest::collection::vec((1_i64..200, any::<bool>(), any::<bool>()), 1..60),
        hold in 0_i64..400, keep in 0_i64..400,
    ) {
        let rule = rule(&format!("    for: {hold}s\n    keep_firing_for: {keep}s\n"));
        let (mut state, mut history, mut now, mut told_firing) = (RuleState::default(), Vec::new(), 0, false);
        for (step, is_there, restarts) in steps {
            now += step;
            history.push((now, is_there));
            if restarts {
                state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            }
            for transition in state.on(&rule, &Labels::new(), at(now), rows(if is_there { &["a"] } else { &[] })) {
                match transition.change {
                    Change::Firing => {
                        prop_assert!(!told_firing);
                        told_firing = true;
                    }
                    Change::Resolved => {
                        prop_assert!(told_firing);
                        told_firing = false;
                    }
                    Change::Pending | Change::Cancelled => prop_assert!(!told_firing),
                }
            }
            let fires = state.alerts().any(|alert| alert.phase == Phase::Firing);
            prop_assert_eq!(fires, fires_by_the_model(&history, hold, keep));
            prop_assert_eq!(fires, told_firing);
        }
    }
}

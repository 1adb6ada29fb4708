use std::path::PathBuf;

use beeacon_sqlite::OpenError;

use super::*;
use crate::labels::Labels;
use crate::notify::{ActiveAlert, Reason};
use crate::state::{Alert, Phase};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_187_200 + seconds).unwrap()
}

fn message(number: usize) -> Notification {
    Notification {
        id: format!("msg_{number}"),
        receiver: "a".into(),
        group_key: format!("g{number}"),
        group_labels: Labels::new(),
        reason: Reason::First,
        alerts: Vec::<ActiveAlert>::new(),
        at: at(0),
    }
}

fn step(number: usize) -> Step {
    let alert = Alert {
        labels: Labels::from_iter([("n", number.to_string())]),
        annotations: Labels::new(),
        phase: Phase::Firing,
        value: f64::NAN,
        active_at: at(0),
        fired_at: None,
        kept_since: None,
        resolved_at: None,
    };
    let change = Transition { event_id: format!("evt_{number}"), alert, change: Change::Firing, at: at(0) };
    let (mut state, mut notifier) = (RuleState::default(), NotifierState::default());
    state.missed = u64::try_from(number).unwrap();
    notifier.refused = 7;
    Step {
        rules: vec![("rule".into(), state)],
        notifier: Some(notifier),
        changes: vec![("rule".into(), change)],
        messages: vec![message(number)],
        ..Step::default()
    }
}

async fn ledger() -> (tempfile::TempDir, PathBuf, Ledger) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.db");
    let ledger = Ledger::open(&path).await.unwrap();
    (directory, path, ledger)
}

#[tokio::test]
async fn a_step_is_there_after_a_restart_and_a_repeat_of_it_changes_nothing() {
    let (_directory, path, ledger) = ledger().await;
    ledger.commit(&step(1)).await.unwrap();
    ledger.close().await;
    let ledger = Ledger::open(&path).await.unwrap();
    let loaded = ledger.load().await.unwrap();
    assert_eq!((loaded.rules["rule"].missed, loaded.notifier.refused), (1, 7));
    let due = ledger.due(at(0), 9).await.unwrap();
    assert_eq!((due.len(), &due[0].notification, due[0].attempts), (1, &message(1), 0));
    ledger.delivered("msg_1", at(1)).await.unwrap();
    ledger.commit(&step(1)).await.unwrap();
    let expected = OutboxCounts { waiting: 0, delivered: 1, given_up: 0 };
    assert_eq!(ledger.counts().await.unwrap(), expected, "a delivered message waits again");
    assert_eq!(ledger.changes(9).await.unwrap().len(), 1);
    assert!(ledger.changes(9).await.unwrap()[0].1.alert.value.is_nan());
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_behind() {
    let (_directory, _, ledger) = ledger().await;
    let many = Step { messages: (10..10 + OUTBOX_WAITING_MAX).map(message).collect(), ..Step::default() };
    ledger.commit(&many).await.unwrap();
    assert!(matches!(ledger.commit(&step(1)).await, Err(LedgerError::Full)));
    assert_eq!(ledger.load().await.unwrap(), Loaded::default());
    assert_eq!(ledger.changes(9).await.unwrap(), []);
    ledger.given_up("msg_10", at(1), "why").await.unwrap();
    ledger.commit(&step(1)).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().rules["rule"].missed, 1);
}

#[tokio::test]
async fn a_repeat_is_not_put_behind_a_message_of_its_group_that_waits() {
    let (_directory, _, ledger) = ledger().await;
    let say = async |number: usize, group: &str, reason| {
        let message = Notification { group_key: group.to_owned(), reason, ..message(number) };
        ledger.commit(&Step { messages: vec![message], ..Step::default() }).await.unwrap();
        ledger.counts().await.unwrap().waiting
    };
    assert_eq!(say(1, "g", Reason::First).await, 1);
    assert_eq!(say(2, "g", Reason::Repeat).await, 1, "what waits says it already");
    assert_eq!(say(3, "h", Reason::Repeat).await, 2, "another group is told");
    assert_eq!(say(4, "g", Reason::NewAlerts).await, 3, "news are never left out");
    ledger.delivered("msg_1", at(1)).await.unwrap();
    ledger.delivered("msg_4", at(1)).await.unwrap();
    assert_eq!(say(5, "g", Reason::Repeat).await, 2);
}

#[tokio::test]
async fn what_ended_is_forgotten_after_its_time_and_what_waits_never() {
    let (_directory, _, ledger) = ledger().await;
    for number in 1..=3 {
        ledger.commit(&step(number)).await.unwrap();
    }
    ledger.delivered("msg_1", at(10)).await.unwrap();
    ledger.again("msg_2", at(500), "the answer was 500").await.unwrap();
    ledger.given_up("msg_3", at(90), "the answer was 404").await.unwrap();
    assert_eq!(ledger.next_due().await.unwrap(), Some(at(500)));
    ledger.forget(at(100), Duration::from_secs(50)).await.unwrap();
    let expected = OutboxCounts { waiting: 1, delivered: 0, given_up: 1 };
    assert_eq!(ledger.counts().await.unwrap(), expected);
    assert_eq!(ledger.changes(9).await.unwrap(), []);
    assert_eq!(ledger.due(at(499), 9).await.unwrap(), []);
    assert_eq!(ledger.due(at(500), 9).await.unwrap()[0].attempts, 1);
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (_directory, path, ledger) = ledger().await;
    sqlx::query("UPDATE _sqlx_migrations SET version = 9000 WHERE version = 2")
        .execute(&ledger.pool)
        .await
        .unwrap();
    ledger.close().await;
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        Ledger::open(&path).await,
        Err(LedgerError::Open(OpenError::Newer { found: 9_000, .. }))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn change(number: i64, change: Change, labels: &[(&str, &str)]) -> (String, Transition) {
    let alert = Alert {
        labels: labels.iter().copied().collect(),
        annotations: Labels::from_iter([("summary", "it leaks"), ("description", "much")]),
        phase: Phase::Firing,
        value: 3.0,
        active_at: at(0),
        fired_at: None,
        kept_since: None,
        resolved_at: None,
    };
    ("rule".to_owned(), Transition { event_id: format!("evt_{number}"), alert, change, at: at(number) })
}

async fn commit(ledger: &Ledger, changes: Vec<(String, Transition)>) {
    ledger.commit(&Step { changes, ..Step::default() }).await.unwrap();
}

/// Guarantees: a firing makes one row however often it is written; alerts about one service share an incident; the incident ends
/// with its last alert, is opened again by one that comes soon, and not by one that comes late.
#[tokio::test]
async fn alerts_about_one_subject_make_one_incident_with_a_timeline() {
    let (_directory, _, ledger) = ledger().await;
    let leak = [("alertname", "Leak"), ("service", "web"), ("severity", "warning")];
    let errors = [("alertname", "Errors"), ("service", "web"), ("severity", "critical")];
    commit(&ledger, vec![change(1, Change::Firing, &leak), change(2, Change::Firing, &errors)]).await;
    commit(&ledger, vec![change(1, Change::Firing, &leak)]).await;
    let cases = ledger.cases(&CaseFilter::default(), 9).await.unwrap();
    assert_eq!(cases.len(), 2);
    assert_eq!((cases[1].severity.as_str(), cases[0].severity.as_str()), ("medium", "critical"));
    assert_eq!((cases[1].title.as_str(), cases[1].description.as_str()), ("it leaks", "much"));
    let incidents = ledger.incidents(None, 9).await.unwrap();
    assert_eq!((incidents.len(), incidents[0].alerts, incidents[0].severity.as_str()), (1, 2, "critical"));

    commit(&ledger, vec![change(10, Change::Resolved, &leak)]).await;
    assert_eq!(ledger.incidents(Some("open"), 9).await.unwrap().len(), 1);
    commit(&ledger, vec![change(11, Change::Resolved, &errors)]).await;
    assert_eq!(ledger.incidents(Some("open"), 9).await.unwrap(), []);
    commit(&ledger, vec![change(20, Change::Firing, &leak)]).await;
    let incidents = ledger.incidents(None, 9).await.unwrap();
    assert_eq!((incidents.len(), incidents[0].status.as_str()), (1, "open"));
    commit(&ledger, vec![change(30, Change::Resolved, &leak)]).await;
    commit(&ledger, vec![change(30 + 16 * 60, Change::Firing, &leak)]).await;
    assert_eq!(ledger.incidents(None, 9).await.unwrap().len(), 2);

    let timeline = ledger.timeline(Some(&incidents[0].id), 99).await.unwrap();
    let kinds: Vec<&str> = timeline.iter().rev().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "opened", "fired", "fired", "resolved", "resolved", "closed", "reopened", "fired", "resolved",
            "closed"
        ]
    );
}

#[tokio::test]
async fn people_acknowledge_assign_comment_and_resolve_and_the_timeline_says_who() {
    let (_directory, _, ledger) = ledger().await;
    commit(&ledger, vec![change(1, Change::Firing, &[("alertname", "Leak")])]).await;
    let act = |act: Act, note: &'static str| {
        let ledger = &ledger;
        async move { ledger.act("evt_1", &act, "ada", note, at(5)).await.unwrap().unwrap() }
    };
    let seen = act(Act::Acknowledge, "").await;
    assert_eq!((seen.status.as_str(), seen.acknowledged_by.as_deref()), ("acknowledged", Some("ada")));
    assert_eq!(act(Act::Assign(Some("grace".into())), "").await.assigned_to.as_deref(), Some("grace"));
    let done = act(Act::Resolve, "a test account").await;
    assert_eq!((done.status.as_str(), done.resolution.as_deref()), ("resolved", Some("a test account")));
    assert_eq!(act(Act::Acknowledge, "").await.status, "resolved", "an alert that ended is acknowledged");
    act(Act::Comment, "for the records").await;
    // The rule's own end changes nothing of what a person said.
    commit(&ledger, vec![change(9, Change::Resolved, &[("alertname", "Leak")])]).await;
    assert_eq!(ledger.case("evt_1").await.unwrap().unwrap().resolved_by.as_deref(), Some("ada"));
    assert_eq!(ledger.act("evt_2", &Act::Acknowledge, "ada", "", at(5)).await.unwrap(), None);
    let timeline = ledger.timeline(None, 99).await.unwrap();
    let said: Vec<(&str, &str)> =
        timeline.iter().rev().skip(2).map(|event| (event.kind.as_str(), event.note.as_str())).collect();
    let expected = [
        ("acknowledged", ""),
        ("assigned", "to grace"),
        ("resolved", "a test account"),
        ("closed", ""),
        ("commented", "for the records"),
    ];
    assert_eq!(said, expected);
    ledger.forget(at(3_600), Duration::from_secs(60)).await.unwrap();
    assert_eq!(ledger.cases(&CaseFilter::default(), 9).await.unwrap(), []);
    assert_eq!(ledger.timeline(None, 99).await.unwrap(), []);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_given_up_and_holds_no_other() {
    let (_directory, _, ledger) = ledger().await;
    ledger.commit(&step(1)).await.unwrap();
    ledger.commit(&step(2)).await.unwrap();
    sqlx::query("UPDATE outbox SET notification = '{' WHERE id = 'msg_1'")
        .execute(&ledger.pool)
        .await
        .unwrap();
    let due = ledger.due(at(0), 9).await.unwrap();
    assert_eq!(due.iter().map(|waiting| waiting.notification.id.as_str()).collect::<Vec<_>>(), ["msg_2"]);
    let expected = OutboxCounts { waiting: 1, delivered: 0, given_up: 1 };
    assert_eq!(ledger.counts().await.unwrap(), expected);
}

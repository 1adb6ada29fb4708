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
    sqlx::query("UPDATE _sqlx_migrations SET version = 9000").execute(&ledger.pool).await.unwrap();
    ledger.close().await;
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Ledger::open(&path).await, Err(LedgerError::Newer { found: 9_000, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

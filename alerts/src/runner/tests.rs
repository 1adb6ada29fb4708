//! The core by hand, and the loop with a clock and answers of the test's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::ledger::{CaseFilter, Loaded, Step};
use crate::outbound::Policy;
use crate::rules::RuleFile;
use crate::state::Change;

const RULES: &str = r#"
groups:
  - name: leaks
    interval: 1m
    rules:
      - alert: MailLeak
        stream: {count: redaction, of: email, window: 1m, at_least: 3}
        labels: {severity: high}
        annotations: {summary: "{{ $labels.service }} leaks"}
  - name: rows
    interval: 1m
    rules:
      - alert: Errors
        sql: SELECT service, value FROM x WHERE timestamp > $at - INTERVAL '5 minutes'
"#;

const TOLD: &str = "route: {receiver: a, group_wait: 0s, group_interval: 1s}\nreceivers: [{name: a}]";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_187_200 + seconds).unwrap()
}

fn rules(text: &str) -> RuleSet {
    RuleSet::of([("rules.yaml".to_owned(), RuleFile::read(text).unwrap())]).unwrap()
}

fn core(text: &str, loaded: Loaded, now: Timestamp) -> Core {
    let config = Config::read(TOLD).unwrap();
    Core::new(&rules(text), config, Labels::new(), "http://beeacon".to_owned(), loaded, now)
}

fn leak(core: &mut Core, place: u64, seconds: i64, count: u64) {
    let redactions = [("email", count)];
    let line = StreamLine { service: "web", level: "info", message: "x", redactions: &redactions };
    core.observe(place, at(seconds), &[line]);
}

/// What a ledger that took the step would load.
fn reloaded(steps: &[Step]) -> Loaded {
    let mut loaded = Loaded::default();
    for step in steps {
        for (id, state) in &step.rules {
            loaded.rules.insert(id.clone(), state.clone());
        }
        for (id, made_by, counts) in &step.streams {
            loaded.streams.insert(id.clone(), (made_by.clone(), counts.clone()));
        }
        loaded.place = step.place.or(loaded.place);
        loaded.notifier = step.notifier.clone().unwrap_or(loaded.notifier);
    }
    loaded
}

#[test]
fn what_was_counted_and_not_written_comes_to_the_same_when_it_is_counted_anew() {
    let mut first = core(RULES, Loaded::default(), at(0));
    leak(&mut first, 7, 0, 2);
    let written = first.take_step();
    assert_eq!(written.place, Some(7));
    // Killed after this, before it is written.
    leak(&mut first, 8, 5, 1);
    first.tell(at(6));
    let lost = first.take_step();
    assert_eq!((lost.changes.len(), lost.messages.len()), (1, 1));

    let mut second = core(RULES, reloaded(std::slice::from_ref(&written)), at(3_600));
    // What the place covers is not counted twice.
    leak(&mut second, 7, 0, 2);
    assert!(!second.is_pressing());
    leak(&mut second, 8, 5, 1);
    assert_eq!(second.take_step().changes, lost.changes);
}

#[test]
fn a_stream_that_is_quiet_ends_its_alert_within_a_second_of_its_window_and_not_before_the_past_is_counted() {
    let mut core = core(RULES, Loaded::default(), at(0));
    leak(&mut core, 1, 0, 3);
    assert_eq!(core.take_step().changes[0].1.change, Change::Firing);
    core.look_at_streams(at(120));
    assert!(!core.is_pressing(), "the past was not counted yet");
    core.is_current();
    core.look_at_streams(at(59));
    assert!(!core.is_pressing());
    assert!(core.next_wake(at(60)) <= at(61));
    core.look_at_streams(at(61));
    assert_eq!(core.take_step().changes[0].1.change, Change::Resolved);
}

#[test]
fn other_words_of_a_streaming_rule_start_its_counts_anew() {
    let mut first = core(RULES, Loaded::default(), at(0));
    leak(&mut first, 1, 0, 2);
    let steps = [first.take_step()];
    let mut same = core(RULES, reloaded(&steps), at(1));
    leak(&mut same, 2, 2, 1);
    assert!(same.is_pressing());
    let mut other = core(&RULES.replace("window: 1m", "window: 2m"), reloaded(&steps), at(1));
    leak(&mut other, 2, 2, 1);
    assert!(!other.is_pressing());
}

#[test]
fn alerts_of_a_rule_that_is_gone_end_and_its_state_goes() {
    let mut core = core(RULES, Loaded::default(), at(0));
    leak(&mut core, 1, 0, 3);
    core.tell(at(1));
    let steps = [core.take_step()];
    let rows_only = RULES.split_once("  - name: rows").unwrap().1;
    let rows_only = format!("groups:\n  - name: rows{rows_only}");
    let ends = |step: Step| {
        assert_eq!(step.changes[0].1.change, Change::Resolved);
        assert_eq!(step.gone, ["leaks/MailLeak"]);
    };
    core.use_rules(&rules(&rows_only), at(2));
    ends(core.take_step());
    let mut restarted = self::core(&rows_only, reloaded(&steps), at(3));
    ends(restarted.take_step());
    assert!(!restarted.counts_lines());
}

#[test]
fn evaluations_that_a_pause_swallowed_are_asked_oldest_first_or_told_as_missed() {
    let mut core = core(RULES, Loaded::default(), at(0));
    let queries = core.start_due(at(0)).pop().unwrap().2;
    assert_eq!(queries.len(), 1);
    assert!(core.start_due(at(0)).is_empty(), "the group runs already");
    core.evaluated("rows/Errors", queries[0].moment, Evaluation::Rows(Vec::new()), Duration::ZERO);
    core.ended(1);
    let queries = core.start_due(at(300)).pop().unwrap().2;
    assert_eq!(queries.len(), 5);
    assert!(queries.windows(2).all(|pair| pair[0].moment < pair[1].moment));
    assert!(queries[0].sql.contains(&format!("TIMESTAMP '{:.9}'", queries[0].moment)));
    for query in &queries {
        core.evaluated("rows/Errors", query.moment, Evaluation::Rows(Vec::new()), Duration::ZERO);
    }
    core.ended(1);
    core.start_due(at(300 + 60 * 100));
    let view = core.view(at(10_000));
    assert_eq!(view[1].rules[0].missed, 40);
    assert_eq!(view[1].rules[0].evaluations, 6);
}

/// A clock that is set by hand.
#[derive(Clone)]
struct Hand(Arc<Mutex<Timestamp>>);

impl Hand {
    fn new() -> Hand {
        Hand(Arc::new(Mutex::new(at(0))))
    }

    fn set(&self, seconds: i64) {
        *self.0.lock().unwrap() = at(seconds);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// Answers by the first word of a query.
#[derive(Default)]
struct Answers {
    busy: AtomicUsize,
}

impl AskSql for Answers {
    fn ask(&self, sql: &str, _rows_max: usize) -> Answer {
        let sample = Sample { labels: Labels::from_iter([("service", "web")]), value: 4.0 };
        let is_busy = sql.starts_with("BUSY") && self.busy.fetch_add(1, Ordering::SeqCst) == 0;
        let answer = match sql.split(' ').next().unwrap_or("") {
            "HANG" => return Box::pin(std::future::pending()),
            "PANIC" => return Box::pin(async { panic!("the query room broke") }),
            "FAIL" => Err(AskError { text: "query took longer than 1 s".to_owned(), is_busy: false }),
            "BUSY" if is_busy => Err(AskError { text: "busy".to_owned(), is_busy: true }),
            _ => Ok(vec![sample]),
        };
        Box::pin(async move { answer })
    }
}

struct Running {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    handle: Handle,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(text: &str, clock: Hand) -> Running {
        Running::start_with(text, clock, None).await
    }

    async fn start_with(text: &str, clock: Hand, turns: Option<Arc<dyn TakeTurns>>) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.db");
        let ledger = Ledger::open(&path).await.unwrap();
        let options = RunnerOptions {
            rules: rules(text),
            config: Config::read(TOLD).unwrap(),
            external_labels: Labels::new(),
            external_url: String::new(),
            retry: Retry::default(),
            turns,
        };
        let sender = Sender::new(Policy::default(), None, "").unwrap();
        let sql = Arc::new(Answers::default());
        let (runner, handle) = Runner::new(options, ledger, sender, sql, Arc::new(clock)).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(runner.run(stopped));
        Running { _folder: folder, path, handle, stop, task }
    }

    async fn until(&self, what: &str, holds: impl Fn(&BTreeMap<String, RuleView>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let groups = self.handle.groups();
            let rules =
                groups.into_iter().flat_map(|group| group.rules).map(|rule| (rule.name.clone(), rule));
            let rules: BTreeMap<String, RuleView> = rules.collect();
            if holds(&rules) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {rules:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) -> Ledger {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        Ledger::open(&self.path).await.unwrap()
    }
}

fn group(name: &str, word: &str) -> String {
    format!(
        "  - name: {name}\n    interval: 1m\n    rules:\n      - {{alert: {name}, sql: {word} 1}}\n      - {{alert: After{name}, sql: SELECT 1}}\n"
    )
}

/// Guarantees: whatever one group's queries do but hang at every place at once, the rules beside them are evaluated.
#[tokio::test]
async fn a_query_that_hangs_fails_or_panics_holds_up_its_own_group_alone() {
    let groups: String =
        [("Hangs", "HANG"), ("Panics", "PANIC"), ("Fails", "FAIL"), ("Waits", "BUSY"), ("Works", "SELECT")]
            .map(|(name, word)| group(name, word))
            .concat();
    let text = format!("groups:\n{groups}");
    let running = Running::start(&text, Hand::new()).await;
    running
        .until("all rules but those that hang", |rules| {
            ["Fails", "Panics"].iter().all(|name| rules[*name].health == "err")
                && ["AfterFails", "Waits", "AfterWaits", "Works", "AfterWorks"]
                    .iter()
                    .all(|name| rules[*name].state == Some("firing"))
                && rules["AfterPanics"].last_error.contains("broke off")
                && rules["Fails"].last_error.contains("longer than")
                && rules["Hangs"].health == "unknown"
        })
        .await;
    let ledger = running.end().await;
    let open = ledger.cases(&CaseFilter::default(), 10).await.unwrap();
    assert_eq!(open.len(), 5, "{open:#?}");
}

/// Turns as somebody gives them.
struct Given(Mutex<Vec<(String, Duration)>>, Mutex<Turn>);

impl TakeTurns for Given {
    fn take(&self, group: &str, span: Duration) -> Asked {
        self.0.lock().unwrap().push((group.to_owned(), span));
        let turn = *self.1.lock().unwrap();
        Box::pin(std::future::ready(turn))
    }
}

/// Guarantees: while it is another server's turn nothing is asked, and each moment costs one question; when it comes here the group is
/// evaluated; streaming rules know no turns.
#[tokio::test]
async fn a_group_is_evaluated_only_when_it_is_this_servers_turn() {
    let given = Arc::new(Given(Mutex::new(Vec::new()), Mutex::new(Turn::Anothers)));
    let clock = Hand::new();
    let text = format!("groups:\n{}", group("Works", "SELECT"));
    let running = Running::start_with(&text, clock.clone(), Some(given.clone())).await;
    let asked = || given.0.lock().unwrap().len();
    running.until("the question", |_| asked() == 1).await;
    clock.set(60);
    running.until("the next one", |rules| asked() == 2 && rules["Works"].evaluations == 0).await;
    *given.1.lock().unwrap() = Turn::Mine;
    clock.set(120);
    running.until("the turn", |rules| rules["AfterWorks"].state == Some("firing")).await;
    running.until("no evaluation to be missed", |rules| rules.values().all(|rule| rule.missed == 0)).await;
    let spans: Vec<Duration> = given.0.lock().unwrap().iter().map(|(_, span)| *span).collect();
    assert!(spans.iter().all(|span| *span == Duration::from_secs(130)), "{spans:?}");
    running.end().await;
}

#[test]
fn what_another_server_evaluates_is_caught_up_when_its_turn_is_over() {
    let mut core = core(RULES, Loaded::default(), at(0));
    let due = |core: &mut Core, seconds| {
        core.start_due(at(seconds)).pop().map(|(_, _, queries)| queries).unwrap_or_default()
    };
    assert_eq!(due(&mut core, 0).len(), 1);
    core.left_to_another(1, at(0));
    core.ended(1);
    assert!(due(&mut core, 0).is_empty(), "it was left until its next moment");
    for seconds in [60, 120] {
        assert!(!due(&mut core, seconds).is_empty());
        core.left_to_another(1, at(seconds));
        core.ended(1);
    }
    let moments: Vec<_> = due(&mut core, 180).iter().map(|query| query.moment).collect();
    assert_eq!(moments.len(), 3, "all since the first that was left: {moments:?}");

    // A turn of another that lasts for hours leaves what can be caught up, and nothing is missed.
    core.left_to_another(1, at(100_000));
    core.ended(1);
    assert_eq!(due(&mut core, 100_060).len(), crate::limits::CATCH_UP_MAX);
    assert!(core.view(at(0)).iter().flat_map(|group| &group.rules).all(|rule| rule.missed == 0));
}

#[tokio::test]
async fn a_silence_is_on_disk_when_it_is_answered() {
    let running = Running::start("groups: []", Hand::new()).await;
    let silence = Silence {
        id: "sil_1".to_owned(),
        matchers: vec![crate::matchers::Matcher::equal("service", "web")],
        starts_at: at(0),
        ends_at: at(60),
        created_by: "ada".to_owned(),
        comment: String::new(),
    };
    assert!(running.handle.silence(silence.clone()).await.unwrap());
    let other = Ledger::open(&running.path).await.unwrap();
    let config = Config::read(TOLD).unwrap();
    let state = other.load().await.unwrap().notifier;
    let notifier = crate::notify::Notifier::new(config, state, at(1));
    assert_eq!(notifier.silences().collect::<Vec<_>>(), [&silence]);
    assert!(running.handle.expire_silence("sil_1").await.unwrap());
    assert!(!running.handle.expire_silence("sil_2").await.unwrap());
    running.end().await;
}

#[tokio::test]
async fn lines_that_reach_a_rule_are_written_with_their_place_and_told() {
    struct Leaks;
    impl Lines for Leaks {
        fn visit(&self, see: &mut dyn FnMut(&[StreamLine<'_>])) {
            let redactions = [("email", 3)];
            see(&[StreamLine { service: "web", level: "info", message: "x", redactions: &redactions }]);
        }
    }
    let clock = Hand::new();
    let running = Running::start(RULES, clock.clone()).await;
    let mut changes = running.handle.changes();
    running.handle.observe(Observed::From(11)).await.unwrap();
    running.handle.observe(Observed::Current).await.unwrap();
    let observed = Observed::Lines { place: 12, at: at(0), lines: Box::new(Leaks) };
    running.handle.observe(observed).await.unwrap();
    let change = loop {
        let change = changes.recv().await.unwrap();
        if change.alert.labels.value("alertname") == "MailLeak" {
            break change;
        }
    };
    assert_eq!(change.change, Change::Firing);
    clock.set(61);
    running.until("the end of the alert", |rules| rules["MailLeak"].state == Some("inactive")).await;
    let ledger = running.end().await;
    let loaded = ledger.load().await.unwrap();
    assert_eq!(loaded.place, Some(12));
    let filter = CaseFilter { service: Some("web".to_owned()), ..CaseFilter::default() };
    let cases = ledger.cases(&filter, 10).await.unwrap();
    let leak = cases.iter().find(|case| case.alertname == "MailLeak").unwrap();
    assert_eq!(
        (leak.severity.as_str(), leak.title.as_str(), leak.status.as_str()),
        ("high", "web leaks", "resolved")
    );
}

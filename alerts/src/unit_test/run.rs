//! The tests' clock: brings lines in, evaluates rules, and compares.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use super::{Case, Expected, InputAgent, InputGap, InputLine, Series, Test, TestFile};
use crate::labels::{ALERTNAME, Labels};
use crate::limits::RULE_FILE_NODES_MAX;
use crate::rules::{AlertRule, Group, Rule, RuleSource};
use crate::state::{Evaluation, Health, Phase, RuleState, Sample};
use crate::stream::{StreamLine, StreamState};
use crate::yaml::Place;

/// The moment that tests call zero: the beginning of 2026.
const ZERO: i64 = 1_767_225_600;

/// Takes in what a test gives, and answers queries about it.
pub trait World {
    /// Takes in what came since the last call, scrubs the lines, and shows them to streaming rules. The levels of metrics and
    /// agents are those of this moment.
    fn advance(&mut self, news: News<'_>) -> impl Future<Output = Result<(), String>>;

    /// The lines that the last [`World::advance`] took in, scrubbed.
    fn seen(&self, see: &mut dyn FnMut(StreamLine<'_>));

    /// The rows of a query.
    fn ask(&mut self, sql: &str, rows_max: usize) -> impl Future<Output = Result<Vec<Sample>, String>>;
}

/// What a moment brings.
#[derive(Debug)]
pub struct News<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Lines, with their times.
    pub lines: Vec<(Timestamp, &'a InputLine)>,
    /// Losses, with their times.
    pub gaps: Vec<(Timestamp, &'a InputGap)>,
    /// The series that have a value now.
    pub metrics: Vec<(&'a str, &'a Labels, f64)>,
    /// The agents heard of until now: host, and when last.
    pub agents: Vec<(&'a str, Timestamp)>,
}

/// A case that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The test.
    pub test: String,
    /// Where the case stands.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.test.is_empty() {
            write!(f, "{}: ", self.test)?;
        }
        f.write_str(&self.message)
    }
}

/// A rule under test.
struct Running<'a> {
    rule: &'a AlertRule,
    interval: Duration,
    state: RuleState,
    counts: StreamState,
}

/// Runs one test in a world that is empty yet.
pub async fn run<W: World>(world: &mut W, file: &TestFile, groups: &[Group], test: &Test) -> Vec<Failure> {
    let mut rules: Vec<Running<'_>> = groups
        .iter()
        .flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
        .filter_map(|(group, rule)| match rule {
            // What no case looks at need not be evaluated.
            Rule::Alert(rule) if test.cases.iter().any(|case| case.alertname == rule.name) => Some(Running {
                rule,
                interval: group.interval.unwrap_or(file.evaluation_interval),
                state: RuleState::default(),
                counts: StreamState::default(),
            }),
            Rule::Alert(_) | Rule::Record(_) => None,
        })
        .collect();
    let failure = |case: &Case, message| Failure { test: test.name.clone(), place: case.place, message };
    let mut failures: Vec<Failure> = test
        .cases
        .iter()
        .filter(|case| rules.iter().all(|running| running.rule.name != case.alertname))
        .map(|case| failure(case, format!("there is no rule `{}` in the rule files", case.alertname)))
        .collect();
    let mut cases: Vec<&Case> = test.cases.iter().collect();
    cases.sort_by_key(|case| case.eval_time);
    let Some(end) = cases.last().map(|case| case.eval_time) else { return failures };

    let (mut cases, mut taken, mut gaps_taken) = (cases.into_iter().peekable(), 0, Duration::ZERO);
    let mut gaps_begin = true;
    for moment in moments(&rules, test, end) {
        // A case looks at what was before the first evaluation after its time.
        while let Some(case) = cases.next_if(|case| case.eval_time < moment) {
            failures.extend(compare(&rules, case).map(|message| failure(case, message)));
        }
        let until = test.lines.partition_point(|line| line.at <= moment);
        let lines = test.lines.get(taken..until).unwrap_or_default();
        taken = until;
        let gaps =
            test.gaps.iter().filter(|gap| (gap.at > gaps_taken || gaps_begin) && gap.at <= moment).collect();
        (gaps_taken, gaps_begin) = (moment, false);
        if let Err(text) = world.advance(news(test, moment, lines, gaps)).await {
            let case = test.cases.first();
            failures.extend(case.map(|case| failure(case, format!("the input cannot be taken in: {text}"))));
            return failures;
        }
        for running in &mut rules {
            evaluate(world, running, moment).await;
        }
    }
    for case in cases {
        failures.extend(compare(&rules, case).map(|message| failure(case, message)));
    }
    failures.sort_by_key(|failure| failure.place);
    failures
}

/// When something happens: each line that comes, and each evaluation, up to the end.
fn moments(rules: &[Running<'_>], test: &Test, end: Duration) -> BTreeSet<Duration> {
    let intervals: BTreeSet<Duration> = rules.iter().map(|running| running.interval).collect();
    let mut moments: BTreeSet<Duration> =
        test.lines.iter().map(|line| line.at).filter(|at| *at <= end).collect();
    for interval in intervals {
        let mut moment = Duration::ZERO;
        while moment <= end && moments.len() < RULE_FILE_NODES_MAX {
            moments.insert(moment);
            moment = moment.saturating_add(interval.max(Duration::from_millis(1)));
        }
    }
    moments
}

fn time(since: Duration) -> Timestamp {
    Timestamp::from_second(ZERO).ok().and_then(|zero| zero.checked_add(since).ok()).unwrap_or(Timestamp::MAX)
}

fn news<'a>(test: &'a Test, moment: Duration, lines: &'a [InputLine], gaps: Vec<&'a InputGap>) -> News<'a> {
    let metric = |series: &'a Series| Some((series.name.as_str(), &series.labels, series.value(moment)?));
    let agent = |agent: &'a InputAgent| Some((agent.host.as_str(), time(agent.last_seen(moment)?)));
    News {
        now: time(moment),
        lines: lines.iter().map(|line| (time(line.at), line)).collect(),
        gaps: gaps.into_iter().map(|gap| (time(gap.at), gap)).collect(),
        metrics: test.series.iter().filter_map(metric).collect(),
        agents: test.agents.iter().filter_map(agent).collect(),
    }
}

/// A streaming rule counts at every moment and is looked at then; a query is asked when its group's time has come.
async fn evaluate<W: World>(world: &mut W, running: &mut Running<'_>, moment: Duration) {
    let now = time(moment);
    let is_due = moment.as_nanos().is_multiple_of(running.interval.as_nanos().max(1));
    let evaluation = match &running.rule.source {
        RuleSource::Stream(count) => {
            let counts = &mut running.counts;
            let mut is_reached = false;
            world.seen(&mut |line| is_reached |= counts.observe(count, now, [line]));
            if !is_reached && !is_due {
                return;
            }
            Evaluation::Rows(counts.rows(count, now))
        }
        RuleSource::Sql(_) if !is_due => return,
        RuleSource::Sql(query) => match world.ask(&query.at(now), running.rule.limit).await {
            Ok(rows) => Evaluation::Rows(rows),
            Err(text) => Evaluation::Failed(text),
        },
    };
    running.state.on(running.rule, &Labels::new(), now, evaluation);
}

/// What is wrong about a case, if something is.
fn compare(rules: &[Running<'_>], case: &Case) -> Option<String> {
    let mut found = Vec::new();
    for running in rules.iter().filter(|running| running.rule.name == case.alertname) {
        if let Health::Failed(text) = &running.state.health {
            return Some(format!("the rule {} cannot be evaluated: {text}", case.alertname));
        }
        for alert in running.state.alerts().filter(|alert| alert.phase == Phase::Firing) {
            let labels = alert.labels.iter().filter(|(name, _)| *name != ALERTNAME).collect();
            found.push(Expected { labels, annotations: alert.annotations.clone() });
        }
    }
    let mut expected = case.expected.clone();
    found.sort();
    expected.sort();
    if found == expected || !rules.iter().any(|running| running.rule.name == case.alertname) {
        return None;
    }
    Some(format!(
        "{} at {}:\n  expected: {}\n  got:      {}",
        case.alertname,
        crate::duration::write(case.eval_time),
        shown(&expected),
        shown(&found)
    ))
}

fn shown(alerts: &[Expected]) -> String {
    if alerts.is_empty() {
        return "no alert".to_owned();
    }
    let one = |alert: &Expected| format!("labels {} annotations {}", alert.labels, alert.annotations);
    alerts.iter().map(one).collect::<Vec<_>>().join("\n            ")
}

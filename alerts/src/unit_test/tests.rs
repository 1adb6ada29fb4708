//! Notation, faults, and the tests' clock. Queries and the real filter are run by the program's own tests.

use super::*;
use crate::rules::RuleFile;
use crate::state::Sample;
use crate::stream::StreamLine;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

#[test]
fn values_are_those_that_promtool_makes_of_the_notation() {
    let values = |text: &str| -> Vec<Option<f64>> {
        let series = Series::read("a", text, minutes(10)).unwrap();
        (0..8).map(|step| series.value(minutes(10 * step))).collect()
    };
    let some = |numbers: &[f64]| -> Vec<Option<f64>> {
        let mut out: Vec<_> = numbers.iter().copied().map(Some).collect();
        out.resize(8, None);
        out
    };
    assert_eq!(values("1 2 3"), some(&[1.0, 2.0, 3.0]));
    assert_eq!(values("1+2x3"), some(&[1.0, 3.0, 5.0, 7.0]));
    assert_eq!(values("1-2x3"), some(&[1.0, -1.0, -3.0, -5.0]));
    assert_eq!(values("-1+2x2"), some(&[-1.0, 1.0, 3.0]));
    assert_eq!(values("-2-1x2"), some(&[-2.0, -3.0, -4.0]));
    assert_eq!(values("4x2"), some(&[4.0, 4.0, 4.0]));
    assert_eq!(values("1e3+1e-1x1"), some(&[1_000.0, 1_000.1]));
    assert_eq!(values("1 _ 2 _x2 3 stale")[..7], [Some(1.0), None, Some(2.0), None, None, Some(3.0), None]);
    for text in ["a", "1+x2", "1+2x-1", "1x1x1", "1x99999999999"] {
        assert_eq!(Series::read("a", text, minutes(1)), None, "{text}");
    }
}

/// Guarantees: a value lasts five minutes, as in PromQL, and no longer than to the end of its series.
#[test]
fn a_value_lasts_for_five_minutes_and_not_beyond_a_stale_mark() {
    let series = Series::read("a{b=\"c\\\"}\", d = \"e\"}", "1 _x9 2 stale", minutes(1)).unwrap();
    assert_eq!(series.labels.value("b"), "c\"}");
    assert_eq!(series.labels.value("d"), "e");
    assert_eq!(series.value(minutes(5)), Some(1.0));
    assert_eq!(series.value(minutes(6)), None);
    assert_eq!(series.value(Duration::from_secs(10 * 60 + 59)), Some(2.0));
    assert_eq!(series.value(minutes(11)), None);
    for name in ["", "1a", "a{", "a{b}", "a{b=c}", "a{b=\"c}", "a b", "a{b=\"c\" d=\"e\"}"] {
        assert_eq!(Series::read(name, "1", minutes(1)), None, "{name}");
    }
}

#[test]
fn every_fault_of_a_file_is_told_with_its_place() {
    let text = "rule_files: []\ntests:\n- interval: 0s\n  input_lines:\n  - {at: 1m}\n  input_series:\n  - {series: a, values: x}\n  \
                alert_rule_test:\n  - {eval_time: 99999h, alertname: A}\n  - {eval_tim: 1m}\n- name: x\n";
    let faults = TestFile::read(text).unwrap_err().to_string();
    for part in [
        "1:1: `rule_files` names no file",
        "3:3: `interval` is longer than nothing",
        "5:5: the line has no `message`",
        "7:25: the series has another shape",
        "9:17: `eval_time`: \"99999h\" is longer than a year",
        "10:6: unknown key `eval_tim` in a case; known: `eval_time`?",
        "11:3: the test looks at nothing",
    ] {
        assert!(faults.contains(part), "{part} is missing in:\n{faults}");
    }
}

/// A world whose only query counts what came in.
#[derive(Default)]
struct Counting {
    lines: Vec<(String, String)>,
    last: usize,
    metrics: Vec<(String, f64)>,
}

impl World for Counting {
    async fn advance(&mut self, news: News<'_>) -> Result<(), String> {
        self.last = self.lines.len();
        self.lines.extend(news.lines.iter().map(|(_, line)| (line.service.clone(), line.message.clone())));
        self.metrics = news.metrics.iter().map(|(name, _, value)| ((*name).to_owned(), *value)).collect();
        Ok(())
    }

    fn seen(&self, see: &mut dyn FnMut(StreamLine<'_>)) {
        for (service, message) in &self.lines[self.last..] {
            see(StreamLine { service, level: "info", message, redactions: &[] });
        }
    }

    async fn ask(&mut self, sql: &str, _: usize) -> Result<Vec<Sample>, String> {
        let value = match sql {
            "lines" => self.lines.len() as f64,
            metric => match self.metrics.iter().find(|(name, _)| name == metric) {
                Some((_, value)) => *value,
                None => return Err("no such metric".to_owned()),
            },
        };
        Ok(if value > 2.0 { vec![Sample { labels: Labels::new(), value }] } else { Vec::new() })
    }
}

const RULES: &str = "
groups:
- name: a
  rules:
  - {alert: Many, sql: lines, for: 2m, labels: {severity: low}, annotations: {summary: '{{ $value }} lines'}}
  - {alert: Stream, stream: {count: text, of: boom, window: 1m, at_least: 2}, keep_firing_for: 2m}
  - {alert: Level, sql: level}
- name: fast
  interval: 10s
  rules:
  - {alert: Fast, sql: lines, for: 20s}
";

async fn failures(test: &str) -> Vec<String> {
    failures_of(RULES, "", test).await
}

async fn failures_of(rules: &str, head: &str, test: &str) -> Vec<String> {
    let groups = RuleFile::read(rules).unwrap().groups;
    let file = TestFile::read(&format!("rule_files: [a]\n{head}tests:\n{test}"))
        .unwrap_or_else(|error| panic!("{error}"));
    let failures = run(&mut Counting::default(), &file, &groups, &file.tests[0]).await;
    failures.iter().map(ToString::to_string).collect()
}

/// Guarantees: alerts fire when Prometheus' clock says so: at evaluations of their own group, `for` minded, streams at once.
#[tokio::test]
async fn alerts_fire_at_the_evaluation_at_which_they_have_to() {
    let right = "
- name: all
  input_lines:
  - {at: 30s, message: boom, repeat: 2, every: 40s}
  - {at: 90s, message: other, service: web}
  input_series:
  - {series: level, values: '0 0 5 5'}
  alert_rule_test:
  # Three lines at 1m30s; seen at 2m, and for two minutes at 4m.
  - {eval_time: 3m59s, alertname: Many}
  - {eval_time: 4m, alertname: Many, exp_alerts: [{exp_labels: {severity: low}, exp_annotations: {summary: 3 lines}}]}
  - {eval_time: 1m49s, alertname: Fast}
  - {eval_time: 1m50s, alertname: Fast, exp_alerts: [{}]}
  - {eval_time: 1m9s, alertname: Stream}
  - {eval_time: 1m10s, alertname: Stream, exp_alerts: [{exp_labels: {service: app}}]}
  - {eval_time: 3m59s, alertname: Stream, exp_alerts: [{exp_labels: {service: app}}]}
  - {eval_time: 5m, alertname: Stream}
  - {eval_time: 1m, alertname: Level}
  - {eval_time: 2m, alertname: Level, exp_alerts: [{}]}
";
    assert_eq!(failures(right).await, Vec::<String>::new());
}

/// Guarantees: a group that names an interval has it, also where it is the one that groups have by default.
#[tokio::test]
async fn a_group_that_names_a_minute_is_evaluated_every_minute() {
    let rules = "
groups:
- name: named
  interval: 1m
  rules: [{alert: Named, sql: lines}]
- name: other
  rules: [{alert: Other, sql: lines}]
";
    let test = "
- input_lines: [{at: 30s, message: x, repeat: 3}]
  alert_rule_test:
  - {eval_time: 1m, alertname: Named, exp_alerts: [{}]}
  - {eval_time: 4m, alertname: Other}
  - {eval_time: 5m, alertname: Other, exp_alerts: [{}]}
";
    assert_eq!(failures_of(rules, "evaluation_interval: 5m\n", test).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_as_expected_is_told_with_place_and_both_sides() {
    let wrong = "
- name: wrong
  input_lines: [{message: x, repeat: 3}]
  alert_rule_test:
  - {eval_time: 2m, alertname: Many, exp_alerts: [{exp_labels: {severity: high}}]}
  - {eval_time: 2m, alertname: Level}
  - {eval_time: 2m, alertname: Nowhere}
";
    let failures = failures(wrong).await;
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert_eq!(
        failures[0],
        "7:5: wrong: Many at 2m:\n  expected: labels {severity=\"high\"} annotations {}\n  \
         got:      labels {severity=\"low\"} annotations {summary=\"3 lines\"}"
    );
    assert!(failures[1].ends_with("the rule Level cannot be evaluated: no such metric"), "{}", failures[1]);
    assert!(failures[2].ends_with("there is no rule `Nowhere` in the rule files"), "{}", failures[2]);
}

/// Guarantees: the ready rules and their tests can be read, and every rule is looked at by a case that has it fire.
#[test]
fn every_ready_rule_has_a_test_that_has_it_fire() {
    let tests =
        TestFile::read(include_str!("../../pack/tests.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let fires: Vec<&str> = tests
        .tests
        .iter()
        .flat_map(|test| &test.cases)
        .filter(|case| !case.expected.is_empty())
        .map(|case| case.alertname.as_str())
        .collect();
    for (name, text) in crate::pack() {
        let file = RuleFile::read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (_, rule) in file.rules() {
            let crate::rules::Rule::Alert(rule) = rule else { continue };
            assert!(fires.contains(&rule.name.as_str()), "{} is tested by no case", rule.name);
            assert!(rule.annotations.iter().any(|(name, _)| name == "summary"), "{}", rule.name);
            assert!(rule.labels.iter().any(|(name, _)| name == "severity"), "{}", rule.name);
        }
    }
}

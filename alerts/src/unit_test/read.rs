//! The YAML of a file of unit tests, with every fault at once and where it stands.

use std::time::Duration;

use super::{Case, Expected, InputAgent, InputGap, InputLine, Series, Test, TestFile};
use crate::labels::Labels;
use crate::limits::{INTERVAL_DEFAULT, INTERVAL_MIN, UNIT_TEST_EVALUATIONS_MAX, UNIT_TEST_LINES_MAX};
use crate::rules::RuleFileError;
use crate::yaml::{Faults, Node, Taker};

impl TestFile {
    /// Reads a file of unit tests.
    ///
    /// # Errors
    ///
    /// With all faults of the file; of a file that is no YAML, with the first.
    pub fn read(text: &str) -> Result<TestFile, RuleFileError> {
        let root = crate::yaml::read(text).map_err(|faults| RuleFileError { faults })?;
        let mut faults = Faults::default();
        let file = read_file(root, &mut faults);
        let faults = faults.finish();
        match file {
            Some(file) if faults.is_empty() => Ok(file),
            _ => Err(RuleFileError { faults }),
        }
    }
}

fn read_file(root: Node, faults: &mut Faults) -> Option<TestFile> {
    let mut taker = Taker::new(root, "the file", faults)?;
    let place = taker.place;
    let rule_files: Vec<String> =
        taker.texts("rule_files", faults).unwrap_or_default().into_iter().map(|(_, file)| file).collect();
    if rule_files.is_empty() {
        faults.add(place, "`rule_files` names no file");
    }
    let evaluation_interval = taker.duration("evaluation_interval", faults).unwrap_or(INTERVAL_DEFAULT);
    if evaluation_interval < INTERVAL_MIN {
        faults.add(place, format!("`evaluation_interval` is at least {}s", INTERVAL_MIN.as_secs()));
    }
    let tests = taker
        .list("tests", faults)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| read_test(node, evaluation_interval, faults))
        .collect();
    taker.finish(&["rule_files", "evaluation_interval", "tests"], faults);
    Some(TestFile { rule_files, evaluation_interval, tests })
}

const TEST_KEYS: [&str; 7] =
    ["name", "interval", "input_lines", "input_series", "input_gaps", "input_agents", "alert_rule_test"];

fn read_test(node: Node, evaluation_interval: Duration, faults: &mut Faults) -> Option<Test> {
    let mut taker = Taker::new(node, "a test", faults)?;
    let place = taker.place;
    let name = taker.text("name", faults).map(|(_, name)| name).unwrap_or_default();
    let interval = taker.duration("interval", faults).unwrap_or(evaluation_interval);
    if interval.is_zero() {
        faults.add(place, "`interval` is longer than nothing");
    }
    let mut lines = Vec::new();
    for node in taker.list("input_lines", faults).unwrap_or_default() {
        read_line(node, &mut lines, faults);
    }
    // Lines come in in the order of their times, those of one time as they are written.
    lines.sort_by_key(|line: &InputLine| line.at);
    let each = |taker: &mut Taker, key, faults: &mut Faults| taker.list(key, faults).unwrap_or_default();
    let series = each(&mut taker, "input_series", faults)
        .into_iter()
        .filter_map(|node| read_series(node, interval, faults))
        .collect();
    let gaps = each(&mut taker, "input_gaps", faults)
        .into_iter()
        .filter_map(|node| read_gap(node, faults))
        .collect();
    let agents = each(&mut taker, "input_agents", faults)
        .into_iter()
        .filter_map(|node| read_agent(node, faults))
        .collect();
    let cases: Vec<Case> = each(&mut taker, "alert_rule_test", faults)
        .into_iter()
        .filter_map(|node| read_case(node, evaluation_interval, faults))
        .collect();
    taker.finish(&TEST_KEYS, faults);
    if cases.is_empty() {
        faults.add(place, "the test looks at nothing: it has no `alert_rule_test`");
    }
    Some(Test { name, place, lines, series, gaps, agents, cases })
}

fn read_line(node: Node, lines: &mut Vec<InputLine>, faults: &mut Faults) {
    let Some(mut taker) = Taker::new(node, "a line", faults) else { return };
    let place = taker.place;
    let at = taker.duration("at", faults).unwrap_or_default();
    let message = taker.text("message", faults).map(|(_, message)| message);
    let mut text = |key: &str, default: &str| {
        taker.text(key, faults).map_or_else(|| default.to_owned(), |(_, text)| text)
    };
    let (service, host) = (text("service", "app"), text("host", "host-1"));
    let container = text("container", &service);
    let level = taker.text("level", faults).map(|(_, level)| level);
    let repeat = taker.count("repeat", faults).unwrap_or(1);
    let every = taker.duration("every", faults).unwrap_or_default();
    taker.finish(&["at", "message", "service", "host", "container", "level", "repeat", "every"], faults);
    let Some(message) = message else {
        faults.add(place, "the line has no `message`");
        return;
    };
    let room = UNIT_TEST_LINES_MAX.saturating_sub(lines.len());
    if usize::try_from(repeat).unwrap_or(usize::MAX) > room {
        faults.add(place, format!("a test has at most {UNIT_TEST_LINES_MAX} lines"));
        return;
    }
    for number in 0..u32::try_from(repeat).unwrap_or(0) {
        lines.push(InputLine {
            at: at.saturating_add(every.saturating_mul(number)),
            service: service.clone(),
            host: host.clone(),
            container: container.clone(),
            level: level.clone(),
            message: message.clone(),
        });
    }
}

fn read_series(node: Node, interval: Duration, faults: &mut Faults) -> Option<Series> {
    let mut taker = Taker::new(node, "a series", faults)?;
    let place = taker.place;
    let (series, values) = (taker.text("series", faults), taker.text("values", faults));
    taker.finish(&["series", "values"], faults);
    let (Some((_, series)), Some((values_place, values))) = (series, values) else {
        faults.add(place, "a series has `series` and `values`");
        return None;
    };
    let read = Series::read(&series, &values, interval);
    if read.is_none() {
        faults.add(
            values_place,
            "the series has another shape: name{label=\"value\"}, and values such as 1+2x5, 3x4, _ or stale",
        );
    }
    read
}

fn read_gap(node: Node, faults: &mut Faults) -> Option<InputGap> {
    let mut taker = Taker::new(node, "a gap", faults)?;
    let gap = InputGap {
        at: taker.duration("at", faults).unwrap_or_default(),
        service: taker.text("service", faults).map_or_else(|| "app".to_owned(), |(_, service)| service),
        reason: taker.text("reason", faults).map_or_else(|| "rotated".to_owned(), |(_, reason)| reason),
        bytes: taker.count("bytes", faults).unwrap_or(0),
    };
    taker.finish(&["at", "service", "reason", "bytes"], faults);
    Some(gap)
}

fn read_agent(node: Node, faults: &mut Faults) -> Option<InputAgent> {
    let mut taker = Taker::new(node, "an agent", faults)?;
    let place = taker.place;
    let host = taker.text("host", faults).map(|(_, host)| host);
    let from = taker.duration("from", faults).unwrap_or_default();
    let until = taker.duration("until", faults).unwrap_or(crate::limits::DURATION_MAX);
    taker.finish(&["host", "from", "until"], faults);
    if from > until {
        faults.add(place, "`from` is after `until`");
    }
    if host.is_none() {
        faults.add(place, "the agent has no `host`");
    }
    Some(InputAgent { host: host?, from, until })
}

fn read_case(node: Node, evaluation_interval: Duration, faults: &mut Faults) -> Option<Case> {
    let mut taker = Taker::new(node, "a case", faults)?;
    let place = taker.place;
    let eval_time = taker.duration("eval_time", faults);
    let alertname = taker.text("alertname", faults);
    let expected = taker
        .list("exp_alerts", faults)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| read_expected(node, faults))
        .collect();
    taker.finish(&["eval_time", "alertname", "exp_alerts"], faults);
    let (Some(eval_time), Some((_, alertname))) = (eval_time, alertname) else {
        faults.add(place, "a case has `eval_time` and `alertname`");
        return None;
    };
    if eval_time.as_nanos() / evaluation_interval.as_nanos().max(1) > UNIT_TEST_EVALUATIONS_MAX {
        faults.add(place, format!("`eval_time` is more than {UNIT_TEST_EVALUATIONS_MAX} evaluations away"));
    }
    Some(Case { eval_time, alertname, expected, place })
}

fn read_expected(node: Node, faults: &mut Faults) -> Option<Expected> {
    let mut taker = Taker::new(node, "an expected alert", faults)?;
    let mut map = |key| -> Labels {
        taker.text_map(key, faults).into_iter().map(|(_, name, value)| (name, value)).collect()
    };
    let expected = Expected { labels: map("exp_labels"), annotations: map("exp_annotations") };
    taker.finish(&["exp_labels", "exp_annotations"], faults);
    Some(expected)
}

//! What Prometheus is told of alerts: their states as series, how rules do, and what rules record.

use std::fmt;

use beeacon_alerts::labels::is_plain_name;
use beeacon_alerts::runner::{Handle, RuleView};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The most series of alerts and of records, each. What would be more is left out, and counted.
const SERIES_MAX: usize = 2_000;

/// Asks the runner whenever metrics are read.
pub(super) struct Shown(Handle);

impl Shown {
    pub(super) fn new(handle: Handle) -> Self {
        Shown(handle)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

type Labels = Vec<(String, String)>;

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (status, delivered) = (self.0.status_now(), self.0.delivered());
        let groups = self.0.groups();
        let rules: Vec<&RuleView> = groups.iter().flat_map(|group| &group.rules).collect();
        let mut left_out = 0;
        let alerts = alert_series(&rules, &mut left_out);
        family(
            &mut encoder,
            "beeacon_alerts",
            "Alerts that are pending or fire, as Prometheus' ALERTS",
            &alerts,
        )?;
        let of_rules = |number: fn(&RuleView) -> f64| -> Vec<(Labels, f64)> {
            let label = |rule: &RuleView| vec![("rule".to_owned(), rule.id.clone())];
            rules.iter().take(SERIES_MAX).map(|rule| (label(rule), number(rule))).collect()
        };
        let failing = of_rules(|rule| f64::from(u8::from(rule.health == "err")));
        family(
            &mut encoder,
            "beeacon_alerts_rule_failing",
            "Whether the rule's last evaluation failed",
            &failing,
        )?;
        let seconds = of_rules(|rule| rule.evaluation_seconds);
        let help = "How long the rule's last evaluation took";
        family(&mut encoder, "beeacon_alerts_rule_evaluation_seconds", help, &seconds)?;
        let last =
            of_rules(|rule| rule.last_evaluation.map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0));
        let help = "The moment of the rule's last evaluation, in seconds since 1970";
        family(&mut encoder, "beeacon_alerts_rule_evaluated_timestamp_seconds", help, &last)?;
        for (name, help, count) in [
            ("evaluations", "Evaluations of rules", rules.iter().map(|rule| rule.evaluations).sum()),
            (
                "evaluation_failures",
                "Evaluations of rules that failed",
                rules.iter().map(|rule| rule.failures).sum(),
            ),
            ("evaluations_missed", "Evaluations that were never made", status.evaluations_missed),
            (
                "stream_refused",
                "Counts left out because there were too many services",
                rules.iter().map(|rule| rule.refused).sum(),
            ),
            ("messages_delivered", "Messages that receivers took", delivered.delivered),
            ("messages_failed", "Attempts at a message that failed and are made again", delivered.again),
            ("messages_given_up", "Messages that were given up", delivered.given_up),
            ("lost_records", "Records of the journal lost before they were counted", status.lost_records),
        ] {
            let count: ConstCounter<u64> = ConstCounter::new(count);
            let name = format!("beeacon_alerts_{name}");
            count.encode(encoder.encode_descriptor(&name, help, None, MetricType::Counter)?)?;
        }
        let recorded = recorded_series(&rules, &mut left_out);
        for (name, series) in &recorded {
            family(&mut encoder, name, "What a rule recorded last", series)?;
        }
        for (name, help, level) in [
            (
                "series_left_out",
                "Series of alerts and records beyond the limit of their number",
                left_out as u64,
            ),
            ("rules", "Rules in use", status.rules as u64),
            (
                "rules_stale",
                "Whether the rule files have faults, so that older rules are in use",
                u64::from(status.reload_fault.is_some()),
            ),
            (
                "ledger_failing",
                "Whether nothing can be written down now",
                u64::from(status.ledger_fault.is_some()),
            ),
            (
                "journal_lsn",
                "The last record of the journal whose lines are counted",
                status.place.unwrap_or(0),
            ),
        ] {
            let level: ConstGauge<i64> = ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX));
            let name = format!("beeacon_alerts_{name}");
            level.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn alert_series(rules: &[&RuleView], left_out: &mut usize) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for alert in rules.iter().flat_map(|rule| &rule.alerts).filter(|alert| alert.state != "resolved") {
        if series.len() >= SERIES_MAX {
            *left_out += 1;
            continue;
        }
        let mut labels = plain(alert.labels.iter());
        labels.retain(|(name, _)| name != "alertstate");
        labels.push(("alertstate".to_owned(), alert.state.to_owned()));
        series.push((labels, 1.0));
    }
    series
}

/// What rules recorded, by the name of the series. Names of our own are not to be taken by rules.
fn recorded_series<'a>(rules: &[&'a RuleView], left_out: &mut usize) -> Vec<(&'a str, Vec<(Labels, f64)>)> {
    let mut all: Vec<(&str, Vec<(Labels, f64)>)> = Vec::new();
    let mut count = 0;
    for rule in rules.iter().filter(|rule| rule.kind == "recording" && !rule.name.starts_with("beeacon_")) {
        for sample in &rule.recorded {
            if count >= SERIES_MAX {
                *left_out += 1;
                continue;
            }
            count += 1;
            let one = (plain(sample.labels.iter()), sample.value);
            match all.iter_mut().find(|(name, _)| *name == rule.name) {
                Some((_, series)) => series.push(one),
                None => all.push((&rule.name, vec![one])),
            }
        }
    }
    all
}

/// The labels that Prometheus' text can carry.
fn plain<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    labels
        .filter(|(name, _)| is_plain_name(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: &[(Labels, f64)],
) -> Result<(), fmt::Error> {
    if series.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        let value: ConstGauge<f64> = ConstGauge::new(*value);
        value.encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

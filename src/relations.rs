//! Tables of the program itself, for queries and rules: `metrics`, the levels and counts that `/metrics` shows, `agents`, those that the
//! collector knows, and `filter_rules`, what the pollen filter looks for. And the one level that no room knows: how full the disk is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use beeacon_agent::metrics::exposed;
use beeacon_filters::Rule;
use beeacon_query::relation::{ColumnKind, Relation, RelationError, RelationRows, Value, Wanted};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::events;
use crate::server::locked;

/// One sample of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricRow {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AgentRow {
    pub(crate) agent: String,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) sources: i64,
    pub(crate) last_seen_ns: i64,
}

/// `metrics(name, labels, value)`: what `/metrics` shows at this moment; `labels` is JSON.
pub(crate) struct Metrics(Box<dyn Fn() -> Vec<MetricRow> + Send + Sync>);

/// `agents(agent, host, version, sources, last_seen)`.
pub(crate) struct Agents(Box<dyn Fn() -> Vec<AgentRow> + Send + Sync>);

impl Metrics {
    /// The rows that a function gives.
    pub(crate) fn new(rows: impl Fn() -> Vec<MetricRow> + Send + Sync + 'static) -> Self {
        Metrics(Box::new(rows))
    }

    /// Those of a registry.
    pub(crate) fn of(registry: Arc<Mutex<Registry>>) -> Self {
        Metrics::new(move || {
            let text = exposed(&locked(&registry)).unwrap_or_else(|_| {
                tracing::warn!("the table metrics is empty: they cannot be written as text");
                String::new()
            });
            text.lines().filter_map(read_sample).collect()
        })
    }
}

impl Agents {
    /// The rows that a function gives.
    pub(crate) fn new(rows: impl Fn() -> Vec<AgentRow> + Send + Sync + 'static) -> Self {
        Agents(Box::new(rows))
    }

    /// Those that a collector knows.
    pub(crate) fn of(collector: beeacon_collector::Collector) -> Self {
        Agents::new(move || {
            let agents = collector.status().agents.into_iter();
            agents
                .map(|agent| AgentRow {
                    agent: agent.agent.to_string(),
                    host: agent.host,
                    version: agent.version,
                    sources: i64::try_from(agent.sources).unwrap_or(i64::MAX),
                    last_seen_ns: agent.received_ns,
                })
                .collect()
        })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agents")
    }
}

impl Relation for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        &[("name", ColumnKind::Text), ("labels", ColumnKind::Text), ("value", ColumnKind::Real)]
    }

    fn rows(&self, _tenant: &str, _wanted: &Wanted) -> RelationRows {
        let rows = (self.0)().into_iter().map(|row| {
            let labels =
                serde_json::to_string(&row.labels).map_err(|error| RelationError(error.to_string()))?;
            Ok(vec![Value::Text(row.name), Value::Text(labels), Value::Real(row.value)])
        });
        let rows = rows.collect();
        Box::pin(async move { rows })
    }
}

impl Relation for Agents {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        &[
            ("agent", ColumnKind::Text),
            ("host", ColumnKind::Text),
            ("version", ColumnKind::Text),
            ("sources", ColumnKind::Number),
            ("last_seen", ColumnKind::Time),
        ]
    }

    fn rows(&self, _tenant: &str, _wanted: &Wanted) -> RelationRows {
        let rows = (self.0)().into_iter().map(|row| {
            // Zero is never.
            let last_seen = if row.last_seen_ns == 0 { Value::Null } else { Value::Time(row.last_seen_ns) };
            let text = Value::Text;
            vec![text(row.agent), text(row.host), text(row.version), Value::Number(row.sources), last_seen]
        });
        let rows = Ok(rows.collect());
        Box::pin(async move { rows })
    }
}

/// `filter_rules(rule, category, severity, description)`: the library of the pollen filter, whether a profile uses them or not.
#[derive(Debug)]
pub(crate) struct FilterRules;

impl Relation for FilterRules {
    fn name(&self) -> &'static str {
        "filter_rules"
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        &[
            ("rule", ColumnKind::Text),
            ("category", ColumnKind::Text),
            ("severity", ColumnKind::Text),
            ("description", ColumnKind::Text),
        ]
    }

    fn rows(&self, _tenant: &str, _wanted: &Wanted) -> RelationRows {
        static ROWS: LazyLock<Result<Vec<Vec<Value>>, String>> = LazyLock::new(|| {
            let rules = beeacon_filters::library::rules().map_err(|error| error.to_string())?;
            let row = |rule: &Rule| {
                let severity = events::severity(rule.severity());
                let words = [rule.id(), rule.category(), severity, rule.description()];
                words.map(|word| Value::Text(word.to_owned())).to_vec()
            };
            Ok(rules.iter().map(row).collect())
        });
        let rows = ROWS.clone().map_err(RelationError);
        Box::pin(async move { rows })
    }
}

/// The file system that the data lies on, as metrics.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// That of a directory.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Disk { directory }
    }
}

impl Collector for Disk {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // A file system that cannot be asked has no level: an alert on it has no rows.
        let Ok(disk) = rustix::fs::statvfs(&self.directory) else { return Ok(()) };
        for (name, help, blocks) in [
            ("beeacon_disk_bytes", "Bytes of the file system with the data", disk.f_blocks),
            ("beeacon_disk_free_bytes", "Of those, bytes that this program may still take", disk.f_bavail),
        ] {
            let bytes = i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
            let level = ConstGauge::new(bytes);
            level.encode(encoder.encode_descriptor(name, help, None, level.metric_type())?)?;
        }
        Ok(())
    }
}

/// A line of Prometheus' text format; none of a comment, nor of a sample whose number is none.
fn read_sample(line: &str) -> Option<MetricRow> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, behind)) => {
            let (labels, rest) = read_labels(behind)?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(MetricRow { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"} rest`, with the escapes of the format in the values.
fn read_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), behind.chars());
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                c => value.push(c),
            }
        }
        labels.insert(name.to_owned(), value);
        rest = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;

    use super::*;

    #[test]
    fn a_sample_is_read_with_all_that_its_labels_hold() {
        let mut registry = Registry::default();
        let family = Family::<Vec<(String, String)>, Counter>::default();
        let odd = "a \"b\" \\ } , =\nend";
        family
            .get_or_create(&vec![("one".to_owned(), odd.to_owned()), ("two".to_owned(), "x".to_owned())])
            .inc();
        registry.register("beeacon_odd", "Odd", family);
        let plain = Counter::<u64>::default();
        plain.inc_by(7);
        registry.register("beeacon_plain", "Plain", plain);
        let rows = (Metrics::of(Arc::new(Mutex::new(registry))).0)();
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("beeacon_plain_total").value, 7.0);
        let odd_row = row("beeacon_odd_total");
        assert_eq!(
            (odd_row.labels["one"].as_str(), odd_row.labels["two"].as_str(), odd_row.value),
            (odd, "x", 1.0)
        );
        assert_eq!(rows.len(), 2);
    }
}

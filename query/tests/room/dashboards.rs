//! The dashboards: each is in its one form, keeps to the rules that Grafana's users rely on, and every query of it is run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use beeacon_query::QueryOptions;
use beeacon_query::relation::{ColumnKind, Relation, RelationRows, Value as Cell, Wanted};
use prometheus_client::registry::Registry;
use serde_json::Value;

use crate::grafana::Choice;
use crate::postgres::has;
use crate::world::{NOON_NS, World, said};

const SQL: &str = "grafana-postgresql-datasource";

/// What a user looks at: a year from the morning of the lines on, because what the tables of files and queries say is of today.
const CHOICE: Choice<'_> = Choice {
    from: "2026-01-05T09:00:00Z",
    to: "2027-01-05T15:00:00Z",
    interval_s: 60,
    variables: &[
        ("service", "'web','db'"),
        ("level", "'info','error'"),
        ("rule", "'email','iban'"),
        ("severity", "'high','low'"),
        ("text", "''"),
    ],
};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards"))
}

/// Every dashboard by its file's name, as text and as JSON.
fn dashboards() -> BTreeMap<String, (String, Value)> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), (text, json))
        })
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn dashboards_are_canonical_and_their_uids_stay_as_they_are() {
    let dashboards = dashboards();
    assert!(dashboards.len() >= 6);
    let mut uids = String::new();
    for (name, (text, json)) in &dashboards {
        assert_eq!(*text, serde_json::to_string_pretty(json).unwrap() + "\n", "{name} is not canonical");
        assert!(!text.contains("${DS_"), "{name} is an export");
        assert!(json["id"].is_null() && json.get("version").is_none(), "{name}");
        uids.push_str(&format!("{name} {}\n", json["uid"].as_str().unwrap()));
    }
    let locked = std::fs::read_to_string(directory().join("uids.lock")).unwrap();
    assert_eq!(uids, locked, "links of users lead to the uids in uids.lock");
}

/// The rules of Grafana's dashboard linter, restated.
#[test]
fn dashboards_keep_to_the_linters_rules() {
    let mut faults = Vec::new();
    for (name, (_, json)) in dashboards() {
        let mut fault = |rule: &str, what: &str| faults.push(format!("{name}: {rule}: {what}"));
        if json["editable"] != false {
            fault("uneditable-dashboard", "editable is not false");
        }
        let variables = list(&json["templating"], "list");
        let sources: Vec<_> = variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        let kind = sources.first().map_or("", |source| source["query"].as_str().unwrap());
        if sources.len() != 1 || sources[0]["name"] != "datasource" || sources[0]["label"] != "Data source" {
            fault("template-datasource-rule", "one variable datasource, labelled Data source");
        }
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            if variable["refresh"] != 2 {
                fault("template-on-time-change-reload-rule", &variable["name"].to_string());
            }
        }
        if kind == "prometheus" {
            for wanted in ["job", "instance"] {
                let fits = variables.iter().any(|variable| {
                    variable["name"] == wanted && variable["multi"] == true && variable["allValue"] == ".+"
                });
                if !fits {
                    fault(&format!("template-{wanted}-rule"), "no such variable, or not as it should be");
                }
            }
        }
        for panel in list(&json, "panels") {
            let title = panel["title"].as_str().unwrap_or_default();
            if title.is_empty() || panel["description"].as_str().unwrap_or_default().is_empty() {
                fault("panel-title-description-rule", title);
            }
            if panel["datasource"]["uid"] != "${datasource}" || panel["datasource"]["type"] != kind {
                fault("panel-datasource-rule", title);
            }
            if panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default().is_empty() {
                fault("panel-units-rule", title);
            }
            if list(panel, "targets").is_empty() {
                fault("panel-no-targets-rule", title);
            }
            let asked = || list(panel, "targets").iter().filter_map(|target| target["expr"].as_str());
            for expr in asked().filter(|_| kind == "loki") {
                let outside_of_text: String = expr.split('`').step_by(2).collect();
                if outside_of_text.matches('[').count() != outside_of_text.matches("[$__auto]").count() {
                    fault("target-logql-auto-rule", title);
                }
            }
            for expr in asked().filter(|_| kind == "prometheus") {
                let selectors = expr.matches("beeacon_").count();
                for (rule, wanted) in [
                    ("target-job-rule", "job=~\"$job\""),
                    ("target-instance-rule", "instance=~\"$instance\""),
                ] {
                    if expr.matches(wanted).count() != selectors {
                        fault(rule, title);
                    }
                }
                if expr.matches("rate(").count() != expr.matches("[$__rate_interval]").count() {
                    fault("target-rate-interval-rule", title);
                }
                if expr.matches("_total{").count() + expr.matches("_bucket{").count()
                    != expr.matches("rate(beeacon_").count()
                {
                    fault("target-counter-agg-rule", title);
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What Grafana's types and the grammars of PromQL and LogQL say of dashboards; none where they are not installed.
fn checked(files: &[PathBuf]) -> Option<std::process::Output> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let modules = cache.join("beeacon/grafana");
    let is_there =
        has("node", &["--version"]) && has("test", &["-d", modules.join("node_modules").to_str().unwrap()]);
    let check = directory().join("check/check.mjs");
    is_there.then(|| Command::new("node").arg(check).arg(modules).args(files).output().unwrap())
}

/// Guarantees: every dashboard has the types of Grafana's own schema, every PromQL query parses by Prometheus' own grammar and every LogQL
/// query by that of Grafana's own editor; one that does not is seen.
#[test]
fn dashboards_have_grafanas_types_and_their_queries_parse_by_the_editors_own_grammars() {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    let Some(output) = checked(&files) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), format!("{} dashboards, 0 faults", files.len()));

    let broken = tempfile::tempdir().unwrap();
    let path = broken.path().join("broken.json");
    let text = std::fs::read_to_string(directory().join("query-performance.json")).unwrap();
    let text = text
        .replacen("sum(beeacon", "sum((beeacon", 1)
        .replace("\"graphTooltip\": 1", "\"graphTooltip\": true");
    std::fs::write(&path, text).unwrap();
    let other = broken.path().join("other.json");
    let text = std::fs::read_to_string(directory().join("logs-in-loki.json")).unwrap();
    std::fs::write(&other, text.replacen("sum by", "sum by by", 1)).unwrap();
    let output = checked(&[path, other]).unwrap();
    let faults = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{faults}");
    for fault in ["no PromQL at", "no LogQL at", "DashboardCursorSync"] {
        assert!(faults.contains(fault), "{fault} is not in {faults}");
    }
}

/// What the program brings of alerts, as far as dashboards ask for it.
#[derive(Debug)]
struct Told {
    name: &'static str,
    columns: &'static [(&'static str, ColumnKind)],
    rows: Vec<Vec<Cell>>,
}

impl Relation for Told {
    fn name(&self) -> &'static str {
        self.name
    }

    fn columns(&self) -> &'static [(&'static str, ColumnKind)] {
        self.columns
    }

    fn rows(&self, _tenant: &str, _wanted: &Wanted) -> RelationRows {
        let rows = self.rows.clone();
        Box::pin(async move { Ok(rows) })
    }
}

/// An alert that fires and one that ended, their incident, and two events.
fn told() -> Vec<Arc<dyn Relation>> {
    use ColumnKind::{Number, Text, Time};
    let text = |text: &str| Cell::Text(text.to_owned());
    let alert = |severity: &str, resolved_at: Cell| {
        let began = Cell::Time(NOON_NS);
        let [title, service, rule, incident] = ["web leaks", "web", "privacy/Leak", "inc_1"].map(text);
        vec![
            began,
            resolved_at,
            text(severity),
            title,
            service,
            text("new"),
            rule,
            incident,
            Cell::Null,
            Cell::Null,
        ]
    };
    let alerts = Told {
        name: "alerts",
        columns: &[
            ("created_at", Time),
            ("resolved_at", Time),
            ("severity", Text),
            ("title", Text),
            ("service", Text),
            ("status", Text),
            ("rule", Text),
            ("incident", Text),
            ("assigned_to", Text),
            ("acknowledged_at", Time),
        ],
        rows: vec![alert("high", Cell::Null), alert("low", Cell::Time(NOON_NS + 60_000_000_000))],
    };
    let [title, severity, status] = ["web leaks", "high", "open"].map(text);
    let incidents = Told {
        name: "incidents",
        columns: &[
            ("opened_at", Time),
            ("resolved_at", Time),
            ("severity", Text),
            ("title", Text),
            ("status", Text),
            ("alerts", Number),
        ],
        rows: vec![vec![Cell::Time(NOON_NS), Cell::Null, severity, title, status, Cell::Number(2)]],
    };
    let of_type = |kind: &str| {
        let [kind, source, payload] = [kind, "health", "{}"].map(text);
        vec![Cell::Time(NOON_NS), kind, source, Cell::Null, Cell::Null, payload]
    };
    let events = Told {
        name: "events",
        columns: &[
            ("timestamp", Time),
            ("type", Text),
            ("source", Text),
            ("service", Text),
            ("severity", Text),
            ("payload", Text),
        ],
        rows: vec![of_type("observability.health.failed"), of_type("observability.log.sanitized")],
    };
    let rules = Told {
        name: "filter_rules",
        columns: &[("rule", Text), ("category", Text), ("severity", Text), ("description", Text)],
        rows: vec![
            ["email", "pii", "medium", "a rule that hits"],
            ["swift", "pii", "low", "one that does not"],
        ]
        .into_iter()
        .map(|words| words.map(text).to_vec())
        .collect(),
    };
    vec![Arc::new(alerts), Arc::new(incidents), Arc::new(events), Arc::new(rules)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sql_query_of_every_dashboard_has_rows() {
    let options = QueryOptions { partitions: 2, relations: told(), ..QueryOptions::default() };
    let world = World::with(options).await;
    let mut lines: Vec<_> = (0..200_i64)
        .map(|index| {
            said(
                if index % 3 == 0 { "db" } else { "web" },
                NOON_NS + index * 1_000_000_000,
                format!("line {index}"),
            )
        })
        .collect();
    lines[0].redactions = vec![("email", 2), ("iban", 1)];
    lines[100].redactions = vec![("email", 1)];
    world.publish_and_flush("default", &lines).await;
    world.publish("default", &[said("web", NOON_NS + 300_000_000_000, "fresh")]).await;
    let mut run = 0;
    let mut faults = Vec::new();
    for (name, (_, json)) in dashboards() {
        let panels = list(&json, "panels").iter().flat_map(|panel| {
            list(panel, "targets")
                .iter()
                .map(move |target| (panel["title"].to_string(), target["rawSql"].as_str()))
        });
        let variables =
            list(&json["templating"], "list").iter().filter(|variable| variable["datasource"]["type"] == SQL);
        let variables = variables.map(|variable| (variable["name"].to_string(), variable["query"].as_str()));
        for (title, query) in panels.chain(variables) {
            let Some(query) = query else { continue };
            run += 1;
            let query = CHOICE.interpolated(query);
            let rows = match world.batches(&query).await {
                Ok(batches) => batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
                Err(error) => {
                    faults.push(format!("{name}, {title}: {}\n  {query}", error.for_the_asker()));
                    continue;
                }
            };
            // The report: with --show-output it is seen on success, too.
            println!("{name}, {title}: {rows} rows");
            if rows == 0 {
                faults.push(format!("{name}, {title}: no rows\n  {query}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(run >= 30, "{run} queries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_a_dashboard_names_is_there() {
    let world = World::new().await;
    world.one("select 1").await;
    let mut registry = Registry::default();
    world.store.register(&mut registry);
    world.query.register(&mut registry);
    let mut known = String::new();
    prometheus_client::encoding::text::encode(&mut known, &registry).unwrap();
    let mut count = 0;
    for (name, (_, json)) in dashboards() {
        for expr in list(&json, "panels")
            .iter()
            .flat_map(|panel| list(panel, "targets"))
            .filter_map(|target| target["expr"].as_str())
        {
            // Those of agents are shown by a real Prometheus, in the tests of the whole way.
            for metric in expr
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .filter(|word| word.starts_with("beeacon_") && !word.starts_with("beeacon_agent_"))
            {
                count += 1;
                let is_there = known
                    .lines()
                    .any(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
                assert!(is_there, "{name} names {metric}, which is not among\n{known}");
            }
        }
    }
    assert!(count >= 15, "{count} names");
}

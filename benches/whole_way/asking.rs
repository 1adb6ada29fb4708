//! Five million lines of a day in Parquet, asked as people do: every query of every dashboard, what Grafana asks by itself and a count
//! per minute through psql, the queries of the ready rules over HTTP. And how soon a line is an alert at its receiver meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use beeacon_alerts::rules::RuleFile;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::programs::{Program, Server, connect, post};
use crate::table::Table;
use crate::{AGENT, Written};
use beeacon_record::wire::{INGEST_PATH, SESSION_PATH};

#[path = "../../query/tests/room/grafana.rs"]
mod grafana;

use grafana::Choice;

/// How many lines are asked about.
const LINES_MIN: usize = 5_000_000;

/// How many services write them.
const SERVICES: usize = 12;

/// How often each query is asked; the first time, which reads the files from the disk, is told apart.
const ASKED: usize = 4;

/// How many lines are waited for at the receiver of alerts, one after another.
const ALERTS: usize = 100;

const DAY_S: i64 = 24 * 3600;

pub(crate) fn measure(table: &mut Table, lines: usize, encode: impl Fn(&Written) -> Vec<Bytes>) {
    let directory = tempfile::tempdir().expect("a directory for the server");
    let data = directory.path().join("data");
    let hook = Hook::listen();
    let config = configure(directory.path(), &hook);
    let mut server = Server::start_with(&data, Some(config.as_path()));
    let mut connection = connect(&server.address);
    let session = format!("{{\"agent\":\"{AGENT}\",\"host\":\"bench\",\"version\":\"bench\"}}");
    post(&mut connection, SESSION_PATH, session.as_bytes());
    let files = LINES_MIN.div_ceil(lines);
    // A json-file holds two minutes: they are drawn out, so that the day is evenly full.
    let stretch = DAY_S / files as i64 / 120;
    let end_s = jiff::Timestamp::now().as_second();
    for source in 0..files {
        let start_s = end_s - DAY_S + DAY_S * source as i64 / files as i64;
        let services = (0..SERVICES).map(|number| format!("service-{number}")).collect();
        for frame in encode(&Written { services, source, start_s, stretch, lag_ns: 400_000_000 }) {
            post(&mut connection, INGEST_PATH, &frame);
        }
    }
    let count = (lines * files) as u64;
    server.wait_for_lines(count);
    // A new start: everything is in Parquet, nothing is warm.
    server.program.stop(0.0);
    let server = Server::start_with(&data, Some(config.as_path()));
    server.wait_for_lines(count);
    table.note(&format!("{count} lines of a day in Parquet"));

    let minutes = "select time_bucket('1 minute', timestamp), count(*) from logs group by 1 order by 1";
    let times = psql(&server, minutes);
    table.figure("count per minute through psql, first time", times.first, "ms");
    table.figure("  then", times.then, "ms");

    let asked: Vec<_> = meta_queries().into_iter().map(|query| ("Grafana".to_owned(), query)).collect();
    tell(table, "what Grafana asks by itself", &server, asked);
    for (span, name) in [(6 * 3600, "of six hours"), (DAY_S, "of the day")] {
        let asked = panels().into_iter().map(|(panel, query)| (panel, chosen(&query, end_s - span, end_s)));
        tell(table, &format!("queries of dashboards {name}"), &server, asked.collect());
    }
    let at = jiff::Timestamp::from_second(end_s).expect("a time of this century");
    tell(table, "queries of the ready rules", &server, ready_rules(at));
    streaming(table, directory.path(), &server, &hook);
}

/// Asks psql each of these queries and tells how many there are and how long the slowest took.
fn tell(table: &mut Table, what: &str, server: &Server, asked: Vec<(String, String)>) {
    let mut slowest: Vec<_> =
        asked.into_iter().map(|(name, query)| (psql(server, &query).then, name)).collect();
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    table.figure(what, slowest.len() as f64, "answered");
    table.figure(&format!("  slowest of the {what}"), slowest[0].0, "ms");
    for (ms, name) in slowest.iter().take(5) {
        table.note(&format!("    {ms:.0} ms  {name}"));
    }
}

fn meta_queries() -> Vec<String> {
    let tables = ["logs", "gaps", "redactions", "alerts", "incidents", "events", "metrics", "agents"];
    let fixed = [grafana::VERSION, grafana::TIMESCALE, grafana::SCHEMAS].map(str::to_owned);
    fixed.into_iter().chain([grafana::tables()]).chain(tables.map(grafana::columns)).collect()
}

/// A query of a dashboard with everything chosen, between two seconds.
fn chosen(query: &str, from_s: i64, to_s: i64) -> String {
    let time = |second| jiff::Timestamp::from_second(second).expect("a time of this century").to_string();
    let quoted =
        |names: Vec<String>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    let services = quoted((0..SERVICES).map(|number| format!("service-{number}")).collect());
    let rules = beeacon_filters::library::rules().expect("the built-in rules are sound");
    let rules = quoted(rules.iter().map(|rule| rule.id().to_owned()).collect());
    let variables = [
        ("service", services.as_str()),
        ("level", "'trace','debug','info','warn','error','fatal','unknown'"),
        ("rule", rules.as_str()),
        ("severity", "'low','medium','high','critical'"),
        ("text", "''"),
    ];
    // What Grafana makes of a panel of a thousand points.
    let interval_s = if to_s - from_s > 12 * 3600 { 60 } else { 20 };
    Choice { from: &time(from_s), to: &time(to_s), interval_s, variables: &variables }.interpolated(query)
}

/// Every SQL query of every panel and variable: which it is, and the query.
fn panels() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut panels = Vec::new();
    for file in fs::read_dir(directory).expect("dashboards").flatten().map(|entry| entry.path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        let dashboard = json["title"].as_str().unwrap_or_default();
        for panel in json["panels"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap_or_default();
            let targets = panel["targets"].as_array().into_iter().flatten();
            let queries = targets.filter_map(|target| target["rawSql"].as_str());
            panels.extend(queries.map(|query| (format!("{dashboard}, {title}"), query.to_owned())));
        }
        for variable in json["templating"]["list"].as_array().into_iter().flatten() {
            if let (Some(name), Some(query)) = (variable["name"].as_str(), variable["query"].as_str())
                && query.starts_with("select")
            {
                panels.push((format!("{dashboard}, the choice of {name}"), query.to_owned()));
            }
        }
    }
    panels
}

/// The queries of the rules that are ready to use, at a moment.
fn ready_rules(at: jiff::Timestamp) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (_, text) in beeacon_alerts::pack() {
        let file = RuleFile::read(text).expect("the ready rules are sound");
        let asked = file.rules().filter_map(|(_, rule)| Some((rule.id(), rule.query()?)));
        queries.extend(asked.map(|(id, query)| (id.to_owned(), query.at(at))));
    }
    queries
}

/// How long a query took, in milliseconds.
struct Times {
    first: f64,
    /// The median of the other times.
    then: f64,
}

/// What psql says how long a query took.
fn psql(server: &Server, query: &str) -> Times {
    let mut command = Command::new("psql");
    command.arg(format!("host=127.0.0.1 port={} dbname=beeacon user=bench", server.postgres_port));
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-c", "\\timing on"]);
    for _ in 0..ASKED {
        command.args(["-c", query]);
    }
    let output = command.stdin(Stdio::null()).output().expect("psql, of Debian's postgresql-client");
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    assert_eq!(times.len(), ASKED, "{said}");
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    Times { first, then: times[times.len() / 2] }
}

/// A receiver of alerts that says of which services it was told that they fire, and when.
struct Hook {
    port: u16,
    firing: Receiver<(String, Instant)>,
}

impl Hook {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // More than there are alerts: the lines of the day have some, too.
        let (told, firing) = sync_channel(100 * ALERTS);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = told.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(body) = request(&mut stream) {
                        let at = Instant::now();
                        let body: Value = serde_json::from_slice(&body).expect("JSON");
                        if body["status"] == "firing" {
                            let service = body["commonLabels"]["service"].as_str().unwrap_or_default();
                            // Nobody may be waiting any more.
                            told.send((service.to_owned(), at)).ok();
                        }
                    }
                });
            }
        });
        Hook { port, firing }
    }
}

/// Reads one request and takes it; its body.
fn request(stream: &mut BufReader<std::net::TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some(body)
}

/// A rule over what flows by, its receiver, and the configuration that names both.
fn configure(directory: &Path, hook: &Hook) -> std::path::PathBuf {
    let path = |name: &str| directory.join(name);
    let rules = "groups: [{name: bench, rules: [{alert: Leak, \
        stream: {count: redaction, of: email, window: 1s, at_least: 1}}]}]\n";
    fs::write(path("rules.yaml"), rules).expect("rules");
    let receivers = format!(
        "route: {{receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1d}}\n\
         receivers: [{{name: hook, webhook: {{url: \"http://127.0.0.1:{}/\"}}}}]\n",
        hook.port
    );
    fs::write(path("receivers.yaml"), receivers).expect("receivers");
    let config = format!(
        "[access]\nrequests_per_minute = 1_000_000\n[alerts]\nrules = [{:?}]\nreceivers = {:?}\n\
         [alerts.outbound]\nnetworks = [\"127.0.0.1\"]\nports = [\"{}\"]\n",
        path("rules.yaml"),
        path("receivers.yaml"),
        hook.port
    );
    fs::write(path("beeacon.toml"), config).expect("a configuration");
    path("beeacon.toml")
}

/// Lines of containers with a mail address in each, one after another: how long until the receiver of alerts is told.
fn streaming(table: &mut Table, directory: &Path, server: &Server, hook: &Hook) {
    let containers = directory.join("containers");
    let mut logs: Vec<File> = (0..ALERTS).map(|number| container(&containers, number)).collect();
    let before = server.number("select count(*) as lines from logs");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_beeacon"));
    agent.args(["agent", "--reader", "file", "--docker-host", "none", "--collector"]);
    agent.arg(format!("http://{}", server.address)).arg("--data").arg(directory.join("agent"));
    let _agent = Program::start(agent.arg("--containers-directory").arg(&containers));
    for log in &mut logs {
        print(log, "it is up");
    }
    server.wait_for_lines(before + ALERTS as u64);
    // What was written before had alerts of its own.
    while hook.firing.try_recv().is_ok() {}
    let mut delays_ms = Vec::with_capacity(ALERTS);
    for (number, log) in logs.iter_mut().enumerate() {
        let printed = Instant::now();
        print(log, &format!("order of ada.byron{number}@example.com"));
        let at = loop {
            let (service, at) =
                hook.firing.recv_timeout(Duration::from_secs(30)).expect("an alert at the receiver");
            if service == format!("alert-{number}") {
                break at;
            }
        };
        delays_ms.push(at.duration_since(printed).as_secs_f64() * 1e3);
    }
    delays_ms.sort_by(f64::total_cmp);
    table.figure("from a container's line to the webhook, median", delays_ms[ALERTS / 2], "ms");
    table.figure("  p99", delays_ms[ALERTS * 99 / 100], "ms");
}

fn print(log: &mut File, line: &str) {
    let time = format!("{:.9}", jiff::Timestamp::now());
    let record = json!({ "log": format!("{line}\n"), "stream": "stdout", "time": time });
    log.write_all(format!("{record}\n").as_bytes()).expect("room");
}

/// A container's directory as Docker makes it, and its log.
fn container(containers: &Path, number: usize) -> File {
    let log = crate::shipping::write_container(containers, number, &format!("alert-{number}"), b"");
    OpenOptions::new().append(true).open(log).expect("a log")
}

//! Five million lines in Parquet, asked by psql as people do: every panel of every dashboard, and a count per minute.

use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use serde_json::Value;

use crate::programs::{Server, connect, post};
use crate::table::Table;
use crate::{AGENT, Written};
use beeacon_record::wire::{INGEST_PATH, SESSION_PATH};

#[path = "../../query/tests/room/interpolate.rs"]
mod interpolate;

/// How many lines are asked about.
const LINES_MIN: usize = 5_000_000;

/// How often each query is asked; the first time, which reads the files from the disk, is told apart.
const ASKED: usize = 4;

pub(crate) fn measure(table: &mut Table, lines: usize, encode: impl Fn(&Written) -> Vec<Bytes>) {
    let directory = tempfile::tempdir().expect("a directory for the server");
    let data = directory.path().join("data");
    let mut server = Server::start(&data);
    let mut connection = connect(&server.address);
    let session = format!("{{\"agent\":\"{AGENT}\",\"host\":\"bench\",\"version\":\"bench\"}}");
    post(&mut connection, SESSION_PATH, session.as_bytes());
    let services = LINES_MIN.div_ceil(lines);
    let span_s = 24 * 3600;
    // A json-file holds two minutes: they are drawn out, so that the day is evenly full.
    let stretch = span_s / services as i64 / 120;
    let end_s = jiff::Timestamp::now().as_second();
    for index in 0..services {
        let start_s = end_s - span_s + span_s * index as i64 / services as i64;
        for frame in
            encode(&Written { service: format!("service-{}", index % 12), source: index, start_s, stretch })
        {
            post(&mut connection, INGEST_PATH, &frame);
        }
    }
    let count = (lines * services) as u64;
    server.wait_for_lines(count);
    // A new start: everything is in Parquet, nothing is warm.
    server.program.stop(0.0);
    let server = Server::start(&data);
    server.wait_for_lines(count);
    table.note(&format!("{count} lines of a day in Parquet, asked by psql"));

    let minutes = "select time_bucket('1 minute', timestamp), count(*) from logs group by 1 order by 1";
    let times = psql(&server, minutes);
    table.figure("count per minute, first time", times[0], "ms");
    table.figure("count per minute, then", times[1..].iter().copied().fold(f64::INFINITY, f64::min), "ms");

    let hour = (end_s - 3600, end_s);
    let mut slowest = Vec::new();
    for (dashboard, title, query) in panels() {
        let query = interpolate::interpolated(&query, &time(hour.0), &time(hour.1));
        let times = psql(&server, &query);
        let then = times[1..].iter().copied().fold(f64::INFINITY, f64::min);
        slowest.push((then, format!("{dashboard}, {title}")));
    }
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    table.figure("panels of dashboards over an hour", slowest.len() as f64, "queries");
    table.figure("  slowest of them", slowest[0].0, "ms");
    for (ms, name) in slowest.iter().take(3) {
        table.note(&format!("    {ms:.0} ms  {name}"));
    }
}

fn time(second: i64) -> String {
    jiff::Timestamp::from_second(second).expect("a time of this century").to_string()
}

/// Every SQL query of every panel: dashboard, title, query.
fn panels() -> Vec<(String, String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut panels = Vec::new();
    for file in std::fs::read_dir(directory).expect("dashboards").flatten().map(|entry| entry.path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
        let name = json["title"].as_str().unwrap_or_default().to_owned();
        for panel in json["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if let Some(query) = target["rawSql"].as_str() {
                    let title = panel["title"].as_str().unwrap_or_default().to_owned();
                    panels.push((name.clone(), title, query.to_owned()));
                }
            }
        }
    }
    panels
}

/// What psql says how long a query took, each time it is asked, in milliseconds.
fn psql(server: &Server, query: &str) -> Vec<f64> {
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
    let times: Vec<f64> = times.collect();
    assert_eq!(times.len(), ASKED, "{said}");
    times
}

//! What strangers write into logs to become more than data: markup, orders to terminals, formulas, SQL, templates, headers.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::frames::Hand;
use crate::harness::http::request;
use crate::harness::processes::run_beeacon;
use crate::harness::world::Alone;

#[derive(serde::Deserialize)]
struct Injection {
    kind: String,
    text: String,
}

#[derive(serde::Deserialize)]
struct Injections {
    payload: Vec<Injection>,
}

/// What a terminal would obey.
fn has_order(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// A control character that JSON has to escape.
fn has_control(json: &str) -> bool {
    json.chars().any(|c| c.is_ascii_control() && !matches!(c, '\n' | '\u{7f}'))
}

/// The cells as a program of another house reads them.
fn cells_of(csv: &[u8]) -> Vec<Vec<String>> {
    let program = "import csv, io, json, sys; print(json.dumps(list(csv.reader(io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8', newline='')))))";
    let mut python = Command::new("/usr/bin/python3");
    let mut child =
        python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(csv).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

/// Scenario: a line, and a service by that name, for each of a hundred payloads.
/// Guarantees: they come back as they were where a program reads them; on a terminal they give no order, in a spreadsheet they are no
/// formula, and in SQL they are values.
#[test]
fn what_a_line_holds_is_data_at_every_door() {
    let read: Injections = toml::from_str(include_str!("../../alerts/data/injection.toml")).unwrap();
    assert!(read.payload.len() >= 100);
    let lines: Vec<String> = read.payload.iter().map(|payload| payload.text.clone()).collect();
    let alone = Alone::start("injections", None, Some("[access]\nrequests_per_minute = 1_000_000\n"));
    let url = format!("http://{}", alone.sql.address);
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let mut hand = Hand { time_ns: now_ns, ..Hand::open(alone.sql.address, 1, "web") };
    assert_eq!(hand.send(&lines).status, 200);
    for text in &lines {
        hand.container.clone_from(text);
        assert_eq!(hand.send(&["named".to_owned()]).status, 200, "{text:?}");
    }
    let query = "select message from logs where service = 'web' order by position_minor";

    let rows = alone.sql.rows(query);
    let messages: Vec<&str> = rows.iter().map(|row| row["message"].as_str().unwrap()).collect();
    assert_eq!(messages, lines);
    for accept in ["application/json", "application/x-ndjson"] {
        let answer = alone.sql.ask(query, accept).unwrap();
        assert!(!has_control(&answer.text()), "{accept} holds a control character as it is");
    }

    for payload in &read.payload {
        let body = json!({"query": "select count(*) as n from logs where message = $1 or service = $1", "parameters": [payload.text]});
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let answer =
            request(alone.sql.address, "POST", "/api/v1/sql", &headers, body.to_string().as_bytes()).unwrap();
        let same = lines.iter().filter(|line| **line == payload.text).count();
        assert_eq!(answer.json(), json!([{ "n": 2 * same }]), "{} {:?}", payload.kind, payload.text);
        // As a query it is one that fails, or that reads: nothing is changed, and the error is JSON that holds no order.
        let failed = alone.sql.ask(&payload.text, "application/json").unwrap();
        let said = serde_json::from_slice::<Value>(&failed.body);
        assert!(said.is_ok() && !has_control(&failed.text()), "{:?}: {}", payload.text, failed.text());
    }
    assert_eq!(alone.sql.number("select count(*) as n from logs"), 2 * lines.len() as u64);

    let cells = cells_of(&alone.sql.ask(query, "text/csv").unwrap().body);
    assert_eq!(cells.len(), lines.len() + 1);
    for (cell, line) in cells[1..].iter().map(|row| row[0].as_str()).zip(&lines) {
        let is_formula = |text: &str| text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!is_formula(cell), "{line:?}: {cell:?} is a formula");
        assert!(cell == line || cell == format!("'{line}"), "{line:?} became {cell:?}");
    }

    let services = "select service, message from logs order by timestamp";
    for arguments in
        [&["sql", "--url", &url, query][..], &["sql", "--url", &url, services], &["logs", "--url", &url]]
    {
        let output = run_beeacon(arguments, b"");
        let (said, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert!(said.lines().count() >= lines.len(), "{arguments:?}: {said}");
        assert!(!has_order(&said), "{arguments:?} gives orders to the terminal");
    }
}

//! Files of alerts on the command line: checked, tested, and receivers tried; and the tables that rules look at besides lines.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::harness::frames::Hand;
use crate::harness::http::request;
use crate::harness::poll::{seconds, wait_until};
use crate::harness::probe::{program, skip};
use crate::harness::processes::run_beeacon;
use crate::harness::world::Alone;

const PAGE: &str = include_str!("../../docs/alerts.md");

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The one block of a kind on the page.
fn block(kind: &str) -> &'static str {
    PAGE.split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap()
}

/// Guarantees: every ready rule fires when it has to and spares what it has to, on the real filter and the real engine.
#[test]
fn the_ready_rules_do_what_their_tests_say() {
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/pack");
    let file = |name: &str| pack.join(name).display().to_string();
    let output = run_beeacon(&["test", &file("tests.yaml")], b"");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).ends_with("tests, 0 failed\n"), "{}", text(&output));
    let output = run_beeacon(
        &[
            "alerts",
            "check",
            &file("privacy.yaml"),
            &file("services.yaml"),
            &file("beeacon.yaml"),
            &file("tests.yaml"),
        ],
        b"",
    );
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_files_of_the_page_are_checked_and_their_test_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, kind: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, block(kind)).unwrap();
        path.display().to_string()
    };
    let files = [
        file("shop.yaml", "yaml rules"),
        file("shop-tests.yaml", "yaml test"),
        file("receivers.yaml", "yaml receivers"),
    ];
    let output = run_beeacon(&["alerts", "check", &files[0], &files[1], &files[2]], b"");
    assert!(output.status.success(), "{}", text(&output));
    let output = run_beeacon(&["test", &files[1]], b"");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), "1 tests, 0 failed\n");
    // A rule that is a little different fails its test, and the test says how.
    std::fs::write(&files[0], block("yaml rules").replace("> 10", "> 11")).unwrap();
    let output = run_beeacon(&["test", &files[1]], b"");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("got:      no alert"), "{}", text(&output));
}

/// Guarantees: faults of all files are told in one run, with file, line and column, those that only planning finds too.
#[test]
fn every_fault_of_every_file_is_told_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let rules = "groups:\n- name: g\n  rules:\n  - alert: A\n    sql: SELECT 1 AS valu\n  - alert: B\n    sql: SELECT value FROM log\n  - alert: C\n    sql: SELECT 1 AS value -- fine\n  - alert: D\n    sql: SELECT service, count(*) AS value FROM alerts, incidents, incident_events, events, metrics, agents GROUP BY 1\n";
    let files = [
        file("rules.yaml", rules),
        file(
            "shape.yaml",
            "groups:\n- name: g\n  rules:\n  - alert: A\n    fro: 5m\n    sql: SELECT 1 AS value\n",
        ),
        file(
            "receivers.yaml",
            "route: {receiver: x}\nreceivers: [{name: y, email: {to: [a@b.example], from: nobody, smarthost: \"mx:25\"}}]\n",
        ),
        file("tests.yaml", "rule_files: [a.yaml]\ntests: [{}]\n"),
    ];
    let output = run_beeacon(&["alerts", "check", &files[0], &files[1], &files[2], &files[3]], b"");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    let said = text(&output);
    for part in [
        "rules.yaml:4:5: the query of g/A: ",
        "rules.yaml:6:5: the query of g/B: ",
        "shape.yaml:5:5: unknown key `fro`",
        "receivers.yaml:1:19: there is no receiver `x`",
        "receivers.yaml:2:56: `from` has an address that is none",
        "tests.yaml:2:9: the test looks at nothing",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    assert!(!said.contains("g/C"), "{said}");
    // D cannot say whose service it means; that it knows the tables shows in that.
    assert!(said.contains("g/D") && said.to_lowercase().contains("ambiguous"), "{said}");

    // The same faults keep a server from starting, and are told as those of a configuration are.
    for key in ["rules = [\"{}\"]", "receivers = \"{}\""] {
        let named = if key.starts_with("rules") { &files[1] } else { &files[2] };
        let config = file("server.toml", &format!("[alerts]\n{}\n", key.replace("{}", named)));
        let data = folder.path().join("data").display().to_string();
        for words in [
            ["server", "--config", &config, "--data", &data, "--listen", "127.0.0.1:0", "--postgres", "none"]
                .as_slice(),
            &["validate", &config],
            &["alerts", "test", "x", "--config", &config],
        ] {
            let output = run_beeacon(words, b"");
            let is_about_receivers = words[0] != "alerts" || key.starts_with("receivers");
            let expected = if is_about_receivers { 78 } else { 1 };
            assert_eq!(output.status.code(), Some(expected), "{words:?}: {}", text(&output));
        }
    }
}

/// One request, answered.
fn hook(status: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taking = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // The body ends with the newline behind its last brace.
        while !seen.ends_with(b"}\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the request ended early");
            seen.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
        String::from_utf8(seen).unwrap()
    });
    (port, taking)
}

/// Guarantees: a receiver is tried with the configuration that alerts use, its policy included, and the user is told what became
/// of the message.
#[test]
fn a_receiver_is_tried_with_what_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let try_it = |port: u16, outbound: &str| {
        let receivers = folder.path().join("receivers.yaml");
        let yaml = format!(
            "route: {{receiver: hook}}\nreceivers: [{{name: hook, webhook: {{url: \"http://127.0.0.1:{port}/s3cr3t\"}}}}]\n"
        );
        std::fs::write(&receivers, yaml).unwrap();
        let config = folder.path().join("beeacon.toml");
        std::fs::write(&config, format!("[alerts]\nreceivers = {receivers:?}\n{outbound}")).unwrap();
        let config = config.display().to_string();
        run_beeacon(&["alerts", "test", "hook", "--config", &config], b"")
    };
    let allowed =
        |port: u16| format!("[alerts.outbound]\nnetworks = [\"127.0.0.1\"]\nports = [\"{port}\"]\n");

    let (port, taking) = hook("200 OK");
    let output = try_it(port, &allowed(port));
    assert!(
        output.status.success() && text(&output).contains("hook: the test was taken"),
        "{}",
        text(&output)
    );
    let seen = taking.join().unwrap();
    assert!(seen.contains("webhook-id: test_") && seen.contains("\"alertname\":\"BeeaconTest\""), "{seen}");

    let (port, taking) = hook("404 Not Found");
    let output = try_it(port, &allowed(port));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("an alert would be given up: the answer was 404"), "{}", text(&output));
    taking.join().unwrap();

    let nobody = run_beeacon(&["alerts", "test", "nobody"], b"");
    assert!(!nobody.status.success() && text(&nobody).contains("tells nobody"), "{}", text(&nobody));

    let output = try_it(port, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("is not allowed"), "{}", text(&output));
    assert!(!text(&output).contains("s3cr3t"), "{}", text(&output));
}

/// Guarantees: what rules ask of the program itself is there, with the values of this moment.
#[test]
fn metrics_and_agents_are_tables() {
    let alone = Alone::start("alert_relations", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    assert_eq!(hand.send(&["one".to_owned(), "two".to_owned()]).status, 200);
    let url = format!("http://{}", alone.sql.address);
    let ask = |query: &str| {
        let output = run_beeacon(&["sql", "--url", &url, "--format", "json", query], b"");
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let rows = ask("select value from metrics where name = 'beeacon_collector_rows_total'");
    assert_eq!(rows[0]["value"].as_f64(), Some(2.0), "{rows}");
    let rows = ask(
        "select count(*) as n from metrics where name in ('beeacon_disk_bytes', 'beeacon_disk_free_bytes') and value > 0",
    );
    assert_eq!(rows[0]["n"], 2, "{rows}");
    let rows = ask("select labels ->> 'version' as version from metrics where name = 'beeacon_build_info'");
    assert_eq!(rows[0]["version"], env!("CARGO_PKG_VERSION"), "{rows}");
    let rows = ask(
        "select count(*) as n from agents where last_seen > now() - interval '5 minutes' and sources = 1",
    );
    assert_eq!(rows[0]["n"], 1, "{rows}");
}

/// Guarantees: with `pack = true` every ready rule is evaluated over the tables of a real server, without an error, and the
/// heartbeat fires.
#[test]
fn the_ready_rules_are_evaluated_in_a_server_that_has_them() {
    let alone = Alone::start("alert_pack", None, Some("[alerts]\npack = true\n"));
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    assert_eq!(hand.send(&["mail to ada@example.com".to_owned()]).status, 200);
    let rules = || -> Vec<serde_json::Value> {
        let answer = request(alone.sql.address, "GET", "/api/v1/rules", &[], b"").unwrap();
        let body: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        let groups = body["data"]["groups"]
            .as_array()
            .or(body["groups"].as_array())
            .unwrap_or_else(|| panic!("{body}"));
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    };
    wait_until("every ready rule is evaluated", seconds(60), || {
        let rules = rules();
        let is_left = |rule: &serde_json::Value| rule["health"] == "unknown" && rule["source"] == "sql";
        rules.len() == 12 && !rules.iter().any(is_left)
    });
    for rule in rules() {
        assert_ne!(rule["health"], "err", "{rule}");
        let fires = rule["state"] == "firing";
        let may_fire = rule["name"] == "Heartbeat" || rule["name"] == "DiskNearlyFull";
        assert!(!fires || may_fire, "{rule}");
        assert!(fires || rule["name"] != "Heartbeat", "{rule}");
    }
}

/// Guarantees: the same series and the same rule, in PromQL there and in SQL here, have the same alerts at every minute, by a real
/// promtool: `for`, `keep_firing_for`, values that last five minutes, series that end, labels and templates.
#[test]
fn a_real_promtool_says_the_same_of_the_same_rule() {
    let Some(promtool) = program("promtool") else {
        return skip("promtool_same", "promtool is not there");
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rest = "for: 2m, keep_firing_for: 3m, labels: {severity: low}, \
                annotations: {summary: '{{ $labels.host }} {{ $value | humanize }}'}}";
    let rules = |source: &str| format!("groups:\n- name: g\n  rules:\n  - {{alert: High, {source}, {rest}\n");
    std::fs::write(path("prometheus.yaml"), rules("expr: level > 2")).unwrap();
    let sql =
        "sql: \"SELECT labels ->> 'host' AS host, value FROM metrics WHERE name = 'level' AND value > 2\"";
    std::fs::write(path("beeacon.yaml"), rules(sql)).unwrap();

    let mut cases = String::new();
    for minute in 0..14 {
        let mut expected = String::new();
        let mut fires = |host: &str, value: &str| {
            expected.push_str(&format!(
                "    - {{exp_labels: {{host: {host}, severity: low}}, exp_annotations: {{summary: {host} {value}}}}}\n"
            ));
        };
        if minute >= 4 {
            fires("a", if minute < 8 { "7" } else { "1.5k" });
        }
        if minute >= 2 {
            fires("b", "3");
        }
        if (5..=8).contains(&minute) {
            fires("c", "5");
        }
        let expected =
            if expected.is_empty() { String::new() } else { format!("    exp_alerts:\n{expected}") };
        cases.push_str(&format!("  - eval_time: {minute}m\n    alertname: High\n{expected}"));
    }
    let tests = |rules: &str| {
        format!(
            "rule_files: [{rules}]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n  \
             - {{series: 'level{{host=\"a\"}}', values: '0 1+2x3 _x3 1500x2 stale'}}\n  \
             - {{series: 'level{{host=\"b\"}}', values: '3x12'}}\n  \
             - {{series: 'level{{host=\"c\"}}', values: '5 5 1 5 5 5 1 1 1 1 1 1'}}\n  alert_rule_test:\n{cases}"
        )
    };
    std::fs::write(path("there.yaml"), tests("prometheus.yaml")).unwrap();
    std::fs::write(path("here.yaml"), tests("beeacon.yaml")).unwrap();
    let there = std::process::Command::new(promtool).args(["test", "rules"]).arg(path("there.yaml")).output();
    let there = there.unwrap();
    assert!(there.status.success(), "promtool: {}", text(&there));
    let here = run_beeacon(&["test", &path("here.yaml").display().to_string()], b"");
    assert!(here.status.success(), "beeacon: {}", text(&here));
}

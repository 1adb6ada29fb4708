//! The program's other verbs, as a person runs them.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::docker::Spec;
use crate::harness::frames::Hand;
use crate::harness::http::request;
use crate::harness::leak::{Leaks, Search};
use crate::harness::metrics::Metrics;
use crate::harness::oracle::Printed;
use crate::harness::poll::{seconds, wait_for, wait_until};
use crate::harness::probe::{need_docker, program, skip};
use crate::harness::processes::{Program, beeacon, free_address, run_beeacon};
use crate::harness::sql::Sql;
use crate::harness::world::{Alone, Folder, Plan, World};
use crate::payload::{Shape, Streams, line};

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
}

/// Guarantees: the three formats say the same, and control characters of a log line never reach a terminal as they are.
#[test]
fn sql_answers_as_table_json_and_csv() {
    let alone = Alone::start("sql_formats", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    let lines = ["plain", "with, comma and \"quotes\"", "with \u{1b}[31mescape", "=1+1"].map(str::to_owned);
    assert_eq!(hand.send(&lines).status, 200);
    let url = format!("http://{}", alone.sql.address);
    let query = "select position_minor as at, message from logs order by position_minor";
    let ask = |format: &str| {
        let output = run_beeacon(&["sql", "--url", &url, "--format", format, query], b"");
        assert_success(&output);
        text(&output.stdout)
    };

    let json: Vec<Value> = serde_json::from_str(&ask("json")).unwrap();
    let messages: Vec<&str> = json.iter().map(|row| row["message"].as_str().unwrap()).collect();
    assert_eq!(messages, lines);
    assert_eq!(json[3]["at"], 30);

    let csv = ask("csv");
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(csv.starts_with("at,message"));
    assert!(csv.contains("\"with, comma and \"\"quotes\"\"\""), "{csv}");

    let table = ask("table");
    assert!(table.contains("message") && table.contains("with, comma"), "{table}");
    assert!(!table.contains('\u{1b}'), "an escape sequence of a log line reached the terminal");

    let failed = run_beeacon(&["sql", "--url", &url, "select nonsense from logs"], b"");
    assert!(!failed.status.success());
    assert!(text(&failed.stderr).contains("nonsense"), "{}", text(&failed.stderr));
    for forbidden in
        ["drop table logs", "insert into logs values (1)", "create table x (a int)", "copy logs to '/tmp/x'"]
    {
        let refused = run_beeacon(&["sql", "--url", &url, forbidden], b"");
        assert!(!refused.status.success(), "{forbidden} was taken");
    }
    assert_eq!(alone.sql.number("select count(*) as n from logs"), 4);
}

/// Guarantees: without a query, statements and commands come from standard input; the first fault ends it, and says where.
#[test]
fn sql_without_a_query_runs_a_script() {
    let alone = Alone::start("sql_script", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    assert_eq!(hand.send(&["one".to_owned(), "two; three".to_owned()]).status, 200);
    let url = format!("http://{}", alone.sql.address);
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.csv");
    let script = format!(
        "\\format csv\nselect message -- a; comment\n  from logs where message = 'two; three';\nselect 1 as a; select 2 as b;\n\
         \\o {}\nselect 3 as c;\n\\o\n\\format table\n\\x\nselect 4 as d",
        rows.display()
    );
    let output = run_beeacon(&["sql", "--url", &url], script.as_bytes());
    assert_success(&output);
    let csv = "message\r\ntwo; three\r\na\r\n1\r\nb\r\n2\r\n";
    assert_eq!(text(&output.stdout), format!("{csv}-- row 1\nd  4\n"));
    assert_eq!(std::fs::read_to_string(&rows).unwrap(), "c\r\n3\r\n");

    let described = run_beeacon(&["sql", "--url", &url, "--format", "csv"], b"\\d\n\\d logs\n\\df logfmt\n");
    assert_success(&described);
    let said = text(&described.stdout);
    for part in ["logs,", "gaps,", "message,", "position_minor,", "logfmt"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }

    let failed = run_beeacon(&["sql", "--url", &url], b"select nonsense from logs;\nselect 1;\n");
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(text(&failed.stdout), "", "nothing runs behind a fault");
    assert!(text(&failed.stderr).contains("line 1, column 8"), "{}", text(&failed.stderr));
    for wrong in ["\\nonsense\n", "\\i /nowhere/at/all\n", "\\d nonsense\n", "\\format parquet\n"] {
        assert_ne!(run_beeacon(&["sql", "--url", &url], wrong.as_bytes()).status.code(), Some(0), "{wrong}");
    }
}

/// Guarantees: the shell completes, shows rows, goes on after a fault, keeps history for its owner, and escapes control characters.
#[test]
fn sql_on_a_terminal_is_a_shell() {
    let alone = Alone::start("sql_shell", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    assert_eq!(hand.send(&["with \u{1b}]0;owned\u{7} title".to_owned()]).status, 200);
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history");
    let steps = serde_json::json!([
        ["beeacon", "select count(*) as lines\r"],
        ["->", "from redac\t\r"],
        ["->", ";\r"],
        ["1 row", "select nonsense from logs;\r"],
        ["^", "select message from logs;\r"],
        ["1 row", " select 'not to be kept';\r"],
        ["1 row", "\\x\r"],
        // Typed before the next prompt, the end of input would be taken by the terminal itself.
        ["blocks", ""],
        ["beeacon", "\u{4}"],
    ]);
    let mut terminal = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/terminal.py"))
        .arg(env!("CARGO_BIN_EXE_beeacon"))
        .args(["sql", "--url", &format!("http://{}", alone.sql.address)])
        .env("BEEACON_SQL_HISTORY", &history)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut terminal.stdin.take().unwrap(), steps.to_string().as_bytes()).unwrap();
    let output = terminal.wait_with_output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}\n{}\n{shown}", output.status, text(&output.stderr));
    assert!(shown.contains("from redactions"), "Tab completes the name of a table: {shown}");
    assert!(shown.contains("with \\u{1b}]0;owned\\u{7} title"), "{shown}");
    assert!(!shown.contains("\u{1b}]0;owned"), "a line of a log set the terminal's title");
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.contains("select message from logs;"), "{kept}");
    assert!(!kept.contains("not to be kept"), "{kept}");
}

/// Guarantees: verify and dump tell what a closed journal holds, and a flipped bit makes verify fail.
#[test]
fn a_journal_can_be_verified_and_dumped_and_damage_is_told() {
    let mut alone = Alone::start("journal", None, None);
    let mut hand = Hand::open(alone.sql.address, 1, "web");
    assert_eq!(hand.send(&["a line to be found".to_owned()]).status, 200);
    assert_eq!(hand.send(&["another one".to_owned()]).status, 200);
    alone.server.kill();
    let directory = alone.data.join("journal");
    let directory = directory.to_str().unwrap();

    let verified = run_beeacon(&["journal", "verify", directory], b"");
    assert_success(&verified);
    assert!(text(&verified.stdout).contains("clean"), "{}", text(&verified.stdout));

    let dumped = run_beeacon(&["journal", "dump", "--messages", directory], b"");
    assert_success(&dumped);
    let said = text(&dumped.stdout);
    for part in ["session of agent", "docker-file:web", "a line to be found", "another one"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }

    flip_a_bit_of_a_frame(&alone);
    let damaged = run_beeacon(&["journal", "verify", directory], b"");
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged.stdout));
    assert!(text(&damaged.stdout).contains("DAMAGED"));
    // Damage never keeps the program from starting.
    alone.server.start();
    assert_eq!(hand_count(alone.sql), 1);
}

fn hand_count(sql: Sql) -> u64 {
    sql.number("select count(*) as n from logs")
}

/// Flips one bit in the payload of the first frame in the journal.
fn flip_a_bit_of_a_frame(alone: &Alone) {
    for entry in std::fs::read_dir(alone.data.join("journal")).unwrap().flatten() {
        let Ok(mut bytes) = std::fs::read(entry.path()) else { continue };
        let Some(at) = memchr::memmem::find(&bytes, b"BEEACONF") else { continue };
        bytes[at + 100] ^= 4;
        std::fs::write(entry.path(), bytes).unwrap();
        return;
    }
    panic!("no frame in the journal");
}

/// Guarantees: every fault is told in one run, with its key, and the nearest name for a misspelt one.
#[test]
fn validate_reports_all_faults_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("beeacon.toml");
    std::fs::write(
        &file,
        "[http]\nlisten = \"nowhere\"\n[store]\nflush_agee = \"2s\"\nflush_bytes = \"-1\"\n[jurnal]\nx = 1\n",
    )
    .unwrap();
    let output = run_beeacon(&["validate", file.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    let said = text(&output.stdout) + &text(&output.stderr);
    for part in ["listen", "nowhere", "flush_agee", "flush_age", "flush_bytes", "jurnal", "journal"] {
        assert!(said.contains(part), "{part} is not told in:\n{said}");
    }
    std::fs::write(&file, "[http]\nlisten = \"127.0.0.1:4880\"\n").unwrap();
    assert_success(&run_beeacon(&["validate", file.to_str().unwrap()], b""));

    let receivers = folder.path().join("receivers.yaml");
    std::fs::write(&receivers, "route: {receiver: team}\nreceivers:\n  - name: team\n    slak: {}\n")
        .unwrap();
    std::fs::write(&file, format!("[alerts]\nreceivers = {receivers:?}\n")).unwrap();
    let output = run_beeacon(&["validate", file.to_str().unwrap()], b"");
    assert!(!output.status.success(), "the fault stands in a file that the configuration names");
    assert!(text(&output.stderr).contains("receivers.yaml:4:5"), "{}", text(&output.stderr));
}

/// Guarantees: what goes through `beeacon scrub` comes out line by line without its secrets, also over many lines.
#[test]
fn scrub_takes_every_planted_secret_out_of_a_stream() {
    let printed =
        Printed { container: "s".into(), seed: 8, lines: 5_000, shape: Shape::Long, streams: Streams::Out };
    let input: String = (0..5_000).map(|id| line(8, "s", 'o', id, Shape::Long).raw() + "\n").collect();
    let output = run_beeacon(&["scrub", "--report", "json"], input.as_bytes());
    assert_success(&output);
    let mut search = Search::default();
    Leaks::new(printed.secrets()).search_bytes("scrubbed", &output.stdout, &mut search);
    search.assert_clean();
    assert_eq!(text(&output.stdout).lines().count(), 5_000);
    let report: Value = serde_json::from_slice(&output.stderr).unwrap();
    println!("scrub's report: {report}");
    let again = run_beeacon(&["scrub"], &output.stdout);
    assert!(again.stdout == output.stdout, "a second run over scrubbed text changed it");
}

/// Guarantees: the doctor ends, and says what is wrong with a Docker that is not there.
#[test]
fn the_doctor_names_a_docker_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let socket = format!("unix://{}", folder.path().join("no.sock").display());
    let output = run_beeacon(&["doctor", "--data", data.to_str().unwrap(), "--docker-host", &socket], b"");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.to_lowercase().contains("docker"), "{said}");
}

/// Guarantees: the demo serves rows and redactions without a Docker, and stops in order when asked.
#[test]
fn the_demo_has_rows_and_redactions_within_seconds() {
    let folder = Folder::new("demo");
    let address = free_address();
    let mut demo = Program::new("demo", beeacon(), &folder.path().join("output"), Some(address))
        .argument("demo")
        .option("--data", folder.path().join("data"))
        .option("--listen", address.to_string())
        .option("--postgres", "none")
        .option("--rate", "500");
    demo.start();
    let sql = Sql { address };
    wait_until("rows of the demo", seconds(30), || {
        sql.try_number("select count(*) as n from logs").is_ok_and(|n| n > 500)
            && sql.try_number("select count(*) as n from redactions").is_ok_and(|n| n > 0)
    });
    demo.stop();
    let stopped = Command::new(beeacon())
        .args(["journal", "verify"])
        .arg(folder.path().join("data/journal"))
        .output()
        .unwrap();
    assert_success(&stopped);
}

/// Scenario: `beeacon up` on a private Docker, as on a user's machine.
/// Guarantees: what Docker kept from before the start and what is printed later is there; `/readyz`, status and statistics answer.
#[test]
fn up_reads_past_and_new_lines_of_the_local_docker() {
    need_docker!("up_reads_past_and_new_lines_of_the_local_docker");
    let docker = crate::harness::docker::Docker::start();
    let folder = Folder::new("up");
    let run = |name: &str| {
        let printed = Printed {
            container: name.into(),
            seed: 2,
            lines: 3_000,
            shape: Shape::Plain,
            streams: Streams::Both,
        };
        let mut spec = Spec::new(name, &[]);
        spec.command = printed.command(0, None);
        spec.labels = vec![("com.docker.compose.service", "shop")];
        docker.wait(&docker.run(&spec), seconds(60));
        printed
    };
    let past = run("past");
    let address = free_address();
    let mut up = Program::new("up", beeacon(), &folder.path().join("output"), Some(address))
        .argument("up")
        .option("--data", folder.path().join("data"))
        .option("--listen", address.to_string())
        .option("--postgres", "none")
        .option("--docker-host", docker.host())
        .option("--containers-directory", docker.containers_directory());
    up.start();
    let new = run("new");
    let sql = Sql { address };
    for printed in [&past, &new] {
        let query = format!(
            "select count(*) as n from logs where container = '{}' and service = 'shop'",
            printed.container
        );
        wait_until("all lines", seconds(30), || sql.try_number(&query) == Ok(3_000));
        let verdict = crate::harness::oracle::judge(sql, printed);
        assert!(verdict.is_clean(), "{verdict}");
    }
    for path in ["/healthz", "/readyz", "/api/beeacon/status", "/api/beeacon/pollen-filter/stats"] {
        assert_eq!(request(address, "GET", path, &[], b"").unwrap().status, 200, "{path}");
    }
    let redacted = sql.number("select sum(count) as n from redactions");
    let planted = (past.secrets().len() + new.secrets().len()) as u64;
    println!("{planted} secrets planted, {redacted} redactions noted");
    assert!(redacted >= planted);
    up.stop();
}

/// Guarantees: `/metrics` is what Prometheus' own checker calls right, on the server and on an agent that runs in `up`.
#[test]
fn metrics_pass_promtool() {
    let Some(promtool) = program("promtool") else {
        return skip("metrics_pass_promtool", "promtool is not installed");
    };
    need_docker!("metrics_pass_promtool");
    let world = World::start("metrics", Plan::default());
    let printed =
        Printed { container: "some".into(), seed: 2, lines: 500, shape: Shape::Plain, streams: Streams::Out };
    world.run(&printed, 0, None, |_| {});
    world.wait_rows("some", 500, 30);
    let address = free_address();
    let mut up = Program::new("up", beeacon(), &world.path("up-output"), Some(address))
        .argument("up")
        .option("--data", world.path("up-data"))
        .option("--listen", address.to_string())
        .option("--postgres", "none")
        .option("--docker-host", world.docker.host())
        .option("--containers-directory", world.docker.containers_directory());
    up.start();
    wait_until("rows", seconds(30), || {
        Sql { address }.try_number("select count(*) as n from logs") == Ok(500)
    });
    for (who, address) in [("server", world.sql.address), ("up", address)] {
        let exposed = request(address, "GET", "/metrics", &[], b"").unwrap();
        assert_eq!(exposed.status, 200);
        println!(
            "{who}: {} samples, {:?}",
            exposed.text().lines().filter(|l| !l.starts_with('#')).count(),
            exposed.header("content-type")
        );
        check_with(&promtool, who, &exposed.body);
    }
    let agent = wait_for("metrics of the agent", seconds(10), || {
        let metrics = Metrics::scrape(address)?;
        metrics.has("beeacon_agent_lines_total").then_some(metrics)
    });
    assert!(agent.sum("beeacon_agent_lines_total") >= 500.0);
}

fn check_with(promtool: &std::path::Path, who: &str, exposed: &[u8]) {
    use std::io::Write;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(exposed).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "promtool on {who}: {said}");
}

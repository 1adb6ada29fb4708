//! What can be asked of an agent that runs.

use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beeacon_agent::door::{client, socket_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::collector::Collector;
use crate::dockerd::Log;

async fn over_loopback(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn agent_command(verb: &str, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command.arg(verb).arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// Scenario: the program runs, with an address to listen on, and another tap has already looked and gone.
/// Guarantees: top, tap and metrics say what they should of what passes, and never what was redacted; lines are given out through
/// the socket alone, and only its owner reaches that; an agent that was killed is followed by one that opens its door again.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_shows_its_containers_its_counts_and_scrubbed_lines() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (data, containers) = (directory.path().join("data"), directory.path().join("containers"));
    std::fs::create_dir(&containers).unwrap();
    let mut web = Log::create(&containers, "web", 0, 1);
    let mut other = Log::create(&containers, "other", 0, 1);
    // A port that is free now.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let file = directory.path().join("b.toml");
    std::fs::write(&file, format!("[agent]\nlisten = \"{address}\"\n")).unwrap();
    let start = || {
        let mut command = agent_command("run", &data);
        command.args(["--docker-host", "none", "--collector", &collector.url, "--config"]).arg(&file);
        command.arg("--containers-directory").arg(&containers);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut killed = start();
    collector.until("a session", |state| state.sessions == 1).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut child = start();
    collector.until("another session", |state| state.sessions == 2).await;
    let mut is_open = false;
    for _ in 0..200 {
        is_open = client::status(&data).await.is_ok();
        if is_open {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_open, "the door opens again");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let mode = std::fs::metadata(socket_path(&data).parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let mut tap = agent_command("tap", &data).arg("name-w*").stdout(Stdio::piped()).spawn().unwrap();
    let (printed, output) = (Arc::new(Mutex::new(Vec::new())), tap.stdout.take().unwrap());
    let printing = printed.clone();
    let reading = tokio::task::spawn_blocking(move || {
        for row in std::io::BufReader::new(output).lines() {
            printing.lock().unwrap().push(row.unwrap());
        }
    });
    let (seeing, mut seen) = tokio::sync::mpsc::channel::<String>(1024);
    let at = data.clone();
    let tapping = tokio::spawn(async move {
        client::tap(&at, None, |line| Ok(seeing.try_send(line.to_owned()).is_ok())).await
    });
    // Until both look, lines pass unseen; they are written until both have seen one.
    let mut line = 0;
    let mut first = None;
    while first.is_none() || printed.lock().unwrap().is_empty() {
        web.line("stdout", &format!("planted-4d@example.org web {line}"));
        other.line("stderr", &format!("planted-4d@example.org other {line}"));
        line += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        first = first.or(seen.try_recv().ok());
    }
    let object: serde_json::Value = serde_json::from_str(&first.unwrap()).unwrap();
    assert!(object["message"].as_str().unwrap().starts_with("<EMAIL> "), "{object}");

    let metrics = over_loopback(&address, "/metrics").await;
    assert!(
        metrics.contains("\nbeeacon_agent_lines_total ") && metrics.starts_with("HTTP/1.1 200"),
        "{metrics}"
    );
    assert!(over_loopback(&address, "/tap").await.starts_with("HTTP/1.1 403"));
    assert!(over_loopback(&address, "/other").await.starts_with("HTTP/1.1 404"));
    let status = over_loopback(&address, "/status").await;
    let output = agent_command("top", &data).arg("--once").output().unwrap();
    let top = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && top.contains("name-web") && top.contains("name-other"), "{top}");
    let of = |name: &str| -> Vec<String> {
        let row = top.lines().find(|row| row.starts_with(name)).unwrap();
        row.split_whitespace().map(str::to_owned).collect()
    };
    let redactions: u64 = of("name-web").last().unwrap().parse().unwrap();
    assert!(redactions > 0 && redactions <= line, "{top}");
    let output = agent_command("metrics", &data).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("beeacon_agent_rule_matches_total{rule=\"email\"}")
    );

    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(tap.wait().unwrap().success(), "a tap ends with its agent");
    tapping.await.unwrap().ok();
    reading.await.unwrap();
    let tapped = printed.lock().unwrap().join("\n");
    assert!(
        tapped.lines().all(|row| row.contains(" name-web  ") && row.contains("<EMAIL> web ")),
        "{tapped}"
    );
    for text in [&metrics, &status, &top, &tapped] {
        assert!(!text.contains("planted-4d"), "{text}");
    }
    let output = agent_command("top", &data).arg("--once").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("does it run"), "{said}");
}

#[test]
fn every_command_of_the_page_on_the_agent_is_understood() {
    let page = include_str!("../../../docs/agent.md");
    let blocks = page.split("\n```sh\n").skip(1).map(|block| block.split_once("\n```").unwrap().0);
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(commands.len() >= 5);
    for command in commands {
        let words: Vec<&str> = command.strip_prefix("beeacon-agent ").unwrap().split(' ').collect();
        let output =
            Command::new(env!("CARGO_BIN_EXE_beeacon-agent")).args(&words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command}");
        // A flag that is not known is refused though help is asked for behind it.
        let output = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"))
            .args([words[0], "--unknown-flag", "--help"])
            .output()
            .unwrap();
        assert!(!output.status.success());
    }
}

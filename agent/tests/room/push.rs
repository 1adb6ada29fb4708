use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use beeacon_agent::push::{PushConfig, SyslogConfig, Transport};
use beeacon_agent::spool::SpoolConfig;
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use tempfile::TempDir;

use crate::collector::{Collector, Mood, State};
use crate::stories::{Running, config, directory, number};

const ANY_PORT: &str = "127.0.0.1:0";

fn start(collector: &Collector, directory: &TempDir, token: Option<&str>, bytes_max: u64) -> Running {
    let push = PushConfig {
        syslog: vec![SyslogConfig { listen: ANY_PORT.parse().unwrap(), transport: Transport::Both }],
        http: Some(ANY_PORT.parse().unwrap()),
        token: token.map(str::to_owned),
        stdin: false,
    };
    let spool = SpoolConfig { bytes_max, free_bytes_min: 0, ..SpoolConfig::default() };
    let config = AgentConfig { push, spool, ..config(collector, directory.path()) };
    assert!(config.faults().is_empty());
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    Running::run(Agent::new(config, engine, 0).unwrap())
}

async fn door(running: &Running, name: &str) -> SocketAddr {
    for _ in 0..200 {
        if let Some(door) = running.agent.status().doors.iter().find(|door| door.door == name) {
            return door.address;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no door {name}");
}

/// Sends a request on a connection of its own; gives the status and the rest of the answer.
fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let mut head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::UnexpectedEof)?, answer))
}

/// Path, headers, body, and the status it gets.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn loki(lines: &[String]) -> Vec<u8> {
    let values: Vec<[&str; 2]> = lines.iter().map(|line| ["1700000000000000000", line.as_str()]).collect();
    let stream = serde_json::json!({ "service_name": "shop", "level": "warn", "mail": "bob@example.org" });
    serde_json::json!({ "streams": [{ "stream": stream, "values": values }] }).to_string().into_bytes()
}

/// Scenario: lines come by every door, before there ever was a collector.
/// Guarantees: each is answered, scrubbed with the names and attributes it came with, and stored once in the order of its door.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_every_door_are_kept_at_once_and_shipped_scrubbed() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Down;
    let running = start(&collector, &directory, None, 1 << 30);
    let (syslog, http) = (door(&running, "syslog").await, door(&running, "push").await);
    let sent = tokio::task::spawn_blocking(move || {
        let body = loki(&["mail bob@example.org 0".into(), "loki 1".into()]);
        assert_eq!(post(http, "/loki/api/v1/push", &[JSON], &body).unwrap().0, 204);
        let body = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}}]},
            "scopeLogs":[{"logRecords":[{"severityNumber":17,"body":{"stringValue":"call bob@example.org 0"}}]}]}]}"#;
        let gzip_header = ("content-encoding", "gzip");
        assert_eq!(post(http, "/v1/logs", &[JSON, gzip_header], &gzip(body)).unwrap().0, 200);
        let mut stream = TcpStream::connect(syslog).unwrap();
        let message = "<11>1 - - web-1 - - - mail bob@example.org 0";
        stream
            .write_all(format!("{} {message}<14>bob@example.org: second 1\n", message.len()).as_bytes())
            .unwrap();
        drop(stream);
    });
    sent.await.unwrap();
    // Two requests and one connection.
    collector.state.lock().unwrap().mood = Mood::Well;
    collector.until("five rows", |state| state.rows.len() == 5).await;
    let socket = UdpSocket::bind(ANY_PORT).unwrap();
    socket.send_to(b"<14>cron[7]: datagram 2\n", syslog).unwrap();
    collector.until("the datagram", |state| state.rows.len() == 6).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let of = |door: &str| {
        let rows =
            state.rows.iter().filter(|(source, ..)| source.starts_with("push:") && source.ends_with(door));
        rows.map(|(_, _, row)| (row.service.as_str(), row.level.as_str(), row.message.as_str()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("loki"), [("shop", "warn", "mail <EMAIL> 0"), ("shop", "warn", "loki 1")]);
    assert_eq!(of("otlp"), [("pay", "error", "call <EMAIL> 0")]);
    // A tag that holds an address is no tag, so it stays in the text.
    let expected = [
        ("web-1", "error", "mail <EMAIL> 0"),
        ("syslog", "info", "<EMAIL>: second 1"),
        ("cron", "info", "datagram 2"),
    ];
    assert_eq!(of("syslog"), expected);
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

/// Scenario: what senders may get wrong, and what attackers send.
/// Guarantees: each gets its status and a sentence that quotes nothing of it; good requests before and after are stored.
#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_name_and_the_door_stays_open() {
    let (collector, directory) = (Collector::start().await, directory());
    let running = start(&collector, &directory, Some("a token of letters"), 1 << 30);
    let (syslog, http) = (door(&running, "syslog").await, door(&running, "push").await);
    let table = tokio::task::spawn_blocking(move || {
        let bearer = ("authorization", "Bearer a token of letters");
        let loki_path = "/loki/api/v1/push";
        // A block that announces a gibibyte.
        let bomb = [0x80, 0x80, 0x80, 0x80, 0x04, 0xfe, 0xff, 0xff];
        let large = vec![b' '; 5 << 20];
        // A few kilobytes that inflate to twice the limit.
        let gzip_bomb = gzip(&vec![b' '; 32 << 20]);
        assert!(gzip_bomb.len() < 1 << 20);
        let packed = gzip(&loki(&["good 2".into()]));
        let cut = &packed[..packed.len() / 2];
        let as_gzip = ("content-encoding", "gzip");
        let good = loki(&["good 0".into()]);
        let table: &[Case<'_>] = &[
            (loki_path, &[JSON, bearer], &good, 204),
            (loki_path, &[JSON], &good, 401),
            (loki_path, &[JSON, ("authorization", "Bearer a token of lettert")], &good, 401),
            (loki_path, &[bearer], &good, 415),
            (loki_path, &[JSON, bearer, ("content-encoding", "br")], &good, 415),
            (loki_path, &[PROTOBUF, bearer, as_gzip], &good, 415),
            (loki_path, &[JSON, bearer, as_gzip], &good, 400),
            (loki_path, &[JSON, bearer, as_gzip], cut, 400),
            (loki_path, &[JSON, bearer, as_gzip], &gzip_bomb, 413),
            ("/v1/logs", &[PROTOBUF, bearer, as_gzip], &gzip_bomb, 413),
            (loki_path, &[JSON, bearer, as_gzip], &packed, 204),
            (loki_path, &[JSON, bearer], b"planted-8c1f", 400),
            (loki_path, &[PROTOBUF, bearer], b"planted-8c1f", 400),
            (loki_path, &[PROTOBUF, bearer], &bomb, 413),
            (loki_path, &[JSON, bearer], &large, 413),
            ("/v1/logs", &[JSON, bearer], b"[\"planted-8c1f\"]", 400),
            ("/v1/logs", &[PROTOBUF, bearer], b"planted-8c1f", 400),
            ("/v1/traces", &[PROTOBUF, bearer], b"", 404),
            (loki_path, &[JSON, bearer], &loki(&["good 1".into()]), 204),
        ];
        for (path, headers, body, expected) in table {
            let answered = post(http, path, headers, body);
            // A body that is too large may be cut off before the answer is read.
            let Ok((status, answer)) = answered else {
                assert_eq!(*expected, 413);
                continue;
            };
            assert_eq!(status, *expected, "{path} {headers:?}: {answer}");
            assert!(!answer.contains("planted-8c1f"), "{answer}");
        }
        let mut stream = TcpStream::connect(syslog).unwrap();
        stream.write_all(b"<14>app: kept 0\n999999999 <14>never").unwrap();
        let mut rest = Vec::new();
        // The connection is closed, for nobody knows where the next message would begin.
        stream.read_to_end(&mut rest).ok();
    });
    table.await.unwrap();
    collector.until("the good ones", |state| state.rows.len() == 4).await;
    running.stop().await;
    assert_eq!(collector.state.lock().unwrap().rows.len(), 4);
}

/// Scenario: the collector is away, and senders send more than the spool may hold.
/// Guarantees: what was answered well is stored once; of what was refused some may be; the disk stays within the quota.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_keeps_what_it_has_answered() {
    let (collector, directory) = (Collector::start().await, directory());
    collector.state.lock().unwrap().mood = Mood::Down;
    let running = start(&collector, &directory, None, 20 << 20);
    let http = door(&running, "push").await;
    let sent = tokio::task::spawn_blocking(move || {
        let mut random = 1u64;
        let (mut kept, mut refused) = (0, 0);
        while refused < 3 {
            let lines: Vec<String> = (0..100)
                .map(|_| {
                    let text: String = std::iter::repeat_with(|| {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        char::from(b'g' + (random % 16) as u8)
                    })
                    .take(20_000)
                    .collect();
                    format!("{text} {kept}")
                })
                .collect();
            match post(http, "/loki/api/v1/push", &[JSON], &loki(&lines)).unwrap() {
                (204, _) => kept += 1,
                (503, answer) => {
                    assert!(answer.contains("retry-after: 1"), "{answer}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
            assert!(kept < 100, "the quota was passed");
        }
        kept
    });
    let kept = sent.await.unwrap();
    assert!(kept > 4, "{kept}");
    let spool = loop {
        match running.agent.status().spool {
            Some(spool) => break spool,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(spool.bytes <= 20 << 20, "{spool:?}");
    collector.state.lock().unwrap().mood = Mood::Well;
    let answered =
        |state: &State| state.rows.iter().filter(|(_, _, row)| number(&row.message) < kept).count() as u64;
    collector.until("all that was kept", |state| answered(state) == kept * 100).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_eq!(answered(&state), kept * 100);
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

fn spawn(collector: &Collector, directory: &TempDir, extra: &str, arguments: &[&str], input: Stdio) -> Child {
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, format!("[agent.spool]\npatience = \"100 ms\"\nfree_bytes_min = 0\n{extra}"))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command.args(["run", "--docker-host", "none", "--collector", &collector.url]);
    command.arg("--config").arg(path).arg("--data").arg(directory.path().join("data")).args(arguments);
    command.env("BEEACON_LOG", "info").stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Scenario: the program is killed while senders send, and the collector comes and goes.
/// Guarantees: every line that was answered well is stored, once for each time it was; lines that were not answered may be.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_kills() {
    let (collector, directory) = (Collector::start().await, directory());
    let address = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let extra = format!("[agent.push]\nlisten = \"{address}\"\n");
    let (mut answered, mut sent) = (Vec::new(), 0u64);
    for round in 0..6u64 {
        collector.state.lock().unwrap().mood = if round % 2 == 0 { Mood::Down } else { Mood::LosesAnswers };
        let mut child = spawn(&collector, &directory, &extra, &[], Stdio::null());
        let first = sent;
        let batch = tokio::task::spawn_blocking(move || {
            let (mut answered, mut sent) = (Vec::new(), first);
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            let mut good = 0;
            while good < 15 + round && std::time::Instant::now() < deadline {
                let lines: Vec<String> = (0..20).map(|line| format!("line {}", sent + line)).collect();
                match post(address, "/loki/api/v1/push", &[JSON], &loki(&lines)) {
                    Ok((204, _)) => {
                        answered.extend(sent..sent + 20);
                        good += 1;
                    }
                    // Not up yet.
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
                sent += 20;
            }
            assert!(good >= 15, "the program never came up");
            // One more that is never waited for.
            let lines: Vec<String> = (0..20).map(|line| format!("line {}", sent + line)).collect();
            let body = loki(&lines);
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!(
                "POST /loki/api/v1/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            std::thread::sleep(Duration::from_millis(round * 3));
            (answered, sent + 20)
        });
        let (more, until) = batch.await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        answered.extend(more);
        sent = until;
    }
    collector.state.lock().unwrap().mood = Mood::Well;
    let mut child = spawn(&collector, &directory, &extra, &[], Stdio::null());
    let stored =
        |state: &State| -> Vec<u64> { state.rows.iter().map(|(_, _, row)| number(&row.message)).collect() };
    let wanted = *answered.last().unwrap();
    collector.until("the last answered line", |state| stored(state).contains(&wanted)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let state = collector.state.lock().unwrap();
    let mut stored = stored(&state);
    let count = stored.len();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), count, "a line is stored twice");
    assert!(answered.iter().all(|line| stored.binary_search(line).is_ok()), "an answered line is missing");
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_shipped_to_its_last_line_and_then_the_program_ends() {
    let (collector, directory) = (Collector::start().await, directory());
    let mut child = spawn(&collector, &directory, "", &["--stdin"], Stdio::piped());
    let mut input = child.stdin.take().unwrap();
    let written = tokio::task::spawn_blocking(move || {
        for line in 0..5000 {
            writeln!(input, "mail bob@example.org {line}").unwrap();
        }
        write!(input, "no newline 5000").unwrap();
    });
    written.await.unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    let state = collector.state.lock().unwrap();
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    assert!(
        numbers.iter().enumerate().all(|(index, number)| index as u64 == *number) && numbers.len() == 5001
    );
    assert!(state.rows.iter().take(5000).all(|(_, _, row)| row.message.starts_with("mail <EMAIL> ")));
    assert!(state.rows.iter().all(|(source, ..)| source.ends_with(":stdin")));
}

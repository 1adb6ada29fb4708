//! Events with real programs: what happens becomes one, once, over kills; streams resume; servers tell each other over a real Redis.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use beeacon_events::{Event, EventLog, EventType, Maker, Step};
use beeacon_record::{Gap, GapReason, Position};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::Redis;
use crate::alerts::Container;
use crate::harness::frames::Hand;
use crate::harness::http::{self, Response, request};
use crate::harness::metrics::Metrics;
use crate::harness::poll::{seconds, wait_for, wait_until};
use crate::harness::probe::{program, skip};
use crate::harness::processes::{Program, beeacon, beeacon_agent, free_address};
use crate::harness::sql::Sql;
use crate::harness::world::{Alone, Folder};

const PAGE: &str = include_str!("../../docs/events.md");

/// An address and a key as somebody would print them. The key is one that nobody has.
const ADDRESS: &str = "ada.lovelace@mail-of-hers.net";
const KEY: &str = "AKIAY3FQ7NEXAMPLEQZT";

fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(address, method, path, &[("Content-Type", "application/json")], body.as_bytes()).unwrap()
}

/// A page of events.
fn events(address: SocketAddr, query: &str) -> Vec<Value> {
    let answer = ask(address, "GET", &format!("/api/v1/events?{query}"), &Value::Null);
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()["data"]["events"].as_array().unwrap().clone()
}

/// Changes something, which is an event; gives the request's id.
fn act(address: SocketAddr, number: usize) -> String {
    let ends = Timestamp::now() + seconds(3_600);
    let body = json!({
        "matchers": ["service=\"nobody\""], "ends_at": ends.to_string(), "created_by": "ada",
        "comment": format!("number {number}"),
    });
    let id = format!("act-{number}");
    let headers = [("Content-Type", "application/json"), ("X-Request-Id", id.as_str())];
    let answer = request(address, "POST", "/api/v1/silences", &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    id
}

/// An agent that reads containers' files.
fn agent(folder: &Path, server: SocketAddr) -> Program {
    Program::new("agent", beeacon_agent(), &folder.join("output"), None)
        .argument("run")
        .option("--collector", format!("http://{server}"))
        .option("--data", folder.join("agent-data"))
        .option("--docker-host", "none")
        .option("--containers-directory", folder.join("containers"))
        .option("--reader", "file")
}

/// A stream of events. HTTP/1.0, so that its body comes as it is.
struct Stream {
    reader: BufReader<TcpStream>,
    connection: TcpStream,
}

/// A piece of a stream: the fields of an event, or of something about the stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Piece {
    id: Option<String>,
    name: Option<String>,
    data: Option<Value>,
}

impl Stream {
    fn open(address: SocketAddr, query: &str, last: Option<&str>) -> Stream {
        let mut connection = http::connect(address).unwrap();
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!(
            "GET /api/v1/events{query} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{last}\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.0 200"), "{line}");
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Stream { reader, connection }
    }

    /// The next piece that is no comment; none at the end of the stream, however it ends.
    fn next(&mut self) -> Option<Piece> {
        let mut piece = Piece::default();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.strip_suffix('\n')?;
            match line.split_once(": ") {
                Some(("id", id)) => piece.id = Some(id.to_owned()),
                Some(("event", name)) => piece.name = Some(name.to_owned()),
                Some(("data", data)) => piece.data = Some(serde_json::from_str(data).unwrap()),
                _ if line.is_empty() && piece != Piece::default() => return Some(piece),
                _ => {}
            }
        }
    }

    /// The next event; what is about the stream itself is a failure.
    fn event(&mut self) -> Value {
        let piece = self.next().expect("the stream goes on");
        let data = piece.data.unwrap();
        assert_eq!(piece.id.as_deref(), data["id"].as_str(), "{data}");
        assert_eq!(piece.name.as_deref(), data["type"].as_str(), "{data}");
        data
    }
}

const RULES: &str = "groups:\n\
    - name: events\n\
    \x20 rules:\n\
    \x20 - alert: MailLeak\n\
    \x20   stream: {count: redaction, of: email, window: 1s, at_least: 1}\n\
    \x20   labels: {severity: high, category: threat}\n";

fn with_rules(folder: &Path) -> String {
    let path = folder.join("rules.yaml");
    std::fs::write(&path, RULES).unwrap();
    format!(
        "[access]\nrequests_per_minute = 1_000_000\n[alerts]\nrules = [{:?}]\n",
        path.display().to_string()
    )
}

/// Scenario: a service prints an address and a key; an agent declares a gap; somebody sets a silence, and Grafana asks.
/// Guarantees: each of it is an event of its type, over every door; neither the address nor the key is in any of them.
#[test]
fn what_happens_becomes_events_and_no_secret_is_in_one() {
    let folder = Folder::new("events_all");
    let alone = Alone::start("events_all", None, Some(&with_rules(folder.path())));
    let address = alone.sql.address;
    let mut stream = Stream::open(address, "?since=2020-01-01T00:00:00Z", None);
    let mut container = Container::create(&folder.path().join("containers"), 1, "shop");
    let mut agent = agent(folder.path(), address);
    agent.start();
    container.print(&format!("order of {ADDRESS}"));
    container.print(&format!("uploading with {KEY}, receipt to {ADDRESS} and {ADDRESS}"));

    let mut hand = Hand::open(address, 9, "holes");
    assert_eq!(hand.send(&["before".to_owned()]).status, 200);
    let gap = Gap {
        from: Position::new(1, hand.next),
        reason: GapReason::Rotated,
        bytes: 77,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
    };
    let behind = hand.frame_at(hand.next + 100, &["behind".to_owned()], Some(gap));
    assert_eq!(hand.post(&behind).status, 200);

    let request_id = act(address, 1);
    let body = json!({"query": "select 1 as one"}).to_string();
    let headers = [("Content-Type", "application/json"), ("X-Dashboard-Uid", "beeacon-fleet")];
    assert_eq!(request(address, "POST", "/api/v1/sql", &headers, body.as_bytes()).unwrap().status, 200);

    let of = |kind: &str| events(address, &format!("type={kind}"));
    wait_until("the last kind of event", seconds(60), || {
        let kinds = [
            "observability.alert.resolved",
            "observability.dashboard.accessed",
            "user.action",
            "system.alert",
        ];
        let has_key = of("threat.detected").iter().any(|event| event["payload"]["kind"] == "secret");
        has_key && kinds.iter().all(|kind| !of(kind).is_empty())
    });
    let sum = |rule: &str, member: &str| {
        let found = of("observability.pii.detected");
        let of_rule = found.iter().filter(|event| event["payload"]["rule"] == rule);
        of_rule.map(|event| event["payload"][member].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("email", "count"), sum("email", "lines")), (3, 2));
    assert_eq!((sum("aws_key", "count"), sum("aws_key", "lines")), (1, 1));
    let sanitized = of("observability.log.sanitized");
    assert_eq!(sanitized.iter().map(|event| event["payload"]["lines"].as_u64().unwrap()).sum::<u64>(), 2);
    let threats = of("threat.detected");
    let kinds: BTreeSet<&str> =
        threats.iter().map(|event| event["payload"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["alert", "secret"]));
    let (fired, ended) = (of("observability.alert.triggered"), of("observability.alert.resolved"));
    assert_eq!(fired[0]["payload"]["alert"], "MailLeak");
    assert_eq!(fired[0]["correlation_id"], ended[0]["correlation_id"]);
    let action = &of("user.action")[0];
    assert_eq!(action["correlation_id"], request_id.as_str());
    let expected = json!({"user": "local", "role": "admin", "from": "127.0.0.1", "method": "POST",
        "path": "/api/v1/silences", "result": "done", "status": 201});
    assert_eq!(action["payload"], expected);
    let gap = &of("system.alert")[0]["payload"];
    assert_eq!(gap, &json!({"kind": "gap", "origin": "docker-file:holes", "reason": "rotated", "bytes": 77}));
    let look = &of("observability.dashboard.accessed")[0]["payload"];
    assert_eq!(look, &json!({"door": "http", "user": "local", "dashboard": "beeacon-fleet", "count": 1}));

    // The same through the other doors.
    let all = events(address, "since=2020-01-01T00:00:00Z");
    let count = all.len() as u64;
    let rows = alone
        .sql
        .rows(&format!("select sequence, id, type from events where sequence <= {count} order by 1"));
    for (row, event) in rows.iter().zip(&all) {
        assert_eq!((&row["id"], &row["type"]), (&event["id"], &event["type"]));
    }
    let sequence: Vec<u64> =
        all.iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (1..=count).collect::<Vec<_>>());
    for event in &all {
        assert_eq!(&stream.event(), event);
    }

    // What the page says of SQL is so.
    for block in PAGE.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        for query in block.lines() {
            let rows = alone.sql.try_rows(query.trim_end_matches(';'));
            assert!(rows.as_ref().is_ok_and(|rows| !rows.is_empty()), "{query}: {rows:?}");
        }
    }
    let metrics = Metrics::scrape(address).unwrap();
    for name in PAGE.split('`').filter(|word| word.starts_with("beeacon_events_")) {
        assert!(metrics.has(name.split('{').next().unwrap()), "{name}");
    }

    agent.stop();
    drop(alone.server);
    for secret in [ADDRESS, KEY] {
        assert!(!json!(all).to_string().contains(secret));
        for file in ["events.db", "events.db-wal"] {
            let bytes = std::fs::read(alone.data.join(file)).unwrap_or_default();
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret} is in {file}");
        }
    }
}

/// Scenario: a service prints addresses while the server is killed, again and again; an alert counts the same lines.
/// Guarantees: the findings of all events together are those of all lines; each change of an alert is one event; numbers are dense.
#[test]
fn kills_neither_lose_an_event_nor_double_one() {
    const KILLS: usize = 8;
    const LINES: usize = 40;
    let folder = Folder::new("events_kills");
    let mut alone = Alone::start("events_kills", None, Some(&with_rules(folder.path())));
    let address = alone.sql.address;
    let mut container = Container::create(&folder.path().join("containers"), 1, "shop");
    let mut agent = agent(folder.path(), address);
    agent.start();
    for round in 0..KILLS {
        for line in 0..LINES {
            container.print(&format!("order {round}.{line} of {ADDRESS}"));
        }
        let wanted = ((round + 1) * LINES) as u64;
        wait_until("the lines", seconds(60), || {
            alone.sql.try_number("select count(*) as n from logs").is_ok_and(|count| count >= wanted)
        });
        act(address, round);
        // At every distance from the moments at which counts are written.
        std::thread::sleep(Duration::from_millis(700 * round as u64 % 5_000));
        alone.server.kill();
        alone.server.start();
    }
    let total = (KILLS * LINES) as u64;
    let found = "select coalesce(sum(json_get_int(payload, 'count')), 0) as n from events where type = 'observability.pii.detected'";
    wait_until("the findings", seconds(60), || alone.sql.try_number(found).is_ok_and(|count| count >= total));
    let cases = "select count(*) as n from alerts";
    wait_until("the alerts to end", seconds(60), || {
        alone.sql.try_number("select count(*) as n from alerts where status <> 'resolved'") == Ok(0)
            && alone
                .sql
                .try_number("select count(*) as n from events where type = 'observability.alert.resolved'")
                == alone.sql.try_number(cases)
    });
    assert_eq!(alone.sql.number(found), total);
    let count =
        |kind: &str| alone.sql.number(&format!("select count(*) as n from events where type = '{kind}'"));
    assert_eq!(count("observability.alert.triggered"), alone.sql.number(cases));
    assert_eq!(count("user.action"), KILLS as u64);
    let numbers = "select max(sequence) - count(*) as n from events";
    assert_eq!(alone.sql.number(numbers), 0, "numbers are dense");
    assert_eq!(alone.sql.number("select count(*) - count(distinct id) as n from events"), 0);
    println!(
        "{KILLS} kills, {} events, {total} findings",
        alone.sql.number("select count(*) as n from events")
    );
    agent.stop();
}

/// Scenario: a client reads some events, loses its connection, comes back with the last id; the server is killed in between.
/// Guarantees: it has every event of its selection once and in order; one whose last event is not known is told so.
#[test]
fn a_stream_goes_on_where_it_was() {
    let mut alone = Alone::start("events_resume", None, Some("[access]\nrequests_per_minute = 1_000_000\n"));
    let address = alone.sql.address;
    let query = "?type=user.action";
    let mut stream = Stream::open(address, query, None);
    let mut seen = Vec::new();
    let mut done = Vec::new();
    for round in 0..6 {
        done.extend((0..10).map(|n| act(address, 10 * round + n)));
        let mut last = None;
        for _ in 0..3 + round {
            if seen.len() < done.len() {
                let event = stream.event();
                seen.push(event["correlation_id"].as_str().unwrap().to_owned());
                last = event["id"].as_str().map(str::to_owned);
            }
        }
        drop(stream);
        if round % 2 == 1 {
            alone.server.kill();
            alone.server.start();
        }
        stream = Stream::open(address, query, last.as_deref());
    }
    while seen.len() < done.len() {
        seen.push(stream.event()["correlation_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, done);

    // A page behind each of the events says the same.
    let all = events(address, "type=user.action&since=2020-01-01T00:00:00Z");
    let from = &all[50]["id"].as_str().unwrap();
    assert_eq!(events(address, &format!("type=user.action&after={from}")), all[51..]);
    assert_eq!(events(address, "type=user.action&limit=7"), all[all.len() - 7..]);
    for (wrong, status) in [("type=nothing", 400), ("since=now", 400), ("after=x", 404), ("what=x", 400)] {
        let answer = ask(address, "GET", &format!("/api/v1/events?{wrong}"), &Value::Null);
        assert_eq!(answer.status, status, "{wrong}");
    }
    let mut lost = Stream::open(address, query, Some("never-there"));
    assert_eq!(lost.next().unwrap().name.as_deref(), Some("beeacon.incomplete"));
    assert_eq!(lost.event(), all[0]);
    let mut ending = Stream::open(address, query, None);
    alone.server.stop();
    let farewell = ending.next().unwrap();
    assert_eq!(
        (farewell.name.as_deref(), farewell.data),
        (Some("beeacon.closed"), Some(json!({"reason": "stopping"})))
    );
}

/// Fills a log with events, some 30 MB of them.
fn fill(data: &Path, count: u64) {
    std::fs::create_dir_all(data).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = EventLog::open(&data.join("events.db")).await.unwrap();
        let maker = Maker::new(log.server().to_owned(), "test");
        let now = Timestamp::now();
        let numbers: Vec<u64> = (0..count).collect();
        for some in numbers.chunks(5_000) {
            let event = |n: &u64| -> Event {
                let payload = [("kind", Value::from("test")), ("text", "x".repeat(800).into())];
                maker.event(EventType::SystemAlert, format!("e-{n}"), now, "test", payload)
            };
            let step = Step { events: some.iter().map(event).collect(), kept: Vec::new() };
            log.append(&step, now).await.unwrap();
        }
        log.close().await;
    });
}

/// Scenario: clients ask for thirty megabytes of events and do not read them.
/// Guarantees: each is told and closed, one that reads nothing at all as well; the server keeps little for them; the next stream goes
/// on where the last one was cut off.
#[test]
fn a_client_that_does_not_read_is_told_and_closed() {
    const EVENTS: u64 = 30_000;
    let folder = Folder::new("events_slow");
    let data = folder.path().join("data");
    fill(&data, EVENTS);
    let alone = Alone::start("events_slow", Some(&data), None);
    let address = alone.sql.address;
    let before = alone.server.resident_bytes().unwrap();
    let query = "?since=2020-01-01T00:00:00Z&type=system.alert";
    let mut waking = Stream::open(address, query, None);
    let asleep = Stream::open(address, query, None);
    let metric = |name: &str| Metrics::scrape(address).map_or(0.0, |metrics| metrics.sum(name));
    wait_until("both to be slow", seconds(60), || metric("beeacon_events_slow_streams_total") >= 2.0);
    let grown = alone.server.resident_bytes().unwrap().saturating_sub(before);
    println!("two clients that do not read: {} kB more", grown >> 10);
    assert!(grown < 64 << 20, "{grown} bytes");

    // This one reads again in time: everything that was on its way, and then why it ends.
    let mut ids = Vec::new();
    let mut last = None;
    while let Some(piece) = waking.next() {
        match piece.id {
            Some(id) => ids.push(id),
            None => last = Some(piece),
        }
    }
    let last = last.expect("it is told");
    assert_eq!((last.name.as_deref(), last.data), (Some("beeacon.closed"), Some(json!({"reason": "slow"}))));
    assert!(!ids.is_empty() && (ids.len() as u64) < EVENTS);
    let mut again = Stream::open(address, query, ids.last().map(String::as_str));
    for n in ids.len() as u64..EVENTS {
        assert_eq!(again.event()["id"], format!("e-{n}").as_str());
    }
    assert!(ids.iter().enumerate().all(|(n, id)| *id == format!("e-{n}")));

    // This one never reads: its connection is closed all the same, so that what the system holds for it ends before the stream does.
    wait_until("the sleeper to be cut off", seconds(30), || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X} ", asleep.connection.local_addr().unwrap().port());
        let of_server = format!(":{:04X} ", address.port());
        // The server's end of it is established no more.
        !sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = fields.len() > 3
                && format!("{} ", fields[1]).ends_with(&of_server)
                && format!("{} ", fields[2]).ends_with(&port);
            is_ours && fields[3] == "01"
        })
    });
    let mut rest = Vec::new();
    let ended = { asleep }.reader.read_to_end(&mut rest);
    println!("the sleeper had {} bytes: {ended:?}", rest.len());
    assert!((rest.len() as u64) < EVENTS * 800);
}

/// Scenario: two servers on one Redis; it is killed and comes back; somebody publishes nonsense.
/// Guarantees: the stream of one has the actions on the other, those while Redis was away too, each once and under the same id; its
/// loss and its return are events; nonsense is left out and counted, and harms nothing.
#[test]
fn servers_on_one_redis_tell_each_other() {
    let test = "servers_on_one_redis_tell_each_other";
    let (Some(redis_cli), Some(_)) = (program("redis-cli"), program("redis-server")) else {
        return skip(test, "redis-server or redis-cli is not installed");
    };
    let folder = Folder::new("events_redis");
    let mut redis = Redis::start(folder.path());
    let config = format!("[access]\nrequests_per_minute = 1_000_000\n[redis]\nurl = \"{}\"\n", redis.url);
    let one = Alone::start("events_one", None, Some(&config));
    let other = Alone::start("events_other", None, Some(&config));
    let metric =
        |alone: &Alone, name: &str| Metrics::scrape(alone.sql.address).map_or(0.0, |found| found.sum(name));
    let subscribed = |times: f64| {
        wait_until("both to have subscribed", seconds(60), || {
            [&one, &other].iter().all(|alone| metric(alone, "beeacon_events_subscriptions_total") >= times)
        });
    };
    subscribed(1.0);
    let mut stream = Stream::open(other.sql.address, "?type=user.action", None);
    let began = Instant::now();
    let first = act(one.sql.address, 1);
    let heard = stream.event();
    println!("an action on one server in a stream of the other: {} ms", began.elapsed().as_millis());
    assert_eq!(heard["correlation_id"], first.as_str());
    let own = &events(one.sql.address, "type=user.action")[0];
    assert_eq!((&heard["id"], &heard["metadata"]["server"]), (&own["id"], &own["metadata"]["server"]));

    redis.kill();
    let is_told = |alone: &Alone, kind: &str| {
        let found = events(alone.sql.address, &format!("type=observability.health.{kind}"));
        let server = events(alone.sql.address, "type=user.action")[0]["metadata"]["server"].clone();
        let by_one = found.iter().filter(|event| event["metadata"]["server"] == server);
        by_one.filter(|event| event["payload"]["check"] == "redis").count()
    };
    wait_until("the loss to be told", seconds(60), || is_told(&one, "failed") == 1);
    let away: Vec<String> = (2..6).map(|n| act(one.sql.address, n)).collect();
    redis.start_again();
    for id in &away {
        assert_eq!(stream.event()["correlation_id"], id.as_str());
    }
    wait_until("the return to be told", seconds(60), || is_told(&one, "recovered") == 1);
    subscribed(2.0);

    let said = |channel: &str, message: &str| {
        let socket = redis.url.strip_prefix("redis+unix://").unwrap();
        let output = std::process::Command::new(&redis_cli)
            .args(["-s", socket, "publish", channel, message])
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut again = own.clone();
    again["metadata"].as_object_mut().unwrap().remove("sequence");
    assert_eq!(said("events:user.action", &again.to_string()), "2", "both listen");
    again["payload"]["user"] = json!({"deep": "nonsense"});
    again["id"] = json!("another");
    for message in ["nonsense", "{}", &again.to_string(), &"x".repeat(100_000)] {
        said("events:user.action", message);
    }
    for alone in [&one, &other] {
        wait_until("nonsense to be counted", seconds(30), || {
            metric(alone, "beeacon_events_refused_total") == 4.0
        });
        let found = events(alone.sql.address, "type=user.action");
        let ids: Vec<&str> = found.iter().map(|event| event["correlation_id"].as_str().unwrap()).collect();
        let expected: Vec<&str> = [&first].into_iter().chain(&away).map(String::as_str).collect();
        assert_eq!(ids, expected, "each once");
    }
}

/// Scenario: two servers with the same rule on one Redis; the one whose turn it is is killed; later Redis is.
/// Guarantees: one evaluates at a time; the other takes over within the time of a turn, and the alert fires there; without Redis both
/// evaluate.
#[test]
fn one_of_several_servers_evaluates_a_rule_until_it_is_killed_or_redis_is() {
    let test = "one_of_several_servers_evaluates_a_rule_until_it_is_killed_or_redis_is";
    if program("redis-server").is_none() {
        return skip(test, "redis-server is not installed");
    }
    let folder = Folder::new("turns");
    let mut redis = Redis::start(folder.path());
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "groups:\n- name: shared\n  interval: 1s\n  rules:\n  - {alert: Always, sql: \"SELECT 'x' AS thing, 1 AS value WHERE $at > TIMESTAMP '2020-01-01T00:00:00Z'\", for: 1s}\n",
    )
    .unwrap();
    let config = format!(
        "[redis]\nurl = \"{}\"\n[access]\nrequests_per_minute = 1_000_000\n[alerts]\nturns = true\nrules = [{:?}]\n",
        redis.url,
        rules.display().to_string()
    );
    let mut servers =
        [Alone::start("turns_one", None, Some(&config)), Alone::start("turns_other", None, Some(&config))];
    let metric =
        |alone: &Alone, name: &str| Metrics::scrape(alone.sql.address).map_or(0.0, |found| found.sum(name));
    let evaluations = |alone: &Alone| metric(alone, "beeacon_alerts_evaluations_total");
    // At the start either may be without Redis for a moment and evaluate for itself; from then on one of them goes on.
    let grows = |alone: &Alone, span: Duration| {
        let before = evaluations(alone);
        std::thread::sleep(span);
        evaluations(alone) > before
    };
    wait_until("one of them to evaluate", seconds(60), || {
        servers.iter().any(|server| evaluations(server) >= 3.0)
    });
    let mut mine = Vec::new();
    wait_until("one of them to evaluate alone", seconds(60), || {
        mine = servers.iter().map(|server| grows(server, Duration::from_millis(2_500))).collect();
        mine.iter().filter(|grows| **grows).count() == 1
    });
    let (holder, other) = if mine[0] { (0, 1) } else { (1, 0) };
    let before = evaluations(&servers[other]);
    let began = Instant::now();
    servers[holder].server.kill();
    wait_until("the other to take over", seconds(20), || evaluations(&servers[other]) > before);
    println!("the other server took over after {:?}", began.elapsed());
    let fired = || events(servers[other].sql.address, "type=observability.alert.triggered");
    wait_until("the alert", seconds(20), || !fired().is_empty());
    servers[holder].server.start();
    wait_until("the first to leave it to the other", seconds(60), || {
        !grows(&servers[holder], Duration::from_millis(2_500))
            && grows(&servers[other], Duration::from_millis(2_500))
    });
    redis.kill();
    wait_until("both to evaluate", seconds(30), || {
        servers.iter().all(|server| grows(server, Duration::from_millis(2_500)))
    });
}

/// Guarantees: the page's event is one, and it has the types that there are.
#[test]
fn the_page_of_events_says_what_is_so() {
    let block = PAGE.split("```json event\n").nth(1).unwrap().split("```").next().unwrap();
    let event = Event::read(block.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(event.kind, EventType::PiiDetected);
    for kind in EventType::ALL {
        assert!(PAGE.contains(&format!("\n| `{kind}` | ")), "{kind}");
    }
}

/// Guarantees: a login that Grafana makes at the PostgreSQL door is one look, and what psql does is none.
#[test]
fn grafanas_logins_are_looks_at_dashboards() {
    let test = "grafanas_logins_are_looks_at_dashboards";
    let Some(psql) = program("psql") else { return skip(test, "psql is not installed") };
    let folder = Folder::new("events_looks");
    let (address, postgres) = (free_address(), free_address());
    let mut server = Program::new("server", beeacon(), &folder.path().join("output"), Some(address))
        .argument("server")
        .option("--data", folder.path().join("data"))
        .option("--listen", address.to_string())
        .option("--postgres", postgres.to_string());
    server.start();
    for user in ["anna", "grafana"] {
        let place = format!("host=127.0.0.1 port={} user={user} dbname=beeacon", postgres.port());
        let query = "select count(*) from events where type = 'observability.dashboard.accessed'";
        let output = std::process::Command::new(&psql)
            .args(["--no-psqlrc", "-At", "-w", "-d", &place, "-c", query])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // A look is told within a second: Grafana's own query may see it already.
        assert!(told == "0" || (told == "1" && user == "grafana"), "{output:?}");
    }
    let sql = Sql { address };
    let looks = || events(address, "type=observability.dashboard.accessed");
    let look = wait_for("the look", seconds(30), || looks().first().cloned());
    assert_eq!(
        look["payload"],
        json!({"door": "postgresql", "user": "grafana", "dashboard": null, "count": 1})
    );
    assert_eq!(
        sql.number("select count(*) as n from events where type = 'observability.dashboard.accessed'"),
        1
    );
}

//! Alerts from a line to a receiver: how soon, over which doors they are seen, and what survives kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::frames::Hand;
use crate::harness::http::{self, Answer, Request, Response};
use crate::harness::metrics::Metrics;
use crate::harness::poll::{seconds, try_wait_for, wait_for, wait_until};
use crate::harness::probe::{program, skip};
use crate::harness::processes::{Program, beeacon_agent, free_address};
use crate::harness::world::{Alone, Folder, scale, seed};
use crate::planted::Numbers;

/// A message that a receiver took or refused.
struct Told {
    at: Instant,
    id: String,
    taken: bool,
    body: Value,
}

/// A receiver of webhooks.
struct Hook {
    server: http::Server,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Hook {
    /// Takes every message but those that `refuses` names by their number.
    fn start(refuses: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let server = http::Server::start(move |request: Request| {
            let mut seen = seen.lock().unwrap();
            let taken = !refuses(seen.len());
            seen.push(Told {
                at: Instant::now(),
                id: request.header("webhook-id").unwrap_or("").to_owned(),
                taken,
                body: serde_json::from_slice(&request.body).unwrap_or_default(),
            });
            Answer::status(if taken { 200 } else { 503 })
        });
        Hook { server, told }
    }

    /// When a message about this alert with this status came first.
    fn first(&self, alertname: &str, service: &str, status: &str) -> Option<Instant> {
        let told = self.told.lock().unwrap();
        let about = |body: &Value| {
            let labels = &body["commonLabels"];
            labels["alertname"] == alertname && labels["service"] == service && body["status"] == status
        };
        told.iter().find(|told| told.taken && about(&told.body)).map(|told| told.at)
    }
}

/// Writes rules and receivers, and gives the configuration that names them.
fn configure(folder: &Path, hook: &Hook, rules: &str) -> String {
    let address = hook.server.address();
    fs::create_dir_all(folder.join("rules")).unwrap();
    fs::write(folder.join("rules/rules.yaml"), rules).unwrap();
    fs::write(
        folder.join("receivers.yaml"),
        format!(
            "route: {{receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1d}}\n\
             receivers: [{{name: hook, webhook: {{url: \"http://{address}/\"}}}}]\n"
        ),
    )
    .unwrap();
    let shown = |name: &str| folder.join(name).display().to_string();
    format!(
        "[access]\nrequests_per_minute = 1_000_000\n[alerts]\nrules = [{:?}]\nreceivers = {:?}\nexternal_url = \"http://beeacon.example\"\n\
         [alerts.outbound]\nnetworks = [\"127.0.0.1\"]\nports = [\"{}\"]\n",
        shown("rules"),
        shown("receivers.yaml"),
        address.port()
    )
}

/// A container's log as Docker writes it.
pub(crate) struct Container {
    file: File,
}

impl Container {
    pub(crate) fn create(directory: &Path, number: usize, service: &str) -> Self {
        let id = format!("{number:064x}");
        let directory = directory.join(&id);
        fs::create_dir_all(&directory).unwrap();
        let path: PathBuf = directory.join(format!("{id}-json.log"));
        let configuration = json!({
            "ID": id, "Name": format!("/{service}"), "Created": "2026-01-01T00:00:00Z",
            "State": {"Running": true, "StartedAt": "2026-01-01T00:00:00Z"},
            "Config": {"Image": "test", "Tty": false, "Labels": {"com.docker.compose.service": service}},
            "LogPath": path,
        });
        fs::write(directory.join("config.v2.json"), configuration.to_string()).unwrap();
        let host = json!({"LogConfig": {"Type": "json-file", "Config": {}}});
        fs::write(directory.join("hostconfig.json"), host.to_string()).unwrap();
        Container { file: OpenOptions::new().create(true).append(true).open(path).unwrap() }
    }

    pub(crate) fn print(&mut self, line: &str) {
        let now = format!("{:.9}", Timestamp::now());
        let record = format!("{}\n", json!({"log": format!("{line}\n"), "stream": "stdout", "time": now}));
        self.file.write_all(record.as_bytes()).unwrap();
    }
}

const LEAKS: &str = "groups:\n\
    - name: leaks\n\
    \x20 rules:\n\
    \x20 - alert: MailLeak\n\
    \x20   stream: {count: redaction, of: email, window: 1s, at_least: 1}\n\
    \x20   labels: {severity: high}\n\
    \x20   annotations: {summary: \"{{ $labels.service }} prints mail addresses\"}\n";

/// Scenario: twenty containers, each of which prints one line with a mail address; agent, server and receiver beside each other.
/// Guarantees: the message is at the receiver within two seconds of the line, and so is the end within some more; the message
/// holds no address.
#[test]
fn a_line_with_a_mail_address_is_an_alert_at_the_receiver_within_two_seconds() {
    const ROUNDS: usize = 20;
    let folder = Folder::new("alert_latency");
    let hook = Hook::start(|_| false);
    let alone = Alone::start("alert_latency", None, Some(&configure(folder.path(), &hook, LEAKS)));
    let directory = folder.path().join("containers");
    let mut containers: Vec<Container> = (0..ROUNDS)
        .map(|number| Container::create(&directory, number + 1, &format!("service-{number}")))
        .collect();
    let mut agent = Program::new("agent", beeacon_agent(), &folder.path().join("output"), None)
        .argument("run")
        .option("--collector", format!("http://{}", alone.sql.address))
        .option("--data", folder.path().join("agent-data"))
        .option("--docker-host", "none")
        .option("--containers-directory", &directory)
        .option("--reader", "file");
    agent.start();
    for (number, container) in containers.iter_mut().enumerate() {
        container.print(&format!("container {number} is up"));
    }
    wait_until("the first lines", seconds(60), || {
        alone.sql.try_number("select count(*) as n from logs").is_ok_and(|count| count == ROUNDS as u64)
    });

    let mut delays = Vec::new();
    for (number, container) in containers.iter_mut().enumerate() {
        let printed = Instant::now();
        container.print(&format!("order placed by ada.byron{number}@example.com"));
        let told = wait_for("the alert at the receiver", seconds(20), || {
            hook.first("MailLeak", &format!("service-{number}"), "firing")
        });
        delays.push(told.duration_since(printed));
    }
    delays.sort();
    println!(
        "{ROUNDS} alerts from line to webhook: median {} ms, p99 {} ms",
        delays[ROUNDS / 2].as_millis(),
        delays[ROUNDS - 1].as_millis()
    );
    assert!(delays[ROUNDS - 1] <= seconds(2), "{delays:?}");
    wait_until("the last end", seconds(20), || {
        hook.first("MailLeak", &format!("service-{}", ROUNDS - 1), "resolved").is_some()
    });
    for told in hook.told.lock().unwrap().iter() {
        assert!(!told.body.to_string().contains("ada.byron"), "{}", told.body);
    }
    agent.stop();
}

const ROWS: &str = "groups:\n\
    - name: rows\n\
    \x20 interval: 1s\n\
    \x20 rules:\n\
    \x20 - alert: ManyLines\n\
    \x20   sql: SELECT service, count(*) AS value FROM logs WHERE timestamp > $at - INTERVAL '6 seconds' GROUP BY service HAVING count(*) >= 3\n\
    \x20   labels: {severity: critical}\n\
    \x20   annotations: {summary: \"{{ $value }} lines of {{ $labels.service }}\"}\n\
    \x20 - alert: Nonsense\n\
    \x20   sql: SELECT nonsense AS value FROM logs\n\
    \x20 - record: service:lines\n\
    \x20   sql: SELECT service, count(*) AS value FROM logs GROUP BY service\n";

fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap()
}

fn ask(alone: &Alone, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("Content-Type", "application/json")];
    http::request(alone.sql.address, method, path, &headers, body.as_bytes()).unwrap()
}

/// Scenario: three lines of one service, a rule over SQL beside one that cannot be planned.
/// Guarantees: the alert is told, is seen over every door, is acknowledged by a person, ends by itself and is told again; the
/// rule with the fault is shown as such and disturbs nothing.
#[test]
fn a_rule_over_sql_fires_is_worked_on_and_ends() {
    let folder = Folder::new("alert_sql");
    let hook = Hook::start(|_| false);
    let alone = Alone::start("alert_sql", None, Some(&configure(folder.path(), &hook, ROWS)));
    let mut hand = Hand { time_ns: now_ns(), ..Hand::open(alone.sql.address, 1, "web") };
    let sent = Instant::now();
    assert_eq!(hand.send(&["one", "two", "three"].map(str::to_owned)).status, 200);
    let told = wait_for("the alert", seconds(30), || hook.first("ManyLines", "web", "firing"));
    println!(
        "a rule of one second over SQL: {} ms from the frame to the webhook",
        told.duration_since(sent).as_millis()
    );

    let get = |path: &str| ask(&alone, "GET", path, &Value::Null);
    let rules = get("/api/v1/rules").json();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert_eq!((&rules[0]["state"], &rules[0]["health"]), (&json!("firing"), &json!("ok")));
    assert_eq!(rules[1]["health"], "err", "{rules:?}");
    assert!(rules[1]["lastError"].as_str().unwrap().contains("nonsense"), "{rules:?}");
    let alerts = get("/api/v1/alerts").json();
    let alert = &alerts["data"]["alerts"][0];
    let id = alert["id"].as_str().unwrap().to_owned();
    assert_eq!((&alert["state"], &alert["severity"]), (&json!("firing"), &json!("critical")));
    assert_eq!(alert["title"], "3 lines of web");
    let metrics = Metrics::scrape(alone.sql.address).unwrap();
    assert!((metrics.sum("beeacon_alerts") - 1.0).abs() < 0.1);
    assert!((metrics.sum("service:lines") - 3.0).abs() < 0.1);
    assert!((metrics.sum("beeacon_alerts_rule_failing") - 1.0).abs() < 0.1);
    wait_until("the delivery to be counted", seconds(10), || {
        let metrics = Metrics::scrape(alone.sql.address).unwrap();
        metrics.sum("beeacon_alerts_messages_delivered_total") >= 1.0
    });
    assert!(metrics.sum("beeacon_alerts_evaluation_failures_total") >= 1.0);

    let path = format!("/api/v1/alerts/{id}");
    let changed =
        ask(&alone, "PATCH", &path, &json!({"status": "acknowledged", "assigned_to": "grace", "by": "ada"}));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let rows =
        alone.sql.rows("select id, severity, status, assigned_to, acknowledged_by, service from alerts");
    let expected = json!({"id": id, "severity": "critical", "status": "acknowledged", "assigned_to": "grace",
        "acknowledged_by": "ada", "service": "web"});
    assert_eq!(rows, [expected]);
    assert_eq!(ask(&alone, "PATCH", &path, &json!({"status": "gone"})).status, 400);
    assert_eq!(ask(&alone, "PATCH", "/api/v1/alerts/evt_0", &json!({"status": "resolved"})).status, 404);

    wait_for("the end", seconds(30), || hook.first("ManyLines", "web", "resolved"));
    wait_until("the end in SQL", seconds(10), || {
        alone
            .sql
            .try_number("select count(*) as n from alerts where status = 'resolved' and resolved_by = 'rule'")
            == Ok(1)
    });
    let incidents = get("/api/v1/incidents").json();
    let incident = incidents["data"]["incidents"][0]["id"].as_str().unwrap().to_owned();
    let incident = get(&format!("/api/v1/incidents/{incident}")).json();
    let kinds: Vec<&str> = incident["data"]["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["opened", "fired", "assigned", "acknowledged", "resolved", "closed"]);
    let overview = get("/api/beeacon/alerts").json();
    assert_eq!((&overview["status"]["rules"], &overview["messages"]["waiting"]), (&json!(3), &json!(0)));
    assert_eq!(get("/api/v1/alerts/evt_0").status, 404);
    assert_eq!(get("/api/v1/alerts?nonsense=1").status, 400);
}

/// Scenario: a silence over a service; lines that would be an alert; the silence ends.
/// Guarantees: nobody is told while it lasts, also after a restart; afterwards the alert that still fires is told.
#[test]
fn a_silenced_alert_is_told_when_its_silence_ends() {
    let folder = Folder::new("alert_silence");
    let hook = Hook::start(|_| false);
    let rules = ROWS.replace("6 seconds", "10 minutes");
    let mut alone = Alone::start("alert_silence", None, Some(&configure(folder.path(), &hook, &rules)));
    let asked =
        json!({"matchers": ["service=\"web\""], "ends_at": "2100-01-01T00:00:00Z", "created_by": "ada"});
    assert_eq!(ask(&alone, "POST", "/api/v1/silences", &asked).status, 400, "a silence of a lifetime");
    let ends_at = Timestamp::now() + Duration::from_secs(3_600);
    let asked = json!({"matchers": ["service=~\"w.*\""], "ends_at": ends_at, "created_by": "ada", "comment": "a test"});
    let set = ask(&alone, "POST", "/api/v1/silences", &asked);
    assert_eq!(set.status, 201, "{}", set.text());
    let id = set.json()["data"]["id"].as_str().unwrap().to_owned();
    alone.server.kill();
    alone.server.start();
    let mut hand = Hand { time_ns: now_ns(), ..Hand::open(alone.sql.address, 1, "web") };
    assert_eq!(hand.send(&["one", "two", "three"].map(str::to_owned)).status, 200);
    wait_until("the alert", seconds(30), || {
        let alerts = ask(&alone, "GET", "/api/v1/rules", &Value::Null).json();
        alerts["data"]["groups"][0]["rules"][0]["alerts"][0]["silenced"] == json!(true)
    });
    // Several looks of the group pass.
    let early = try_wait_for(seconds(3), || hook.first("ManyLines", "web", "firing"));
    assert!(early.is_none(), "a silenced alert was told");
    assert_eq!(ask(&alone, "DELETE", &format!("/api/v1/silences/{id}"), &Value::Null).status, 200);
    wait_for("the alert at the receiver", seconds(30), || hook.first("ManyLines", "web", "firing"));
    let shown = ask(&alone, "GET", &format!("/api/v1/silences/{id}"), &Value::Null).json();
    assert_eq!(shown["data"]["state"], "expired");
    assert_eq!(ask(&alone, "DELETE", "/api/v1/silences/sil_0", &Value::Null).status, 404);
}

/// Scenario: a rule file gets a fault, then other rules, while the server runs.
/// Guarantees: with the fault the old rules stay and the fault is shown with its place; the new rules work without a start, and
/// the alert of the rule that is gone ends.
#[test]
fn rule_files_are_read_anew_and_a_fault_keeps_what_was() {
    let folder = Folder::new("alert_reload");
    let hook = Hook::start(|_| false);
    let rules = ROWS.replace("6 seconds", "10 minutes");
    let alone = Alone::start("alert_reload", None, Some(&configure(folder.path(), &hook, &rules)));
    let mut hand = Hand { time_ns: now_ns(), ..Hand::open(alone.sql.address, 1, "web") };
    assert_eq!(hand.send(&["one", "two", "three"].map(str::to_owned)).status, 200);
    wait_for("the alert", seconds(30), || hook.first("ManyLines", "web", "firing"));
    let overview = || ask(&alone, "GET", "/api/beeacon/alerts", &Value::Null).json();
    fs::write(folder.path().join("rules/rules.yaml"), "groups:\n- name: x\n  rulez: []\n").unwrap();
    let fault = wait_for("the fault to be shown", seconds(30), || {
        overview()["status"]["reload_fault"].as_str().map(str::to_owned)
    });
    assert!(fault.contains("rules.yaml:3:3: unknown key `rulez`"), "{fault}");
    assert_eq!(overview()["status"]["rules"], 3);
    fs::write(folder.path().join("rules/rules.yaml"), LEAKS).unwrap();
    wait_until("the new rules", seconds(30), || overview()["status"]["rules"] == 1);
    assert_eq!(overview()["status"]["reload_fault"], Value::Null);
    wait_for("the end of the alert whose rule is gone", seconds(30), || {
        hook.first("ManyLines", "web", "resolved")
    });
}

const TEXTS: &str = "groups:\n\
    - name: texts\n\
    \x20 rules:\n\
    \x20 - alert: Broken\n\
    \x20   stream: {count: text, of: broken, window: 1h, at_least: 2}\n";

/// Services that break for every unit of the drill's scale. Each is two changes of state, so that the full drill has a thousand.
const SERVICES: u64 = 34;

/// An Alertmanager, Debian's.
struct Alertmanager {
    program: Program,
    address: SocketAddr,
}

impl Alertmanager {
    fn start(folder: &Path) -> Self {
        let config = folder.join("alertmanager.yml");
        fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let address = free_address();
        let binary = program("prometheus-alertmanager").unwrap();
        let mut program = Program::new("alertmanager", binary, &folder.join("output"), None)
            .argument(format!("--config.file={}", config.display()))
            .argument(format!("--storage.path={}", folder.join("alertmanager").display()))
            .argument(format!("--web.listen-address={address}"))
            .argument("--cluster.listen-address=");
        program.spawn();
        Alertmanager { program, address }
    }

    /// The services whose alerts fire there; none where it does not answer.
    fn firing(&self) -> BTreeSet<String> {
        let asked = http::request(self.address, "GET", "/api/v2/alerts?active=true", &[], b"");
        let Ok(answer) = asked else { return BTreeSet::new() };
        let alerts: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let services = alerts.as_array().into_iter().flatten().map(|alert| &alert["labels"]["service"]);
        services.filter_map(|service| service.as_str().map(str::to_owned)).collect()
    }
}

/// Scenario: services break one after the other, each with two lines in frames of their own, and then their rule goes, which ends every
/// alert; the server is killed at any moment in between, one receiver refuses two of five messages, the other is a real Alertmanager,
/// which is killed now and then, as is the Redis that the server uses. `make drill` has a thousand changes of state.
/// Guarantees: every service's alert arrives, and its end; whatever arrives twice has the same id and says the same; no alert has two
/// ids; Alertmanager ends up with what is so.
#[test]
fn kills_of_the_server_lose_no_alert_and_make_no_second_one() {
    let name = "kills_of_the_server_lose_no_alert_and_make_no_second_one";
    for needed in ["prometheus-alertmanager", "redis-server"] {
        if program(needed).is_none() {
            return skip(name, &format!("{needed} is not installed"));
        }
    }
    let services: Vec<String> = (0..SERVICES * scale()).map(|number| format!("service-{number}")).collect();
    let mut numbers = Numbers::new(seed("alert_kills"));
    let folder = Folder::new("alert_kills");
    let hook = Hook::start(|number| number % 5 == 1 || number % 5 == 3);
    let mut alertmanager = Alertmanager::start(folder.path());
    let socket = folder.path().join("redis.sock");
    let mut redis =
        Program::new("redis", program("redis-server").unwrap(), &folder.path().join("output"), None)
            .option("--port", "0")
            .option("--save", "")
            .option("--dir", folder.path())
            .option("--unixsocket", &socket);
    redis.spawn();
    let mut config = configure(folder.path(), &hook, TEXTS);
    config.push_str(&format!("[redis]\nurl = \"redis+unix://{}\"\n", socket.display()));
    let ports = format!("\"{}\", \"{}\"", hook.server.address().port(), alertmanager.address.port());
    let config = config.replace(&format!("\"{}\"", hook.server.address().port()), &ports);
    let receivers = folder.path().join("receivers.yaml");
    let text = fs::read_to_string(&receivers).unwrap();
    let both = "routes: [{receiver: alertmanager, continue: true}, {receiver: hook}], group_by: ['...']";
    let other = format!(
        "receivers: [{{name: alertmanager, alertmanager: {{url: \"http://{}/\", resend: 5s}}}}, ",
        alertmanager.address
    );
    let text = text.replace("group_by: ['...']", both).replace("receivers: [", &other);
    fs::write(&receivers, text).unwrap();
    let mut alone = Alone::start("alert_kills", None, Some(&config));

    let (mut kills, mut restarts) = (0, 0);
    for service in &services {
        for line in ["broken", "still broken"] {
            let mut hand = Hand::open(alone.sql.address, 1, service);
            hand.next = if line == "broken" { 0 } else { 10 };
            assert_eq!(hand.send(&[line.to_owned()]).status, 200);
            if numbers.below(3) == 0 {
                std::thread::sleep(Duration::from_millis(numbers.below(60)));
                alone.server.kill();
                alone.server.start();
                kills += 1;
            }
        }
        if numbers.below(8) == 0 {
            for program in [&mut alertmanager.program, &mut redis] {
                program.kill();
                program.spawn();
                restarts += 1;
            }
        }
    }
    let patience = seconds(120 * scale());
    let told = |status: &str| services.iter().all(|service| hook.first("Broken", service, status).is_some());
    wait_until("every alert", patience, || told("firing"));
    let every: BTreeSet<String> = services.iter().cloned().collect();
    wait_until("every alert at Alertmanager", patience, || alertmanager.firing() == every);
    let stored = alone.sql.number("select count(*) as n from alerts");
    assert_eq!(stored, services.len() as u64);

    fs::write(folder.path().join("rules/rules.yaml"), LEAKS).unwrap();
    wait_until("every end", patience, || {
        // A few more kills while they end.
        if numbers.below(20) == 0 && kills < 3 * SERVICES * scale() {
            alone.server.kill();
            alone.server.start();
            kills += 1;
        }
        told("resolved")
    });
    wait_until("every end at Alertmanager", patience, || alertmanager.firing().is_empty());
    let told = hook.told.lock().unwrap();
    let mut ids: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
    for told in told.iter() {
        let of = |value: &Value| value.as_str().unwrap().to_owned();
        let about = (of(&told.body["commonLabels"]["service"]), of(&told.body["status"]));
        ids.entry(about).or_default().insert((told.id.clone(), told.body.to_string()));
    }
    println!(
        "{} changes of state, {kills} kills of the server, {restarts} of Alertmanager and Redis, {} requests, 0 lost",
        ids.len(),
        told.len()
    );
    assert_eq!(ids.len(), 2 * services.len());
    for (about, ids) in ids {
        assert_eq!(ids.len(), 1, "{about:?}: {ids:#?}");
    }
    let all =
        "select count(*) as n, count(distinct service) as services from alerts where status = 'resolved'";
    let counted = alone.sql.rows(all);
    assert_eq!((&counted[0]["n"], &counted[0]["services"]), (&json!(services.len()), &json!(services.len())));
    assert!(kills > 0 && restarts > 0, "nothing was killed");
}

//! Who may do what, with the real program: tokens, roles, the PostgreSQL door, the audit file, a shared Redis.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::http::{Response, request};
use crate::harness::poll::{seconds, wait_until};
use crate::harness::probe::{program, skip};
use crate::harness::processes::{Program, beeacon, free_address, run_beeacon};
use crate::harness::world::Folder;

/// A token as `beeacon token new` prints it, and its section of the configuration.
fn new_token(role: &str, name: &str) -> (String, String) {
    let output = run_beeacon(&["token", "new", "--role", role, "--name", name], b"");
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains(&token), "the token is shown once");
    let section = said.split_once("[[access.token]]").unwrap().1.to_owned();
    (token, format!("[[access.token]]{section}\n"))
}

/// A server with this configuration.
struct Server {
    program: Program,
    address: SocketAddr,
    postgres: SocketAddr,
    folder: Folder,
}

impl Server {
    fn start(story: &str, config: &str) -> Self {
        let folder = Folder::new(story);
        let (address, postgres) = (free_address(), free_address());
        std::fs::write(folder.path().join("server.toml"), config).unwrap();
        let mut program = Program::new("server", beeacon(), &folder.path().join("output"), Some(address))
            .argument("server")
            .option("--config", folder.path().join("server.toml"))
            .option("--data", folder.path().join("data"))
            .option("--listen", address.to_string())
            .option("--postgres", postgres.to_string());
        program.start();
        Server { program, address, postgres, folder }
    }

    fn ask(&self, token: Option<&str>, method: &str, path: &str, body: &str) -> Response {
        let bearer = format!("Bearer {}", token.unwrap_or_default());
        let mut headers = vec![("content-type", "application/json")];
        if token.is_some() {
            headers.push(("authorization", bearer.as_str()));
        }
        request(self.address, method, path, &headers, body.as_bytes()).unwrap()
    }

    fn psql(&self, user: &str, password: &str) -> Result<String, String> {
        let psql = program("psql").unwrap();
        let place = format!("host=127.0.0.1 port={} user={user} dbname=beeacon", self.postgres.port());
        let output = Command::new(psql)
            .args(["--no-psqlrc", "-At", "-w", "-d", &place, "-c", "select count(*) from logs"])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

const QUERY: &str = r#"{"query": "select count(*) as n from logs"}"#;

fn session() -> String {
    let agent = "0193f4a0-0000-7000-8000-000000000001";
    json!({ "agent": agent, "host": "web-1", "version": "1" }).to_string()
}

/// Guarantees: a token opens what its role allows, over HTTP and PostgreSQL, and nothing else; what changes is audited; no token is
/// in any file or log.
#[test]
fn tokens_open_what_their_roles_allow_over_http_and_postgresql() {
    let roles = ["agent", "viewer", "editor", "admin"];
    let made: Vec<(String, String)> =
        roles.iter().map(|role| new_token(role, &format!("{role}-1"))).collect();
    let config: String = made.iter().map(|(_, section)| section.as_str()).collect();
    let old = "the-token-of-former-times";
    let server = Server::start("tokens", &format!("[http]\ntoken = \"{old}\"\n{config}"));
    let token = |role: &str| made[roles.iter().position(|known| *known == role).unwrap()].0.as_str();

    // Rows: who. Columns: SQL, a session, metrics.
    let matrix = [
        (None, [401, 401, 401]),
        (Some("a-token-that-nobody-has"), [401, 401, 401]),
        (Some(token("agent")), [403, 200, 403]),
        (Some(token("viewer")), [200, 403, 200]),
        (Some(token("editor")), [200, 403, 200]),
        (Some(token("admin")), [200, 200, 200]),
        (Some(old), [200, 200, 200]),
    ];
    for (row, (token, expected)) in matrix.into_iter().enumerate() {
        let got = [
            server.ask(token, "POST", "/api/v1/sql", QUERY).status,
            server.ask(token, "POST", "/api/v1/session", &session()).status,
            server.ask(token, "GET", "/metrics", "").status,
        ];
        assert_eq!(got, expected, "row {row}");
    }
    let refused = server.ask(Some(token("viewer")), "POST", "/api/v1/session", &session());
    assert_eq!(refused.json()["error"]["code"], "forbidden");

    if program("psql").is_some() {
        for user in ["viewer", "editor", "admin"] {
            assert_eq!(server.psql(&format!("{user}-1"), token(user)), Ok("0".to_owned()), "{user}");
        }
        assert_eq!(server.psql("whoever", old), Ok("0".to_owned()));
        for (user, password) in [
            ("viewer-1", token("editor")),
            ("viewer-1", old),
            ("agent-1", token("agent")),
            ("whoever", token("viewer")),
            ("viewer-1", "wrong"),
        ] {
            let refused = server.psql(user, password).unwrap_err();
            assert!(refused.contains("password authentication failed"), "{user}: {refused}");
        }
    } else {
        skip("tokens_open_what_their_roles_allow_over_http_and_postgresql", "psql is not installed");
    }

    let audit = std::fs::read_to_string(server.folder.path().join("data/audit/audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(String, String)> = lines
        .iter()
        .map(|line| (line["who"].as_str().unwrap().to_owned(), line["result"].as_str().unwrap().to_owned()))
        .collect();
    for (who, result) in
        [("agent-1", "begun"), ("agent-1", "done"), ("viewer-1", "refused"), ("http.token", "done")]
    {
        assert!(told.contains(&(who.to_owned(), result.to_owned())), "{who} {result} is not in {told:?}");
    }
    assert!(lines.iter().all(|line| line["path"] == "/api/v1/session" && line["from"] == "127.0.0.1"));

    for (token, _) in &made {
        assert_eq!(files_with(server.folder.path(), token), Vec::<String>::new());
    }
}

/// The files below a folder that hold a text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if memchr::memmem::find(&std::fs::read(&path).unwrap_or_default(), text.as_bytes()).is_some() {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Guarantees: every kind of refusal has the envelope, with an id and a time; the second version goes around it and around answers.
#[test]
fn every_refusal_has_the_envelope_and_the_second_version_goes_around_answers() {
    let server = Server::start("envelope", "");
    let long = format!("{{\"query\": \"{}\"}}", "x".repeat(300_000));
    for (method, path, body, status) in [
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/api/v1/sql", "", 405),
        ("GET", "/api/v1/ingest", "", 405),
        ("POST", "/api/v1/sql", "{", 400),
        ("POST", "/api/v1/sql", r#"{"query": "select nonsense"}"#, 400),
        ("POST", "/api/v1/sql", &long, 413),
        ("POST", "/api/v1/session", "{}", 400),
        ("POST", "/api/v1/ingest", "no frame", 400),
    ] {
        let answer = server.ask(None, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        let error = &answer.json()["error"];
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(error["request_id"], id, "{method} {path}");
        for part in ["code", "message", "timestamp"] {
            assert!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{part}: {error}");
        }
    }
    let headers = [("content-type", "application/json"), ("accept", "application/vnd.sting.v2+json")];
    let answer = request(server.address, "POST", "/api/v1/sql", &headers, QUERY.as_bytes()).unwrap();
    assert_eq!(answer.json(), json!({ "api_version": "2.0", "data": [{ "n": 0 }] }));
    assert_eq!(answer.header("content-type"), Some("application/vnd.sting.v2+json"));
    let said = std::fs::read_to_string(server.folder.path().join("output/server.001.stderr")).unwrap();
    assert!(said.contains("no token is configured"), "an open server says that it is open");
}

/// Guarantees: what comes out is what the configuration says, and no secret of it; a report is JSON or a page without a script; what
/// does not answer is told so.
#[test]
fn configuration_and_reports_show_everything_but_secrets() {
    let (token, section) = new_token("admin", "root");
    let config = format!(
        "[http]\ntoken = \"geheim-geheim-geheim\"\n[store]\nflush_age = \"7 s\"\n[grafana]\nurl = \"http://127.0.0.1:9\"\n\
         [loki]\nurl = \"http://127.0.0.1:9\"\nuser = \"u\"\npassword = \"geheim\"\n{section}"
    );
    let server = Server::start("reports", &config);
    let get = |path: &str| server.ask(Some(&token), "GET", path, "");
    let config = get("/api/beeacon/config");
    let settings = config.json()["settings"].as_array().unwrap().clone();
    let of = |key: &str| {
        let setting = settings.iter().find(|setting| setting["key"] == key);
        setting.map(|setting| (setting["value"].clone(), setting["origin"].clone())).unwrap()
    };
    assert_eq!(of("store.flush_age"), (json!("\"7 s\""), json!("file")));
    assert_eq!(of("query.rows_max"), (json!("1000000"), json!("default")));
    assert_eq!(of("http.token"), (json!("\"***\""), json!("file")));
    assert_eq!(of("access.token.name"), (json!("\"root\""), json!("file")));
    for secret in ["geheim", section.split("sha256 = \"").nth(1).unwrap().split('"').next().unwrap()] {
        assert!(!config.text().contains(secret), "{secret} is shown");
    }
    for of in ["grafana", "loki"] {
        let answer = get(&format!("/api/beeacon/{of}/status")).json();
        assert_eq!(answer[of]["configured"], true);
        assert_eq!(answer[of]["available"], false);
    }
    let report = server.ask(Some(&token), "POST", "/api/beeacon/health-report", "").json();
    assert_eq!(report["healthy"], true, "{report}");
    let checks = report["checks"].as_array().unwrap();
    let severity =
        |name: &str| checks.iter().find(|check| check["check"] == name).unwrap()["severity"].clone();
    assert_eq!(severity("collector"), "fine");
    assert_eq!(severity("grafana"), "warning");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
    let page = request(server.address, "POST", "/api/beeacon/health-report", &headers, b"").unwrap();
    assert!(
        page.text().starts_with("<!doctype html>") && !page.text().contains("<script"),
        "{}",
        page.text()
    );
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let docs = server.ask(None, "GET", "/api/docs", "");
    assert!(docs.status == 200 && docs.text().contains("/api/beeacon/health-report"));
}

/// Guarantees: schemathesis, which makes requests from the description, finds no answer that the description does not promise, no
/// server's fault, and no route that is open although it says that it needs a token.
#[test]
fn every_route_keeps_to_its_description() {
    let test = "every_route_keeps_to_its_description";
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let schemathesis = cache.unwrap_or_default().join("beeacon/schemathesis/bin/schemathesis");
    if !schemathesis.is_file() {
        return skip(test, "schemathesis is not installed; deploy/test-machine does it");
    }
    let (token, section) = new_token("admin", "root");
    let server =
        Server::start("schemathesis", &format!("[access]\nrequests_per_minute = 1_000_000\n{section}"));
    let hooks = include_str!("schemathesis_hooks.py");
    std::fs::write(server.folder.path().join("hooks.py"), hooks).unwrap();
    let output = Command::new(schemathesis)
        .current_dir(server.folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks.py")
        .arg("run")
        .arg(format!("http://{}/api/openapi.json", server.address))
        .args(["--max-examples", "15", "--seed", "1", "--no-color", "--phases", "examples,coverage,fuzzing"])
        // A query that fits the schema is still no SQL, and bytes are no frame.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!(
        "{}",
        said.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A Redis of the test's own.
pub(crate) struct Redis {
    child: Child,
    folder: PathBuf,
    pub(crate) url: String,
}

impl Redis {
    pub(crate) fn start(folder: &Path) -> Self {
        let url = format!("redis+unix://{}", folder.join("redis.sock").display());
        Redis { child: Redis::spawn(folder), folder: folder.to_owned(), url }
    }

    fn spawn(folder: &Path) -> Child {
        Command::new(program("redis-server").unwrap())
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.join("redis.sock"))
            .arg("--dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = Redis::spawn(&self.folder);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Scenario: a viewer has a stream of events and a session of psql open when its token is taken out of the file; then the file is broken,
/// and mended.
/// Guarantees: within five seconds the token opens nothing, and what it had opened ends; others stay; a broken file keeps what was, and
/// says so; every change is audited.
#[test]
fn a_token_that_is_revoked_opens_nothing_any_more_without_a_restart() {
    let ((anna, of_anna), (root, of_root)) = (new_token("viewer", "anna"), new_token("admin", "root"));
    let server = Server::start("revoke", &format!("# Anna's.\n{of_anna}\n{of_root}"));
    let path = server.folder.path().join("server.toml");
    let config = path.to_str().unwrap();
    let listed = run_beeacon(&["token", "list", "--config", config], b"");
    let listed = String::from_utf8(listed.stdout).unwrap();
    for line in ["anna", "root"] {
        assert!(listed.lines().any(|found| found.starts_with(line) && found.ends_with("yes")), "{listed}");
    }
    let status = |token: &str| server.ask(Some(token), "GET", "/api/v1/rules", "").status;
    assert_eq!((status(&anna), status(&root)), (200, 200));

    let mut stream = crate::harness::http::connect(server.address).unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {anna}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut session = program("psql").map(|psql| {
        let place = format!("host=127.0.0.1 port={} user=anna dbname=beeacon", server.postgres.port());
        let mut child = Command::new(psql)
            .args(["--no-psqlrc", "-At", "-w", "-d", &place])
            .env("PGPASSWORD", &anna)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        child.stdin.as_mut().unwrap().write_all(b"select 40 + 2;\n").unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "42");
        child
    });

    let revoked = run_beeacon(&["token", "revoke", "--name", "anna", "--config", config], b"");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let began = std::time::Instant::now();
    wait_until("the token to open nothing", seconds(5), || status(&anna) == 401);
    println!("a token was revoked within {:?}", began.elapsed());
    assert_eq!(status(&root), 200);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("event: beeacon.closed\ndata: {\"reason\":\"revoked\"}\n\n"), "{rest}");
    if let Some(mut session) = session.take() {
        session.stdin.as_mut().unwrap().write_all(b"select 40 + 3;\n").unwrap();
        let output = session.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("opens nothing any more"), "{said}");
        assert!(server.psql("anna", &anna).unwrap_err().contains("password authentication failed"));
        assert_eq!(server.psql("root", &root), Ok("0".to_owned()));
    }

    let stale = || {
        let answer = server.ask(Some(&root), "GET", "/metrics", "").text();
        answer.lines().find_map(|line| line.strip_prefix("beeacon_tokens_stale ")).map(str::to_owned)
    };
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "[[access.token]]\nname = \"mallory\"\nrole = \"adm").unwrap();
    wait_until("the fault to show", seconds(10), || stale().as_deref() == Some("1"));
    assert_eq!(status(&root), 200);
    let (bert, of_bert) = new_token("editor", "bert");
    std::fs::write(&path, format!("{good}\n{of_bert}")).unwrap();
    wait_until("the new token to open", seconds(10), || status(&bert) == 200);
    assert_eq!(stale().as_deref(), Some("0"));
    // A file that has no token left opens no door to everybody.
    std::fs::write(&path, "# nothing\n").unwrap();
    // After the many wrong ones above it may be told to wait instead.
    wait_until("all to be revoked", seconds(10), || matches!(status(&root), 401 | 429));
    assert_eq!(server.ask(None, "GET", "/api/v1/rules", "").status, 401);
    if program("psql").is_some() {
        assert!(server.psql("anybody", "").is_err());
    }

    let audit = std::fs::read_to_string(server.folder.path().join("data/audit/audit.jsonl")).unwrap();
    let told: Vec<(String, String)> = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["who"] == "configuration")
        .map(|line| (line["method"].as_str().unwrap().into(), line["path"].as_str().unwrap().into()))
        .collect();
    let expected = [("REVOKE", "anna"), ("ADD", "bert"), ("REVOKE", "bert"), ("REVOKE", "root")];
    assert_eq!(told, expected.map(|(what, name)| (what.to_owned(), format!("/access/token/{name}"))));
}

/// Scenario: two servers on one Redis, which is then stopped.
/// Guarantees: they count one address together; a stopped Redis costs 50 ms once, and each goes on with its own count.
#[test]
fn two_servers_on_one_redis_limit_an_address_together() {
    if program("redis-server").is_none() {
        return skip("two_servers_on_one_redis_limit_an_address_together", "redis-server is not installed");
    }
    let folder = Folder::new("redis");
    let redis = Redis::start(folder.path());
    let config = format!("[access]\nrequests_per_minute = 10\n[redis]\nurl = \"{}\"\n", redis.url);
    let (one, other) = (Server::start("redis-one", &config), Server::start("redis-other", &config));
    for server in [&one, &other] {
        let said = server.folder.path().join("output/server.001.stderr");
        wait_until("Redis", seconds(30), || {
            std::fs::read_to_string(&said).unwrap().contains("Redis answers")
        });
    }
    // A Redis that a busy machine keeps from answering within its 50 ms is left out for a while, as it should be. So there are several
    // endpoints, each with a count of its own, and on one of them both have to count together.
    let paths =
        ["/api/beeacon/status", "/api/v1/rules", "/api/v1/silences", "/api/v1/alerts", "/api/v1/incidents"];
    let mut seen = Vec::new();
    let path = paths.into_iter().find(|path| {
        let answers =
            |server: &Server| std::fs::read_to_string(server.folder.path().join("output/server.001.stderr"));
        let is_there = |server: &Server| {
            let said = answers(server).unwrap();
            said.rfind("Redis answers") > said.rfind("Redis does not answer")
        };
        wait_until("Redis to be there for both", seconds(30), || is_there(&one) && is_there(&other));
        let servers = (0..12).map(|n| if n % 2 == 0 { &one } else { &other });
        let statuses: Vec<u16> = servers.map(|server| server.ask(None, "GET", path, "").status).collect();
        let is_shared = statuses == [[200; 10].as_slice(), &[429; 2]].concat();
        seen.push(statuses);
        is_shared
    });
    let path = path.unwrap_or_else(|| panic!("ten requests to both together were never the limit: {seen:?}"));
    assert_eq!(one.ask(None, "GET", "/metrics", "").status, 200, "another endpoint has its own count");

    let pid = rustix::process::Pid::from_child(&redis.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let began = std::time::Instant::now();
    let own: Vec<u16> = (0..6).map(|_| one.ask(None, "GET", path, "").status).collect();
    println!("6 requests with a stopped Redis: {:?}", began.elapsed());
    // Six of the twelve were its own, so four more are allowed.
    assert_eq!(own, [200, 200, 200, 200, 429, 429]);
    assert!(began.elapsed() < std::time::Duration::from_millis(600), "{:?}", began.elapsed());
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    drop((one.program, other.program));
}

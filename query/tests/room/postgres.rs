//! The PostgreSQL door with psql and with bytes as no client sends them. Drivers are in `clients.rs`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use beeacon_query::{Postgres, PostgresOptions, QueryOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::grafana;
use crate::world::{NOON_NS, World, said};

#[path = "../../../tests/shared/certificates.rs"]
mod certificates;

/// A served door; it stops with it.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
}

pub(crate) async fn serve(world: &World, options: PostgresOptions) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = PostgresOptions { tenant: "default".into(), ..options };
    let door = Postgres::new(world.query.clone(), options).unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { door.serve(listener, stopped).await });
    Served { address, stop }
}

/// Whether a program is there. Without it a test is skipped, unless everything is required.
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("BEEACON_TEST_REQUIRE_ALL").is_none(), "{program} {arguments:?} is needed");
        skipped(program);
    }
    found
}

#[expect(clippy::print_stdout, reason = "a skipped test says so in its output")]
fn skipped(program: &str) {
    println!("SKIPPED {program} is not there");
}

fn has_psql() -> bool {
    has("psql", &["--version"])
}

fn psql_command(address: SocketAddr) -> Command {
    let mut command = Command::new("psql");
    let port = address.port().to_string();
    command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "ada", "-d", "beeacon"]);
    command.args(["-v", "ON_ERROR_STOP=1"]).env("PGCONNECT_TIMEOUT", "10").env("PGSSLMODE", "prefer");
    command
}

/// Runs psql over commands, as from a file.
async fn psql(address: SocketAddr, commands: &str) -> Output {
    let commands = commands.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut command = psql_command(address);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

/// What psql prints, where nothing goes wrong.
async fn printed(address: SocketAddr, commands: &str) -> String {
    let output = psql(address, commands).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn with_lines() -> World {
    let world = World::new().await;
    let mut lines = vec![
        said("web", NOON_NS, "one"),
        said("web", NOON_NS + 61_000_000_000, r#"{"user":{"id":7}}"#),
        said("db", NOON_NS + 400_123_456_789, "level=info took=3ms"),
    ];
    lines[0].redactions = vec![("email", 2)];
    world.publish_and_flush("default", &lines).await;
    world.publish("default", &[said("web", NOON_NS + 500_000_000_000, "fresh")]).await;
    world.publish("other", &[said("secret", NOON_NS, "of another tenant")]).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_gets_rows_with_postgresqls_names_and_types() {
    if !has_psql() {
        return;
    }
    let world = with_lines().await;
    let door = serve(&world, PostgresOptions::default()).await;
    let table = [
        ("select count(*) from logs;", "4\n"),
        ("select service, count(*) from logs group by 1 order by 1;", "db|1\nweb|3\n"),
        ("select timestamp from logs where service = 'db';", "2026-01-05 12:06:40.123456+00\n"),
        ("select labels->'tier', attributes['trace_id'] from logs where service = 'db';", "db-tier|t2\n"),
        ("select attributes from logs where service = 'db';", "{\"trace_id\":\"t2\"}\n"),
        ("select redactions from logs where message = 'one';", "[{\"rule\":\"email\",\"count\":2}]\n"),
        (
            "select position_major, 1.5::double precision, true, null, interval '1 day' from logs limit 1;",
            "1|1.5|t||1 day\n",
        ),
        ("select array_agg(distinct service order by service) from logs;", "{db,web}\n"),
        ("select message->'user'->>'id' from logs where message like '{%';", "7\n"),
        ("select logfmt(message, 'took') from logs where service = 'db';", "3ms\n"),
        ("select 1, 1; select ';';\nselect 2 as \"Two\"", "1|1\n;\n2\n"),
        ("select count(*) from logs where tenant <> 'default';", "0\n"),
        ("select redactions::text from logs where message = 'one';", "[{\"rule\":\"email\",\"count\":2}]\n"),
        ("select count(*) from logs where labels::text like '%db-tier%';", "1\n"),
        ("select labels::jsonb->>'tier' from logs where service = 'db';", "db-tier\n"),
        (
            "select count(*) from logs where service = any('{web,db}'::text[]) and service <> all('{db}'::text[]);",
            "3\n",
        ),
        (
            "select service, g.* from (select service, host from logs) g where service = 'db' \\gdesc",
            "service|text\nservice|text\nhost|text\n",
        ),
        ("select catcode from pg_get_keywords() where word = 'select';", "R\n"),
        ("begin; select 1; commit;", "BEGIN\n1\nCOMMIT\n"),
        ("show server_version; set application_name = 'x'; show application_name;", "15.0\nSET\nx\n"),
        ("select current_user, current_database(), current_setting('TimeZone');", "ada|beeacon|UTC\n"),
        (
            "select count(*), min(timestamp) as first from logs \\gdesc",
            "count|bigint\nfirst|timestamp with time zone\n",
        ),
    ];
    for (commands, expected) in table {
        assert_eq!(printed(door.address, commands).await, expected, "{commands}");
    }
    let output = tokio::task::spawn_blocking({
        let address = door.address;
        move || {
            let port = address.port().to_string();
            let arguments = ["-X", "-A", "-h", "127.0.0.1", "-p", &port, "-U", "ada", "beeacon", "-c"];
            Command::new("psql")
                .args(arguments)
                .arg("select count(*), max(service), 1+1 from logs")
                .output()
                .unwrap()
        }
    });
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(output.starts_with("count|max|?column?\n4|web|2\n"), "{output}");
    door.stop.send(true).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psqls_commands_that_describe_are_answered() {
    if !has_psql() {
        return;
    }
    let world = with_lines().await;
    let door = serve(&world, PostgresOptions::default()).await;
    // (command, a part of what it prints)
    let table = [
        ("\\d", "public|logs|table|beeacon"),
        ("\\d", "public|redactions|view|beeacon"),
        ("\\d logs", "timestamp|timestamp with time zone||not null|"),
        ("\\d logs", "attributes|json||not null|"),
        ("\\d+ logs", "service|text||not null||extended"),
        ("\\d redactions", "rule|text"),
        ("\\d+ redactions", "count|"),
        ("\\d g*", "reason|text"),
        ("\\dt", "public|gaps|table|beeacon"),
        ("\\dt+", "public|logs|table|beeacon|permanent|heap"),
        ("\\dv", "public|redactions|view|beeacon"),
        ("\\dn", "public|beeacon"),
        ("\\dn+", "public|beeacon"),
        ("\\l", "beeacon|beeacon|UTF8|C.UTF-8"),
        ("\\l+", "beeacon|beeacon|UTF8|C.UTF-8"),
        ("\\du", "beeacon"),
        ("\\dx", "timescaledb|2.14.0|public"),
        ("\\df time*", "pg_catalog|time_bucket"),
        ("\\da approx*", "approx_percentile_cont"),
        ("\\dS pg_class", "relkind|text"),
        ("\\dp", "public|logs|table"),
        ("\\conninfo", "You are connected to database \"beeacon\" as user \"ada\""),
        ("\\di", ""),
        ("\\di+", ""),
        ("\\ds", ""),
        ("\\dm", ""),
        ("\\dE", ""),
        ("\\dT", ""),
        ("\\dD", ""),
        ("\\dd", ""),
        ("\\db", ""),
        ("\\dO", ""),
        ("\\dC", ""),
    ];
    let mut unanswered = Vec::new();
    for (command, part) in table {
        let output = psql(door.address, command).await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("ERROR") || !shown.contains(part) {
            unanswered.push(format!("{command}: wanted {part}\n{shown}{errors}"));
        }
    }
    assert!(unanswered.is_empty(), "{}", unanswered.join("\n"));
}

/// The queries that Grafana's PostgreSQL data source asks by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grafanas_own_queries_are_answered() {
    let world = with_lines().await;
    assert_eq!(world.one(grafana::VERSION).await, "1500");
    assert_eq!(world.one(grafana::TIMESCALE).await, "2.14.0");
    assert_eq!(world.cells(grafana::SCHEMAS).await, [["public"]]);
    assert_eq!(world.cells(&grafana::tables()).await, [["gaps"], ["logs"], ["redactions"]]);
    for table in ["logs", "public.logs"] {
        let found = world.cells(&grafana::columns(table)).await;
        assert_eq!(found.len(), 18, "{table}");
        assert_eq!(found[0], ["timestamp", "timestamp with time zone"]);
    }
    assert_eq!(world.cells(&grafana::columns("other.logs")).await.len(), 0);
}

/// What Grafana's macros become before they are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expanded_macros_of_grafana_work_on_times_with_zones() {
    let world = with_lines().await;
    let (from, to) = ("2026-01-05T12:00:00.000000000Z", "2026-01-05T12:07:00.5Z");
    let filter = format!("timestamp BETWEEN '{from}' AND '{to}'");
    let (from_s, to_s) = (NOON_NS / 1_000_000_000, NOON_NS / 1_000_000_000 + 420);
    let table = [
        (format!("select count(*) from logs where {filter}"), "3"),
        (format!("select count(*) from logs where timestamp >= '{from}' and timestamp <= '{to}'"), "3"),
        (
            format!(
                "select count(*) from logs where extract(epoch from timestamp) >= {from_s} and extract(epoch from timestamp) <= {to_s}"
            ),
            "3",
        ),
        (
            format!("select timestamp AS \"time\" from logs where {filter} order by 1 limit 1"),
            "2026-01-05T12:00:00Z",
        ),
        (
            format!(
                "select max(floor(extract(epoch from timestamp)/300)*300) AS \"time\" from logs where {filter}"
            ),
            "1767614700.0",
        ),
        (
            format!("select max(time_bucket('300.000s',timestamp)) from logs where {filter}"),
            "2026-01-05T12:05:00Z",
        ),
        (
            format!("select max(time_bucket('60.000s',timestamp) ) AS \"time\" from logs where {filter}"),
            "2026-01-05T12:06:00Z",
        ),
    ];
    for (query, expected) in table {
        assert_eq!(world.one(&query).await, expected, "{query}");
    }
    let series = format!(
        "select time_bucket('60.000s',timestamp) AS \"time\", service as metric, count(*) as value from logs \
         where {filter} group by 1, 2 order by 1"
    );
    assert_eq!(world.cells(&series).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_has_its_sqlstate_and_the_session_goes_on() {
    if !has_psql() {
        return;
    }
    let options = QueryOptions {
        rows_max: 1_000,
        memory_bytes_max: 16 << 20,
        partitions: 2,
        ..QueryOptions::default()
    };
    let world = World::with(options).await;
    let door = serve(&world, PostgresOptions::default()).await;
    let table = [
        ("selec 1", "42601"),
        ("select 1 from nowhere", "42P01"),
        ("select nothing from logs", "42703"),
        ("select nofunction(1)", "42883"),
        ("select 1/0", "22012"),
        ("select 'x'::int", "22P02"),
        ("insert into logs select * from logs", "25006"),
        ("update logs set message = ''", "25006"),
        ("delete from logs", "25006"),
        ("drop table logs", "25006"),
        ("create table a (b int)", "25006"),
        ("truncate logs", "25006"),
        ("copy logs to '/tmp/x'", "0A000"),
        ("begin read write", "25006"),
        ("set work_mem = '1GB'", "42704"),
        ("set timezone = 'Europe/Berlin'", "55P02"),
        ("set role root", "42501"),
        ("show nothing_known", "42704"),
        ("select current_setting('nothing')", "42704"),
        ("listen x", "0A000"),
        ("declare c cursor for select 1", "0A000"),
        ("select value from generate_series(1, 2000)", "54000"),
        ("select repeat('x', 1000000000)", "54001"),
        ("select value from generate_series(1, 20000000) order by value % 1000, value desc", "53200"),
        ("select $1", "08P01"),
        ("select pg_sleep(1)", "42883"),
        ("select * from '/etc/passwd'", "42P01"),
    ];
    for (query, state) in table {
        let commands =
            format!("\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP 0\n{query};\nselect 'alive';\n");
        let output = psql(door.address, &commands).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(&format!("ERROR:  {state}")), "{query}: wanted {state}, got {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "alive", "{query}");
    }
    let place = psql(door.address, "select 1,\n  nothing from logs;").await;
    let errors = String::from_utf8_lossy(&place.stderr).into_owned();
    assert!(errors.contains("LINE 2:   nothing from logs") && errors.contains("          ^"), "{errors}");
    let failed = "\\set ON_ERROR_STOP 0\n\\set VERBOSITY sqlstate\nbegin;\nselect 1/0;\nselect 1;\nrollback;\nselect 2;";
    let output = psql(door.address, failed).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("22012") && errors.contains("25P02"), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "BEGIN\nROLLBACK\n2\n");
}

const ENDLESS: &str = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_end_by_timeout_by_cancelling_and_when_the_client_leaves() {
    if !has_psql() {
        return;
    }
    let world = World::new().await;
    let door = serve(&world, PostgresOptions::default()).await;
    let output = psql(door.address, &format!("set statement_timeout = '200ms';\n{ENDLESS};")).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("query took longer than 200 ms"), "{errors}");
    world.idle().await;
    for (signal, expected) in [("INT", Some("canceling statement due to user request")), ("KILL", None)] {
        let mut command = psql_command(door.address);
        command.args(["-c", ENDLESS]).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until_running(&world).await;
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if let Some(expected) = expected {
            assert!(errors.contains(expected), "{errors}");
        }
        world.idle().await;
    }
    assert_eq!(printed(door.address, "select 1;").await, "1\n");
}

async fn until_running(world: &World) {
    let running = async {
        while world.query.statistics().running == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("no query began");
}

/// A key of the protocol's own does not fit another connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_with_a_wrong_key_cancels_nothing() {
    let world = World::new().await;
    let door = serve(&world, PostgresOptions::default()).await;
    let mut client = raw(door.address).await;
    client.write_all(&query_message(ENDLESS)).await.unwrap();
    until_running(&world).await;
    let mut other = TcpStream::connect(door.address).await.unwrap();
    let mut request = 16_u32.to_be_bytes().to_vec();
    for number in [80_877_102_u32, 1, 0] {
        request.extend_from_slice(&number.to_be_bytes());
    }
    other.write_all(&request).await.unwrap();
    assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0, "a cancel request has no answer");
    // A query that was cancelled after all would be told so.
    let told = tokio::time::timeout(Duration::from_secs(1), client.read(&mut [0; 1])).await;
    assert!(told.is_err(), "the query has ended: {told:?}");
    assert_eq!(world.query.statistics().running, 1);
    drop(client);
    world.idle().await;
}

fn query_message(text: &str) -> Vec<u8> {
    let mut message = vec![b'Q'];
    message.extend_from_slice(&u32::try_from(text.len() + 5).unwrap().to_be_bytes());
    message.extend_from_slice(text.as_bytes());
    message.push(0);
    message
}

/// A connection that is logged in.
async fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = b"\x00\x03\x00\x00user\0ada\0\0";
    stream.write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    until(&mut stream, b"Z\0\0\0\x05I").await;
    stream
}

async fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let bytes = stream.read_buf(&mut read).await.unwrap();
        assert!(bytes > 0, "the connection ended after {}", String::from_utf8_lossy(&read));
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_message_ends_the_connection_and_nothing_else() {
    let world = World::new().await;
    let door = serve(&world, PostgresOptions::default()).await;
    for broken in [&b"Q\x7f\xff\xff\xff"[..], b"?\0\0\0\x04", b"Q\0\0\0\x05\xff"] {
        let mut stream = raw(door.address).await;
        stream.write_all(broken).await.unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert!(String::from_utf8_lossy(&read).contains("08P01"), "{read:?}");
    }
    let mut opening = TcpStream::connect(door.address).await.unwrap();
    opening.write_all(&[0xff; 64]).await.unwrap();
    let mut read = Vec::new();
    opening.read_to_end(&mut read).await.unwrap();
    let mut stream = raw(door.address).await;
    stream.write_all(&query_message("select 1")).await.unwrap();
    until(&mut stream, b"Z\0\0\0\x05I").await;
    // A session has so many prepared statements and no more.
    let mut parse = Vec::new();
    for index in 0..300 {
        let body = format!("s{index}\0select 1\0\0\0");
        parse.push(b'P');
        parse.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        parse.extend_from_slice(body.as_bytes());
    }
    parse.extend_from_slice(b"S\0\0\0\x04");
    stream.write_all(&parse).await.unwrap();
    let answer = until(&mut stream, b"Z\0\0\0\x05I").await;
    assert!(String::from_utf8_lossy(&answer).contains("256 prepared statements at most"));
    assert_eq!(answer.windows(5).filter(|bytes| *bytes == b"1\0\0\0\x04").count(), 256);
}

/// A certificate for 127.0.0.1 and its key, made anew, and the acceptor that shows it.
fn certificate(directory: &std::path::Path) -> tokio_rustls::TlsAcceptor {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    certificates::make(directory, "door", "IP:127.0.0.1", None);
    let (key, certificate) = (directory.join("door.key"), directory.join("door.crt"));
    let chain = CertificateDer::pem_file_iter(&certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_only_those_who_know_it_are_served_and_tls_is_real() {
    if !has_psql() || !has("openssl", &["version"]) {
        return;
    }
    let world = with_lines().await;
    let tls = certificate(world.directory.path());
    let token = Some("a-token-of-this-test".to_owned());
    let door = serve(&world, PostgresOptions { token, tls: Some(tls), ..PostgresOptions::default() }).await;
    let root = world.directory.path().join("door.crt").display().to_string();
    // (sslmode, password, what is printed or said)
    let table = [
        ("verify-full", "a-token-of-this-test", Ok("4|t")),
        ("disable", "a-token-of-this-test", Ok("4|")),
        ("require", "another-token-of-it", Err("password authentication failed")),
        ("disable", "another-token-of-it", Err("password authentication failed")),
        ("require", "", Err("no password supplied")),
    ];
    for (mode, password, expected) in table {
        let mut command = psql_command(door.address);
        command.args(["-w", "-c", "select count(*) from logs", "-c", "\\conninfo"]);
        command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", &root);
        if !password.is_empty() {
            command.env("PGPASSWORD", password);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        match expected {
            Ok(expected) => {
                assert!(shown.starts_with("4\n"), "{mode}: {shown}{errors}");
                assert_eq!(shown.contains("SSL connection"), expected.ends_with('t'), "{mode}: {shown}");
            }
            Err(expected) => assert!(errors.contains(expected), "{mode}: {errors}"),
        }
    }
    // Without the login nothing is answered.
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let body = b"\x00\x03\x00\x00user\0ada\0\0";
    stream.write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream.write_all(&query_message("select 1")).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    assert!(String::from_utf8_lossy(&read).contains("the login is not done yet"), "{read:?}");
    // What is sent along with the request for TLS is not taken for something sent within it.
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let mut opening = vec![0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    opening.extend_from_slice(&query_message("select 1"));
    stream.write_all(&opening).await.unwrap();
    let mut read = Vec::new();
    // The connection is closed, perhaps before all of it was read.
    let _ = stream.read_to_end(&mut read).await;
    assert!(read.is_empty(), "{read:?}");
}

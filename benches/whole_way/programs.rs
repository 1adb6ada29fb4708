//! Processes of the bench: a server and an agent, what they used, and one small HTTP client.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The kernel's clock ticks in a second, as `/proc/PID/stat` counts CPU time; 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A process that ends with its value.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        Program(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts"))
    }

    /// User and system time so far, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = |index: usize| {
            after_name.split(' ').nth(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0)
        };
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// A line of `/proc/PID/status` such as `VmHWM`, in MiB.
    pub(crate) fn memory_mib(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    /// Asks it to end, and gives the CPU time it used since `before`, its last work included.
    pub(crate) fn stop(&mut self, before: f64) -> f64 {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let mut used = self.cpu_s() - before;
        while self.0.try_wait().expect("our child").is_none() {
            used = used.max(self.cpu_s() - before);
            std::thread::sleep(Duration::from_millis(5));
        }
        used
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A collector with its store and queries, on ports of its own.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) address: String,
    pub(crate) postgres_port: u16,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Server::start_with(data, None)
    }

    /// One with a configuration.
    pub(crate) fn start_with(data: &Path, configuration: Option<&Path>) -> Self {
        let (http, postgres) = (free_port(), free_port());
        let address = format!("127.0.0.1:{http}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon"));
        command.args(["server", "--listen", &address, "--postgres", &format!("127.0.0.1:{postgres}")]);
        command.arg("--data").arg(data);
        if let Some(configuration) = configuration {
            command.arg("--config").arg(configuration);
        }
        let program = Program::start(&mut command);
        connect(&address);
        Server { program, address, postgres_port: postgres }
    }

    /// The only number that a query gives.
    pub(crate) fn number(&self, query: &str) -> u64 {
        let body = serde_json::json!({ "query": query }).to_string();
        let answer = post(&mut connect(&self.address), "/api/v1/sql", body.as_bytes());
        let rows: Value = serde_json::from_slice(&answer).expect("JSON");
        rows[0].as_object().and_then(|row| row.values().next()?.as_u64()).expect("a number")
    }

    /// Waits until so many lines are there.
    pub(crate) fn wait_for_lines(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.number("select count(*) as lines from logs") < count {
            assert!(Instant::now() < deadline, "the lines do not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

pub(crate) fn connect(address: &str) -> BufReader<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true).expect("a socket");
                return BufReader::new(stream);
            }
            Err(error) if Instant::now() > deadline => panic!("the server does not listen: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// One request on a connection that stays; the answer has to be 200. Its body.
pub(crate) fn post(connection: &mut BufReader<TcpStream>, path: &str, body: &[u8]) -> Vec<u8> {
    let mut head = String::new();
    write!(head, "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        .expect("memory");
    write!(head, "accept: application/json\r\ncontent-length: {}\r\n\r\n", body.len()).expect("memory");
    let stream = connection.get_mut();
    stream.write_all(head.as_bytes()).expect("the server reads");
    stream.write_all(body).expect("the server reads");
    let (mut status, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let line = read_line(connection);
        if status.is_empty() {
            status.clone_from(&line);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        chunked |= lower == "transfer-encoding: chunked";
        if line.is_empty() {
            break;
        }
    }
    let mut answer = Vec::new();
    if chunked {
        loop {
            let size = usize::from_str_radix(&read_line(connection), 16).expect("a chunk");
            let start = answer.len();
            answer.resize(start + size, 0);
            connection.read_exact(&mut answer[start..]).expect("the server answers");
            read_line(connection);
            if size == 0 {
                break;
            }
        }
    } else {
        answer.resize(length, 0);
        connection.read_exact(&mut answer).expect("the server answers");
    }
    assert!(status.contains(" 200 "), "{status}: {}", String::from_utf8_lossy(&answer));
    answer
}

fn read_line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).expect("the server answers");
    line.trim_end().to_owned()
}

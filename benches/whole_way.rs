//! What a line costs on its whole way, next to what it cannot cost less than. One run, one table, and the same figures in
//! `target/bench/whole_way.json`.
//!
//! `make bench` runs it. Machines differ and are noisy: read the ratios, not the rates. CPU time is that of the measuring
//! thread, or of the server's process; nothing else is counted.

#![expect(clippy::indexing_slicing, reason = "a bench that is surprised had better end")]

use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use beeacon_agent::docker::json_line::LineParser;
use beeacon_agent::level;
use beeacon_filters::{Engine, EngineOptions, corpus};
use beeacon_record::wire::{INGEST_PATH, SESSION_PATH};
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Epoch, FrameEncoder, Interval, Line, Origin, Position, Scrubbed, Source,
};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

/// The corpus, in bytes of message text.
const CORPUS_BYTES: usize = 48_000_000;

/// Who ships here.
const AGENT: AgentId = AgentId::from_bytes([9; 16]);

/// Every measurement is the best of this many passes.
const PASSES: usize = 3;

/// The kernel's clock ticks in a second, as `/proc/PID/stat` counts CPU time; 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let mut table = Table::default();
    let text = corpus::mixed(20_261_120, CORPUS_BYTES);
    let lines: Vec<&str> = text.lines().collect();
    let json_file = json_file(&lines);
    table.note(&format!(
        "{} lines, {:.0} bytes of message and {:.0} bytes of json-file a line",
        lines.len(),
        text.len() as f64 / lines.len() as f64,
        json_file.len() as f64 / lines.len() as f64
    ));

    let message_bytes = text.len() - lines.len();
    let memcpy = best(|| drop(black_box(text.as_bytes().to_vec())));
    table.rate("copy the messages (memcpy, with allocation)", text.len(), memcpy);
    let newlines = best(|| {
        black_box(memchr::memchr_iter(b'\n', &json_file).count());
    });
    table.rate("find the json-file's newlines (memchr)", json_file.len(), newlines);
    let (zstd, bare_bytes) = zstd_alone(&lines);
    table.rate("zstd -1 of the bare messages, 1 MiB blocks", message_bytes, zstd);

    let engine = Engine::new(EngineOptions::default()).expect("the built-in rules are sound");
    let batches = batches(&json_file);
    let filter = best(|| {
        for batch in &batches {
            black_box(engine.scrub(batch.clone()).expect("the filter works").1.lines);
        }
    });
    table.rate("pollen filter, find and rewrite, default profile", message_bytes, filter);
    table.ratio("pollen filter / memcpy", memcpy / filter);

    let mut frames = Vec::new();
    let whole = best(|| frames = encode(&json_file, &engine));
    table.rate("json-file to encoded frame", json_file.len(), whole);
    table.figure("json-file to encoded frame, CPU", whole * 1e6 / lines.len() as f64, "µs a line");
    let floor = newlines + zstd;
    table.figure("  its floor: memchr and zstd alone", floor * 1e6 / lines.len() as f64, "µs a line");
    table.ratio("  frame / floor", whole / floor);

    let wire_bytes: usize = frames.iter().map(|frame| frame.len()).sum();
    table.figure("on the wire", wire_bytes as f64 / lines.len() as f64, "bytes a line");
    table.figure("  zstd -1 of the bare messages", bare_bytes as f64 / lines.len() as f64, "bytes a line");
    table.ratio("  wire / bare messages", wire_bytes as f64 / bare_bytes as f64);

    let directory = tempfile::tempdir().expect("a directory for the server");
    let (sync_ms, sync_rate) = fdatasync_alone(directory.path());
    table.figure("fdatasync after 256 KiB, median", sync_ms, "ms");
    table.figure("  writing so", sync_rate, "MB/s");
    let ingest = ingest(directory.path(), &frames);
    table.figure("ingest with fsync, wall", message_bytes as f64 / 1e6 / ingest.wall_s, "MB/s of messages");
    table.figure(
        "ingest with fsync",
        message_bytes as f64 / 1e6 / ingest.cpu_s,
        "MB of messages a server CPU second",
    );
    table.figure("in Parquet", ingest.parquet_bytes as f64 / lines.len() as f64, "bytes a line");
    table.ratio("  Parquet / bare messages", ingest.parquet_bytes as f64 / bare_bytes as f64);
    table.finish();
}

/// The figures, as people and as programs read them.
#[derive(Default)]
struct Table {
    figures: Vec<(String, f64, &'static str)>,
}

impl Table {
    fn note(&self, text: &str) {
        print_line(text);
    }

    fn figure(&mut self, name: &str, value: f64, unit: &'static str) {
        print_line(&format!("{name:<52} {value:>10.2} {unit}"));
        self.figures.push((name.trim().to_owned(), value, unit));
    }

    fn rate(&mut self, name: &str, bytes: usize, seconds: f64) {
        self.figure(name, bytes as f64 / 1e6 / seconds, "MB/s");
    }

    fn ratio(&mut self, name: &str, value: f64) {
        self.figure(name, value, "x");
    }

    fn finish(self) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let figures: Vec<serde_json::Value> = self
            .figures
            .iter()
            .map(|(name, value, unit)| serde_json::json!({ "name": name, "value": value, "unit": unit }))
            .collect();
        std::fs::create_dir_all(&directory).expect("a directory for the figures");
        let path = directory.join("whole_way.json");
        std::fs::write(&path, serde_json::json!({ "figures": figures }).to_string()).expect("the figures");
        print_line(&format!("also in {}", path.display()));
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints")]
fn print_line(text: &str) {
    println!("{text}");
}

/// The thread's CPU time for the quickest of some passes, in seconds.
fn best(mut work: impl FnMut()) -> f64 {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    };
    let pass = |_| {
        let start = cpu();
        work();
        cpu() - start
    };
    (0..PASSES).map(pass).fold(f64::INFINITY, f64::min)
}

/// The lines as Docker writes them.
fn json_file(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len() * 320);
    let mut time_ns = 1_700_000_000_000_000_000_i64;
    for (index, line) in lines.iter().enumerate() {
        time_ns += 40_000 + (index as i64 * 7919) % 1_000_000;
        let time = jiff::Timestamp::from_nanosecond(time_ns.into()).expect("a time of this century");
        let text = serde_json::Value::String(format!("{line}\n"));
        let stream = if index % 9 == 0 { "stderr" } else { "stdout" };
        writeln!(out, "{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"{time:.9}\"}}").expect("memory");
    }
    out
}

fn zstd_alone(lines: &[&str]) -> (f64, usize) {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.as_bytes());
    }
    let mut compressed = 0;
    let mut compressor = zstd::bulk::Compressor::new(1).expect("a good level");
    let seconds = best(|| {
        compressed =
            text.chunks(1 << 20).map(|block| compressor.compress(block).expect("compresses").len()).sum();
    });
    (seconds, compressed)
}

/// Parses the json-file and gives a batch to `take` whenever one is full.
fn parse(json_file: &[u8], mut take: impl FnMut(Batch)) {
    let source = Source::new("docker-file:bench").expect("a good name");
    let origin = Origin { host: "bench".into(), service: "web".into(), ..Origin::default() };
    let mut builder = BatchBuilder::new(AGENT.to_string());
    let mut parser = LineParser::default();
    let (mut at, mut from) = (0u64, Position::new(1, 0));
    let mut id = builder.origin(&origin, &source);
    for line in json_file.split_inclusive(|byte| *byte == b'\n') {
        let start = builder.text_bytes();
        let record = parser.parse(&line[..line.len() - 1], builder.text_mut()).expect("a record");
        let level = level::detect(&builder.text_mut()[start..]);
        builder.finish_line(Line {
            origin: id,
            timestamp_ns: record.timestamp_ns,
            observed_timestamp_ns: record.timestamp_ns,
            stream: record.stream,
            level,
            position: Position::new(1, at),
        });
        at += line.len() as u64;
        if builder.is_full() {
            let to = Position::new(1, at);
            take(builder.finish(vec![Interval::new(source.clone(), from, to)]).expect("a batch"));
            from = to;
            id = builder.origin(&origin, &source);
        }
    }
    let to = Position::new(1, at);
    if builder.rows() > 0 {
        take(builder.finish(vec![Interval::new(source, from, to)]).expect("a batch"));
    }
}

fn batches(json_file: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    parse(json_file, |batch| batches.push(batch));
    batches
}

/// The agent's hot path: parse, level, batch, filter, frame.
fn encode(json_file: &[u8], engine: &Engine) -> Vec<Bytes> {
    let mut encoder = FrameEncoder::new(AGENT, Epoch(1), 0, 1).expect("a good level");
    let mut frames = Vec::new();
    parse(json_file, |batch| {
        let scrubbed: Scrubbed<Batch> = engine.scrub(batch).expect("the filter works").0;
        frames.push(encoder.encode(&scrubbed).expect("a frame"));
    });
    frames
}

/// The median of one write and fdatasync in milliseconds, and the rate of writing so.
fn fdatasync_alone(directory: &Path) -> (f64, f64) {
    const WRITES: usize = 60;
    let block = vec![7; 256 << 10];
    let mut file = File::create(directory.join("floor")).expect("a file");
    let mut times: Vec<f64> = (0..WRITES)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&block).expect("room");
            file.sync_data().expect("a sync");
            start.elapsed().as_secs_f64()
        })
        .collect();
    let total: f64 = times.iter().sum();
    times.sort_by(f64::total_cmp);
    (times[WRITES / 2] * 1e3, (WRITES * block.len()) as f64 / 1e6 / total)
}

struct Ingest {
    wall_s: f64,
    cpu_s: f64,
    parquet_bytes: u64,
}

/// Ships the frames to a real server, one after another as an agent does, and lets it write everything as Parquet.
fn ingest(directory: &Path, frames: &[Bytes]) -> Ingest {
    let data = directory.join("data");
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut server = Server(
        Command::new(env!("CARGO_BIN_EXE_beeacon"))
            .args(["server", "--postgres", "none", "--listen", &address.to_string(), "--data"])
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts"),
    );
    let mut connection = connect(&address.to_string());
    let agent = AGENT;
    let session = format!("{{\"agent\":\"{agent}\",\"host\":\"bench\",\"version\":\"bench\"}}");
    post(&mut connection, SESSION_PATH, session.as_bytes());
    let (wall, cpu) = (Instant::now(), server.cpu_s());
    for frame in frames {
        post(&mut connection, INGEST_PATH, frame);
    }
    let wall_s = wall.elapsed().as_secs_f64();
    // Parquet is written after the acknowledgement; its CPU counts all the same.
    let cpu_s = server.stop(cpu);
    Ingest { wall_s, cpu_s, parquet_bytes: parquet_bytes(&data) }
}

struct Server(Child);

impl Server {
    /// User and system time so far.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = |index: usize| {
            after_name.split(' ').nth(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0)
        };
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// Asks it to end, and gives the CPU time it used since `before`, its last flush included.
    fn stop(&mut self, before: f64) -> f64 {
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

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn connect(address: &str) -> BufReader<TcpStream> {
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

/// One request on a connection that stays; the answer has to be 200.
fn post(connection: &mut BufReader<TcpStream>, path: &str, body: &[u8]) {
    let mut head = String::new();
    write!(head, "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n")
        .expect("memory");
    write!(head, "content-length: {}\r\n\r\n", body.len()).expect("memory");
    let stream = connection.get_mut();
    stream.write_all(head.as_bytes()).expect("the server reads");
    stream.write_all(body).expect("the server reads");
    let (mut line, mut length, mut status) = (String::new(), 0, String::new());
    loop {
        line.clear();
        connection.read_line(&mut line).expect("the server answers");
        if status.is_empty() {
            status = line.trim().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer).expect("the server answers");
    assert!(status.contains(" 200 "), "{status}: {}", String::from_utf8_lossy(&answer));
}

fn parquet_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                parquet_bytes(&path)
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                entry.metadata().map_or(0, |metadata| metadata.len())
            } else {
                0
            }
        })
        .sum()
}

//! What a line costs on its whole way, next to what it cannot cost less than. One run, one table, and the same figures in
//! `target/bench/whole_way.json`.
//!
//! `make bench` runs it. Machines differ and are noisy: read the ratios, not the rates. CPU time is that of the measuring
//! thread, or of the server's process; nothing else is counted.

#![expect(clippy::indexing_slicing, reason = "a bench that is surprised had better end")]

mod asking;
mod programs;
mod shipping;
mod table;

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use beeacon_agent::docker::json_line::LineParser;
use beeacon_agent::level;
use beeacon_filters::{Engine, EngineOptions, corpus};
use beeacon_record::wire::{INGEST_PATH, SESSION_PATH};
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Epoch, FrameEncoder, Interval, Line, Origin, Position, Scrubbed, Source,
};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

use crate::programs::{Server, connect, post};
use crate::table::Table;

/// The corpus, in bytes of message text.
const CORPUS_BYTES: usize = 48_000_000;

/// Who ships here.
const AGENT: AgentId = AgentId::from_bytes([9; 16]);

/// Every measurement is the best of this many passes.
const PASSES: usize = 3;

/// When the first line was written, in seconds since 1970, where nobody says otherwise.
const START_S: i64 = 1_700_000_000;

/// The parts of the bench; those named as arguments are run, or all.
const PARTS: [&str; 3] = ["lines", "shipping", "asking"];

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let unknown = named.iter().find(|name| !PARTS.contains(&name.as_str()));
    assert!(unknown.is_none(), "there is no part {unknown:?}, but {PARTS:?}");
    let is_wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
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
    let engine = Engine::new(EngineOptions::default()).expect("the built-in rules are sound");
    if is_wanted("lines") {
        measure_lines(&mut table, &text, &lines, &json_file, &engine);
    }
    if is_wanted("shipping") {
        shipping::measure(&mut table, &lines, &json_file);
    }
    if is_wanted("asking") {
        asking::measure(&mut table, lines.len(), |written| encode(&json_file, written, &engine));
    }
    table.finish();
}

/// What a line costs in one thread, and what the server makes of its frames.
fn measure_lines(table: &mut Table, text: &str, lines: &[&str], json_file: &[u8], engine: &Engine) {
    let message_bytes = text.len() - lines.len();
    let memcpy = best(|| drop(black_box(text.as_bytes().to_vec())));
    table.rate("copy the messages (memcpy, with allocation)", text.len(), memcpy);
    let newlines = best(|| {
        black_box(memchr::memchr_iter(b'\n', json_file).count());
    });
    table.rate("find the json-file's newlines (memchr)", json_file.len(), newlines);
    let (zstd, bare_bytes) = zstd_alone(lines);
    table.rate("zstd -1 of the bare messages, 1 MiB blocks", message_bytes, zstd);

    let batches = batches(json_file);
    let filter = best(|| {
        for batch in &batches {
            black_box(engine.scrub(batch.clone()).expect("the filter works").1.lines);
        }
    });
    table.rate("pollen filter, find and rewrite, default profile", message_bytes, filter);
    table.ratio("pollen filter / memcpy", memcpy / filter);

    let mut frames = Vec::new();
    let whole = best(|| frames = encode(json_file, &Written::default(), engine));
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
    let mut time_ns = START_S * 1_000_000_000;
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

/// Who is said to have written a json-file's lines, and when.
struct Written {
    /// Services that take turns at writing, each in a container of its own.
    services: Vec<String>,
    source: usize,
    /// When the first line was written, in seconds since 1970.
    start_s: i64,
    /// How many times as long as in the json-file the time between two lines is.
    stretch: i64,
    /// How long after a line was written it was read at most, in nanoseconds.
    lag_ns: i64,
}

impl Default for Written {
    fn default() -> Self {
        Written { services: vec!["web".to_owned()], source: 0, start_s: START_S, stretch: 1, lag_ns: 0 }
    }
}

/// The container of a service.
fn origin(service: &str) -> Origin {
    Origin {
        host: "bench".into(),
        service: service.to_owned(),
        container: format!("{service}-1"),
        container_id: service.to_owned(),
        image: "bench".into(),
        ..Origin::default()
    }
}

/// Parses the json-file and gives a batch to `take` whenever one is full.
fn parse(json_file: &[u8], written: &Written, mut take: impl FnMut(Batch)) {
    let source = Source::new(format!("docker-file:bench{}", written.source)).expect("a good name");
    let origins: Vec<Origin> = written.services.iter().map(|service| origin(service)).collect();
    let time = |ns: i64| (ns - START_S * 1_000_000_000) * written.stretch + written.start_s * 1_000_000_000;
    let mut builder = BatchBuilder::new(AGENT.to_string());
    let mut parser = LineParser::default();
    let (mut at, mut from) = (0u64, Position::new(1, 0));
    let mut ids: Vec<_> = origins.iter().map(|origin| builder.origin(origin, &source)).collect();
    for (index, line) in json_file.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let start = builder.text_bytes();
        let record = parser.parse(&line[..line.len() - 1], builder.text_mut()).expect("a record");
        let level = level::detect(&builder.text_mut()[start..]);
        builder.finish_line(Line {
            // In no order, as lines of several containers come.
            origin: ids[(index * 7919 / 8) % ids.len()],
            timestamp_ns: time(record.timestamp_ns),
            observed_timestamp_ns: time(record.timestamp_ns)
                + index as i64 * 7_919_000 % (written.lag_ns + 1),
            stream: record.stream,
            level,
            position: Position::new(1, at),
        });
        at += line.len() as u64;
        if builder.is_full() {
            let to = Position::new(1, at);
            take(builder.finish(vec![Interval::new(source.clone(), from, to)]).expect("a batch"));
            from = to;
            ids = origins.iter().map(|origin| builder.origin(origin, &source)).collect();
        }
    }
    let to = Position::new(1, at);
    if builder.rows() > 0 {
        take(builder.finish(vec![Interval::new(source, from, to)]).expect("a batch"));
    }
}

fn batches(json_file: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    parse(json_file, &Written::default(), |batch| batches.push(batch));
    batches
}

/// The agent's hot path: parse, level, batch, filter, frame.
fn encode(json_file: &[u8], written: &Written, engine: &Engine) -> Vec<Bytes> {
    let mut encoder = FrameEncoder::new(AGENT, Epoch(1), 0, 1).expect("a good level");
    let mut frames = Vec::new();
    parse(json_file, written, |batch| {
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
    let mut server = Server::start(&data);
    let mut connection = connect(&server.address);
    let agent = AGENT;
    let session = format!("{{\"agent\":\"{agent}\",\"host\":\"bench\",\"version\":\"bench\"}}");
    post(&mut connection, SESSION_PATH, session.as_bytes());
    let (wall, cpu) = (Instant::now(), server.program.cpu_s());
    for frame in frames {
        post(&mut connection, INGEST_PATH, frame);
    }
    let wall_s = wall.elapsed().as_secs_f64();
    // Parquet is written after the acknowledgement; its CPU counts all the same.
    let cpu_s = server.program.stop(cpu);
    Ingest { wall_s, cpu_s, parquet_bytes: parquet_bytes(&data) }
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

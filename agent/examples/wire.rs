//! How many bytes a line takes on its way to the collector, by level of zstd, beside the bare messages in blocks of 1 MiB:
//! `cargo run --release -p beeacon-agent --example wire -- FILE…`
//!
//! The lines of the files, or those that `make bench` makes up where none is named, are written as a json-file log, a thousand a second
//! with an uneven rhythm, read by the agent's reader, and scrubbed by the default profile.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of measurements may stop anywhere, and prints"
)]

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use beeacon_agent::docker::file::FileSource;
use beeacon_agent::docker::files::Chain;
use beeacon_agent::metrics::Metrics;
use beeacon_agent::progress::{Sink, Step};
use beeacon_filters::{Engine, EngineOptions, corpus};
use beeacon_record::{AgentId, Batch, BatchBuilder, Epoch, FrameEncoder, Origin, Scrubbed, Source};

const MADE_UP_BYTES: usize = 48_000_000;

const LEVELS: [i32; 5] = [-1, 1, 2, 3, 6];

fn main() {
    let mut lines = Vec::new();
    for path in std::env::args().skip(1) {
        let text = std::fs::read(&path).unwrap();
        lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
    }
    if lines.is_empty() {
        lines = corpus::mixed(20_261_120, MADE_UP_BYTES).lines().map(str::to_owned).collect();
    }
    // Those of one file after another would be what no host writes.
    let count = lines.len();
    let stride = (count / 16).max(1) | 1;
    let mixed: Vec<&str> =
        (0..count).filter_map(|place| lines.get(place * stride % count)).map(String::as_str).collect();
    println!("{count} lines of {} bytes", lines.iter().map(String::len).sum::<usize>() / count.max(1));
    for (what, lines) in
        [("one file after another", lines.iter().map(String::as_str).collect()), ("mixed", mixed)]
    {
        measure(what, &lines);
    }
}

fn measure(what: &str, lines: &[&str]) {
    let bare: String = lines.concat();
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let blocks = bare.as_bytes().chunks(1 << 20);
    let bare: usize = blocks.map(|block| compressor.compress(block).unwrap().len()).sum();
    let per_line = |bytes: usize| bytes as f64 / lines.len() as f64;
    println!("{what}: {:.1} bytes a line of the bare messages with zstd -1", per_line(bare));
    let batches = batches(lines);
    for level in LEVELS {
        let mut encoder = FrameEncoder::new(AgentId::from_bytes([7; 16]), Epoch(1), 0, level).unwrap();
        let started = Instant::now();
        let wire: usize = batches.iter().map(|batch| encoder.encode(batch).unwrap().len()).sum();
        let taken = started.elapsed().as_secs_f64() * 1e6 / lines.len() as f64;
        let ratio = wire as f64 / bare as f64;
        println!("  level {level:2}: {:6.1} bytes a line, {ratio:.3} of them, {taken:.2} µs", per_line(wire));
    }
}

fn batches(lines: &[&str]) -> Vec<Scrubbed<Batch>> {
    let directory = tempfile::tempdir().unwrap();
    let mut text = String::new();
    let mut timestamp_ns: i128 = 1_700_000_000_000_000_000;
    let mut state = 88_172_645_463_325_252_u64;
    for line in lines {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        timestamp_ns += i128::from(state % 2_000_000);
        let time = jiff::Timestamp::from_nanosecond(timestamp_ns).unwrap();
        let line = serde_json::to_string(&format!("{line}\n")).unwrap();
        writeln!(text, "{{\"log\":{line},\"stream\":\"stdout\",\"time\":\"{time}\"}}").unwrap();
    }
    std::fs::write(directory.path().join("c-json.log"), text).unwrap();
    let mut chain = Chain::new(directory.path().to_owned(), "c-json.log".into());
    let found = chain.find().unwrap();
    chain.take(found, None);
    let source = Source::new("docker-file:0123456789abcdef").unwrap();
    let mut file = FileSource::new(source.clone(), Arc::new(Mutex::new(chain)));
    file.rewind(None);
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let (metrics, mut block, mut batches) = (Metrics::default(), Vec::new(), Vec::new());
    let origin = Origin { host: "h".into(), service: "web".into(), ..Origin::default() };
    loop {
        let mut builder = BatchBuilder::new("01890a5d-ac96-774b-bcce-b302099a8057");
        let origins = [builder.origin(&origin, &source); 2];
        let mut step = Step::Progress;
        while step == Step::Progress && !builder.is_full() {
            let mut sink = Sink {
                builder: &mut builder,
                origins,
                observed_ns: i64::try_from(timestamp_ns).unwrap(),
                rows_max: 1 << 16,
                has_terminal: false,
                safe_cut: &|_, at_most| at_most,
                metrics: &metrics,
            };
            step = file.step(&mut sink, &mut block).unwrap();
        }
        let (open, cursor) = (file.open(), file.cursor());
        let intervals = file.progress.take_interval(open, cursor).into_iter().collect();
        if builder.rows() == 0 {
            return batches;
        }
        batches.push(engine.scrub(builder.finish(intervals).unwrap()).unwrap().0);
    }
}

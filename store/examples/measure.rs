//! What the store costs on this machine: `cargo run --release -p beeacon-store --example measure`.
//!
//! Prints rows and bytes per second of publishing and of flushing (one blocking thread, zstd 3, fsync included), bytes per row
//! in memory and in Parquet, and the time of a snapshot over many files.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::time::Instant;

use beeacon_record::{
    BatchBuilder, Interval, Level, Line, Origin, Position, RuleSetId, Scrubbed, Source, Stream,
};
use beeacon_store::{Commit, Prune, Store, StoreOptions};

const COMMITS: u64 = 200;
const ROWS: u64 = 5_000;
const SMALL_FILES: u64 = 1_000;
const NOW_NS: i64 = 1_795_176_000_000_000_000;

/// Lines of four services as a web application writes them, with identifiers that do not compress.
fn commit(lsn: u64, rows: u64) -> Result<(Commit, usize), Box<dyn Error>> {
    let service = ["web", "api", "db", "worker"].get((lsn % 4) as usize).copied().unwrap_or("web");
    let source = Source::new(format!("docker-file:{service}"))?;
    let mut builder = BatchBuilder::new("agent-1");
    let origin = Origin {
        host: "host-1".into(),
        service: service.into(),
        container: service.into(),
        ..Origin::default()
    };
    let origin = builder.origin(&origin, &source);
    let mut state = lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for row in 0..rows {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = lsn * rows + row;
        let text = format!(
            "level=info method=GET path=/api/v1/orders/{} status={} duration_ms={} request_id={:016x}{:016x} user_agent=\"Mozilla/5.0\"",
            state % 100_000,
            200 + (state >> 40) % 5,
            (state >> 20) % 900,
            state,
            state.rotate_left(29),
        );
        let timestamp_ns = NOW_NS + i64::try_from(number * 50_000)?;
        let line = Line {
            origin,
            timestamp_ns,
            observed_timestamp_ns: timestamp_ns + 1_000_000,
            stream: Stream::Stdout,
            level: Level::Info,
            position: Position::new(1, number * 200),
        };
        builder.push(line, text.as_bytes());
    }
    let text_bytes = builder.text_bytes();
    let interval =
        Interval::new(source, Position::new(1, lsn * rows * 200), Position::new(1, (lsn + 1) * rows * 200));
    let mut commit = Commit::new(lsn, "default", NOW_NS);
    commit.batch = Some(Scrubbed::seal(builder.finish(vec![interval])?, RuleSetId(1)));
    Ok((commit, text_bytes))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut options = StoreOptions::new(directory.path());
    (options.fresh_bytes_max, options.flush_bytes) = (2 << 30, 1 << 30);
    let store = Store::open(options).await?;
    let mut commits = Vec::new();
    let mut text_bytes = 0;
    for lsn in 1..=COMMITS {
        let (commit, bytes) = commit(lsn, ROWS)?;
        text_bytes += bytes;
        commits.push(commit);
    }
    let rows = COMMITS * ROWS;
    let megabytes = text_bytes as f64 / 1e6;

    let started = Instant::now();
    for commit in commits {
        store.publish(commit).await?;
    }
    let took = started.elapsed().as_secs_f64();
    println!("publish   {:>10.0} rows/s {:>8.0} MB of text/s", rows as f64 / took, megabytes / took);
    let fresh = store.statistics();
    println!(
        "memory    {:>10.0} bytes/row, {:.0} of them text",
        fresh.fresh_bytes as f64 / rows as f64,
        megabytes * 1e6 / rows as f64
    );
    let started = Instant::now();
    store.snapshot("default", &Prune::default()).await?;
    println!("snapshot  {:>10.2} ms, {COMMITS} fresh commits", started.elapsed().as_secs_f64() * 1e3);

    let started = Instant::now();
    store.flush().await?;
    let took = started.elapsed().as_secs_f64();
    let written = store.statistics();
    println!(
        "flush     {:>10.0} rows/s {:>8.0} MB of text/s, {} files",
        rows as f64 / took,
        megabytes / took,
        written.files
    );
    println!(
        "parquet   {:>10.1} bytes/row, text is {:.1} times as large",
        written.bytes as f64 / rows as f64,
        megabytes * 1e6 / written.bytes as f64
    );
    let started = Instant::now();
    store.verify().await?;
    println!("verify    {:>10.0} MB/s", written.bytes as f64 / 1e6 / started.elapsed().as_secs_f64());

    let started = Instant::now();
    for lsn in COMMITS + 1..=COMMITS + SMALL_FILES {
        store.publish(commit(lsn, 10)?.0).await?;
        store.flush().await?;
    }
    println!(
        "small     {:>10.2} ms per flush of 10 rows",
        started.elapsed().as_secs_f64() * 1e3 / SMALL_FILES as f64
    );
    for (name, prune) in [
        ("all", Prune::default()),
        ("time", Prune { time_ns: Some((0, NOW_NS + 60_000_000)), services: None }),
        ("service", Prune { time_ns: None, services: Some(vec!["web".to_owned()]) }),
    ] {
        let started = Instant::now();
        let snapshot = store.snapshot("default", &prune).await?;
        let (files, total) = (snapshot.files.len(), snapshot.files_total);
        println!(
            "snapshot  {:>10.2} ms, {files} of {total} files ({name})",
            started.elapsed().as_secs_f64() * 1e3
        );
    }
    store.close().await?;
    let started = Instant::now();
    let store = Store::open(StoreOptions::new(directory.path())).await?;
    println!(
        "open      {:>10.1} ms, {} files checked",
        started.elapsed().as_secs_f64() * 1e3,
        store.recovery().files_checked
    );
    Ok(())
}

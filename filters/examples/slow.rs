//! How fast the filter is on texts that are made to be slow: the twenty rules that other scanners are measured with, and the default
//! profile; finding alone, and finding and rewriting.
//!
//! `cargo run --release -p beeacon-filters --example slow [MEGABYTES [LINE_BYTES [PART_OF_A_NAME]]]`. With a part of a text's name also
//! what the rules tried there.

#[path = "shared/timing.rs"]
mod timing;

use std::error::Error;
use std::hint::black_box;

use beeacon_filters::{Engine, EngineOptions, Profile, RuleFile, Statistics, corpus};
use beeacon_record::Batch;
use timing::{best, rate};

const RULES: &str = include_str!("../../benches/peers/rules.toml");
const PROFILE: &str =
    "name = \"peers\"\ndescription = \"The twenty rules\"\n[[use]]\ncategories = [\"peer\"]\n";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let line_bytes: usize = arguments.next().map_or(Ok(4096), |text| text.parse())?;
    let wanted = arguments.next();
    let twenty = EngineOptions {
        profile: "peers".to_owned(),
        profiles: vec![Profile::parse("peers", PROFILE)?],
        rules: vec![RuleFile::parse("rules.toml", RULES)?],
        ..EngineOptions::default()
    };
    let engines =
        [("twenty rules", Engine::new(twenty)?), ("default profile", Engine::new(EngineOptions::default())?)];
    write_line(format!(
        "lines of {line_bytes} bytes, MB/s: twenty rules, scan and scrub; default profile, scan and scrub"
    ));
    let mut least = [f64::INFINITY; 4];
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|part| name.contains(part.as_str()));
    for (name, piece) in corpus::SLOW.into_iter().filter(|(name, _)| is_wanted(name)) {
        let text = corpus::slow(piece, line_bytes, megabytes * 1_000_000);
        let batches = corpus::score::batches(text.lines())?;
        let mut rates = Vec::new();
        for (_, engine) in &engines {
            rates.push(rate(text.len(), best(3, || scan(engine, &batches))));
            rates.push(rate(text.len(), best(3, || scrub(engine, &batches))));
        }
        for (least, rate) in least.iter_mut().zip(&rates) {
            *least = least.min(*rate);
        }
        write_line(row(name, &rates));
    }
    write_line(row("the least", &least));
    if wanted.is_some() {
        for (name, engine) in &engines {
            write_line(format!("{name}:"));
            tried(&engine.statistics());
        }
    }
    Ok(())
}

/// Finds alone: each batch as one line.
fn scan(engine: &Engine, batches: &[Batch]) {
    for batch in batches {
        if let Err(error) = black_box(engine.scan(batch.messages().value_data())) {
            write_line(error.to_string());
        }
    }
}

fn scrub(engine: &Engine, batches: &[Batch]) {
    for batch in batches {
        if let Err(error) = black_box(engine.scrub(batch.clone())) {
            write_line(error.to_string());
        }
    }
}

fn row(name: &str, rates: &[f64]) -> String {
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:>9.1}")).collect();
    format!("{name:<28} {}", rates.join(" "))
}

fn tried(statistics: &Statistics) {
    for rule in statistics.rules.iter().filter(|rule| rule.candidates > 0) {
        write_line(format!(
            "    {:<28} candidates {:>9}  matches {:>9}  rejected {:>8}  bytes read {:>10}",
            rule.rule, rule.candidates, rule.matches, rule.rejected, rule.bytes_verified
        ));
    }
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn write_line(text: String) {
    println!("{text}");
}

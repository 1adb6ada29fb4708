//! How fast the filter is on a mixed corpus, per second of one thread's processor time, next to copying the same bytes.
//!
//! `cargo run --release -p beeacon-filters --example rate [MEGABYTES [PROFILE…]]`

#[path = "shared/timing.rs"]
mod timing;

use std::hint::black_box;

use beeacon_filters::{Engine, EngineOptions, corpus};
use beeacon_record::Batch;
use timing::{best, rate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes: usize = std::env::args().nth(1).map_or(Ok(32), |text| text.parse())?;
    let text = corpus::mixed(20_261_120, megabytes * 1_000_000);
    let bytes = text.len();
    let batches = corpus::score::batches(text.lines())?;
    let lines: usize = batches.iter().map(Batch::rows).sum();
    writeln(format!("{bytes} bytes, {lines} lines, {} batches", batches.len()));

    let copy = best(5, || drop(black_box(text.as_bytes().to_vec())));
    writeln(format!("{:<44} {:>9.0} MB/s", "copy (allocation included)", rate(bytes, copy)));
    let wanted: Vec<String> = std::env::args().skip(2).collect();
    let all = ["default", "secrets", "hipaa", "soc2"];
    for profile in
        all.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name))
    {
        let options = EngineOptions { profile: profile.to_owned(), ..EngineOptions::default() };
        let mut made = None;
        let time = best(1, || made = Some(Engine::new(options.clone())));
        let engine = made.ok_or("no engine was made")??;
        let about = format!("{} rules, made ready in {:.0} ms", engine.rules().len(), time * 1e3);
        writeln(format!("profile {profile}: {about}, finder {} KiB", engine.finder_bytes() >> 10));
        let mut counts = Vec::new();
        let time = best(3, || {
            for batch in &batches {
                match engine.scrub(batch.clone()) {
                    Ok(out) => counts.push(out.1.lines_redacted),
                    Err(error) => writeln(error.to_string()),
                }
            }
        });
        let redacted: u64 = counts.iter().sum::<u64>() / 3;
        let name = format!("scrub, profile {profile} ({redacted} lines rewritten)");
        writeln(format!("{name:<44} {:>9.0} MB/s", rate(bytes, time)));
        let time = best(3, || {
            for batch in &batches {
                drop(black_box(engine.scan(batch.messages().value_data())));
            }
        });
        writeln(format!("{:<44} {:>9.0} MB/s", "  scan only, as one line", rate(bytes, time)));
        for rule in
            engine.statistics().rules.iter().filter(|rule| rule.candidates > 0 && profile == "default")
        {
            writeln(format!(
                "    {:<16} candidates {:>9}  matches {:>9}  rejected {:>8}  bytes read {:>10}",
                rule.rule, rule.candidates, rule.matches, rule.rejected, rule.bytes_verified
            ));
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn writeln(text: String) {
    println!("{text}");
}

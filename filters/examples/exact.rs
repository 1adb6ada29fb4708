//! Whether the scan finds what the rules mean: made-up logs, texts that are made to be slow, and files, scanned on every path that
//! this machine has, and done plainly with one regular expression after another.
//!
//! `cargo run --release -p beeacon-filters --example exact [MEGABYTES [FILE…]]`. Doing it plainly is slow: half a second a megabyte and
//! path.

use std::error::Error;
use std::process::ExitCode;

use beeacon_filters::{Engine, EngineOptions, ProcessorLevel, corpus};

/// How much is compared at once, in bytes.
const PART_BYTES: usize = 1 << 20;

/// How much of each text that is made to be slow, in bytes, and how long its lines are.
const SLOW_BYTES: usize = 128 << 10;
const SLOW_LINE_BYTES: usize = 1 << 10;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let mut texts = vec![("made-up logs".to_owned(), corpus::mixed(20_261_126, megabytes * 1_000_000))];
    for (name, piece) in corpus::SLOW {
        texts.push((name.to_owned(), corpus::slow(piece, SLOW_LINE_BYTES, SLOW_BYTES)));
    }
    for path in arguments {
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        texts.push((path, text));
    }
    let mut is_exact = true;
    for level in ProcessorLevel::available() {
        let engine = Engine::new(EngineOptions { level: Some(level), ..EngineOptions::default() })?;
        let (mut bytes, mut same, mut missed, mut extra) = (0, 0, 0, 0);
        for (name, text) in &texts {
            let (mut offsets, mut part) = (vec![0], String::new());
            let mut lines = text.split_inclusive('\n').peekable();
            while let Some(line) = lines.next() {
                part.push_str(line.trim_end_matches('\n'));
                offsets.push(i32::try_from(part.len())?);
                if part.len() < PART_BYTES && lines.peek().is_some() {
                    continue;
                }
                let compared = engine.compare(part.as_bytes(), &offsets)?;
                bytes += part.len();
                same += compared.same;
                for difference in compared.differences {
                    write_line(format!("{level:?}, {name}: {difference:?}"));
                    missed += difference.missed;
                    extra += difference.extra;
                }
                part.clear();
                offsets.truncate(1);
            }
        }
        is_exact &= missed + extra == 0;
        write_line(format!(
            "{level:?}: {bytes} bytes, {same} findings alike, {missed} missed, {extra} extra"
        ));
    }
    Ok(if is_exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn write_line(text: String) {
    println!("{text}");
}

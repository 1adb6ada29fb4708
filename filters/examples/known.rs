//! What known secrets cost: the rate of a scan with none, 100, 1,000 and 10,000 of them in one run, and the rate of looking for them
//! alone.
//!
//! `cargo run --release -p beeacon-filters --example known [MEGABYTES]`

#[path = "shared/timing.rs"]
mod timing;

use std::time::Instant;

use beeacon_filters::{Engine, EngineOptions, KnownSecret, KnownSecrets, Profile, corpus};
use timing::{best, rate};

/// How many secrets are planted in the text, one in each stretch of this many bytes.
const PLANTED_EVERY: usize = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes: usize = std::env::args().nth(1).map_or(Ok(32), |text| text.parse())?;
    let mut dice = corpus::Dice::new(20_261_126);
    let secrets: Vec<String> = (0..10_000).map(|_| secret(&mut dice)).collect();
    let mut text = corpus::mixed(20_261_120, megabytes * 1_000_000);
    let planted = plant(&mut text, &secrets, &mut dice);
    writeln(format!("{} bytes, {planted} secrets planted, all of the first 100", text.len()));
    writeln(format!(
        "{:<10} {:>8} {:>9} {:>9} {:>12} {:>12} {:>10} {:>8}",
        "secrets", "needles", "KiB", "build ms", "known alone", "with rules", "of without", "found"
    ));
    let mut without = 0.0;
    for count in [0, 100, 1000, 10_000] {
        let began = Instant::now();
        let known = match count {
            0 => None,
            count => Some(set(secrets.get(..count).unwrap_or(&secrets))?),
        };
        let built = began.elapsed().as_millis();
        let report = known.as_ref().map(|known| known.report().clone()).unwrap_or_default();
        let bare = engine("bare", known.clone())?;
        let alone = best(3, || scanned(&bare, &text));
        let found = bare.statistics().rules.last().map_or(0, |rule| rule.matches / 3);
        let whole = engine("default", known)?;
        let time = best(3, || scanned(&whole, &text));
        if count == 0 {
            without = time;
        }
        writeln(format!(
            "{count:<10} {:>8} {:>9} {built:>9} {:>7.0} MB/s {:>7.0} MB/s {:>8.1} % {found:>8}",
            report.needles,
            report.memory_bytes >> 10,
            rate(text.len(), alone),
            rate(text.len(), time),
            100.0 * without / time,
        ));
        if count > 0 && found != u64::try_from(planted)? {
            writeln(format!("FAULT: {found} found of {planted}"));
        }
    }
    Ok(())
}

/// 12 to 47 characters, of the kinds that are kept in a vault.
fn secret(dice: &mut corpus::Dice) -> String {
    let bytes = usize::try_from(dice.within(12, 47)).unwrap_or(12);
    let alphabet = match dice.within(0, 2) {
        0 => "0123456789abcdef",
        1 => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        _ => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&()*+,-./:;<=>?@[]^_{|}~",
    };
    dice.text(alphabet, bytes)
}

/// Puts one of the first hundred secrets between words of the text here and there.
fn plant(text: &mut String, secrets: &[String], dice: &mut corpus::Dice) -> usize {
    let mut out = String::with_capacity(text.len() + text.len() / 1000);
    let mut planted = 0;
    let mut due = PLANTED_EVERY;
    for line in text.lines() {
        out.push_str(line);
        if out.len() > due {
            let number = usize::try_from(dice.within(0, 99)).unwrap_or(0);
            out.push_str(" key ");
            out.push_str(secrets.get(number).map_or("", String::as_str));
            planted += 1;
            due += PLANTED_EVERY;
        }
        out.push('\n');
    }
    *text = out;
    planted
}

fn set(secrets: &[String]) -> Result<KnownSecrets, Box<dyn std::error::Error>> {
    let secrets = secrets
        .iter()
        .enumerate()
        .map(|(index, text)| KnownSecret::new(format!("app/{index}"), text.clone().into_bytes()));
    Ok(KnownSecrets::new(secrets.collect())?)
}

fn engine(profile: &str, known: Option<KnownSecrets>) -> Result<Engine, Box<dyn std::error::Error>> {
    let bare = "name = \"bare\"\ndescription = \"no rule\"\n[[use]]\nrules = [\"*\"]\naction = \"off\"\n";
    let profiles = vec![Profile::parse("bare", bare)?];
    let options = EngineOptions { profile: profile.to_owned(), profiles, known, ..EngineOptions::default() };
    Ok(Engine::new(options)?)
}

/// One scan in pieces that stay in the cache, as batches do.
fn scanned(engine: &Engine, text: &str) {
    let mut findings = 0;
    for piece in text.as_bytes().chunks(256 << 10) {
        match engine.scan(piece) {
            Ok(found) => findings += found.len(),
            Err(error) => writeln(error.to_string()),
        }
    }
    std::hint::black_box(findings);
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn writeln(text: String) {
    println!("{text}");
}

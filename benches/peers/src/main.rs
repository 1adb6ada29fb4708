//! Beeacon's pollen filter beside other scanners: the same twenty rules, the same text, one run, one thread.
//!
//! Prints rates of a thread's processor time, and how many times as fast Beeacon is. `make bench-peers [ARGS=MEGABYTES]`

#[path = "../../../filters/examples/shared/timing.rs"]
mod timing;

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use beeacon_filters::{Engine, EngineOptions, ProcessorLevel, Profile, RuleFile, corpus};
use dd_sds::{MatchAction, RegexRuleConfig, RootRuleConfig, RuleConfig, Scanner, SecondaryValidator};
use regex_automata::util::syntax;
use regex_automata::{MatchKind, meta};
use timing::{best, rate};
use vrl::compiler::state::RuntimeState;
use vrl::compiler::{Context, TargetValue, TimeZone, compile};
use vrl::value::{Secrets, Value};

const RULES: &str = include_str!("../rules.toml");
const PROFILE: &str =
    "name = \"peers\"\ndescription = \"The twenty rules\"\n[[use]]\ncategories = [\"peer\"]\n";

/// Rules that everybody gets, and those of VRL, which takes long for all of them.
const FEW: [&str; 8] = ["email", "ipv4", "credit_card", "ssn", "phone", "aws_key", "jwt", "password"];

fn main() -> Result<(), Box<dyn Error>> {
    let megabytes: usize = std::env::args().nth(1).map_or(Ok(8), |text| text.parse())?;
    let file = RuleFile::parse("rules.toml", RULES)?;
    let mixed = corpus::mixed(20_261_126, megabytes * 1_000_000);
    println!("{} rules, find and rewrite, MB/s of one thread", file.rules().len());
    let ours = beeacon(&file, &mixed)?;
    let peers = [
        ("dd-sensitive-data-scanner, per line", datadog(&file, &mixed)?),
        ("vrl redact, per line", vector(&file, &mixed, |_| true)?),
        ("vrl redact, eight rules, per line", vector(&file, &mixed, |id| FEW.contains(&id))?),
        ("one multi-pattern regex over the buffer", regex(&file, &mixed)?),
    ];
    for (name, rate) in &peers {
        println!("{name:<44} {rate:>9.1}");
    }
    println!("\nBeeacon is so many times as fast:");
    for (level, rate) in &ours {
        let ratios: Vec<String> = peers.iter().map(|(_, peer)| format!("{:>8.1}x", rate / peer)).collect();
        println!("  {level:<12} {}   (in the order above)", ratios.join(" "));
    }
    whole(&mixed)?;
    adversarial(&file, megabytes.min(4))
}

/// The whole library, next to copying the text, and what fifty more rules cost.
fn whole(text: &str) -> Result<(), Box<dyn Error>> {
    let batches = corpus::score::batches(text.lines())?;
    let copy = rate(text.len(), best(5, || drop(black_box(text.as_bytes().to_vec()))));
    println!("\nthe whole library, MB/s (copying the text: {copy:.0}): scan / find and rewrite");
    let scan = |engine: &Engine, times| {
        let seconds = best(times, || {
            for batch in &batches {
                black_box(engine.scan(batch.messages().value_data())).expect("a scan");
            }
        });
        rate(text.len(), seconds)
    };
    for (profile, level) in ["default", "secrets"]
        .into_iter()
        .flat_map(|profile| ProcessorLevel::available().into_iter().map(move |level| (profile, level)))
    {
        let options =
            EngineOptions { profile: profile.to_owned(), level: Some(level), ..EngineOptions::default() };
        let engine = Engine::new(options)?;
        let seconds = best(5, || {
            for batch in &batches {
                black_box(engine.scrub(batch.clone()).expect("a scrubbed batch"));
            }
        });
        let (bare, rewritten) = (scan(&engine, 5), rate(text.len(), seconds));
        let name = format!("{profile}, {} rules, {level:?}", engine.rules().len());
        println!("  {name:<42} {bare:>9.1} {rewritten:>9.1}   ({:.2} of the scan)", rewritten / bare);
    }
    let more: Vec<String> = (0..50)
        .map(|number| {
            let example = format!("zq{number:02}_abcdefghijklmnopqrst");
            format!(
                "[[rule]]\nid = \"more_{number}\"\ncategory = \"peer\"\ndescription = \"One more\"\n\
                 pattern = '\\bzq{number:02}_[A-Za-z0-9]{{20}}\\b'\nfinds = [[\"{example}\", \"{example}\"]]\n\
                 spares = [\"zq\"]\n"
            )
        })
        .collect();
    let more = RuleFile::parse("more", &more.concat())?;
    let bare = scan(&Engine::new(EngineOptions::default())?, 9);
    let with_more = Engine::new(EngineOptions { rules: vec![more], ..EngineOptions::default() })?;
    let each = (bare / scan(&with_more, 9) - 1.0) / 50.0;
    println!("  one more rule with a literal costs {:.3} % (fifty of them measured)", 100.0 * each);
    Ok(())
}

fn engine(file: &RuleFile, level: ProcessorLevel) -> Result<Engine, Box<dyn Error>> {
    Ok(Engine::new(EngineOptions {
        profile: "peers".to_owned(),
        profiles: vec![Profile::parse("peers", PROFILE)?],
        rules: vec![file.clone()],
        level: Some(level),
        ..EngineOptions::default()
    })?)
}

fn beeacon(file: &RuleFile, text: &str) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let batches = corpus::score::batches(text.lines())?;
    let mut rates = Vec::new();
    for level in ProcessorLevel::available() {
        let engine = engine(file, level)?;
        let mut lines = 0;
        let seconds = best(7, || {
            lines = 0;
            for batch in &batches {
                lines += engine.scrub(batch.clone()).expect("a scrubbed batch").1.lines_redacted;
            }
        });
        let rate = rate(text.len(), seconds);
        let name = format!("{level:?}");
        println!(
            "{:<44} {rate:>9.1}   ({lines} lines rewritten)",
            format!("beeacon, batches of lines, {name}")
        );
        rates.push((name, rate));
    }
    Ok(rates)
}

fn datadog(file: &RuleFile, text: &str) -> Result<f64, Box<dyn Error>> {
    let scanner = datadog_scanner(file)?;
    let seconds = best(2, || {
        for line in text.lines() {
            let mut line = line.to_owned();
            black_box(scanner.scan(&mut line).expect("a scan"));
        }
    });
    Ok(rate(text.len(), seconds))
}

fn datadog_scanner(file: &RuleFile) -> Result<Scanner, Box<dyn Error>> {
    let rules: Vec<RootRuleConfig<Arc<dyn RuleConfig>>> = file
        .rules()
        .iter()
        .map(|rule| {
            let config = RegexRuleConfig::new(rule.pattern());
            let config = match rule.id() {
                "peer_credit_card" => config.with_validator(Some(SecondaryValidator::LuhnChecksum)),
                "peer_iban" => config.with_validator(Some(SecondaryValidator::IbanChecker)),
                _ => config,
            };
            RootRuleConfig::new(config.build()).match_action(MatchAction::redact("[REDACTED]"))
        })
        .collect();
    Scanner::builder(&rules).build().map_err(|error| format!("{error:?}").into())
}

fn vector(file: &RuleFile, text: &str, wanted: impl Fn(&str) -> bool) -> Result<f64, Box<dyn Error>> {
    let filters: Vec<String> = file
        .rules()
        .iter()
        .filter(|rule| wanted(rule.id().trim_start_matches("peer_")))
        .map(|rule| format!("r'{}'", rule.pattern().replace('\'', "\\'")))
        .collect();
    let source = format!(".message = redact!(.message, filters: [{}])", filters.join(", "));
    let program = compile(&source, &vrl::stdlib::all()).map_err(|error| format!("{error:?}"))?.program;
    // A part is enough: it is slow.
    let part: String = text.lines().take(text.lines().count() / 4).flat_map(|line| [line, "\n"]).collect();
    let (zone, mut state) = (TimeZone::default(), RuntimeState::default());
    let seconds = best(2, || {
        for line in part.lines() {
            let mut fields = BTreeMap::new();
            fields.insert("message".into(), Value::from(bytes::Bytes::copy_from_slice(line.as_bytes())));
            let mut target = TargetValue {
                value: Value::Object(fields),
                metadata: Value::Object(BTreeMap::new()),
                secrets: Secrets::default(),
            };
            let mut context = Context::new(&mut target, &mut state, &zone);
            black_box(program.resolve(&mut context).expect("a redacted event"));
        }
    });
    Ok(rate(part.len(), seconds))
}

fn regex(file: &RuleFile, text: &str) -> Result<f64, Box<dyn Error>> {
    let patterns: Vec<&str> = file.rules().iter().map(beeacon_filters::Rule::pattern).collect();
    let regex = meta::Builder::new()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(
            meta::Config::new()
                .match_kind(MatchKind::LeftmostFirst)
                .utf8_empty(false)
                .nfa_size_limit(Some(64 << 20))
                .hybrid_cache_capacity(64 << 20),
        )
        .build_many(&patterns)?;
    let seconds = best(2, || {
        let (mut out, mut from) = (Vec::with_capacity(text.len()), 0);
        for found in regex.find_iter(text) {
            out.extend_from_slice(&text.as_bytes()[from..found.start()]);
            out.extend_from_slice(b"[REDACTED]");
            from = found.end();
        }
        out.extend_from_slice(&text.as_bytes()[from..]);
        black_box(out);
    });
    Ok(rate(text.len(), seconds))
}

/// Text made to be slow, for us and for the fastest peer that looks at every rule.
fn adversarial(file: &RuleFile, megabytes: usize) -> Result<(), Box<dyn Error>> {
    let scanner = datadog_scanner(file)?;
    let twenty = engine(file, ProcessorLevel::best())?;
    let whole = Engine::new(EngineOptions::default())?;
    println!(
        "\ntext made to be slow, lines of 4 KiB, MB/s: twenty rules / default profile / dd-sensitive-data-scanner"
    );
    let (mut worst, mut worst_ratio) = (f64::INFINITY, f64::INFINITY);
    for (name, piece) in corpus::SLOW {
        let text = corpus::slow(piece, 4096, megabytes * 1_000_000);
        let batches = corpus::score::batches(text.lines())?;
        let scrub = |engine: &Engine| {
            let seconds = best(2, || {
                for batch in &batches {
                    black_box(engine.scrub(batch.clone()).expect("a scrubbed batch"));
                }
            });
            rate(text.len(), seconds)
        };
        let (ours, all) = (scrub(&twenty), scrub(&whole));
        let some: String = text.chars().take(200_000).collect();
        let seconds = best(1, || {
            for line in some.lines() {
                let mut line = line.to_owned();
                black_box(scanner.scan(&mut line).expect("a scan"));
            }
        });
        let peer = rate(some.len(), seconds);
        println!("  {name:<28} {ours:>9.1} {all:>9.1} {peer:>9.1}");
        worst = worst.min(all);
        worst_ratio = worst_ratio.min(ours / peer);
    }
    println!(
        "  worst: {worst:.1} MB/s with the default profile, {worst_ratio:.1}x the peer with twenty rules"
    );
    Ok(())
}

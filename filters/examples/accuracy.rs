//! How accurate the default profile is: on labelled cases, on labelled lines, and on logs that hold no secrets.
//!
//! - `cargo run --release -p beeacon-filters --example accuracy -- cases FILE [show]`: JSON lines, each with `text`, `expect_match`,
//!   `expect` (spans, `start` and `end`), and optionally `scores`, `offsets` (`utf8-bytes`, else code points), `entity` or `rule`.
//! - `... -- made SEED [show]`: labelled lines that are made up from the seed, as services write them and to confuse.
//! - `... -- logs FILE... [show]`: what is redacted in texts of which nothing should be, by rule and for each 10,000 words.

use std::collections::BTreeMap;
use std::ops::Range;

use beeacon_filters::corpus::{labelled, score};
use beeacon_filters::{Continuity, Engine, EngineOptions};
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Cases of kinds that the filter does not look for: names, places, dates by themselves, and addresses of pages.
const APART: &[&str] = &["DATE_TIME", "DE_PLZ", "UK_POSTCODE", "URL"];

/// Positives that their source itself holds for weaker than this are not counted, as they look like anything.
const SCORE_MIN: f64 = 0.4;

/// Rules whose findings in logs are what they say: addresses.
const ADDRESSES: &[&str] = &["ipv4", "ipv6", "email", "mac"];

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let shows = arguments.last().is_some_and(|last| last == "show");
    if shows {
        arguments.pop();
    }
    let engine = Engine::new(EngineOptions::default())?;
    match arguments.split_first() {
        Some((verb, files)) if verb == "cases" => {
            files.iter().try_for_each(|file| cases(&engine, file, shows))
        }
        Some((verb, seeds)) if verb == "made" => seeds.iter().try_for_each(|seed| made(seed.parse()?, shows)),
        Some((verb, files)) if verb == "logs" => logs(&engine, files, shows),
        _ => Err("say `cases FILE...`, `made SEED...` or `logs FILE...`".into()),
    }
}

/// What came of the cases of one kind.
#[derive(Default)]
struct Kind {
    wanted: u32,
    found: u32,
    negatives: u32,
    hit: u32,
    beyond: u32,
}

fn cases(engine: &Engine, file: &str, shows: bool) -> Outcome<()> {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let case: Value = serde_json::from_str(line)?;
        let of = |key: &str| case.get(key).and_then(Value::as_str).unwrap_or("");
        let name = format!("{}{}", of("entity"), of("rule"));
        if APART.contains(&name.as_str()) {
            continue;
        }
        let text = of("text");
        let kind = kinds.entry(name.clone()).or_default();
        let found: Vec<(String, Range<usize>)> = engine
            .scan(text.as_bytes())?
            .into_iter()
            .map(|finding| (finding.rule, finding.start..finding.end))
            .collect();
        let note = |what: &str, rules: &[&str]| {
            if shows {
                print(format!("  {what} {name} {rules:?}: {text:?} {:?}", case.get("scores")));
            }
        };
        let rules: Vec<&str> = found.iter().map(|(rule, _)| rule.as_str()).collect();
        if case.get("expect_match") == Some(&Value::Bool(false)) {
            kind.negatives += 1;
            if !found.is_empty() {
                kind.hit += 1;
                note("hit", &rules);
            }
            continue;
        }
        if score(case.get("scores").unwrap_or(&Value::Null)) < SCORE_MIN {
            continue;
        }
        let spans = spans(&case, text);
        let meets = |one: &Range<usize>, other: &Range<usize>| one.start < other.end && other.start < one.end;
        if spans.is_empty() {
            kind.wanted += 1;
            kind.found += u32::from(!found.is_empty());
            if found.is_empty() {
                note("missed", &rules);
            }
            continue;
        }
        for span in &spans {
            kind.wanted += 1;
            if found.iter().any(|(_, covered)| meets(span, covered)) {
                kind.found += 1;
            } else {
                note("missed", &rules);
            }
        }
        for (rule, covered) in &found {
            if !spans.iter().any(|span| meets(span, covered)) {
                kind.beyond += 1;
                note("beyond", &[rule]);
            }
        }
    }
    let sum = |of: fn(&Kind) -> u32| kinds.values().map(of).sum::<u32>();
    for (name, kind) in
        kinds.iter().filter(|(_, kind)| kind.found < kind.wanted || kind.hit + kind.beyond > 0)
    {
        print(format!(
            "{name:<34} found {:>3} of {:>3}   negatives hit {:>2} of {:>2}   beyond {:>2}",
            kind.found, kind.wanted, kind.hit, kind.negatives, kind.beyond
        ));
    }
    let (found, wrong) = (sum(|kind| kind.found), sum(|kind| kind.hit + kind.beyond));
    let with: Vec<f64> =
        kinds.values().filter(|kind| kind.wanted > 0).map(|kind| share(kind.found, kind.wanted)).collect();
    print(format!(
        "{file}: recall {:.4} of {}, by kind {:.4} of {}, precision {:.4}, negatives hit {:.4} of {}",
        share(found, sum(|kind| kind.wanted)),
        sum(|kind| kind.wanted),
        with.iter().sum::<f64>() / f64::from(u32::try_from(with.len())?.max(1)),
        with.len(),
        share(found, found + wrong),
        share(sum(|kind| kind.hit), sum(|kind| kind.negatives)),
        sum(|kind| kind.negatives),
    ));
    Ok(())
}

fn share(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}

/// The best score that the source allows; 1 where it says none.
fn score(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or(1.0),
        Value::Array(items) => items.iter().map(score).fold(0.0, f64::max),
        _ => 1.0,
    }
}

/// The spans of a case, in bytes.
fn spans(case: &Value, text: &str) -> Vec<Range<usize>> {
    let in_bytes = case.get("offsets").and_then(Value::as_str) == Some("utf8-bytes");
    let at = |span: &Value, key: &str| {
        let number = span.get(key).and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok())?;
        let characters = || text.char_indices().nth(number).map_or(text.len(), |(at, _)| at);
        Some(if in_bytes { number } else { characters() })
    };
    let list = case.get("expect").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|span| Some(at(span, "start")?..at(span, "end")?)).collect()
}

fn logs(engine: &Engine, files: &[String], shows: bool) -> Outcome<()> {
    let (mut words, mut rules) = (0_usize, BTreeMap::<String, u64>::new());
    for file in files {
        let bytes = std::fs::read(file)?;
        // What is learned of one file's fields says nothing of another's.
        let (text, mut continuity) = (String::from_utf8_lossy(&bytes), Continuity::default());
        for line in text.split_inclusive('\n') {
            words += line.split_whitespace().count();
            let (out, counts) = engine.scrub_text_with(line, &mut continuity)?;
            for count in &counts {
                *rules.entry(count.rule.clone()).or_default() += count.count;
                if shows && !ADDRESSES.contains(&count.rule.as_str()) {
                    print(format!("  {}: {}  =>  {}", count.rule, line.trim_end(), out.trim_end()));
                }
            }
        }
    }
    let false_ones: u64 =
        rules.iter().filter(|(rule, _)| !ADDRESSES.contains(&rule.as_str())).map(|(_, count)| count).sum();
    for (rule, count) in &rules {
        print(format!("{rule:<34} {count:>7}"));
    }
    let rate = f64::from(u32::try_from(false_ones)?) * 10_000.0 / f64::from(u32::try_from(words)?.max(1));
    print(format!("{words} words, {false_ones} redactions besides addresses: {rate:.3} in 10,000 words"));
    Ok(())
}

fn made(seed: u64, shows: bool) -> Outcome<()> {
    let corpora =
        [("mixed", labelled::mixed(seed, 40_000_000, 20)), ("hard", labelled::hard(seed, 10_000_000))];
    for (name, lines) in corpora {
        // An engine and a memory for each: what is learned of one text's fields says nothing of the other's.
        let score = score::score(&Engine::new(EngineOptions::default())?, &lines)?;
        for (kind, found) in &score.kinds {
            print(format!("  {kind:<18} labelled {:>7}  removed {:>7}", found.labelled, found.removed));
        }
        for (rule, count) in &score.extra {
            print(format!("  beyond the labels: {rule:<24} {count:>7}"));
        }
        for (what, at) in score.lines.iter().filter(|_| shows) {
            print(format!("  {what}: {}", lines.get(*at).map_or("", |line| line.text.as_str())));
        }
        let (recall, precision) = score.of("card", score::CARDS);
        let (ssn, _) = score.of("ssn", &[]);
        print(format!(
            "{name}: {} lines, recall {:.4}, precision {:.4}; cards {recall:.4}, {precision:.4}; ssn {ssn:.4}",
            lines.len(),
            score.recall(),
            score.precision()
        ));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn print(text: String) {
    println!("{text}");
}

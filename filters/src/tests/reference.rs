//! The scan against the plain meaning of a rule: every start of every line, one after another, with another regex engine.

use proptest::prelude::*;
use regex_automata::{Anchored, Input, meta};

use super::texts;
use crate::context::Context;
use crate::corpus;
use crate::library;
use crate::marker::Names;
use crate::pattern::{Pattern, syntax_config};
use crate::rule::{Redact, Rule, RuleFile, Strength};
use crate::scan::simd::Level;
use crate::scan::{Hit, Scanner};

const UNANCHORED: &str = r#"
[[rule]]
id = "digits_x"
category = "test"
description = "no literal"
pattern = '\b[0-9]{2,}x?\b'
finds = [["12", "12"]]
spares = ["1"]

[[rule]]
id = "as_and_b"
category = "test"
description = "no literal, unbounded"
pattern = 'a+b'
window_bytes = 32
finds = [["aab", "aab"]]
spares = ["aa"]

[[rule]]
id = "grouped"
category = "test"
description = "no literal, a group"
pattern = '[qT]([0-9]+)'
redact = "group"
finds = [["q7", "7"]]
spares = ["q"]

[[rule]]
id = "short"
category = "test"
description = "nothing to be found by"
pattern = '[a-z][a-z0-9]{0,2}!?'
finds = [["a", "a"]]
spares = ["1"]

[[rule]]
id = "in_context"
category = "test"
description = "digits that a word before them names"
pattern = '[1-9]{2}'
context = ["user", "t"]
context_required = true
finds = [["user:12", "12"]]
spares = ["12"]

[[rule]]
id = "weak"
category = "test"
description = "digits that a word before them makes certain"
pattern = '[4-9]{2}'
context = ["token", "api key"]
strength = "weak"
finds = [["token 45", "45"], ["45", "45"]]
spares = ["12"]

[[rule]]
id = "kanji"
category = "test"
description = "one byte of a character"
pattern = '\xe6'
finds = [["日", "日"]]
spares = ["q"]
"#;

struct Bench {
    rules: Vec<Rule>,
    regexes: Vec<meta::Regex>,
    scanners: Vec<(Level, Scanner)>,
    names: Names,
    windows: Vec<usize>,
}

fn bench() -> Bench {
    let mut rules = library::rules().unwrap();
    rules.extend(RuleFile::parse("test", UNANCHORED).unwrap().rules().iter().cloned());
    let build = |rule: &Rule| meta::Builder::new().syntax(syntax_config()).build(&rule.pattern).unwrap();
    let regexes = rules.iter().map(build).collect();
    let mut scanners = Vec::new();
    let mut costs = Vec::new();
    for level in Level::available() {
        let made = Scanner::new(&rules.iter().collect::<Vec<_>>(), None, Some(level)).unwrap();
        scanners.push((level, made.0));
        costs = made.1;
    }
    let unanchored = costs.iter().filter(|cost| cost.reads_every_byte).count();
    assert!(unanchored > 0, "the shared automaton is tried, too");
    let names = Names::new(rules.iter().map(|rule| rule.marker.as_str()));
    let windows = rules.iter().map(|rule| Pattern::parse(rule).unwrap().window_bytes).collect();
    Bench { rules, regexes, scanners, names, windows }
}

impl Bench {
    fn scanned(&self, lines: &[String]) -> Vec<Hit> {
        let mut offsets = vec![0_i32];
        for line in lines {
            offsets.push(offsets.last().unwrap() + i32::try_from(line.len()).unwrap());
        }
        let mut found: Option<Vec<Hit>> = None;
        for (level, scanner) in &self.scanners {
            let mut scratch = scanner.scratch();
            scanner.scan(lines.concat().as_bytes(), &offsets, &self.names, &mut scratch).unwrap();
            let hits = sorted(scratch.hits);
            assert_eq!(found.get_or_insert_with(|| hits.clone()), &hits, "{level:?}");
        }
        found.unwrap()
    }

    fn plain(&self, lines: &[String]) -> Vec<Hit> {
        let (mut hits, mut base) = (Vec::new(), 0);
        for (number, line) in lines.iter().enumerate() {
            for rule in 0..self.rules.len() {
                self.plain_line(rule, number, base, line.as_bytes(), &mut hits);
            }
            base += line.len();
        }
        sorted(hits)
    }

    fn plain_line(&self, number: usize, line_number: usize, base: usize, line: &[u8], hits: &mut Vec<Hit>) {
        let (rule, regex) = (&self.rules[number], &self.regexes[number]);
        let window = self.windows[number];
        let mut start = 0;
        while start < line.len() {
            let limit = line.len().min(start + window);
            let input = Input::new(line).span(start..limit).anchored(Anchored::Yes);
            let mut captures = regex.create_captures();
            regex.search_captures(&input, &mut captures);
            let Some(found) = captures.get_match() else {
                start += 1;
                continue;
            };
            let part = match rule.redact {
                Redact::Match => found.range(),
                Redact::Group => {
                    (1..captures.group_len()).find_map(|group| captures.get_group(group)).unwrap().range()
                }
            };
            let checked = rule.validator.as_ref().map_or(Some(part.clone()), |(_, check)| check(line, part));
            let context = Context::new(&rule.context).and_then(|context| context.before(line, start));
            let accepted = checked.filter(|_| context.is_some() || !rule.context_required);
            let Some(mut part) = accepted else {
                start += 1;
                continue;
            };
            let end = if rule.redact == Redact::Group { found.end() } else { part.end };
            while line[part.start] & 0xc0 == 0x80 {
                part.start -= 1;
            }
            while part.end < line.len() && line[part.end] & 0xc0 == 0x80 {
                part.end += 1;
            }
            if let Some(part) = self.names.outside(line, part) {
                let place = |at: usize| u32::try_from(base + at).unwrap();
                hits.push(Hit {
                    rule: u32::try_from(number).unwrap(),
                    line: u32::try_from(line_number).unwrap(),
                    start: place(part.start),
                    end: place(part.end),
                    match_start: place(context.unwrap_or(start)),
                    match_end: place(end),
                    weak: rule.strength == Strength::Weak && context.is_none(),
                });
            }
            start = end;
        }
    }
}

fn sorted(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by_key(|hit| (hit.rule, hit.line, hit.start));
    hits
}

#[test]
fn the_scan_of_a_buffer_finds_what_the_plain_meaning_finds_line_by_line() {
    let bench = bench();
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(lines in texts::lines())| {
        prop_assert_eq!(bench.scanned(&lines), bench.plain(&lines));
    });
}

/// Lines made of rules' examples and words of context, cut anywhere, and put together in any order.
fn of_examples(bench: &Bench, seed: u64, lines: usize) -> Vec<String> {
    let mut dice = corpus::Dice::new(seed);
    let mut below = |limit: usize| usize::try_from(dice.draw() % u64::try_from(limit).unwrap()).unwrap();
    let mut pieces: Vec<&str> = Vec::new();
    for rule in &bench.rules {
        pieces.extend(rule.examples.finds.iter().flat_map(|(text, part)| [text.as_str(), part.as_str()]));
        pieces.extend(rule.examples.spares.iter().map(String::as_str));
        pieces.extend(rule.context.iter().map(String::as_str));
    }
    let joints = ["", " ", "=", ": ", "\"", ",", "-", ".", "\n", "0", "x"];
    let mut line = || {
        let mut line = String::new();
        for _ in 0..=below(4) {
            let piece = pieces[below(pieces.len())];
            let cut = |at: usize| (0..=at).rev().find(|at| piece.is_char_boundary(*at)).unwrap();
            let (from, to) = match below(4) {
                0 => (cut(below(piece.len())), piece.len()),
                1 => (0, cut(below(piece.len()))),
                _ => (0, piece.len()),
            };
            line.push_str(piece.get(from..to).unwrap());
            line.push_str(joints[below(joints.len())]);
        }
        line
    };
    (0..lines).map(|_| line()).collect()
}

#[test]
fn the_scan_finds_the_same_in_examples_of_every_rule_cut_and_put_together_anyhow() {
    let bench = bench();
    let (mut rules, mut weak) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..40 {
        let lines = of_examples(&bench, 1 + 2 * seed, 60);
        let plain = bench.plain(&lines);
        assert_eq!(bench.scanned(&lines), plain, "seed {seed}: {lines:#?}");
        rules.extend(plain.iter().map(|hit| hit.rule));
        weak += plain.iter().filter(|hit| hit.weak).count();
    }
    assert!(rules.len() > bench.rules.len() / 2 && weak > 0, "{} rules, {weak} weak", rules.len());
}

#[test]
fn the_scan_finds_the_same_in_a_mixed_corpus() {
    let bench = bench();
    let lines: Vec<String> = corpus::mixed(7, 200_000).lines().map(str::to_owned).collect();
    let (scanned, plain) = (bench.scanned(&lines), bench.plain(&lines));
    assert!(plain.len() > 300, "{} findings", plain.len());
    assert_eq!(scanned, plain);
}

#[test]
fn a_line_made_to_have_many_false_starts_is_matched_the_same() {
    let bench = bench();
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N";
    let line = format!("{} {jwt} {} {jwt}", "eyJ-".repeat(900), "eyJ-".repeat(900));
    assert_eq!(bench.scanned(std::slice::from_ref(&line)), bench.plain(&[line]));
}

//! `beeacon rules`: the rules that run, their examples, and what each costs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use beeacon_agent::pollen::nanoseconds;
use beeacon_filters::{RuleEntry, bench, check_examples, corpus, rule_table};

use crate::command_line::{FilterArguments, Listing, RulesAction, RulesArguments};
use crate::config;
use crate::exit::Exit;

/// How much made-up text rules are tried on, in bytes; a second or two.
const CORPUS_BYTES: usize = 8_000_000;

/// The made-up text is the same every time.
const CORPUS_SEED: u64 = 20_261_120;

/// How much of a file rules are tried on, in bytes: it is held in memory, twice.
const FILE_BYTES_MAX: u64 = 256 << 20;

pub(crate) fn run(arguments: RulesArguments) -> anyhow::Result<Exit> {
    match arguments.action {
        RulesAction::List { filter, format } => list(&filter, format),
        RulesAction::Test { filter } => test(&filter),
        RulesAction::Bench { filter, file, format } => price(&filter, file.as_deref(), format),
    }
}

fn list(filter: &FilterArguments, format: Listing) -> anyhow::Result<Exit> {
    let engine = config::load_filter(filter)?.engine_to_try().context("make the pollen filter ready")?;
    let text = match format {
        Listing::Table => rule_table(engine.rules()),
        Listing::Json => {
            let entries: Vec<RuleEntry<'_>> = engine.rules().iter().map(RuleEntry::from).collect();
            serde_json::to_string_pretty(&entries)? + "\n"
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

fn test(filter: &FilterArguments) -> anyhow::Result<Exit> {
    let rules = config::load_filter(filter)?.every_rule().context("read the rules")?;
    let mut out = io::stdout().lock();
    let (mut examples, mut faults) = (0, 0);
    for rule in &rules {
        examples += rule.examples().finds.len() + rule.examples().spares.len();
        for fault in check_examples(rule) {
            faults += 1;
            writeln!(out, "{fault}")?;
        }
    }
    writeln!(out, "{} rules, {examples} examples, {faults} of them not as the rule says", rules.len())?;
    Ok(if faults == 0 { Exit::Done } else { Exit::Failed })
}

fn price(filter: &FilterArguments, file: Option<&Path>, format: Listing) -> anyhow::Result<Exit> {
    let filter = config::load_filter(filter)?;
    let text = match file {
        None => corpus::mixed(CORPUS_SEED, CORPUS_BYTES),
        Some(path) => {
            let mut bytes = Vec::new();
            let opened = File::open(path).with_context(|| format!("open {}", path.display()))?;
            opened
                .take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .with_context(|| format!("read {}", path.display()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let plain = filter.engine_to_try().context("make the pollen filter ready")?;
    let timed = filter.engine_to_time(nanoseconds).context("make the pollen filter ready")?;
    let prices = bench(&plain, &timed, &text, nanoseconds)?;
    let text = match format {
        Listing::Table => prices.table(),
        Listing::Json => serde_json::to_string_pretty(&prices)? + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

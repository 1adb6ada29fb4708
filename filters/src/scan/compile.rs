//! From rules to a [`Scanner`]: every rule's verifier, and the cheapest anchor of each.

use std::collections::HashMap;

use regex_syntax::hir::Hir;

use super::anchor::{Anchor, Choices, Way, context_literal, first_bytes, in_words};
use super::candidates::{Finder, List};
use super::column;
use super::dispatch::Dispatch;
use super::literal::{self, Builder};
use super::program::Graph;
use super::reverse::Reverse;
use super::simd::Level;
use super::{Ahead, Compiled, Cost, Exact, Scanner, Walks};
use crate::checks;
use crate::context::Context;
use crate::corpus;
use crate::error::RuleFault;
use crate::pattern::{Pattern, Verifier};
use crate::rule::{Redact, Rule, Strength};

/// How much made-up log text shapes are counted in, in bytes.
const SAMPLE_BYTES: usize = 12 << 10;

/// Compiles rules for one level of processor.
pub(super) fn scanner(
    rules: &[&Rule],
    clock: Option<fn() -> u64>,
    level: Level,
) -> Result<(Scanner, Vec<Cost>), Vec<RuleFault>> {
    let (mut compiled, mut choices, mut hirs, mut faults) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut graph = Graph::default();
    for (number, rule) in rules.iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match prepared(rule, number, &mut graph) {
            Ok((rule, choice, hir)) => {
                compiled.push(rule);
                choices.push(choice);
                hirs.push(hir);
            }
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let wanted: Vec<u32> = choices.iter().flat_map(Choices::shapes).collect();
    let shares = measured(&graph, &wanted, level);
    let walks = Walks::new(rules, &choices, &mut graph, level).map_err(|fault| vec![fault])?;
    let anchors: Vec<Anchor> = choices.into_iter().map(|choices| choices.best(&shares)).collect();
    let finder = finder(&anchors, &walks, &graph, level).map_err(|fault| vec![fault])?;
    let mut unanchored = Vec::new();
    let mut costs = Vec::new();
    for (number, ((anchor, rule), hir)) in (0..).zip(anchors.into_iter().zip(&mut compiled).zip(&hirs)) {
        costs.push(Cost { found_by: in_words(&anchor), reads_every_byte: anchor.ways.is_empty() });
        if anchor.ways.is_empty() {
            unanchored.push(number);
        }
        rule.ahead = anchor.ahead(hir).map(Ahead::new);
        rule.back = anchor.back;
    }
    let reverse = match unanchored.as_slice() {
        [] => None,
        numbers => Some(Reverse::new(rules, numbers).map_err(|fault| vec![fault])?),
    };
    Ok((Scanner { rules: compiled, finder, walks, reverse, clock }, costs))
}

impl Walks {
    fn new(
        rules: &[&Rule],
        choices: &[Choices],
        graph: &mut Graph,
        level: Level,
    ) -> Result<Walks, RuleFault> {
        let (mut anywhere, mut behind) = (Vec::new(), Vec::new());
        let mut words: Vec<String> = Vec::new();
        for (number, (rule, choices)) in (0..).zip(rules.iter().zip(choices)) {
            let list = if choices.is_behind_context { &mut behind } else { &mut anywhere };
            list.extend(choices.walked.iter().map(|hir| (number, hir.clone())));
            if choices.is_behind_context && !choices.walked.is_empty() {
                words.extend(
                    rule.context.iter().filter(|word| !words.contains(word)).cloned().collect::<Vec<_>>(),
                );
            }
        }
        let hirs: Vec<&Hir> = anywhere.iter().map(|(_, hir)| hir).collect();
        let places = |graph: &Graph, nodes: &[u32], text: &[u8]| places(graph, nodes, text, level);
        let condition = if hirs.is_empty() { None } else { column::condition(&hirs, graph, places) };
        let built = |patterns: &[(u32, Hir)]| {
            let (dispatch, refused) = Dispatch::new(patterns);
            let rule =
                refused.first().and_then(|number| usize::try_from(*number).ok()).and_then(|at| rules.get(at));
            rule.map_or(Ok(dispatch), |rule| {
                Err(RuleFault::new(
                    &rule.id,
                    "pattern is too large to be walked along",
                    "use smaller repetition counts",
                ))
            })
        };
        let contexts = words.iter().map(|word| Context::new(std::slice::from_ref(word))).collect();
        Ok(Walks { condition, anywhere: built(&anywhere)?, behind: built(&behind)?, words, contexts })
    }
}

fn prepared(rule: &Rule, number: u32, graph: &mut Graph) -> Result<(Compiled, Choices, Hir), RuleFault> {
    let pattern = Pattern::parse(rule)?;
    let choices = Choices::of(rule, &pattern, graph)?;
    let compiled = Compiled {
        verifier: Verifier::new(rule, &pattern),
        check: rule.validator.as_ref().map(|(_, check)| *check),
        // What weak rules refuse is counted, and a group is not where the match starts.
        gate: rule
            .validator
            .as_ref()
            .and_then(|(name, _)| checks::gate(name))
            .filter(|_| rule.strength == Strength::Strong && rule.redact == Redact::Match),
        context: Context::new(&rule.context),
        context_required: rule.context_required,
        weak: rule.strength == Strength::Weak,
        back: super::LookBack::default(),
        ahead: None,
        first: first_bytes(&pattern.hir),
        exact: Exact::new(rule, number),
    };
    Ok((compiled, choices, pattern.hir))
}

/// How much of ordinary log text each shape lets pass.
fn measured(graph: &Graph, wanted: &[u32], level: Level) -> HashMap<u32, f64> {
    let mut nodes = wanted.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    let sample = corpus::mixed(11, SAMPLE_BYTES);
    let many = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let found = places(graph, &nodes, sample.as_bytes(), level);
    let share = |places: Vec<usize>| many(places.len()) / many(sample.len());
    nodes.into_iter().zip(found.into_iter().map(share)).collect()
}

/// Where in a text, which is one line, each of these conditions holds.
fn places(graph: &Graph, nodes: &[u32], text: &[u8], level: Level) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(nodes.len());
    for part in nodes.chunks(usize::from(u16::MAX)) {
        let lists: Vec<(u32, u16)> = part.iter().copied().zip(0..).collect();
        let program = graph.program(&lists);
        let finder = Finder { level, program, lists: Vec::new(), literals: Builder::default().build() };
        let mut places = vec![Vec::new(); part.len()];
        finder.shapes(text, &mut finder.scratch(), |list, place| {
            places.get_mut(usize::from(list)).into_iter().for_each(|places| places.push(place));
        });
        all.extend(places);
    }
    all
}

fn finder(anchors: &[Anchor], walks: &Walks, graph: &Graph, level: Level) -> Result<Finder, RuleFault> {
    let mut literals = literal::Builder::default();
    let mut lists: Vec<(u32, List)> = Vec::new();
    for (number, anchor) in (0..).zip(anchors) {
        for way in &anchor.ways {
            match way {
                Way::Literal(literal) => literals.add(literal.clone(), number),
                Way::Shape { node, ahead } => match lists.iter_mut().find(|(known, _)| known == node) {
                    Some((_, list)) => list.rules.push((number, *ahead)),
                    None => lists.push((*node, List { rules: vec![(number, *ahead)] })),
                },
                Way::Walk { .. } => {}
            }
        }
    }
    let first = u32::try_from(anchors.len()).unwrap_or(u32::MAX);
    lists.extend(walks.condition.map(|node| (node, List { rules: vec![(first, 0)] })));
    for (number, word) in (first + 1..).zip(&walks.words) {
        if let Some(literal) = context_literal(word) {
            literals.add(literal, number);
        }
    }
    let literals = literals.build();
    if literals.is_too_many() {
        let reason = "rules have more literals together than can be numbered".to_owned();
        return Err(RuleFault::new("", reason, "leave some rules out"));
    }
    let wanted: Vec<(u32, u16)> = lists.iter().map(|(node, _)| *node).zip(0..).collect();
    let lists = lists.into_iter().map(|(_, list)| list).collect();
    Ok(Finder { level, program: graph.program(&wanted), lists, literals })
}

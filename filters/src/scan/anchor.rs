//! How a rule is found fast: what must stand at a place of every match, and where the match may start from there.
//!
//! Derived from the pattern. The pattern is a sequence of parts; at every joint whose distance from the start is bounded, the rest is
//! looked at in two ways: as *literals* (at a fixed distance from the joint stands one of a few texts) and as a *shape* (a condition
//! over classes of bytes, [`super::program`]). Of all joints and ways the cheapest is taken, by how much of ordinary log text would
//! pass: literals by the frequency of their bytes, shapes by counting them in made-up log lines. A pattern that has none goes to the
//! shared automaton, which reads every byte. A built-in rule may say how it is found; tests hold that equal, too.
//!
//! What always holds: an anchor is a necessary condition. For every match `[s, e)` of the rule there is a place `p` that its anchor
//! finds, with `s + bytes_min <= p <= s + bytes_max`, and only bytes of `through` between.

use std::collections::HashMap;

use regex_automata::util::syntax;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::bytes::ByteSet;
use super::column::{self, begins_word, is_telling, ways};
use super::literal::{LITERAL_BYTES_MAX, LITERAL_BYTES_MIN, Literal};
use super::program::{Condition, Graph, SHAPE_BYTES_MAX};
use super::simd::DEPTH;
use crate::error::RuleFault;
use crate::pattern::{Pattern, syntax_config};
use crate::rule::{AnchorSpec, Rule};

/// How many texts a rule's literals may be, and how far they are written out, in bytes.
const PATHS_MAX: usize = 96;
const PATH_BYTES_MAX: usize = 20;

/// A set of so many bytes or fewer tells something by itself.
const FEW_BYTES: u32 = 4;

/// A place that this little of ordinary text looks like needs no further bytes.
const RARE: f64 = 1e-10;

/// A literal that costs no more is taken where it is first found, in nanoseconds per byte.
const RARE_ENOUGH_NS: f64 = 1e-4;

/// Joints that are looked at.
const JOINTS_MAX: usize = 12;

/// How far shapes are tried, in bytes: a longer one passes less and costs more.
const SHAPE_BUDGETS: [usize; 4] = [6, 12, 20, 34];

/// What things cost on ordinary text, in nanoseconds: an attempt, a further start, a look-up of a literal; one more condition and
/// one more class, per byte.
const ATTEMPT_NS: f64 = 40.0;
const START_NS: f64 = 12.0;
const LOOKUP_NS: f64 = 4.0;
const CONDITION_NS: f64 = 0.0017;
const CLASS_NS: f64 = 0.005;

/// From so many places on where a match may start before an anchor, it pays to ask first whether one can go on behind it.
pub(super) const STARTS_TO_ASK: usize = 3;

/// What finding one rule may cost, in nanoseconds per byte, before reading every byte once for all such rules is better.
const PRICE_MAX_NS: f64 = 1.5;

/// Where a match may start, given its anchor: so far back, through these bytes only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookBack {
    pub(crate) bytes_min: usize,
    pub(crate) bytes_max: usize,
    pub(crate) through: ByteSet,
}

impl LookBack {
    fn hull(&self, other: &LookBack) -> LookBack {
        LookBack {
            bytes_min: self.bytes_min.min(other.bytes_min),
            bytes_max: self.bytes_max.max(other.bytes_max),
            through: self.through.union(other.through),
        }
    }

    fn starts(&self) -> f64 {
        let many = self.bytes_max - self.bytes_min;
        f64::from(u8::try_from(many.min(12)).unwrap_or(12))
    }
}

/// One thing to look for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    /// A text; the anchor's place is `offset` before it.
    Literal(Literal),
    /// A shape; the anchor's place is `ahead` bytes behind its first.
    Shape { node: u32, ahead: u8 },
    /// A walk from where a word begins ([`super::dispatch`]): wherever one could, or behind a word of the rule's context.
    Walk { is_behind_context: bool },
}

/// How a rule is found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Anchor {
    /// Any of these. None of them: the shared automaton.
    pub(crate) ways: Vec<Way>,
    pub(crate) back: LookBack,
    /// For each branch of the pattern, which of its parts begins at the anchor's place, where that is known.
    joints: Vec<Option<usize>>,
}

impl Anchor {
    /// The automaton that reads every byte.
    fn none() -> Anchor {
        Anchor { ways: Vec::new(), back: LookBack::default(), joints: Vec::new() }
    }

    /// What stands from the anchor's place on in every match of the pattern, where that is worth a look before many starts are tried.
    pub(crate) fn ahead(&self, pattern: &Hir) -> Option<Hir> {
        if self.back.bytes_max + 1 < self.back.bytes_min + STARTS_TO_ASK {
            return None;
        }
        let branches = ways(pattern);
        if branches.len() != self.joints.len() {
            return None;
        }
        let rest = |(branch, joint): (&Hir, &Option<usize>)| {
            let mut parts = Vec::new();
            flatten(branch, &mut parts);
            Some(Hir::concat(parts.into_iter().skip((*joint)?).cloned().collect()))
        };
        let rests: Option<Vec<Hir>> = branches.iter().zip(&self.joints).map(rest).collect();
        Some(Hir::alternation(rests?))
    }
}

/// One possibility, and its price without what shapes let pass.
#[derive(Clone, Debug)]
struct Choice {
    ways: Vec<Way>,
    back: LookBack,
    price_ns: f64,
    /// Which part of the pattern begins at the place, if that is known.
    joint: Option<usize>,
}

/// The possibilities of a rule: one of each branch is needed.
pub(crate) struct Choices {
    branches: Vec<Vec<Choice>>,
    is_said: bool,
    /// What is walked along; the branches are what is left.
    pub(crate) walked: Vec<Hir>,
    pub(crate) is_behind_context: bool,
}

impl Choices {
    /// What a rule says, or what its pattern allows.
    pub(crate) fn of(rule: &Rule, pattern: &Pattern, graph: &mut Graph) -> Result<Choices, RuleFault> {
        if let Some(choices) = Choices::walked(rule, pattern, graph) {
            return Ok(choices);
        }
        if let Some(spec) = &rule.anchor {
            let choice = said(rule, spec, pattern, graph)?;
            return Ok(Choices { is_said: true, ..Choices::derived(vec![vec![choice]]) });
        }
        let branches = ways(&pattern.hir).into_iter().map(|way| branch(&way, pattern, Some(&mut *graph)));
        Ok(Choices::derived(branches.collect()))
    }

    fn derived(branches: Vec<Vec<Choice>>) -> Choices {
        Choices { branches, is_said: false, walked: Vec::new(), is_behind_context: false }
    }

    /// How a rule is found whose matches begin where words do; nothing for other rules, and where literals are better.
    fn walked(rule: &Rule, pattern: &Pattern, graph: &mut Graph) -> Option<Choices> {
        if rule.is_assignment {
            return None;
        }
        let is_behind_context = rule.context_required
            && begins_word(&pattern.hir)
            && rule.context.iter().all(|word| context_literal(word).is_some());
        let is_cheap = |way: &Hir| {
            let mut choices = branch(way, pattern, None);
            choices.retain(|choice| choice.ways.iter().all(is_text));
            let literals = choices.iter().map(|choice| choice.price_ns).min_by(f64::total_cmp);
            literals.is_some_and(|price| price <= column::price(way))
        };
        let is_walked =
            |way: &Hir| begins_word(way) && !is_cheap(way) && (is_behind_context || is_telling(way));
        let (walked, others): (Vec<Hir>, Vec<Hir>) = ways(&pattern.hir).into_iter().partition(is_walked);
        if walked.is_empty() {
            return None;
        }
        let mut choices = Choices { walked, is_behind_context, ..Choices::derived(Vec::new()) };
        for way in others {
            // A walk begins where a match does: what else the rule is found by has to, as well.
            let mut others = branch(&way, pattern, Some(&mut *graph));
            others.retain(|choice| choice.back == LookBack::default());
            if others.is_empty() {
                return None;
            }
            choices.branches.push(others);
        }
        Some(choices)
    }

    /// The shapes among them.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = u32> + '_ {
        self.branches.iter().flatten().flat_map(|choice| &choice.ways).filter_map(|way| match way {
            Way::Shape { node, .. } => Some(*node),
            Way::Literal(_) | Way::Walk { .. } => None,
        })
    }

    /// The best, given how much of ordinary text each shape lets pass.
    pub(crate) fn best(self, shares: &HashMap<u32, f64>) -> Anchor {
        let price = |choice: &Choice| {
            let passing: f64 = choice
                .ways
                .iter()
                .filter_map(|way| match way {
                    Way::Shape { node, .. } => shares.get(node).copied(),
                    Way::Literal(_) | Way::Walk { .. } => None,
                })
                .sum();
            choice.price_ns + passing * (ATTEMPT_NS + START_NS * choice.back.starts())
        };
        let mut anchor = Anchor::none();
        let mut total = 0.0;
        for (index, choices) in self.branches.iter().enumerate() {
            let best = choices.iter().min_by(|one, other| price(one).total_cmp(&price(other)));
            let Some(best) = best else {
                return Anchor::none();
            };
            total += price(best);
            anchor.back = if index == 0 { best.back.clone() } else { anchor.back.hull(&best.back) };
            anchor.ways.extend(best.ways.iter().cloned());
            anchor.joints.push(best.joint);
        }
        if !self.walked.is_empty() {
            anchor.ways.push(Way::Walk { is_behind_context: self.is_behind_context });
        } else if total > PRICE_MAX_NS && !self.is_said {
            return Anchor::none();
        }
        anchor
    }
}

/// Whether a literal holds a letter: digits and separators stand together, and are commoner than each by itself says.
fn is_text(way: &Way) -> bool {
    let Way::Literal(literal) = way else { return false };
    let is_letter = |set: &&ByteSet| {
        set.count() <= 2 && set.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | 128..))
    };
    literal.sets.iter().take(DEPTH).any(|set| is_letter(&set))
}

fn said(rule: &Rule, spec: &AnchorSpec, pattern: &Pattern, graph: &mut Graph) -> Result<Choice, RuleFault> {
    let fault = |reason: &str| RuleFault::new(&rule.id, reason, "correct [rule.anchor]");
    let mut ways = Vec::new();
    for text in &spec.literals {
        let path = Path::of(text, spec.ignore_case);
        if let Some(Priced { literal, .. }) = path.literal() {
            ways.push(Way::Literal(literal));
        } else {
            let Path { sets, .. } = path;
            let node = sets.iter().rev().fold(None, |next, set| graph.exactly(Some(set), next));
            ways.push(Way::Shape {
                node: node.ok_or_else(|| fault("anchor has an empty literal"))?,
                ahead: 0,
            });
        }
    }
    if let Some(pattern) = &spec.shape {
        let hir = syntax::parse_with(pattern, &syntax_config()).ok();
        graph.is_exact = true;
        let node = hir.and_then(|hir| graph.starts(&hir, None, SHAPE_BYTES_MAX));
        let node = node.ok_or_else(|| fault("anchor's `shape` is no pattern that says anything"))?;
        ways.push(Way::Shape { node, ahead: 0 });
    }
    if ways.is_empty() {
        return Err(fault("anchor says nothing"));
    }
    let back = if spec.back_bytes == 0 {
        LookBack::default()
    } else {
        let through =
            ByteSet::parse(&spec.through).ok_or_else(|| fault("anchor's `through` is no class of bytes"))?;
        LookBack { bytes_min: 0, bytes_max: spec.back_bytes, through }
    };
    let joint = joint_of(spec, &back, &pattern.hir);
    Ok(Choice { ways, back, price_ns: 0.0, joint })
}

/// Which part of a pattern begins at the place that a rule says. All its texts begin with one byte that does not stand before the place:
/// it is the first such byte of a match, and that of the first part that begins with it.
fn joint_of(spec: &AnchorSpec, back: &LookBack, hir: &Hir) -> Option<usize> {
    let first = *spec.literals.first()?.as_bytes().first()?;
    let alike = spec.literals.iter().all(|text| text.as_bytes().first() == Some(&first));
    if !alike || spec.shape.is_some() || back.through.holds(first) || first.is_ascii_alphabetic() {
        return None;
    }
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let joint = parts.iter().position(|part| every_byte(part).holds(first))?;
    let part = parts.get(joint)?;
    let is_sure = part.properties().minimum_len() > Some(0) && first_bytes(part) == ByteSet::one(first);
    is_sure.then_some(joint)
}

/// What a word of context is found by: the text of its longest part without a joint.
pub(crate) fn context_literal(word: &str) -> Option<Literal> {
    let part = word.split(' ').max_by_key(|part| part.len())?;
    Path::of(part, true).literal().map(|priced| priced.literal)
}

fn flatten<'a>(hir: &'a Hir, out: &mut Vec<&'a Hir>) {
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, out)),
        HirKind::Capture(capture) => flatten(&capture.sub, out),
        HirKind::Empty => {}
        _ => out.push(hir),
    }
}

/// The possibilities of one sequence of parts: literals, and shapes where there is a graph for them.
fn branch(hir: &Hir, pattern: &Pattern, mut graph: Option<&mut Graph>) -> Vec<Choice> {
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let mut choices = Vec::new();
    let mut back = LookBack::default();
    for joint in 0..parts.len().min(JOINTS_MAX) {
        if let Some(before) = joint.checked_sub(1).and_then(|before| parts.get(before)) {
            back.bytes_min += before.properties().minimum_len().unwrap_or(0);
            back.bytes_max += before.properties().maximum_len().unwrap_or(pattern.window_bytes);
            back.through = back.through.union(every_byte(before));
            if back.bytes_min >= pattern.window_bytes {
                break;
            }
            back.bytes_max = back.bytes_max.min(pattern.window_bytes);
            if matches!(before.kind(), HirKind::Look(_)) {
                continue;
            }
        }
        let (lead, rest) = parts.split_at(joint);
        choices.extend(by_literals(rest, &back).map(|choice| Choice { joint: Some(joint), ..choice }));
        let rare = |choice: &Choice| choice.price_ns < 0.002;
        if let Some(graph) = graph.as_deref_mut()
            && !choices.iter().any(rare)
        {
            let known = choices.len();
            by_shapes(lead, rest, &back, graph, &mut choices);
            choices.iter_mut().skip(known).for_each(|choice| choice.joint = Some(joint));
        }
    }
    choices
}

fn by_shapes(lead: &[&Hir], rest: &[&Hir], back: &LookBack, graph: &mut Graph, choices: &mut Vec<Choice>) {
    let before = last_bytes(lead);
    for (budget, is_exact) in SHAPE_BUDGETS.into_iter().flat_map(|budget| [(budget, false), (budget, true)]) {
        graph.is_exact = is_exact;
        let condition: Condition = graph.sequence(rest, None, budget);
        let Some(alone) = condition else { continue };
        let with_before = before.and_then(|set| graph.step(&set, Some(alone)));
        let (node, ahead) = with_before.map_or((alone, 0), |node| (node, 1));
        let many = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let (steps, classes) = graph.size(node);
        let price_ns = CONDITION_NS * many(steps) + CLASS_NS * many(classes);
        choices.push(Choice {
            ways: vec![Way::Shape { node, ahead }],
            back: back.clone(),
            price_ns,
            joint: None,
        });
    }
}

/// A text that a match may begin with, as far as it is written out.
#[derive(Clone, Default)]
struct Path {
    sets: Vec<ByteSet>,
    is_closed: bool,
}

impl Path {
    /// The path of a text, in either case or as it stands.
    fn of(text: &str, ignore_case: bool) -> Path {
        let set = |byte: u8| {
            let mut set = ByteSet::one(byte);
            if ignore_case {
                set.insert(byte.to_ascii_lowercase());
                set.insert(byte.to_ascii_uppercase());
            }
            set
        };
        Path { sets: text.bytes().map(set).take(PATH_BYTES_MAX).collect(), is_closed: true }
    }

    fn push(&mut self, set: ByteSet) {
        if self.is_closed {
            return;
        }
        self.sets.push(set);
        let rare =
            || self.sets.iter().rev().take(LITERAL_BYTES_MAX).map(ByteSet::share).product::<f64>() < RARE;
        let length = self.sets.len();
        self.is_closed = length >= PATH_BYTES_MAX || (length >= LITERAL_BYTES_MAX && rare());
    }

    fn close(&mut self) {
        self.is_closed = true;
    }

    /// The best place of it.
    fn literal(&self) -> Option<Priced> {
        let mut best: Option<(f64, Priced)> = None;
        for offset in 0..self.sets.len().saturating_sub(LITERAL_BYTES_MIN - 1) {
            let end = self.sets.len().min(offset + LITERAL_BYTES_MAX);
            let sets = self.sets.get(offset..end)?.to_vec();
            // Digits alone are no text: they stand together.
            let says_little =
                |set: &ByteSet| set.count() > FEW_BYTES || set.iter().all(|byte| byte.is_ascii_digit());
            if sets.iter().take(DEPTH).all(says_little) {
                continue;
            }
            let literal = Literal { sets, offset: u8::try_from(offset).ok()? };
            let better =
                |price: f64| best.as_ref().is_none_or(|(least, _)| price < *least && *least > RARE_ENOUGH_NS);
            let by_bytes = literal.shares();
            if !better(price(by_bytes, 0.0)) {
                continue;
            }
            let Some(counted) = literal.counted() else { continue };
            let priced = Priced { literal, by_bytes, counted };
            let price_ns = priced.price(0.0);
            if better(price_ns) {
                best = Some((price_ns, priced));
            }
        }
        best.map(|(_, priced)| priced)
    }
}

/// A literal, and how much of ordinary text passes the first look and the comparison: by how often its bytes stand in logs, and as
/// counted.
struct Priced {
    literal: Literal,
    by_bytes: (f64, f64),
    counted: (f64, f64),
}

impl Priced {
    /// What it costs where a match may begin at so many places before it.
    fn price(&self, starts: f64) -> f64 {
        price(self.by_bytes, starts) + price(self.counted, starts)
    }
}

fn price((first, whole): (f64, f64), starts: f64) -> f64 {
    LOOKUP_NS * first + (ATTEMPT_NS + START_NS * starts) * whole
}

fn by_literals(rest: &[&Hir], back: &LookBack) -> Option<Choice> {
    let mut paths = vec![Path::default()];
    for part in rest {
        if paths.iter().all(|path| path.is_closed) {
            break;
        }
        paths = extended(part, paths);
    }
    let literals: Option<Vec<Priced>> = paths.iter().map(Path::literal).collect();
    let literals = literals?;
    let price_ns = literals.iter().map(|priced| priced.price(back.starts())).sum();
    let ways = literals.into_iter().map(|priced| Way::Literal(priced.literal)).collect();
    Some(Choice { ways, back: back.clone(), price_ns, joint: None })
}

/// The paths with a part behind each.
fn extended(part: &Hir, mut paths: Vec<Path>) -> Vec<Path> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => {
            for path in &mut paths {
                literal.0.iter().for_each(|byte| path.push(ByteSet::one(*byte)));
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            let set = ByteSet::of_class(class);
            paths.iter_mut().for_each(|path| path.push(set));
        }
        HirKind::Class(Class::Unicode(_)) => paths.iter_mut().for_each(Path::close),
        HirKind::Capture(capture) => return extended(&capture.sub, paths),
        HirKind::Concat(parts) => {
            for part in parts {
                paths = extended(part, paths);
            }
        }
        HirKind::Alternation(ways) => return forked(paths, ways.iter().map(Some), false),
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                if paths.iter().all(|path| path.is_closed) {
                    return paths;
                }
                paths = extended(&repetition.sub, paths);
            }
            match repetition.max {
                Some(max) if max == repetition.min => {}
                // Once more, or not; how often more is not followed.
                Some(max) if max == repetition.min + 1 => {
                    return forked(paths, [None, Some(&*repetition.sub)].into_iter(), false);
                }
                _ => return forked(paths, [None, Some(&*repetition.sub)].into_iter(), true),
            }
        }
    }
    paths
}

/// The open paths with each of several parts behind, or as they are if that were too many. A part may be where a path ends.
fn forked<'a>(paths: Vec<Path>, ways: impl Iterator<Item = Option<&'a Hir>>, ends: bool) -> Vec<Path> {
    let (closed, open): (Vec<Path>, Vec<Path>) = paths.into_iter().partition(|path| path.is_closed);
    let mut all = closed;
    for way in ways {
        let more = match way {
            Some(part) if ends => {
                let mut longer = extended(part, open.clone());
                longer.iter_mut().for_each(Path::close);
                longer
            }
            Some(part) => extended(part, open.clone()),
            None => open.clone(),
        };
        all.extend(more);
        if all.len() > PATHS_MAX {
            let mut stopped: Vec<Path> = Vec::new();
            stopped.extend(open.into_iter().map(|path| Path { is_closed: true, ..path }));
            // What was closed before came first and is kept.
            all.retain(|path| {
                path.is_closed && !stopped.iter().any(|open| path.sets.starts_with(&open.sets))
            });
            all.extend(stopped);
            return all;
        }
    }
    all
}

/// Every byte that a part may consist of.
fn every_byte(hir: &Hir) -> ByteSet {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => ByteSet::default(),
        HirKind::Literal(literal) => {
            literal.0.iter().fold(ByteSet::default(), |set, byte| set.union(ByteSet::one(*byte)))
        }
        HirKind::Class(Class::Bytes(class)) => ByteSet::of_class(class),
        HirKind::Class(Class::Unicode(_)) => ByteSet::ALL,
        HirKind::Capture(capture) => every_byte(&capture.sub),
        HirKind::Repetition(repetition) => every_byte(&repetition.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(ByteSet::default(), |set, part| set.union(every_byte(part)))
        }
    }
}

/// The bytes that parts may end in; nothing if they may be empty.
fn last_bytes(parts: &[&Hir]) -> Option<ByteSet> {
    let mut set = ByteSet::default();
    for part in parts.iter().rev() {
        let (last, may_be_empty) = last_of(part);
        set = set.union(last);
        if !may_be_empty {
            return Some(set);
        }
    }
    None
}

fn last_of(hir: &Hir) -> (ByteSet, bool) {
    let may_be_empty = hir.properties().minimum_len().unwrap_or(0) == 0;
    let set = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => ByteSet::default(),
        HirKind::Literal(literal) => literal.0.last().map_or(ByteSet::ALL, |byte| ByteSet::one(*byte)),
        HirKind::Class(Class::Bytes(class)) => ByteSet::of_class(class),
        HirKind::Class(Class::Unicode(_)) => ByteSet::ALL,
        HirKind::Capture(capture) => last_of(&capture.sub).0,
        HirKind::Repetition(repetition) => last_of(&repetition.sub).0,
        HirKind::Alternation(ways) => {
            ways.iter().fold(ByteSet::default(), |set, way| set.union(last_of(way).0))
        }
        HirKind::Concat(parts) => {
            let mut set = ByteSet::default();
            for part in parts.iter().rev() {
                let (last, empty) = last_of(part);
                set = set.union(last);
                if !empty {
                    break;
                }
            }
            set
        }
    };
    (set, may_be_empty)
}

/// The bytes that a match may begin with.
pub(crate) fn first_bytes(hir: &Hir) -> ByteSet {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => ByteSet::default(),
        HirKind::Literal(literal) => literal.0.first().map_or(ByteSet::ALL, |byte| ByteSet::one(*byte)),
        HirKind::Class(Class::Bytes(class)) => ByteSet::of_class(class),
        HirKind::Class(Class::Unicode(_)) => ByteSet::ALL,
        HirKind::Capture(capture) => first_bytes(&capture.sub),
        HirKind::Repetition(repetition) => first_bytes(&repetition.sub),
        HirKind::Alternation(ways) => {
            ways.iter().fold(ByteSet::default(), |set, way| set.union(first_bytes(way)))
        }
        HirKind::Concat(parts) => {
            let mut set = ByteSet::default();
            for part in parts {
                set = set.union(first_bytes(part));
                if part.properties().minimum_len().unwrap_or(0) > 0 {
                    break;
                }
            }
            set
        }
    }
}

/// An anchor for people.
pub(crate) fn in_words(anchor: &Anchor) -> String {
    if anchor.ways.is_empty() {
        return "shared automaton (reads every byte)".to_owned();
    }
    let mut words: Vec<String> = anchor.ways.iter().map(way_in_words).collect();
    words.dedup();
    let back = match (anchor.back.bytes_min, anchor.back.bytes_max) {
        (0, 0) => String::new(),
        (min, max) if min == max => format!(", {min} bytes in"),
        (min, max) => format!(", {min} to {max} bytes in"),
    };
    format!("{}{back}", words.join(" or "))
}

fn way_in_words(way: &Way) -> String {
    let literal = match way {
        Way::Literal(literal) => literal,
        Way::Shape { .. } => return "shape".to_owned(),
        Way::Walk { is_behind_context: false } => return "shared walk from starts of words".to_owned(),
        Way::Walk { is_behind_context: true } => return "shared walk behind words of context".to_owned(),
    };
    let mut text = String::new();
    for set in &literal.sets {
        let mut bytes = set.iter();
        match (bytes.next(), bytes.next(), bytes.next()) {
            (Some(byte), None, _) => text.extend(std::ascii::escape_default(byte).map(char::from)),
            (Some(upper), Some(lower), None) if upper.eq_ignore_ascii_case(&lower) => {
                text.push(char::from(lower))
            }
            _ => text.push('?'),
        }
    }
    format!("literal {text}")
}

//! Rules that begin where a word does: one automaton for all of them, run from the places that could begin one.
//!
//! Numbers with a form are many (cards, bank accounts, national identifiers) and look alike: a few digits, perhaps a separator, more
//! digits. Looked for one by one, each would cost a pass over the lanes; and every number of nine digits would be tried by a dozen
//! rules. So a coarse shape that all of them share finds the places ([`super::column`]), and one walk of one automaton from each
//! such place says which of the rules match there. One more rule is a few more states.
//!
//! What always holds: every rule that matches at a place is named; which, and no more, is what the walk decides. A match is then
//! verified as any other is.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use crate::limits::{DISPATCH_AUTOMATON_BYTES_MAX, DISPATCH_RULES_MAX, PATTERN_NFA_BYTES_MAX};

/// A rule that matches at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) rule: u32,
    /// Where the match ends; nothing where the rule could match to several places, of which its own automaton chooses one.
    pub(super) end: Option<usize>,
}

/// Where a walk begins: in a line that stands alone.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk<'t> {
    pub(super) line: &'t [u8],
    pub(super) at: usize,
}

/// What walks named, in their order.
#[derive(Default)]
pub(super) struct Walked {
    named: Vec<Named>,
    /// Where in `named` what each walk named ends.
    ends: Vec<usize>,
}

impl Walked {
    pub(super) fn clear(&mut self) {
        self.named.clear();
        self.ends.clear();
    }

    /// What the walk of this number named.
    pub(super) fn of(&self, walk: usize) -> &[Named] {
        let first = walk.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(walk).copied().unwrap_or(first);
        self.named.get(first..end).unwrap_or(&[])
    }
}

/// How many walks are made at once, and how many steps of each: most end within.
const ABREAST: usize = 4;
const STEPS: usize = 16;

/// The automaton of up to [`DISPATCH_RULES_MAX`] rules, in cells of 16 bits: what is walked in ordinary text is to stay in the
/// caches.
struct Part {
    /// Which column of the table a byte is in; behind them that of the end of a line.
    columns: Box<[u8; 256]>,
    end_column: u8,
    /// States a row; a row has `1 << shift` cells. State 0 is dead.
    table: Vec<u16>,
    shift: u32,
    /// The first state in which rules match; all behind it are such.
    first_match: u16,
    /// For each of these, which of `matches` are its.
    ranges: Vec<Range<u32>>,
    /// Rules.
    matches: Vec<u32>,
    /// Where a walk begins, by the byte before it; behind them where it begins a line.
    starts: Box<[u16; 257]>,
}

/// Automata that name the rules that match at a place: one, or a few where one would be too large.
#[derive(Default)]
pub(super) struct Dispatch {
    parts: Vec<Part>,
}

impl Dispatch {
    /// The automata for these patterns, each with its rule's number, and the rules that are too large even alone.
    pub(super) fn new(patterns: &[(u32, Hir)]) -> (Dispatch, Vec<u32>) {
        let (mut dispatch, mut refused) = (Dispatch::default(), Vec::new());
        for group in patterns.chunks(DISPATCH_RULES_MAX) {
            dispatch.add(group, &mut refused);
        }
        (dispatch, refused)
    }

    fn add(&mut self, patterns: &[(u32, Hir)], refused: &mut Vec<u32>) {
        if patterns.is_empty() {
            return;
        }
        match built(patterns) {
            Some(part) => self.parts.push(part),
            None if patterns.len() == 1 => refused.extend(patterns.iter().map(|(rule, _)| *rule)),
            None => {
                let (one, other) = patterns.split_at(patterns.len() / 2);
                self.add(one, refused);
                self.add(other, refused);
            }
        }
    }

    /// How much memory the automata take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(Part::memory_bytes).sum()
    }

    /// The rules that match from where each walk begins, in no order.
    pub(super) fn all<'t>(&self, walks: impl Iterator<Item = Walk<'t>>, walked: &mut Walked) {
        let [part] = self.parts.as_slice() else {
            for walk in walks {
                let first = walked.named.len();
                self.parts.iter().for_each(|part| part.walk(&walk, first, &mut walked.named));
                walked.ends.push(walked.named.len());
            }
            return;
        };
        let mut few: [Walk<'_>; ABREAST] = [Walk::default(); ABREAST];
        let mut count = 0;
        for walk in walks {
            if let Some(slot) = few.get_mut(count) {
                *slot = walk;
            }
            count += 1;
            if count == ABREAST {
                part.abreast(&few, count, walked);
                count = 0;
            }
        }
        part.abreast(&few, count, walked);
    }
}

impl Part {
    /// Makes the first `count` of some walks, step by step together: each step waits for the memory, and so they wait together.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "columns are of every byte, and steps of every array")]
    fn abreast(&self, walks: &[Walk<'_>; ABREAST], count: usize, walked: &mut Walked) {
        if count == 0 {
            return;
        }
        let mut columns = [[0_u8; STEPS]; ABREAST];
        let mut states = [0_u16; ABREAST];
        for ((walk, columns), state) in walks.iter().zip(&mut columns).zip(&mut states).take(count) {
            let ahead = walk.line.get(walk.at..).unwrap_or(&[]);
            for (column, byte) in columns.iter_mut().zip(ahead) {
                *column = self.columns[usize::from(*byte)];
            }
            if let Some(column) = columns.get_mut(ahead.len()) {
                *column = self.end_column;
            }
            *state = self.start(walk);
        }
        // Four names: an array would go through memory at each step.
        let [mut one, mut two, mut three, mut four] = states;
        let [first, second, third, fourth] = &columns;
        let mut passed = [[0_u16; STEPS]; ABREAST];
        let [by_one, by_two, by_three, by_four] = &mut passed;
        for step in 0..STEPS {
            one = self.next(one, first[step]);
            two = self.next(two, second[step]);
            three = self.next(three, third[step]);
            four = self.next(four, fourth[step]);
            by_one[step] = one;
            by_two[step] = two;
            by_three[step] = three;
            by_four[step] = four;
        }
        for (number, walk) in walks.iter().enumerate().take(count) {
            let first = walked.named.len();
            let ahead = walk.line.len().saturating_sub(walk.at);
            let Some(passed) = passed.get(number) else { continue };
            let is_match = |state: &u16| *state >= self.first_match;
            if passed.iter().any(is_match) {
                for (end, state) in
                    (walk.at..).zip(passed).take(ahead + 1).filter(|(_, state)| is_match(state))
                {
                    // A match shows one byte late.
                    self.found(*state, end, first, &mut walked.named);
                }
            }
            if let Some(last) = passed.last().filter(|last| **last != 0 && ahead >= STEPS) {
                self.go_on(*last, walk, walk.at + STEPS, first, &mut walked.named);
            }
            walked.ends.push(walked.named.len());
        }
    }

    fn start(&self, walk: &Walk<'_>) -> u16 {
        let before = walk.at.checked_sub(1).and_then(|at| walk.line.get(at));
        self.starts.get(before.map_or(256, |byte| usize::from(*byte))).copied().unwrap_or(0)
    }

    fn walk(&self, walk: &Walk<'_>, first: usize, named: &mut Vec<Named>) {
        self.go_on(self.start(walk), walk, walk.at, first, named);
    }

    /// Walks on in `state` from `at`.
    #[expect(clippy::indexing_slicing, reason = "there is a column for every byte")]
    fn go_on(&self, mut state: u16, walk: &Walk<'_>, at: usize, first: usize, named: &mut Vec<Named>) {
        for (end, byte) in (at..).zip(walk.line.get(at..).unwrap_or(&[])) {
            state = self.next(state, self.columns[usize::from(*byte)]);
            if state == 0 {
                return;
            }
            if state >= self.first_match {
                self.found(state, end, first, named);
            }
        }
        state = self.next(state, self.end_column);
        if state >= self.first_match {
            self.found(state, walk.line.len(), first, named);
        }
    }

    #[inline]
    fn next(&self, state: u16, column: u8) -> u16 {
        let cell = (usize::from(state) << self.shift) + usize::from(column);
        self.table.get(cell).copied().unwrap_or(0)
    }

    /// Adds the rules that match in a state to what this walk named, which begins at `first`.
    fn found(&self, state: u16, end: usize, first: usize, named: &mut Vec<Named>) {
        let range = self.ranges.get(usize::from(state - self.first_match)).cloned().unwrap_or(0..0);
        let place = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
        for rule in self.matches.get(place(range.start)..place(range.end)).unwrap_or(&[]) {
            match named.iter_mut().skip(first).find(|named| named.rule == *rule) {
                Some(named) => named.end = None,
                None => named.push(Named { rule: *rule, end: Some(end) }),
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        2 * self.table.len() + size_of::<Range<u32>>() * self.ranges.len() + 4 * self.matches.len()
    }
}

fn built(patterns: &[(u32, Hir)]) -> Option<Part> {
    let hirs: Vec<&Hir> = patterns.iter().map(|(_, hir)| hir).collect();
    let ways = thompson::Compiler::new()
        .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(PATTERN_NFA_BYTES_MAX)))
        .build_many_from_hir(&hirs)
        .ok()?;
    let automaton = dense::Builder::new()
        .configure(
            dense::Config::new()
                .match_kind(MatchKind::All)
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(DISPATCH_AUTOMATON_BYTES_MAX))
                .determinize_size_limit(Some(4 * DISPATCH_AUTOMATON_BYTES_MAX)),
        )
        .build_from_nfa(&ways)
        .ok()?;
    packed(&automaton, patterns.iter().map(|(rule, _)| *rule).collect())
}

/// The automaton in cells of 16 bits; nothing if it has more states than those can tell apart, or might give up.
fn packed(automaton: &dense::DFA<Vec<u32>>, rules: Vec<u32>) -> Option<Part> {
    let classes = automaton.byte_classes();
    let mut columns = Box::new([0; 256]);
    let mut examples: Vec<Option<u8>> = vec![None; classes.alphabet_len()];
    for (byte, column) in (0..=255).zip(columns.iter_mut()) {
        *column = classes.get(byte);
        *examples.get_mut(usize::from(*column))? = Some(byte);
    }
    let end_column = u8::try_from(classes.eoi().as_usize()).ok()?;
    let shift = classes.alphabet_len().next_power_of_two().trailing_zeros();
    let start = |before: Option<u8>| {
        let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
        automaton.start_state(&config).ok()
    };
    let begins: Option<Vec<StateID>> = (0..=255).map(Some).chain([None]).map(start).collect();
    let begins = begins?;

    // Every state that can be reached, nearest first: those that are walked through together lie together.
    let mut reached: Vec<StateID> = Vec::new();
    let mut seen: HashSet<StateID> = HashSet::new();
    let mut reach = |state: StateID, reached: &mut Vec<StateID>| {
        if !automaton.is_dead_state(state) && seen.insert(state) {
            reached.push(state);
        }
    };
    begins.iter().for_each(|state| reach(*state, &mut reached));
    let step = |state: StateID, example: Option<u8>| match example {
        Some(byte) => automaton.next_state(state, byte),
        None => automaton.next_eoi_state(state),
    };
    let mut next = 0;
    while let Some(state) = reached.get(next).copied() {
        next += 1;
        examples.iter().for_each(|example| reach(step(state, *example), &mut reached));
    }
    if reached.iter().any(|state| automaton.is_quit_state(*state)) {
        return None;
    }
    let (matching, plain): (Vec<StateID>, Vec<StateID>) =
        reached.into_iter().partition(|state| automaton.is_match_state(*state));
    let first_match = u16::try_from(1 + plain.len()).ok()?;
    let states: Vec<StateID> = plain.iter().chain(&matching).copied().collect();
    u16::try_from(1 + states.len()).ok()?;
    let numbers: HashMap<StateID, u16> = states.iter().copied().zip(1..).collect();
    let number = |state: StateID| numbers.get(&state).copied().unwrap_or(0);

    let mut table = vec![0; (1 + states.len()) << shift];
    for (row, state) in table.chunks_mut(1 << shift).skip(1).zip(&states) {
        for (cell, example) in row.iter_mut().zip(&examples) {
            *cell = number(step(*state, *example));
        }
    }
    let (mut ranges, mut matches) = (Vec::new(), Vec::new());
    for state in &matching {
        let first = u32::try_from(matches.len()).ok()?;
        let patterns = (0..automaton.match_len(*state)).map(|index| automaton.match_pattern(*state, index));
        matches.extend(patterns.filter_map(|pattern| rules.get(pattern.as_usize())));
        ranges.push(first..u32::try_from(matches.len()).ok()?);
    }
    let mut starts = Box::new([0; 257]);
    for (slot, state) in starts.iter_mut().zip(&begins) {
        *slot = number(*state);
    }
    Some(Part { columns, end_column, table, shift, first_match, ranges, matches, starts })
}

#[cfg(test)]
mod tests {
    use regex_automata::util::syntax;

    use super::*;
    use crate::pattern::syntax_config;

    fn parsed<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Vec<(u32, Hir)> {
        let parse = |pattern: &str| syntax::parse_with(pattern, &syntax_config()).unwrap();
        (0..).zip(patterns.into_iter().map(parse)).collect()
    }

    fn named(patterns: &[&str], line: &str, at: usize) -> Vec<(u32, Option<usize>)> {
        let patterns = parsed(patterns.iter().copied());
        let (dispatch, refused) = Dispatch::new(&patterns);
        assert!(refused.is_empty());
        // By itself, and beside others.
        let mut walked = Walked::default();
        let walk = Walk { line: line.as_bytes(), at };
        let other = Walk { line: b"12-34 and more", at: 0 };
        dispatch.all([walk, other, walk, other, other, walk].into_iter(), &mut walked);
        let named = |number: usize| {
            let mut named: Vec<_> = walked.of(number).iter().map(|named| (named.rule, named.end)).collect();
            named.sort_unstable();
            named
        };
        assert_eq!(named(0), named(2));
        assert_eq!(named(0), named(5));
        assert_eq!(named(1), named(4));
        named(0)
    }

    #[test]
    fn every_rule_that_matches_at_a_place_is_named_once_with_its_end() {
        let patterns = [r"\b[0-9]{4}\b", r"\b[0-9]{2}-?[0-9]{2}", r"\b[0-9]{2,9}", r"\b[0-9]{4}$"];
        assert_eq!(named(&patterns, "a 1234 b", 2), [(0, Some(6)), (1, Some(6)), (2, None)]);
        assert_eq!(named(&patterns, "a 1234", 2), [(0, Some(6)), (1, Some(6)), (2, None), (3, Some(6))]);
        assert_eq!(named(&patterns, "a 12345", 2), [(1, Some(6)), (2, None)]);
        assert_eq!(named(&patterns, "a12-34", 1), []);
        assert_eq!(named(&patterns, "12-34", 0), [(1, Some(5)), (2, Some(2))]);
    }

    #[test]
    fn rules_that_are_too_large_together_are_parted_and_one_that_is_too_large_alone_is_named() {
        // Each state remembers which of the last bytes were ones.
        let wide = |letter: char| format!(r"\b(?:0|{letter})*{letter}(?:0|{letter}){{9}}");
        let texts: Vec<String> = ('g'..='n').map(wide).collect();
        let huge = r"\b[01]*1[01]{20}".to_owned();
        let patterns = parsed(texts.iter().chain([&huge]).map(String::as_str));
        let (dispatch, refused) = Dispatch::new(&patterns);
        assert_eq!(refused, [8]);
        assert!(dispatch.memory_bytes() > 8 * 4 * 1024);
    }
}

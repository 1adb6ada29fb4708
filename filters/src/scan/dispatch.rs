//! Rules that begin where a word does: one automaton for all of them, run from the places that could begin one.
//!
//! Numbers with a form are many (cards, bank accounts, national identifiers) and look alike: a few digits, perhaps a separator, more
//! digits. Looked for one by one, each would cost a pass over the lanes; and every number of nine digits would be tried by a dozen
//! rules. So a coarse shape that all of them share finds the places ([`super::column`]), and one walk of one automaton from each
//! such place says which of the rules match there. One more rule is a few more states.
//!
//! What always holds: every rule that matches at a place is named; which, and no more, is what the walk decides. A match is then
//! verified as any other is.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use crate::limits::{DISPATCH_AUTOMATON_BYTES_MAX, DISPATCH_RULES_MAX, PATTERN_NFA_BYTES_MAX};
use crate::pattern::GaveUp;

/// A rule that matches at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) rule: u32,
    /// Where the match ends; nothing where the rule could match to several places, of which its own automaton chooses one.
    pub(super) end: Option<usize>,
}

/// The automaton of up to [`DISPATCH_RULES_MAX`] rules.
struct Part {
    automaton: dense::DFA<Vec<u32>>,
    rules: Vec<u32>,
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

    /// A rule to name when a walk fails.
    pub(super) fn first_rule(&self) -> usize {
        let first = self.parts.first().and_then(|part| part.rules.first());
        first.and_then(|rule| usize::try_from(*rule).ok()).unwrap_or(0)
    }

    /// How much memory the automata take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.automaton.memory_usage()).sum()
    }

    /// The rules that match from `at` of `line`, in no order.
    pub(super) fn at(&self, line: &[u8], at: usize, named: &mut Vec<Named>) -> Result<(), GaveUp> {
        for part in &self.parts {
            part.at(line, at, named)?;
        }
        Ok(())
    }
}

impl Part {
    #[inline]
    fn at(&self, line: &[u8], at: usize, named: &mut Vec<Named>) -> Result<(), GaveUp> {
        let automaton = &self.automaton;
        let before = at.checked_sub(1).and_then(|at| line.get(at)).copied();
        let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
        let mut state = automaton.start_state(&config).map_err(|_| GaveUp)?;
        for (end, byte) in (at..).zip(line.get(at..).unwrap_or(&[])) {
            state = automaton.next_state(state, *byte);
            if automaton.is_special_state(state) {
                if automaton.is_match_state(state) {
                    // A match shows one byte late.
                    self.found(state, end, named);
                } else if automaton.is_dead_state(state) {
                    return Ok(());
                } else if automaton.is_quit_state(state) {
                    return Err(GaveUp);
                }
            }
        }
        state = automaton.next_eoi_state(state);
        if automaton.is_match_state(state) {
            self.found(state, line.len(), named);
        }
        Ok(())
    }

    fn found(&self, state: StateID, end: usize, named: &mut Vec<Named>) {
        for index in 0..self.automaton.match_len(state) {
            let pattern = self.automaton.match_pattern(state, index);
            let Some(rule) = self.rules.get(pattern.as_usize()).copied() else { continue };
            match named.iter_mut().find(|named| named.rule == rule) {
                Some(named) => named.end = None,
                None => named.push(Named { rule, end: Some(end) }),
            }
        }
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
    Some(Part { automaton, rules: patterns.iter().map(|(rule, _)| *rule).collect() })
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
        let mut named = Vec::new();
        dispatch.at(line.as_bytes(), at, &mut named).unwrap();
        let mut named: Vec<_> = named.into_iter().map(|named| (named.rule, named.end)).collect();
        named.sort_unstable();
        named
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

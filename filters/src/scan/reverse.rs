//! Rules that nothing finds fast: one automaton for all of them reads each line backwards, and names every position at which a
//! match of one of them starts. Linear, whatever the patterns.

use regex_automata::hybrid::dfa::{Builder, Cache, Config, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use crate::error::RuleFault;
use crate::limits::{PATTERN_NFA_BYTES_MAX, VERIFIER_LAZY_BYTES_MAX};
use crate::pattern::{GaveUp, syntax_config};
use crate::rule::Rule;

/// The shared automaton.
pub(crate) struct Reverse {
    automaton: DFA,
    /// The rule behind each of the automaton's patterns.
    rules: Vec<u32>,
}

/// What one thread needs to run it.
pub(crate) struct ReverseCache(Cache);

impl Reverse {
    /// The automaton for the rules of these numbers.
    pub(crate) fn new(all: &[&Rule], numbers: &[u32]) -> Result<Reverse, RuleFault> {
        let rule = |number: &u32| usize::try_from(*number).ok().and_then(|number| all.get(number));
        let patterns: Vec<&str> = numbers.iter().filter_map(rule).map(|rule| rule.pattern.as_str()).collect();
        Reverse::of(&patterns, numbers).ok_or_else(|| {
            let first = numbers.iter().find_map(rule).map_or("", |rule| rule.id.as_str());
            let reason = format!("{} rules without a literal are too large together", numbers.len());
            RuleFault::new(first, reason, "let their patterns start with three fixed characters")
        })
    }

    /// The automaton for these patterns, each with its rule's number; nothing where they are too large together.
    pub(super) fn of(patterns: &[&str], numbers: &[u32]) -> Option<Reverse> {
        let limit = PATTERN_NFA_BYTES_MAX.saturating_mul(numbers.len().min(16));
        let automaton = Builder::new()
            .syntax(syntax_config())
            .thompson(thompson::Config::new().utf8(false).reverse(true).nfa_size_limit(Some(limit)))
            .configure(
                Config::new()
                    .match_kind(MatchKind::All)
                    .cache_capacity(VERIFIER_LAZY_BYTES_MAX)
                    .skip_cache_capacity_check(true)
                    .minimum_cache_clear_count(None),
            )
            .build_many(patterns)
            .ok()?;
        Some(Reverse { automaton, rules: numbers.to_vec() })
    }

    pub(crate) fn cache(&self) -> ReverseCache {
        ReverseCache(self.automaton.create_cache())
    }

    /// A rule to name when the automaton fails.
    pub(crate) fn first_rule(&self) -> usize {
        self.rules.first().and_then(|rule| usize::try_from(*rule).ok()).unwrap_or(0)
    }

    /// Every start of every rule in a line, from right to left.
    pub(crate) fn starts(
        &self,
        cache: &mut ReverseCache,
        line: &[u8],
        out: &mut Vec<(u32, usize)>,
    ) -> Result<(), GaveUp> {
        let cache = &mut cache.0;
        let config = start::Config::new().anchored(Anchored::No).look_behind(None);
        let mut state = self.automaton.start_state(cache, &config).map_err(|_| GaveUp)?;
        for at in (0..=line.len()).rev() {
            // A match shows one byte late: having read the byte before `at`, the state knows whether one starts at `at`.
            let before = at.checked_sub(1).and_then(|before| line.get(before));
            state = match before {
                Some(byte) => self.automaton.next_state(cache, state, *byte),
                None => self.automaton.next_eoi_state(cache, state),
            }
            .map_err(|_| GaveUp)?;
            if state.is_match() {
                for index in 0..self.automaton.match_len(cache, state) {
                    let pattern = self.automaton.match_pattern(cache, state, index);
                    if let Some(rule) = self.rules.get(pattern.as_usize()) {
                        out.push((*rule, at));
                    }
                }
            } else if state.is_dead() {
                break;
            } else if state.is_quit() {
                return Err(GaveUp);
            }
        }
        Ok(())
    }
}

//! Finding: from a buffer of lines to what each rule matches in it.
//!
//! How a rule is found:
//! 1. *Compiling* ([`compile`], [`anchor`]). From each rule's pattern follows what must stand at some place of every match: one of a
//!    few texts at a fixed distance ([`literal`]), or a shape over classes of bytes ([`program`]), and how far before that place a
//!    match may start. The cheapest is taken. A pattern with neither goes to one automaton that all such rules share and that reads
//!    every byte ([`reverse`]); [`Cost`] says so.
//!    Rules whose matches begin where words do, and that no literal finds, share one walk ([`dispatch`]): a coarse shape of all of
//!    them ([`column`]) or a word of context says where to walk from, and the walk names the rules that match there.
//! 2. *Candidates* ([`candidates`], [`sieve`], [`simd`]). One pass over the whole buffer, which knows nothing of lines, rows or fields, gives
//!    (place, rule) in order of places.
//! 3. *Verification*. At each start that the place allows: an anchored match of the rule inside the line, then its validator.
//!
//! What always holds:
//! - candidates are a superset of the starts at which a rule matches, so how they are found never changes what is found;
//! - every start is tried at most once per rule, and reads at most the rule's window;
//! - a line is matched as if it stood alone: nothing before or behind it is seen.

pub(crate) mod anchor;
pub(crate) mod bytes;
mod candidates;
mod column;
mod compile;
mod dispatch;
mod lines;
mod literal;
mod logic;
mod program;
mod reverse;
mod schedule;
mod sieve;
pub(crate) mod simd;

use std::ops::Range;
use std::sync::OnceLock;

use regex_syntax::hir::Hir;

use crate::checks::{Check, Gate};
use crate::context::Context;
use crate::error::RuleFault;
use crate::known::KnownSecrets;
use crate::limits::{CONTEXT_BYTES, EVIDENCE_REJECTED_PER_LINE_MAX, STEPS_PER_BYTE_MAX, STEPS_PER_LINE_MIN};
use crate::marker::Names;
use crate::pattern::{Attempt, GaveUp, Verifier, VerifierCache};
use crate::rule::{Redact, Rule};
use crate::tagged::Tagged;
use anchor::{LookBack, STARTS_TO_ASK};
use bytes::ByteSet;
use candidates::{Candidate, Finder, FinderScratch, Packed};
use dispatch::{Dispatch, Named, Walk, Walked};
use lines::Lines;
use program::Condition;
use reverse::{Reverse, ReverseCache};
use simd::Level;

/// A match of one rule in one line. Positions are in the scanned buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) rule: u32,
    pub(crate) line: u32,
    /// The part to redact.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// The whole match, with the key or the context before a value.
    pub(crate) match_start: u32,
    pub(crate) match_end: u32,
    /// The rule is weak, and no context speaks for this value.
    pub(crate) weak: bool,
}

/// What a rule cost and found in one scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) candidates: u64,
    pub(crate) matches: u64,
    pub(crate) rejected: u64,
    pub(crate) steps: u64,
    pub(crate) nanoseconds: u64,
}

/// A rule that gave up, by its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleGaveUp(pub(crate) usize);

struct Compiled {
    verifier: Verifier,
    check: Option<Check>,
    /// What the check says of a start by itself.
    gate: Option<Gate>,
    context: Option<Context>,
    context_required: bool,
    weak: bool,
    back: LookBack,
    /// What is behind the anchor's place in every match, for rules that may start at many places before it.
    ahead: Option<Ahead>,
    /// The bytes that a match may begin with.
    first: ByteSet,
    exact: Exact,
}

/// Whether a match could go on behind an anchor's place. Built when it is first asked.
struct Ahead {
    pattern: Hir,
    automaton: OnceLock<Option<Tagged>>,
}

impl Ahead {
    fn new(pattern: Hir) -> Ahead {
        Ahead { pattern, automaton: OnceLock::new() }
    }

    /// Whether it stands between `at` and `limit` of a line, and how many bytes were read to know.
    fn stands(&self, line: &[u8], at: usize, limit: usize) -> (bool, usize) {
        let build = || Tagged::new(&self.pattern, Redact::Match);
        let automaton = self.automaton.get_or_init(build).as_ref();
        automaton.map_or((true, 0), |automaton| automaton.matches(line, at, limit))
    }
}

/// Names the true starts of a rule in a line, for lines that are made to have many false ones. Built when the first such line comes.
struct Exact {
    pattern: String,
    number: u32,
    automaton: OnceLock<Option<Reverse>>,
}

impl Exact {
    fn new(rule: &Rule, number: u32) -> Exact {
        Exact { pattern: rule.pattern.clone(), number, automaton: OnceLock::new() }
    }

    fn automaton(&self) -> Result<&Reverse, GaveUp> {
        let build = || Reverse::of(&[self.pattern.as_str()], &[self.number]);
        self.automaton.get_or_init(build).as_ref().ok_or(GaveUp)
    }
}

/// What a rule has spent on the line it is at, and the line's true starts once that was too much.
#[derive(Default)]
struct Spending {
    line: Option<usize>,
    steps: u64,
    starts: Option<Vec<(u32, usize)>>,
    cache: Option<ReverseCache>,
}

impl Spending {
    fn at_line(&mut self, line: usize) {
        if self.line != Some(line) {
            self.line = Some(line);
            self.steps = 0;
            self.starts = None;
        }
    }

    /// Whether the rule has spent what it may on a line of so many bytes.
    #[inline]
    fn is_spent(&self, bytes: usize) -> bool {
        let allowed = STEPS_PER_LINE_MIN + STEPS_PER_BYTE_MAX * bytes;
        self.steps > u64::try_from(allowed).unwrap_or(u64::MAX)
    }

    /// Whether the rule may match at `at` of `text`, as far as it pays to know.
    #[inline]
    fn allows(&mut self, exact: &Exact, text: &[u8], at: usize) -> Result<bool, GaveUp> {
        if !self.is_spent(text.len()) {
            return Ok(true);
        }
        self.holds(exact, text, at)
    }

    /// Whether the rule matches at `at` of `text`.
    #[cold]
    fn holds(&mut self, exact: &Exact, text: &[u8], at: usize) -> Result<bool, GaveUp> {
        if self.starts.is_none() {
            let mut starts = Vec::new();
            let exact = exact.automaton()?;
            exact.starts(self.cache.get_or_insert_with(|| exact.cache()), text, &mut starts)?;
            self.starts = Some(starts);
        }
        // From right to left, as the automaton read the line.
        let known = self.starts.as_deref().unwrap_or(&[]);
        Ok(known.binary_search_by(|(_, start)| at.cmp(start)).is_ok())
    }
}

/// Rules that are found by a walk. Their places are candidates of numbers behind the rules': first the places where a word may
/// begin a match, then, one number each, the words of context.
struct Walks {
    /// Where a match of a rule may begin that asks for no context.
    condition: Condition,
    anywhere: Dispatch,
    /// Rules that ask for context: tried where a word begins, soon behind a word of context.
    behind: Dispatch,
    words: Vec<String>,
    /// The words, ready to be compared.
    contexts: Vec<Option<Context>>,
}

/// Rules compiled for finding.
pub(crate) struct Scanner {
    rules: Vec<Compiled>,
    finder: Finder,
    walks: Walks,
    reverse: Option<Reverse>,
    clock: Option<fn() -> u64>,
}

/// What one scan needs besides the rules; reused from scan to scan.
pub(crate) struct Scratch {
    finder: FinderScratch,
    caches: Vec<VerifierCache>,
    reverse: Option<ReverseCache>,
    /// Per rule, the first position that has not been tried.
    untried: Vec<usize>,
    spending: Vec<Spending>,
    /// The first position where no walk behind context has begun.
    unwalked: usize,
    /// What walks named: those of a chunk, and those behind one word of context.
    walked: Walked,
    walked_behind: Walked,
    pub(crate) tallies: Vec<Tally>,
    pub(crate) hits: Vec<Hit>,
    /// Candidates of weak rules that their checks refused in the last scan; of each line the first few.
    pub(crate) rejected: Vec<Hit>,
    /// The known secrets that this call looks for; the engine puts them here.
    pub(crate) known: Option<KnownSecrets>,
}

/// How one rule is found, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The anchor in words.
    pub found_by: String,
    /// Whether the rule shares the slow path, which reads every byte.
    pub reads_every_byte: bool,
}

/// What a rule's verifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierCost {
    /// Its automaton's memory, in bytes.
    pub memory_bytes: usize,
    /// Whether the automaton is worked out whole, and not while it runs.
    pub precomputed: bool,
}

impl Scanner {
    /// Compiles rules. Their order gives their numbers. Without a level the best is taken that this machine has.
    pub(crate) fn new(
        rules: &[&Rule],
        clock: Option<fn() -> u64>,
        level: Option<Level>,
    ) -> Result<(Scanner, Vec<Cost>), Vec<RuleFault>> {
        let level = level.filter(|level| Level::available().contains(level));
        compile::scanner(rules, clock, level.unwrap_or_else(Level::best))
    }

    /// What each rule's verifier is. Builds all of them.
    pub(crate) fn verifiers(&self) -> Vec<VerifierCost> {
        let cost = |rule: &Compiled| VerifierCost {
            memory_bytes: rule.verifier.memory_bytes(),
            precomputed: rule.verifier.is_precomputed(),
        };
        self.rules.iter().map(cost).collect()
    }

    /// What finds candidates, in bytes: tables of literals, and automata to walk along.
    pub(crate) fn finder_bytes(&self) -> usize {
        self.finder.literals.memory_bytes()
            + self.walks.anywhere.memory_bytes()
            + self.walks.behind.memory_bytes()
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            finder: self.finder.scratch(),
            caches: self.rules.iter().map(|_| VerifierCache::default()).collect(),
            reverse: self.reverse.as_ref().map(Reverse::cache),
            untried: vec![0; self.rules.len()],
            spending: self.rules.iter().map(|_| Spending::default()).collect(),
            unwalked: 0,
            walked: Walked::default(),
            walked_behind: Walked::default(),
            tallies: vec![Tally::default(); self.rules.len()],
            hits: Vec::new(),
            rejected: Vec::new(),
            known: None,
        }
    }

    /// Finds every match of every rule in `text`, whose lines lie between consecutive `offsets` (the first is 0, the last the
    /// text's length). Appends to `scratch.hits` and `scratch.tallies`.
    pub(crate) fn scan(
        &self,
        text: &[u8],
        offsets: &[i32],
        names: &Names,
        scratch: &mut Scratch,
    ) -> Result<(), RuleGaveUp> {
        scratch.untried.fill(0);
        scratch.unwalked = 0;
        scratch.rejected.clear();
        for spending in &mut scratch.spending {
            spending.line = None;
        }
        let mut candidates = std::mem::take(&mut scratch.finder);
        let mut pass = Pass { scanner: self, text, lines: Lines::new(offsets), names, scratch };
        let outcome =
            self.finder.find(text, offsets, &mut candidates, |candidates| pass.candidates(candidates));
        pass.scratch.finder = candidates;
        outcome?;
        if let Some(reverse) = &self.reverse {
            pass.unanchored(reverse)?;
        }
        Ok(())
    }
}

struct Pass<'a> {
    scanner: &'a Scanner,
    text: &'a [u8],
    lines: Lines<'a>,
    names: &'a Names,
    scratch: &'a mut Scratch,
}

impl Pass<'_> {
    /// Tries candidates in their order. The walks among them are made first: several at once take less time than one by one.
    fn candidates(&mut self, candidates: &[Packed]) -> Result<(), RuleGaveUp> {
        let first = u32::try_from(self.scanner.rules.len()).unwrap_or(u32::MAX);
        let mut walked = std::mem::take(&mut self.scratch.walked);
        walked.clear();
        let scanner = self.scanner;
        let found = candidates.iter().map(|packed| packed.candidate());
        let walks = found.clone().filter(|candidate| candidate.rule == first).map(|candidate| {
            let (_, bounds) = self.lines.holding(candidate.place);
            let at = candidate.place - bounds.start;
            Walk { line: self.text.get(bounds).unwrap_or(&[]), at }
        });
        scanner.walks.anywhere.all(walks, &mut walked);
        let mut number = 0;
        for candidate in found {
            if candidate.rule == first {
                let (line, bounds) = self.lines.holding(candidate.place);
                self.named(walked.of(number), line, &bounds, candidate.place)?;
                number += 1;
            } else {
                self.candidate(candidate)?;
            }
        }
        self.scratch.walked = walked;
        Ok(())
    }

    /// Tries every start from which a match could reach the anchor's place.
    fn candidate(&mut self, candidate: Candidate) -> Result<(), RuleGaveUp> {
        let Candidate { place, rule } = candidate;
        let number = usize::try_from(rule).unwrap_or(usize::MAX);
        let Some(compiled) = self.scanner.rules.get(number) else {
            // The first number behind the rules' is that of walks.
            return self.behind(place, number - self.scanner.rules.len() - 1);
        };
        let back = &compiled.back;
        if back.bytes_max == 0 {
            return self.start(rule, number, compiled, place);
        }
        let may_be_behind = back.bytes_min == 0 && back.bytes_max > 0 && place > 0;
        if may_be_behind && self.lines.holding(place).1.start == place {
            // The place may be the end of the line before.
            self.starts(rule, number, compiled, place, place - 1)?;
        }
        match place.checked_sub(back.bytes_min) {
            Some(highest) => self.starts(rule, number, compiled, place, highest),
            None => Ok(()),
        }
    }

    /// Tries the one start that there is.
    fn start(
        &mut self,
        rule: u32,
        number: usize,
        compiled: &Compiled,
        start: usize,
    ) -> Result<(), RuleGaveUp> {
        if self.scratch.untried.get(number).is_none_or(|untried| start < *untried) {
            return Ok(());
        }
        let (line, bounds) = self.lines.holding(start);
        let text = self.text;
        let may_begin = text.get(start).is_some_and(|byte| compiled.first.holds(*byte))
            && compiled
                .gate
                .is_none_or(|gate| gate(text.get(bounds.clone()).unwrap_or(&[]), start - bounds.start));
        let next = if may_begin {
            self.attempt(rule, number, compiled, Place { line, bounds: &bounds, start, end: None })?
        } else {
            start + 1
        };
        self.tried(number, next)
    }

    /// Tries the starts up to `highest`, in its line, from which a match could reach the anchor's place.
    fn starts(
        &mut self,
        rule: u32,
        number: usize,
        compiled: &Compiled,
        place: usize,
        highest: usize,
    ) -> Result<(), RuleGaveUp> {
        let untried = self.scratch.untried.get(number).copied().unwrap_or(0);
        if highest < untried {
            return Ok(());
        }
        let (line, bounds) = self.lines.holding(highest);
        let lowest = bounds.start.max(untried).max(place.saturating_sub(compiled.back.bytes_max));
        let (mut start, mut is_asked) = (highest, false);
        if lowest < highest {
            start = place;
            while start > lowest
                && compiled.back.through.holds(self.text.get(start - 1).copied().unwrap_or(0))
            {
                start -= 1;
                // To go on to the left may take longer than to ask.
                if start + STARTS_TO_ASK == highest {
                    is_asked = true;
                    if !self.goes_on(number, compiled, line, &bounds, place, STARTS_TO_ASK)? {
                        return Ok(());
                    }
                }
            }
        }
        if start > highest {
            return Ok(());
        }
        let text = self.text;
        let alone = text.get(bounds.clone()).unwrap_or(&[]);
        let are_many = lowest < highest;
        let may_begin = |start: usize| {
            let at = start - bounds.start;
            text.get(start).is_some_and(|byte| compiled.first.holds(*byte))
                && (!are_many || compiled.verifier.may_begin(alone, at))
                && compiled.gate.is_none_or(|gate| gate(alone, at))
        };
        let Some(first) = (start..=highest).find(|start| may_begin(*start)) else {
            return self.tried(number, highest + 1);
        };
        if are_many
            && !is_asked
            && !self.goes_on(number, compiled, line, &bounds, place, highest + 1 - start)?
        {
            return Ok(());
        }
        start = first;
        while start <= highest {
            start =
                self.attempt(rule, number, compiled, Place { line, bounds: &bounds, start, end: None })?;
            start = (start..=highest).find(|start| may_begin(*start)).unwrap_or(start.max(highest + 1));
        }
        self.tried(number, start)
    }

    /// A rule's starts before `end` have been tried.
    fn tried(&mut self, number: usize, end: usize) -> Result<(), RuleGaveUp> {
        if let Some(slot) = self.scratch.untried.get_mut(number) {
            *slot = (*slot).max(end);
        }
        Ok(())
    }

    /// Whether a match of a rule could go on behind its anchor's place, before which so many starts were looked at. Where it does not,
    /// another place is asked for the same starts: they are counted, so that this is not done for ever.
    fn goes_on(
        &mut self,
        number: usize,
        compiled: &Compiled,
        line: usize,
        bounds: &Range<usize>,
        place: usize,
        starts: usize,
    ) -> Result<bool, RuleGaveUp> {
        let Some(ahead) = &compiled.ahead else { return Ok(true) };
        let began = self.scanner.clock.map(|clock| clock());
        let Scratch { tallies, spending, .. } = &mut *self.scratch;
        let (Some(tally), Some(spending)) = (tallies.get_mut(number), spending.get_mut(number)) else {
            return Err(RuleGaveUp(number));
        };
        let alone = self.text.get(bounds.clone()).unwrap_or(&[]);
        spending.at_line(line);
        if spending.is_spent(alone.len()) {
            return Ok(true);
        }
        let at = place - bounds.start;
        let (stands, steps) = ahead.stands(alone, at, alone.len().min(at + compiled.verifier.window_bytes()));
        tally.steps += u64::try_from(steps).unwrap_or(0);
        spending.steps += u64::try_from(steps + starts).unwrap_or(0);
        if let (Some(clock), Some(began)) = (self.scanner.clock, began) {
            tally.nanoseconds += clock().saturating_sub(began);
        }
        Ok(stands)
    }

    /// Tries the rules that a walk from `start` named.
    fn named(
        &mut self,
        named: &[Named],
        line: usize,
        bounds: &Range<usize>,
        start: usize,
    ) -> Result<(), RuleGaveUp> {
        for Named { rule, end } in named {
            let number = usize::try_from(*rule).unwrap_or(usize::MAX);
            let untried = self.scratch.untried.get(number).copied().unwrap_or(0);
            let Some(compiled) = self.scanner.rules.get(number).filter(|_| start >= untried) else {
                continue;
            };
            let alone = self.text.get(bounds.clone()).unwrap_or(&[]);
            if compiled.gate.is_some_and(|gate| !gate(alone, start - bounds.start)) {
                continue;
            }
            let next = self.attempt(*rule, number, compiled, Place { line, bounds, start, end: *end })?;
            if let Some(slot) = self.scratch.untried.get_mut(number) {
                *slot = next;
            }
        }
        Ok(())
    }

    /// Walks from where words begin behind a word of context.
    fn behind(&mut self, place: usize, word: usize) -> Result<(), RuleGaveUp> {
        let scanner = self.scanner;
        let (line, bounds) = self.lines.holding(place);
        let end = bounds.end.min(place + CONTEXT_BYTES + 1);
        let from = self.scratch.unwalked.max(place + 1);
        if from >= end {
            return Ok(());
        }
        let alone = self.text.get(bounds.clone()).unwrap_or(&[]);
        let is_context = |context: &Context| context.may_stand_at(alone, place - bounds.start);
        if scanner
            .walks
            .contexts
            .get(word)
            .and_then(Option::as_ref)
            .is_some_and(|context| !is_context(context))
        {
            return Ok(());
        }
        self.scratch.unwalked = end;
        let mut walked = std::mem::take(&mut self.scratch.walked_behind);
        walked.clear();
        let starts = |start: &usize| {
            is_word(self.text.get(*start).copied()) && !is_word(self.text.get(start - 1).copied())
        };
        let starts = (from..end).filter(starts);
        let walk = |start: usize| Walk { line: alone, at: start - bounds.start };
        scanner.walks.behind.all(starts.clone().map(walk), &mut walked);
        for (number, start) in starts.enumerate() {
            self.named(walked.of(number), line, &bounds, start)?;
        }
        self.scratch.walked_behind = walked;
        Ok(())
    }

    /// Tries one rule at one start, and says where the rule may start next.
    fn attempt(
        &mut self,
        rule: u32,
        number: usize,
        compiled: &Compiled,
        place: Place<'_>,
    ) -> Result<usize, RuleGaveUp> {
        let Place { line, bounds, start, .. } = place;
        let began = self.scanner.clock.map(|clock| clock());
        let Scratch { caches, tallies, hits, rejected, spending, .. } = &mut *self.scratch;
        let (Some(cache), Some(tally), Some(spending)) =
            (caches.get_mut(number), tallies.get_mut(number), spending.get_mut(number))
        else {
            return Err(RuleGaveUp(number));
        };
        spending.at_line(line);
        let alone = self.text.get(bounds.clone()).unwrap_or(&[]);
        if !spending
            .allows(&compiled.exact, alone, start - bounds.start)
            .map_err(|GaveUp| RuleGaveUp(number))?
        {
            return Ok(start + 1);
        }
        let steps_before = tally.steps;
        let outcome = verify(compiled, cache, tally, self.text, place, self.names);
        if let (Some(clock), Some(began)) = (self.scanner.clock, began) {
            tally.nanoseconds += clock().saturating_sub(began);
        }
        spending.steps += tally.steps - steps_before;
        let outcome = outcome.map_err(|GaveUp| RuleGaveUp(number))?;
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        if let Some(part) = outcome.refused {
            let (line, start, end) = (narrow(line), narrow(part.start), narrow(part.end));
            let first = rejected.len().checked_sub(EVIDENCE_REJECTED_PER_LINE_MAX);
            if first.and_then(|first| rejected.get(first)).is_none_or(|first| first.line != line) {
                rejected.push(Hit { rule, line, start, end, match_start: start, match_end: end, weak: true });
            }
        }
        if let Some(part) = outcome.part {
            hits.push(Hit {
                rule,
                line: narrow(line),
                start: narrow(part.start),
                end: narrow(part.end),
                match_start: narrow(outcome.context.unwrap_or(start)),
                match_end: narrow(outcome.next),
                weak: compiled.weak && outcome.context.is_none(),
            });
        }
        Ok(outcome.next)
    }

    /// Rules without an anchor: one automaton finds their starts line by line.
    fn unanchored(&mut self, reverse: &Reverse) -> Result<(), RuleGaveUp> {
        let scanner = self.scanner;
        let mut starts = Vec::new();
        for line in 0..self.lines.count() {
            let bounds = self.lines.bound(line)..self.lines.bound(line + 1);
            let Some(text) = self.text.get(bounds.clone()) else { continue };
            let Some(cache) = self.scratch.reverse.as_mut() else { return Ok(()) };
            starts.clear();
            reverse.starts(cache, text, &mut starts).map_err(|GaveUp| RuleGaveUp(reverse.first_rule()))?;
            for (rule, at) in starts.drain(..).rev() {
                let number = usize::try_from(rule).unwrap_or(usize::MAX);
                let Some(compiled) = scanner.rules.get(number) else { continue };
                let start = bounds.start + at;
                if self.scratch.untried.get(number).is_some_and(|untried| start >= *untried) {
                    let next = self.attempt(
                        rule,
                        number,
                        compiled,
                        Place { line, bounds: &bounds, start, end: None },
                    )?;
                    if let Some(slot) = self.scratch.untried.get_mut(number) {
                        *slot = next;
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A start to try.
#[derive(Clone, Copy)]
struct Place<'a> {
    line: usize,
    /// Where the line begins and ends.
    bounds: &'a Range<usize>,
    start: usize,
    /// Where in the line the only match ends, if that is known.
    end: Option<usize>,
}

struct Outcome {
    /// What to redact, if anything.
    part: Option<Range<usize>>,
    /// What the check refused, for weak rules.
    refused: Option<Range<usize>>,
    /// Where the context that speaks for it starts, if any does.
    context: Option<usize>,
    /// Where the rule may start next.
    next: usize,
}

fn verify(
    compiled: &Compiled,
    cache: &mut VerifierCache,
    tally: &mut Tally,
    text: &[u8],
    place: Place<'_>,
    names: &Names,
) -> Result<Outcome, GaveUp> {
    let Place { bounds, start, end, .. } = place;
    let line = text.get(bounds.clone()).unwrap_or(&[]);
    let at = start - bounds.start;
    let attempt = match end.filter(|end| end - at <= compiled.verifier.window_bytes()) {
        Some(end) => Attempt { end: Some(end), value: None, steps: end - at },
        None => compiled.verifier.try_at(cache, line, at)?,
    };
    tally.candidates += 1;
    tally.steps += u64::try_from(attempt.steps).unwrap_or(0);
    let nothing = Outcome { part: None, refused: None, context: None, next: start + 1 };
    let Some(end) = attempt.end else { return Ok(nothing) };
    let part = match attempt.value {
        Some(value) => value,
        None => compiled.verifier.part(cache, line, at, end)?,
    };
    let in_text = |part: Range<usize>| bounds.start + part.start..bounds.start + part.end;
    let candidate = part.clone();
    let part = match compiled.check {
        None => Some(part),
        Some(check) => check(line, part),
    };
    let refused = (compiled.weak && part.is_none()).then(|| in_text(candidate));
    let context = compiled.context.as_ref().filter(|_| part.is_some());
    let context = context.and_then(|context| context.before(line, at));
    let Some(part) = part.filter(|_| context.is_some() || !compiled.context_required) else {
        tally.rejected += 1;
        return Ok(Outcome { refused, ..nothing });
    };
    // What a check cut off is free for the next match.
    let end = if compiled.verifier.has_groups() { end } else { part.end };
    let next = bounds.start + end.max(at + 1);
    let part = names.outside(line, whole_characters(line, part));
    tally.matches += u64::from(part.is_some());
    let context = context.map(|context| bounds.start + context);
    Ok(Outcome { part: part.map(in_text), refused: None, context, next })
}

/// The span grown to character boundaries, so that what is left of the line stays UTF-8.
pub(crate) fn whole_characters(line: &[u8], span: Range<usize>) -> Range<usize> {
    let continues = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let (mut start, mut end) = (span.start, span.end);
    while start > 0 && span.start - start < 3 && continues(start) {
        start -= 1;
    }
    while end < line.len() && end - span.end < 3 && continues(end) {
        end += 1;
    }
    start..end
}

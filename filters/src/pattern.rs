//! A rule's pattern: checked, and compiled to what verifies a candidate.
//!
//! What a rule means, and what every faster path is held to: at a start `s` of a line the rule matches `[s, e)` when the
//! anchored leftmost-first search from `s`, which reads no further than the rule's window (plus one byte to see whether a word
//! ends) and never outside the line, finds `e`. Starts are tried from left to right, each once; after a match that the
//! validator accepts the next start is the match's end.

use std::ops::Range;
use std::sync::OnceLock;

use regex_automata::hybrid;
use regex_automata::nfa::thompson;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::Hir;

use crate::advice;
use crate::error::RuleFault;
use crate::limits::{PATTERN_NFA_BYTES_MAX, VERIFIER_LAZY_BYTES_MAX, WINDOW_BYTES_DEFAULT};
use crate::rule::{Redact, Rule};
use crate::tagged::{Found, Tagged};

/// Patterns are over bytes and ASCII; `(?u:...)` asks for Unicode in a part.
pub(crate) fn syntax_config() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn thompson_config() -> thompson::Config {
    thompson::Config::new().utf8(false).nfa_size_limit(Some(PATTERN_NFA_BYTES_MAX))
}

/// A pattern that may become a rule: it parses, cannot match nothing, and is not too large.
pub(crate) struct Pattern {
    pub(crate) hir: Hir,
    pub(crate) window_bytes: usize,
}

impl Pattern {
    /// Checks a rule's pattern, also how large it becomes. What passes here compiles later.
    pub(crate) fn check(rule: &Rule) -> Result<Pattern, RuleFault> {
        let pattern = Pattern::parse(rule)?;
        let automaton = thompson::Compiler::new()
            .syntax(syntax_config())
            .configure(thompson_config())
            .build_from_hir(&pattern.hir);
        automaton.map(|_| pattern).map_err(|_| {
            let reason = format!("pattern is too large: its automaton exceeds {PATTERN_NFA_BYTES_MAX} bytes");
            let fault =
                RuleFault::new(&rule.id, reason, "use smaller repetition counts, `+` and window_bytes");
            match advice::largest_repetition(&rule.pattern).filter(|_| !rule.is_assignment) {
                Some(span) => fault.at(span),
                None => fault,
            }
        })
    }

    /// Parses a text that is called `what` in its rule.
    pub(crate) fn syntax(rule: &str, what: &str, text: &str) -> Result<Hir, RuleFault> {
        syntax::parse_with(text, &syntax_config()).map_err(|error| advice::syntax(rule, what, &error))
    }

    /// Reads the pattern of a rule that was checked when it was read from its file.
    pub(crate) fn parse(rule: &Rule) -> Result<Pattern, RuleFault> {
        let fault = |reason: String, instead: &str| RuleFault::new(&rule.id, reason, instead);
        let hir = Pattern::syntax(&rule.id, "pattern", &rule.pattern)?;
        let properties = hir.properties();
        if properties.minimum_len().unwrap_or(0) == 0 {
            return Err(fault(
                "pattern matches the empty string".into(),
                "ask for at least one character, `+` for `*`",
            )
            .at(0..rule.pattern.len()));
        }
        if properties.look_set().contains_word_unicode() {
            return Err(fault("pattern has a Unicode word boundary".into(), "write \\b outside of (?u:...)"));
        }
        let groups = properties.explicit_captures_len();
        match rule.redact {
            Redact::Group if groups == 0 => {
                return Err(fault(
                    "redact is \"group\" and the pattern has none".into(),
                    "put ( ) around the value",
                ));
            }
            _ => {}
        }
        let longest = properties.maximum_len().unwrap_or(WINDOW_BYTES_DEFAULT).min(WINDOW_BYTES_DEFAULT);
        Ok(Pattern { hir, window_bytes: rule.window_bytes.unwrap_or(longest) })
    }
}

/// What an anchored match attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The end of the match.
    pub(crate) end: Option<usize>,
    /// What is to be redacted of it, where that is known without looking again.
    pub(crate) value: Option<Range<usize>>,
    /// How many bytes were read.
    pub(crate) steps: usize,
}

/// The automaton gave up; the caller must withhold the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GaveUp;

enum Machine {
    Tagged(Box<Tagged>),
    Lazy(Box<hybrid::dfa::DFA>),
}

impl Machine {
    fn is_telling(&self) -> bool {
        matches!(self, Machine::Tagged(automaton) if automaton.is_telling())
    }
}

/// Decides whether a rule matches at a given start. Its automata are built when they are first needed: most rules of a large set
/// never see a candidate, and a program is to start at once.
pub(crate) struct Verifier {
    pattern: String,
    redact: Redact,
    machine: OnceLock<Option<Machine>>,
    groups: OnceLock<Option<meta::Regex>>,
    window_bytes: usize,
}

/// What one thread needs to run a verifier; made when it is first needed.
#[derive(Default)]
pub(crate) struct VerifierCache {
    lazy: Option<hybrid::dfa::Cache>,
    groups: Option<(meta::Cache, regex_automata::util::captures::Captures)>,
}

impl Verifier {
    pub(crate) fn new(rule: &Rule, pattern: &Pattern) -> Verifier {
        Verifier {
            pattern: rule.pattern.clone(),
            redact: rule.redact,
            machine: OnceLock::new(),
            groups: OnceLock::new(),
            window_bytes: pattern.window_bytes,
        }
    }

    /// The automaton; nothing where it cannot be built, which [`Pattern::check`] rules out.
    fn machine(&self) -> Option<&Machine> {
        self.machine.get_or_init(|| built(&self.pattern, self.redact)).as_ref()
    }

    fn groups(&self) -> Option<&meta::Regex> {
        let build = || {
            meta::Builder::new()
                .syntax(syntax_config())
                .configure(meta::Config::new().utf8_empty(false).nfa_size_limit(Some(PATTERN_NFA_BYTES_MAX)))
                .build(&self.pattern)
                .ok()
        };
        self.groups.get_or_init(build).as_ref()
    }

    /// How much memory the automaton takes, in bytes. Builds it.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self.machine() {
            Some(Machine::Tagged(automaton)) => automaton.memory_bytes(),
            Some(Machine::Lazy(_)) => VERIFIER_LAZY_BYTES_MAX,
            None => 0,
        }
    }

    /// How far a match may reach, in bytes.
    pub(crate) fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Whether only a group of a match is redacted.
    pub(crate) fn has_groups(&self) -> bool {
        self.redact == Redact::Group
    }

    /// Whether the automaton is small enough to be worked out whole. Builds it.
    pub(crate) fn is_precomputed(&self) -> bool {
        matches!(self.machine(), Some(Machine::Tagged(_)))
    }

    /// Whether a match could begin at `start` of `line`: quick, for places with many starts before them.
    #[inline]
    pub(crate) fn may_begin(&self, line: &[u8], start: usize) -> bool {
        match self.machine() {
            Some(Machine::Tagged(automaton)) => automaton.may_begin(line, start),
            Some(Machine::Lazy(_)) | None => true,
        }
    }

    /// The anchored search from `start` in `line`.
    #[inline]
    pub(crate) fn try_at(
        &self,
        cache: &mut VerifierCache,
        line: &[u8],
        start: usize,
    ) -> Result<Attempt, GaveUp> {
        let limit = line.len().min(start.saturating_add(self.window_bytes));
        match self.machine().ok_or(GaveUp)? {
            Machine::Tagged(automaton) => {
                let (found, steps) = automaton.run(line, start, limit);
                let (end, value) = found.map(|Found { end, value }| (end, value)).unzip();
                Ok(Attempt { end, value: value.filter(|_| automaton.is_telling()), steps })
            }
            Machine::Lazy(dfa) => {
                run_lazy(dfa, cache.lazy.get_or_insert_with(|| dfa.create_cache()), line, start, limit)
            }
        }
    }

    /// The part of a match that is to be redacted, for matches whose attempt did not say.
    pub(crate) fn part(
        &self,
        cache: &mut VerifierCache,
        line: &[u8],
        start: usize,
        end: usize,
    ) -> Result<Range<usize>, GaveUp> {
        if !self.has_groups() {
            return Ok(start..end);
        }
        if let Some(Machine::Tagged(automaton)) = self.machine().filter(|machine| machine.is_telling()) {
            let limit = line.len().min(start.saturating_add(self.window_bytes));
            return automaton.run(line, start, limit).0.map(|found| found.value).ok_or(GaveUp);
        }
        let regex = self.groups().ok_or(GaveUp)?;
        let (cache, captures) =
            cache.groups.get_or_insert_with(|| (regex.create_cache(), regex.create_captures()));
        let input = Input::new(line).span(start..end).anchored(Anchored::Yes);
        regex.search_captures_with(cache, &input, captures);
        let whole = captures.get_match().ok_or(GaveUp)?;
        let group = (1..captures.group_len()).find_map(|index| captures.get_group(index));
        Ok(group.map_or(whole.range(), |span| span.range()))
    }
}

fn built(pattern: &str, redact: Redact) -> Option<Machine> {
    let hir = syntax::parse_with(pattern, &syntax_config()).ok()?;
    if let Some(automaton) = Tagged::new(&hir, redact) {
        return Some(Machine::Tagged(Box::new(automaton)));
    }
    let lazy = hybrid::dfa::Builder::new()
        .syntax(syntax_config())
        .thompson(thompson_config())
        .configure(
            hybrid::dfa::Config::new()
                .cache_capacity(VERIFIER_LAZY_BYTES_MAX)
                .skip_cache_capacity_check(true)
                .minimum_cache_clear_count(None),
        )
        .build(pattern);
    lazy.ok().map(|dfa| Machine::Lazy(Box::new(dfa)))
}

fn run_lazy(
    dfa: &hybrid::dfa::DFA,
    cache: &mut hybrid::dfa::Cache,
    line: &[u8],
    from: usize,
    limit: usize,
) -> Result<Attempt, GaveUp> {
    let before = from.checked_sub(1).and_then(|at| line.get(at)).copied();
    let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
    let mut state = dfa.start_state(cache, &config).map_err(|_| GaveUp)?;
    let window = line.get(from..limit).unwrap_or(&[]);
    let mut end = None;
    for (at, byte) in window.iter().enumerate() {
        state = dfa.next_state(cache, state, *byte).map_err(|_| GaveUp)?;
        if state.is_tagged() {
            if state.is_match() {
                end = Some(from + at);
            } else if state.is_dead() {
                return Ok(Attempt { end, value: None, steps: at + 1 });
            } else if state.is_quit() {
                return Err(GaveUp);
            }
        }
    }
    state = match line.get(limit) {
        Some(byte) => dfa.next_state(cache, state, *byte),
        None => dfa.next_eoi_state(cache, state),
    }
    .map_err(|_| GaveUp)?;
    if state.is_match() {
        end = Some(limit);
    }
    Ok(Attempt { end, value: None, steps: window.len() + 1 })
}

//! What rules mean, done plainly: one regex after another over each line by itself, every start from left to right.
//!
//! Shares nothing with the fast way but the patterns, the validators and the words of a context. Slow, and so for tests, for the
//! bench, and for scanning again in the background what has been scanned.
//!
//! What always holds: the answer is that of trying the anchored match at every start of a line. Starts at which not even an
//! unbounded match begins are passed over, for a match that reads no further than the rule's window is one that may read on.

use std::collections::BTreeSet;

use beeacon_record::schema::Column;
use beeacon_record::{Batch, Position};
use regex_automata::util::captures::Captures;
use regex_automata::{Anchored, Input, meta};

use crate::checks::Check;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{FilterError, RuleFault, RulesError};
use crate::limits::PATTERN_NFA_BYTES_MAX;
use crate::marker::Names;
use crate::pattern::{Pattern, syntax_config};
use crate::rule::{Redact, Rule};

/// What a rule found. Positions are in the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) rule: usize,
    pub(crate) line: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

struct PlainRule {
    regex: meta::Regex,
    window_bytes: usize,
    has_group: bool,
    check: Option<Check>,
    /// The words of which one is asked for before a value.
    required: Option<Context>,
}

/// Rules as they are meant.
pub(crate) struct Reference {
    rules: Vec<PlainRule>,
}

impl Reference {
    /// Makes them ready. Their order gives their numbers.
    pub(crate) fn new<'a>(rules: impl Iterator<Item = &'a Rule>) -> Result<Reference, RulesError> {
        let rules: Result<Vec<PlainRule>, RuleFault> = rules.map(plain).collect();
        Ok(Reference { rules: rules.map_err(|fault| RulesError(vec![fault]))? })
    }

    /// Everything that every rule finds in the lines between consecutive `offsets` of `text`.
    pub(crate) fn find(&self, text: &[u8], offsets: &[i32], names: &Names) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        let bounds: Vec<usize> = offsets.iter().map(|offset| usize::try_from(*offset).unwrap_or(0)).collect();
        for (number, rule) in self.rules.iter().enumerate() {
            let (mut cache, mut captures) = (rule.regex.create_cache(), rule.regex.create_captures());
            for (line, pair) in bounds.windows(2).enumerate() {
                let &[from, to] = pair else { continue };
                let Some(alone) = text.get(from..to) else { continue };
                rule.line(alone, names, &mut cache, &mut captures, |start, end| {
                    found.insert(Found { rule: number, line, start: from + start, end: from + end });
                });
            }
        }
        found
    }
}

fn plain(rule: &Rule) -> Result<PlainRule, RuleFault> {
    let config = meta::Config::new().utf8_empty(false).nfa_size_limit(Some(PATTERN_NFA_BYTES_MAX));
    let regex = meta::Builder::new().syntax(syntax_config()).configure(config).build(&rule.pattern);
    let regex =
        regex.map_err(|_| RuleFault::new(&rule.id, "pattern cannot compile", "use a simpler pattern"))?;
    Ok(PlainRule {
        regex,
        window_bytes: Pattern::parse(rule)?.window_bytes,
        has_group: rule.redact == Redact::Group,
        check: rule.validator.as_ref().map(|(_, check)| *check),
        required: Context::new(&rule.context).filter(|_| rule.context_required),
    })
}

impl PlainRule {
    fn line(
        &self,
        line: &[u8],
        names: &Names,
        cache: &mut meta::Cache,
        captures: &mut Captures,
        mut found: impl FnMut(usize, usize),
    ) {
        let mut start = 0;
        while start < line.len() {
            let ahead = self.regex.search_with(cache, &Input::new(line).span(start..line.len()));
            let Some(ahead) = ahead else { return };
            start = ahead.start();
            let limit = line.len().min(start.saturating_add(self.window_bytes));
            let input = Input::new(line).span(start..limit).anchored(Anchored::Yes);
            self.regex.search_captures_with(cache, &input, captures);
            let Some(whole) = captures.get_match().map(|whole| whole.range()) else {
                start += 1;
                continue;
            };
            let group = (1..captures.group_len()).find_map(|group| captures.get_group(group));
            let part = group.filter(|_| self.has_group).map_or(whole.clone(), |group| group.range());
            let checked = match self.check {
                None => Some(part),
                Some(check) => check(line, part),
            };
            let is_named = self.required.as_ref().is_none_or(|context| context.before(line, start).is_some());
            let Some(mut part) = checked.filter(|_| is_named) else {
                start += 1;
                continue;
            };
            let end = if self.has_group { whole.end } else { part.end };
            // The span grows to whole characters, which go on for three bytes at most; more is no text.
            let continues = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
            for _ in 0..3 {
                part.start -= usize::from(part.start > 0 && continues(part.start));
            }
            for _ in 0..3 {
                part.end += usize::from(continues(part.end));
            }
            if let Some(part) = names.outside(line, part) {
                found(part.start, part.end);
            }
            start = end.max(start + 1);
        }
    }
}

/// What one rule found otherwise than it is meant to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The rule's id.
    pub rule: String,
    /// What the plain meaning finds and the fast way did not.
    pub missed: u64,
    /// What the fast way found beyond that.
    pub extra: u64,
    /// The line of the first of them, from 0.
    pub line: usize,
    /// Its first byte in the line.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
    /// The source and the position of that line, where it is a row of a batch.
    pub place: Option<(String, Position)>,
}

/// The fast way beside the plain meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many findings both have.
    pub same: u64,
    /// Rules that differ; empty is what should come out.
    pub differences: Vec<Difference>,
}

impl Engine {
    /// Scans lines, which lie between consecutive `offsets` (the first is 0, the last the text's length), in the fast way and by
    /// the plain meaning of each rule, and compares. A hundred times slower than scrubbing.
    ///
    /// ```
    /// # use beeacon_filters::{Engine, EngineOptions};
    /// let engine = Engine::new(EngineOptions::default()).unwrap();
    /// let compared = engine.compare(b"from bob@example.org", &[0, 20]).unwrap();
    /// assert_eq!((compared.same, compared.differences.len()), (1, 0));
    /// ```
    ///
    /// # Errors
    /// As for [`Engine::scan`].
    pub fn compare(&self, text: &[u8], offsets: &[i32]) -> Result<Comparison, FilterError> {
        let (fast, plain) = self.both_ways(text, offsets)?;
        let mut comparison = Comparison { same: count(fast.intersection(&plain)), ..Comparison::default() };
        let differing: BTreeSet<usize> = plain.symmetric_difference(&fast).map(|found| found.rule).collect();
        for (number, active) in self.rules().iter().enumerate().filter(|(rule, _)| differing.contains(rule)) {
            let missed = count(plain.difference(&fast).filter(|found| found.rule == number));
            let extra = count(fast.difference(&plain).filter(|found| found.rule == number));
            let first = plain.symmetric_difference(&fast).find(|found| found.rule == number);
            if let Some(Found { line, start, end, .. }) = first {
                let base = offsets.get(*line).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
                comparison.differences.push(Difference {
                    rule: active.rule.id.clone(),
                    missed,
                    extra,
                    line: *line,
                    start: start - base,
                    end: end - base,
                    place: None,
                });
            }
        }
        Ok(comparison)
    }

    /// [`Engine::compare`] over the messages of a batch, those of every scope by its own rules.
    ///
    /// # Errors
    /// As for [`Engine::scrub`].
    pub fn compare_batch(&self, batch: &Batch) -> Result<Comparison, FilterError> {
        let mut whole = Comparison::default();
        for (engine, part) in self.parts(batch)? {
            let compared = engine.compare_messages(&part)?;
            whole.same += compared.same;
            whole.differences.extend(compared.differences);
        }
        Ok(whole)
    }

    fn compare_messages(&self, batch: &Batch) -> Result<Comparison, FilterError> {
        let messages = batch.messages();
        let offsets = messages.value_offsets();
        let first = offsets.first().copied().unwrap_or(0);
        let offsets: Vec<i32> = offsets.iter().map(|offset| offset - first).collect();
        let from = usize::try_from(first).unwrap_or(0);
        let to = from + usize::try_from(offsets.last().copied().unwrap_or(0)).unwrap_or(0);
        let mut compared = self.compare(messages.value_data().get(from..to).unwrap_or(&[]), &offsets)?;
        let (keys, names) = batch.dictionary_column(Column::Source)?;
        for difference in &mut compared.differences {
            let key = keys.values().get(difference.line).and_then(|key| usize::try_from(*key).ok());
            let name = key.and_then(|key| names.iter().nth(key).flatten());
            difference.place = name.map(str::to_owned).zip(batch.positions().nth(difference.line));
        }
        Ok(compared)
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

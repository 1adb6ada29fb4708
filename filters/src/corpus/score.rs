//! How much of what is labelled is taken out, and how much that is not: through the real path, batches in and batches out.

use std::collections::BTreeMap;

use arrow_array::{Array, StringArray, StructArray, UInt32Array};
use beeacon_record::{Batch, BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};

use super::labelled::Labelled;
use crate::{Continuity, Engine};

/// Of one kind of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindScore {
    /// How many stood in the text.
    pub labelled: u64,
    /// How many of them are gone.
    pub removed: u64,
}

/// What came of a labelled corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Per kind of values.
    pub kinds: BTreeMap<&'static str, KindScore>,
    /// Redactions beyond the labels of a row, by rule; in a row with labels by the rules of that row.
    pub extra: BTreeMap<String, u64>,
    /// Where something was missed or taken out too much: kind or rule, and the number of the line. The first few.
    pub lines: Vec<(String, usize)>,
}

/// The rules for cards.
pub const CARDS: &[&str] = &["credit_card", "credit_card_grouped", "credit_card_long", "credit_card_short"];

/// The most of them.
const LINES_MAX: usize = 200;

impl Score {
    /// Part of the labelled values that is gone.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn recall(&self) -> f64 {
        let sum = |of: fn(&KindScore) -> u64| self.kinds.values().map(of).sum::<u64>() as f64;
        sum(|kind| kind.removed) / sum(|kind| kind.labelled).max(1.0)
    }

    /// Part of the redactions that were labelled.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn precision(&self) -> f64 {
        let removed = self.kinds.values().map(|kind| kind.removed).sum::<u64>() as f64;
        removed / (removed + self.extra.values().sum::<u64>() as f64).max(1.0)
    }

    /// Recall of one kind, and precision when the redactions of these rules count against it.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn of(&self, kind: &str, rules: &[&str]) -> (f64, f64) {
        let found = self.kinds.get(kind).copied().unwrap_or_default();
        let extra: u64 = rules.iter().filter_map(|rule| self.extra.get(*rule)).sum();
        let removed = found.removed as f64;
        (removed / (found.labelled as f64).max(1.0), removed / (removed + extra as f64).max(1.0))
    }

    fn note(&mut self, what: &str, line: usize) {
        if self.lines.len() < LINES_MAX {
            self.lines.push((what.to_owned(), line));
        }
    }
}

/// Scrubs the lines in batches and compares with the labels.
///
/// # Errors
/// When the filter fails, or rows are not those that went in.
pub fn score(engine: &Engine, lines: &[Labelled]) -> Result<Score, Box<dyn std::error::Error>> {
    let mut score = Score::default();
    let (mut first, mut continuity) = (0, Continuity::default());
    for batch in batches(lines.iter().map(|line| line.text.as_str()))? {
        let rows = batch.rows();
        let (scrubbed, _) = engine.scrub_with(batch, &mut continuity)?;
        let scrubbed = scrubbed.get();
        if scrubbed.rows() != rows {
            return Err("rows were dropped".into());
        }
        for row in 0..rows {
            let Some(line) = lines.get(first + row) else { continue };
            judge(&mut score, first + row, line, scrubbed.messages().value(row), &redactions(scrubbed, row));
        }
        first += rows;
    }
    Ok(score)
}

/// What the column says was found in a row: rule and count.
pub fn redactions(batch: &Batch, row: usize) -> Vec<(String, u64)> {
    let list = batch.redactions().value(row);
    let Some(items) = list.as_any().downcast_ref::<StructArray>() else { return Vec::new() };
    let rules = items.columns().first().and_then(|column| column.as_any().downcast_ref::<StringArray>());
    let counts = items.columns().get(1).and_then(|column| column.as_any().downcast_ref::<UInt32Array>());
    let (Some(rules), Some(counts)) = (rules, counts) else { return Vec::new() };
    (0..items.len()).map(|at| (rules.value(at).to_owned(), u64::from(counts.value(at)))).collect()
}

fn judge(score: &mut Score, number: usize, line: &Labelled, out: &str, redactions: &[(String, u64)]) {
    for label in &line.labels {
        let kind = score.kinds.entry(label.kind).or_default();
        kind.labelled += 1;
        if is_gone(line, label.start, label.end, label.kind, out) {
            kind.removed += 1;
        } else {
            score.note(label.kind, number);
        }
    }
    let labelled = u64::try_from(line.labels.len()).unwrap_or(u64::MAX);
    let mut beyond = redactions.iter().map(|(_, count)| count).sum::<u64>().saturating_sub(labelled);
    for (rule, count) in redactions.iter().rev() {
        let extra = beyond.min(*count);
        if extra > 0 {
            *score.extra.entry(rule.clone()).or_default() += extra;
            score.note(rule, number);
            beyond -= extra;
        }
    }
}

/// Whether no eight bytes of a value are left that do not stand elsewhere in the line. Of an address its network may stay.
fn is_gone(line: &Labelled, start: usize, end: usize, kind: &str, out: &str) -> bool {
    let value = line.text.get(start..end).unwrap_or("");
    let part = if matches!(kind, "ipv4" | "ipv6") { value.len() } else { value.len().min(8) };
    let around = format!("{}\n{}", line.text.get(..start).unwrap_or(""), line.text.get(end..).unwrap_or(""));
    let parts = value.as_bytes().windows(part.max(1)).filter_map(|part| std::str::from_utf8(part).ok());
    let mut left = parts.filter(|part| out.contains(part) && !around.contains(part));
    left.next().is_none()
}

/// Batches of these lines, as an agent makes them of one container's log.
///
/// # Errors
/// When a line does not fit into a batch.
pub fn batches<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Batch>, Box<dyn std::error::Error>> {
    let source = Source::new("corpus:1")?;
    let (mut builder, mut batches) = (BatchBuilder::new("corpus"), Vec::new());
    let mut origin = builder.origin(&Origin::default(), &source);
    let (mut from, mut at) = (0, 0);
    let interval = |from, to| Interval::new(source.clone(), Position::new(1, from), Position::new(1, to));
    for line in lines {
        let about = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 1,
            stream: Stream::Stdout,
            level: Level::Info,
            position: Position::new(1, at),
        };
        builder.push(about, line.as_bytes());
        at += u64::try_from(line.len())? + 1;
        if builder.is_full() {
            batches.push(builder.finish(vec![interval(from, at)])?);
            origin = builder.origin(&Origin::default(), &source);
            from = at;
        }
    }
    batches.push(builder.finish(vec![interval(from, at)])?);
    Ok(batches)
}

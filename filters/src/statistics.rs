//! Counts: per rule and in total, since the engine was made. Never a value.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::action::Action;
use crate::scan::Tally;

#[derive(Default)]
struct Counters {
    candidates: AtomicU64,
    matches: AtomicU64,
    rejected: AtomicU64,
    steps: AtomicU64,
    nanoseconds: AtomicU64,
}

/// The engine's counters.
pub(crate) struct Board {
    rules: Vec<Counters>,
    lines: AtomicU64,
    bytes: AtomicU64,
    lines_redacted: AtomicU64,
    rows_dropped: AtomicU64,
    redactions: AtomicU64,
    failures: AtomicU64,
}

impl Board {
    pub(crate) fn new(rules: usize) -> Board {
        Board {
            rules: (0..rules).map(|_| Counters::default()).collect(),
            lines: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lines_redacted: AtomicU64::new(0),
            rows_dropped: AtomicU64::new(0),
            redactions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Adds what one scan counted, and empties it.
    pub(crate) fn add_tallies(&self, tallies: &mut [Tally]) {
        for (counters, tally) in self.rules.iter().zip(tallies) {
            if *tally == Tally::default() {
                continue;
            }
            counters.candidates.fetch_add(tally.candidates, Ordering::Relaxed);
            counters.matches.fetch_add(tally.matches, Ordering::Relaxed);
            counters.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
            counters.steps.fetch_add(tally.steps, Ordering::Relaxed);
            counters.nanoseconds.fetch_add(tally.nanoseconds, Ordering::Relaxed);
            *tally = Tally::default();
        }
    }

    pub(crate) fn add_report(&self, report: &ScrubReport) {
        self.lines.fetch_add(report.lines, Ordering::Relaxed);
        self.bytes.fetch_add(report.bytes, Ordering::Relaxed);
        self.lines_redacted.fetch_add(report.lines_redacted, Ordering::Relaxed);
        self.rows_dropped.fetch_add(report.rows_dropped, Ordering::Relaxed);
        let redactions = report.counts.iter().map(|count| count.count).sum();
        self.redactions.fetch_add(redactions, Ordering::Relaxed);
    }

    pub(crate) fn add_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read<'a>(&self, rules: impl Iterator<Item = (&'a str, Action)>) -> Statistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rules = self.rules.iter().zip(rules).map(|(counters, (rule, action))| RuleStatistics {
            rule: rule.to_owned(),
            action,
            candidates: load(&counters.candidates),
            matches: load(&counters.matches),
            rejected: load(&counters.rejected),
            bytes_verified: load(&counters.steps),
            nanoseconds: load(&counters.nanoseconds),
        });
        Statistics {
            lines: load(&self.lines),
            bytes: load(&self.bytes),
            lines_redacted: load(&self.lines_redacted),
            rows_dropped: load(&self.rows_dropped),
            redactions: load(&self.redactions),
            failures: load(&self.failures),
            rules: rules.collect(),
        }
    }
}

/// How often a rule found something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleCount {
    /// The rule's id.
    pub rule: String,
    /// How often.
    pub count: u64,
}

/// What one call did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScrubReport {
    /// Lines looked at.
    pub lines: u64,
    /// Bytes of text looked at: messages, attribute values, labels.
    pub bytes: u64,
    /// Lines in which something was found, tagged ones included.
    pub lines_redacted: u64,
    /// Rows left out because a rule says so. They are counted in the interval of their source, too.
    pub rows_dropped: u64,
    /// Per rule how often it named a finding, most frequent first. Labels are counted here only: they belong to no row.
    pub counts: Vec<RuleCount>,
}

impl ScrubReport {
    /// Adds what another call did.
    pub(crate) fn add(&mut self, other: ScrubReport) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.lines_redacted += other.lines_redacted;
        self.rows_dropped += other.rows_dropped;
        for count in other.counts {
            match self.counts.iter_mut().find(|known| known.rule == count.rule) {
                Some(known) => known.count += count.count,
                None => self.counts.push(count),
            }
        }
        self.counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
    }
}

impl Statistics {
    /// Adds what another engine did. A rule that both have keeps the action that it has here.
    pub(crate) fn add(&mut self, other: Statistics) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.lines_redacted += other.lines_redacted;
        self.rows_dropped += other.rows_dropped;
        self.redactions += other.redactions;
        self.failures += other.failures;
        for rule in other.rules {
            match self.rules.iter_mut().find(|known| known.rule == rule.rule) {
                Some(known) => {
                    known.candidates += rule.candidates;
                    known.matches += rule.matches;
                    known.rejected += rule.rejected;
                    known.bytes_verified += rule.bytes_verified;
                    known.nanoseconds += rule.nanoseconds;
                }
                None => self.rules.push(rule),
            }
        }
    }
}

/// One rule's price and yield.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleStatistics {
    /// The rule's id.
    pub rule: String,
    /// What happens to its findings.
    pub action: Action,
    /// Starts that were tried.
    pub candidates: u64,
    /// Matches that the validator accepted.
    pub matches: u64,
    /// Matches that the validator refused.
    pub rejected: u64,
    /// Bytes read while verifying candidates.
    pub bytes_verified: u64,
    /// Time spent verifying candidates; 0 unless the engine has a clock.
    pub nanoseconds: u64,
}

/// What the engine did since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Lines looked at.
    pub lines: u64,
    /// Bytes of text looked at.
    pub bytes: u64,
    /// Lines in which something was found.
    pub lines_redacted: u64,
    /// Rows left out.
    pub rows_dropped: u64,
    /// Findings, over all rules.
    pub redactions: u64,
    /// Calls that failed; their text was withheld.
    pub failures: u64,
    /// Per rule.
    pub rules: Vec<RuleStatistics>,
}

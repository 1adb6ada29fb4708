//! What can go wrong, and what the caller has to do about it.
//!
//! No message carries scanned text. Rule errors carry the rule's own text, which is configuration.

use std::fmt;
use std::ops::Range;

use beeacon_record::BatchError;

/// One fault in rules or profiles: where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// The rule or profile, by id, or the file's name when nothing was parsed.
    pub subject: String,
    /// What is wrong.
    pub reason: String,
    /// The bytes of the rule's pattern, or of its value, that are to blame.
    pub span: Option<Range<usize>>,
    /// What to write instead; may be empty.
    pub instead: String,
}

impl RuleFault {
    pub(crate) fn new(subject: &str, reason: impl Into<String>, instead: impl Into<String>) -> Self {
        RuleFault { subject: subject.to_owned(), reason: reason.into(), span: None, instead: instead.into() }
    }

    /// The same, with the bytes that are to blame.
    pub(crate) fn at(self, span: Range<usize>) -> Self {
        RuleFault { span: Some(span), ..self }
    }
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason)?;
        if let Some(span) = &self.span {
            write!(f, " (bytes {} to {})", span.start, span.end)?;
        }
        if self.instead.is_empty() { Ok(()) } else { write!(f, "; {}", self.instead) }
    }
}

/// Rules or profiles that do not make an engine. Every fault found, not only the first. The process must not ship logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rules do not make an engine: {}", list(.0))]
pub struct RulesError(pub Vec<RuleFault>);

fn list(faults: &[RuleFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// Why text was not scrubbed. Nothing of it may leave: keep it, and stop.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The filter panicked. The text is withheld.
    #[error("the pollen filter failed inside, the text is withheld")]
    Panicked,
    /// A pattern that runs cannot be compiled the plain way.
    #[error("a rule has no plain regex to compare with")]
    NoReference,
    /// A rule's automaton gave up.
    #[error("rule {rule} gave up while matching, the text is withheld")]
    GaveUp {
        /// The rule's id.
        rule: String,
    },
    /// A text is longer than one call may be.
    #[error("text has {bytes} bytes, allowed are {limit}")]
    TooLong {
        /// How long.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The scrubbed columns do not make a batch.
    #[error("scrubbed columns do not make a batch")]
    Batch(#[from] BatchError),
    /// The scrubbed text does not make a column.
    #[error("scrubbed text does not make a column")]
    Column,
}

/// Why bytes are no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too short or too long.
    #[error("key has {bytes} bytes, allowed are {min} to {max}")]
    Length {
        /// How long it is.
        bytes: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// All bytes alike: a placeholder, not a key.
    #[error("key consists of one byte repeated")]
    Constant,
}

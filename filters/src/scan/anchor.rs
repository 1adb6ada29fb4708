//! How a rule is found fast.
//!
//! Derived from the pattern where it starts with literals; said by a built-in rule where it does not; and otherwise the shared
//! automaton, which reads every byte.

use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, HirKind};

use super::shape::Shape;
use crate::error::RuleFault;
use crate::limits::LITERALS_PER_RULE_MAX;
use crate::pattern::{Pattern, syntax_config};
use crate::rule::Rule;

/// The shortest literal worth looking for, in bytes: one of two bytes stands in every other line.
const LITERAL_BYTES_MIN: usize = 3;

/// Something that stands in every match of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// A shape over byte classes.
    Shape(Shape),
    /// A text.
    Literal {
        /// The text.
        bytes: Vec<u8>,
        /// Whether ASCII case matters.
        ignore_case: bool,
    },
    /// Nothing: every start has to be asked for.
    Automaton,
}

/// Where a match may start, given its anchor: at most so far back, through these bytes only.
#[derive(Clone, Debug, Default)]
pub(crate) struct LookBack {
    pub(crate) bytes_max: usize,
    pub(crate) through: ByteSet,
}

/// A set of byte values.
#[derive(Clone, Debug)]
pub(crate) struct ByteSet(Box<[bool; 256]>);

impl Default for ByteSet {
    fn default() -> Self {
        ByteSet(Box::new([false; 256]))
    }
}

impl ByteSet {
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a byte is a place in a table of 256")]
    pub(crate) fn holds(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    /// The set of a class such as `[a-z0-9]`.
    #[expect(clippy::indexing_slicing, reason = "a byte is a place in a table of 256")]
    fn parse(class: &str) -> Option<ByteSet> {
        let hir = regex_automata::util::syntax::parse_with(class, &syntax_config()).ok()?;
        let mut set = ByteSet::default();
        match hir.kind() {
            HirKind::Class(Class::Bytes(class)) => {
                for range in class.ranges() {
                    for byte in range.start()..=range.end() {
                        set.0[usize::from(byte)] = true;
                    }
                }
                Some(set)
            }
            _ => None,
        }
    }
}

/// The anchors of a rule, and how far back of them a match may start.
pub(crate) fn of(rule: &Rule, pattern: &Pattern) -> Result<(Vec<Anchor>, LookBack), RuleFault> {
    let Some(spec) = &rule.anchor else { return Ok((derived(pattern), LookBack::default())) };
    let fault = |reason: &str| RuleFault::new(&rule.id, reason, "correct [rule.anchor]");
    let mut anchors: Vec<Anchor> = spec
        .literals
        .iter()
        .map(|text| Anchor::Literal { bytes: text.as_bytes().to_vec(), ignore_case: spec.ignore_case })
        .collect();
    if let Some(name) = &spec.shape {
        anchors
            .push(Anchor::Shape(Shape::by_name(name).ok_or_else(|| fault("anchor names an unknown shape"))?));
    }
    if anchors.is_empty() || spec.literals.iter().any(String::is_empty) {
        return Err(fault("anchor says nothing"));
    }
    if spec.back_bytes == 0 {
        return Ok((anchors, LookBack::default()));
    }
    let through =
        ByteSet::parse(&spec.through).ok_or_else(|| fault("anchor's `through` is no class of bytes"))?;
    Ok((anchors, LookBack { bytes_max: spec.back_bytes, through }))
}

fn derived(pattern: &Pattern) -> Vec<Anchor> {
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix).limit_total(LITERALS_PER_RULE_MAX).limit_literal_len(16);
    let sequence = extractor.extract(&pattern.hir);
    let literals = sequence.literals().unwrap_or(&[]);
    let useful = !literals.is_empty() && literals.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN);
    if !useful {
        return vec![Anchor::Automaton];
    }
    let anchor = |bytes: &[u8]| Anchor::Literal { bytes: bytes.to_vec(), ignore_case: false };
    literals.iter().map(|literal| anchor(literal.as_bytes())).collect()
}

/// Anchors for people.
pub(crate) fn in_words(anchors: &[Anchor]) -> String {
    let words: Vec<String> = anchors
        .iter()
        .map(|anchor| match anchor {
            Anchor::Shape(shape) => format!("shape {}", shape.name()),
            Anchor::Literal { bytes, ignore_case } => {
                let case = if *ignore_case { ", any case" } else { "" };
                format!("literal {:?}{case}", String::from_utf8_lossy(bytes))
            }
            Anchor::Automaton => "shared automaton (reads every byte)".to_owned(),
        })
        .collect();
    words.join(" or ")
}

//! The coarse shape of rules that begin where a word does: which bytes may stand at the first places of a match.
//!
//! `\b[0-9]{3}-?[0-9]{2}` has the columns digit, digit, digit, digit or dash, digit. Columns of many rules are widened to a few
//! classes and merged while that is cheaper than telling them apart, so that a handful of conditions stands for all of them.
//!
//! What always holds: a place where a match begins fulfils the condition.

use std::collections::HashMap;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::anchor::first_bytes;
use super::bytes::ByteSet;
use super::program::{Condition, Graph};
use crate::corpus;

/// How many places are looked at.
const COLUMNS_MAX: usize = 10;

/// The shortest match that a condition can tell from ordinary text, in bytes.
const MATCH_BYTES_MIN: usize = 6;

/// The longest match that is walked along, in bytes.
const MATCH_BYTES_MAX: usize = 96;

/// What a walk, one more condition and one more class cost, in nanoseconds: for each place that passes, and per byte.
const WALK_NS: f64 = 35.0;
const CONDITION_NS: f64 = 0.004;
const CLASS_NS: f64 = 0.006;

/// How much made-up log text conditions are counted in, in bytes.
const SAMPLE_BYTES: usize = 16 << 10;

/// Whether every match begins with a byte of a word, at the start of the word, and is short.
pub(super) fn begins_word(hir: &Hir) -> bool {
    let word = ByteSet::parse("[0-9A-Za-z_]").unwrap_or_default();
    let short = hir.properties().maximum_len().is_some_and(|length| length <= MATCH_BYTES_MAX);
    short && asks_for_boundary(hir) && first_bytes(hir).within(&word)
}

fn asks_for_boundary(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Look(look) => matches!(look, Look::WordAscii | Look::WordStartAscii),
        HirKind::Capture(capture) => asks_for_boundary(&capture.sub),
        HirKind::Concat(parts) => parts.first().is_some_and(asks_for_boundary),
        HirKind::Alternation(ways) => ways.iter().all(asks_for_boundary),
        _ => false,
    }
}

/// Whether a condition on the first bytes says enough.
pub(super) fn is_telling(hir: &Hir) -> bool {
    hir.properties().minimum_len().unwrap_or(0) >= MATCH_BYTES_MIN
}

/// For each place the bytes that may stand there, or nothing where any may.
type Columns = Vec<Option<ByteSet>>;

/// The sets that letters and digits of a column are widened to. What else stands in a column stays as it is: it tells most.
const WIDENED: [&str; 5] = ["[0-9]", "[A-Z]", "[A-Z0-9]", "[A-Za-z]", "[A-Za-z0-9]"];

fn widened(set: &ByteSet) -> Option<ByteSet> {
    thread_local! {
        static SETS: Vec<ByteSet> = WIDENED.iter().filter_map(|class| ByteSet::parse(class)).collect();
    }
    if set.iter().any(|byte| byte >= 128) {
        return None;
    }
    let (mut letters, mut others) = (ByteSet::default(), ByteSet::default());
    for byte in set.iter() {
        if byte.is_ascii_alphanumeric() { letters.insert(byte) } else { others.insert(byte) }
    }
    if letters == ByteSet::default() {
        return Some(others);
    }
    let wide = SETS.with(|sets| sets.iter().find(|wide| letters.within(wide)).copied());
    wide.map(|wide| wide.union(others))
}

fn both(one: &Columns, other: &Columns) -> Columns {
    let pair = |(one, other): (&Option<ByteSet>, &Option<ByteSet>)| widened(&(*one)?.union((*other)?));
    let mut columns: Columns = one.iter().zip(other).map(pair).collect();
    while columns.last().is_some_and(Option::is_none) {
        columns.pop();
    }
    columns
}

/// The condition that holds wherever one of these begins.
pub(super) fn condition(hirs: &[&Hir], graph: &mut Graph) -> Condition {
    let mut all: Vec<Columns> = Vec::new();
    for way in hirs.iter().flat_map(|hir| ways(hir)) {
        let columns: Columns = columns(way).iter().map(widened).collect();
        if !all.contains(&columns) {
            all.push(columns);
        }
    }
    let mut whole: Option<Condition> = None;
    for columns in merged(all) {
        let node = columns.iter().rev().fold(None, |next, column| graph.exactly(column.as_ref(), next));
        let node = graph.at_boundary(node);
        whole = Some(match whole {
            None => node,
            Some(before) => graph.either(before, node),
        });
    }
    whole.flatten()
}

/// Merges columns while that is cheaper than telling them apart.
fn merged(all: Vec<Columns>) -> Vec<Columns> {
    let mut sample = Sample::new();
    let mut with_cost = |columns: Columns| {
        let many = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let mut classes: Vec<ByteSet> = columns.iter().flatten().copied().collect();
        classes.sort_unstable();
        classes.dedup();
        let steps = CONDITION_NS * many(columns.len()) + CLASS_NS * many(classes.len());
        let cost = steps + WALK_NS * sample.share(&columns);
        (columns, cost)
    };
    let mut groups: Vec<(Columns, f64)> = all.into_iter().map(&mut with_cost).collect();
    let mut pairs: HashMap<(Columns, Columns), (Columns, f64)> = HashMap::new();
    loop {
        let mut best: Option<(f64, usize, usize, (Columns, f64))> = None;
        for (first, (one, one_cost)) in groups.iter().enumerate() {
            for (second, (other, other_cost)) in groups.iter().enumerate().skip(first + 1) {
                let merged =
                    pairs.entry((one.clone(), other.clone())).or_insert_with(|| with_cost(both(one, other)));
                let saved = one_cost + other_cost - merged.1;
                if best.as_ref().map_or(saved >= 0.0, |(most, ..)| saved > *most) {
                    best = Some((saved, first, second, merged.clone()));
                }
            }
        }
        let Some((_, first, second, merged)) = best else { break };
        groups.remove(second);
        if let Some(slot) = groups.get_mut(first) {
            *slot = merged;
        }
    }
    groups.into_iter().map(|(columns, _)| columns).collect()
}

/// Made-up log text as a lane of bits for each set, and one for starts of words.
struct Sample {
    text: Vec<u8>,
    lanes: HashMap<ByteSet, Vec<u64>>,
    starts: Vec<u64>,
}

impl Sample {
    fn new() -> Sample {
        let text = corpus::mixed(11, SAMPLE_BYTES).into_bytes();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let before = |at: usize| at.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or(b' ');
        let starts = lane(&text, |at, byte| is_word(byte) && !is_word(before(at)));
        Sample { text, lanes: HashMap::new(), starts }
    }

    /// How much of the text fulfils a condition, from 0 to 1.
    fn share(&mut self, columns: &Columns) -> f64 {
        let mut passing = self.starts.clone();
        for (by, set) in columns.iter().enumerate() {
            let Some(set) = set else { continue };
            let lane = self.lanes.entry(*set).or_insert_with(|| lane(&self.text, |_, byte| set.holds(byte)));
            let behind = lane.iter().skip(1).copied().chain([0]);
            for ((slot, word), next) in passing.iter_mut().zip(&*lane).zip(behind) {
                // `by` is less than a word.
                *slot &= if by == 0 { *word } else { word >> by | next << (64 - by) };
            }
        }
        let count: u32 = passing.iter().map(|word| word.count_ones()).sum();
        f64::from(count) / f64::from(u32::try_from(SAMPLE_BYTES).unwrap_or(u32::MAX))
    }
}

fn lane(text: &[u8], holds: impl Fn(usize, u8) -> bool) -> Vec<u64> {
    let bits = |(word, chunk): (usize, &[u8])| {
        let bit = |(at, byte): (usize, &u8)| u64::from(holds(64 * word + at, *byte)) << at;
        chunk.iter().enumerate().map(bit).sum()
    };
    text.chunks(64).enumerate().map(bits).collect()
}

/// The ways of an alternation, or the one way.
pub(super) fn ways(hir: &Hir) -> Vec<&Hir> {
    match hir.kind() {
        HirKind::Capture(capture) => ways(&capture.sub),
        HirKind::Alternation(all) => all.iter().flat_map(ways).collect(),
        _ => vec![hir],
    }
}

/// The bytes that may stand at each of the places that every match has.
fn columns(hir: &Hir) -> Vec<ByteSet> {
    let mut columns = [ByteSet::default(); COLUMNS_MAX];
    walk(hir, 1, &mut columns);
    let length = hir.properties().minimum_len().unwrap_or(0).min(COLUMNS_MAX);
    columns.into_iter().take(length).collect()
}

/// Adds what a part may put at each place, given where it may start, and says where it may end: bits of places.
fn walk(hir: &Hir, starts: u32, columns: &mut [ByteSet; COLUMNS_MAX]) -> u32 {
    const INSIDE: u32 = (1 << (COLUMNS_MAX + 1)) - 1;
    let mut put = |set: ByteSet, starts: u32| {
        for (place, column) in columns.iter_mut().enumerate() {
            if starts >> place & 1 == 1 {
                *column = column.union(set);
            }
        }
        starts << 1 & INSIDE
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => starts,
        HirKind::Literal(literal) => literal.0.iter().fold(starts, |at, byte| put(ByteSet::one(*byte), at)),
        HirKind::Class(Class::Bytes(class)) => put(ByteSet::of_class(class), starts),
        // A character of one to four bytes.
        HirKind::Class(Class::Unicode(_)) => {
            let mut ends = 0;
            let mut at = starts;
            for _ in 0..4 {
                at = put(ByteSet::ALL, at);
                ends |= at;
            }
            ends
        }
        HirKind::Capture(capture) => walk(&capture.sub, starts, columns),
        HirKind::Concat(parts) => parts.iter().fold(starts, |at, part| walk(part, at, columns)),
        HirKind::Alternation(ways) => ways.iter().fold(0, |ends, way| ends | walk(way, starts, columns)),
        HirKind::Repetition(repetition) => {
            let mut at = starts;
            for _ in 0..repetition.min.min(u32::try_from(COLUMNS_MAX).unwrap_or(u32::MAX)) {
                at = walk(&repetition.sub, at, columns);
            }
            let mut ends = at;
            let more = repetition.max.map_or(u32::MAX, |max| max - repetition.min);
            for _ in 0..more.min(u32::try_from(COLUMNS_MAX).unwrap_or(u32::MAX)) {
                at = walk(&repetition.sub, at, columns);
                ends |= at;
            }
            ends
        }
    }
}

#[cfg(test)]
mod tests {
    use regex_automata::util::syntax;

    use super::*;
    use crate::pattern::syntax_config;

    fn parsed(pattern: &str) -> Hir {
        syntax::parse_with(pattern, &syntax_config()).unwrap()
    }

    #[test]
    fn columns_hold_what_may_stand_at_each_place() {
        let set = |text: &str| ByteSet::parse(text).unwrap();
        let digit = set("[0-9]");
        assert_eq!(columns(&parsed(r"\b[0-9]{2}-?[0-9]{2}\b")), [digit, digit, set("[0-9-]"), digit]);
        assert_eq!(columns(&parsed("(?:ab|c[0-9])x")), [set("[ac]"), set("[b0-9]"), set("x")]);
        assert_eq!(columns(&parsed("a{2,}b")), [set("a"), set("a"), set("[ab]")]);
        assert_eq!(columns(&parsed("[0-9]{30}")).len(), COLUMNS_MAX);
    }

    #[test]
    fn what_begins_a_word_says_so() {
        for pattern in [r"\b[0-9]{3}", r"(\bab|\bc)d", r"\b(?:x|[0-9])y"] {
            assert!(begins_word(&parsed(pattern)), "{pattern}");
        }
        for pattern in ["[0-9]{3}", r"\b-?[0-9]", r"\bab|cd", r"\B[0-9]", r"\b[0-9]{3,}"] {
            assert!(!begins_word(&parsed(pattern)), "{pattern}");
        }
    }
}

//! The coarse shape of rules that begin where a word does: which bytes may stand at the first places of a match.
//!
//! `\b[0-9]{3}-?[0-9]{2}\b` has the columns digit, digit, digit, digit or dash, digit, and a word ends five or six bytes on. Columns of
//! many rules are widened to a few classes and merged while that is cheaper than telling them apart, so that a handful of conditions
//! stands for all of them.
//!
//! What always holds: a place where a match begins fulfils the condition.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::anchor::first_bytes;
use super::bytes::ByteSet;
use super::program::{Condition, Graph};
use crate::corpus;

/// How many places are looked at, and how far away an end may be.
const COLUMNS_MAX: usize = 20;
const ENDS_MAX: usize = 40;

/// Ends that are told apart: more say little, and cost as much as a walk.
const ENDS_TOLD_MAX: u32 = 12;

/// The shortest match that a condition can tell from ordinary text, in bytes.
const MATCH_BYTES_MIN: usize = 5;

/// How much of ordinary text may look like a match that begins with a letter.
const SHARE_MAX: f64 = 0.002;

/// The longest match that is walked along, in bytes.
const MATCH_BYTES_MAX: usize = 128;

/// What a walk, one more condition and one more class cost, in nanoseconds: for each place that passes, and per byte.
const WALK_NS: f64 = 40.0;
const CONDITION_NS: f64 = 0.0017;
const CLASS_NS: f64 = 0.005;

/// How much of ordinary text a way's columns let pass before shapes are tried, and how far such shapes look, in bytes. The first bytes
/// often say nearly as much as all.
const SHARE_SHAPED_MIN: f64 = 0.0005;
const SHAPED_BYTES: [usize; 6] = [6, 9, 12, 16, 24, 40];

/// How much made-up log text conditions are counted in, in bytes.
const SAMPLE_BYTES: usize = 16 << 10;
const SAMPLE_BYTES_REAL: f64 = 16_384.0;

/// Whether every match begins with a byte of a word, at the start of the word, and is short.
pub(super) fn begins_word(hir: &Hir) -> bool {
    let word = ByteSet::parse("[0-9A-Za-z_]").unwrap_or_default();
    let short = hir.properties().maximum_len().is_some_and(|length| length <= MATCH_BYTES_MAX);
    short && asks_for_boundary(hir) && first_bytes(hir).within(&word)
}

/// Whether every match asks for one of some looks, by the part that is `which` of several in a row.
fn asks_for(hir: &Hir, looks: &[Look], which: fn(&[Hir]) -> Option<&Hir>) -> bool {
    match hir.kind() {
        HirKind::Look(look) => looks.contains(look),
        HirKind::Capture(capture) => asks_for(&capture.sub, looks, which),
        HirKind::Concat(parts) => which(parts).is_some_and(|part| asks_for(part, looks, which)),
        HirKind::Alternation(ways) => ways.iter().all(|way| asks_for(way, looks, which)),
        _ => false,
    }
}

fn asks_for_boundary(hir: &Hir) -> bool {
    asks_for(hir, &[Look::WordAscii, Look::WordStartAscii, Look::Start], <[Hir]>::first)
}

fn asks_for_end(hir: &Hir) -> bool {
    asks_for(hir, &[Look::WordAscii, Look::WordEndAscii, Look::End], <[Hir]>::last)
}

/// Whether a condition on the first bytes says enough: few places of ordinary text fulfil it, or they begin a number, which is to
/// be walked along anyway.
pub(super) fn is_telling(hir: &Hir) -> bool {
    let first = first_bytes(hir);
    let columns = Columns::of(hir);
    hir.properties().minimum_len().unwrap_or(0) >= MATCH_BYTES_MIN
        && (first.iter().any(|byte| byte.is_ascii_digit())
            || Sample::with(|sample| sample.share(&columns)) < SHARE_MAX)
}

/// The coarse shape of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns {
    /// For each place the bytes that may stand there, or nothing where any may.
    sets: Vec<Option<ByteSet>>,
    /// How long a match may be, as bits, where a word or a line ends behind it; 0 where nothing is known.
    ends: u64,
}

impl Columns {
    fn of(hir: &Hir) -> Columns {
        let (sets, ends) = columns(hir);
        Columns { sets: sets.iter().map(widened).collect(), ends: told(ends) }
    }
}

/// The ends, where they say something.
fn told(ends: u64) -> u64 {
    if ends.count_ones() <= ENDS_TOLD_MAX { ends } else { 0 }
}

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
    let mut sets: Vec<_> = one.sets.iter().zip(&other.sets).map(pair).collect();
    while sets.last().is_some_and(Option::is_none) {
        sets.pop();
    }
    let ends = if one.ends == 0 || other.ends == 0 { 0 } else { told(one.ends | other.ends) };
    Columns { sets, ends }
}

/// The condition that holds wherever one of these begins. `places` says where in a text each of some conditions holds.
pub(super) fn condition(
    hirs: &[&Hir],
    graph: &mut Graph,
    places: impl Fn(&Graph, &[u32], &[u8]) -> Vec<Vec<usize>>,
) -> Condition {
    let mut common: Vec<Vec<Group>> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut add = |group: Group| {
        if !groups.iter().any(|other| other.node == group.node && other.columns == group.columns) {
            groups.push(group);
        }
    };
    for way in hirs.iter().flat_map(|hir| ways(hir)) {
        let group = Group::of_columns(Columns::of(&way));
        if group.share() > SHARE_SHAPED_MIN {
            let mut choices: Vec<Group> =
                SHAPED_BYTES.iter().filter_map(|bytes| group.shaped(&way, *bytes, graph)).collect();
            choices.push(group);
            common.push(choices);
        } else {
            add(group);
        }
    }
    let nodes: Vec<u32> = common.iter().flatten().filter_map(|group| group.node).collect();
    let mut found = Sample::with(|sample| places(graph, &nodes, &sample.text)).into_iter();
    for mut choices in common {
        for group in choices.iter_mut().filter(|group| group.node.is_some()) {
            group.passes(&found.next().unwrap_or_default());
        }
        let cheapest = choices.into_iter().min_by(|one, other| one.price_ns().total_cmp(&other.price_ns()));
        cheapest.into_iter().for_each(&mut add);
    }
    let all: Vec<Condition> = merged(groups).iter().map(|group| group.condition(graph)).collect();
    graph.any(&all)
}

/// The condition that these columns begin here. A class that stands many times in a row is asked for by doubling: two in a row,
/// four in a row, and so on.
fn in_a_row(columns: &[Option<ByteSet>], graph: &mut Graph) -> Condition {
    let mut node = None;
    for run in columns.chunk_by(|one, other| one == other).rev() {
        let Some(set) = run.first().and_then(Option::as_ref) else {
            node = run.iter().fold(node, |next, _| graph.exactly(None, next));
            continue;
        };
        if run.len() < 4 {
            node = run.iter().fold(node, |next, _| graph.exactly(Some(set), next));
            continue;
        }
        let mut length = 1;
        let mut all = graph.exactly(Some(set), None);
        while length < run.len() {
            let by = length.min(run.len() - length);
            all = graph.and_at(all, all, by);
            length += by;
        }
        node = graph.and_at(all, node, run.len());
    }
    node
}

/// The condition that a word or a line ends so many bytes on.
fn ending(ends: u64, graph: &mut Graph) -> Condition {
    let boundary = graph.at_boundary(None);
    let told = (1..=ENDS_MAX).filter(|distance| ends >> distance & 1 == 1);
    let all: Vec<Condition> = told.map(|distance| graph.and_at(None, boundary, distance)).collect();
    graph.any(&all)
}

/// How many conditions [`in_a_row`] makes of these columns.
fn conditions(columns: &[Option<ByteSet>]) -> usize {
    let steps = |run: &[Option<ByteSet>]| match run.len() {
        few @ 0..4 => few,
        many => usize::try_from(usize::BITS - (many - 1).leading_zeros()).unwrap_or(many) + 1,
    };
    columns.chunk_by(|one, other| one == other).map(steps).sum()
}

/// What a walk costs for one rule by itself, in nanoseconds per byte.
pub(super) fn price(way: &Hir) -> f64 {
    let columns = Columns::of(way);
    condition_ns(&columns) + WALK_NS * Sample::with(|sample| sample.share(&columns))
}

/// What telling whether these columns stand somewhere costs, in nanoseconds per byte.
fn condition_ns(columns: &Columns) -> f64 {
    let many = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let mut classes: Vec<ByteSet> = columns.sets.iter().flatten().copied().collect();
    classes.sort_unstable();
    classes.dedup();
    // Groups often have their ends in common.
    let ends = usize::try_from(columns.ends.count_ones()).unwrap_or(0);
    CONDITION_NS * many(conditions(&columns.sets) + ends) + CLASS_NS * many(classes.len())
}

/// Columns, what they cost, and where in the sample they stand.
struct Group {
    columns: Columns,
    /// Where columns say little, the shape of the one way: it knows that a dot comes after one digit, or two, or three.
    node: Option<u32>,
    cost_ns: f64,
    passing: Vec<u64>,
}

impl Group {
    fn of_columns(columns: Columns) -> Group {
        let passing = Sample::with(|sample| sample.passing(&columns));
        Group { cost_ns: condition_ns(&columns), columns, node: None, passing }
    }

    /// The same with the shape of its way, as far as so many bytes say, if there is one. What passes is not known yet.
    fn shaped(&self, way: &Hir, bytes: usize, graph: &mut Graph) -> Option<Group> {
        graph.is_exact = false;
        let node = graph.starts(way, None, bytes)?;
        let cost_ns = CONDITION_NS * f64::from(u32::try_from(graph.size(node).0).unwrap_or(u32::MAX));
        Some(Group { columns: self.columns.clone(), node: Some(node), cost_ns, passing: Vec::new() })
    }

    /// Takes note of where in the sample it holds. A shape may hold where a word ends; no walk begins there.
    fn passes(&mut self, places: &[usize]) {
        self.passing = Sample::with(|sample| vec![0; sample.starts.len()]);
        for place in places {
            if let Some(word) = self.passing.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        Sample::with(|sample| {
            self.passing.iter_mut().zip(&sample.starts).for_each(|(word, starts)| *word &= starts);
        });
    }

    /// What it costs by itself, in nanoseconds per byte.
    fn price_ns(&self) -> f64 {
        self.cost_ns + WALK_NS * self.share()
    }

    /// How much of the sample passes, from 0 to 1.
    fn share(&self) -> f64 {
        let count: u32 = self.passing.iter().map(|word| word.count_ones()).sum();
        f64::from(count) / SAMPLE_BYTES_REAL
    }

    fn condition(&self, graph: &mut Graph) -> Condition {
        if self.node.is_some() {
            return self.node;
        }
        let node = in_a_row(&self.columns.sets, graph);
        let ends = ending(self.columns.ends, graph);
        let node = graph.both(ends, node);
        graph.at_boundary(node)
    }
}

/// Columns of two groups merged, what they cost, and where in the sample they stand once somebody asks.
struct Pair {
    columns: Columns,
    cost_ns: f64,
    passing: OnceCell<Vec<u64>>,
}

impl Pair {
    fn new(columns: Columns) -> Pair {
        Pair { cost_ns: condition_ns(&columns), columns, passing: OnceCell::new() }
    }

    fn passing(&self) -> &[u64] {
        self.passing.get_or_init(|| Sample::with(|sample| sample.passing(&self.columns)))
    }
}

/// Merges groups while that is cheaper than telling them apart: what merged columns let pass more than all let pass before is to be
/// walked along. A group with a shape also loses it where its columns are as good.
fn merged(all: Vec<Group>) -> Vec<Rc<Group>> {
    let mut groups: Vec<Rc<Group>> = all.into_iter().map(Rc::new).collect();
    let mut pairs: HashMap<(*const Group, *const Group), Rc<Pair>> = HashMap::new();
    // Groups stay alive while their addresses are keys.
    let mut past: Vec<Rc<Group>> = groups.clone();
    loop {
        let mut passing = vec![0_u64; SAMPLE_BYTES.div_ceil(64)];
        for group in &groups {
            passing.iter_mut().zip(&group.passing).for_each(|(all, word)| *all |= word);
        }
        let mut best: Option<(f64, usize, usize, Rc<Pair>)> = None;
        for (first, one) in groups.iter().enumerate() {
            // A group and itself: its columns without its shape.
            for (second, other) in groups.iter().enumerate().skip(first) {
                if first == second && one.node.is_none() {
                    continue;
                }
                let pair = pairs
                    .entry((Rc::as_ptr(one), Rc::as_ptr(other)))
                    .or_insert_with(|| Rc::new(Pair::new(both(&one.columns, &other.columns))));
                let before_ns = one.cost_ns + if first == second { 0.0 } else { other.cost_ns };
                let is_best = |saved: f64| best.as_ref().map_or(saved >= 0.0, |(most, ..)| saved > *most);
                // What passes takes time to count, and only ever costs more.
                if !is_best(before_ns - pair.cost_ns) {
                    continue;
                }
                let merged = pair.passing();
                let more: u32 =
                    merged.iter().zip(&passing).map(|(word, all)| (word & !all).count_ones()).sum();
                let more_ns = WALK_NS * f64::from(more) / SAMPLE_BYTES_REAL;
                let saved = before_ns - pair.cost_ns - more_ns;
                if is_best(saved) {
                    best = Some((saved, first, second, Rc::clone(pair)));
                }
            }
        }
        let Some((_, first, second, pair)) = best else { break };
        let merged = Rc::new(Group::of_columns(pair.columns.clone()));
        past.push(Rc::clone(&merged));
        if second != first {
            groups.remove(second);
        }
        if let Some(slot) = groups.get_mut(first) {
            *slot = merged;
        }
    }
    groups
}

/// Made-up log text as a lane of bits for each set, one for starts of words, and one for their starts and ends.
struct Sample {
    text: Vec<u8>,
    lanes: HashMap<ByteSet, Vec<u64>>,
    starts: Vec<u64>,
    boundaries: Vec<u64>,
}

impl Sample {
    fn new() -> Sample {
        let text = corpus::mixed(11, SAMPLE_BYTES).into_bytes();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let before = |at: usize| at.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or(b' ');
        let starts = lane(&text, |at, byte| is_word(byte) && !is_word(before(at)));
        let boundaries = lane(&text, |at, byte| is_word(byte) != is_word(before(at)));
        Sample { text, lanes: HashMap::new(), starts, boundaries }
    }

    /// Calls with this thread's sample.
    fn with<T>(call: impl FnOnce(&mut Sample) -> T) -> T {
        thread_local! {
            static SAMPLE: RefCell<Sample> = RefCell::new(Sample::new());
        }
        SAMPLE.with(|sample| call(&mut sample.borrow_mut()))
    }

    /// Where the text fulfils a condition.
    fn passing(&mut self, columns: &Columns) -> Vec<u64> {
        let mut passing = self.starts.clone();
        for (by, set) in columns.sets.iter().enumerate() {
            let Some(set) = set else { continue };
            let lane = self.lanes.entry(*set).or_insert_with(|| lane(&self.text, |_, byte| set.holds(byte)));
            let behind = lane.iter().skip(1).copied().chain([0]);
            for ((slot, word), next) in passing.iter_mut().zip(&*lane).zip(behind) {
                // `by` is less than a word.
                *slot &= if by == 0 { *word } else { word >> by | next << (64 - by) };
            }
        }
        if columns.ends != 0 {
            let behind = self.boundaries.iter().skip(1).copied().chain([0]);
            for ((slot, word), next) in passing.iter_mut().zip(&self.boundaries).zip(behind) {
                let mut ends = columns.ends;
                let mut here = 0;
                while ends != 0 && *slot != 0 {
                    // At least one, and less than a word.
                    let by = ends.trailing_zeros();
                    here |= word >> by | next << (64 - by);
                    ends &= ends - 1;
                }
                *slot &= here;
            }
        }
        passing
    }

    /// How much of the text fulfils a condition, from 0 to 1.
    fn share(&mut self, columns: &Columns) -> f64 {
        let count: u32 = self.passing(columns).iter().map(|word| word.count_ones()).sum();
        f64::from(count) / SAMPLE_BYTES_REAL
    }
}

fn lane(text: &[u8], holds: impl Fn(usize, u8) -> bool) -> Vec<u64> {
    let bits = |(word, chunk): (usize, &[u8])| {
        let bit = |(at, byte): (usize, &u8)| u64::from(holds(64 * word + at, *byte)) << at;
        chunk.iter().enumerate().map(bit).sum()
    };
    text.chunks(64).enumerate().map(bits).collect()
}

/// The ways of an alternation, or the one way. What is asked for before and behind an alternation is asked for in each of its ways.
pub(super) fn ways(hir: &Hir) -> Vec<Hir> {
    match hir.kind() {
        HirKind::Capture(capture) => ways(&capture.sub),
        HirKind::Alternation(all) => all.iter().flat_map(ways).collect(),
        HirKind::Concat(parts) => {
            let is_look = |part: &&Hir| matches!(part.kind(), HirKind::Look(_));
            let before = parts.iter().take_while(is_look).count();
            let behind = parts.iter().rev().take_while(is_look).count();
            let between = parts.get(before..parts.len().saturating_sub(behind));
            let Some([one]) = between.filter(|_| before + behind > 0) else { return vec![hir.clone()] };
            let (ahead, rest) = parts.split_at(before);
            let whole = |way: Hir| {
                let all = ahead.iter().cloned().chain([way]).chain(rest.iter().skip(1).cloned());
                Hir::concat(all.collect())
            };
            ways(one).into_iter().map(whole).collect()
        }
        _ => vec![hir.clone()],
    }
}

/// The bytes that may stand at each of the places that every match has, and where matches may end, as bits, if a word or a line ends
/// behind each.
fn columns(hir: &Hir) -> (Vec<ByteSet>, u64) {
    let mut columns = [ByteSet::default(); COLUMNS_MAX];
    let ends = walk(hir, 1, &mut columns);
    let length = hir.properties().minimum_len().unwrap_or(0).min(COLUMNS_MAX);
    let is_short = hir.properties().maximum_len().is_some_and(|longest| longest <= ENDS_MAX);
    let is_told = is_short && length > 0 && asks_for_end(hir);
    (columns.into_iter().take(length).collect(), if is_told { ends } else { 0 })
}

/// Adds what a part may put at each place, given where it may start, and says where it may end: bits of places.
fn walk(hir: &Hir, starts: u64, columns: &mut [ByteSet; COLUMNS_MAX]) -> u64 {
    const INSIDE: u64 = (1 << (ENDS_MAX + 1)) - 1;
    let mut put = |set: ByteSet, starts: u64| {
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
            for _ in 0..repetition.min.min(u32::try_from(ENDS_MAX + 1).unwrap_or(u32::MAX)) {
                at = walk(&repetition.sub, at, columns);
            }
            let mut ends = at;
            let more = repetition.max.map_or(u32::MAX, |max| max - repetition.min);
            for _ in 0..more.min(u32::try_from(ENDS_MAX + 1).unwrap_or(u32::MAX)) {
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
        let told = |pattern: &str| columns(&parsed(pattern));
        let ends = |ends: &[u32]| ends.iter().map(|end| 1 << end).sum::<u64>();
        let expected = vec![digit, digit, set("[0-9-]"), digit];
        assert_eq!(told(r"\b[0-9]{2}-?[0-9]{2}\b"), (expected.clone(), ends(&[4, 5])));
        assert_eq!(told(r"\b[0-9]{2}-?[0-9]{2}"), (expected, 0));
        assert_eq!(told("(?:ab|c[0-9])x"), (vec![set("[ac]"), set("[b0-9]"), set("x")], 0));
        assert_eq!(told("a{2,}b$"), (vec![set("a"), set("a"), set("[ab]")], 0));
        assert_eq!(told(r"(?:a|bc{3,5})\b"), (vec![set("[ab]")], ends(&[1, 4, 5, 6])));
        assert_eq!(told(r"[0-9]{30}\b").0.len(), COLUMNS_MAX);
        assert_eq!(told(r"[0-9]{30}\b").1, ends(&[30]));
    }

    #[test]
    fn ordinary_text_fulfils_a_merged_condition_wherever_it_fulfils_one_of_its_parts() {
        let patterns = [r"\b[0-9]{3}-?[0-9]{2}\b", r"\b[0-9]{4}-[0-9]{2}", r"\b[a-z]{2}[0-9]{3,5}\b"];
        let all: Vec<Columns> = patterns.iter().map(|pattern| Columns::of(&parsed(pattern))).collect();
        let whole = all.iter().skip(1).fold(all[0].clone(), |whole, columns| both(&whole, columns));
        let passing = |columns: &Columns| Sample::with(|sample| sample.passing(columns));
        assert!(passing(&whole).iter().any(|word| *word != 0));
        for columns in &all {
            let mut parts = passing(columns).into_iter().zip(passing(&whole));
            assert!(parts.all(|(part, whole)| part & !whole == 0), "{columns:?}");
        }
    }

    #[test]
    fn what_begins_a_word_says_so() {
        for pattern in [r"\b[0-9]{3}", r"(\bab|\bc)d", r"\b(?:x|[0-9])y"] {
            assert!(begins_word(&parsed(pattern)), "{pattern}");
        }
        for pattern in ["[0-9]{3}", r"\b-?[0-9]", r"\bAB|CD", r"\B[0-9]", r"\b[0-9]{3,}"] {
            assert!(!begins_word(&parsed(pattern)), "{pattern}");
        }
    }
}

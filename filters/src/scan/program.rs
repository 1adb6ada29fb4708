//! Shapes as a program over bit masks.
//!
//! A shape is the beginning of a pattern read as a condition on a position: "a digit, and at the next position a digit, and then a
//! dash". It is compiled from the end: the positions at which `ab` starts are those of `a` whose next position is one of `b`. Equal
//! conditions are one node, whatever rule they come from, so sixty rules that end in nine digits share the nine steps.
//!
//! A shape is a *necessary* condition. Lines lie one behind another without a separator, so a match may look longer than its line;
//! what cannot be said of single bytes is left out; what is not said is true.

use std::collections::{HashMap, HashSet};

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::bytes::ByteSet;
use super::logic::{Gate, Logic, PLANES};
use super::schedule;
use super::simd::Op;

/// How far a shape may look ahead, in bytes. Less than a word of positions, because one word is looked ahead at.
pub(crate) const SHAPE_BYTES_MAX: usize = 56;

/// How many optional copies of a part are written out.
const OPTIONAL_COPIES_MAX: usize = 12;

/// Sets that may be kept as they are, in bytes.
const EXACT_BYTES_MAX: u32 = 6;

/// A condition; nothing stands for "always".
pub(crate) type Condition = Option<u32>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    /// A byte of the set.
    Class(ByteSet),
    /// A line starts here, or the text ends.
    Edge,
    /// A word starts or ends before this byte, or a line does.
    Boundary,
    Step {
        here: u32,
        next: u32,
        by: u8,
    },
    Shift {
        next: u32,
        by: u8,
    },
    And(u32, u32),
    Or(u32, u32),
}

/// Conditions, each once.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// How many bytes ahead each looks.
    depths: Vec<u8>,
    known: HashMap<Node, u32>,
    /// Whether sets of a few bytes are kept as they are: more is told apart, and more classes are made.
    pub(crate) is_exact: bool,
}

impl Graph {
    fn node(&mut self, node: Node, depth: usize) -> u32 {
        if let Some(known) = self.known.get(&node) {
            return *known;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.depths.push(u8::try_from(depth).unwrap_or(u8::MAX));
        self.known.insert(node, number);
        number
    }

    fn depth(&self, condition: Condition) -> usize {
        let number = condition.and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.depths.get(number)).copied().map_or(0, usize::from)
    }

    fn get(&self, number: u32) -> Option<Node> {
        usize::try_from(number).ok().and_then(|number| self.nodes.get(number)).copied()
    }

    /// How many steps make a condition from its classes, and from how many classes, if nothing else shares them.
    pub(crate) fn size(&self, condition: u32) -> (usize, usize) {
        let (mut seen, mut stack) = (HashSet::new(), vec![condition]);
        let (mut steps, mut classes) = (0, 0);
        while let Some(number) = stack.pop() {
            if !seen.insert(number) {
                continue;
            }
            match self.get(number) {
                Some(Node::Step { here, next, .. }) => stack.extend([here, next]),
                Some(Node::Shift { next, .. }) => stack.push(next),
                Some(Node::And(one, other) | Node::Or(one, other)) => stack.extend([one, other]),
                Some(Node::Class(_) | Node::Edge | Node::Boundary) | None => {
                    classes += 1;
                    continue;
                }
            }
            steps += 1;
        }
        (steps, classes)
    }

    /// A byte of `set`, and `next` behind it.
    pub(crate) fn step(&mut self, set: &ByteSet, next: Condition) -> Condition {
        let kept = self.is_exact && set.count() <= EXACT_BYTES_MAX && set.iter().all(|byte| byte < 128);
        let here = if kept { Some(*set) } else { widened(set) };
        self.exactly(here.as_ref(), next)
    }

    /// A byte of just this set, or of any, and `next` behind it.
    pub(crate) fn exactly(&mut self, set: Option<&ByteSet>, next: Condition) -> Condition {
        let here = set.map(|set| self.node(Node::Class(*set), 0));
        self.and_at(here, next, 1)
    }

    /// One condition here, and another so many bytes on (1 to 20); what is too far away is left out.
    pub(crate) fn and_at(&mut self, here: Condition, next: Condition, distance: usize) -> Condition {
        let depth = self.depth(here).max(self.depth(next) + distance);
        let next = next.filter(|_| depth <= SHAPE_BYTES_MAX);
        let Some(next) = next else { return here };
        let distance = u8::try_from(distance).unwrap_or(1);
        let (next, by) = match self.get(next) {
            Some(Node::Shift { next, by }) => (next, by + distance),
            _ => (next, distance),
        };
        Some(match here {
            Some(here) => self.node(Node::Step { here, next, by }, depth),
            None => self.node(Node::Shift { next, by }, depth),
        })
    }

    /// A boundary of a word or a line, and `next` behind it.
    pub(crate) fn at_boundary(&mut self, next: Condition) -> Condition {
        let boundary = self.node(Node::Boundary, 0);
        self.both(Some(boundary), next)
    }

    pub(crate) fn both(&mut self, one: Condition, other: Condition) -> Condition {
        match (one, other) {
            (Some(one), Some(other)) if one != other => {
                let depth = self.depth(Some(one)).max(self.depth(Some(other)));
                Some(self.node(Node::And(one.min(other), one.max(other)), depth))
            }
            (one, other) => one.or(other),
        }
    }

    pub(crate) fn either(&mut self, one: Condition, other: Condition) -> Condition {
        let (one, other) = (one?, other?);
        if one == other {
            return Some(one);
        }
        let depth = self.depth(Some(one)).max(self.depth(Some(other)));
        Some(self.node(Node::Or(one.min(other), one.max(other)), depth))
    }

    /// One of these; "always" where there is none.
    pub(crate) fn any(&mut self, all: &[Condition]) -> Condition {
        let (first, rest) = all.split_first()?;
        rest.iter().fold(*first, |whole, one| self.either(whole, *one))
    }

    /// The condition that `hir` starts here and `next` holds behind it, as far as `budget` bytes say.
    pub(crate) fn starts(&mut self, hir: &Hir, next: Condition, budget: usize) -> Condition {
        if budget == 0 {
            return None;
        }
        match hir.kind() {
            HirKind::Empty => next,
            HirKind::Literal(literal) => {
                let (bytes, rest) = literal.0.split_at(budget.min(literal.0.len()));
                let next = if rest.is_empty() { next } else { None };
                bytes.iter().rev().fold(next, |next, byte| self.step(&ByteSet::one(*byte), next))
            }
            HirKind::Class(Class::Bytes(class)) => self.step(&ByteSet::of_class(class), next),
            // One to four bytes: what follows has no place.
            HirKind::Class(Class::Unicode(_)) => None,
            HirKind::Look(look) => match look {
                Look::WordAscii | Look::WordStartAscii | Look::WordEndAscii => self.at_boundary(next),
                Look::Start | Look::End => {
                    let edge = self.node(Node::Edge, 0);
                    self.both(Some(edge), next)
                }
                _ => next,
            },
            HirKind::Capture(capture) => self.starts(&capture.sub, next, budget),
            HirKind::Concat(parts) => self.sequence(&parts.iter().collect::<Vec<_>>(), next, budget),
            HirKind::Alternation(ways) => {
                let all: Vec<Condition> = ways.iter().map(|way| self.starts(way, next, budget)).collect();
                self.any(&all)
            }
            HirKind::Repetition(repetition) => self.repeated(repetition, next, budget),
        }
    }

    /// Parts one after another.
    pub(crate) fn sequence(&mut self, parts: &[&Hir], next: Condition, budget: usize) -> Condition {
        let mut left = budget;
        let mut kept = Vec::new();
        for part in parts {
            if left == 0 {
                break;
            }
            kept.push((*part, left));
            left = left.saturating_sub(part.properties().minimum_len().unwrap_or(0));
        }
        let next = if kept.len() == parts.len() && left > 0 { next } else { None };
        kept.into_iter().rev().fold(next, |next, (part, budget)| self.starts(part, next, budget))
    }

    fn repeated(&mut self, repetition: &Repetition, next: Condition, budget: usize) -> Condition {
        let each = repetition.sub.properties().minimum_len().unwrap_or(0).max(1);
        let wanted = usize::try_from(repetition.min).unwrap_or(usize::MAX);
        let copies = wanted.min(budget.div_ceil(each));
        let optional = match repetition.max {
            Some(max) if copies == wanted => usize::try_from(max - repetition.min).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let mut tail = next;
        if optional > OPTIONAL_COPIES_MAX || budget <= copies * each {
            tail = if optional == 0 && budget > copies * each { next } else { None };
        } else {
            for copy in (copies..copies + optional).rev() {
                let left = budget.saturating_sub(copy * each);
                let more = self.starts(&repetition.sub, tail, left);
                tail = self.either(next, more);
            }
        }
        for copy in (0..copies).rev() {
            tail = self.starts(&repetition.sub, tail, budget.saturating_sub(copy * each));
        }
        tail
    }

    /// The program that finds every position at which one of the conditions holds; each goes to its list.
    pub(crate) fn program(&self, wanted: &[(u32, u16)]) -> Program {
        Compiler::new(self, wanted).finish(wanted)
    }
}

/// The classes that letters and digits are widened to, the smallest first: few classes are shared by all rules, and the verifier
/// tells the rest.
const PALETTE: [&str; 14] = [
    "[0-9]",
    "[a-f0-9]",
    "[A-F0-9]",
    "[A-Fa-f0-9]",
    "[A-Z]",
    "[a-z]",
    "[A-Z0-9]",
    "[a-z0-9]",
    "[A-Za-z]",
    "[A-Za-z0-9]",
    "[A-Za-z0-9_-]",
    "[A-Za-z0-9_+/=-]",
    r"[A-Za-z0-9_+/=.~%@&!$*?:;,#-]",
    r"[!-~\x80-\xff]",
];

/// The class that stands for a set: the set itself where it is a little punctuation, else the smallest of the palette that holds it.
fn widened(set: &ByteSet) -> Option<ByteSet> {
    thread_local! {
        static SETS: Vec<ByteSet> = PALETTE.iter().filter_map(|class| ByteSet::parse(class)).collect();
        static SPACES: ByteSet = ByteSet::parse(r"[ ./-]").unwrap_or(ByteSet::ALL);
    }
    let few = set.count() <= 3 && set.iter().all(|byte| byte < 128 && !byte.is_ascii_alphanumeric());
    if few {
        return Some(
            SPACES.with(|spaces| if set.count() > 1 && set.within(spaces) { *spaces } else { *set }),
        );
    }
    SETS.with(|sets| sets.iter().find(|wide| set.within(wide)).copied())
}

/// Lanes to fill, and steps over them. The first eight lanes are the bits of the bytes.
pub(crate) struct Program {
    /// The lane of line starts.
    pub(crate) edge: Option<usize>,
    /// The steps.
    pub(crate) ops: Vec<Op>,
    /// How many lanes it needs.
    pub(crate) lanes: usize,
}

impl Program {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What a lane holds: a condition, or a part of a set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Node(u32),
    Gate(u32),
    /// Line starts.
    Edge,
}

struct Compiler<'a> {
    graph: &'a Graph,
    logic: Logic,
    /// The set behind each class.
    classes: HashMap<u32, Key>,
    /// Bytes of a word.
    word: Key,
    /// Numbers of what is computed, each written once; lanes are given out at the end.
    values: HashMap<Key, u16>,
    count: u16,
    ops: Vec<Op>,
}

impl<'a> Compiler<'a> {
    fn new(graph: &'a Graph, wanted: &[(u32, u16)]) -> Compiler<'a> {
        let mut logic = Logic::default();
        let word = Key::Gate(logic.set(&ByteSet::parse("[0-9A-Za-z_]").unwrap_or(ByteSet::ALL)));
        let mut compiler = Compiler {
            graph,
            logic,
            classes: HashMap::new(),
            word,
            values: HashMap::new(),
            count: u16::from(PLANES),
            ops: Vec::new(),
        };
        let mut seen = HashSet::new();
        let mut stack: Vec<Key> = wanted.iter().map(|(node, _)| Key::Node(*node)).collect();
        while let Some(key) = stack.pop() {
            if !seen.insert(key) {
                continue;
            }
            if let Key::Node(number) = key
                && let Some(Node::Class(set)) = graph.get(number)
            {
                let logic = &mut compiler.logic;
                compiler.classes.insert(number, Key::Gate(logic.superset(&set)));
            }
            stack.extend(compiler.operands(key));
        }
        compiler
    }

    /// What is read to make a lane.
    fn operands(&self, key: Key) -> Vec<Key> {
        match key {
            Key::Edge => Vec::new(),
            Key::Gate(gate) => {
                self.logic.get(gate).into_iter().flat_map(Gate::operands).map(Key::Gate).collect()
            }
            Key::Node(number) => match self.graph.get(number) {
                Some(Node::Class(_)) => self.classes.get(&number).copied().into_iter().collect(),
                Some(Node::Edge) => vec![Key::Edge],
                Some(Node::Boundary) => vec![self.word, Key::Edge],
                Some(Node::Step { here, next, .. }) => vec![Key::Node(here), Key::Node(next)],
                Some(Node::Shift { next, .. }) => vec![Key::Node(next)],
                Some(Node::And(one, other) | Node::Or(one, other)) => vec![Key::Node(one), Key::Node(other)],
                None => Vec::new(),
            },
        }
    }

    /// The key that has a lane of its own: a class is its set, an edge the line starts.
    fn itself(&self, key: Key) -> Key {
        match key {
            Key::Node(number) => match self.graph.get(number) {
                Some(Node::Class(_)) => self.classes.get(&number).copied().unwrap_or(key),
                Some(Node::Edge) => Key::Edge,
                _ => key,
            },
            key => key,
        }
    }

    fn of(&self, key: Key) -> u16 {
        self.values.get(&self.itself(key)).copied().unwrap_or(0)
    }

    fn emit(&mut self, key: Key) {
        if self.values.contains_key(&key) {
            return;
        }
        if let Key::Gate(gate) = key
            && let Some(Gate::Plane(bit)) = self.logic.get(gate)
        {
            self.values.insert(key, u16::from(bit));
            return;
        }
        for operand in self.operands(key) {
            self.emit(operand);
        }
        if self.itself(key) != key {
            return;
        }
        let to = self.count;
        self.count = self.count.saturating_add(1);
        let op = match key {
            Key::Edge => None,
            Key::Gate(gate) => self.gate(gate, to),
            Key::Node(number) => self.node(number, to),
        };
        self.values.insert(key, to);
        self.ops.extend(op);
    }

    fn gate(&self, gate: u32, to: u16) -> Option<Op> {
        let of = |gate: u32| self.of(Key::Gate(gate));
        Some(match self.logic.get(gate)? {
            Gate::Plane(_) => return None,
            Gate::Not(one) => Op::Not { one: of(one), to },
            Gate::And(one, other) => Op::And { one: of(one), other: of(other), to },
            Gate::AndNot(one, other) => Op::AndNot { one: of(one), other: of(other), to },
            Gate::Or(one, other) => Op::Or { one: of(one), other: of(other), to },
            Gate::OrNot(one, other) => Op::OrNot { one: of(one), other: of(other), to },
            Gate::Choose { by, one, other } => Op::Choose { by: of(by), one: of(one), other: of(other), to },
        })
    }

    fn node(&self, number: u32, to: u16) -> Option<Op> {
        let of = |node: u32| self.of(Key::Node(node));
        Some(match self.graph.get(number)? {
            Node::Class(_) | Node::Edge => return None,
            Node::Boundary => Op::Boundary { words: self.of(self.word), starts: self.of(Key::Edge), to },
            Node::Step { here, next, by } => Op::Step { here: of(here), next: of(next), by, to },
            Node::Shift { next, by } => Op::Shift { next: of(next), by, to },
            Node::And(one, other) => Op::And { one: of(one), other: of(other), to },
            Node::Or(one, other) => Op::Or { one: of(one), other: of(other), to },
        })
    }

    fn finish(mut self, wanted: &[(u32, u16)]) -> Program {
        // What is filled before the steps run: the bits of the bytes, and line starts.
        self.emit(Key::Edge);
        let edge = self.of(Key::Edge);
        for (node, list) in wanted {
            let key = Key::Node(*node);
            self.emit(key);
            self.ops.push(Op::Found { lane: self.of(key), list: *list });
        }
        let is_read = self.ops.iter().flat_map(Op::reads).any(|value| value == edge);
        let edge = is_read.then(|| usize::from(edge));
        let (ops, lanes) = schedule::ordered(&self.ops, u16::from(PLANES) + 1);
        Program { edge, ops, lanes }
    }
}

//! An automaton that says where a match ends and where in it the value lies, in one reading.
//!
//! A rule's value is often a group: `password=` stays, what is behind goes. To find the group of a match that an automaton has found
//! would mean reading it again, with something slower. So the automaton carries places along. A state is a list of ways to go on, best
//! first, as in a simulation of the pattern; with each way stands where its group began and ended, by the numbers of slots. A step that
//! makes a new place, or lets ways change slots, has a *note* of what is to be put where; most steps have none.
//!
//! What always holds:
//! - the end is that of the anchored leftmost-first search, the value is the first group that took part in it, or all of it;
//! - a match shows with the byte behind it, which also tells whether a word ends;
//! - every byte is read once.
//!
//! Groups inside of groups or of repetitions are not told; nor is there an automaton where it would be too large. Both show when it is
//! built.

use std::collections::HashMap;
use std::ops::Range;

use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{Hir, HirKind};

use crate::limits::{PATTERN_NFA_BYTES_MAX, VERIFIER_AUTOMATON_BYTES_MAX};
use crate::rule::Redact;

/// How many places are remembered at once. The rules that come with the program need no more than five.
const SLOTS: usize = 8;

/// How many bytes tell whether it is worth to go on, where many starts are tried.
const FIRST_BYTES: usize = 2;

/// A cell of the table is where the row of a state begins, and above it the number of a note, 0 for none.
const ROW_BITS: u32 = 20;
const ROWS: u32 = (1 << ROW_BITS) - 1;
const NOTES: u32 = u32::MAX >> ROW_BITS;

const _: () = assert!(VERIFIER_AUTOMATON_BYTES_MAX / size_of::<u32>() < 1 << ROW_BITS);

/// Where a place comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    /// There is none.
    None,
    /// Where the automaton is.
    Here,
    Slot(u8),
}

/// What a step says, beside the state to go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Note {
    /// A match ends here; its group.
    group: Option<(Mark, Mark)>,
    /// What the slots hold from here on, if anything changes.
    slots: Option<Vec<Mark>>,
}

/// A way through the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    state: StateID,
    start: Mark,
    end: Mark,
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) end: usize,
    pub(crate) value: Range<usize>,
}

pub(crate) struct Tagged {
    /// Which column of the table a byte is in, and that of the end of a line.
    columns: Box<[u8; 256]>,
    end_column: u8,
    /// States a row. State 0 is dead.
    table: Vec<u32>,
    /// The first is none.
    notes: Vec<Note>,
    /// Notes up to this one are of matches only.
    last_plain: u32,
    /// Where to begin, by the byte before; behind them where a line begins.
    starts: Box<[u32; 257]>,
    heads: Heads,
    is_telling: bool,
}

/// What a run remembers.
struct Run<'a> {
    notes: &'a [Note],
    slots: [usize; SLOTS],
    /// The last match and its note, as long as the slots stay as they were there.
    last: Option<(usize, u32)>,
    /// The last match before that.
    found: Option<Found>,
    start: usize,
}

impl Run<'_> {
    #[cold]
    fn turn(&mut self, at: usize, number: u32) {
        self.settle();
        let notes = self.notes;
        let Some(note) = usize::try_from(number).ok().and_then(|number| notes.get(number)) else { return };
        if let Some(group) = note.group {
            self.found = Some(self.match_at(at, group));
        }
        if let Some(marks) = &note.slots {
            let before = self.slots;
            for (slot, mark) in self.slots.iter_mut().zip(marks) {
                *slot = place(*mark, at, &before).unwrap_or(0);
            }
        }
    }

    fn settle(&mut self) {
        if let Some((at, number)) = self.last.take() {
            let note = usize::try_from(number).ok().and_then(|number| self.notes.get(number));
            if let Some(group) = note.and_then(|note| note.group) {
                self.found = Some(self.match_at(at, group));
            }
        }
    }

    fn match_at(&self, at: usize, (start, end): (Mark, Mark)) -> Found {
        let value = place(start, at, &self.slots).zip(place(end, at, &self.slots));
        Found { end: at, value: value.map_or(self.start..at, |(start, end)| start..end) }
    }
}

fn place(mark: Mark, at: usize, slots: &[usize; SLOTS]) -> Option<usize> {
    match mark {
        Mark::None => None,
        Mark::Here => Some(at),
        Mark::Slot(slot) => slots.get(usize::from(slot)).copied(),
    }
}

impl Tagged {
    /// The automaton of a pattern; nothing if it would be too large.
    pub(crate) fn new(hir: &Hir, redact: Redact) -> Option<Tagged> {
        let is_telling = redact == Redact::Match || is_plain(hir, true);
        let groups =
            if redact == Redact::Group && is_telling { WhichCaptures::All } else { WhichCaptures::None };
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(groups)
            .nfa_size_limit(Some(PATTERN_NFA_BYTES_MAX));
        let ways = thompson::Compiler::new().configure(config).build_from_hir(hir).ok()?;
        let automaton = Builder::new(&ways).build()?;
        let heads = Heads::new(&automaton);
        Some(Tagged { is_telling, heads, ..automaton })
    }

    /// Whether it says what the value of a match is.
    pub(crate) fn is_telling(&self) -> bool {
        self.is_telling
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        4 * self.table.len()
            + size_of::<Note>() * self.notes.len()
            + size_of::<Head>() * self.heads.slots.len()
    }

    /// The anchored search from `from`, which looks at `line` up to `limit` and one byte more; and how many bytes it read.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there is a column for every byte")]
    pub(crate) fn run(&self, line: &[u8], from: usize, limit: usize) -> (Option<Found>, usize) {
        let mut state = self.start(line, from);
        let window = line.get(from..limit).unwrap_or(&[]);
        let head = self.heads.pass(&mut state, window);
        // Most searches end before there is anything to remember.
        let mut read = head;
        for byte in window.get(head..).unwrap_or(&[]) {
            let cell = self.next(state, self.columns[usize::from(*byte)]);
            if cell == 0 {
                return (None, read + 1);
            }
            if cell > ROWS {
                break;
            }
            state = cell;
            read += 1;
        }
        self.go_on(line, from..limit, read, state)
    }

    /// The rest of a search whose first bytes had no note.
    #[inline(never)]
    #[expect(clippy::indexing_slicing, reason = "there is a column for every byte")]
    fn go_on(&self, line: &[u8], range: Range<usize>, read: usize, mut state: u32) -> (Option<Found>, usize) {
        let (from, limit) = (range.start, range.end);
        let mut run = Run { notes: &self.notes, slots: [0; SLOTS], last: None, found: None, start: from };
        let window = line.get(range).unwrap_or(&[]);
        for (at, byte) in (from + read..).zip(window.get(read..).unwrap_or(&[])) {
            let cell = self.next(state, self.columns[usize::from(*byte)]);
            state = cell & ROWS;
            if cell.wrapping_sub(1) < ROWS {
                continue;
            }
            self.note(&mut run, at, cell >> ROW_BITS);
            if state == 0 {
                run.settle();
                return (run.found, at - from + 1);
            }
        }
        let column = line.get(limit).map_or(self.end_column, |byte| self.columns[usize::from(*byte)]);
        self.note(&mut run, from + window.len(), self.next(state, column) >> ROW_BITS);
        run.settle();
        (run.found, window.len() + 1)
    }

    /// Whether a match could begin at `from`, by the first bytes there and the one before.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there is a column for every byte")]
    pub(crate) fn may_begin(&self, line: &[u8], from: usize) -> bool {
        let mut state = self.start(line, from);
        for byte in line.iter().skip(from).take(FIRST_BYTES) {
            let cell = self.next(state, self.columns[usize::from(*byte)]);
            state = cell & ROWS;
            if state == 0 {
                return cell != 0;
            }
        }
        true
    }

    /// Whether a match begins at `from`, as [`Tagged::run`] would find one; and how many bytes were read.
    #[expect(clippy::indexing_slicing, reason = "there is a column for every byte")]
    pub(crate) fn matches(&self, line: &[u8], from: usize, limit: usize) -> (bool, usize) {
        let mut state = self.start(line, from);
        let window = line.get(from..limit).unwrap_or(&[]);
        for (read, byte) in (1..).zip(window) {
            let cell = self.next(state, self.columns[usize::from(*byte)]);
            state = cell & ROWS;
            if cell.wrapping_sub(1) >= ROWS {
                let matches = self.notes_match(cell);
                if matches || state == 0 {
                    return (matches, read);
                }
            }
        }
        let column = line.get(limit).map_or(self.end_column, |byte| self.columns[usize::from(*byte)]);
        (self.notes_match(self.next(state, column)), window.len() + 1)
    }

    fn notes_match(&self, cell: u32) -> bool {
        let note = usize::try_from(cell >> ROW_BITS).ok().and_then(|number| self.notes.get(number));
        note.is_some_and(|note| note.group.is_some())
    }

    /// The state in which a search begins.
    #[inline]
    fn start(&self, line: &[u8], from: usize) -> u32 {
        let before = from.checked_sub(1).and_then(|at| line.get(at));
        let start = before.map_or(256, |byte| usize::from(*byte));
        self.starts.get(start).copied().unwrap_or(0)
    }

    #[inline]
    fn next(&self, state: u32, column: u8) -> u32 {
        let row = usize::try_from(state).unwrap_or(0);
        self.table.get(row + usize::from(column)).copied().unwrap_or(0)
    }

    #[inline]
    fn note(&self, run: &mut Run<'_>, at: usize, number: u32) {
        if number > self.last_plain {
            run.turn(at, number);
        } else if number > 0 {
            run.last = Some((at, number));
        }
    }
}

/// A word that four steps may be made by, from one state to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    word: u32,
    from: u32,
    to: u32,
}

/// What four letters in either case lead to, where patterns begin with words: each step waits for the one before, and most attempts end
/// soon after such a word.
#[derive(Clone, Debug, Default)]
struct Heads {
    /// A power of two of them, or none. What is not there holds no word.
    slots: Vec<Head>,
    shift: u32,
    factor: u32,
}

/// How many words are known at most, and how many letters may follow one another in a state that words are looked for from.
const HEADS: usize = 48;
const LETTERS: usize = 8;

/// Sets letters to small ones.
const SMALL: u32 = 0x2020_2020;

impl Heads {
    fn new(automaton: &Tagged) -> Heads {
        let mut open: Vec<u32> = automaton.starts.to_vec();
        open.sort_unstable();
        open.dedup();
        let (mut known, mut next): (Vec<Head>, usize) = (Vec::new(), 0);
        while let Some(from) = open.get(next).copied() {
            next += 1;
            let mut ways = vec![(0, from)];
            for place in 0..4 {
                let lengthened = |(word, state): (u32, u32)| {
                    let letters = letters(automaton, state);
                    letters.into_iter().map(move |(letter, to)| (word | u32::from(letter) << (8 * place), to))
                };
                ways = ways.into_iter().flat_map(lengthened).take(HEADS).collect();
            }
            for (word, to) in ways.into_iter().take(HEADS - known.len()) {
                known.push(Head { word, from, to });
                if !open.contains(&to) {
                    open.push(to);
                }
            }
        }
        Heads::of(&known).unwrap_or_default()
    }

    /// A table in which each of these has a slot to itself, if one is found.
    fn of(known: &[Head]) -> Option<Heads> {
        if known.is_empty() {
            return None;
        }
        let bits = (4 * known.len()).next_power_of_two().trailing_zeros();
        // Odd numbers, as they come.
        let mut factors = std::iter::successors(Some(0x9e37_79b1_u32), |last| Some(last.wrapping_mul(5) ^ 2));
        factors.by_ref().take(256).find_map(|factor| {
            let mut heads = Heads { slots: vec![Head::default(); 1 << bits], shift: 32 - bits, factor };
            for head in known {
                let slot = heads.slot(head.word, head.from);
                let slot = heads.slots.get_mut(slot).filter(|slot| **slot == Head::default())?;
                *slot = *head;
            }
            Some(heads)
        })
    }

    #[inline]
    fn slot(&self, word: u32, from: u32) -> usize {
        usize::try_from((word ^ from.rotate_left(7)).wrapping_mul(self.factor) >> self.shift).unwrap_or(0)
    }

    /// Makes the steps of known words, and says how many.
    #[inline]
    fn pass(&self, state: &mut u32, window: &[u8]) -> usize {
        if self.slots.is_empty() {
            return 0;
        }
        let mut passed = 0;
        while let Some(bytes) = window.get(passed..).and_then(|rest| rest.first_chunk()) {
            let word = u32::from_le_bytes(*bytes) | SMALL;
            match self.slots.get(self.slot(word, *state)) {
                Some(head) if head.word == word && head.from == *state => *state = head.to,
                _ => break,
            }
            passed += 4;
        }
        passed
    }
}

/// The letters, small ones, that lead on from a state alike in either case and without a note; nothing if they are many.
fn letters(automaton: &Tagged, state: u32) -> Vec<(u8, u32)> {
    let column = |byte: u8| automaton.columns.get(usize::from(byte)).copied().unwrap_or(0);
    let next = |byte: u8| automaton.next(state, column(byte));
    let alike = (b'a'..=b'z').map(|letter| (letter, next(letter)));
    let alike =
        alike.filter(|(letter, to)| *to != 0 && *to <= ROWS && *to == next(letter.to_ascii_uppercase()));
    let letters: Vec<(u8, u32)> = alike.collect();
    if letters.len() <= LETTERS { letters } else { Vec::new() }
}

/// Whether no group lies in a group or in a repetition: each is gone through at most once.
fn is_plain(hir: &Hir, may_have_groups: bool) -> bool {
    let groups = hir.properties().explicit_captures_len();
    match hir.kind() {
        _ if groups == 0 => true,
        _ if !may_have_groups => false,
        HirKind::Capture(capture) => is_plain(&capture.sub, false),
        HirKind::Repetition(repetition) => repetition.max == Some(1) && is_plain(&repetition.sub, true),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(|part| is_plain(part, true)),
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => true,
    }
}

/// What a byte is to what stands beside it; of each kind one, and nothing where a line begins or ends.
const KINDS: [Option<u8>; 5] = [None, Some(b'\n'), Some(b'\r'), Some(b'a'), Some(b' ')];

fn kind(byte: u8) -> usize {
    match byte {
        b'\n' => 1,
        b'\r' => 2,
        b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => 3,
        _ => 4,
    }
}

/// A state while the automaton is built: ways, and the kind of the byte before if that matters.
type Key = (Vec<Way>, usize);

struct Builder<'a> {
    pattern: &'a NFA,
    /// For each column a byte in it, but for that of the end.
    examples: Vec<Option<u8>>,
    columns: Box<[u8; 256]>,
    /// Whether what stands beside matters to who goes on from a state of the pattern without reading.
    looks: Vec<bool>,
    numbers: HashMap<Key, u32>,
    states: Vec<Key>,
    notes: HashMap<Note, u32>,
    /// In which round a state of the pattern was last come by.
    seen: Vec<u32>,
    round: u32,
}

impl<'a> Builder<'a> {
    fn new(pattern: &'a NFA) -> Builder<'a> {
        let classes = pattern.byte_classes();
        let mut columns = Box::new([0; 256]);
        let mut examples = vec![None; classes.alphabet_len()];
        for (byte, column) in (0..=255).zip(columns.iter_mut()) {
            *column = classes.get(byte);
            if let Some(example) = examples.get_mut(usize::from(*column)) {
                *example = Some(byte);
            }
        }
        Builder {
            looks: looks(pattern),
            seen: vec![0; pattern.states().len()],
            pattern,
            examples,
            columns,
            numbers: HashMap::new(),
            states: vec![(Vec::new(), 0)],
            notes: HashMap::new(),
            round: 0,
        }
    }

    fn build(mut self) -> Option<Tagged> {
        let end_column = u8::try_from(self.pattern.byte_classes().eoi().as_usize()).ok()?;
        let width = self.examples.len();
        let mut first = Vec::new();
        for kind in 0..KINDS.len() {
            let ways = vec![Way { state: self.pattern.start_anchored(), start: Mark::None, end: Mark::None }];
            first.push(self.row(ways, kind)?);
        }
        let mut starts = Box::new([0; 257]);
        for (slot, byte) in starts.iter_mut().zip((0..=255).map(Some).chain([None])) {
            *slot = first.get(byte.map_or(0, kind)).copied()?;
        }

        let mut table = vec![0; width];
        let mut next = 1;
        while let Some((ways, before)) = self.states.get(next).cloned() {
            next += 1;
            let mut row = vec![0; width];
            let mut ahead: [Option<Vec<Way>>; KINDS.len()] = Default::default();
            for column in 0..self.examples.len() {
                let example = self.examples.get(column).copied().flatten();
                let kind = if self.matters(&ways) { example.map_or(0, kind) } else { 0 };
                let slot = ahead.get_mut(kind)?;
                let ahead = &*slot.get_or_insert_with(|| self.ahead(&ways, before, kind));
                if let Some(cell) = row.get_mut(column) {
                    *cell = self.step(ahead, example)?;
                }
            }
            table.extend_from_slice(&row);
            if 4 * table.len() > VERIFIER_AUTOMATON_BYTES_MAX {
                return None;
            }
        }
        self.finish(table, starts, end_column)
    }

    /// Matches come before the notes that change slots.
    fn finish(self, mut table: Vec<u32>, starts: Box<[u32; 257]>, end_column: u8) -> Option<Tagged> {
        let mut numbered: Vec<(Note, u32)> = self.notes.into_iter().collect();
        numbered.sort_unstable_by_key(|(note, number)| (note.slots.is_some(), *number));
        let plain = numbered.iter().filter(|(note, _)| note.slots.is_none()).count();
        let mut moved = vec![0; 1 + numbered.len()];
        for (to, (_, from)) in (1..).zip(&numbered) {
            *moved.get_mut(usize::try_from(*from).ok()?)? = to;
        }
        for cell in &mut table {
            let note: u32 = moved.get(usize::try_from(*cell >> ROW_BITS).ok()?).copied()?;
            *cell = note << ROW_BITS | (*cell & ROWS);
        }
        let notes = [Note::default()].into_iter().chain(numbered.into_iter().map(|(note, _)| note)).collect();
        let last_plain = u32::try_from(plain).ok()?;
        let (heads, is_telling) = (Heads::default(), true);
        Some(Tagged {
            columns: self.columns,
            end_column,
            table,
            notes,
            last_plain,
            starts,
            heads,
            is_telling,
        })
    }

    fn matters(&self, ways: &[Way]) -> bool {
        ways.iter().any(|way| self.looks.get(way.state.as_usize()).copied().unwrap_or(true))
    }

    /// Where the row of a state begins; of a new one if it is new. Nothing if there are too many.
    fn row(&mut self, ways: Vec<Way>, before: usize) -> Option<u32> {
        let row = self.number(ways, before).checked_mul(u32::try_from(self.examples.len()).ok()?)?;
        (row <= ROWS).then_some(row)
    }

    /// The number of a state, a new one if it is new.
    fn number(&mut self, ways: Vec<Way>, before: usize) -> u32 {
        if ways.is_empty() {
            return 0;
        }
        let before = if self.matters(&ways) { before } else { 0 };
        let key = (ways, before);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        self.states.push(key.clone());
        self.numbers.insert(key, number);
        number
    }

    /// The ways from some states of the pattern to those that read a byte, best first, up to a match.
    fn ahead(&mut self, ways: &[Way], before: usize, behind: usize) -> Vec<Way> {
        let beside = [before, behind].map(|kind| KINDS.get(kind).copied().flatten());
        let at = usize::from(beside.first().is_some_and(Option::is_some));
        let beside: Vec<u8> = beside.into_iter().flatten().collect();
        self.round += 1;
        let mut found = Vec::new();
        for way in ways {
            let mut open = vec![*way];
            while let Some(way) = open.pop() {
                let Some(seen) = self.seen.get_mut(way.state.as_usize()) else { continue };
                if std::mem::replace(seen, self.round) == self.round {
                    continue;
                }
                match self.pattern.state(way.state) {
                    State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) => found.push(way),
                    State::Match { .. } => {
                        found.push(way);
                        return found;
                    }
                    State::Fail => {}
                    State::Look { look, next } => {
                        if self.pattern.look_matcher().matches(*look, &beside, at) {
                            open.push(Way { state: *next, ..way });
                        }
                    }
                    State::Union { alternates } => {
                        open.extend(alternates.iter().rev().map(|state| Way { state: *state, ..way }));
                    }
                    State::BinaryUnion { alt1, alt2 } => {
                        open.extend([*alt2, *alt1].map(|state| Way { state, ..way }));
                    }
                    State::Capture { next, group_index, slot, .. } => {
                        let mut way = Way { state: *next, ..way };
                        // Group 0 is the whole match. Of the others the first counts.
                        let mark = if slot.as_usize() % 2 == 0 { &mut way.start } else { &mut way.end };
                        if group_index.as_usize() > 0 && *mark == Mark::None {
                            *mark = Mark::Here;
                        }
                        open.push(way);
                    }
                }
            }
        }
        found
    }

    /// The cell for a byte, or for the end of the line.
    fn step(&mut self, ahead: &[Way], byte: Option<u8>) -> Option<u32> {
        let mut note = Note::default();
        let mut ways: Vec<Way> = Vec::new();
        self.round += 1;
        for way in ahead {
            let state = match self.pattern.state(way.state) {
                State::Match { .. } => {
                    note.group = Some((way.start, way.end));
                    break;
                }
                State::ByteRange { trans } => {
                    byte.filter(|byte| trans.matches_byte(*byte)).map(|_| trans.next)
                }
                State::Sparse(sparse) => byte.and_then(|byte| sparse.matches_byte(byte)),
                State::Dense(dense) => byte.and_then(|byte| dense.matches_byte(byte)),
                _ => None,
            };
            let Some(state) = state else { continue };
            let Some(seen) = self.seen.get_mut(state.as_usize()) else { continue };
            if std::mem::replace(seen, self.round) != self.round {
                ways.push(Way { state, ..*way });
            }
        }
        note.slots = in_order(&mut ways)?;
        let row = self.row(ways, byte.map_or(0, kind))?;
        let number = if note == Note::default() { 0 } else { self.note(note) };
        (number <= NOTES).then_some(number << ROW_BITS | row)
    }

    fn note(&mut self, note: Note) -> u32 {
        let next = u32::try_from(1 + self.notes.len()).unwrap_or(u32::MAX);
        *self.notes.entry(note).or_insert(next)
    }
}

/// Gives ways slots in the order in which they need them, and says what each is to hold; nothing inside if all stay as they are.
/// Nothing at all if there are too many.
fn in_order(ways: &mut [Way]) -> Option<Option<Vec<Mark>>> {
    let mut slots: Vec<Mark> = Vec::new();
    for mark in ways.iter_mut().flat_map(|way| [&mut way.start, &mut way.end]) {
        if *mark == Mark::None {
            continue;
        }
        let slot = slots.iter().position(|known| known == mark).unwrap_or_else(|| {
            slots.push(*mark);
            slots.len() - 1
        });
        *mark = Mark::Slot(u8::try_from(slot).ok()?);
    }
    if slots.len() > SLOTS {
        return None;
    }
    let stays = (0..).zip(&slots).all(|(slot, mark)| *mark == Mark::Slot(slot));
    Some((!stays).then_some(slots))
}

/// For each state of a pattern, whether what stands beside matters to who goes on from it without reading.
fn looks(pattern: &NFA) -> Vec<bool> {
    let count = pattern.states().len();
    // Backwards from what looks: who leads to it without reading.
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut open = Vec::new();
    for (at, state) in pattern.states().iter().enumerate() {
        let next: &[StateID] = match state {
            State::Look { .. } => {
                open.push(at);
                &[]
            }
            State::Union { alternates } => alternates,
            State::BinaryUnion { alt1, alt2 } => &[*alt1, *alt2],
            State::Capture { next, .. } => &[*next],
            _ => &[],
        };
        for next in next {
            if let Some(before) = before.get_mut(next.as_usize()) {
                before.push(at);
            }
        }
    }
    let mut looks = vec![false; count];
    while let Some(at) = open.pop() {
        let Some(known) = looks.get_mut(at) else { continue };
        if !std::mem::replace(known, true) {
            open.extend(before.get(at).into_iter().flatten());
        }
    }
    looks
}

#[cfg(test)]
mod tests {
    use regex_automata::util::syntax;
    use regex_automata::{Anchored, Input, meta};

    use super::*;
    use crate::corpus::Dice;
    use crate::library;
    use crate::pattern::syntax_config;

    /// A pattern as the automaton and as a regular expression.
    struct Pair {
        pattern: String,
        automaton: Tagged,
        regex: meta::Regex,
    }

    impl Pair {
        fn new(pattern: &str, redact: Redact) -> Pair {
            let hir = syntax::parse_with(pattern, &syntax_config()).unwrap();
            let automaton = Tagged::new(&hir, redact).unwrap();
            let config = meta::Config::new().utf8_empty(false);
            let regex =
                meta::Builder::new().syntax(syntax_config()).configure(config).build(pattern).unwrap();
            Pair { pattern: pattern.to_owned(), automaton, regex }
        }

        /// Tries every start of a line both ways.
        fn compare(&self, line: &[u8], window_bytes: usize, has_groups: bool) {
            let mut captures = self.regex.create_captures();
            for start in 0..=line.len() {
                let limit = line.len().min(start + window_bytes);
                let input = Input::new(line).span(start..limit).anchored(Anchored::Yes);
                self.regex.captures(input, &mut captures);
                let group = || (1..captures.group_len()).find_map(|group| captures.get_group(group));
                let plain = captures.get_match().map(|whole| {
                    let group = if has_groups { group() } else { None };
                    Found { end: whole.end(), value: group.map_or(whole.range(), |group| group.range()) }
                });
                let (mut fast, steps) = self.automaton.run(line, start, limit);
                assert!(steps <= limit - start + 1);
                if !self.automaton.is_telling() {
                    fast = fast
                        .zip(plain.as_ref())
                        .map(|(fast, plain)| Found { end: fast.end, ..plain.clone() });
                }
                let text = String::from_utf8_lossy(line);
                assert_eq!(fast, plain, "{} at {start} up to {limit} of {text}", self.pattern);
            }
        }
    }

    // Scenario: each built-in rule, over its own examples and pieces of them put together, with a wide window and a narrow one.
    // Guarantees: end and value are those of the regular expression, wherever a match may start.
    #[test]
    fn every_built_in_rule_matches_as_its_regular_expression_does() {
        let mut dice = Dice::new(20_261_127);
        for rule in library::rules().unwrap() {
            let pair = Pair::new(&rule.pattern, rule.redact);
            assert!(pair.automaton.is_telling(), "{}", rule.id);
            let finds = rule.examples.finds.iter().map(|(line, _)| line);
            let mut lines: Vec<Vec<u8>> =
                finds.chain(&rule.examples.spares).map(|line| line.as_bytes().to_vec()).collect();
            let mut below = |limit: usize| usize::try_from(dice.within(0, limit as u64)).unwrap();
            for _ in 0..4 {
                let one = lines[below(lines.len() - 1)].clone();
                let other = &lines[below(lines.len() - 1)];
                let (from, to) = (below(one.len()), below(other.len()));
                lines.push([&one[..from], &other[to..], &one[from..]].concat());
            }
            for line in &lines {
                pair.compare(line, 4096, rule.redact == Redact::Group);
                pair.compare(line, 24, rule.redact == Redact::Group);
            }
        }
    }

    #[test]
    fn the_first_group_that_took_part_is_the_value() {
        for pattern in [
            "a(b)c",
            "a(?:(b)|(c))d?",
            "k[=: ]*(v[a-z ]*|w)(?:;|$)",
            "(?:x(a+)|x(a*b))",
            "x(a*?)(a*)",
            "x(a*)(a*)b?",
            "(?:(a)|b)*c|(?:ab)*d",
            r"x\b *(\w+)\b ?(?:=(\w+))?",
            r"(?m)^(a+)$|(b*)",
            r"x(?:y(z)?)?",
            r"(?:\w+ ){1,3}(\w+)[.!]",
        ] {
            let pair = Pair::new(pattern, Redact::Group);
            for line in [
                "xaab xaaab abc",
                "ab ac acd abababd",
                "k= :vw;k=v w",
                "x y=z x=y y",
                "xyz xy x",
                "aa\nbbb\naa",
            ] {
                for window_bytes in [64, 5, 2] {
                    pair.compare(line.as_bytes(), window_bytes, true);
                }
            }
        }
    }

    #[test]
    fn groups_in_groups_and_in_repetitions_are_not_told() {
        let is_telling = |pattern: &str| {
            let hir = syntax::parse_with(pattern, &syntax_config()).unwrap();
            Tagged::new(&hir, Redact::Group).unwrap().is_telling()
        };
        assert!(is_telling("a(b)(c)?(?:(d)|(e+))"));
        assert!(!is_telling("a(b(c))"));
        assert!(!is_telling("(?:a(b))+"));
        let hir = syntax::parse_with("(?:a(b))+", &syntax_config()).unwrap();
        assert!(Tagged::new(&hir, Redact::Match).unwrap().is_telling());
    }

    #[test]
    fn a_pattern_that_needs_too_many_states_has_no_automaton() {
        let hir = syntax::parse_with("[01]*1[01]{16}", &syntax_config()).unwrap();
        assert!(Tagged::new(&hir, Redact::Match).is_none());
    }
}

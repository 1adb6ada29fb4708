//! The pass over the whole buffer: from text to (place, rule), in order of places.
//!
//! The buffer is taken in chunks of [`CHUNK_BYTES`]. For each, the bits of its bytes become lanes, the shapes' program runs over them,
//! and the positions that may start a literal become one more lane and are compared. What is found in a chunk is sorted; the last of it
//! is kept until the next chunk has been seen, because a literal is found behind the place that it stands for.
//!
//! What always holds: for each rule, places come in ascending order.

use super::is_word;
use super::literal::Literals;
use super::program::Program;
use super::simd::{
    CHUNK_BYTES, Extent, Found, LANE_WORDS, Lane, Level, SieveScratch, VIEW_BYTES, WORDS, positions,
};
use crate::scan::RuleGaveUp;

/// How far behind the place that it stands for something may be found, in bytes: the farthest offset of a literal and more.
pub(super) const OFFSET_BYTES_MAX: usize = 64;

/// A rule may match around a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) place: usize,
    pub(super) rule: u32,
}

/// A candidate in one number that sorts as candidates do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed(u64);

impl Packed {
    pub(super) fn new(place: usize, rule: u32) -> Packed {
        // Texts are shorter than four gigabytes.
        Packed(u64::try_from(place).unwrap_or(u64::MAX) << 32 | u64::from(rule))
    }

    pub(super) fn candidate(self) -> Candidate {
        Candidate {
            place: usize::try_from(self.0 >> 32).unwrap_or(usize::MAX),
            rule: u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX),
        }
    }
}

/// Whose a list of positions is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// Rules, and how many bytes before the place the shape is found.
    pub(super) rules: Vec<(u32, u8)>,
}

/// Everything that finds candidates.
pub(super) struct Finder {
    pub(super) level: Level,
    pub(super) program: Program,
    pub(super) lists: Vec<List>,
    pub(super) literals: Literals,
}

/// What one thread needs for it.
#[derive(Default)]
pub(super) struct FinderScratch {
    lanes: Vec<Lane>,
    passing: Option<Box<Lane>>,
    sieve: Option<Box<SieveScratch>>,
    found: Vec<Found>,
    pending: Vec<Packed>,
}

/// A chunk: where it begins, how long it is, and the byte before it.
#[derive(Clone, Copy)]
struct Part {
    base: usize,
    here: usize,
    before: Option<u8>,
}

impl Part {
    fn extent(&self) -> Extent {
        let last = u64::MAX >> ((64 - self.here % 64) % 64);
        Extent { decided: self.here.div_ceil(64), is_behind_word: is_word(self.before), last }
    }
}

/// The bytes of text around a chunk.
enum View<'a> {
    Whole(&'a [u8; VIEW_BYTES]),
    Padded(Box<[u8; VIEW_BYTES]>),
}

impl View<'_> {
    fn at(text: &[u8], base: usize) -> View<'_> {
        let rest = text.get(base..).unwrap_or(&[]);
        match rest.first_chunk() {
            Some(view) => View::Whole(view),
            None => {
                let mut view = Box::new([0; VIEW_BYTES]);
                for (slot, byte) in view.iter_mut().zip(rest) {
                    *slot = *byte;
                }
                View::Padded(view)
            }
        }
    }

    fn bytes(&self) -> &[u8; VIEW_BYTES] {
        match self {
            View::Whole(view) => view,
            View::Padded(view) => view,
        }
    }
}

impl Finder {
    pub(super) fn scratch(&self) -> FinderScratch {
        FinderScratch {
            lanes: vec![Lane::EMPTY; self.program.lanes],
            passing: Some(Box::new(Lane::EMPTY)),
            sieve: Some(Box::new(SieveScratch::new())),
            ..FinderScratch::default()
        }
    }

    /// Calls with every candidate in `text`, each once and in order, some at a time.
    pub(super) fn find(
        &self,
        text: &[u8],
        offsets: &[i32],
        scratch: &mut FinderScratch,
        mut call: impl FnMut(&[Packed]) -> Result<(), RuleGaveUp>,
    ) -> Result<(), RuleGaveUp> {
        scratch.pending.clear();
        let mut edges = Edges { offsets, next: 0 };
        let mut base = 0;
        while base < text.len() {
            let view = View::at(text, base);
            let before = base.checked_sub(1).and_then(|before| text.get(before)).copied();
            let here = CHUNK_BYTES.min(text.len() - base);
            self.chunk(view.bytes(), Part { base, here, before }, &mut edges, scratch);
            let is_last = base + here == text.len();
            // Runs that are sorted already: each list, and nearly so the literals.
            scratch.pending.sort();
            scratch.pending.dedup();
            let ready = if is_last {
                scratch.pending.len()
            } else {
                let limit = Packed::new(base + here - OFFSET_BYTES_MAX, 0);
                scratch.pending.partition_point(|candidate| *candidate < limit)
            };
            call(scratch.pending.get(..ready).unwrap_or(&[]))?;
            scratch.pending.drain(..ready);
            base += here;
        }
        Ok(())
    }

    /// Calls with every place of a text, which is one line, where a shape holds, and the number of its list; for each list in order.
    pub(super) fn shapes(&self, text: &[u8], scratch: &mut FinderScratch, mut call: impl FnMut(u16, usize)) {
        let mut edges = Edges { offsets: &[0, i32::try_from(text.len()).unwrap_or(i32::MAX)], next: 0 };
        for base in (0..text.len()).step_by(CHUNK_BYTES) {
            let view = View::at(text, base);
            let before = base.checked_sub(1).and_then(|before| text.get(before)).copied();
            let part = Part { base, here: CHUNK_BYTES.min(text.len() - base), before };
            self.evaluate(view.bytes(), part, &mut edges, &mut scratch.lanes, &mut scratch.found);
            for Found { at, list } in scratch.found.drain(..) {
                call(list, base + usize::from(at));
            }
        }
    }

    /// Finds where the shapes hold in a chunk.
    fn evaluate(
        &self,
        view: &[u8; VIEW_BYTES],
        part: Part,
        edges: &mut Edges<'_>,
        lanes: &mut [Lane],
        found: &mut Vec<Found>,
    ) {
        let extent = part.extent();
        self.level.planes(view, extent.decided + 1, lanes);
        if let Some(lane) = self.program.edge.and_then(|lane| lanes.get_mut(lane)) {
            edges.fill(part.base, &mut lane.0);
        }
        found.clear();
        self.level.evaluate(&self.program.ops, lanes, extent, found);
    }

    fn chunk(&self, view: &[u8; VIEW_BYTES], part: Part, edges: &mut Edges<'_>, scratch: &mut FinderScratch) {
        let FinderScratch { lanes, passing, sieve, found, pending } = scratch;
        let (Some(passing), Some(sieve)) = (passing, sieve) else { return };
        let Part { base, .. } = part;
        let Extent { decided, last, .. } = part.extent();
        if !self.program.is_empty() {
            self.evaluate(view, part, edges, lanes, found);
            for Found { at, list } in found.drain(..) {
                let rules = self.lists.get(usize::from(list)).map_or(&[][..], |list| list.rules.as_slice());
                for (rule, ahead) in rules {
                    pending.push(Packed::new(base + usize::from(at) + usize::from(*ahead), *rule));
                }
            }
        }
        if !self.literals.is_empty() {
            self.level.sieve(view, decided, &self.literals.sieve, sieve, passing);
            let words = passing.0.split_at(decided.min(WORDS)).0;
            let Some((end, before)) = words.split_last() else { return };
            positions(before, end & last, |at| {
                self.literals.at(view, at, |rule, offset| {
                    let place = (base + usize::from(at)).checked_sub(usize::from(offset));
                    pending.extend(place.map(|place| Packed::new(place, rule)));
                });
            });
        }
    }
}

/// Line starts, as bits.
struct Edges<'a> {
    offsets: &'a [i32],
    /// The first that may lie in the next chunk.
    next: usize,
}

impl Edges<'_> {
    /// Sets the bits of the line starts from `base` on, for a chunk and what is looked at behind it.
    fn fill(&mut self, base: usize, lane: &mut [u64; LANE_WORDS]) {
        lane.fill(0);
        let rest = self.offsets.get(self.next..).unwrap_or(&[]);
        let distances = rest.iter().map(|offset| usize::try_from(*offset).unwrap_or(0).wrapping_sub(base));
        for distance in distances {
            let Some(word) = lane.get_mut(distance / 64) else { break };
            *word |= 1 << (distance % 64);
            self.next += usize::from(distance < CHUNK_BYTES);
        }
    }
}

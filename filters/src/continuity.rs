//! What is remembered from line to line and from batch to batch, per source.
//!
//! A private key that is printed line by line is one secret in many rows: the line that begins it opens a *block* for its source
//! and stream, and the lines of its body are redacted until it ends, wherever batches are cut.
//!
//! What always holds:
//! - what is remembered only ever adds redactions; without it the first line of a key and every body line of full length
//!   that stands alone are redacted all the same;
//! - for one source the result depends on its lines and their order, not on how batches are cut nor on other sources;
//! - it is bounded in sources and bytes, and holds no text;
//! - state is bound to a position: lines that are read again get the state that they had, and lines behind a gap or of an
//!   unknown source are looked at as if they could stand inside a key.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use beeacon_record::Position;

use crate::evidence::Evidence;
use crate::limits::{
    BLOCK_LINES_MAX, BODY_BYTES_MAX, BODY_BYTES_MIN, CONTINUITY_MARKS_MAX, CONTINUITY_SOURCES_MAX,
    DOUBT_LINES_MAX,
};
use crate::pem::{self, Part};
use crate::scan::Hit;

/// How many streams a source has: standard output and standard error.
pub(crate) const STREAMS: usize = 2;

/// What the last line of a stream leaves to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Block {
    /// No private key is open.
    #[default]
    Closed,
    /// Inside of a private key.
    Open {
        /// How many more lines it may have.
        lines_left: u32,
        /// How much stood before its last line's text.
        prefix_bytes: usize,
    },
    /// Something else stood inside of a private key, which may go on.
    Interrupted {
        /// For how many more lines.
        lines_left: u32,
        prefix_bytes: usize,
    },
    /// What came before is not known.
    Unknown {
        /// For how many more lines that matters.
        lines_left: u32,
    },
}

impl Block {
    const UNKNOWN: Block = Block::Unknown { lines_left: DOUBT_LINES_MAX };

    fn open(prefix_bytes: usize) -> Block {
        Block::Open { lines_left: BLOCK_LINES_MAX, prefix_bytes }
    }

    /// Takes a line, and says which part of it belongs to a private key. `begins_at` is where one begins in it, if one does.
    pub(crate) fn take(&mut self, line: &[u8], begins_at: Option<usize>) -> Option<Range<usize>> {
        if let Some(at) = begins_at {
            *self = Block::open(at);
            return None;
        }
        let (found, next) = match *self {
            Block::Closed => match pem::bare_body(line) {
                Some(body) => (Some(body.clone()), Block::open(body.start)),
                None => (None, Block::Closed),
            },
            Block::Open { lines_left, prefix_bytes } => Self::inside(line, lines_left, prefix_bytes),
            Block::Interrupted { lines_left, prefix_bytes } => match pem::part(line, prefix_bytes) {
                Part::Full(body) => (Some(body.clone()), Block::open(body.start)),
                Part::End(end) => (Some(end), Block::Closed),
                _ => match lines_left.checked_sub(1) {
                    Some(lines_left) => (None, Block::Interrupted { lines_left, prefix_bytes }),
                    None => (None, Block::Closed),
                },
            },
            Block::Unknown { lines_left } => match pem::part(line, 0) {
                Part::Full(body) if pem::has_width(&body) => (Some(body.clone()), Block::open(body.start)),
                Part::End(_) => (None, Block::Closed),
                _ => match (pem::bare_body(line), lines_left.checked_sub(1)) {
                    (Some(body), _) => (Some(body.clone()), Block::open(body.start)),
                    (None, Some(lines_left)) => (None, Block::Unknown { lines_left }),
                    (None, None) => (None, Block::Closed),
                },
            },
        };
        *self = next;
        found
    }

    fn inside(line: &[u8], lines_left: u32, prefix_bytes: usize) -> (Option<Range<usize>>, Block) {
        let Some(lines_left) = lines_left.checked_sub(1) else { return (None, Block::Closed) };
        let go_on = |prefix_bytes| Block::Open { lines_left, prefix_bytes };
        match pem::part(line, prefix_bytes) {
            Part::Full(body) => (Some(body.clone()), go_on(body.start)),
            Part::Header(header) => (Some(header), go_on(prefix_bytes)),
            Part::Short(body) => (Some(body), go_on(prefix_bytes)),
            Part::End(end) => (Some(end), Block::Closed),
            Part::Blank => (None, go_on(prefix_bytes)),
            Part::Other => (None, Block::Interrupted { lines_left: DOUBT_LINES_MAX, prefix_bytes }),
        }
    }
}

/// What is known of one source.
#[derive(Debug, Default)]
struct SourceState {
    /// Where the last batches ended, oldest first, with what stood open there.
    marks: VecDeque<(Position, [Block; STREAMS])>,
    /// What its fields have shown.
    evidence: Evidence,
    touched: u64,
}

/// What an engine remembers of the sources whose lines it has seen. One for each agent; a new one knows nothing, which is safe.
///
/// ```
/// use beeacon_filters::{Continuity, Engine, EngineOptions};
/// let engine = Engine::new(EngineOptions::default()).unwrap();
/// let mut continuity = Continuity::default();
/// let mut scrub = |line: &str| engine.scrub_text_with(line, &mut continuity).unwrap().0;
/// assert_eq!(scrub("10:00 -----BEGIN EC PRIVATE KEY-----"), "10:00 <PRIVATE_KEY>");
/// assert_eq!(scrub("10:00 AbCdEfGhIjKlMnOp"), "10:00 <PRIVATE_KEY>");
/// assert_eq!(scrub("10:00 -----END EC PRIVATE KEY-----"), "10:00 <PRIVATE_KEY>");
/// assert_eq!(scrub("10:00 AbCdEfGhIjKlMnOp"), "10:00 AbCdEfGhIjKlMnOp");
/// ```
#[derive(Debug, Default)]
pub struct Continuity {
    sources: HashMap<String, SourceState>,
    /// What goes on from text to text where there are no sources.
    text: Block,
    text_evidence: Evidence,
    clock: u64,
}

impl Continuity {
    /// How many sources are remembered.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Takes out what is known of the sources of a batch. Until [`Continuity::end`] they are unknown: a failure in between forgets them.
    pub(crate) fn begin<'a>(&mut self, sources: impl Iterator<Item = (&'a str, Option<Position>)>) -> Flows {
        let mut flows = Flows::default();
        for (name, from) in sources {
            let mut state = self.sources.remove(name).unwrap_or_default();
            flows.evidence.push(std::mem::take(&mut state.evidence));
            let mark = from.and_then(|from| state.marks.iter().rev().find(|(at, _)| *at == from));
            flows.blocks.extend(mark.map_or([Block::UNKNOWN; STREAMS], |(_, blocks)| *blocks));
            flows.states.push(state);
        }
        flows
    }

    /// Puts back what is known behind a batch. The sources are those of [`Continuity::begin`], with where they end.
    pub(crate) fn end<'a>(
        &mut self,
        flows: Flows,
        sources: impl Iterator<Item = (&'a str, Option<Position>)>,
    ) {
        self.clock += 1;
        let Flows { blocks, mut states, evidence } = flows;
        for (state, evidence) in states.iter_mut().zip(evidence) {
            state.evidence = evidence;
        }
        let ends = blocks.chunks_exact(STREAMS).filter_map(|pair| <[Block; STREAMS]>::try_from(pair).ok());
        for ((mut state, blocks), (name, to)) in states.into_iter().zip(ends).zip(sources) {
            if let Some(to) = to {
                // What was read again replaces what was there.
                state.marks.retain(|(at, _)| *at < to);
                state.marks.push_back((to, blocks));
                if state.marks.len() > CONTINUITY_MARKS_MAX {
                    state.marks.pop_front();
                }
            }
            state.touched = self.clock;
            self.sources.insert(name.to_owned(), state);
        }
        while self.sources.len() > CONTINUITY_SOURCES_MAX {
            let oldest = self
                .sources
                .iter()
                .min_by(|(left, a), (right, b)| a.touched.cmp(&b.touched).then_with(|| left.cmp(right)));
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            self.sources.remove(&oldest);
        }
    }

    /// The same for text without a source.
    pub(crate) fn begin_text(&mut self) -> Flows {
        // Whoever hands over text starts where it starts.
        let block = std::mem::replace(&mut self.text, Block::UNKNOWN);
        let evidence = std::mem::take(&mut self.text_evidence);
        Flows { blocks: vec![block, Block::Closed], states: Vec::new(), evidence: vec![evidence] }
    }

    pub(crate) fn end_text(&mut self, mut flows: Flows) {
        self.text = flows.blocks.first().copied().unwrap_or(Block::UNKNOWN);
        self.text_evidence = flows.evidence.pop().unwrap_or_default();
    }
}

/// Adds to `hits` what belongs to private keys that go over lines, in the name of `rule`.
///
/// `flow_of` names the flow of a line. Without flows every line is alone, and only bare body lines are found. What this costs a
/// clean line is a look at its length.
pub(crate) fn add_keys(
    rule: u32,
    text: &[u8],
    offsets: &[i32],
    mut flows: Option<(&mut Flows, &dyn Fn(u32) -> usize)>,
    hits: &mut Vec<Hit>,
) {
    let mut begins: Vec<(u32, usize)> = Vec::new();
    if flows.is_some() {
        let place = |line: u32| usize::try_from(line).ok().and_then(|line| offsets.get(line..line + 2));
        for hit in hits.iter() {
            let Some([start, end]) = place(hit.line) else { continue };
            let (start, end) = (widen(*start), widen(*end));
            let at = usize::try_from(hit.match_start).unwrap_or(usize::MAX).saturating_sub(start);
            if pem::begins(text.get(start..end).unwrap_or(&[]), at) {
                begins.push((hit.line, at));
            }
        }
        begins.sort_unstable();
    }
    let mut open = flows.as_ref().map_or(0, |(flows, _)| flows.open());
    let mut next_begin = begins.iter().copied().peekable();
    let mut start = 0;
    for (line, end) in (0_u32..).zip(offsets.iter().skip(1).map(|at| widen(*at))) {
        let bounds = start..end;
        start = end;
        let may_be_body = (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&bounds.len());
        let mut begins_at = None;
        while let Some((_, at)) = next_begin.next_if(|(begun, _)| *begun <= line) {
            begins_at = Some(at);
        }
        if open == 0 && !may_be_body && begins_at.is_none() {
            continue;
        }
        let alone = text.get(bounds.clone()).unwrap_or(&[]);
        let found = match &mut flows {
            Some((flows, flow_of)) => match flows.blocks.get_mut(flow_of(line)) {
                Some(block) => {
                    let was_open = *block != Block::Closed;
                    let found = block.take(alone, begins_at);
                    open = open + usize::from(*block != Block::Closed) - usize::from(was_open);
                    found
                }
                None => pem::bare_body(alone),
            },
            None => pem::bare_body(alone),
        };
        if let Some(found) = found {
            let narrow = |at: usize| u32::try_from(bounds.start + at).unwrap_or(u32::MAX);
            let (start, end) = (narrow(found.start), narrow(found.end));
            hits.push(Hit { rule, line, start, end, match_start: start, match_end: end, weak: false });
        }
    }
}

fn widen(at: i32) -> usize {
    usize::try_from(at).unwrap_or(0)
}

/// The flows of lines of one batch: a source's stream each, source by source.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    blocks: Vec<Block>,
    states: Vec<SourceState>,
    evidence: Vec<Evidence>,
}

impl Flows {
    /// What is known of the fields of a flow's source; both streams of a source share it.
    pub(crate) fn evidence(&mut self, flow: usize) -> Option<&mut Evidence> {
        self.evidence.get_mut(flow / STREAMS)
    }

    /// How many flows may be inside of a private key.
    fn open(&self) -> usize {
        self.blocks.iter().filter(|block| **block != Block::Closed).count()
    }

    /// Declares that nothing is open anywhere.
    #[cfg(test)]
    pub(crate) fn close(&mut self) {
        self.blocks.fill(Block::Closed);
    }
}

//! What to do with an interval, given what is committed of its source: the heart of «every row once».
//!
//! Always holds, whatever order intervals come in, however they are cut and however often they are sent:
//! - the committed position only grows;
//! - a row that was stored is never wanted again: it lies below the committed position and is not open, and no later
//!   interval can open it again;
//! - positions are left out only behind a declared gap, which becomes a gap row.
//!
//! Pure: it knows nothing of agents, sessions, frames or disks. What it leaves to others: that an agent's intervals are
//! judged one after another, each against what the one before it left.

use beeacon_record::{Interval, Position};

/// What is committed of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything below is committed, but for the lines that start at `open`.
    pub committed: Position,
    /// Where lines start that lie below `committed` and have not come yet; sorted, each once.
    pub open: Vec<Position>,
}

impl Progress {
    /// Whether a row at this position has not been stored yet.
    pub fn wants(&self, position: Position) -> bool {
        position >= self.committed || self.open.contains(&position)
    }
}

/// What an interval does to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All of it is committed already: nothing to store, nothing to change.
    Duplicate,
    /// Store the rows that `before` wants, then remember `after`.
    Commit {
        /// What is committed afterwards.
        after: Progress,
        /// Where a declared loss starts; it ends at the interval's `from`.
        missing_from: Option<Position>,
    },
    /// Something is missing and nobody declared it lost: read again from here.
    Hole {
        /// The position that is committed.
        expected: Position,
    },
}

/// Judges one interval. `before` is none for a source that was never heard of: its first interval is taken from wherever
/// it starts.
///
/// ```
/// use beeacon_collector::commit::{Decision, Progress, decide};
/// use beeacon_record::{Interval, Position, Source};
/// let before = Progress { committed: Position::new(1, 100), open: vec![] };
/// let source = Source::new("docker-file:4f2a").unwrap();
/// let again = Interval::new(source.clone(), Position::new(1, 20), Position::new(1, 100));
/// assert_eq!(decide(Some(&before), &again), Decision::Duplicate);
/// let ahead = Interval::new(source, Position::new(1, 120), Position::new(1, 150));
/// assert_eq!(decide(Some(&before), &ahead), Decision::Hole { expected: Position::new(1, 100) });
/// ```
pub fn decide(before: Option<&Progress>, interval: &Interval) -> Decision {
    let (from, to) = (interval.from, interval.to);
    let declared = interval.gap.as_ref().map(|gap| gap.from);
    let Some(before) = before else {
        let missing_from = declared.filter(|start| *start < from);
        return Decision::Commit { after: after(&Progress::default(), interval), missing_from };
    };
    let committed = before.committed;
    if to < committed || (to == committed && from < committed) {
        return Decision::Duplicate;
    }
    let missing_from = match declared {
        _ if from <= committed => None,
        Some(start) if start <= committed => Some(committed),
        _ => return Decision::Hole { expected: committed },
    };
    Decision::Commit { after: after(before, interval), missing_from }
}

/// A line below what was committed can only be open if it was open already: otherwise it has been stored, and an
/// interval sent a second time would bring it back.
fn after(before: &Progress, interval: &Interval) -> Progress {
    let may_open = |start: &Position| *start < interval.to && before.wants(*start);
    let mut open: Vec<Position> = interval.open.iter().copied().filter(may_open).collect();
    open.sort_unstable();
    open.dedup();
    Progress { committed: interval.to, open }
}

/// What a replay takes as committed, from what it has seen itself and what the journal entry says was committed when it
/// was written. Where the entry knows more, records before it were lost, and the lost stretch is given too.
pub fn reconcile(seen: Option<&Progress>, noted: Option<&Progress>) -> (Option<Progress>, Option<Lost>) {
    match (seen, noted) {
        (seen, None) => (seen.cloned(), None),
        (None, Some(noted)) => {
            let lost = Lost { from: Position::START, to: noted.committed };
            (Some(noted.clone()), (lost.from < lost.to).then_some(lost))
        }
        (Some(seen), Some(noted)) if seen.committed < noted.committed => {
            (Some(noted.clone()), Some(Lost { from: seen.committed, to: noted.committed }))
        }
        // A record that was stored but never answered may be followed by the same rows sent again, with the same note.
        (Some(seen), Some(_)) => (Some(seen.clone()), None),
    }
}

/// A stretch of positions whose records were damaged in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where it starts.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
}

#[cfg(test)]
mod tests;

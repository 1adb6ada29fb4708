//! From a decoded frame and what is remembered of its sources to everything that has to happen: pure.
//!
//! The same code plans a frame that has just come in and one that a replay reads from the journal, so both store the same
//! rows.

use std::collections::HashMap;

use arrow_array::{Array, BooleanArray};
use beeacon_record::schema::Column;
use beeacon_record::wire::Committed;
use beeacon_record::{AgentId, Batch, BatchError, Gap, GapReason, Interval, Position, Scrubbed, Source};
use beeacon_store::{Commit, GapRow, SourceProgress};

use crate::agents::Memory;
use crate::commit::{Decision, Lost, Progress, decide};

/// Why a frame's rows can't be what its header says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// A row names another agent than the frame.
    #[error("row {row} names another agent than the frame")]
    OtherAgent {
        /// The row's number in the batch.
        row: usize,
    },
    /// Two rows of one source stand at the same position, so they could not be told apart.
    #[error("two rows of source {source_name} stand at {position}")]
    Twice {
        /// The source.
        source_name: Source,
        /// Where they stand.
        position: Position,
    },
    /// The batch's columns are not as its schema says.
    #[error("read the columns of the batch")]
    Batch(#[from] BatchError),
}

/// Checks what identity rests on: every row names the frame's agent, and no two rows of a source have one position.
///
/// # Errors
/// The first row that breaks it.
pub(crate) fn check_rows(agent: AgentId, batch: &Batch) -> Result<(), RowsError> {
    let (keys, values) = batch.dictionary_column(Column::Agent)?;
    let expected = agent.to_string();
    let right: Vec<bool> = values.iter().map(|name| name == Some(expected.as_str())).collect();
    let is_right = |key: &i32| usize::try_from(*key).ok().and_then(|key| right.get(key)).copied();
    if let Some(row) = keys.values().iter().position(|key| is_right(key) != Some(true)) {
        return Err(RowsError::OtherAgent { row });
    }
    let places = interval_of_rows(batch)?;
    let mut highest: Vec<Option<Position>> = vec![None; batch.intervals().len()];
    let ascends = places.iter().zip(batch.positions()).all(|(place, position)| {
        let Some(highest) = highest.get_mut(*place) else { return false };
        highest.replace(position) < Some(position)
    });
    if ascends {
        return Ok(());
    }
    // Lines of two streams end in another order than they start: look closely.
    let mut all: Vec<(usize, Position)> = places.into_iter().zip(batch.positions()).collect();
    all.sort_unstable();
    let twice = all.windows(2).find(|pair| matches!(pair, [left, right] if left == right));
    match twice.and_then(<[_]>::first) {
        None => Ok(()),
        Some((place, position)) => {
            let interval = batch.intervals().get(*place).ok_or(BatchError::Homeless { row: 0 })?;
            Err(RowsError::Twice { source_name: interval.source.clone(), position: *position })
        }
    }
}

/// Which of the batch's intervals each row belongs to.
fn interval_of_rows(batch: &Batch) -> Result<Vec<usize>, BatchError> {
    let (keys, values) = batch.dictionary_column(Column::Source)?;
    let by_name: HashMap<&str, usize> =
        batch.intervals().iter().enumerate().map(|(index, i)| (i.source.as_str(), index)).collect();
    let by_key: Vec<Option<usize>> =
        values.iter().map(|name| name.and_then(|name| by_name.get(name)).copied()).collect();
    let place = |(row, key): (usize, &i32)| {
        let place = usize::try_from(*key).ok().and_then(|key| by_key.get(key)).copied().flatten();
        place.ok_or(BatchError::Homeless { row })
    };
    keys.values().iter().enumerate().map(place).collect()
}

/// Which rows were not stored before, given what was committed of each interval's source. None when all of them.
///
/// # Errors
/// When a row belongs to no interval.
pub(crate) fn wanted_rows(
    batch: &Batch,
    before: &[Verdict<'_>],
) -> Result<(Vec<bool>, Vec<u32>), BatchError> {
    let mut kept = vec![0u32; before.len()];
    let wanted = interval_of_rows(batch)?
        .into_iter()
        .zip(batch.positions())
        .map(|(place, position)| {
            let wants = before.get(place).is_some_and(|verdict| verdict.wants(position));
            if wants && let Some(kept) = kept.get_mut(place) {
                *kept += 1;
            }
            wants
        })
        .collect();
    Ok((wanted, kept))
}

/// Which rows of an interval to take.
#[derive(Clone, Copy)]
pub(crate) enum Verdict<'a> {
    None,
    All,
    Since(&'a Progress),
}

/// The verdicts on a journal entry's rows by its own notes, without any state: what it stored when it was written.
pub(crate) fn noted_verdicts<'a>(before: &'a [Option<Progress>], intervals: &[Interval]) -> Vec<Verdict<'a>> {
    let verdict = |(before, interval): (&'a Option<Progress>, &Interval)| {
        Verdict::of(&decide(before.as_ref(), interval), before.as_ref())
    };
    before.iter().zip(intervals).map(verdict).collect()
}

/// The gaps that a journal entry's intervals declared and that were taken as such when it was written, with their sources.
pub(crate) fn noted_gaps<'a>(
    before: &'a [Option<Progress>],
    intervals: &'a [Interval],
) -> impl Iterator<Item = (&'a Source, Gap)> {
    before.iter().zip(intervals).filter_map(|(before, interval)| match decide(before.as_ref(), interval) {
        Decision::Commit { missing_from: Some(from), .. } => {
            interval.gap.as_ref().map(|gap| (&interval.source, clipped(gap, from)))
        }
        _ => None,
    })
}

impl<'a> Verdict<'a> {
    fn of(decision: &Decision, before: Option<&'a Progress>) -> Self {
        match (decision, before) {
            (Decision::Commit { .. }, Some(before)) => Verdict::Since(before),
            (Decision::Commit { .. }, None) => Verdict::All,
            (Decision::Duplicate | Decision::Hole { .. }, _) => Verdict::None,
        }
    }

    fn wants(&self, position: Position) -> bool {
        match self {
            Verdict::None => false,
            Verdict::All => true,
            Verdict::Since(progress) => progress.wants(position),
        }
    }
}

/// What is known of a source before a frame is planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) memory: Option<Memory>,
    /// Only in a replay: what was damaged before this entry.
    pub(crate) lost: Option<Lost>,
}

/// A frame as planned against what is known.
pub(crate) struct Plan {
    /// What was committed before, per interval: for the journal entry.
    pub(crate) before: Vec<Option<Progress>>,
    /// What changes.
    pub(crate) after: Vec<(Source, Memory)>,
    /// The rows to store, if any.
    pub(crate) batch: Option<Scrubbed<Batch>>,
    pub(crate) gaps: Vec<GapRow>,
    /// Where every source of the frame stands afterwards.
    pub(crate) committed: Vec<Committed>,
    pub(crate) rows: u64,
    pub(crate) duplicate_rows: u64,
}

/// Why a frame can't be planned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("a source of the frame has a hole before its interval")]
    Hole { expected: Vec<Committed> },
    #[error("plan the rows of a batch")]
    Batch(#[from] BatchError),
}

impl Plan {
    /// Plans a frame. `known` stands in the order of the batch's intervals.
    pub(crate) fn new(
        agent: AgentId,
        tenant: &str,
        received_ns: i64,
        batch: &Scrubbed<Batch>,
        known: &[Known],
    ) -> Result<Plan, PlanError> {
        let intervals = batch.get().intervals();
        let progress = |known: &Known| known.memory.as_ref().map(|memory| memory.progress.clone());
        let before: Vec<Option<Progress>> = known.iter().map(progress).collect();
        let decisions: Vec<Decision> = before
            .iter()
            .zip(intervals)
            .map(|(before, interval)| decide(before.as_ref(), interval))
            .collect();
        if decisions.iter().any(|decision| matches!(decision, Decision::Hole { .. })) {
            let stand = |(before, interval): (&Option<Progress>, &Interval)| Committed {
                source: interval.source.clone(),
                position: before.as_ref().map_or(interval.from, |before| before.committed),
            };
            return Err(PlanError::Hole { expected: before.iter().zip(intervals).map(stand).collect() });
        }
        let verdicts: Vec<Verdict<'_>> = decisions
            .iter()
            .zip(&before)
            .map(|(decision, before)| Verdict::of(decision, before.as_ref()))
            .collect();
        let (wanted, kept) = wanted_rows(batch.get(), &verdicts)?;
        let rows = wanted.iter().filter(|wanted| **wanted).count();

        let mut plan = Plan {
            after: Vec::new(),
            batch: None,
            gaps: Vec::new(),
            committed: Vec::new(),
            rows: rows as u64,
            duplicate_rows: (wanted.len() - rows) as u64,
            before: Vec::new(),
        };
        let origins = Origins::of(batch.get())?;
        for (index, (interval, decision)) in intervals.iter().zip(decisions).enumerate() {
            let known = known.get(index).cloned().unwrap_or_default();
            if let Some(lost) = known.lost {
                let gap = damaged(lost);
                plan.gaps.push(origins.gap_row(agent, tenant, received_ns, index, interval, &gap, lost.to));
            }
            let position = match decision {
                Decision::Commit { after, missing_from } => {
                    if let (Some(from), Some(gap)) = (missing_from, &interval.gap) {
                        let gap = clipped(gap, from);
                        plan.gaps.push(origins.gap_row(
                            agent,
                            tenant,
                            received_ns,
                            index,
                            interval,
                            &gap,
                            interval.from,
                        ));
                    }
                    let position = after.committed;
                    let memory = Memory {
                        progress: after,
                        cursor: interval.cursor.clone(),
                        is_final: interval.is_final,
                        received_ns,
                    };
                    if kept.get(index) != Some(&0) || differs(known.memory.as_ref(), &memory) {
                        plan.after.push((interval.source.clone(), memory));
                    }
                    position
                }
                Decision::Duplicate | Decision::Hole { .. } => {
                    known.memory.map_or(interval.to, |memory| memory.progress.committed)
                }
            };
            plan.committed.push(Committed { source: interval.source.clone(), position });
        }
        if rows == wanted.len() && rows > 0 {
            plan.batch = Some(batch.clone());
        } else if rows > 0 {
            plan.batch = Some(batch.filter(&BooleanArray::from(wanted))?);
        }
        plan.before = before;
        Ok(plan)
    }

    /// Whether nothing would change: the frame was committed before.
    pub(crate) fn is_empty(&self) -> bool {
        self.after.is_empty() && self.gaps.is_empty() && self.rows == 0
    }

    /// What the store is given.
    pub(crate) fn commit(&self, agent: AgentId, tenant: &str, received_ns: i64, lsn: u64) -> Commit {
        let progress: Vec<SourceProgress> =
            self.after.iter().map(|(source, memory)| memory.to_stored(agent, source.clone())).collect();
        Commit {
            batch: self.batch.clone(),
            progress,
            gaps: self.gaps.clone(),
            ..Commit::new(lsn, tenant, received_ns)
        }
    }
}

/// Whether an interval without a new row still changes something; when it came does not count.
fn differs(before: Option<&Memory>, after: &Memory) -> bool {
    before.is_none_or(|before| {
        before.progress != after.progress
            || before.cursor != after.cursor
            || before.is_final != after.is_final
    })
}

/// A declared gap from where it is really missing. How many bytes lie in a part of it is not known.
fn clipped(gap: &Gap, from: Position) -> Gap {
    let bytes = if gap.from == from { gap.bytes } else { 0 };
    Gap { from, bytes, ..gap.clone() }
}

fn damaged(lost: Lost) -> Gap {
    Gap {
        from: lost.from,
        reason: GapReason::Damaged,
        bytes: 0,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
    }
}

/// The origin of a gap: that of its source's first row in the same batch.
struct Origins<'a> {
    batch: &'a Batch,
    first_rows: Vec<Option<usize>>,
}

impl<'a> Origins<'a> {
    fn of(batch: &'a Batch) -> Result<Self, BatchError> {
        let mut first_rows = vec![None; batch.intervals().len()];
        for (row, place) in interval_of_rows(batch)?.into_iter().enumerate() {
            if let Some(first) = first_rows.get_mut(place) {
                first.get_or_insert(row);
            }
        }
        Ok(Origins { batch, first_rows })
    }

    fn text(&self, column: Column, row: Option<usize>) -> String {
        let text = || {
            let (keys, values) = self.batch.dictionary_column(column).ok()?;
            let key = usize::try_from(*keys.values().get(row?)?).ok()?;
            (key < values.len()).then(|| values.value(key).to_owned())
        };
        text().unwrap_or_default()
    }

    #[expect(clippy::too_many_arguments, reason = "a gap row has that many parts")]
    fn gap_row(
        &self,
        agent: AgentId,
        tenant: &str,
        received_ns: i64,
        index: usize,
        interval: &Interval,
        gap: &Gap,
        to: Position,
    ) -> GapRow {
        let row = self.first_rows.get(index).copied().flatten();
        let mut container_id = self.text(Column::ContainerId, row);
        if container_id.is_empty() {
            container_id = container_of(&interval.source).to_owned();
        }
        GapRow {
            tenant: tenant.to_owned(),
            agent,
            source: interval.source.clone(),
            host: self.text(Column::Host, row),
            service: self.text(Column::Service, row),
            container: self.text(Column::Container, row),
            container_id,
            from: gap.from,
            to,
            reason: gap.reason,
            bytes: gap.bytes,
            timestamp_before_ns: gap.timestamp_before_ns,
            timestamp_after_ns: gap.timestamp_after_ns,
            received_ns,
        }
    }
}

/// The container's id out of a Docker source's name; empty for any other source.
fn container_of(source: &Source) -> &str {
    let name = source.as_str();
    let rest = name.strip_prefix("docker-file:").or_else(|| name.strip_prefix("docker-api:"));
    rest.and_then(|rest| rest.split(':').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

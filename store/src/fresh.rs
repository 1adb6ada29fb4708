//! Fresh rows: what is durable in the journal and not yet in a file. Pure bookkeeping, keyed by LSN.
//!
//! What always holds:
//! - every commit is here exactly once, from the moment it is admitted until its transaction in the catalog is known to be
//!   committed;
//! - `prefix_end` is the last LSN of the unbroken run that starts after `flushed_lsn`; only that run may be written;
//! - the bytes stay below the limit, but for one commit: the one that fills the first hole is admitted when nothing else
//!   could make room, because all the others wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType};
use arrow_array::{Array, RecordBatch};
use beeacon_record::schema::Column;
use beeacon_record::{AgentId, Epoch, RuleSetId};
use tokio::time::Instant;

use crate::commit::{Commit, GapRow, SourceProgress, check_tenant};
use crate::error::StoreError;
use crate::limits::COMMIT_OVERHEAD_BYTES;
use crate::snapshot::Prune;

/// A commit, ready to be read and written.
pub(crate) struct FreshCommit {
    pub(crate) lsn: u64,
    pub(crate) tenant: String,
    pub(crate) received_ns: i64,
    pub(crate) rows: Option<FreshRows>,
    pub(crate) progress: Vec<SourceProgress>,
    pub(crate) gaps: Vec<GapRow>,
    pub(crate) epoch: Option<(AgentId, Epoch)>,
    pub(crate) bytes: usize,
    pub(crate) arrived: Instant,
}

/// A commit's rows, with what is needed to skip them.
pub(crate) struct FreshRows {
    pub(crate) records: RecordBatch,
    pub(crate) rule_set: RuleSetId,
    time_min_ns: i64,
    time_max_ns: i64,
}

impl FreshCommit {
    pub(crate) fn new(commit: Commit, arrived: Instant) -> Result<Self, StoreError> {
        check_tenant(&commit.tenant)?;
        for gap in &commit.gaps {
            check_tenant(&gap.tenant)?;
        }
        let rows = match commit.batch {
            Some(batch) if batch.get().rows() > 0 => Some(FreshRows {
                records: batch.get().with_tenant(&commit.tenant)?,
                rule_set: batch.rule_set(),
                time_min_ns: batch.get().timestamps_ns().iter().copied().min().unwrap_or(i64::MIN),
                time_max_ns: batch.get().timestamps_ns().iter().copied().max().unwrap_or(i64::MAX),
            }),
            _ => None,
        };
        let position_bytes: usize =
            commit.progress.iter().map(|p| 128 + p.source.as_str().len() + p.cursor.len()).sum();
        let row_bytes = rows.as_ref().map_or(Ok(0), |rows| record_bytes(&rows.records))?;
        Ok(FreshCommit {
            lsn: commit.lsn,
            tenant: commit.tenant,
            received_ns: commit.received_ns,
            rows,
            progress: commit.progress,
            bytes: COMMIT_OVERHEAD_BYTES + position_bytes + 1024 * commit.gaps.len() + row_bytes,
            gaps: commit.gaps,
            epoch: commit.epoch,
            arrived,
        })
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows.as_ref().map_or(0, |rows| rows.records.num_rows())
    }
}

impl FreshRows {
    /// Whether a query with these bounds may need these rows.
    fn may_match(&self, prune: &Prune) -> bool {
        let in_time =
            prune.time_ns.is_none_or(|(from, to)| self.time_max_ns >= from && self.time_min_ns <= to);
        let has_service = |services: &Vec<String>| {
            let column = self.records.column(Column::Service.index());
            let Some(values) =
                column.as_dictionary_opt::<Int32Type>().and_then(|d| d.values().as_string_opt::<i32>())
            else {
                return true;
            };
            values.iter().flatten().any(|value| services.iter().any(|service| service == value))
        };
        in_time && prune.services.as_ref().is_none_or(has_service)
    }
}

/// What the columns hold, in bytes. Buffers that several columns share (a decoded frame) are not counted again and again,
/// as their capacity would be.
fn record_bytes(records: &RecordBatch) -> Result<usize, StoreError> {
    let mut bytes = 0;
    for column in records.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

/// The timestamps of a batch of the log schema.
pub(crate) fn timestamps(records: &RecordBatch) -> &[i64] {
    let column = records.column(Column::Timestamp.index());
    column.as_primitive_opt::<TimestampNanosecondType>().map_or(&[], |array| array.values())
}

/// What became of a commit that asked to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is in every snapshot from now on.
    Admitted,
    /// There is no room now.
    Wait,
}

/// Every fresh commit.
pub(crate) struct Fresh {
    pending: BTreeMap<u64, Arc<FreshCommit>>,
    flushed_lsn: u64,
    prefix_end: u64,
    prefix_bytes: usize,
    bytes: usize,
    rows: usize,
    bytes_max: usize,
    closed: bool,
}

impl Fresh {
    pub(crate) fn new(flushed_lsn: u64, bytes_max: usize) -> Self {
        Fresh {
            pending: BTreeMap::new(),
            flushed_lsn,
            prefix_end: flushed_lsn,
            prefix_bytes: 0,
            bytes: 0,
            rows: 0,
            bytes_max,
            closed: false,
        }
    }

    /// Takes a commit if there is room.
    pub(crate) fn admit(&mut self, commit: &Arc<FreshCommit>) -> Result<Admission, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if commit.lsn <= self.flushed_lsn || self.pending.contains_key(&commit.lsn) {
            return Err(StoreError::LsnTwice { lsn: commit.lsn, flushed_lsn: self.flushed_lsn });
        }
        let fills_first_hole = commit.lsn == self.flushed_lsn + 1;
        if self.bytes > 0 && self.bytes + commit.bytes > self.bytes_max && !fills_first_hole {
            return Ok(Admission::Wait);
        }
        self.bytes += commit.bytes;
        self.rows += commit.row_count();
        self.pending.insert(commit.lsn, Arc::clone(commit));
        while let Some(next) = self.pending.get(&(self.prefix_end + 1)) {
            self.prefix_end += 1;
            self.prefix_bytes += next.bytes;
        }
        Ok(Admission::Admitted)
    }

    /// Forgets everything up to `upto`: it is in files now.
    pub(crate) fn release(&mut self, upto: u64) {
        let kept = self.pending.split_off(&(upto + 1));
        for commit in std::mem::replace(&mut self.pending, kept).into_values() {
            self.bytes -= commit.bytes;
            self.rows -= commit.row_count();
            self.prefix_bytes -= if commit.lsn <= self.prefix_end { commit.bytes } else { 0 };
        }
        self.flushed_lsn = self.flushed_lsn.max(upto);
        self.prefix_end = self.prefix_end.max(upto);
    }

    /// The next commits to write: an unbroken run from the first unwritten one, at most this much, at least one.
    pub(crate) fn next_chunk(
        &self,
        upto: u64,
        bytes_max: usize,
        commits_max: usize,
    ) -> Vec<Arc<FreshCommit>> {
        let end = upto.min(self.prefix_end);
        let mut bytes = 0;
        let fits = |commit: &&Arc<FreshCommit>| {
            let first = bytes == 0;
            bytes += commit.bytes;
            first || bytes <= bytes_max
        };
        if end <= self.flushed_lsn {
            return Vec::new();
        }
        self.pending
            .range(self.flushed_lsn + 1..=end)
            .map(|(_, c)| c)
            .take_while(fits)
            .take(commits_max)
            .cloned()
            .collect()
    }

    /// A tenant's commits in LSN order, as they are at this moment.
    pub(crate) fn view(&self, wanted: impl Fn(&FreshCommit) -> bool) -> Vec<Arc<FreshCommit>> {
        self.pending.values().filter(|commit| wanted(commit)).cloned().collect()
    }

    /// When the oldest commit that could be written arrived.
    pub(crate) fn oldest_arrival(&self) -> Option<Instant> {
        let first = self.pending.first_key_value().filter(|(lsn, _)| **lsn <= self.prefix_end);
        first.map(|(_, commit)| commit.arrived)
    }

    pub(crate) fn prefix_end(&self) -> u64 {
        self.prefix_end
    }

    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix_bytes
    }

    pub(crate) fn flushed_lsn(&self) -> u64 {
        self.flushed_lsn
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn commits(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

/// The rows of a view that a query may need, without those at or below `upto`: they are in files.
pub(crate) fn rows_beyond(view: &[Arc<FreshCommit>], upto: u64, prune: &Prune) -> Vec<RecordBatch> {
    let beyond = view.iter().filter(|commit| commit.lsn > upto);
    beyond
        .filter_map(|c| c.rows.as_ref())
        .filter(|rows| rows.may_match(prune))
        .map(|rows| rows.records.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::commit;

    fn fresh_commit(lsn: u64) -> Arc<FreshCommit> {
        Arc::new(FreshCommit::new(commit(lsn), Instant::now()).unwrap())
    }

    fn lsns(chunk: &[Arc<FreshCommit>]) -> Vec<u64> {
        chunk.iter().map(|commit| commit.lsn).collect()
    }

    #[test]
    fn a_chunk_is_an_unbroken_run_within_its_limits_and_never_empty_when_there_is_one() {
        let mut fresh = Fresh::new(10, usize::MAX);
        for lsn in [15, 11, 13, 12] {
            assert_eq!(fresh.admit(&fresh_commit(lsn)).unwrap(), Admission::Admitted);
        }
        let one = fresh_commit(11).bytes;
        assert_eq!(lsns(&fresh.next_chunk(99, usize::MAX, 99)), [11, 12, 13]);
        assert_eq!(lsns(&fresh.next_chunk(12, usize::MAX, 99)), [11, 12]);
        assert_eq!(lsns(&fresh.next_chunk(99, 2 * one, 99)), [11, 12]);
        assert_eq!(lsns(&fresh.next_chunk(99, 1, 99)), [11]);
        assert_eq!(lsns(&fresh.next_chunk(99, usize::MAX, 1)), [11]);
        assert_eq!(lsns(&fresh.next_chunk(10, usize::MAX, 99)), [] as [u64; 0]);
        fresh.release(13);
        assert!(fresh.next_chunk(99, usize::MAX, 99).is_empty());
        assert_eq!((fresh.bytes(), fresh.prefix_bytes(), fresh.rows()), (one, 0, 5));
        assert!(fresh.oldest_arrival().is_none());
        fresh.admit(&fresh_commit(14)).unwrap();
        assert_eq!((fresh.prefix_end(), fresh.prefix_bytes()), (15, 2 * one));
    }

    #[test]
    fn without_room_only_the_commit_that_fills_the_first_hole_is_taken() {
        let mut fresh = Fresh::new(0, 2 * fresh_commit(4).bytes);
        for (lsn, admission) in [
            (2, Admission::Admitted),
            (4, Admission::Admitted),
            (3, Admission::Wait),
            (1, Admission::Admitted),
            (3, Admission::Wait),
        ] {
            assert_eq!(fresh.admit(&fresh_commit(lsn)).unwrap(), admission, "{lsn}");
        }
        assert!(!fresh.has_room());
        fresh.release(2);
        assert_eq!(fresh.admit(&fresh_commit(3)).unwrap(), Admission::Admitted);
    }

    /// A decoded frame's columns are slices of one buffer; counted by capacity they would weigh seventeen times too much.
    #[test]
    fn shared_buffers_are_counted_once() {
        let records = commit(1).batch.unwrap().get().with_tenant("default").unwrap();
        let whole = record_bytes(&records).unwrap();
        let half = record_bytes(&records.slice(0, records.num_rows() / 2)).unwrap();
        assert!(half < whole, "{half} of {whole}");
        assert!(whole < 4096, "{whole} bytes for five short rows");
    }
}

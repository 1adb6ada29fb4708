//! From the journal to events: findings and gaps, counted for a few seconds and written together with the place in the journal.

use std::sync::{MutexGuard, PoisonError};

use beeacon_collector::FollowedRows;
use beeacon_events::{Step, Tally};
use jiff::Timestamp;
use tokio::sync::watch;

use super::Events;
use super::limits::COUNTED_FOR;
use crate::doors;

/// The name under which the place in the journal is kept.
pub(super) const PLACE: &str = "journal";

impl Events {
    /// The last record of the journal whose findings are written.
    pub(crate) fn place(&self) -> watch::Receiver<Option<u64>> {
        self.0.place.subscribe()
    }

    /// The journal goes on behind this record.
    pub(crate) fn start_from(&self, place: u64) {
        self.tally().start_from(place);
    }

    /// Counts a record. Where nothing can be written for long, records go by and are counted as such: whoever reads the journal with us
    /// is not held up.
    pub(crate) async fn observe(&self, place: u64, at: Timestamp, lost_records: u64, rows: &FollowedRows) {
        let (is_known, is_full) = {
            let tally = self.tally();
            (tally.has_seen(place), tally.is_full())
        };
        if is_known {
            return;
        }
        let is_stuck = is_full && !self.flush().await;
        let mut tally = self.tally();
        if is_stuck && tally.is_full() {
            tally.pass(place, lost_records);
            tally.skip(place);
            return;
        }
        for gap in rows.gaps() {
            tally.gap(at, &gap.source, gap.reason, gap.bytes);
        }
        rows.visit_redacted(&mut |rows| {
            for row in rows {
                tally.line(at, row.service, row.redactions);
            }
        });
        tally.pass(place, lost_records);
    }

    /// Goes past records without rows, or that are lost.
    pub(crate) fn pass(&self, place: u64, lost_records: u64) {
        let mut tally = self.tally();
        if !tally.has_seen(place) {
            tally.pass(place, lost_records);
        }
    }

    /// Writes what is counted; false when it cannot be written now.
    pub(super) async fn flush(&self) -> bool {
        let mut unwritten = self.0.unwritten.lock().await;
        loop {
            if unwritten.is_none() {
                let taken = self.tally().take(Timestamp::now(), &self.0.maker, |rule| self.kind_of(rule));
                *unwritten = taken.map(|(events, place)| {
                    let kept = vec![(PLACE.to_owned(), Some(place.to_string()))];
                    (Step { events, kept }, place)
                });
            }
            let Some((step, place)) = unwritten.as_ref() else { return true };
            if self.write(step).await.is_err() {
                return false;
            }
            self.0.place.send_replace(Some(*place));
            *unwritten = None;
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is counted every few seconds.
pub(super) async fn run(events: Events, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(COUNTED_FOR);
    loop {
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = every.tick() => {}
        }
        events.flush().await;
    }
}

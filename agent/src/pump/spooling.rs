//! When the pump's frames go through the spool, and how they come out of it again.
//!
//! What always holds:
//! - a source's frames take one way at a time: as long as one of them waits in the spool, the next ones follow it there, and
//!   one that is under way to the collector without an answer is put into the spool before any later one;
//! - sources of which nothing waits are shipped beside the spool's frames, so that a long backlog does not delay them;
//! - before a frame goes past the spool, what the spool says of where sources stand is void.

use std::time::{Duration, Instant};

use beeacon_record::wire::Committed;
use tokio_util::sync::DropGuard;

use super::{Pump, PumpError};
use crate::event::Event;
use crate::reader::Entry;
use crate::ship::verdict::Verdict;
use crate::spool::{Kept, SpoolMode, SpoolStatus, lock};

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To the collector.
    Direct,
    /// To the spool, because the collector does not take data.
    Spool,
    /// To the spool, because earlier lines of the same sources wait there; others are not let in.
    Follow,
}

/// A frame of the spool under way.
pub(super) struct Draining {
    id: u64,
    rows: usize,
    pub(super) bytes: usize,
    ends: Vec<Committed>,
    since: Instant,
    _request: DropGuard,
}

impl Pump {
    /// What the last run left.
    pub(super) fn start_from_spool(&mut self) {
        let Some(spool) = &self.parts.spool else { return };
        let spool = lock(spool);
        if let Some(positions) = spool.positions() {
            self.states.clone_from(positions);
            self.has_states = true;
            self.is_alone = true;
        }
        self.has_backlog = spool.has_waiting();
    }

    /// How long the collector may leave something unanswered; less while Docker is about to remove what has not been read.
    pub(super) fn patience(&self) -> Duration {
        let patience = self.parts.config.spool.patience;
        if self.is_hurried { patience / 10 } else { patience }
    }

    /// Whether everything has to go to the spool.
    fn must_spool(&self) -> bool {
        !self.is_answered || self.is_at_risk || self.parts.config.spool.mode == SpoolMode::Always
    }

    /// Whether a batch that is not full may leave at once.
    pub(super) fn is_way_free(&self) -> bool {
        self.destination != Destination::Direct || self.in_flight.is_empty()
    }

    fn is_stalled(&self) -> bool {
        let patience = self.patience();
        let asked = self.session.is_none().then_some(self.asked_at);
        let shipped = self.in_flight.front().map(|first| first.since.max(self.answered_at));
        let drained = self.draining.as_ref().map(|draining| draining.since);
        [asked, shipped, drained].into_iter().flatten().any(|since| since.elapsed() >= patience)
    }

    /// When the collector does not answer: from now on frames go to the spool, what is under way first.
    pub(super) fn divert_when_unanswered(&mut self) -> Result<(), PumpError> {
        let Some(spool) = self.parts.spool.clone() else { return Ok(()) };
        let is_stalled = self.is_stalled();
        if is_stalled && self.is_answered {
            self.is_answered = false;
            if self.has_states {
                tracing::info!("collector does not answer, frames go to the spool");
            }
        }
        if !self.must_spool() {
            return Ok(());
        }
        if !self.is_alone {
            // Without a session since the start nobody knows where sources stand.
            if !self.has_states || !lock(&spool).know(&self.states)? {
                return Ok(());
            }
            self.is_alone = true;
        }
        while let Some(first) = self.in_flight.front() {
            let bytes = first.prepared.frame.len();
            if lock(&spool).keep(first.prepared.frame.clone())? == Kept::Full {
                return Ok(());
            }
            self.parts.metrics.note_spooled(bytes);
            self.has_backlog = true;
            if let Some(first) = self.in_flight.pop_front() {
                self.secure(first.prepared.commits);
            }
        }
        if let Some(prepared) = &mut self.prepared {
            prepared.destination = Destination::Spool;
        }
        self.destination = Destination::Spool;
        Ok(())
    }

    /// Says where the next batch goes, when none has been begun.
    pub(super) fn choose_destination(&mut self) {
        let must_spool = self.must_spool();
        let is_plain = self.destination == Destination::Direct && !self.has_backlog && !must_spool;
        if self.parts.spool.is_none() || is_plain {
            return;
        }
        if must_spool && self.is_alone {
            self.destination = Destination::Spool;
            return;
        }
        let is_begun = self.batch_started.is_some()
            || self.builder.rows() > 0
            || self.prepared.is_some()
            || self.entries.values_mut().any(|entry| entry.touched_sources().is_some());
        if is_begun {
            return;
        }
        if !self.has_backlog || must_spool {
            self.destination = Destination::Direct;
            return;
        }
        let waiting = self.held.as_ref().map(|portion| portion.container.clone());
        self.destination = match waiting {
            Some(id) if self.follows(&id) => Destination::Follow,
            Some(_) => Destination::Direct,
            None if self.destination == Destination::Direct => Destination::Follow,
            None => Destination::Direct,
        };
    }

    /// Whether lines of this container may go into the batch being built.
    pub(super) fn admits(&mut self, id: &str) -> bool {
        match self.destination {
            Destination::Spool => true,
            Destination::Direct => !self.has_backlog || !self.follows(id),
            Destination::Follow => self.follows(id),
        }
    }

    /// Whether something of this container waits in the spool.
    fn follows(&mut self, id: &str) -> bool {
        let Some(spool) = &self.parts.spool else { return false };
        let spool = lock(spool);
        self.entries
            .get_mut(id)
            .is_some_and(|entry: &mut Entry| entry.has_source(|source| spool.holds(source)))
    }

    /// Puts the prepared frame into the spool, if that is where it goes. Without room it stays, and nothing is read.
    pub(super) fn keep_prepared(&mut self) -> Result<(), PumpError> {
        let Some(spool) = self.parts.spool.clone() else { return Ok(()) };
        let Some(prepared) = self.prepared.take_if(|prepared| prepared.destination != Destination::Direct)
        else {
            return Ok(());
        };
        let kept = lock(&spool).keep(prepared.frame.clone())?;
        match kept {
            Kept::Full => self.prepared = Some(prepared),
            Kept::Durable => {
                self.parts.metrics.note_spooled(prepared.frame.len());
                self.has_backlog = true;
                self.secure(prepared.commits);
            }
        }
        Ok(())
    }

    /// A frame is about to go past the spool.
    pub(super) fn leave_spool_behind(&mut self) -> Result<(), PumpError> {
        if self.is_alone
            && let Some(spool) = &self.parts.spool
        {
            lock(spool).unknow()?;
            self.is_alone = false;
        }
        Ok(())
    }

    /// Puts what waits over what the collector says.
    pub(super) fn overlay_states(&mut self) {
        if let Some(spool) = &self.parts.spool {
            lock(spool).overlay(&mut self.states);
        }
    }

    /// Ships the spool's next frame when none of it is under way.
    pub(super) fn send_waiting(&mut self) -> Result<(), PumpError> {
        let Some(spool) = self.parts.spool.clone() else { return Ok(()) };
        let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        let Some(epoch) = self.session.filter(|_| self.draining.is_none() && !is_paused) else {
            return Ok(());
        };
        let next = {
            let mut spool = lock(&spool);
            self.has_backlog = spool.has_waiting();
            if self.has_backlog { spool.next(epoch)? } else { None }
        };
        let Some(next) = next else { return Ok(()) };
        self.drain_round += 1;
        let (round, bytes) = (self.drain_round, next.frame.len());
        let report = move |verdict| Event::Drained { round, verdict };
        let request = self.ship(next.frame, 0, report);
        self.draining = Some(Draining {
            id: next.id,
            rows: next.rows,
            bytes,
            ends: next.ends,
            since: Instant::now(),
            _request: request,
        });
        Ok(())
    }

    /// There is an answer to a frame of the spool.
    pub(super) fn on_drained(&mut self, verdict: Verdict) {
        if let Err(error) = self.settle(verdict) {
            self.error = Some(error);
        }
    }

    fn settle(&mut self, verdict: Verdict) -> Result<(), PumpError> {
        let (Some(drained), Some(spool)) = (self.draining.take(), self.parts.spool.clone()) else {
            return Ok(());
        };
        if !matches!(verdict, Verdict::Committed(_)) {
            self.parts.metrics.refusals.inc();
        }
        match verdict {
            Verdict::Committed(answer) => {
                let is_there = |end: &Committed| {
                    let answered = answer.committed.iter().find(|place| place.source == end.source);
                    answered.is_some_and(|answered| answered.position >= end.position)
                };
                if !drained.ends.iter().all(is_there) {
                    tracing::warn!("collector confirms less of a spooled frame than was sent, asking anew");
                    self.pause();
                    self.open_session();
                    return Ok(());
                }
                self.is_answered = true;
                self.pause.reset();
                self.paused_until = None;
                let metrics = &self.parts.metrics;
                metrics.shipped_frames.inc();
                metrics.drained_frames.inc();
                metrics.shipped_bytes.inc_by(drained.bytes as u64);
                metrics.shipped_rows.inc_by(answer.rows);
                metrics.duplicate_rows.inc_by(answer.duplicate_rows);
                let mut spool = lock(&spool);
                spool.committed(drained.id)?;
                self.has_backlog = spool.has_waiting();
                if !self.has_backlog {
                    tracing::info!("everything in the spool has been shipped");
                }
            }
            Verdict::Rewind(expected) => {
                self.pause();
                if lock(&spool).declare(drained.id, &expected) {
                    tracing::warn!("collector has lost what came before a spooled frame, declaring a gap");
                    self.parts.metrics.gaps.inc();
                } else {
                    self.open_session();
                }
            }
            Verdict::Elsewhere => self.open_session(),
            Verdict::NoSession => {
                self.pause();
                self.open_session();
            }
            Verdict::Fenced => self.on_fenced(),
            Verdict::Smaller => {
                tracing::warn!(
                    rows = drained.rows,
                    "collector cannot take a spooled frame, cutting it smaller"
                );
                let refused = lock(&spool).cut(drained.id)?;
                if refused > 0 {
                    tracing::error!("collector refuses a row even alone, leaving it out");
                    self.parts.metrics.quarantined_rows.inc_by(refused);
                    self.parts.metrics.gaps.inc();
                }
            }
            // The shipper has tried these again already.
            Verdict::Later(_) | Verdict::Refused(_) => self.pause(),
        }
        Ok(())
    }

    /// Leaves in the spool where sources stand, when the collector has all that was read: the next start can then read on
    /// without it.
    pub(super) fn leave_positions(&mut self) -> Result<(), PumpError> {
        let is_settled = self.in_flight.is_empty() && self.prepared.is_none();
        if let Some(spool) = &self.parts.spool
            && is_settled
            && self.has_states
            && !self.is_alone
        {
            // Without room the next start waits for the collector.
            self.is_alone = lock(spool).know(&self.states)?;
        }
        Ok(())
    }

    /// What the spool says of itself.
    pub(super) fn spool_status(&self) -> Option<SpoolStatus> {
        let status = self.parts.spool.as_ref().map(|spool| lock(spool).status())?;
        let metrics = &self.parts.metrics;
        metrics.spool_bytes.set(i64::try_from(status.bytes).unwrap_or(i64::MAX));
        metrics.spool_frames.set(i64::try_from(status.frames).unwrap_or(i64::MAX));
        Some(status)
    }
}

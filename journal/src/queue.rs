//! The bounded queue between the callers and the writer thread, and the gate in front of it.
//!
//! Always holds: the bytes held never pass the limit; submissions leave in the order they came;
//! while the gate is closed nothing enters, and what was waiting when it closed has been given
//! back, so no record is stored that came after one that was refused.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{FullCause, JournalError};
use crate::format::Lsn;
use crate::limits::QUEUE_OVERHEAD_BYTES;
use crate::payload::Payload;

/// Tells the caller what became of a record.
pub(crate) type Done = Box<dyn FnOnce(Result<Lsn, JournalError>) + Send>;

/// Takes a lock. No code of ours panics between two changes that belong together, so a lock that a
/// panic left behind is as good as any other.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record on its way to the writer.
pub(crate) struct Submission {
    pub(crate) payload: Payload,
    pub(crate) done: Done,
}

impl Submission {
    /// What it is charged to the queue.
    pub(crate) fn charge(&self) -> u64 {
        self.payload.bytes().saturating_add(QUEUE_OVERHEAD_BYTES)
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    /// Charges of what waits and of what the writer has not answered yet.
    held_bytes: u64,
    gate: Option<FullCause>,
    is_closing: bool,
    ended: Option<JournalError>,
}

/// The queue.
pub(crate) struct Queue {
    limit_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a submission in, or says why not. `still_full` is asked only while the gate is closed.
    pub(crate) fn push(
        &self,
        submission: Submission,
        still_full: impl FnOnce(FullCause) -> Option<FullCause>,
    ) -> Result<(), JournalError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.is_closing {
            return Err(JournalError::Closed);
        }
        if let Some(cause) = state.gate {
            state.gate = still_full(cause);
            if let Some(cause) = state.gate {
                return Err(JournalError::Full(cause));
            }
            tracing::info!("the journal has room again");
        }
        let bytes = submission.charge();
        if state.held_bytes.saturating_add(bytes) > self.limit_bytes {
            let queued_bytes = state.held_bytes;
            return Err(JournalError::QueueFull { bytes, queued_bytes, limit_bytes: self.limit_bytes });
        }
        state.held_bytes += bytes;
        state.waiting.push_back(submission);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for work; none when the queue is closing and empty.
    pub(crate) fn wait(&self) -> Option<VecDeque<Submission>> {
        let state = lock(&self.state);
        let mut state = self
            .changed
            .wait_while(state, |state| state.waiting.is_empty() && !state.is_closing)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.waiting.is_empty()).then(|| std::mem::take(&mut state.waiting))
    }

    /// What waits now.
    #[cfg(test)]
    pub(crate) fn take(&self) -> VecDeque<Submission> {
        std::mem::take(&mut lock(&self.state).waiting)
    }

    /// Gives back room for a submission that was answered.
    pub(crate) fn release(&self, charge: u64) {
        let mut state = lock(&self.state);
        state.held_bytes = state.held_bytes.saturating_sub(charge);
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        lock(&self.state).held_bytes
    }

    /// Lets nothing in until there is room; true if the gate was open.
    pub(crate) fn close_gate(&self, cause: FullCause) -> bool {
        lock(&self.state).gate.replace(cause).is_none()
    }

    /// Closes the gate and hands out what was waiting, in one step.
    pub(crate) fn turn_back(&self, cause: FullCause) -> (bool, VecDeque<Submission>) {
        let mut state = lock(&self.state);
        let was_open = state.gate.replace(cause).is_none();
        (was_open, std::mem::take(&mut state.waiting))
    }

    /// Lets what waits finish and nothing more in.
    pub(crate) fn close(&self) {
        lock(&self.state).is_closing = true;
        self.changed.notify_all();
    }

    /// Ends for good with this answer, and hands out what was waiting. The first answer stays.
    pub(crate) fn end(&self, error: JournalError) -> VecDeque<Submission> {
        let mut state = lock(&self.state);
        state.ended.get_or_insert(error);
        self.changed.notify_all();
        std::mem::take(&mut state.waiting)
    }

    /// The answer every caller now gets, if the queue has ended or the gate is closed.
    pub(crate) fn health(&self) -> Result<(), JournalError> {
        let state = lock(&self.state);
        match (&state.ended, state.is_closing, state.gate) {
            (Some(error), _, _) => Err(error.clone()),
            (None, true, _) => Err(JournalError::Closed),
            (None, false, Some(cause)) => Err(JournalError::Full(cause)),
            (None, false, None) => Ok(()),
        }
    }
}

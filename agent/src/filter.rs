//! The pollen filter as the agent uses it.
//!
//! What always holds: nothing leaves the process but what came out of here, and a filter that fails, by an error or by a
//! panic, stops shipping for good. There is no way around it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use beeacon_filters::{Continuity, Engine, FilterError, ScrubReport};
use beeacon_record::{Batch, Scrubbed};

use crate::rescan::Rescan;

/// What scrubbing did, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCounts {
    /// How many places were redacted.
    pub redactions: u64,
    /// How many rows a rule dropped.
    pub dropped_rows: u64,
}

/// Why scrubbing failed, without any text.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The filter reported an error.
    #[error("pollen filter refuses a batch: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// The filter panicked.
    #[error("pollen filter panicked")]
    Panicked,
}

/// What the agent needs of a filter engine.
pub trait Filter: Send + Sync + 'static {
    /// Scrubs a batch.
    ///
    /// # Errors
    /// When the rules could not be applied to all of it.
    fn scrub(&self, batch: Batch) -> Result<(Scrubbed<Batch>, ScrubCounts), ScrubError>;

    /// A place at or before `at_most` at which `text` may be cut without dividing something that a rule would find.
    ///
    /// # Errors
    /// When the rules could not be applied: nothing may be shipped then.
    fn safe_cut(&self, text: &[u8], at_most: usize) -> Result<usize, ScrubError>;

    /// Which key made its keyed hashes; 0 without a key.
    fn key_version(&self) -> u32;

    /// Whether it treats containers of these services alike, which have these labels; yes where services do not matter to it.
    fn treats_alike(&self, _one: &str, _other: &str, _labels: &[(String, String)]) -> bool {
        true
    }

    /// Whether a container may choose this profile by its label; no where there are no profiles.
    fn offers(&self, _profile: &str) -> bool {
        false
    }

    /// The engine behind it, where there is one.
    fn engine(&self) -> Option<Arc<Engine>> {
        None
    }
}

/// The engine of `beeacon-filters`, with the version of its key, and what it remembers from batch to batch.
pub struct PollenFilter {
    engine: Arc<Engine>,
    key_version: u32,
    rescan: Option<Rescan>,
    continuity: Arc<Mutex<Continuity>>,
}

impl PollenFilter {
    /// A filter by this engine. `key_version` is that of the key it was given, 0 for none.
    pub fn new(engine: Arc<Engine>, key_version: u32) -> Self {
        PollenFilter { engine, key_version, rescan: None, continuity: Arc::default() }
    }

    /// The same, which offers its batches to be scanned again.
    #[must_use]
    pub fn with_rescan(self, rescan: Option<Rescan>) -> Self {
        PollenFilter { rescan, ..self }
    }

    /// What it remembers from batch to batch.
    pub fn continuity(&self) -> Arc<Mutex<Continuity>> {
        self.continuity.clone()
    }

    /// The same, which remembers what another filter has seen: a private key that began there is redacted to its end here.
    #[must_use]
    pub fn with_continuity(self, continuity: Arc<Mutex<Continuity>>) -> Self {
        PollenFilter { continuity, ..self }
    }
}

impl Filter for PollenFilter {
    fn scrub(&self, batch: Batch) -> Result<(Scrubbed<Batch>, ScrubCounts), ScrubError> {
        if let Some(rescan) = &self.rescan {
            rescan.offer(&batch);
        }
        // After a panic the memory knows less than it did, which is safe.
        let mut continuity = self.continuity.lock().unwrap_or_else(PoisonError::into_inner);
        let (scrubbed, report) = self.engine.scrub_with(batch, &mut continuity).map_err(refused)?;
        Ok((scrubbed, counts(&report)))
    }

    fn safe_cut(&self, text: &[u8], at_most: usize) -> Result<usize, ScrubError> {
        self.engine.safe_cut(text, at_most).map_err(refused)
    }

    fn key_version(&self) -> u32 {
        self.key_version
    }

    fn treats_alike(&self, one: &str, other: &str, labels: &[(String, String)]) -> bool {
        self.engine.treats_alike((one, labels), (other, labels))
    }

    fn offers(&self, profile: &str) -> bool {
        self.engine.offers(profile)
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        Some(self.engine.clone())
    }
}

fn counts(report: &ScrubReport) -> ScrubCounts {
    let redactions = report.counts.iter().map(|rule| rule.count).sum();
    ScrubCounts { redactions, dropped_rows: report.rows_dropped }
}

/// A filter's errors carry no text.
fn refused(error: FilterError) -> ScrubError {
    ScrubError::Refused { reason: error.to_string() }
}

/// Scrubs, and turns a panic into an error.
///
/// # Errors
/// See [`ScrubError`].
pub fn scrub(filter: &dyn Filter, batch: Batch) -> Result<(Scrubbed<Batch>, ScrubCounts), ScrubError> {
    catch_unwind(AssertUnwindSafe(|| filter.scrub(batch))).unwrap_or(Err(ScrubError::Panicked))
}

/// Cuts over-long lines where the filter says, and remembers when it failed to: then the batch must not be closed.
pub(crate) struct Cutter<'a> {
    filter: &'a dyn Filter,
    failure: Cell<Option<ScrubError>>,
}

impl<'a> Cutter<'a> {
    pub(crate) fn new(filter: &'a dyn Filter) -> Self {
        Cutter { filter, failure: Cell::new(None) }
    }

    /// [`Filter::safe_cut`], or `at_most` when that has failed.
    pub(crate) fn cut(&self, text: &[u8], at_most: usize) -> usize {
        let place = catch_unwind(AssertUnwindSafe(|| self.filter.safe_cut(text, at_most)));
        place.unwrap_or(Err(ScrubError::Panicked)).unwrap_or_else(|error| {
            self.failure.set(Some(error));
            at_most
        })
    }

    /// Why a place could not be found, if that has happened.
    pub(crate) fn take_failure(&self) -> Option<ScrubError> {
        self.failure.take()
    }
}

//! The type that carries the first promise: what is inside has been through the pollen filter.
//!
//! A value is made in two places only, and a test counts them: the filters, and decoding a frame. Encoder, shipper and
//! store take nothing else. It proves that *a* rule set ran, not that it was the right one, hence the id beside it.

use arrow_array::BooleanArray;

use crate::batch::{Batch, BatchError};
use crate::identity::RuleSetId;

/// Something that the pollen filter has been over.
#[derive(Clone)]
pub struct Scrubbed<T> {
    value: T,
    rule_set: RuleSetId,
}

impl<T> Scrubbed<T> {
    /// Declares that `value` went through the rules named `rule_set`. For the filters and the frame decoder only.
    pub fn seal(value: T, rule_set: RuleSetId) -> Self {
        Scrubbed { value, rule_set }
    }

    /// What was scrubbed.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Which rules did it.
    pub fn rule_set(&self) -> RuleSetId {
        self.rule_set
    }

    /// Gives the value out, for rooms behind the filters.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl Scrubbed<Batch> {
    /// The same batch with only the rows for which `keep` is true; what is scrubbed stays scrubbed.
    ///
    /// # Errors
    /// When `keep` has another length than the batch.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, BatchError> {
        Ok(Scrubbed { value: self.value.filter(keep)?, rule_set: self.rule_set })
    }
}

//! Silences: matchers that are not told about for a while, with who said so and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::limits::SILENCE_KEPT_FOR;
use crate::matchers::{Matcher, all_match};
use crate::state::elapsed;

/// A silence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Names it.
    pub id: String,
    /// What it covers: alerts that meet all of them. A silence without matchers covers nothing.
    pub matchers: Vec<Matcher>,
    /// From when on.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Who set it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

impl Silence {
    /// Whether it covers labels at a time.
    #[must_use]
    pub fn covers(&self, labels: &Labels, now: Timestamp) -> bool {
        (self.starts_at..self.ends_at).contains(&now)
            && !self.matchers.is_empty()
            && all_match(&self.matchers, labels)
    }

    /// Whether it is still shown.
    #[must_use]
    pub fn is_remembered(&self, now: Timestamp) -> bool {
        self.ends_at > now || elapsed(self.ends_at, now) < SILENCE_KEPT_FOR
    }
}

//! Brings frames to the collector.
//!
//! [`verdict`] is pure: what an answer means. [`http`] carries requests out, and tries again what may work later. One request
//! is under way at a time; the next frame is prepared meanwhile, by the pump.

/// After how many failures in a row another collector takes the place of one, where there are several: with the waits between
/// them, after some two seconds.
pub(crate) const FAILURES_BEFORE_NEXT: u32 = 5;

pub mod verdict;

pub mod http;

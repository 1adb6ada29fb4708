//! Brings frames to the collector.
//!
//! [`verdict`] is pure: what an answer means; so are [`window`], how many frames may be under way at once, and [`level`], how much
//! they are compressed. [`http`] carries requests out, and tries again what may work later.

/// After how many failures in a row another collector takes the place of one, where there are several: with the waits between
/// them, after some two seconds.
pub(crate) const FAILURES_BEFORE_NEXT: u32 = 5;

pub mod verdict;

pub mod window;

pub mod level;

pub mod http;

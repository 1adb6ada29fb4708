//! Brings frames to the collector.
//!
//! [`verdict`] is pure: what an answer means. [`http`] carries requests out, and tries again what may work later. One request
//! is under way at a time; the next frame is prepared meanwhile, by the pump.

pub mod verdict;

pub mod http;

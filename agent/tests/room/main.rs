//! The agent against real files and a collector that speaks the real wire: reading, rotation, resumption, refusals.
//!
//! Files are written as dockerd writes them; the collector applies the rules by which positions are committed and keeps the
//! rows in memory. The real collector and a real dockerd are tested end to end elsewhere.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall panic; only test functions are exempt by themselves"
)]
#![expect(clippy::string_slice, reason = "the text that is cut here is ASCII and ours")]

mod collector;
mod compressed;
mod conformance;
mod docker_api;
mod dockerd;
mod door;
mod files;
mod journald;
mod live;
mod push;
mod replay;
mod scripted;
mod shipping;
mod spool;
mod stories;

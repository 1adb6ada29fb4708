//! The doors that take data in: frames are received, made durable, answered, shown to queries and forwarded to Loki.
//!
//! What always holds:
//! - an answer of 200 means that the frame survives a power cut, and that queries see its rows unless the store has no
//!   room: then as soon as it has;
//! - a row is stored once, however often and in whatever cut it is sent: [`commit`];
//! - a frame that is refused has changed nothing;
//! - memory for requests is asked for in bytes before it is taken, and bounded;
//! - no consumer of the journal, Loki least of all, delays an answer.
//!
//! What it leaves to others: who may come in (the program's HTTP layer), fsync and recovery of bytes (`beeacon-journal`),
//! files, catalog and what queries see (`beeacon-store`).
//!
//! Modules in reading order: [`limits`], [`commit`] (the rules, pure), [`entry`] (the journal entry's bytes, pure), `plan`
//! (a frame against what is known, pure), `agents` (what is known), `permits`, `refusal`, `session` and `ingest` (the
//! doors), `replay` (start), `consumers` (places in the journal), [`followers`], [`loki`], [`status`], `metrics`, `collector`.

pub mod limits;

pub mod commit;

pub mod entry;

mod agents;

mod plan;

mod permits;

mod refusal;

mod session;

mod ingest;

mod replay;

mod consumers;

mod recent;

pub mod followers;

pub mod loki;

pub mod status;

mod metrics;

mod error;

mod collector;

pub use collector::{Collector, CollectorOptions};
pub use error::CollectorError;
pub use followers::{Claim, Followed, FollowedGap, FollowedRow, FollowedRows, Follower};
pub use loki::{LokiAuthentication, LokiOptions, PUSH_PATH as LOKI_PUSH_PATH};
pub use replay::ReplayReport;
pub use status::{AgentStatus, CollectorStatus};

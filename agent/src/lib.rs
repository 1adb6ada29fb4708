//! Tails containers, scrubs their lines in memory and ships frames to a collector.
//!
//! What always holds:
//! - nothing leaves the process but what came out of the pollen filter; when that cannot run, nothing is shipped at all;
//! - a line is identified by where it stood. The collector says where every source stands, and what waits in the spool comes
//!   on top of that, so an agent that was killed, or has lost its disk, loses and repeats nothing that Docker still has;
//! - what Docker removed before it was read is declared as a gap;
//! - everything is bounded in bytes, and pressure reaches the readers, never a container;
//! - text of a line is in no log, no error and no status.
//!
//! ```text
//! docker::discover ─ Event ─►┌──────────────────────────────┐
//! docker::attach ─ Portion ─►│ pump: read, merge, batch,    │─ frame ─► ship::http ─► collector
//! docker::watch ─ files ────►│ filter, encode   (a thread)  │◄─ Event ──────┘  ▲
//! files::find ────── Event ─►│                              │                  │
//!                            └──────────────────────────────┘─ frame ─► spool ─┘
//! ```
//!
//! Modules in reading order: [`config`], [`agent`], [`reload`], [`door`], [`pump`], [`reader`], [`progress`], [`docker`], [`files`], [`journald`], [`level`],
//! [`timestamp`], [`multiline`], [`shaping`], [`selection`], [`filter`], [`picking`], [`rescan`], [`ship`],
//! [`spool`], [`names`], [`push`], [`replay`].

pub mod limits;

pub mod config;

pub mod agent;

pub mod reload;

pub mod door;

pub mod event;

pub mod pump;

pub mod reader;

pub mod progress;

pub mod container;

pub mod docker;

pub mod files;

pub mod journald;

pub mod level;

pub mod multiline;

pub mod timestamp;

pub mod picking;

pub mod shaping;

pub mod selection;

pub mod filter;

pub mod pollen;

pub mod rescan;

mod rule_metrics;

pub mod known;

pub mod ship;

pub mod spool;

pub mod names;

pub mod push;

pub mod replay;

pub mod backoff;

pub mod clock;

pub mod state;

pub mod status;

pub mod metrics;

pub mod doctor;

pub mod process;

pub use agent::{Agent, AgentError};
pub use config::AgentConfig;

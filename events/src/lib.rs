//! The events room: what happened, as events that have a type and one form, and the log that keeps them.
//!
//! Whoever sees something happen makes an [`Event`] through a [`Maker`] and appends it, together with the place up to which it has
//! seen what there was, to the [`EventLog`]: both are one transaction, so that a kill neither loses an event nor doubles one.
//! What happens often, the pollen filter's findings, is counted first ([`Tally`]).
//!
//! What always holds:
//! - an event is made of names and counts; no text of a line enters one;
//! - one that is appended twice is there once: ids are made from what happened;
//! - the numbers in the log are dense and grow; only the oldest go.
//!
//! This room knows no other. Files are the log's; the clock is whoever calls.

mod event;
pub mod limits;
mod log;
mod tally;

pub use event::{Event, EventType, Maker, Unreadable};
pub use log::{EventLog, Head, LogError, Selection, Step, Stored};
pub use tally::{RuleKind, Tally};

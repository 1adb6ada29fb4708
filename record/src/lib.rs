//! What flows through Beeacon: one log schema from the agent to SQL, the batch that carries it, where a line came from,
//! and the frame in which a batch leaves a host.
//!
//! What always holds:
//! - nothing here reads a clock, a file or a socket;
//! - a line is identified by its [`Source`] and [`Position`], never by its text or by the batch it travelled in;
//! - only a [`Scrubbed`] batch can be encoded into a frame, so raw text has no way out of the process;
//! - raw text (a bare [`Batch`]) has no `Debug`, `Display` or `Serialize`.
//!
//! Modules in reading order:
//! - [`limits`]: every limit that two rooms share;
//! - [`calendar`]: days and dates;
//! - [`identity`]: who sent a line and where it stood;
//! - [`schema`]: the columns;
//! - [`batch`]: rows being built, and rows built;
//! - [`scrubbed`]: the type that carries the first promise;
//! - [`frame`]: the bytes on the wire, in the spool and in the journal;
//! - [`wire`]: the JSON around the frame, spoken between agent and collector;
//! - [`varint`]: whole numbers in few bytes, for formats of the rooms.

pub mod limits;

pub mod calendar;

pub mod identity;

pub mod level;

pub mod schema;

pub mod batch;

pub mod scrubbed;

pub mod frame;

pub mod varint;

pub mod wire;

pub use batch::{Batch, BatchBuilder, BatchError, Line, Origin, OriginId};
pub use frame::{FRAME_VERSION, FRAME_VERSION_FIRST, Frame, FrameEncoder, FrameError, FrameHeader};
pub use identity::{AgentId, Epoch, Gap, GapReason, IdentityError, Interval, Position, RuleSetId, Source};
pub use level::{Level, Stream};
pub use scrubbed::{Cut, Scrubbed};

//! A crash-safe segmented log of opaque bytes.

mod cursor;
mod disk;
mod error;
mod format;
mod inspect;
mod journal;
pub mod limits;
mod payload;
mod quarantine;
mod queue;
mod reader;
mod recover;
mod scan;
mod segment;
mod shared;
mod statistics;
mod survey;
mod writer;

pub use cursor::Cursor;
pub use error::{Duty, FullCause, JournalError};
pub use format::{FORMAT_VERSION, Lsn, RecordKind};
pub use inspect::{Dump, Entry, EntryState, VerifyReport, dump, verify};
pub use journal::{Journal, JournalOptions};
pub use payload::Payload;
pub use reader::{Reader, Record};
pub use recover::RecoveryReport;
pub use statistics::JournalStatistics;
pub use survey::DamagedRange;

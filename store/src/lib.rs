//! Fresh rows, Parquet files and the SQL catalog that makes them one table.
//!
//! The collector publishes what its journal has made durable ([`Commit`]); the rows can be read at once and become Parquet
//! files about a minute later. Queries read a [`Snapshot`]: every row exactly once, at every moment. The store knows no
//! journal, no query engine and no network.
//!
//! # Layout
//!
//! ```text
//! <directory>/
//!   store.lock                                   held while a process has the store open
//!   catalog.sqlite (-wal, -shm)                  which files are live, and up to where the journal is in them
//!   parquet/
//!     incoming/<file id>.parquet                 a put that has not got its name yet; emptied at every start
//!     tenants/<tenant>/<UTC day>/<file id>.parquet
//! ```
//! A file id is a UUID of version 7 and never used twice. Files are written once and not changed; nothing finds them by
//! listing. What is in them, and in which order, is in the module `encode`; the tables are in `migrations/`.
//!
//! # What always holds
//!
//! - A commit is in memory or in the catalog, and a reader counts it once: it takes its view of memory *first* and the
//!   catalog's `upto` and files, in one read transaction, *second*; of the view it keeps what lies beyond `upto`. Memory lets
//!   go of a commit only after the catalog has it. (The other order would miss what is flushed between the two looks.)
//! - Files hold an unbroken run of LSNs from 1 to `upto`; commits may be published out of order, and wait for the hole.
//! - Rows, positions, epochs and gaps of a commit move from journal to catalog in one transaction.
//! - A live file was synced, with the directories that lead to it, before the catalog named it.
//! - One process at a time: the lock, and behind it the compare-and-set on `upto`.
//!
//! # The commit protocol
//!
//! ```text
//!      encode    sort and write Parquet in memory, sha256 and crc32c of the file, crc32c of each row group
//! T0   stage     INSERT file … 'staged'
//!      put       write incoming/…, sync it, rename, sync the directories
//!      check     size and footer read back
//! T1   commit    UPDATE journal_progress SET upto = b WHERE upto = a - 1      no row: somebody else wrote, stop
//!                UPDATE file SET state = 'live', … WHERE state = 'staged'     counts, positions, epochs, gaps, catalog_version
//!      forget     memory lets go of a..b; flushed_lsn is b; the collector may truncate its journal
//! ```
//!
//! | a crash after | leaves | and is mended by |
//! | --- | --- | --- |
//! | encode | nothing | the journal's replay from `upto + 1` |
//! | T0 | a staged row | the next start deletes the row; replay |
//! | half a put | a staged row, a file in `incoming/` | the next start deletes both; replay |
//! | put, check | a staged row and its file | the next start deletes the file, then the row; replay |
//! | within T1 | what SQLite's log says: before or after | as the line above or below |
//! | T1 | all of it | replay starts behind it |
//!
//! The same after an error instead of a crash: the rows stay in memory, the next attempt first reads `upto` again (the
//! transaction may have been committed although its answer was lost), sweeps staged files, and starts with new names.
//! Attempts are paused by 250 ms, doubling to 8 s. Meanwhile memory fills; at its limit [`Store::has_room`] is false and
//! [`Store::publish`] waits. Both end by themselves.
//!
//! A file that is missing or has another size or footer when the store opens is reported ([`Store::recovery`]), left out of
//! snapshots and counted there, and comes back by itself once it is whole. [`Store::verify`] reads every byte. Nothing live is
//! ever deleted in this version: compaction and retention are to come, and readers pin nothing yet.
//!
//! Modules in reading order: [`limits`]; `commit` and `snapshot`, what goes in and comes out; `fresh`, memory; `rollup`, what is
//! counted of a file; `encode`, rows to bytes; `catalog`, the trait and SQLite behind it; `durable`, a directory that syncs; `flush`, the protocol; `footer`,
//! `recover`, `verify`; `store`.

pub mod limits;

mod hooks;

mod error;

mod commit;

mod snapshot;

mod fresh;

mod rollup;

mod encode;

mod catalog;

mod durable;

mod footer;

mod flush;

mod recover;

mod verify;

mod metrics;

mod store;

pub use commit::{Commit, GapRow, SourceProgress, gap_schema};
pub use error::{Duty, StoreError};
pub use metrics::Statistics;
pub use recover::{DamagedFile, RecoveryReport};
pub use rollup::{Redactions, redaction_schema};
pub use snapshot::{LogFile, Prune, Snapshot};
pub use store::{Store, StoreOptions};
pub use verify::VerifyReport;

#[cfg(test)]
mod tests;

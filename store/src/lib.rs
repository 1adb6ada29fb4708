//! Fresh rows, Parquet files and the SQL catalog that makes them one table.

pub mod limits;

mod hooks;

mod error;

mod commit;

mod snapshot;

mod fresh;

mod catalog;

mod encode;

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
pub use snapshot::{LogFile, Prune, Snapshot};
pub use store::{Store, StoreOptions};
pub use verify::VerifyReport;

#[cfg(test)]
mod tests;

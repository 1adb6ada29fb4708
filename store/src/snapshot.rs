//! What a query reads: fresh rows and live files, each row exactly once.

use arrow_array::RecordBatch;
use object_store::path::Path;
use uuid::Uuid;

/// What a query knows about the rows it wants. Pruning only ever leaves out what can't match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Rows with `timestamp` in this range, both ends included, in nanoseconds since 1970.
    pub time_ns: Option<(i64, i64)>,
    /// Rows of one of these services.
    pub services: Option<Vec<String>>,
}

/// Every row of one tenant at one moment that a query may need.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rows that are in no file yet, of [`beeacon_record::schema::log_schema`].
    pub fresh: Vec<RecordBatch>,
    /// Files to read, newest last row first.
    pub files: Vec<LogFile>,
    /// The tenant's live files at this moment.
    pub files_total: u64,
    /// How many of them are not in `files`, because they hold nothing that could match.
    pub files_pruned: u64,
    /// How many of the tenant's files are left out because they are missing or damaged. Their rows are missing here.
    pub files_damaged: u64,
    /// Everything up to this LSN is in files, everything beyond it in `fresh`.
    pub flushed_lsn: u64,
    /// Grows with every change of the catalog.
    pub catalog_version: u64,
}

/// One Parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its name, never used twice.
    pub file_id: Uuid,
    /// Where it is in [`crate::Store::object_store`].
    pub path: Path,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The lowest `timestamp` in it, in nanoseconds since 1970.
    pub time_min_ns: i64,
    /// The highest.
    pub time_max_ns: i64,
    /// The first LSN of the flush that wrote it.
    pub from_lsn: u64,
    /// The last.
    pub to_lsn: u64,
    /// Whether all its rows are of services that were asked for: [`Prune::services`] names them all. False where none were named, and
    /// where it is not known which services a file has.
    pub services_within: bool,
}

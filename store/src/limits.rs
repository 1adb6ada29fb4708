//! The store's own limits, with unit and reason. What it shares with other rooms stands in [`beeacon_record::limits`].

use std::time::Duration;

use beeacon_record::limits::FRAME_INFLATED_BYTES_MAX;

/// The rows of one Parquet row group. Within the 64 to 128 thousand at which scans are fast; the lower end, because a query
/// for the newest rows reads whole row groups.
pub const ROW_GROUP_ROWS: usize = 64 << 10;

/// The rows of one Parquet data page, the unit that the page index skips. One eighth of a row group.
pub const PAGE_ROWS_MAX: usize = 8 << 10;

/// The fresh bytes one flush takes at most. Sorting and encoding hold this much a second time; a guess.
pub const FLUSH_CHUNK_BYTES_MAX: usize = 64 << 20;

/// The commits one flush takes at most. Commits without rows have next to no bytes, so bytes alone would not bound the
/// transaction.
pub const FLUSH_CHUNK_COMMITS_MAX: usize = 16 << 10;

/// What a fresh commit counts in addition to its columns, in bytes: its key, its vectors, allocator slack. A guess, on the
/// safe side; it also bounds the number of commits that have no rows.
pub const COMMIT_OVERHEAD_BYTES: usize = 2 << 10;

/// The default size of fresh rows at which they are written, in bytes. Roughly 4 to 6 MiB of Parquet.
pub const FLUSH_BYTES_DEFAULT: usize = 32 << 20;

/// The default age at which fresh rows are written. Fresh rows can be queried, so this bounds only the journal's replay and
/// the number of files: at most 1,440 a day.
pub const FLUSH_AGE_DEFAULT: Duration = Duration::from_secs(60);

/// The default for the most fresh bytes: four flushes, so that one slow flush does not stop the doors.
pub const FRESH_BYTES_MAX_DEFAULT: usize = 128 << 20;

/// The least that may be configured for the most fresh bytes: one commit of the largest frame must fit.
pub const FRESH_BYTES_MAX_LEAST: usize = 1 << 20;

/// How long `publish` waits for room before it gives the commit back. Longer than any flush or retry pause takes, so that
/// only a disk that stays full ends it.
pub const PUBLISH_WAIT_DEFAULT: Duration = Duration::from_secs(600);

/// The pause after the first failed flush; it doubles with each further one.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The longest pause between failed flushes: space that comes back is used within ten seconds.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);

/// The services whose names are kept per file, for pruning. A file with more is read by every query on services.
pub const FILE_SERVICES_MAX: usize = 256;

/// Bytes of a file's counted redactions: some twenty thousand counts of a minute, a service and a rule. A file with more is read by whoever
/// asks for them.
pub const ROLLUP_BYTES_MAX: usize = 128 << 10;

/// The services a query may name and still be pruned by them; SQLite allows 32,766 parameters.
pub const PRUNE_SERVICES_MAX: usize = 1_000;

/// The longest tenant name, in bytes. It is a directory name.
pub const TENANT_BYTES_MAX: usize = 64;

/// The gap rows one read returns at most, newest first to stay. Each is about 300 bytes in memory.
pub const GAPS_READ_MAX: usize = 1 << 20;

/// The files checked when the store opens (size and footer), newest first. The rest is left to `verify`.
pub const OPEN_CHECK_FILES_MAX: usize = 20_000;

/// How many files are looked at side by side when the store opens. Local files: more threads than that gain nothing.
pub const OPEN_CHECK_PARALLEL: usize = 8;

/// The largest Parquet footer that is read, in bytes. A footer of ours has a few kilobytes per row group.
pub const FOOTER_BYTES_MAX: usize = 16 << 20;

/// SQLite connections for readers. A read takes well under a millisecond.
pub const CATALOG_READERS: u32 = 4;

/// How long a statement waits for another process's lock on the catalog. Nobody else should have one.
pub const CATALOG_BUSY_WAIT: Duration = Duration::from_secs(5);

/// How far a line's own timestamp may lie behind its arrival and still decide the day it is filed under, in nanoseconds.
pub const TIMESTAMP_BEHIND_MAX_NS: i64 = 7 * 86_400 * 1_000_000_000;

/// How far a line's own timestamp may lie ahead of its arrival, in nanoseconds: clocks that are a little wrong.
pub const TIMESTAMP_AHEAD_MAX_NS: i64 = 600 * 1_000_000_000;

const _: () = assert!(ROW_GROUP_ROWS.is_multiple_of(PAGE_ROWS_MAX));
const _: () = assert!(FLUSH_CHUNK_BYTES_MAX > FRAME_INFLATED_BYTES_MAX);
const _: () = assert!(FLUSH_CHUNK_BYTES_MAX < i32::MAX as usize / 4);
const _: () = assert!(FRESH_BYTES_MAX_DEFAULT >= 2 * FLUSH_BYTES_DEFAULT);

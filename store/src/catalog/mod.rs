//! The SQL catalog: which files are live, and up to where the journal is in them.
//!
//! The store knows only the trait [`Catalog`]; [`sqlite`] is the catalog inside the data directory. A server for many
//! processes is a second implementation of the same trait.
//!
//! What always holds:
//! - a file is read only when its row says `live`; no listing of objects makes a file visible;
//! - a file's row exists (`staged`) before its object does, and is deleted after its object is;
//! - `journal_progress`, files becoming live, positions, epochs and gaps change in one transaction or not at all, and only
//!   when `journal_progress` still stands where the flush started.

pub(crate) mod sqlite;

use async_trait::async_trait;
use beeacon_record::{AgentId, Epoch};
use object_store::path::Path;
use uuid::Uuid;

use crate::commit::{GapRow, SourceProgress};
use crate::error::StoreError;
use crate::snapshot::{LogFile, Prune};

/// A file as it is announced before it is written.
#[derive(Clone, Debug)]
pub(crate) struct StagedFile {
    pub(crate) file_id: Uuid,
    pub(crate) path: Path,
    pub(crate) tenant: String,
    pub(crate) day: String,
    pub(crate) from_lsn: u64,
    pub(crate) to_lsn: u64,
}

/// What is known of a file once it is written.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    pub(crate) file_id: Uuid,
    pub(crate) schema_version: u16,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) time_min_ns: i64,
    pub(crate) time_max_ns: i64,
    /// `None` when there are too many to keep.
    pub(crate) services: Option<Vec<String>>,
    pub(crate) sha256: [u8; 32],
    pub(crate) crc32c: u32,
    pub(crate) row_groups: Vec<RowGroupFacts>,
    /// What was taken out of its lines, counted; none when there is too much.
    pub(crate) redactions: Option<Vec<u8>>,
}

/// Where a row group lies in its file, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowGroupFacts {
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) crc32c: u32,
}

/// Everything that one flush changes in the catalog.
pub(crate) struct FlushCommit {
    pub(crate) from_lsn: u64,
    pub(crate) to_lsn: u64,
    pub(crate) files: Vec<FileFacts>,
    pub(crate) progress: Vec<SourceProgress>,
    pub(crate) epochs: Vec<(AgentId, Epoch)>,
    /// With the LSN they came with and their place in that record.
    pub(crate) gaps: Vec<(u64, usize, GapRow)>,
}

/// What became of a [`FlushCommit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// It was committed now.
    Committed,
    /// `journal_progress` stood elsewhere, and nothing was changed.
    Elsewhere {
        /// Where it stood.
        upto: u64,
    },
}

/// The files of a tenant that a query has to read, with the moment they stand for.
pub(crate) struct FilesAt {
    pub(crate) upto: u64,
    pub(crate) version: u64,
    pub(crate) files: Vec<LogFile>,
    pub(crate) total: u64,
    pub(crate) damaged: u64,
}

/// A file that should be there, for checks.
#[derive(Clone, Debug)]
pub(crate) struct KnownFile {
    pub(crate) file: LogFile,
    pub(crate) tenant: String,
    pub(crate) is_damaged: bool,
}

/// What `verify` compares a file with.
#[derive(Clone, Debug)]
pub(crate) struct Checksums {
    pub(crate) sha256: Vec<u8>,
    pub(crate) crc32c: u32,
    pub(crate) row_groups: Vec<RowGroupFacts>,
}

/// How much the live files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) damaged_files: u64,
}

/// What the store asks of a catalog. Every method is one transaction.
#[async_trait]
pub(crate) trait Catalog: Send + Sync + 'static {
    /// Up to which LSN the journal is in files.
    async fn upto(&self) -> Result<u64, StoreError>;

    /// Announces files (T0).
    async fn stage(&self, files: &[StagedFile]) -> Result<(), StoreError>;

    /// Commits a flush (T1), by compare-and-set on `journal_progress`. After an error the outcome is unknown: read
    /// [`Catalog::upto`] again.
    async fn commit(&self, flush: &FlushCommit) -> Result<CommitOutcome, StoreError>;

    /// Files that were announced and never became live.
    async fn staged(&self) -> Result<Vec<(Uuid, Path)>, StoreError>;

    /// Forgets an announced file, if it still is only announced.
    async fn unstage(&self, file_id: Uuid) -> Result<(), StoreError>;

    /// Which of a tenant's files a query has to read, and the LSN they stand for, from one snapshot of the catalog.
    async fn files(&self, tenant: &str, prune: &Prune) -> Result<FilesAt, StoreError>;

    /// The counted redactions of a tenant's live files that a query may want, where they are kept.
    async fn redactions(&self, tenant: &str, prune: &Prune) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError>;

    /// A tenant's committed gap rows and the LSN they stand for, from one snapshot of the catalog, oldest first.
    async fn gaps(&self, tenant: &str) -> Result<(u64, Vec<GapRow>), StoreError>;

    /// Where every source stands.
    async fn sources(&self) -> Result<Vec<SourceProgress>, StoreError>;

    /// Every agent's newest epoch.
    async fn epochs(&self) -> Result<Vec<(AgentId, Epoch)>, StoreError>;

    /// Live and damaged files, newest first, at most `limit`.
    async fn known_files(&self, limit: usize) -> Result<Vec<KnownFile>, StoreError>;

    /// What a file has to hash to.
    async fn checksums(&self, file_id: Uuid) -> Result<Checksums, StoreError>;

    /// Marks a live file as damaged, or a damaged one as live again.
    async fn mark(&self, file_id: Uuid, damage: Option<&str>) -> Result<(), StoreError>;

    /// Sums over live and damaged files.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Lets go of the database.
    async fn close(&self);
}

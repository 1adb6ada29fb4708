//! What can go wrong in the store, and what the caller should do about it.

use std::path::PathBuf;
use std::time::Duration;

use arrow_schema::ArrowError;
use beeacon_record::BatchError;

use crate::limits::TENANT_BYTES_MAX;

/// What an error asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing was taken or changed: the same call may succeed later.
    Retry,
    /// This input will never be taken.
    Drop,
    /// The store can't go on; a person or a restart has to help.
    Stop,
}

/// Why the store did not do what was asked. Messages hold names, numbers and paths, never text of a line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting is out of its range.
    #[error("option {option} is {value}, allowed is {allowed}")]
    Option {
        /// The field of `StoreOptions`.
        option: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A file or directory could not be used.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the directory.
    #[error("directory {path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The catalog could not be opened; when a newer program made it, nothing was changed.
    #[error("open the catalog")]
    Open(#[from] beeacon_sqlite::OpenError),
    /// The catalog did not do what was asked.
    #[error("{action} in the catalog")]
    Catalog {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The catalog holds something that this program never wrote.
    #[error("catalog holds an unreadable {what}")]
    CatalogContent {
        /// What it is.
        what: &'static str,
    },
    /// Somebody else moved the catalog on: this process must not write any more.
    #[error("catalog stands at lsn {found}, this process committed {expected}: another writer is at work")]
    Fenced {
        /// What the catalog says.
        found: u64,
        /// What this process knows.
        expected: u64,
    },
    /// The object store failed.
    #[error("{action} {path}")]
    Object {
        /// What was tried.
        action: &'static str,
        /// With which object.
        path: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// A file that was just written does not read back as it was written.
    #[error("read back {path}: {fault}")]
    ReadBack {
        /// Which object.
        path: String,
        /// What differs.
        fault: String,
    },
    /// Parquet refused the rows.
    #[error("encode rows as parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow refused the columns.
    #[error("arrange rows")]
    Arrow(#[from] ArrowError),
    /// The batch is not of the log schema.
    #[error("take a batch")]
    Batch(#[from] BatchError),
    /// The tenant's name can't name a directory.
    #[error("tenant name is not 1 to {TENANT_BYTES_MAX} letters, digits, underscores or hyphens")]
    Tenant,
    /// The commit's number is already taken.
    #[error("lsn {lsn} was published before, flushed is {flushed_lsn}")]
    LsnTwice {
        /// The number.
        lsn: u64,
        /// How far the store has written.
        flushed_lsn: u64,
    },
    /// Fresh rows stayed at their limit; the commit was not taken and can be published again.
    #[error("fresh rows stayed at their limit of {limit_bytes} bytes for {waited:?}")]
    Full {
        /// The limit.
        limit_bytes: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The store is closed.
    #[error("store is closed")]
    Closed,
    /// A background task ended without an answer: it panicked, or the runtime is shutting down.
    #[error("background task of the store ended without an answer")]
    TaskLost,
    /// A test stopped the protocol here.
    #[cfg(test)]
    #[error("stopped by a test at {0}")]
    Stopped(String),
}

impl StoreError {
    /// What the caller should do.
    pub fn duty(&self) -> Duty {
        match self {
            StoreError::Tenant | StoreError::LsnTwice { .. } | StoreError::Batch(_) => Duty::Drop,
            StoreError::Option { .. }
            | StoreError::InUse { .. }
            | StoreError::Open(_)
            | StoreError::CatalogContent { .. }
            | StoreError::Fenced { .. }
            | StoreError::Closed => Duty::Stop,
            _ => Duty::Retry,
        }
    }

    pub(crate) fn object(
        action: &'static str,
        path: &object_store::path::Path,
        source: object_store::Error,
    ) -> Self {
        StoreError::Object { action, path: path.to_string(), source }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        StoreError::Io { action, path: path.into(), source }
    }
}

//! What can go wrong, and what the caller owes in each case.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Lsn;

/// What a caller has to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Nothing was stored; try the same again later.
    Retry,
    /// This request can never succeed; give it up and go on with the next.
    Drop,
    /// The journal can promise nothing more; stop the process and start again.
    Stop,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FullCause {
    /// Another segment would pass the journal's own quota.
    #[error("{allocated_bytes} bytes are allocated and the quota is {limit_bytes}")]
    Quota {
        /// Bytes of all segments.
        allocated_bytes: u64,
        /// `journal_bytes_max`.
        limit_bytes: u64,
    },
    /// The file system is at the floor of free space.
    #[error("{free_bytes} bytes are free and {wanted_bytes} are wanted")]
    Floor {
        /// Bytes free to this user.
        free_bytes: u64,
        /// `free_bytes_min`, with hysteresis and the next segment where they apply.
        wanted_bytes: u64,
    },
    /// The device itself refused to give space.
    #[error("the device has no space for {wanted_bytes} bytes")]
    Device {
        /// Bytes asked for.
        wanted_bytes: u64,
    },
}

/// An error of the journal. Cloneable, because one failed sync answers many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The operating system refused a file operation that cannot be worked around.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process, or another `Journal`, has this directory open.
    #[error("lock {}: another process has this journal open", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file was written by a newer version. Nothing was changed or deleted.
    #[error("read {}: format version {found} is newer than {supported}", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this build reads.
        supported: u16,
    },
    /// An option is out of range.
    #[error("use {option} = {value}: must be {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What it was set to.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// One payload is too large for any segment, or has too many parts.
    #[error("append {bytes} bytes in {parts} parts: the limits are {bytes_max} and {parts_max}")]
    TooLarge {
        /// Bytes of the payload.
        bytes: u64,
        /// Parts of the payload.
        parts: usize,
        /// `record_bytes_max`.
        bytes_max: u64,
        /// The limit of parts.
        parts_max: usize,
    },
    /// The queue to the writer thread is full: the disk is slower than the callers.
    #[error("queue {bytes} more bytes: {queued_bytes} of {limit_bytes} are taken")]
    QueueFull {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes queued and in flight.
        queued_bytes: u64,
        /// `queue_bytes_max`.
        limit_bytes: u64,
    },
    /// There is no room on the disk. The journal takes records again by itself once there is.
    #[error("append: {0}")]
    Full(FullCause),
    /// The journal failed earlier and takes nothing more.
    #[error("append to a journal that failed")]
    Poisoned(#[source] Arc<JournalError>),
    /// The writer thread panicked.
    #[error("run the writer thread: it panicked")]
    WriterPanicked,
    /// The journal was closed.
    #[error("use a journal that is closed")]
    Closed,
    /// The wanted records were removed because every consumer had taken them, or are lost.
    #[error("read from lsn {wanted}: the first one kept is {first}")]
    Truncated {
        /// The record asked for.
        wanted: Lsn,
        /// Where reading can go on.
        first: Lsn,
    },
    /// A cursor's name is not one.
    #[error("name a cursor: 1 to 64 of a-z, 0-9, '-' and '_' are allowed")]
    CursorName,
    /// There are as many cursors as there may be.
    #[error("open another cursor: the limit is {limit}")]
    TooManyCursors {
        /// The limit.
        limit: usize,
    },
    /// The cursor was forgotten.
    #[error("use cursor {name}: it was forgotten")]
    CursorForgotten {
        /// Its name.
        name: String,
    },
    /// A cursor may only move forward, over records that are durable.
    #[error("advance cursor {name} to lsn {asked}: it may move from {from} to {to}")]
    CursorRange {
        /// Its name.
        name: String,
        /// Where it was to go.
        asked: Lsn,
        /// Where it is.
        from: Lsn,
        /// The last durable record.
        to: Lsn,
    },
    /// As many callbacks are registered as there may be.
    #[error("register another listener: the limit is {limit}")]
    TooManyListeners {
        /// The limit.
        limit: usize,
    },
}

impl JournalError {
    /// What the caller has to do.
    #[must_use]
    pub fn duty(&self) -> Duty {
        match self {
            Self::QueueFull { .. } | Self::Full(_) => Duty::Retry,
            Self::TooLarge { .. }
            | Self::Truncated { .. }
            | Self::CursorName
            | Self::TooManyCursors { .. }
            | Self::CursorForgotten { .. }
            | Self::CursorRange { .. }
            | Self::TooManyListeners { .. } => Duty::Drop,
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::NewerVersion { .. }
            | Self::Option { .. }
            | Self::Poisoned(_)
            | Self::WriterPanicked
            | Self::Closed => Duty::Stop,
        }
    }

    /// Wraps what the system said with what was tried.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}

/// Whether an error means that space ran out rather than that the device failed.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

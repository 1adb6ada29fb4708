//! Why bytes are not a frame, or a batch does not become one.

use crate::batch::BatchError;
use crate::identity::IdentityError;

/// Why bytes are not a frame, or a batch does not become one. No variant quotes what it read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Too few bytes.
    #[error("frame ends within its {what}")]
    Truncated {
        /// In which part.
        what: &'static str,
    },
    /// Not a frame at all.
    #[error("frame does not start with the magic of a frame")]
    Magic,
    /// Written by a newer Beeacon.
    #[error("frame has version {version}, this reader knows versions up to {known}")]
    Newer {
        /// The version found.
        version: u16,
        /// The newest version known here.
        known: u16,
    },
    /// A reserved field is not zero, or a number names nothing.
    #[error("frame field {what} has a value that its version does not know")]
    Field {
        /// Which field.
        what: &'static str,
    },
    /// Beyond a limit.
    #[error("{what} has {bytes} bytes, allowed are {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A part has another length than announced.
    #[error("{what} has {found} bytes, the header announces {announced}")]
    Length {
        /// What.
        what: &'static str,
        /// The announced length.
        announced: u64,
        /// The length found.
        found: u64,
    },
    /// Bits changed on the way.
    #[error("checksum of the {what} does not match")]
    Checksum {
        /// Header or payload.
        what: &'static str,
    },
    /// zstd refused to compress.
    #[error("zstd refused to compress with level {level}")]
    Compress {
        /// The level asked for.
        level: i32,
    },
    /// zstd refused to inflate into the announced size.
    #[error("payload does not inflate into the announced {limit} bytes")]
    Inflate {
        /// The announced size.
        limit: u64,
    },
    /// Arrow refused the columns.
    #[error("payload's columns are not those of a batch: {what}")]
    Columns {
        /// What is wrong with them.
        what: &'static str,
    },
    /// An interval is not well formed.
    #[error("interval of the frame is not well formed")]
    Interval(#[from] IdentityError),
    /// The rows do not make a batch.
    #[error("rows of the frame do not make a batch")]
    Batch(#[from] BatchError),
}

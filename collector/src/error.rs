//! What keeps a collector from opening, or makes it stop.

use std::sync::Arc;

use beeacon_journal::JournalError;
use beeacon_store::StoreError;

use crate::loki::LokiOptionError;

/// What keeps a collector from opening, or makes it stop. After any of these a new start recovers by itself, unless an
/// option is wrong or the disk is broken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CollectorError {
    /// The journal can't be opened, or can promise nothing more.
    #[error("use the journal")]
    Journal(#[from] JournalError),
    /// The store can't be read or go on.
    #[error("use the store")]
    Store(#[source] Arc<StoreError>),
    /// A setting of the Loki leg is wrong.
    #[error("set up the way to Loki")]
    Loki(#[from] LokiOptionError),
    /// The tenant's name can't be used.
    #[error(
        "use a tenant name of {bytes} bytes: 1 to {limit} letters, digits, underscores or hyphens are allowed"
    )]
    Tenant {
        /// Its length.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A task of the collector panicked or was taken away.
    #[error("{what}: its task ended without an answer")]
    TaskLost {
        /// What it was doing.
        what: &'static str,
    },
}

impl From<StoreError> for CollectorError {
    fn from(error: StoreError) -> Self {
        CollectorError::Store(Arc::new(error))
    }
}

/// An error and what caused it, in one line, for logs and the status.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

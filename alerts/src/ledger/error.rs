//! What can go wrong with the ledger.

use thiserror::Error;

use crate::limits::OUTBOX_WAITING_MAX;

/// Why the ledger did not do what it was asked for.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// SQLite says so. The step can be tried again.
    #[error("{action}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// It cannot be opened; when a newer program made it, nothing was changed.
    #[error("open the ledger of alerts")]
    Open(#[from] beeacon_sqlite::OpenError),
    /// A value cannot be written, or what is there cannot be read.
    #[error("{what} in the ledger of alerts cannot be read or written")]
    Json {
        /// What.
        what: &'static str,
    },
    /// Too many messages wait. The step is to be made again later.
    #[error("{OUTBOX_WAITING_MAX} messages wait to be delivered, which is the limit")]
    Full,
}

pub(super) fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |source| LedgerError::Sqlite { action, source }
}

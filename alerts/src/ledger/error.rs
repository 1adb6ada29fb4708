//! What can go wrong with the ledger.

use std::path::PathBuf;

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
    /// The tables cannot be made or brought up to date.
    #[error("migrate the ledger of alerts")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A newer program made it; nothing was changed.
    #[error("{} was made by a newer version: it has version {found}, this program knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
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

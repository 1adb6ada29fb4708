//! What may go wrong with a Vault. No error holds anything of a secret, a token or an answer.

use std::path::PathBuf;
use std::time::Duration;

use crate::ship::http::ShipError;

/// Why a Vault's secrets cannot be had now.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// TLS cannot be set up.
    #[error("prepare to speak to vault")]
    Tls(#[source] ShipError),
    /// The token or the secret id cannot be read.
    #[error("read {}", path.display())]
    File {
        /// From where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("{} has mode {mode:03o}, wanted is 600 so that nobody else reads it", path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is empty, too long, or no single line.
    #[error("{} holds no token or secret id: wanted is one line", path.display())]
    NoLine {
        /// Which file.
        path: PathBuf,
    },
    /// The token cannot stand in a header.
    #[error("vault token holds characters that an http header cannot carry")]
    Token,
    /// The request failed on the way.
    #[error("reach vault at {address}")]
    Network {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("vault gave no answer to {what} within {} ms", within.as_millis())]
    Timeout {
        /// What was asked.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// It is sealed: somebody has to unseal it.
    #[error("vault at {address} is sealed")]
    Sealed {
        /// Where.
        address: String,
    },
    /// The login is not taken.
    #[error("vault refuses to log in {by}")]
    Login {
        /// By what.
        by: &'static str,
    },
    /// The token may not do that, or is no longer valid.
    #[error("vault denies {what}: the token is not valid or its policy lacks it")]
    Denied {
        /// What was asked.
        what: String,
    },
    /// A path that is configured is not there.
    #[error("vault has nothing at {what}")]
    Missing {
        /// Which.
        what: String,
    },
    /// Too many requests.
    #[error("vault answers {what} with \"too many requests\"")]
    Busy {
        /// What was asked.
        what: String,
    },
    /// It is another node's to answer.
    #[error("vault sends {what} to another node: name the active one, or what stands before all of them")]
    Redirected {
        /// What was asked.
        what: String,
    },
    /// Any other status.
    #[error("vault answers {what} with status {status}")]
    Status {
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
    },
    /// The answer is not what the interface documents.
    #[error("vault's answer to {what} is malformed")]
    Malformed {
        /// What was asked.
        what: String,
    },
    /// The answer is too large.
    #[error("vault's answer to {what} is too large, allowed are {bytes_max} bytes")]
    AnswerTooLarge {
        /// What was asked.
        what: String,
        /// How much is allowed.
        bytes_max: usize,
    },
    /// Folders lie too deep in one another.
    #[error("vault's folder {path} lies deeper than {depth_max} folders below what is configured")]
    TooDeep {
        /// Which.
        path: String,
        /// How many are allowed.
        depth_max: usize,
    },
    /// Too many folders or paths.
    #[error("vault has more than {paths_max} paths below what is configured")]
    TooManyPaths {
        /// How many are allowed.
        paths_max: usize,
    },
    /// Too many secrets.
    #[error("vault holds {count} secrets below what is configured, allowed are {secrets_max} (secrets_max)")]
    TooMany {
        /// How many.
        count: usize,
        /// How many are allowed.
        secrets_max: usize,
    },
    /// Too much text.
    #[error("vault's secrets have {bytes} bytes together, allowed are {bytes_max} (bytes_max)")]
    TooLarge {
        /// How much.
        bytes: usize,
        /// How much is allowed.
        bytes_max: usize,
    },
}

impl VaultError {
    /// One word for it, for status and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            VaultError::Tls(_) => "tls",
            VaultError::File { .. } | VaultError::Mode { .. } | VaultError::NoLine { .. } => "file",
            VaultError::Token | VaultError::Login { .. } => "login",
            VaultError::Network { .. } => "unreachable",
            VaultError::Timeout { .. } => "timeout",
            VaultError::Sealed { .. } => "sealed",
            VaultError::Denied { .. } => "denied",
            VaultError::Missing { .. } => "missing",
            VaultError::Busy { .. } => "busy",
            VaultError::Redirected { .. } | VaultError::Status { .. } => "status",
            VaultError::Malformed { .. } => "malformed",
            VaultError::AnswerTooLarge { .. }
            | VaultError::TooDeep { .. }
            | VaultError::TooManyPaths { .. }
            | VaultError::TooMany { .. }
            | VaultError::TooLarge { .. } => "limit",
        }
    }

    /// Whether the same request may work a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            VaultError::Network { .. } | VaultError::Timeout { .. } | VaultError::Busy { .. } => true,
            VaultError::Status { status, .. } => *status == 412 || *status >= 500,
            _ => false,
        }
    }
}

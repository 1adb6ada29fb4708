//! Where known secrets come from.
//!
//! What always holds: without the secrets that the configuration names there is no engine, and so no agent; once there was a set
//! it stays until another can be had, and what went wrong is said.

pub mod file;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use beeacon_filters::{Engine, KnownError, KnownSecrets};

use self::file::{FileError, Stamp};
use crate::ship::http::chain;

/// How often the file is looked at. A secret that was changed is in use soon after.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why there are no known secrets.
#[derive(Debug, thiserror::Error)]
pub enum KnownSecretsError {
    /// The file cannot be used.
    #[error("take known secrets from a file")]
    File(#[from] FileError),
    /// Its secrets make no set.
    #[error("make a set of known secrets")]
    Set(#[from] KnownError),
    /// Nobody can watch the file.
    #[error("start a thread to watch known secrets")]
    Thread(#[source] std::io::Error),
}

/// Reads the file and makes a set of it. Secrets that are refused are named in the log, by reference.
///
/// # Errors
/// When the file or its secrets cannot be used.
pub fn from_file(path: &std::path::Path) -> Result<(KnownSecrets, Stamp), KnownSecretsError> {
    let (secrets, stamp) = file::read(path)?;
    let known = KnownSecrets::new(secrets)?;
    let report = known.report();
    for (reference, why) in &report.refused {
        tracing::warn!(reference, %why, "a known secret is not looked for");
    }
    tracing::info!(secrets = report.secrets, needles = report.needles, "known secrets are in use");
    Ok((known, stamp))
}

/// Takes the file's secrets anew whenever it changes, for as long as the engine is there.
///
/// # Errors
/// When no thread can be started.
pub fn follow(engine: &Arc<Engine>, path: PathBuf, seen: Stamp) -> Result<(), KnownSecretsError> {
    let engine = Arc::downgrade(engine);
    let thread = std::thread::Builder::new().name("known-secrets".to_owned());
    thread.spawn(move || watch(&engine, &path, seen)).map_err(KnownSecretsError::Thread)?;
    Ok(())
}

fn watch(engine: &Weak<Engine>, path: &std::path::Path, mut seen: Stamp) {
    let mut is_well = true;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(engine) = engine.upgrade() else { return };
        if is_well && file::stamp(path).is_ok_and(|stamp| stamp == seen) {
            continue;
        }
        match from_file(path) {
            Ok((known, stamp)) => {
                engine.replace_known(Some(known));
                (seen, is_well) = (stamp, true);
            }
            Err(error) if is_well => {
                tracing::error!(
                    error = chain(&error),
                    "known secrets cannot be read again, the last ones stay"
                );
                is_well = false;
            }
            Err(_) => {}
        }
    }
}

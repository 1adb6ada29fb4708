//! Where known secrets come from: a file, a Vault, or both.
//!
//! What always holds: without the file that the configuration names there is no engine, and so no agent; without a Vault that is
//! required nothing is shipped until it was asked; once there was a set it stays until another can be had, and what went wrong is
//! said.

pub mod board;
pub mod file;
pub mod vault;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use beeacon_filters::{Engine, KnownError, KnownSecret, KnownSecrets};
use beeacon_settings::Section;

use self::board::{KnownBoard, KnownSource};
use self::file::{FileError, Stamp};
use self::vault::{Vault, VaultConfig, VaultError};
use crate::limits::{VAULT_BACKOFF_MAX, VAULT_BACKOFF_MIN};
use crate::ship::http::chain;

/// How often the file is looked at, and whether the engine is still there. A secret that was changed is in use soon after.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A file that was not looked at for so long is worth a word: a slow Vault keeps its keeper for minutes at most.
const FILE_AGE_MAX: Duration = Duration::from_secs(600);

/// The file's secrets have this source in a set; each path of a Vault has one above.
const FILE_SOURCE: u32 = 0;

/// Where known secrets come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownConfig {
    /// A file; none by default.
    pub file: Option<PathBuf>,
    /// A Vault; none by default.
    pub vault: Option<VaultConfig>,
}

impl KnownConfig {
    /// Reads the section `[filter.known]`.
    pub fn read(mut section: Section<'_>) -> KnownConfig {
        let file = section.optional_text("file").map(PathBuf::from);
        let mut vault = section.section("vault");
        let config = VaultConfig::read(&mut vault);
        vault.close();
        section.close();
        KnownConfig { file, vault: config }
    }
}

/// Why there are no known secrets.
#[derive(Debug, thiserror::Error)]
pub enum KnownSecretsError {
    /// The file cannot be used.
    #[error("take known secrets from a file")]
    File(#[from] FileError),
    /// The Vault cannot be used.
    #[error("take known secrets from a vault")]
    Vault(#[from] VaultError),
    /// The secrets make no set.
    #[error("make a set of known secrets")]
    Set(#[from] KnownError),
    /// Nobody can keep them up to date.
    #[error("start a thread to keep known secrets")]
    Thread(#[source] std::io::Error),
}

impl KnownSecretsError {
    fn kind(&self) -> &'static str {
        match self {
            KnownSecretsError::File(_) => "file",
            KnownSecretsError::Vault(error) => error.kind(),
            KnownSecretsError::Set(_) => "limit",
            KnownSecretsError::Thread(_) => "thread",
        }
    }
}

/// Reads the file and makes a set of it.
///
/// # Errors
/// When the file or its secrets cannot be used.
pub fn from_file(path: &Path) -> Result<(KnownSecrets, Stamp), KnownSecretsError> {
    let (secrets, stamp) = file::read(path)?;
    let known = KnownSecrets::new(secrets)?;
    Ok((known, stamp))
}

/// Keeps an engine's known secrets up to date for as long as the engine is there, on a thread of its own. `of_file` is what the
/// engine was made with; how they are doing is told to `board`, which has no sources yet.
///
/// # Errors
/// When a Vault cannot be spoken to with this configuration, or no thread can be started.
pub fn keep(
    config: &KnownConfig,
    engine: &Arc<Engine>,
    of_file: Option<(KnownSecrets, Stamp)>,
    board: KnownBoard,
) -> Result<KnownBoard, KnownSecretsError> {
    let now = Instant::now();
    let vault = config.vault.clone().map(Vault::new).transpose()?;
    if let Some(vault) = &vault {
        let age_max = 3 * (vault.config().refresh + VAULT_BACKOFF_MAX);
        board.expect(KnownSource::Vault, vault.config().required, age_max);
    }
    let (known, stamp) = of_file.unzip();
    let file = config.file.clone().zip(stamp).map(|(path, stamp)| WatchedFile { path, stamp, is_well: true });
    if file.is_some() {
        board.expect(KnownSource::File, true, FILE_AGE_MAX);
        board.succeeded(KnownSource::File, now);
    }
    if let Some(known) = &known {
        tell(&board, known);
    }
    if file.is_none() && vault.is_none() {
        return Ok(board);
    }
    let vault = vault.map(|vault| WatchedVault { vault, wait: Duration::ZERO, look_at: now, is_well: true });
    let mut keeper = Keeper { board: board.clone(), known, file, vault };
    let engine = Arc::downgrade(engine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(KnownSecretsError::Thread)?;
    let thread = std::thread::Builder::new().name("known-secrets".to_owned());
    let keeping = thread.spawn(move || runtime.block_on(keeper.keep(&engine)));
    keeping.map_err(KnownSecretsError::Thread)?;
    Ok(board)
}

/// Says what a set holds. Secrets that are refused are named in the log, by reference.
fn tell(board: &KnownBoard, known: &KnownSecrets) {
    let report = known.report();
    for (reference, why) in &report.refused {
        tracing::warn!(reference, %why, "a known secret is not looked for");
    }
    tracing::info!(secrets = report.secrets, needles = report.needles, "known secrets are in use");
    board.holds(report.secrets, report.refused.len());
}

struct WatchedFile {
    path: PathBuf,
    stamp: Stamp,
    is_well: bool,
}

struct WatchedVault {
    vault: Vault,
    /// Before it is asked again after a failure.
    wait: Duration,
    look_at: Instant,
    is_well: bool,
}

/// Who keeps the set.
struct Keeper {
    board: KnownBoard,
    known: Option<KnownSecrets>,
    file: Option<WatchedFile>,
    vault: Option<WatchedVault>,
}

impl Keeper {
    async fn keep(&mut self, engine: &Weak<Engine>) {
        loop {
            // The engine may go while a Vault takes its time: it is held for the exchange only.
            if engine.strong_count() == 0 {
                return;
            }
            self.look_at_file(engine).await;
            self.look_at_vault(engine).await;
            let due =
                self.vault.as_ref().map(|vault| vault.look_at.saturating_duration_since(Instant::now()));
            tokio::time::sleep(due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).await;
        }
    }

    async fn look_at_file(&mut self, engine: &Weak<Engine>) {
        let Some(file) = &mut self.file else { return };
        if file.is_well && file::stamp(&file.path).is_ok_and(|stamp| stamp == file.stamp) {
            self.board.succeeded(KnownSource::File, Instant::now());
            return;
        }
        let outcome = match file::read(&file.path) {
            Ok((secrets, stamp)) => {
                file.stamp = stamp;
                self.replace(engine, |source| source == FILE_SOURCE, secrets).await
            }
            Err(error) => Err(error.into()),
        };
        let Some(file) = &mut self.file else { return };
        let was_well = std::mem::replace(&mut file.is_well, outcome.is_ok());
        match outcome {
            Ok(()) => self.board.succeeded(KnownSource::File, Instant::now()),
            Err(error) => {
                self.board.failed(KnownSource::File, error.kind());
                if was_well {
                    let error = chain(&error);
                    tracing::error!(error, "known secrets cannot be read again, the last ones stay");
                }
            }
        }
    }

    async fn look_at_vault(&mut self, engine: &Weak<Engine>) {
        let Some(watched) = &mut self.vault else { return };
        let now = Instant::now();
        let outcome = if watched.look_at > now {
            // Failures are told by the next look.
            if watched.is_well {
                watched.vault.keep_alive(now).await.ok();
            }
            return;
        } else {
            self.take_from_vault(engine, now).await
        };
        let Some(watched) = &mut self.vault else { return };
        let (refresh, now) = (watched.vault.config().refresh, Instant::now());
        let was_well = std::mem::replace(&mut watched.is_well, outcome.is_ok());
        watched.wait = match outcome {
            Ok(()) => {
                self.board.succeeded(KnownSource::Vault, now);
                if !was_well {
                    tracing::info!("known secrets can be taken from vault again");
                }
                Duration::ZERO
            }
            Err(error) => {
                self.board.failed(KnownSource::Vault, error.kind());
                if was_well {
                    tracing::error!(error = chain(&error), "known secrets cannot be taken from vault now");
                }
                (2 * watched.wait).max(VAULT_BACKOFF_MIN).min(VAULT_BACKOFF_MAX).min(refresh)
            }
        };
        watched.look_at = now + if watched.is_well { refresh } else { watched.wait };
    }

    async fn take_from_vault(
        &mut self,
        engine: &Weak<Engine>,
        now: Instant,
    ) -> Result<(), KnownSecretsError> {
        let Some(watched) = &mut self.vault else { return Ok(()) };
        let changes = watched.vault.look(now).await?;
        if changes.is_empty() {
            watched.vault.accept(changes.seen);
            return Ok(());
        }
        let (dropped, seen) = (changes.dropped, changes.seen);
        let is_all = self.change(engine, |source| dropped.contains(&source), changes.secrets)?;
        if !is_all {
            return self.take_all(engine).await;
        }
        if let Some(watched) = &mut self.vault {
            watched.vault.accept(seen);
        }
        Ok(())
    }

    /// Uses these secrets in place of those whose sources are dropped; all anew when too much has changed.
    async fn replace(
        &mut self,
        engine: &Weak<Engine>,
        drops: impl Fn(u32) -> bool,
        secrets: Vec<KnownSecret>,
    ) -> Result<(), KnownSecretsError> {
        if self.change(engine, drops, secrets)? { Ok(()) } else { self.take_all(engine).await }
    }

    /// The same; false when the set must be made anew.
    fn change(
        &mut self,
        engine: &Weak<Engine>,
        drops: impl Fn(u32) -> bool,
        secrets: Vec<KnownSecret>,
    ) -> Result<bool, KnownSecretsError> {
        let known = match &self.known {
            Some(known) => known.updated(|source, _| !drops(source), secrets)?,
            None => Some(KnownSecrets::new(secrets)?),
        };
        let is_new = known.is_some();
        if let Some(known) = known {
            self.put(engine, known);
        }
        Ok(is_new)
    }

    /// Reads every source, and makes the set anew.
    async fn take_all(&mut self, engine: &Weak<Engine>) -> Result<(), KnownSecretsError> {
        let mut secrets = Vec::new();
        if let Some(file) = &mut self.file {
            let (of_file, stamp) = file::read(&file.path)?;
            file.stamp = stamp;
            secrets.extend(of_file);
        }
        let mut seen = None;
        if let Some(watched) = &mut self.vault {
            watched.vault.forget();
            let changes = watched.vault.look(Instant::now()).await?;
            secrets.extend(changes.secrets);
            seen = Some(changes.seen);
        }
        let known = KnownSecrets::new(secrets)?;
        self.put(engine, known);
        if let (Some(watched), Some(seen)) = (&mut self.vault, seen) {
            watched.vault.accept(seen);
        }
        Ok(())
    }

    fn put(&mut self, engine: &Weak<Engine>, known: KnownSecrets) {
        tell(&self.board, &known);
        if let Some(engine) = engine.upgrade() {
            engine.replace_known(Some(known.clone()));
        }
        self.known = Some(known);
    }
}

//! Tokens while the server runs: read again at SIGHUP, and when the configuration's file has changed.
//!
//! What always holds: a configuration with a fault keeps the tokens that there were, and log and metrics say so; a server that has asked
//! for tokens asks for them until its end, whatever becomes of its file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beeacon_access::{Gate, Tokens};
use beeacon_query::{Postgres, PostgresKey, PostgresLogin};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::HTTP_TOKEN;
use crate::doors;
use crate::stamp::{Settling, Stamp, stamp};

/// How often the file is looked at. A change counts once it has stood still for as long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who may come in, as the configuration says it.
pub(crate) struct TokenSet {
    /// `http.token`.
    pub(crate) token: Option<String>,
    pub(crate) tokens: Tokens,
    pub(crate) logins: Vec<PostgresLogin>,
}

/// Where tokens come from.
pub(crate) struct Source {
    /// The file that is looked at.
    pub(crate) file: PathBuf,
    /// What it looked like before it was read for the tokens that are in use.
    pub(crate) looked: Stamp,
    /// Reads everything as at the start.
    pub(crate) load: Arc<dyn Fn() -> anyhow::Result<TokenSet> + Send + Sync>,
}

/// Takes changes until told to stop.
pub(crate) async fn follow(
    source: Source,
    gate: Gate,
    postgres: Option<Postgres>,
    mut stop: watch::Receiver<bool>,
) {
    let mut hang_up = match signal(SignalKind::hangup()) {
        Ok(hang_up) => hang_up,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be listened for: changes of tokens are not noticed");
            return;
        }
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut settling = Settling::new(source.looked);
    loop {
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = hang_up.recv() => settling.take(stamp(&source.file)),
            _ = look.tick() => if !settling.is_new(stamp(&source.file)) {
                continue;
            }
        }
        let load = source.load.clone();
        let read = tokio::task::spawn_blocking(move || load()).await;
        let read = read.unwrap_or_else(|_| Err(anyhow::anyhow!("reading the configuration panicked")));
        let changed = async {
            let set = read?;
            let gone = gate.use_tokens(set.tokens).await;
            if let Some(postgres) = &postgres {
                let ended: Vec<PostgresKey> = gone.iter().map(|name| key(name)).collect();
                postgres.use_logins(set.token.as_deref(), set.logins, !gate.is_open(), &ended)?;
            }
            anyhow::Ok(gone)
        };
        match changed.await {
            Ok(gone) => {
                gate.note_stale(false);
                for name in gone {
                    tracing::info!(name, "a token opens nothing any more, or something else");
                }
            }
            Err(error) => {
                gate.note_stale(true);
                tracing::error!(fault = format!("{error:#}"), "tokens stay as they were");
            }
        }
    }
}

/// What opened the PostgreSQL door for the holder of a token.
fn key(name: &str) -> PostgresKey {
    match name {
        HTTP_TOKEN => PostgresKey::Token,
        beeacon_access::ANYBODY_HERE => PostgresKey::Nothing,
        name => PostgresKey::Login(name.to_owned()),
    }
}

//! Changes of the configuration while the agent runs: at SIGHUP, and when a file that it names has changed.
//!
//! What always holds: a configuration is checked whole before anything of it is used; one with a fault is refused with all of
//! them in log and status, and the one before stays; what cannot change without a start is one of the faults; no line is lost
//! and none is stored twice ([`crate::pump`]). A file that is being written is let stand still first.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::config::AgentConfig;
use crate::known::file::{Stamp, stamp};
use crate::limits::CONFIG_LOOK_EVERY;
use crate::pollen::{FilterConfig, PollenError};
use crate::ship::http::ShipError;

/// Why a changed configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Keys are faulty, or cannot change now.
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
    /// The collector cannot be spoken to with it.
    #[error("prepare to ship")]
    Ship(#[from] ShipError),
    /// Its rules make no filter.
    #[error("make the pollen filter ready")]
    Filter(#[from] PollenError),
    /// The known secrets that it requires are not there.
    #[error("wait for known secrets: {}", .0.join("; "))]
    Known(Vec<String>),
    /// Making the filter panicked.
    #[error("making the pollen filter ready panicked")]
    Panicked,
}

/// Reads the configuration as at the start, flags included. Errors are for people, and hold no value that is secret.
pub type Load = Arc<dyn Fn() -> Result<(AgentConfig, FilterConfig), String> + Send + Sync>;

/// What is wrong with a configuration that is to take the place of `before`.
pub(crate) fn faults(before: &AgentConfig, after: &AgentConfig) -> Vec<String> {
    let mut faults: Vec<String> =
        after.faults().into_iter().map(|fault| format!("agent.{}: {}", fault.key, fault.message)).collect();
    for (key, has_changed) in [
        ("data", before.data != after.data),
        ("docker_host", before.docker_host != after.docker_host),
        ("containers_directory", before.containers_directory != after.containers_directory),
        ("reader", before.reader != after.reader),
        ("listen", before.listen != after.listen),
        ("spool", before.spool != after.spool),
        ("stdin, agent.syslog or agent.push", before.push != after.push),
        ("files", before.files != after.files),
        ("journald", before.journald != after.journald),
    ] {
        if has_changed {
            faults.push(format!("agent.{key}: has changed, which needs a new start of the agent"));
        }
    }
    faults
}

/// Takes changes until `stop`. `file` is the configuration; those that it names are watched, too. `first` is the filter's part that
/// the agent was made with.
///
/// # Errors
/// When SIGHUP cannot be listened for.
pub async fn follow(
    agent: Agent,
    file: Option<PathBuf>,
    first: FilterConfig,
    load: Load,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    // What has changed since the agent was made, and before anybody looked.
    let mut is_first = file.is_some();
    let mut watched = Watched::new(file, &agent.config(), &first);
    let mut look = tokio::time::interval(CONFIG_LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = hang_up.recv() => watched.settle(),
            _ = look.tick() => {
                if !is_first && !watched.has_changed() {
                    continue;
                }
            }
        }
        let loading = load.clone();
        let loaded = tokio::task::spawn_blocking(move || loading()).await;
        match loaded.unwrap_or_else(|_| Err("reading the configuration panicked".to_owned())) {
            Ok((config, filter))
                if std::mem::take(&mut is_first) && config == agent.config() && filter == first => {}
            Ok((config, filter)) => {
                watched.name(&config, &filter);
                // What is wrong has been said.
                agent.change(config, filter).await.ok();
            }
            Err(faults) => {
                is_first = false;
                agent.note_reload(Some(faults));
            }
        }
    }
}

/// Files and what they looked like when they were read.
struct Watched {
    file: Option<PathBuf>,
    files: Vec<PathBuf>,
    used: Vec<Option<Stamp>>,
    seen: Vec<Option<Stamp>>,
}

impl Watched {
    fn new(file: Option<PathBuf>, config: &AgentConfig, filter: &FilterConfig) -> Self {
        let mut watched = Watched { file, files: Vec::new(), used: Vec::new(), seen: Vec::new() };
        watched.name(config, filter);
        watched
    }

    /// Other files are named from now on.
    fn name(&mut self, config: &AgentConfig, filter: &FilterConfig) {
        let identity = config.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        let certificates = config.roots.iter().chain(identity).cloned();
        let rules = filter.files().map(PathBuf::from);
        self.files = self.file.iter().cloned().chain(certificates).chain(rules).collect();
        self.settle();
    }

    fn look(&self) -> Vec<Option<Stamp>> {
        self.files.iter().map(|file| stamp(file).ok()).collect()
    }

    /// What is there now is what is read.
    fn settle(&mut self) {
        self.seen = self.look();
        self.used.clone_from(&self.seen);
    }

    /// Whether something has changed since it was read, and has stood still since the last look.
    fn has_changed(&mut self) -> bool {
        let now = self.look();
        let stands_still = now == self.seen;
        self.seen = now;
        if !stands_still || self.seen == self.used {
            return false;
        }
        self.used.clone_from(&self.seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::http::ClientFiles;

    #[test]
    fn a_change_counts_once_and_only_when_it_has_stood_still() {
        let directory = tempfile::tempdir().unwrap();
        let [file, rules, certificate, key, roots] =
            ["b.toml", "r.toml", "a.crt", "a.key", "ca.crt"].map(|name| directory.path().join(name));
        std::fs::write(&file, "a").unwrap();
        let filter = FilterConfig { rules: vec![rules.clone()], ..FilterConfig::default() };
        let named = [rules.clone(), certificate.clone(), key.clone(), roots.clone()];
        let identity = Some(ClientFiles { certificate, key });
        let config = AgentConfig { identity, roots: Some(roots), ..AgentConfig::default() };
        let mut watched = Watched::new(Some(file.clone()), &config, &filter);
        assert!(!watched.has_changed());
        std::fs::write(&file, "ab").unwrap();
        assert!(!watched.has_changed(), "it may still be being written");
        std::fs::write(&file, "abc").unwrap();
        assert!(!watched.has_changed());
        assert!(watched.has_changed());
        assert!(!watched.has_changed());
        // A file that was not there counts, too, and one that is gone.
        for named in named {
            std::fs::write(&named, "x").unwrap();
            assert!(!watched.has_changed() && watched.has_changed() && !watched.has_changed());
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!watched.has_changed() && watched.has_changed());
    }

    #[test]
    fn what_needs_a_start_is_a_fault_beside_the_others() {
        let before = AgentConfig::default();
        let after = AgentConfig {
            data: "elsewhere".into(),
            docker_host: Some("tcp://127.0.0.1:2375".into()),
            host: String::new(),
            ..AgentConfig::default()
        };
        let faults = faults(&before, &after).join("\n");
        for key in ["agent.data", "agent.docker_host", "agent.host"] {
            assert!(faults.contains(key), "{key} is missing in {faults}");
        }
        assert!(!faults.contains("agent.reader"), "{faults}");
    }
}

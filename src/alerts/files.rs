//! Rule files and the file of receivers: read at the start, at SIGHUP, and when one of them has changed.
//!
//! What always holds: files are read whole before anything of them is used; with a fault in any of them, what was in use stays,
//! and log, metrics and `GET /api/beeacon/alerts` show the faults.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use beeacon_alerts::notify::config::Config;
use beeacon_alerts::rules::RuleFile;
use beeacon_alerts::runner::{Handle, RuleSet};
use beeacon_settings::Process;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::alert_files::Faults;
use crate::doors;
use crate::stamp::{Settling, Stamp, stamp};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The most files of rules. Each look costs a system call for each.
const FILES_MAX: usize = 1_000;

/// What is said to whom when there is no file of receivers: nothing to nobody. Alerts are seen all the same.
const NO_RECEIVERS: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// Where rules and receivers are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Whether the ready rules are there too.
    pub(crate) pack: bool,
    /// Rule files, and directories of which every `.yaml` and `.yml` is one.
    pub(crate) rules: Vec<PathBuf>,
    /// Receivers and routes.
    pub(crate) receivers: Option<PathBuf>,
}

/// What all files looked like.
pub(crate) type Look = Vec<(PathBuf, Stamp)>;

impl Files {
    /// Reads everything.
    ///
    /// # Errors
    /// With all faults of all files.
    pub(crate) fn read(&self) -> anyhow::Result<(RuleSet, Config)> {
        let mut faults = Vec::new();
        let mut files = Vec::new();
        for (name, text) in beeacon_alerts::pack().into_iter().filter(|_| self.pack) {
            match RuleFile::read(text) {
                Ok(file) => files.push((name.to_owned(), file)),
                Err(error) => faults.push(format!("{name}: {error}")),
            }
        }
        for path in self.rule_files().context("look for the rule files")? {
            let name = path.display().to_string();
            match std::fs::read_to_string(&path) {
                Err(error) => faults.push(format!("{name}: {}", error.kind())),
                Ok(text) => match RuleFile::read(&text) {
                    Ok(file) => files.push((name, file)),
                    Err(error) => faults.push(Faults::of(&path, &error).to_string()),
                },
            }
        }
        let receivers = self.read_receivers().map_err(|fault| faults.push(fault)).ok();
        let rules = RuleSet::of(files).map_err(|error| faults.push(error.to_string())).ok();
        match (rules, receivers) {
            (Some(rules), Some(receivers)) if faults.is_empty() => Ok((rules, receivers)),
            _ => Err(Faults::all("the files of alerts have faults:", faults).into()),
        }
    }

    /// The receivers and routes.
    ///
    /// # Errors
    /// With all faults of the file.
    pub(crate) fn read_receivers(&self) -> Result<Config, String> {
        let path = self.receivers.as_deref().unwrap_or(Path::new(""));
        let name = path.display();
        let text = match &self.receivers {
            None => NO_RECEIVERS.to_owned(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| format!("{name}: {}", error.kind()))?;
                beeacon_settings::fill_in(&text, &Process).map_err(|fault| format!("{name}: {fault}"))?
            }
        };
        Config::read(&text).map_err(|error| Faults::of(path, &error).to_string())
    }

    /// The rule files that there are now, in the order of their names within each directory.
    fn rule_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for path in &self.rules {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let mut found = BTreeSet::new();
            for entry in std::fs::read_dir(path)? {
                let path = entry?.path();
                if is_rule_file(&path) {
                    found.insert(path);
                }
            }
            files.extend(found);
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!(
                "there are {} rule files, the limit is {FILES_MAX}",
                files.len()
            )));
        }
        Ok(files)
    }

    /// What everything looks like now.
    pub(crate) fn look(&self) -> Look {
        let files = self.rule_files().unwrap_or_default();
        files
            .into_iter()
            .chain(self.receivers.clone())
            .map(|path| {
                let stamp = stamp(&path);
                (path, stamp)
            })
            .collect()
    }
}

fn is_rule_file(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    !is_hidden && is_yaml
}

/// Takes changes until told to stop. A file that is being written is let stand still first.
pub(super) async fn follow(files: Files, looked: Look, handle: Handle, mut stop: watch::Receiver<bool>) {
    let mut hang_up = match signal(SignalKind::hangup()) {
        Ok(hang_up) => hang_up,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be listened for: changes of rule files are not noticed");
            return;
        }
    };
    let mut settling = Settling::new(looked);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = hang_up.recv() => settling.take(files.look()),
            _ = look.tick() => if !settling.is_new(files.look()) {
                continue;
            }
        }
        let reading = files.clone();
        let read = tokio::task::spawn_blocking(move || reading.read()).await;
        match read.unwrap_or_else(|_| Err(anyhow::anyhow!("reading the rule files panicked"))) {
            Ok((rules, receivers)) => {
                let count = rules.len();
                if handle.use_rules(rules, receivers).await.is_err() {
                    return;
                }
                tracing::info!(rules = count, "rules and receivers were read anew");
            }
            Err(error) => {
                let fault = format!("{error:#}");
                tracing::error!(fault, "rules and receivers stay as they were");
                handle.note_reload_fault(fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_of_all_files_are_told_with_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("rules")).unwrap();
        std::fs::write(path("rules/a.yaml"), "groups:\n- name: a\n  rule: []\n").unwrap();
        std::fs::write(path("rules/b.yml"), "groups:\n- name: b\n  rules:\n  - alert: X\n    expr: up\n")
            .unwrap();
        std::fs::write(path("rules/c.txt"), "no rules").unwrap();
        std::fs::write(path("receivers.yaml"), "route: {receiver: x}\n").unwrap();
        let files = Files {
            pack: true,
            rules: vec![path("rules"), path("gone.yaml")],
            receivers: Some(path("receivers.yaml")),
        };
        let text = files.read().unwrap_err().to_string();
        for part in ["a.yaml:3:3:", "b.yml:5:11:", "gone.yaml: entity not found", "receivers.yaml:1:19:"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("c.txt"));
    }

    #[test]
    fn without_files_there_are_no_rules_and_nobody_is_told() {
        let (rules, receivers) = Files::default().read().unwrap();
        assert!(rules.is_empty());
        assert_eq!(receivers.receivers.len(), 1);
    }
}

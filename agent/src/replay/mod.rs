//! What another configuration would have done to the logs that this host still has: `beeacon agent replay`.
//!
//! Every json-file log is read twice, by the configuration in use and by the one to try, through the same reader, pollen filter and
//! picking as a running agent's. What comes out is counted and compared row by row, by position; nothing is shipped, and no text of a
//! line is kept longer than its batch or shown, not even scrubbed: of a row, the comparison keeps its level and a number made of its
//! scrubbed text.
//!
//! Both sides are given one key that lasts as long as the process, so tokens of keyed hashes do not differ by themselves; no Vault is
//! asked. What it leaves out: containers that are read through Docker's API, and plain files.

mod log;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beeacon_filters::Engine;
use beeacon_settings::read_duration;
use serde::Serialize;

use self::log::Reading;
use crate::clock::now_ns;
use crate::config::AgentConfig;
use crate::container::{Container, ReaderKind};
use crate::docker::discover;
use crate::docker::host::{DockerHost, HostError};
use crate::pollen::{FilterConfig, PollenError};
use crate::reader::can_read;

pub use self::show::table;

/// How much text of each container is looked at when nobody says otherwise, in MiB: some seconds' work, and some 30 MB to compare.
pub const REPLAY_MIB_DEFAULT: u64 = 64;

/// Where the configuration in use lies when nobody says otherwise.
const CONFIG_IN_USE: &str = "/etc/beeacon/beeacon.toml";

/// The configuration in use, if it lies where it usually does.
pub fn config_in_use() -> Option<PathBuf> {
    Some(PathBuf::from(CONFIG_IN_USE)).filter(|path| path.exists())
}

/// Reads a while such as `90s`, `30m`, `1h` or `2d`.
///
/// # Errors
/// What was wanted.
pub fn span(text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| "wanted a number with s, m, h or d, such as 1h".to_owned())
}

/// What is to be compared, and over which lines.
pub struct Replay {
    /// The configuration in use.
    pub before: (AgentConfig, FilterConfig),
    /// The one to try.
    pub after: (AgentConfig, FilterConfig),
    /// Only lines of this last while; of all that is retained by none.
    pub since: Option<Duration>,
    /// How much text of each container is looked at, in bytes.
    pub bytes_max: u64,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration's rules make no filter.
    #[error("make the pollen filter of the {which} configuration ready")]
    Filter {
        /// Which of the two.
        which: &'static str,
        /// Why.
        #[source]
        source: PollenError,
    },
    /// Docker cannot be spoken to with this configuration.
    #[error("prepare to list containers")]
    Host(#[from] HostError),
    /// Docker does not answer.
    #[error("list the containers of docker at {host}")]
    Docker {
        /// Where.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory cannot be listed.
    #[error("list the containers in {}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread panicked.
    #[error("comparing panicked")]
    Panicked,
}

/// What one configuration made of one log.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Rows that would be shipped: lines, or groups of them.
    pub rows: u64,
    /// Their scrubbed text, in bytes.
    pub bytes: u64,
    /// Text as it was read, in bytes.
    pub read_bytes: u64,
    /// What was redacted, by rule.
    pub redactions: BTreeMap<String, u64>,
    /// Rows that a rule drops.
    pub dropped_rows: u64,
    /// Rows that sampling leaves out.
    pub sampled_rows: u64,
    /// Rows that are left out because the container writes faster than its rate.
    pub rate_limited_rows: u64,
    /// Rows whose timestamp stands in their line.
    pub own_timestamps: u64,
    /// Rows by level.
    pub levels: BTreeMap<String, u64>,
    /// Processor time per MiB of text read, in milliseconds: reading, scrubbing and picking. Two looks at one log differ by some
    /// per cent by themselves.
    pub ms_per_mib: f64,
    /// Whether there was more to read than was allowed.
    pub is_cut: bool,
}

/// How the rows of the two configurations differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Rows that only the configuration in use ships: dropped, left out, or a part of a group by the other.
    pub rows_gone: u64,
    /// Rows that only the one to try ships.
    pub rows_new: u64,
    /// Rows of both, of another level.
    pub other_level: u64,
    /// Rows of both, with another text or other attributes after scrubbing.
    pub other_text: u64,
}

impl Differences {
    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        *self != Differences::default()
    }
}

/// One container's log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The container's name.
    pub container: String,
    /// Its id.
    pub id: String,
    /// With the configuration in use; none when that does not read it.
    pub before: Option<Outcome>,
    /// With the one to try.
    pub after: Option<Outcome>,
    /// How rows differ, where both read it.
    pub differences: Differences,
}

/// A container that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The container's name.
    pub container: String,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The containers that were looked at, by name.
    pub containers: Vec<Compared>,
    /// Those that were not, though one of the two configurations reads them.
    pub skipped: Vec<Skipped>,
}

impl Replay {
    /// Compares.
    ///
    /// # Errors
    /// When there is no filter or no list of containers. A log that cannot be read is one of those skipped.
    pub async fn run(self) -> Result<Report, ReplayError> {
        let containers = self.containers().await?;
        let compared = tokio::task::spawn_blocking(move || self.compare(containers)).await;
        compared.map_err(|_| ReplayError::Panicked)?
    }

    /// The list is by the configuration in use: the same host either way.
    async fn containers(&self) -> Result<Vec<Container>, ReplayError> {
        let config = &self.before.0;
        let mut containers = match (&config.docker_host, &config.containers_directory) {
            (Some(host), directory) => {
                let docker = DockerHost::parse(host)?;
                let listed = discover::list(&docker, directory.as_deref()).await;
                listed.map_err(|source| ReplayError::Docker { host: host.clone(), source: source.into() })?
            }
            (None, Some(directory)) => discover::list_directory(directory)
                .map_err(|source| ReplayError::Directory { directory: directory.clone(), source })?,
            (None, None) => Vec::new(),
        };
        containers.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(containers)
    }

    fn compare(self, containers: Vec<Container>) -> Result<Report, ReplayError> {
        let key = FilterConfig::key_to_compare();
        let engine = |which, config: &FilterConfig| -> Result<Arc<Engine>, ReplayError> {
            config.engine_with_key(&key).map_err(|source| ReplayError::Filter { which, source })
        };
        let sides = [
            (&self.before.0, engine("present", &self.before.1)?),
            (&self.after.0, engine("new", &self.after.1)?),
        ];
        let since_ns = self.since.map_or(i64::MIN, |since| {
            now_ns().saturating_sub(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
        });
        let mut report = Report::default();
        for container in &containers {
            if !sides.iter().any(|(config, _)| config.selection.takes(container)) {
                continue;
            }
            let mut skip = |reason: String| {
                report.skipped.push(Skipped { container: container.name.clone(), reason });
            };
            let has_api = self.before.0.docker_host.is_some();
            match container.reader(self.before.0.reader, has_api, can_read) {
                ReaderKind::File => {}
                ReaderKind::Api => {
                    skip(format!("its log ({}) is read through docker's api", container.driver));
                    continue;
                }
                _ => {
                    skip(format!("its log ({}) cannot be read", container.driver));
                    continue;
                }
            }
            let read = |(config, engine): &(&AgentConfig, Arc<Engine>)| {
                let is_taken = config.selection.takes(container);
                is_taken.then(|| Reading::of(container, config, engine, since_ns, self.bytes_max)).transpose()
            };
            let [before, after] = &sides;
            match read(before).and_then(|before| Ok((before, read(after)?))) {
                Ok((before, after)) => report.containers.push(Compared {
                    container: container.name.clone(),
                    id: container.id.clone(),
                    differences: match (&before, &after) {
                        (Some(before), Some(after)) => before.differences(after),
                        _ => Differences::default(),
                    },
                    before: before.map(|reading| reading.outcome),
                    after: after.map(|reading| reading.outcome),
                }),
                Err(error) => skip(crate::ship::http::chain(&error)),
            }
        }
        Ok(report)
    }
}

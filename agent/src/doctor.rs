//! Looks at what an agent needs, one thing after another, and says what is wrong and what to do about it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::config::AgentConfig;
use crate::docker::host::DockerHost;
use crate::ship::http::{Collector, chain};

/// How long one check may take.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

/// A clock further off than this is worth a word. Timestamps come from Docker; only `observed_timestamp` is the agent's.
const SKEW_MAX: Duration = Duration::from_secs(2);

/// How much room the data directory should have, in bytes; it holds an id and a key.
const FREE_BYTES_MIN: u64 = 16 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, but not as well as it could.
    Warning,
    /// Does not work.
    Fault,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and what to do about it.
    pub message: String,
}

fn finding(check: &'static str, severity: Severity, message: impl Into<String>) -> Finding {
    Finding { check, severity, message: message.into() }
}

/// Makes every check.
pub async fn examine(config: &AgentConfig) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config
        .faults()
        .into_iter()
        .map(|fault| {
            finding("configuration", Severity::Fault, format!("agent.{}: {}", fault.key, fault.message))
        })
        .collect();
    findings.push(check_data(config));
    findings.extend(check_space(&config.data));
    findings.push(check_docker(config).await);
    findings.extend(check_containers_directory(config));
    findings.extend(check_collector(config).await);
    findings
}

fn check_data(config: &AgentConfig) -> Finding {
    const CHECK: &str = "data directory";
    let data = &config.data;
    match crate::state::agent_id(data, &config.machine_id_file, &config.host) {
        Ok(id) => finding(CHECK, Severity::Fine, format!("{} is writable, agent id is {id}", data.display())),
        Err(error) => finding(CHECK, Severity::Fault, chain(&error)),
    }
}

fn check_space(data: &Path) -> Option<Finding> {
    const CHECK: &str = "free space";
    let stat = rustix::fs::statvfs(data).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let message = format!("{} MiB free below {}", free >> 20, data.display());
    let severity = if free < FREE_BYTES_MIN { Severity::Fault } else { Severity::Fine };
    Some(finding(CHECK, severity, message))
}

async fn check_docker(config: &AgentConfig) -> Finding {
    const CHECK: &str = "docker";
    let Some(host) = &config.docker_host else {
        return finding(CHECK, Severity::Fine, "not asked, containers are found by their directories");
    };
    let host = match DockerHost::parse(host) {
        Ok(host) => host,
        Err(error) => return finding(CHECK, Severity::Fault, error.to_string()),
    };
    let asking = async { host.client().await?.version().await };
    match tokio::time::timeout(CHECK_WITHIN, asking).await {
        Ok(Ok(version)) => finding(
            CHECK,
            Severity::Fine,
            format!(
                "{host} answers: version {}, api {}",
                version.version.unwrap_or_default(),
                version.api_version.unwrap_or_default()
            ),
        ),
        Ok(Err(error)) => finding(
            CHECK,
            Severity::Fault,
            format!("{host} does not answer: {error}; is it running, and may this user open the socket?"),
        ),
        Err(_) => finding(
            CHECK,
            Severity::Fault,
            format!("{host} does not answer within {} s", CHECK_WITHIN.as_secs()),
        ),
    }
}

fn check_containers_directory(config: &AgentConfig) -> Option<Finding> {
    const CHECK: &str = "containers directory";
    let default = Path::new("/var/lib/docker/containers");
    let (path, is_wanted) = match &config.containers_directory {
        Some(path) => (path.as_path(), true),
        None if config.docker_host.as_deref().is_some_and(|host| host.starts_with("unix:")) => {
            (default, false)
        }
        None => return None,
    };
    Some(match std::fs::read_dir(path) {
        Ok(_) => finding(
            CHECK,
            Severity::Fine,
            format!("{} can be listed: logs are read from files", path.display()),
        ),
        Err(error) if is_wanted => {
            let advice = "run as root or give the agent CAP_DAC_READ_SEARCH";
            finding(CHECK, Severity::Fault, format!("cannot list {}: {error}; {advice}", path.display()))
        }
        Err(error) => {
            let advice = "logs are read through docker's api, which costs dockerd far more";
            finding(CHECK, Severity::Warning, format!("cannot list {}: {error}; {advice}", path.display()))
        }
    })
}

async fn check_collector(config: &AgentConfig) -> Vec<Finding> {
    const CHECK: &str = "collector";
    let collector = match Collector::new(&config.collector, config.token.as_deref(), config.roots.as_deref())
    {
        Ok(collector) => collector,
        Err(error) => return vec![finding(CHECK, Severity::Fault, chain(&error))],
    };
    let asking = collector.request(Method::GET, "/readyz", None, Bytes::new());
    match tokio::time::timeout(CHECK_WITHIN, asking).await {
        Ok(Ok(answer)) => {
            let severity = if answer.status == 200 { Severity::Fine } else { Severity::Fault };
            let message = format!("{} answers with status {}", collector.authority(), answer.status);
            let mut findings = vec![finding(CHECK, severity, message)];
            findings.extend(answer.date.and_then(|date| check_clock(&date)));
            findings
        }
        Ok(Err(error)) => vec![finding(CHECK, Severity::Fault, chain(&error))],
        Err(_) => {
            let message =
                format!("{} gives no answer within {} s", collector.authority(), CHECK_WITHIN.as_secs());
            vec![finding(CHECK, Severity::Fault, message)]
        }
    }
}

/// Compares the collector's `Date` with this host's clock.
fn check_clock(date: &str) -> Option<Finding> {
    const CHECK: &str = "clock";
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let ours = jiff::Timestamp::now();
    let skew_s = ours.as_second().abs_diff(theirs.as_second());
    // The header has whole seconds.
    Some(if skew_s > SKEW_MAX.as_secs() + 1 {
        let message =
            format!("this host's clock and the collector's are {skew_s} s apart; let both follow NTP");
        finding(CHECK, Severity::Warning, message)
    } else {
        finding(CHECK, Severity::Fine, "agrees with the collector's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_that_is_missing_is_found_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = AgentConfig {
            collector: "http://127.0.0.1:1".into(),
            docker_host: Some(format!("unix://{}/docker.sock", directory.path().display())),
            containers_directory: Some(directory.path().join("none")),
            data: directory.path().join("data"),
            ..AgentConfig::default()
        };
        let findings = examine(&config).await;
        let severity = |check| findings.iter().find(|finding| finding.check == check).unwrap().severity;
        assert_eq!(severity("data directory"), Severity::Fine);
        for check in ["docker", "containers directory", "collector"] {
            assert_eq!(severity(check), Severity::Fault, "{check}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_a_warning() {
        let now = jiff::Timestamp::now();
        let print = |timestamp: jiff::Timestamp| {
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).unwrap()
        };
        assert_eq!(check_clock(&print(now)).unwrap().severity, Severity::Fine);
        let old = now.checked_sub(jiff::SignedDuration::from_secs(60)).unwrap();
        assert_eq!(check_clock(&print(old)).unwrap().severity, Severity::Warning);
    }
}

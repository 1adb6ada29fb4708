//! Reads `<id>/config.v2.json`, in which Docker keeps what it knows of a container.
//!
//! An internal format of Docker's: every field may be missing, and unknown ones are passed over.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::retention::Retention;
use crate::container::{Container, runs_or_will};
use crate::limits::CONTAINER_CONFIG_BYTES_MAX;

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: Config,
    #[serde(rename = "State")]
    state: State,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    #[serde(rename = "Tty")]
    tty: bool,
    #[serde(rename = "Image")]
    image: String,
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct State {
    #[serde(rename = "Running")]
    running: bool,
    #[serde(rename = "StartedAt")]
    started_at: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HostConfigFile {
    #[serde(rename = "LogConfig")]
    log: LogConfig,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LogConfig {
    #[serde(rename = "Type")]
    driver: String,
    #[serde(rename = "Config")]
    options: Option<BTreeMap<String, String>>,
}

/// Reads a container's description from its `config.v2.json` and, beside it, the log driver from `hostconfig.json`. Without
/// the latter it counts as json-file, Docker's default.
///
/// # Errors
/// When the file cannot be read or is no such file, as while Docker writes it.
pub fn read(path: &Path) -> std::io::Result<Container> {
    let file: ConfigFile = parse(path)?;
    let host: HostConfigFile = parse(&path.with_file_name("hostconfig.json")).unwrap_or_default();
    let driver = if host.log.driver.is_empty() { "json-file".to_owned() } else { host.log.driver };
    let options = host.log.options.unwrap_or_default();
    let option = |key| options.get(key).map(String::as_str);
    Ok(Container {
        id: file.id,
        name: file.name.trim_start_matches('/').to_owned(),
        image: file.config.image,
        labels: file.config.labels.unwrap_or_default().into_iter().collect(),
        has_terminal: file.config.tty,
        driver,
        log_path: None,
        retention: Retention::from_options(option("max-size"), option("max-file")),
        is_lossy: option("mode") == Some("non-blocking"),
        is_running: runs_or_will(file.state.running, &file.state.started_at),
        started_at: file.state.started_at,
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> std::io::Result<T> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CONTAINER_CONFIG_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_described_by_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.v2.json");
        std::fs::write(
            &path,
            r#"{"ID":"4f2a","Name":"/shop-web-1","LogPath":"/x/4f2a-json.log","Future":1,
                "Config":{"Tty":true,"Image":"shop/web:1","Labels":{"com.docker.compose.service":"web"}},
                "State":{"Running":true,"StartedAt":"2024-01-01T00:00:00Z"}}"#,
        )
        .unwrap();
        let container = read(&path).unwrap();
        assert_eq!((container.driver.as_str(), container.service()), ("json-file", "web"));
        assert!(container.has_terminal && container.is_running);
        std::fs::write(
            directory.path().join("hostconfig.json"),
            r#"{"LogConfig":{"Type":"local","Config":{"mode":"non-blocking","max-size":"1m","max-file":"3"}}}"#,
        )
        .unwrap();
        let container = read(&path).unwrap();
        assert_eq!((container.driver.as_str(), container.is_lossy), ("local", true));
        assert_eq!(container.retention, Retention { file_bytes_max: Some(1 << 20), files_max: 3 });
        // Created and not started yet: its end is not near, so no line of it may be taken for its last one.
        for (started_at, runs) in [("0001-01-01T00:00:00Z", true), ("2024-01-01T00:00:00Z", false)] {
            let state = format!(r#"{{"ID":"4f2a","State":{{"Running":false,"StartedAt":"{started_at}"}}}}"#);
            std::fs::write(&path, state).unwrap();
            assert_eq!(read(&path).unwrap().is_running, runs);
        }
        std::fs::write(&path, r#"{"ID":"4f2a","#).unwrap();
        assert!(read(&path).is_err());
    }
}

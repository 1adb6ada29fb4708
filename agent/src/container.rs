//! What the agent knows of a container, and how its log is read.

use std::path::PathBuf;

use beeacon_record::Origin;
use serde::Serialize;

use crate::docker::retention::Retention;

/// How a container's log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderChoice {
    /// The file when it is a json-file that can be read, else the API.
    #[default]
    Auto,
    /// Files only.
    File,
    /// The API only.
    Api,
}

/// How a container's log is read, as chosen for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderKind {
    /// The json-file on disk.
    File,
    /// The Docker API.
    Api,
    /// It is no container but a plain file.
    Plain,
    /// It is no container but a journal.
    Journal,
    /// Its log driver keeps nothing that could be read.
    Unsupported,
}

/// A container, as Docker describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The id, 64 hexadecimal characters.
    pub id: String,
    /// The name, without Docker's leading slash.
    pub name: String,
    /// The image's name.
    pub image: String,
    /// All labels.
    pub labels: Vec<(String, String)>,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// The log driver.
    pub driver: String,
    /// The json-file log, where Docker names one.
    pub log_path: Option<PathBuf>,
    /// How long Docker keeps what a json-file log holds.
    pub retention: Retention,
    /// Whether the driver drops what it has no room for (`mode=non-blocking`).
    pub is_lossy: bool,
    /// Whether it runs, or was never started: what was only created may print before anybody learns of its start.
    pub is_running: bool,
    /// When it was started last, as Docker writes it.
    pub started_at: String,
}

/// Whether more may come of a container of this state: it runs, or has never been started. Docker writes "never" as the year 1.
pub(crate) fn runs_or_will(running: bool, started_at: &str) -> bool {
    running || started_at.starts_with("0001-")
}

/// The label by which Docker Compose names a service.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

impl Container {
    /// The compose service, else the container's name, else its short id.
    pub fn service(&self) -> &str {
        let label = self.labels.iter().find(|(key, value)| key == COMPOSE_SERVICE && !value.is_empty());
        match label {
            Some((_, service)) => service,
            None if !self.name.is_empty() => &self.name,
            None => self.id.get(..12).unwrap_or(&self.id),
        }
    }

    /// The origin of its lines, with those labels that were chosen.
    pub fn origin(&self, host: &str, chosen_labels: &[String]) -> Origin {
        let mut labels: Vec<(String, String)> =
            self.labels.iter().filter(|(key, _)| chosen_labels.contains(key)).cloned().collect();
        if self.is_lossy {
            labels.push(("beeacon.origin".to_owned(), "lossy".to_owned()));
        }
        Origin {
            host: host.to_owned(),
            service: self.service().to_owned(),
            container: self.name.clone(),
            container_id: self.id.clone(),
            image: self.image.clone(),
            labels,
        }
    }

    /// Whether how to read it can be said already. Docker names the file of a json-file log only once the container has been
    /// started; before that there is nothing to read either.
    pub fn is_readable_yet(&self) -> bool {
        self.driver != "json-file" || self.log_path.is_some() || self.is_running
    }

    /// How to read it, and from which file. `has_api` says whether there is a Docker API to ask.
    pub fn reader(
        &self,
        choice: ReaderChoice,
        has_api: bool,
        can_read: impl Fn(&PathBuf) -> bool,
    ) -> ReaderKind {
        if self.driver == "none" {
            return ReaderKind::Unsupported;
        }
        let is_file = self.driver == "json-file" && self.log_path.as_ref().is_some_and(can_read);
        match choice {
            ReaderChoice::Auto | ReaderChoice::File if is_file => ReaderKind::File,
            ReaderChoice::Auto | ReaderChoice::Api if has_api => ReaderKind::Api,
            _ => ReaderKind::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(driver: &str, path: Option<&str>) -> Container {
        Container { driver: driver.into(), log_path: path.map(PathBuf::from), ..Container::default() }
    }

    #[test]
    fn the_reader_is_the_file_where_it_can_be_read_and_the_api_elsewhere() {
        use ReaderChoice::{Api, Auto, File};
        use ReaderKind as Kind;
        let table = [
            ("json-file", Some("/l"), Auto, true, true, Kind::File),
            ("json-file", Some("/l"), Auto, true, false, Kind::Api),
            ("json-file", Some("/l"), Api, true, true, Kind::Api),
            ("json-file", None, Auto, true, true, Kind::Api),
            ("json-file", Some("/l"), File, true, false, Kind::Unsupported),
            ("local", None, Auto, true, true, Kind::Api),
            ("local", None, Auto, false, true, Kind::Unsupported),
            ("none", None, Auto, true, true, Kind::Unsupported),
        ];
        for (driver, path, choice, has_api, readable, expected) in table {
            let kind = container(driver, path).reader(choice, has_api, |_| readable);
            assert_eq!(kind, expected, "{driver} {choice:?} {has_api} {readable}");
        }
    }

    #[test]
    fn the_service_is_composes_name_else_the_containers() {
        let mut container = Container { id: "0123456789abcdef".into(), ..Container::default() };
        assert_eq!(container.service(), "0123456789ab");
        container.name = "shop-web-1".into();
        assert_eq!(container.service(), "shop-web-1");
        container.labels = vec![(COMPOSE_SERVICE.into(), "web".into())];
        assert_eq!(container.service(), "web");
    }
}

//! Finds the host's containers and follows what happens to them.
//!
//! What always holds: events are a hint and the list is the truth. It subscribes first, then lists, then reconciles; it lists
//! again every 30 s; it never gives up, whether Docker is not there yet, goes away, or hangs. A container counts as removed
//! only when Docker says so about it by name.
//!
//! Without a socket the containers directory is the list: `<id>/config.v2.json` tells what an inspect would.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::config_file;
use super::host::DockerHost;
use super::retention::Retention;
use super::time::since_text;
use crate::backoff::Backoff;
use crate::clock::now_ns;
use crate::container::{Container, runs_or_will};
use crate::event::Event;
use crate::limits::{CONTAINERS_MAX, LIST_EVERY, SCAN_EVERY};
use crate::metrics::Metrics;

/// How far before the first list events are asked for, in nanoseconds: Docker's clock may be another host's.
const EVENTS_BEFORE_NS: i64 = 10_000_000_000;

/// The pump has stopped listening.
struct Closed;

type DockerError = bollard::errors::Error;

/// How a round with Docker ended.
enum RoundError {
    Docker(DockerError),
    Closed,
}

impl From<DockerError> for RoundError {
    fn from(error: DockerError) -> Self {
        RoundError::Docker(error)
    }
}

impl From<Closed> for RoundError {
    fn from(_: Closed) -> Self {
        RoundError::Closed
    }
}

/// Follows the containers of one host and reports to the pump.
pub struct Discovery {
    /// Where reports go.
    pub events: mpsc::Sender<Event>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where logs lie when that is not where Docker says, as in a container of our own.
    pub containers_directory: Option<PathBuf>,
}

impl Discovery {
    /// Follows Docker's API until the pump stops.
    pub async fn follow(self, host: DockerHost) {
        let mut backoff = Backoff::default();
        let mut known = HashMap::new();
        let mut since_ns = None;
        loop {
            let failure = match self.round(&host, &mut known, &mut since_ns, &mut backoff).await {
                Ok(()) => "the event stream ended".to_owned(),
                Err(RoundError::Closed) => return,
                Err(RoundError::Docker(error)) => error.to_string(),
            };
            if backoff.failures() == 0 {
                tracing::warn!(%host, failure, "docker does not answer, trying again");
            }
            if self.events.send(Event::Docker { is_healthy: false }).await.is_err() {
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// One connection's life: subscribe, list, reconcile, follow.
    async fn round(
        &self,
        host: &DockerHost,
        known: &mut HashMap<String, Container>,
        since_ns: &mut Option<i64>,
        backoff: &mut Backoff,
    ) -> Result<(), RoundError> {
        let docker = host.client().await?;
        let mut filters = HashMap::new();
        filters.insert("type", vec!["container"]);
        filters.insert("event", vec!["create", "start", "die", "destroy", "rename", "pause", "unpause"]);
        // Nothing tells when a subscription stands, and under load that is after the list. So events are asked for from before
        // the list on: Docker keeps the last 256, and one seen twice costs one inspect.
        let since = since_ns.unwrap_or(now_ns().saturating_sub(EVENTS_BEFORE_NS));
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since_text(since));
        let mut events = std::pin::pin!(docker.events(Some(options.build())));
        {
            let mut listing = std::pin::pin!(self.reconcile(&docker, known));
            loop {
                tokio::select! {
                    result = &mut listing => {
                        result?;
                        break;
                    }
                    event = events.next() => match event {
                        Some(Ok(event)) => note_time(since_ns, &event),
                        Some(Err(error)) => return Err(error.into()),
                        None => return Ok(()),
                    },
                }
            }
        }
        backoff.reset();
        // What the events taken meanwhile said is in no list yet: one more.
        self.reconcile(&docker, known).await?;
        let mut list_at = tokio::time::interval(LIST_EVERY);
        list_at.tick().await;
        loop {
            tokio::select! {
                _ = list_at.tick() => self.reconcile(&docker, known).await?,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        note_time(since_ns, &event);
                        if let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.clone()) {
                            let is_removed = event.action.as_deref() == Some("destroy");
                            self.look_at(&docker, &id, is_removed, known).await?;
                        }
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Lists all containers and reports what is new, changed or gone.
    async fn reconcile(
        &self,
        docker: &Docker,
        known: &mut HashMap<String, Container>,
    ) -> Result<(), RoundError> {
        self.metrics.lists.inc();
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = docker.list_containers(Some(options)).await?;
        let mut ids: Vec<String> = listed.into_iter().filter_map(|summary| summary.id).collect();
        if ids.len() > CONTAINERS_MAX {
            tracing::warn!(
                found = ids.len(),
                limit = CONTAINERS_MAX,
                "too many containers, reading the newest"
            );
            ids.truncate(CONTAINERS_MAX);
        }
        let missing: Vec<String> = known.keys().filter(|id| !ids.contains(id)).cloned().collect();
        for id in ids.iter().chain(&missing) {
            self.look_at(docker, id, false, known).await?;
        }
        self.events.send(Event::Docker { is_healthy: true }).await.map_err(|_| Closed)?;
        Ok(())
    }

    /// Inspects one container and reports it when it changed.
    async fn look_at(
        &self,
        docker: &Docker,
        id: &str,
        is_removed: bool,
        known: &mut HashMap<String, Container>,
    ) -> Result<(), RoundError> {
        let inspected = if is_removed {
            None
        } else {
            match docker.inspect_container(id, None::<InspectContainerOptions>).await {
                Ok(inspected) => Some(inspected),
                Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => None,
                Err(error) => return Err(error.into()),
            }
        };
        let Some(inspected) = inspected else {
            if known.remove(id).is_some() {
                self.send(Event::Removed { id: id.to_owned() }).await?;
            }
            return Ok(());
        };
        let container = placed(describe(inspected), self.containers_directory.as_deref());
        if known.get(id) != Some(&container) {
            known.insert(id.to_owned(), container.clone());
            self.send(Event::Container(Box::new(container))).await?;
        }
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }

    /// Looks through a containers directory, again and again, until the pump stops.
    pub async fn scan(self, directory: PathBuf) {
        let mut known: HashMap<String, Container> = HashMap::new();
        let mut was_healthy = true;
        loop {
            let (path, before) = (directory.clone(), known.clone());
            let scanned = tokio::task::spawn_blocking(move || scan_once(&path, &before)).await;
            let is_healthy = matches!(scanned, Ok(Ok(_)));
            if let Ok(Err(error)) = &scanned
                && was_healthy
            {
                tracing::warn!(%error, directory = %directory.display(), "cannot list the containers directory");
            }
            was_healthy = is_healthy;
            let events = match scanned {
                Ok(Ok(found)) => {
                    self.metrics.lists.inc();
                    let mut events: Vec<Event> = Vec::new();
                    for container in found.values().filter(|found| known.get(&found.id) != Some(found)) {
                        events.push(Event::Container(Box::new(container.clone())));
                    }
                    for id in known.keys().filter(|id| !found.contains_key(*id)) {
                        events.push(Event::Removed { id: id.clone() });
                    }
                    known = found;
                    events
                }
                _ => Vec::new(),
            };
            for event in events.into_iter().chain([Event::Docker { is_healthy }]) {
                if self.send(event).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(SCAN_EVERY.max(Duration::from_millis(1))).await;
        }
    }
}

/// The containers that Docker lists now.
///
/// # Errors
/// When Docker does not answer.
pub(crate) async fn list(
    host: &DockerHost,
    containers_directory: Option<&Path>,
) -> Result<Vec<Container>, bollard::errors::Error> {
    let docker = host.client().await?;
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let listed = docker.list_containers(Some(options)).await?;
    let mut containers = Vec::new();
    for id in listed.into_iter().filter_map(|summary| summary.id).take(CONTAINERS_MAX) {
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(inspected) => containers.push(placed(describe(inspected), containers_directory)),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(containers)
}

/// The containers whose directories are there now.
///
/// # Errors
/// When the directory cannot be listed.
pub(crate) fn list_directory(directory: &Path) -> std::io::Result<Vec<Container>> {
    Ok(scan_once(directory, &HashMap::new())?.into_values().collect())
}

/// Where its log lies as seen from here.
fn placed(mut container: Container, containers_directory: Option<&Path>) -> Container {
    if let Some(directory) = containers_directory
        && container.driver == "json-file"
    {
        container.log_path = Some(log_path(directory, &container.id));
    }
    container
}

/// The containers whose directories are there. A `config.v2.json` that is being written leaves what was known before.
fn scan_once(
    directory: &Path,
    before: &HashMap<String, Container>,
) -> std::io::Result<HashMap<String, Container>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(directory)?.take(CONTAINERS_MAX) {
        let path = entry?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
        match config_file::read(&path.join("config.v2.json")) {
            Ok(container) if container.id == id => {
                let mut container = container;
                container.log_path = Some(log_path(directory, id));
                found.insert(id.to_owned(), container);
            }
            _ => {
                if let Some(container) = before.get(id) {
                    found.insert(id.to_owned(), container.clone());
                }
            }
        }
    }
    Ok(found)
}

/// Where the json-file of a container lies below a containers directory.
pub fn log_path(directory: &Path, id: &str) -> PathBuf {
    directory.join(id).join(format!("{id}-json.log"))
}

fn note_time(since_ns: &mut Option<i64>, event: &EventMessage) {
    if let Some(time_ns) = event.time_nano {
        *since_ns = Some(since_ns.unwrap_or(i64::MIN).max(time_ns));
    }
}

/// What an inspect says, in our words.
fn describe(inspected: ContainerInspectResponse) -> Container {
    let config = inspected.config.unwrap_or_default();
    let state = inspected.state.unwrap_or_default();
    let log = inspected.host_config.and_then(|host| host.log_config).unwrap_or_default();
    let mut labels: Vec<(String, String)> = config.labels.unwrap_or_default().into_iter().collect();
    labels.sort();
    let options = log.config.unwrap_or_default();
    let option = |key| options.get(key).map(String::as_str);
    let started_at = state.started_at.map(|at| at.to_string()).unwrap_or_default();
    Container {
        id: inspected.id.unwrap_or_default(),
        name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        labels,
        has_terminal: config.tty.unwrap_or(false),
        driver: log.typ.unwrap_or_default(),
        log_path: inspected.log_path.filter(|path| !path.is_empty()).map(PathBuf::from),
        retention: Retention::from_options(option("max-size"), option("max-file")),
        is_lossy: option("mode") == Some("non-blocking"),
        is_running: runs_or_will(state.running.unwrap_or(false), &started_at),
        started_at,
    }
}

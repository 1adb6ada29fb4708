//! An agent: made from a configuration and a pollen filter, run until it is told to stop.

use std::sync::{Arc, Mutex};

use beeacon_filters::Engine;
use beeacon_record::AgentId;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::docker::discover::Discovery;
use crate::docker::host::{DockerHost, HostError};
use crate::event::Event;
use crate::filter::{Filter, PollenFilter};
use crate::known::board::KnownBoard;
use crate::limits::EVENTS_MAX;
use crate::metrics::Metrics;
use crate::pollen::Pollen;
use crate::pump::{Pump, PumpError, PumpParts};
use crate::ship::http::{Collector, ShipError};
use crate::spool::{SharedSpool, Spool, SpoolError, SpoolMode};
use crate::state::{self, StateError};
use crate::status::{AgentStatus, Health, StatusBoard};

/// Why an agent cannot start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its id cannot be read or made.
    #[error("get the agent's id")]
    State(#[from] StateError),
    /// The collector cannot be spoken to with this configuration.
    #[error("prepare to ship")]
    Ship(#[from] ShipError),
    /// The spool cannot be opened.
    #[error("open the spool")]
    Spool(#[from] SpoolError),
    /// Docker cannot be spoken to with this configuration.
    #[error("prepare to follow docker")]
    Docker(#[from] HostError),
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// Somebody has taken its place.
    #[error("agent stopped")]
    Pump(#[from] PumpError),
    /// The pump's thread panicked. Nothing was lost: the next start reads on at the collector's positions.
    #[error("the agent's pump panicked")]
    Panicked,
}

/// An agent. Cheap to clone; clones speak of the same one.
#[derive(Clone)]
pub struct Agent {
    config: AgentConfig,
    id: AgentId,
    filter: Arc<dyn Filter>,
    collector: Collector,
    docker: Option<DockerHost>,
    metrics: Metrics,
    health: Arc<Health>,
    board: StatusBoard,
}

impl Agent {
    /// An agent that will run with this configuration and scrub with this engine. `key_version` is that of the engine's key, 0
    /// for none. Makes its id at the first start.
    ///
    /// # Errors
    /// When the configuration names nothing usable, or the data directory cannot be written.
    pub fn new(config: AgentConfig, engine: Arc<Engine>, key_version: u32) -> Result<Self, AgentError> {
        Agent::with_filter(config, Arc::new(PollenFilter::new(engine, key_version)))
    }

    /// The same with all that belongs to a filter: what it knows, and what is scanned again.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn with_pollen(config: AgentConfig, pollen: Pollen, key_version: u32) -> Result<Self, AgentError> {
        let Pollen { engine, known, rescan } = pollen;
        let filter = PollenFilter::new(engine, key_version).with_rescan(rescan);
        Ok(Agent::with_filter(config, Arc::new(filter))?.with_known(known))
    }

    /// The same with any filter, for programs that bring their own.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn with_filter(config: AgentConfig, filter: Arc<dyn Filter>) -> Result<Self, AgentError> {
        let health = Arc::new(Health::default());
        let collector = Collector::new(&config.collector, config.token.as_deref(), config.roots.as_deref())?
            .reporting_to(health.clone());
        let docker = config.docker_host.as_deref().map(DockerHost::parse).transpose()?;
        let id = state::agent_id(&config.data)?;
        Ok(Agent {
            config,
            id,
            filter,
            collector,
            docker,
            metrics: Metrics::default(),
            health,
            board: StatusBoard::default(),
        })
    }

    /// The same, which ships nothing before the known secrets that are required are there.
    #[must_use]
    pub fn with_known(self, known: KnownBoard) -> Self {
        self.health.set_known(known);
        self
    }

    /// Its id.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// Runs until `stop` is cancelled, then ships what it has read and waits for the answer.
    ///
    /// # Errors
    /// When it cannot start, or when another agent works under the same id.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), AgentError> {
        if let Some(known) = self.health.known() {
            tokio::select! {
                () = known.ready() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
        let (reports, events) = mpsc::channel::<Event>(EVENTS_MAX);
        let parts = PumpParts {
            config: self.config.clone(),
            agent: self.id,
            filter: self.filter.clone(),
            collector: self.collector.clone(),
            docker: self.docker.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            board: self.board.clone(),
            spool: self.open_spool().await?,
            runtime: Handle::current(),
            stop: stop.clone(),
        };
        let pump = Pump::new(parts, events, reports.clone()).map_err(AgentError::Thread)?;
        let discovery = Discovery {
            events: reports,
            metrics: self.metrics.clone(),
            containers_directory: self.config.containers_directory.clone(),
        };
        let discovering = match (&self.docker, &self.config.containers_directory) {
            (Some(host), _) => tokio::spawn(discovery.follow(host.clone())),
            (None, Some(directory)) => tokio::spawn(discovery.scan(directory.clone())),
            (None, None) => tokio::spawn(async {}),
        };
        let pumped = tokio::task::spawn_blocking(move || pump.run()).await;
        discovering.abort();
        match pumped {
            Ok(result) => Ok(result?),
            Err(_) => Err(AgentError::Panicked),
        }
    }

    /// Opens the spool, which reads what waits in it.
    async fn open_spool(&self) -> Result<Option<SharedSpool>, AgentError> {
        if self.config.spool.mode == SpoolMode::Off {
            return Ok(None);
        }
        let (config, data, id) = (self.config.spool.clone(), self.config.data.clone(), self.id);
        let opened = tokio::task::spawn_blocking(move || Spool::open(&config, &data, id)).await;
        match opened {
            Ok(spool) => Ok(Some(Arc::new(Mutex::new(spool?)))),
            Err(_) => Err(AgentError::Panicked),
        }
    }

    /// Registers what it counts.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.filter.register(registry);
        if let Some(known) = self.health.known() {
            known.register(registry.sub_registry_with_prefix("beeacon_agent"));
        }
    }

    /// How it is doing; at most a second old.
    pub fn status(&self) -> AgentStatus {
        let mut status = self.board.get();
        status.agent = self.id.to_string();
        status.problems = self.health.problems();
        status.healthy = status.problems.is_empty();
        status.known = self.health.known().map(KnownBoard::status).unwrap_or_default();
        status
    }
}

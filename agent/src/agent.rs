//! An agent: made from a configuration and a pollen filter, run until it is told to stop.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use beeacon_filters::{Continuity, Engine};
use beeacon_record::AgentId;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::docker::discover::Discovery;
use crate::docker::host::{DockerHost, HostError};
use crate::door;
use crate::door::tap::Taps;
use crate::event::{Change, Event};
use crate::files::find::Finder;
use crate::files::plain::FilesShared;
use crate::filter::{Filter, PollenFilter};
use crate::known::board::KnownBoard;
use crate::limits::{EVENTS_MAX, KNOWN_WITHIN};
use crate::metrics::Metrics;
use crate::pollen::{Carried, FilterConfig, Pollen};
use crate::pump::{Pump, PumpError, PumpParts};
use crate::push::doors::{DoorStatus, Doors, DoorsError};
use crate::push::lane::LaneParts;
use crate::reload::{self, ReloadError};
use crate::rescan::Rescan;
use crate::rule_metrics;
use crate::ship::http::{Collector, ShipError, chain};
use crate::ship::level::LevelByLoad;
use crate::spool::{SharedSpool, Spool, SpoolError, SpoolMode};
use crate::state::{self, StateError};
use crate::status::{AgentStatus, Health, ReloadStatus, StatusBoard};

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
    /// A door cannot be opened.
    #[error("open the doors")]
    Doors(#[from] DoorsError),
    /// Sources that cannot be read again are configured, and no spool.
    #[error("take in what cannot be read again: the spool is off")]
    NoSpool,
    /// The pump's thread panicked. Nothing was lost: the next start reads on at the collector's positions.
    #[error("the agent's pump panicked")]
    Panicked,
}

/// An agent. Cheap to clone; clones speak of the same one.
#[derive(Clone)]
pub struct Agent {
    now: Arc<RwLock<Now>>,
    id: AgentId,
    docker: Option<DockerHost>,
    metrics: Metrics,
    health: Arc<Health>,
    board: StatusBoard,
    /// What filters remember of lines, from one to the next.
    continuity: Arc<Mutex<Continuity>>,
    carried: Carried,
    reload: Arc<Mutex<ReloadStatus>>,
    doors: Arc<Mutex<Vec<DoorStatus>>>,
    taps: Taps,
}

/// What a change of the configuration replaces.
struct Now {
    config: AgentConfig,
    filter: Arc<dyn Filter>,
    collector: Collector,
    /// The running pump's ear.
    reports: Option<mpsc::Sender<Event>>,
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
        let rescans = rescan.as_ref().map(Rescan::counts).unwrap_or_default();
        let filter = PollenFilter::new(engine, key_version).with_rescan(rescan);
        let continuity = filter.continuity();
        let carried = Carried { known: known.succeeding(), rescans };
        let agent = Agent::with_filter(config, Arc::new(filter))?.with_known(known);
        Ok(Agent { continuity, carried, ..agent })
    }

    /// The same with any filter, for programs that bring their own.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn with_filter(config: AgentConfig, filter: Arc<dyn Filter>) -> Result<Self, AgentError> {
        let health = Arc::new(Health::default());
        let collector = config.shipper()?.reporting_to(health.clone());
        let docker = config.docker_host.as_deref().map(DockerHost::parse).transpose()?;
        let id = state::agent_id(&config.data, &config.machine_id_file, &config.host)?;
        Ok(Agent {
            now: Arc::new(RwLock::new(Now { config, filter, collector, reports: None })),
            id,
            docker,
            metrics: Metrics::default(),
            health,
            board: StatusBoard::default(),
            continuity: Arc::default(),
            carried: Carried::default(),
            reload: Arc::default(),
            doors: Arc::default(),
            taps: Taps::default(),
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
        let stop = stop.child_token();
        let (reports, events) = mpsc::channel::<Event>(EVENTS_MAX);
        let (config, filter, collector) = {
            let mut now = self.now_mut();
            now.reports = Some(reports.clone());
            (now.config.clone(), now.filter.clone(), now.collector.clone())
        };
        let (spool, wake) = (self.open_spool().await?, Arc::new(Notify::new()));
        let doors = Doors::open(&config.push).await?;
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = doors.status();
        let files = FilesShared::default();
        let parts = PumpParts {
            config: config.clone(),
            agent: self.id,
            filter,
            collector,
            docker: self.docker.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            board: self.board.clone(),
            taps: self.taps.clone(),
            spool: spool.clone(),
            files: files.clone(),
            wake: wake.clone(),
            runtime: Handle::current(),
            stop: stop.clone(),
        };
        let pump = Pump::new(parts, events, reports.clone()).map_err(AgentError::Thread)?;
        let open = match (&spool, config.push.is_any()) {
            (_, false) => None,
            (None, true) => return Err(AgentError::NoSpool),
            (Some(spool), true) => {
                let parts = LaneParts {
                    agent: self.id,
                    epoch: state::next_push_epoch(&config.data)?,
                    host: config.host.clone(),
                    compression_level: LevelByLoad::new(config.compression).level(),
                    filter: Arc::new({
                        let agent = self.clone();
                        move || agent.now().filter.clone()
                    }),
                    spool: spool.clone(),
                    metrics: self.metrics.clone(),
                    health: self.health.clone(),
                    wake,
                    reports: reports.clone(),
                };
                Some(doors.start(parts, &stop)?)
            }
        };
        let finder = match config.files.as_slice() {
            [] => None,
            all => {
                let all = all.iter().cloned().map(Arc::new).collect();
                let finder = Finder::start(all, reports.clone(), files.is_crowded.clone());
                Some(finder.map_err(AgentError::Thread)?)
            }
        };
        let discovery = Discovery {
            events: reports,
            metrics: self.metrics.clone(),
            containers_directory: config.containers_directory.clone(),
        };
        let discovering = match (&self.docker, &config.containers_directory) {
            (Some(host), _) => tokio::spawn(discovery.follow(host.clone())),
            (None, Some(directory)) => tokio::spawn(discovery.scan(directory.clone())),
            (None, None) => {
                // There is nothing to list.
                self.health.set_docker(true);
                tokio::spawn(async {})
            }
        };
        let serving = tokio::spawn(door::serve(self.clone()));
        let pumped = tokio::task::spawn_blocking(move || pump.run()).await;
        discovering.abort();
        serving.abort();
        self.now_mut().reports = None;
        stop.cancel();
        if let Some(finder) = finder {
            // The pump, which took what it found, is gone.
            tokio::task::spawn_blocking(move || finder.stop()).await.ok();
        }
        if let Some(open) = open {
            open.close().await;
        }
        match pumped {
            Ok(result) => Ok(result?),
            Err(_) => Err(AgentError::Panicked),
        }
    }

    /// Opens the spool, which reads what waits in it.
    async fn open_spool(&self) -> Result<Option<SharedSpool>, AgentError> {
        let AgentConfig { spool: config, data, .. } = self.config();
        if config.mode == SpoolMode::Off {
            return Ok(None);
        }
        let id = self.id;
        let opened = tokio::task::spawn_blocking(move || Spool::open(&config, &data, id)).await;
        match opened {
            Ok(spool) => Ok(Some(Arc::new(Mutex::new(spool?)))),
            Err(_) => Err(AgentError::Panicked),
        }
    }

    /// Where scrubbed lines can be looked at as they pass.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    fn now(&self) -> RwLockReadGuard<'_, Now> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_mut(&self) -> RwLockWriteGuard<'_, Now> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pollen filter's engine that is in use now, where it has one.
    pub fn engine(&self) -> Option<Arc<Engine>> {
        self.now().filter.engine()
    }

    /// The configuration in use.
    pub fn config(&self) -> AgentConfig {
        self.now().config.clone()
    }

    /// Uses another configuration from now on; no line is lost and none is stored twice. With any fault of it the one before stays,
    /// and log and status say what is wrong.
    ///
    /// # Errors
    /// With every fault found.
    pub async fn change(&self, config: AgentConfig, filter: FilterConfig) -> Result<(), ReloadError> {
        let outcome = self.try_change(config, filter).await;
        self.note_reload(outcome.as_ref().err().map(|error| chain(error)));
        outcome
    }

    /// Says how a change went: with its faults when it was refused.
    pub(crate) fn note_reload(&self, faults: Option<String>) {
        let mut status = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        match &faults {
            None => {
                tracing::info!("another configuration is in use");
                self.metrics.reloads.inc();
                status.taken += 1;
            }
            Some(faults) => {
                tracing::error!(faults, "the changed configuration is refused, the one before stays");
                self.metrics.refused_reloads.inc();
                status.refused += 1;
            }
        }
        status.faults = faults.unwrap_or_default();
    }

    async fn try_change(&self, config: AgentConfig, filter: FilterConfig) -> Result<(), ReloadError> {
        let (before, carried) = (self.config(), self.carried.clone());
        let mut faults = reload::faults(&before, &config);
        faults.extend(filter.label_faults(&config.labels));
        if !faults.is_empty() {
            return Err(ReloadError::Faults(faults));
        }
        let collector = config.shipper()?.reporting_to(self.health.clone());
        let key_version = filter.key_version;
        let carried = Carried { known: carried.known.succeeding(), ..carried };
        // Compiling rules takes a while, and lines go on meanwhile.
        let data = before.data;
        let made = tokio::task::spawn_blocking(move || filter.engine_counting(&data, carried)).await;
        let Pollen { engine, known, rescan } = made.map_err(|_| ReloadError::Panicked)??;
        if tokio::time::timeout(KNOWN_WITHIN, known.ready()).await.is_err() {
            return Err(ReloadError::Known(known.problems()));
        }
        let filter: Arc<dyn Filter> = Arc::new(
            PollenFilter::new(engine, key_version)
                .with_rescan(rescan)
                .with_continuity(self.continuity.clone()),
        );
        let reports = {
            let mut now = self.now_mut();
            (now.config, now.filter, now.collector) = (config.clone(), filter.clone(), collector.clone());
            now.reports.clone()
        };
        self.health.set_known(known);
        if let Some(reports) = reports {
            // Nobody listens when the agent has just stopped; its next start uses what is set by now.
            reports.send(Event::Change(Box::new(Change { config, filter, collector }))).await.ok();
        }
        Ok(())
    }

    /// Registers what it counts.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        let now = self.now.clone();
        let engine = move || now.read().unwrap_or_else(PoisonError::into_inner).filter.engine();
        rule_metrics::register(Arc::new(engine), registry);
        self.carried.rescans.register(registry);
        if let Some(known) = self.health.known() {
            known.register(registry.sub_registry_with_prefix("beeacon_agent"));
        }
    }

    /// How it is doing; at most a second old.
    pub fn status(&self) -> AgentStatus {
        let mut status = self.board.get();
        status.agent = self.id.to_string();
        status.doors.clone_from(&self.doors.lock().unwrap_or_else(PoisonError::into_inner));
        status.problems = self.health.problems();
        status.healthy = status.problems.is_empty();
        status.known = self.health.known().map(|known| known.status()).unwrap_or_default();
        status.reload = self.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status
    }
}

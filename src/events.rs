//! Events in the server: the events room put between what happens and those who want to know.
//!
//! Each source of events has a task of its own, with a place of its own in what it reads: the journal (through [`crate::alerts`]' way
//! along it), the ledger of alerts, the audit trail, the state of health. Place and events are written in one step.

mod counted;
mod dashboards;
pub(crate) mod http;
mod limits;
mod metrics;
mod seen;
mod settings;
mod shared;
pub(crate) mod table;
mod watched;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use beeacon_access::{Audit, Heard, Redis, Routes};
use beeacon_alerts::runner::Handle;
use beeacon_events::{Event, EventLog, LogError, Maker, RuleKind, Step, Tally};
use beeacon_filters::Severity;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub(crate) use self::dashboards::{Dashboards, note as note_dashboard};
use self::limits::{FORGET_EVERY, STREAMS_MAX, WRITE_AGAIN_AFTER};
pub(crate) use self::watched::Health;
use crate::doors;

/// What the section `events` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventsConfig {
    /// Where the log lies.
    pub(crate) log: PathBuf,
    /// How many events it keeps.
    pub(crate) kept_max: u64,
    /// How long it keeps them.
    pub(crate) kept_for: Duration,
}

/// A rule of the pollen filter: its category and its severity.
struct Kind {
    category: String,
    severity: &'static str,
}

/// The log of events and what is counted for it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(Arc<Inner>);

struct Inner {
    log: EventLog,
    maker: Maker,
    config: EventsConfig,
    kinds: BTreeMap<String, Kind>,
    tally: Mutex<Tally>,
    /// What was taken from the tally and is not written yet.
    unwritten: tokio::sync::Mutex<Option<(Step, u64)>>,
    /// The last record of the journal whose findings are written.
    place: watch::Sender<Option<u64>>,
    dashboards: Dashboards,
    /// One for each stream of server-sent events that may be open.
    streams: Arc<Semaphore>,
    heard: Heard,
    written: Family<Vec<(&'static str, &'static str)>, Counter>,
    slow_streams: Counter,
    /// What other servers sent that is no event.
    refused: Counter,
    /// Events of ours that were too old to be published when Redis was there again.
    unpublished: Counter,
    failures: Counter,
    is_failing: AtomicBool,
    /// The number of events kept, as of the last look.
    kept: AtomicU64,
}

/// What events are made from, beside the journal.
pub(crate) struct Sources {
    pub(crate) alerts: Handle,
    pub(crate) audit: Audit,
    pub(crate) routes: Routes,
    pub(crate) health: Health,
    pub(crate) redis: Option<Redis>,
}

impl Events {
    /// Opens the log. `audit` is the trail whose lines become events from now on.
    ///
    /// # Errors
    /// When the log cannot be opened, or the rules of the filter cannot be read.
    pub(crate) async fn open(config: EventsConfig, audit: &Audit) -> anyhow::Result<Events> {
        let shown = config.log.display().to_string();
        let opened = async {
            let log = EventLog::open(&config.log).await?;
            let place = log.kept(counted::PLACE).await?.and_then(|place| place.parse().ok());
            Ok::<_, LogError>((log, place))
        };
        let (log, place) = opened.await.with_context(|| format!("open the log of events in {shown}"))?;
        let maker = Maker::new(log.server().to_owned(), env!("CARGO_PKG_VERSION"));
        let rules = beeacon_filters::library::rules().context("read the rules of the filter")?;
        let kind = |rule: &beeacon_filters::Rule| {
            let kind = Kind { category: rule.category().to_owned(), severity: severity(rule.severity()) };
            (rule.id().to_owned(), kind)
        };
        let events = Events(Arc::new(Inner {
            log,
            maker,
            config,
            kinds: rules.iter().map(kind).collect(),
            tally: Mutex::new(Tally::behind(place)),
            unwritten: tokio::sync::Mutex::new(None),
            place: watch::Sender::new(place),
            dashboards: Dashboards::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            heard: Heard::default(),
            written: Family::default(),
            slow_streams: Counter::default(),
            refused: Counter::default(),
            unpublished: Counter::default(),
            failures: Counter::default(),
            is_failing: AtomicBool::new(false),
            kept: AtomicU64::new(0),
        }));
        events.begin(audit).await.with_context(|| format!("begin with the log of events in {shown}"))?;
        Ok(events)
    }

    /// Writes down where a new log begins in what is not told from its beginning.
    async fn begin(&self, audit: &Audit) -> anyhow::Result<()> {
        let mut step = Step::default();
        if self.0.log.kept(seen::AUDIT_PLACE).await?.is_none() {
            step.kept.push((seen::AUDIT_PLACE.to_owned(), Some(audit.end()?.to_string())));
        }
        if self.0.log.kept(shared::PUBLISHED).await?.is_none() {
            let last = *self.0.log.last().borrow();
            step.kept.push((shared::PUBLISHED.to_owned(), Some(last.to_string())));
        }
        if !step.kept.is_empty() {
            self.write(&step).await?;
        }
        Ok(())
    }

    /// Adds the metrics, all named `beeacon_events…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let inner = &self.0;
        for (name, help, counter) in [
            (
                "slow_streams",
                "Streams of server-sent events that were closed because nobody read them",
                &inner.slow_streams,
            ),
            (
                "refused",
                "Messages on the channels of events that were no events, or were not written",
                &inner.refused,
            ),
            (
                "unpublished",
                "Events that were too old to be published when Redis was there again",
                &inner.unpublished,
            ),
            ("failures", "Attempts to write events that failed and were made again", &inner.failures),
        ] {
            registry.register(format!("beeacon_events_{name}"), help, counter.clone());
        }
        registry.register(
            "beeacon_events_written",
            "Events written into the log, by type",
            inner.written.clone(),
        );
        registry.register_collector(Box::new(metrics::Shown::new(self.clone())));
    }

    pub(crate) fn dashboards(&self) -> &Dashboards {
        &self.0.dashboards
    }

    fn kind_of(&self, rule: &str) -> Option<RuleKind<'_>> {
        let kind = self.0.kinds.get(rule)?;
        Some(RuleKind { category: &kind.category, severity: kind.severity })
    }

    /// Writes a step, once.
    async fn write(&self, step: &Step) -> Result<(), LogError> {
        match self.0.log.append(step, Timestamp::now()).await {
            Ok(types) => {
                for kind in types {
                    self.0.written.get_or_create(&vec![("type", kind.name())]).inc();
                }
                if self.0.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("events are written again");
                }
                Ok(())
            }
            Err(error) => {
                self.0.failures.inc();
                if !self.0.is_failing.swap(true, Ordering::Relaxed) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "events cannot be written: it is tried again");
                }
                Err(error)
            }
        }
    }

    /// Writes a step as often as it needs; false when it was told to stop before it could.
    async fn write_until(&self, step: &Step, stop: &mut watch::Receiver<bool>) -> bool {
        while self.write(step).await.is_err() {
            tokio::select! {
                () = doors::until_stopped(stop) => return false,
                () = tokio::time::sleep(WRITE_AGAIN_AFTER) => {}
            }
        }
        true
    }

    /// Makes events until told to stop. What has happened then and is not written is written at the next start.
    pub(crate) async fn run(self, sources: Sources, stop: watch::Receiver<bool>) {
        let Sources { alerts, audit, routes, health, redis } = sources;
        let mut tasks = JoinSet::new();
        tasks.spawn(seen::follow(self.clone(), seen::Changes::new(alerts), stop.clone()));
        tasks.spawn(seen::follow(self.clone(), seen::Trail::new(audit, routes), stop.clone()));
        tasks.spawn(watched::run(self.clone(), health, stop.clone()));
        tasks.spawn(dashboards::run(self.clone(), stop.clone()));
        tasks.spawn(counted::run(self.clone(), stop.clone()));
        tasks.spawn(forget(self.clone(), stop.clone()));
        if let Some(redis) = redis {
            tasks.spawn(shared::publish(self.clone(), redis.clone(), stop.clone()));
            tasks.spawn(shared::hear(self.clone(), redis, stop));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(is_panic = error.is_panic(), "a task of events ended badly");
            }
        }
    }

    /// Closes the log; its last findings are written first if they can be.
    pub(crate) async fn close(&self) {
        self.flush().await;
        self.0.log.close().await;
    }
}

/// A rule's severity as events spell it.
pub(crate) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

/// A step of one event and nothing else.
fn only(event: Event) -> Step {
    Step { events: vec![event], kept: Vec::new() }
}

/// Drops what is old, now and then.
async fn forget(events: Events, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = every.tick() => {}
        }
        let EventsConfig { kept_max, kept_for, .. } = events.0.config;
        match events.0.log.forget(Timestamp::now(), kept_max, kept_for).await {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old events are not dropped");
            }
        }
        if let Ok((_, kept)) = events.0.log.extent().await {
            events.0.kept.store(kept, Ordering::Relaxed);
        }
    }
}

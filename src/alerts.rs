//! Alerts in the server: the alerts room put between journal, SQL and HTTP.
//!
//! The room asks SQL through the query room, as any user would, with a time limit of its own; lines come from the journal
//! through a follower, behind every acknowledgement; tables, metrics and doors show what it knows.

mod feed;
pub(crate) mod files;
pub(crate) mod http;
mod metrics;
mod settings;
pub(crate) mod sql;
pub(crate) mod tables;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use beeacon_access::Redis;
use beeacon_alerts::Labels;
use beeacon_alerts::deliver::retry::Retry;
use beeacon_alerts::deliver::send::Sender;
use beeacon_alerts::ledger::Ledger;
use beeacon_alerts::outbound::Policy;
use beeacon_alerts::runner::{Handle, Runner, RunnerOptions, SystemClock, TakeTurns};
use beeacon_collector::Collector;
use beeacon_query::Query;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::alerts::files::Files;
use crate::doors;
use crate::events::Events;

/// The name under which alerts follow the journal.
pub(crate) const FOLLOWER: &str = "alerts";

/// What the section `alerts` says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AlertsConfig {
    /// Where the ledger lies.
    pub(crate) ledger: PathBuf,
    /// Where rules and receivers are read from.
    pub(crate) files: Files,
    /// How messages name this server; by its address when it is not said.
    pub(crate) external_url: Option<String>,
    /// What templates see as this server's labels.
    pub(crate) labels: Vec<(String, String)>,
    /// How long a rule's query may take.
    pub(crate) evaluation_time_max: Duration,
    /// Whether servers on one Redis take turns at evaluating rules over SQL.
    pub(crate) turns: bool,
    /// Where messages may go.
    pub(crate) outbound: Policy,
    /// The certificates that receivers are trusted by.
    pub(crate) certificates: Option<PathBuf>,
}

/// Alerts, opened and not running yet.
pub(crate) struct Alerts {
    runner: Runner,
    handle: Handle,
    files: Files,
    /// What the files looked like before they were read.
    looked: files::Look,
}

impl Alerts {
    /// Opens the ledger and reads rules and receivers. `url` is where this server is reached; turns are taken over `redis`.
    ///
    /// # Errors
    /// With every fault of the files, and when the ledger cannot be opened.
    pub(crate) async fn open(
        config: AlertsConfig,
        query: Query,
        url: &str,
        redis: Option<Redis>,
    ) -> anyhow::Result<Alerts> {
        let looked = config.files.look();
        let (rules, receivers) = config.files.read()?;
        let external_url = config.external_url.as_deref().unwrap_or(url).trim_end_matches('/').to_owned();
        let ledger = Ledger::open(&config.ledger)
            .await
            .with_context(|| format!("open the ledger of alerts in {}", config.ledger.display()))?;
        let sender = Sender::new(config.outbound, config.certificates.as_deref(), &external_url)
            .context("make the delivery of alerts ready")?;
        let options = RunnerOptions {
            rules,
            config: receivers,
            external_labels: config.labels.into_iter().collect::<Labels>(),
            external_url,
            retry: Retry::default(),
            turns: redis
                .filter(|_| config.turns)
                .map(|redis| Arc::new(turns::Turns(redis)) as Arc<dyn TakeTurns>),
        };
        let sql = Arc::new(sql::Sql { query, time_max: config.evaluation_time_max });
        let (runner, handle) = Runner::new(options, ledger, sender, sql, Arc::new(SystemClock))
            .await
            .context("read the ledger of alerts")?;
        Ok(Alerts { runner, handle, files: config.files, looked })
    }

    /// What the doors, tables and metrics need.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Adds the metrics, all named `beeacon_alerts…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(metrics::Shown::new(self.handle.clone())));
    }

    /// Evaluates and delivers until told to stop.
    pub(crate) async fn run(self, collector: Collector, events: Events, stop: watch::Receiver<bool>) {
        let feeding = tokio::spawn(feed::run(collector, self.handle.clone(), events, stop.clone()));
        let following = tokio::spawn(files::follow(self.files, self.looked, self.handle, stop.clone()));
        let mut told = stop.clone();
        self.runner.run(stop).await;
        doors::until_stopped(&mut told).await;
        for task in [feeding, following] {
            if let Err(error) = task.await {
                tracing::error!(is_panic = error.is_panic(), "a task of alerting ended badly");
            }
        }
    }
}

//! The world of one test: a store of its own with what the test brought in, and queries over it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use beeacon_alerts::Sample;
use beeacon_alerts::runner::AskSql;
use beeacon_alerts::stream::StreamLine;
use beeacon_alerts::unit_test::{InputGap, InputLine, News, World};
use beeacon_collector::FollowedRows;
use beeacon_filters::Engine;
use beeacon_query::relation::Relation;
use beeacon_query::{Query, QueryOptions};
use beeacon_record::{
    AgentId, Batch, BatchBuilder, GapReason, Interval, Level, Line, Origin, Position, Scrubbed, Source,
    Stream,
};
use beeacon_store::{Commit, GapRow, Store, StoreOptions};
use jiff::Timestamp;

use crate::alerts::sql::Sql;
use crate::alerts::tables;
use crate::events::table::Table;
use crate::relations::{AgentRow, Agents, FilterRules, MetricRow, Metrics};
use crate::server::TENANT;

/// How long a rule's query may take in a test.
const QUERY_TIME_MAX: Duration = Duration::from_secs(30);

/// The agent that all lines of tests come from.
const AGENT: AgentId = AgentId::from_bytes([0x11; 16]);

/// What has a level now.
#[derive(Clone, Debug, Default)]
struct Levels {
    metrics: Vec<MetricRow>,
    agents: Vec<AgentRow>,
}

/// A test's own store and query room.
pub(super) struct Room {
    directory: PathBuf,
    store: Store,
    sql: Sql,
    filter: Arc<Engine>,
    levels: Arc<Mutex<Levels>>,
    /// The last record and, in the one source there is, the last position.
    lsn: u64,
    position: u64,
    seen: Option<FollowedRows>,
}

impl Room {
    /// An empty world.
    pub(super) async fn open(filter: Arc<Engine>) -> anyhow::Result<Room> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("beeacon-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut options = StoreOptions::new(&directory);
        // Nothing is written to files: a test has few lines.
        options.flush_age = Duration::from_secs(24 * 3600);
        let store = Store::open(options).await.context("open a store for the test")?;
        let levels = Arc::<Mutex<Levels>>::default();
        let (of_metrics, of_agents) = (levels.clone(), levels.clone());
        // Every table that rules can ask in a server. Of alerts and events a test brings none in.
        let mut relations: Vec<Arc<dyn Relation>> = vec![
            Arc::new(Metrics::new(move || locked(&of_metrics).metrics.clone())),
            Arc::new(Agents::new(move || locked(&of_agents).agents.clone())),
            Arc::new(Table(None)),
            Arc::new(FilterRules),
        ];
        relations.extend(tables::all(None));
        let options = QueryOptions { relations, ..QueryOptions::default() };
        let query = Query::new(store.clone(), options).context("open the query room for the test")?;
        let sql = Sql { query, time_max: QUERY_TIME_MAX };
        Ok(Room { directory, store, sql, filter, levels, lsn: 0, position: 0, seen: None })
    }

    /// Drops everything.
    pub(super) async fn close(self) {
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store of a test did not close");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), error = %error.kind(), "is left behind");
        }
    }

    /// The lines as the agent would ship them.
    fn batch(&mut self, lines: &[(Timestamp, &InputLine)]) -> Result<Scrubbed<Batch>, String> {
        let mut builder = BatchBuilder::new(AGENT.to_string());
        let mut sources: BTreeMap<String, (Source, Position)> = BTreeMap::new();
        for (at, line) in lines {
            self.position += 1;
            let name = format!("test:{}:{}", line.host, line.container);
            let source = Source::new(name.clone()).map_err(|error| error.to_string())?;
            let position = Position::new(1, self.position);
            sources.entry(name).or_insert_with(|| (source.clone(), position));
            let origin = Origin {
                host: line.host.clone(),
                service: line.service.clone(),
                container: line.container.clone(),
                ..Origin::default()
            };
            let level = match &line.level {
                None => beeacon_agent::level::detect(line.message.as_bytes()),
                Some(name) => {
                    Level::ALL.into_iter().find(|level| level.as_str() == name).ok_or_else(|| {
                        format!("there is no level {name}: {}", names(&Level::ALL.map(Level::as_str)))
                    })?
                }
            };
            let timestamp_ns = nanoseconds(*at);
            let origin = builder.origin(&origin, &source);
            builder.push(
                Line {
                    origin,
                    timestamp_ns,
                    observed_timestamp_ns: timestamp_ns,
                    stream: Stream::Stdout,
                    level,
                    position,
                },
                line.message.as_bytes(),
            );
        }
        let end = Position::new(1, self.position + 1);
        let intervals =
            sources.into_values().map(|(source, from)| Interval::new(source, from, end)).collect();
        let batch = builder.finish(intervals).map_err(|error| error.to_string())?;
        let (scrubbed, _) = self.filter.scrub(batch).map_err(|error| error.to_string())?;
        Ok(scrubbed)
    }
}

/// Says whether queries fit the tables that there are, in a world without rows.
pub(crate) struct Planner(Room);

impl Planner {
    pub(crate) async fn open() -> anyhow::Result<Planner> {
        let filter = beeacon_agent::pollen::FilterConfig::default();
        Ok(Planner(Room::open(filter.engine_to_try().context("make the pollen filter ready")?).await?))
    }

    /// Runs a query, and looks for its column `value`.
    pub(crate) async fn plan(&self, sql: &str) -> Result<(), String> {
        // The line end keeps a comment at the query's end from going on.
        let sql = format!("SELECT CAST(value AS DOUBLE) AS value FROM ({sql}\n) AS rule");
        self.0.sql.ask(&sql, usize::MAX).await.map(|_| ()).map_err(|error| error.text)
    }

    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

impl World for Room {
    async fn advance(&mut self, news: News<'_>) -> Result<(), String> {
        {
            let mut levels = locked(&self.levels);
            levels.metrics = news
                .metrics
                .iter()
                .map(|(name, labels, value)| MetricRow {
                    name: (*name).to_owned(),
                    labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                    value: *value,
                })
                .collect();
            levels.agents = news
                .agents
                .iter()
                .map(|(host, last_seen)| AgentRow {
                    agent: AGENT.to_string(),
                    host: (*host).to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    sources: 1,
                    last_seen_ns: nanoseconds(*last_seen),
                })
                .collect();
        }
        self.seen = None;
        if news.lines.is_empty() && news.gaps.is_empty() {
            return Ok(());
        }
        self.lsn += 1;
        let mut commit = Commit::new(self.lsn, TENANT, nanoseconds(news.now));
        if !news.lines.is_empty() {
            let batch = self.batch(&news.lines)?;
            self.seen = Some(FollowedRows::all(batch.clone()));
            commit.batch = Some(batch);
        }
        commit.gaps = news.gaps.iter().map(|(at, gap)| gap_row(*at, gap)).collect::<Result<_, _>>()?;
        self.store.publish(commit).await.map_err(|error| error.to_string())
    }

    fn seen(&self, see: &mut dyn FnMut(StreamLine<'_>)) {
        let Some(rows) = &self.seen else { return };
        rows.visit(&mut |rows| {
            for row in rows {
                see(StreamLine {
                    service: row.service,
                    level: row.level,
                    message: row.message,
                    redactions: row.redactions,
                });
            }
        });
    }

    async fn ask(&mut self, sql: &str, rows_max: usize) -> Result<Vec<Sample>, String> {
        self.sql.ask(sql, rows_max).await.map_err(|error| error.text)
    }
}

fn gap_row(at: Timestamp, gap: &InputGap) -> Result<GapRow, String> {
    let reasons = GapReason::ALL.map(GapReason::as_str);
    let reason = GapReason::ALL.into_iter().find(|reason| reason.as_str() == gap.reason);
    let reason = reason.ok_or_else(|| format!("there is no reason {}: {}", gap.reason, names(&reasons)))?;
    Ok(GapRow {
        tenant: TENANT.to_owned(),
        agent: AGENT,
        source: Source::new(format!("test:{}", gap.service)).map_err(|error| error.to_string())?,
        host: "host-1".to_owned(),
        service: gap.service.clone(),
        container: gap.service.clone(),
        container_id: String::new(),
        from: Position::new(1, 0),
        to: Position::new(1, gap.bytes),
        reason,
        bytes: gap.bytes,
        timestamp_before_ns: 0,
        timestamp_after_ns: 0,
        received_ns: nanoseconds(at),
    })
}

fn names(names: &[&str]) -> String {
    names.join(", ")
}

/// The times of tests lie in 2026 and, at most, a week of minutes later.
fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

fn locked(levels: &Mutex<Levels>) -> std::sync::MutexGuard<'_, Levels> {
    levels.lock().unwrap_or_else(PoisonError::into_inner)
}

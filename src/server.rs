//! Collector, store and query as one process: opened in the order in which they need each other, closed in the other one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use beeacon_access::{Audit, Gate, GateOptions, Limiter};
use beeacon_collector::{Collector, LokiOptions};
use beeacon_query::{OnLogin, Postgres, PostgresOptions, Query};
use beeacon_settings::Setting;
use beeacon_store::Store;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::alerts::{self, Alerts};
use crate::config::ServerConfig;
use crate::doors::{self, Readiness};
use crate::events::{self, Events, Health, Sources, note_dashboard};
use crate::openapi;
use crate::relations::{Agents, Disk, FilterRules, Metrics};
use crate::routes::routes;
use crate::status::{self, Status};
use crate::tls::{self, Tls};
use crate::tokens;

/// The tenant of everything while there is one.
pub(crate) const TENANT: &str = "default";

/// What an agent in the same process adds to health, status and metrics.
pub(crate) trait Companion: Send + Sync {
    fn is_ready(&self) -> bool;
    fn status(&self) -> serde_json::Value;
    fn pollen_filter(&self) -> serde_json::Value;
}

/// The opened rooms, and the socket that will serve them.
pub(crate) struct Server {
    store: Store,
    collector: Collector,
    query: Query,
    listener: TcpListener,
    postgres: Option<(Postgres, TcpListener)>,
    alerts: Alerts,
    events: Events,
    tls: Option<Tls>,
    gate: Gate,
    grafana: Option<String>,
    loki: Option<LokiOptions>,
    settings: Vec<Setting>,
    started: Instant,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

impl Server {
    /// Opens the store, replays the journal into it, and binds the socket; nothing is served yet.
    pub(crate) async fn open(mut config: ServerConfig) -> anyhow::Result<Self> {
        let (alert_tables, event_table) =
            (alerts::tables::Source::default(), events::table::Source::default());
        config.query.relations.extend(alerts::tables::all(Some(&alert_tables)));
        config.query.relations.push(Arc::new(events::table::Table(Some(event_table.clone()))));
        config.collector.followers.push(alerts::FOLLOWER.to_owned());
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listen on {} (is another Beeacon running?)", config.listen))?;
        let postgres = match config.postgres {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!(
                    "listen on {address} for PostgreSQL clients (postgres.listen = \"none\" turns it off)"
                )
            })?),
        };
        let (access, loki) = (config.access, config.collector.loki.clone());
        let directory = config.store.directory.clone();
        let store = Store::open(config.store).await.context("open the store")?;
        let collector =
            Collector::open(config.collector, store.clone()).await.context("open the collector")?;
        let registry = Arc::new(Mutex::new(Registry::default()));
        config.query.relations.push(Arc::new(Metrics::of(registry.clone())));
        config.query.relations.push(Arc::new(Agents::of(collector.clone())));
        config.query.relations.push(Arc::new(FilterRules));
        let query = Query::new(store.clone(), config.query).context("open the query room")?;
        let url = url_of(config.tls.is_some(), listener.local_addr().context("look up the address")?);
        let alerts = Alerts::open(config.alerts, query.clone(), &url, access.redis.clone())
            .await
            .context("make alerts ready")?;
        alert_tables.set(alerts.handle()).ok();
        let audit =
            Audit::open(&access.audit_directory, access.audit_bytes_max).context("open the audit file")?;
        let events = Events::open(config.events, &audit).await.context("make events ready")?;
        event_table.set(events.clone()).ok();
        {
            let mut registry = locked(&registry);
            register_build(&mut registry);
            registry.register_collector(Box::new(Disk::new(directory)));
            store.register(&mut registry);
            collector.register(&mut registry);
            query.register(&mut registry);
            alerts.register(&mut registry);
            events.register(&mut registry);
        }
        let postgres = match postgres {
            None => None,
            Some(listener) => {
                let (token, logins) = (config.token, access.logins);
                let tls = tls.as_ref().map(|tls| tls.postgres.clone());
                let events = events.clone();
                let on_login: OnLogin = Arc::new(move |visit| events.dashboards().came_in(&visit));
                let on_login = Some(on_login);
                let options = PostgresOptions { tenant: TENANT.to_owned(), token, logins, tls, on_login };
                let door = Postgres::new(query.clone(), options).context("make the PostgreSQL door ready")?;
                Some((door, listener))
            }
        };
        let gate = Gate::new(GateOptions {
            routes: routes(),
            tokens: access.tokens,
            audit,
            limiter: Arc::new(Limiter::new(access.requests_per_minute, access.redis)),
        });
        gate.register(&mut locked(&registry));
        if gate.is_open() {
            tracing::warn!(
                listen = %config.listen,
                "no token is configured: every program of this host may do everything here (\"beeacon token new\" makes one)"
            );
        }
        let (grafana, settings) = (config.grafana, config.settings);
        Ok(Server {
            store,
            collector,
            query,
            listener,
            postgres,
            alerts,
            events,
            tls,
            gate,
            grafana,
            loki,
            settings,
            started: Instant::now(),
            registry,
        })
    }

    /// Where HTTP is served.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where clients of PostgreSQL are served, if they are.
    pub(crate) fn postgres_address(&self) -> Option<SocketAddr> {
        self.postgres.as_ref().and_then(|(_, listener)| listener.local_addr().ok())
    }

    /// The URL under which this process reaches itself.
    pub(crate) fn url(&self) -> io::Result<String> {
        Ok(url_of(self.tls.is_some(), self.address()?))
    }

    /// Serves until asked to stop, then closes the rooms; fresh rows are written before it returns.
    pub(crate) async fn run(
        self,
        companion: Option<Arc<dyn Companion>>,
        tokens: Option<tokens::Source>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        // When the consumers end, however they end, nothing more may be taken in.
        let (halt, halted) = watch::channel(false);
        let status = self.status(companion.clone());
        let router = self.router(companion, halted.clone());
        let limiter = self.gate.limiter().clone();
        let redis = limiter.redis().cloned().map(|redis| tokio::spawn(redis.keep(limiter)));
        let sources = Sources {
            alerts: self.alerts.handle(),
            audit: self.gate.audit_trail().clone(),
            routes: self.gate.routes().clone(),
            health: Health {
                failing: Arc::new(move || status::failing(&status)),
                agents: {
                    let collector = self.collector.clone();
                    Arc::new(move || collector.status().agents)
                },
            },
            redis: self.gate.limiter().redis().cloned(),
        };
        let consumers = tokio::spawn({
            let (collector, mut stop) = (self.collector.clone(), stop);
            async move {
                let ended = collector.run(async move { doors::until_stopped(&mut stop).await }).await;
                halt.send_replace(true);
                ended
            }
        });
        let alerting =
            tokio::spawn(self.alerts.run(self.collector.clone(), self.events.clone(), halted.clone()));
        let telling = tokio::spawn(self.events.clone().run(sources, halted.clone()));
        let door = self.postgres.as_ref().map(|(door, _)| door.clone());
        let following = tokens
            .map(|source| tokio::spawn(tokens::follow(source, self.gate.clone(), door, halted.clone())));
        let postgres = self.postgres.map(|(door, listener)| {
            let halted = halted.clone();
            tokio::spawn(async move { door.serve(listener, halted).await })
        });
        let tls = self.tls.as_ref().map(|tls| tls.http.clone());
        let keeping = self.tls.as_ref().map(|tls| tokio::spawn(tls.keep()));
        let served = doors::serve(self.listener, tls, router, halted).await;
        if let Some(keeping) = keeping {
            keeping.abort();
        }
        if let Some(redis) = redis {
            redis.abort();
        }
        if let Some(postgres) = postgres {
            postgres.await.context("the PostgreSQL door ended badly")?;
        }
        if let Some(following) = following {
            following.await.context("following the tokens ended badly")?;
        }
        // What is journalled and not counted yet is counted at the next start.
        alerting.await.context("alerting ended badly")?;
        telling.await.context("the tasks of events ended badly")?;
        self.events.close().await;
        consumers.await.context("the collector's consumers ended badly")??;
        self.collector.close().await.context("close the collector")?;
        self.store.close().await.context("close the store")?;
        served.context("serve HTTP")
    }

    /// What the paths below `/api/beeacon/` show.
    fn status(&self, companion: Option<Arc<dyn Companion>>) -> Arc<Status> {
        Arc::new(Status {
            started: self.started,
            collector: self.collector.clone(),
            store: self.store.clone(),
            query: self.query.clone(),
            companion,
            gate: self.gate.clone(),
            grafana: self.grafana.clone(),
            loki: self.loki.clone(),
            settings: self.settings.clone(),
        })
    }

    /// All doors, behind the gate. Answers without an end have one when it is halted.
    fn router(&self, companion: Option<Arc<dyn Companion>>, halted: watch::Receiver<bool>) -> Router {
        let state = self.status(companion.clone());
        let query = self.query.router().layer(from_fn_with_state(self.events.clone(), note_dashboard));
        let mut agents = self.collector.router();
        if self.tls.as_ref().is_some_and(|tls| tls.is_shown) {
            agents = agents.layer(axum::middleware::from_fn(tls::certificate_shown));
        }
        let rooms = agents.merge(query);
        let rooms = rooms.merge(alerts::http::router(self.alerts.handle()));
        let rooms = rooms.merge(events::http::router(self.events.clone(), self.gate.clone(), halted));
        let rooms = rooms.merge(status::router(state)).merge(openapi::router(self.gate.routes()));
        doors::router(rooms, self.readiness(companion), self.registry.clone(), &self.gate)
    }

    fn readiness(&self, companion: Option<Arc<dyn Companion>>) -> Readiness {
        let (store, collector) = (self.store.clone(), self.collector.clone());
        Arc::new(move || {
            let mut parts = vec![("store", store.has_room()), ("collector", collector.is_ready())];
            parts.extend(companion.as_ref().map(|companion| ("agent", companion.is_ready())));
            parts
        })
    }
}

fn url_of(is_tls: bool, address: SocketAddr) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{address}")
}

fn register_build(registry: &mut Registry) {
    let info = Family::<Vec<(String, String)>, Gauge>::default();
    info.get_or_create(&vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("beeacon_build_info", "The version of this program, as a label.", info);
}

/// The lock of the registry, whoever panicked while holding it.
pub(crate) fn locked(registry: &Mutex<Registry>) -> std::sync::MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use beeacon_settings::Document;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::command_line::ListenArguments;

    async fn router(folder: &std::path::Path) -> Router {
        let listen = ListenArguments {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            postgres: Some("none".to_owned()),
            ..ListenArguments::default()
        };
        let config = crate::config::resolve(Document::empty(), Some(folder), &listen).unwrap();
        let (_, halted) = watch::channel(false);
        Server::open(config.server).await.unwrap().router(None, halted)
    }

    /// The paths of a router, which it shows only to those who debug it.
    fn paths(router: &Router) -> BTreeSet<String> {
        let shown = format!("{router:?}");
        let named = shown.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split_once('"'));
        let is_fallback = |path: &str| path == "/" || path.contains("__private__axum_fallback");
        named.map(|(path, _)| path.to_owned()).filter(|path| !is_fallback(path)).collect()
    }

    #[tokio::test]
    async fn every_route_that_is_served_is_in_the_table_and_every_row_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let router = router(folder.path()).await;
        let served = paths(&router);
        let table = routes();
        let listed: BTreeSet<String> = table.iter().map(|route| route.path.to_owned()).collect();
        assert_eq!(served, listed, "served on the left, listed in src/routes.rs on the right");
        for route in table.iter().filter(|route| !route.path.contains('{')) {
            let request = axum::http::Request::builder().method(&route.method).uri(route.path);
            let request = request.body(Body::empty()).unwrap();
            let answer = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
            assert!(
                !matches!(answer.status().as_u16(), 403..=405),
                "{} {}: {}",
                route.method,
                route.path,
                answer.status()
            );
        }
    }
}

//! Collector, store and query as one process: opened in the order in which they need each other, closed in the other one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use beeacon_collector::Collector;
use beeacon_query::{Postgres, PostgresOptions, Query};
use beeacon_store::Store;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsConfig;

use crate::config::{ServerConfig, TlsFiles};
use crate::doors::{self, Readiness, Token};

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
    tls: Option<TlsAcceptor>,
    token: Option<Token>,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

impl Server {
    /// Opens the store, replays the journal into it, and binds the socket; nothing is served yet.
    pub(crate) async fn open(config: ServerConfig) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(tls_acceptor).transpose()?;
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
        let store = Store::open(config.store).await.context("open the store")?;
        let collector =
            Collector::open(config.collector, store.clone()).await.context("open the collector")?;
        let query = Query::new(store.clone(), config.query).context("open the query room")?;
        let mut registry = Registry::default();
        register_build(&mut registry);
        store.register(&mut registry);
        collector.register(&mut registry);
        query.register(&mut registry);
        let postgres = match postgres {
            None => None,
            Some(listener) => {
                let (token, tls) = (config.token.clone(), tls.clone());
                let options = PostgresOptions { tenant: TENANT.to_owned(), token, tls };
                let door = Postgres::new(query.clone(), options).context("make the PostgreSQL door ready")?;
                Some((door, listener))
            }
        };
        let token = config.token.as_deref().map(Token::new);
        let registry = Arc::new(Mutex::new(registry));
        Ok(Server { store, collector, query, listener, postgres, tls, token, registry })
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
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.address()?))
    }

    /// Serves until asked to stop, then closes the rooms; fresh rows are written before it returns.
    pub(crate) async fn run(
        self,
        companion: Option<Arc<dyn Companion>>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let state = Arc::new(Status {
            started: Instant::now(),
            collector: self.collector.clone(),
            store: self.store.clone(),
            query: self.query.clone(),
            companion: companion.clone(),
        });
        let rooms = self.collector.router().merge(self.query.router()).merge(status_router(state));
        let router =
            doors::router(rooms, self.readiness(companion), self.registry.clone(), self.token.clone());
        // When the consumers end, however they end, nothing more may be taken in.
        let (halt, halted) = watch::channel(false);
        let consumers = tokio::spawn({
            let (collector, mut stop) = (self.collector.clone(), stop);
            async move {
                let ended = collector.run(async move { doors::until_stopped(&mut stop).await }).await;
                halt.send_replace(true);
                ended
            }
        });
        let postgres = self.postgres.map(|(door, listener)| {
            let halted = halted.clone();
            tokio::spawn(async move { door.serve(listener, halted).await })
        });
        let served = doors::serve(self.listener, self.tls, router, halted).await;
        if let Some(postgres) = postgres {
            postgres.await.context("the PostgreSQL door ended badly")?;
        }
        consumers.await.context("the collector's consumers ended badly")??;
        self.collector.close().await.context("close the collector")?;
        self.store.close().await.context("close the store")?;
        served.context("serve HTTP")
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

fn register_build(registry: &mut Registry) {
    let info = Family::<Vec<(String, String)>, Gauge>::default();
    info.get_or_create(&vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("beeacon_build_info", "The version of this program, as a label.", info);
}

fn tls_acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("read the certificates in {}", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("read the private key in {}", files.key.display()))?;
    let config = TlsConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("use the certificate with its key")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Status {
    started: Instant,
    collector: Collector,
    store: Store,
    query: Query,
    companion: Option<Arc<dyn Companion>>,
}

fn status_router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/api/beeacon/status", get(show_status))
        .route("/api/beeacon/pollen-filter/stats", get(show_pollen_filter))
        .with_state(status)
}

async fn show_status(State(status): State<Arc<Status>>) -> Response {
    let body = serde_json::json!({
        "api_version": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": status.started.elapsed().as_secs(),
        "collector": status.collector.status(),
        "store": status.store.statistics(),
        "query": status.query.statistics(),
        "agent": status.companion.as_ref().map(|companion| companion.status()),
    });
    axum::Json(body).into_response()
}

async fn show_pollen_filter(State(status): State<Arc<Status>>) -> Response {
    match status.query.pollen_filter_statistics(TENANT).await {
        Ok(statistics) => axum::Json(serde_json::json!({
            "api_version": 1,
            "stored": statistics,
            "agent": status.companion.as_ref().map(|companion| companion.pollen_filter()),
        }))
        .into_response(),
        Err(error) => {
            let body = serde_json::json!({ "error": { "code": "internal", "message": error.to_string() } });
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
        }
    }
}

/// The lock of the registry, whoever panicked while holding it.
pub(crate) fn locked(registry: &Mutex<Registry>) -> std::sync::MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

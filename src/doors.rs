//! The HTTP listener, and what is not a room's own: health, metrics, limits on connections. Who may ask what is the gate's.
//!
//! What always holds: a peer that sends its headers slowly is cut off; there are never more than [`CONNECTIONS_MAX`] connections.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use beeacon_access::{Gate, Peer, Verbatim, refusal};
use beeacon_agent::metrics::exposed;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

use crate::server::locked;
use crate::tls::{Acceptor, Shown};

/// The most connections at one time. Agents hold one each; the rest is people and dashboards.
const CONNECTIONS_MAX: usize = 1024;

/// How long a peer may take to send its request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long requests in flight may take to end after the program was asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Closes the connection that a request came over, among the request's extensions: for a client that reads no more.
#[derive(Clone, Debug)]
pub(crate) struct HangUp(pub(crate) Arc<Notify>);

/// Whether each part is ready, by name. Called for every `/readyz`, so it must be cheap.
pub(crate) type Readiness = Arc<dyn Fn() -> Vec<(&'static str, bool)> + Send + Sync>;

/// The doors that are not a room's own.
#[derive(Clone)]
struct Common {
    readiness: Readiness,
    registry: Arc<Mutex<Registry>>,
}

/// The rooms' doors next to health and metrics, all behind the gate.
pub(crate) fn router(
    rooms: Router,
    readiness: Readiness,
    registry: Arc<Mutex<Registry>>,
    gate: &Gate,
) -> Router {
    let common = Common { readiness, registry };
    let own = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(common);
    gate.around(rooms.merge(own))
}

async fn ready(State(common): State<Common>) -> Response {
    let parts = (common.readiness)();
    let all = parts.iter().all(|(_, ready)| *ready);
    let lines: String = parts
        .iter()
        .map(|(name, ready)| format!("{name} {}\n", if *ready { "ready" } else { "not ready" }))
        .collect();
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, lines).into_response();
    response.extensions_mut().insert(Verbatim);
    response
}

async fn metrics(State(common): State<Common>) -> Response {
    match exposed(&locked(&common.registry)) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "metrics cannot be written"),
    }
}

/// Accepts connections until asked to stop, then lets requests in flight end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until_stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error.kind(), "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS_MAX, "too many connections: one was closed");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error.kind(), "a connection was gone before it was served");
            continue;
        }
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, peer, false, router, stop).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.get().accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let has_shown = stream.get_ref().1.peer_certificates().is_some();
                        connection(stream, peer, has_shown, router, stop).await;
                    }
                    Ok(Err(_)) | Err(_) => tracing::debug!(%peer, "a TLS handshake failed"),
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_TIMEOUT, permits.acquire_many(all)).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
    Ok(())
}

/// Ends when the program was asked to stop, or nobody is left who could ask.
pub(crate) async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

/// `has_shown` a certificate that was found good.
async fn connection<S>(
    stream: S,
    peer: SocketAddr,
    has_shown: bool,
    router: Router,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
    let router = TowerToHyperService::new(router);
    let hang_up = Arc::new(Notify::new());
    let handed = HangUp(hang_up.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(handed.clone());
        if has_shown {
            request.extensions_mut().insert(Shown);
        }
        router.call(request)
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = until_stopped(&mut stop) => None,
        () = hang_up.notified() => return,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = hang_up.notified() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Whether an address can be reached from this host only.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_address_is_judged_by_what_it_maps() {
        assert!(is_loopback("[::ffff:127.0.0.1]:1".parse().unwrap()));
        assert!(!is_loopback("[::ffff:10.0.0.1]:1".parse().unwrap()));
        assert!(is_loopback("[::1]:1".parse().unwrap()));
    }
}

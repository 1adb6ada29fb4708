//! The agent's own door: how it is doing, what it counts, and scrubbed lines as they pass.
//!
//! ```text
//! GET /status    how it is doing, JSON
//! GET /metrics   what it counts, in the text format of Prometheus
//! GET /tap       scrubbed lines as they pass, one JSON object a line; ?container= a name, service or id, with * and ?
//! ```
//!
//! What always holds:
//! - it is a socket in the agent's data directory, in a directory that is its owner's alone; what `agent.listen` opens besides is
//!   on loopback, where any user of the host may come, and gives out no lines;
//! - a line leaves only out of a [`Scrubbed`](beeacon_record::Scrubbed) batch, and nobody who reads slowly holds the agent back;
//! - connections, and what waits for them, are bounded. Without a door the agent runs on, and says so.

pub mod client;
pub mod tap;
pub mod top;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::agent::Agent;
use crate::limits::DOOR_CONNECTIONS_MAX;
use crate::metrics;

/// How long a peer may take to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// The longest path of a socket that the system takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Where an agent with this data directory is spoken to.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("door").join("agent.sock")
}

/// Who may ask for what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the socket, which only the agent's user can open.
    Socket,
    /// Over loopback, which any user of the host can.
    Loopback,
}

/// What is behind the door.
#[derive(Clone)]
struct Room {
    agent: Agent,
    registry: Arc<Registry>,
    places: Arc<Semaphore>,
}

/// Serves until it is dropped. What cannot be opened is said, and left out.
pub(crate) async fn serve(agent: Agent) {
    let mut registry = Registry::default();
    agent.register(&mut registry);
    let config = agent.config();
    let places = Arc::new(Semaphore::new(DOOR_CONNECTIONS_MAX));
    let room = Room { agent, registry: Arc::new(registry), places };
    let path = socket_path(&config.data);
    let socket = async {
        match open_socket(&path).await {
            Ok(listener) => accept_from_socket(listener, room.clone()).await,
            Err(error) => tracing::warn!(path = %path.display(), %error, "the agent has no door"),
        }
    };
    let loopback = async {
        let Some(address) = config.listen else { return };
        match TcpListener::bind(address).await {
            Ok(listener) => accept_from_loopback(listener, room.clone()).await,
            Err(error) => tracing::warn!(%address, %error, "the agent does not listen"),
        }
    };
    tokio::join!(socket, loopback);
}

async fn open_socket(path: &Path) -> io::Result<UnixListener> {
    let refused = |what: &str| io::Error::other(what.to_owned());
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(refused("its path is longer than the 107 bytes that the system takes"));
    }
    let directory = path.parent().ok_or_else(|| refused("it has no directory"))?;
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?,
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(refused("another agent answers there"));
    }
    // What an agent that was killed has left behind.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

async fn accept_from_socket(listener: UnixListener, room: Room) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => welcome(stream, &room, Way::Socket),
            Err(error) => wait_after(&error).await,
        }
    }
}

async fn accept_from_loopback(listener: TcpListener, room: Room) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => welcome(stream, &room, Way::Loopback),
            Err(error) => wait_after(&error).await,
        }
    }
}

async fn wait_after(error: &io::Error) {
    tracing::warn!(error = %error.kind(), "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn welcome(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, room: &Room, way: Way) {
    let Ok(place) = room.places.clone().try_acquire_owned() else {
        tracing::warn!(limit = DOOR_CONNECTIONS_MAX, "too many connections to the agent: one was closed");
        return;
    };
    let room = room.clone();
    tokio::spawn(async move {
        let answer = hyper::service::service_fn(move |request| {
            let answer = room.answer(&request, way);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(REQUEST_WITHIN);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    });
}

impl Room {
    fn answer(&self, request: &Request<Incoming>, way: Way) -> Response<Body> {
        if request.method() != Method::GET {
            return said(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        }
        match (request.uri().path(), way) {
            ("/status", _) => match serde_json::to_vec(&self.agent.status()) {
                Ok(status) => whole(StatusCode::OK, "application/json", status.into()),
                Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written"),
            },
            ("/metrics", _) => match metrics::exposed(&self.registry) {
                Ok(text) => whole(StatusCode::OK, "text/plain; version=0.0.4", text.into()),
                Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written"),
            },
            ("/tap", Way::Socket) => self.tap(request.uri().query().unwrap_or_default()),
            ("/tap", Way::Loopback) => said(
                StatusCode::FORBIDDEN,
                "lines are given out through the socket in the agent's data directory only",
            ),
            _ => said(StatusCode::NOT_FOUND, "no such path; there are /status, /metrics and /tap"),
        }
    }

    fn tap(&self, query: &str) -> Response<Body> {
        let wanted = match tap::Wanted::from_query(query) {
            Ok(wanted) => wanted,
            Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let lines = self.agent.taps().open(wanted);
        let stream = futures_util::stream::unfold(lines, |mut lines| async move {
            let chunk = lines.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(chunk)), lines))
        });
        let body = StreamBody::new(stream).boxed_unsync();
        respond(StatusCode::OK, "application/x-ndjson", body)
    }
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    whole(status, "text/plain", format!("{text}\n").into())
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    respond(status, kind, Full::new(body).boxed_unsync())
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Whether an address is reached from this host only.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

//! Where Docker listens, and a plain HTTP/1.1 connection to it for log streams.
//!
//! bollard speaks everything else. Log streams are fetched here because its `since` has whole seconds of 32 bits only and its
//! decoder does not know a terminal's timestamps in the midst of a line.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::time::since_text;
use crate::limits::DOCKER_ANSWER_WITHIN;

/// What Docker's socket is called when nobody says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Why Docker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not a host that is known how to reach.
    #[error("docker host \"{host}\" is none of unix:///path, tcp://name:port, http://name:port")]
    Name {
        /// What was given.
        host: String,
    },
    /// No connection.
    #[error("connect to docker at {host}")]
    Connect {
        /// Where.
        host: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("talk http to docker")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("make a request to docker")]
    Request(#[from] http::Error),
    /// No answer in time.
    #[error("docker gave no answer within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
}

/// Where Docker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A socket on this host.
    Unix(PathBuf),
    /// Name and port of another one.
    Tcp(String),
}

impl DockerHost {
    /// Reads `unix:///path`, `tcp://name:port` or `http://name:port`.
    ///
    /// # Errors
    /// [`HostError::Name`].
    pub fn parse(host: &str) -> Result<Self, HostError> {
        let unknown = || HostError::Name { host: host.to_owned() };
        if let Some(path) = host.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(DockerHost::Unix(path.into())) } else { Err(unknown()) };
        }
        let address = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://"));
        let address = address.map(|address| address.trim_end_matches('/'));
        match address {
            Some(address) if address.contains(':') && !address.contains('/') => {
                Ok(DockerHost::Tcp(address.to_owned()))
            }
            _ => Err(unknown()),
        }
    }

    /// bollard's client for it, with the API version that both sides know.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn client(&self) -> Result<bollard::Docker, bollard::errors::Error> {
        let timeout = DOCKER_ANSWER_WITHIN.as_secs();
        let version = bollard::API_DEFAULT_VERSION;
        let docker = match self {
            DockerHost::Unix(path) => {
                bollard::Docker::connect_with_unix(&path.to_string_lossy(), timeout, version)?
            }
            DockerHost::Tcp(address) => bollard::Docker::connect_with_http(address, timeout, version)?,
        };
        docker.negotiate_version().await
    }

    /// Opens a log stream, which goes on as long as the container does. Gives the status and the body as it comes.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn logs(&self, id: &str, since_ns: Option<i64>) -> Result<(StatusCode, Incoming), HostError> {
        self.ask_for_logs(id, "follow=1", since_ns).await
    }

    /// Asks for the last entry of a log alone.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub async fn last_entry(&self, id: &str) -> Result<(StatusCode, Incoming), HostError> {
        self.ask_for_logs(id, "tail=1", None).await
    }

    async fn ask_for_logs(
        &self,
        id: &str,
        how: &str,
        since_ns: Option<i64>,
    ) -> Result<(StatusCode, Incoming), HostError> {
        let since = since_ns.map(|since_ns| format!("&since={}", since_text(since_ns))).unwrap_or_default();
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1&{how}{since}");
        let request = Request::get(path).header(http::header::HOST, "docker").body(Empty::<Bytes>::new())?;
        let asking = async {
            let connect = |source| HostError::Connect { host: self.to_string(), source };
            match self {
                DockerHost::Unix(path) => {
                    ask(TokioIo::new(UnixStream::connect(path).await.map_err(connect)?), request).await
                }
                DockerHost::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await.map_err(connect)?;
                    keep_alive(&stream);
                    ask(TokioIo::new(stream), request).await
                }
            }
        };
        let timeout: Duration = DOCKER_ANSWER_WITHIN;
        let answer = tokio::time::timeout(timeout, asking).await;
        answer.map_err(|_| HostError::Timeout { seconds: timeout.as_secs() })?
    }
}

impl std::fmt::Display for DockerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DockerHost::Unix(path) => write!(f, "unix://{}", path.display()),
            DockerHost::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A peer that has vanished is noticed by the kernel, not by a line that never comes.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true).ok();
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30)).ok();
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10)).ok();
    sockopt::set_tcp_keepcnt(stream, 3).ok();
}

async fn ask<I>(io: I, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Incoming), HostError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await?;
    // Ends by itself when the body has been read or dropped.
    tokio::spawn(async move { connection.await.ok() });
    let response = sender.send_request(request).await?;
    Ok((response.status(), response.into_body()))
}

/// The next bytes of a body, or `None` at its end.
///
/// # Errors
/// When the connection breaks.
pub async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>, HostError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(bytes) = frame?.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_what_is_none_is_refused() {
        assert_eq!(DockerHost::parse("unix:///a/b").unwrap(), DockerHost::Unix("/a/b".into()));
        assert_eq!(DockerHost::parse("tcp://h:2375").unwrap(), DockerHost::Tcp("h:2375".into()));
        assert_eq!(DockerHost::parse("http://h:2375/").unwrap(), DockerHost::Tcp("h:2375".into()));
        for bad in ["", "unix://", "unix://relative", "tcp://nohost", "ssh://h:1", "tcp://h:1/x"] {
            assert!(DockerHost::parse(bad).is_err(), "{bad}");
        }
    }
}

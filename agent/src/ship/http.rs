//! Requests to the collector over HTTP/1.1 with keep-alive, plain or TLS.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use beeacon_record::wire::{FRAME_CONTENT_TYPE, INGEST_PATH, SESSION_PATH, SessionRequest};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::FAILURES_BEFORE_NEXT;
use super::verdict::{SessionVerdict, Verdict, judge_frame, judge_session};
use super::window::Window;
use crate::backoff::Backoff;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_WITHIN, FRAMES_IN_FLIGHT_MAX};
use crate::metrics::Metrics;
use crate::status::Health;

/// Where Debian and most others keep the certificates of authorities they trust.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long a wait the collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why requests cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Not a URL of a collector.
    #[error("collector \"{url}\" is no http:// or https:// url without a path")]
    Url {
        /// What was given.
        url: String,
    },
    /// A token that cannot stand in a header.
    #[error("collector token holds characters that an http header cannot carry")]
    Token,
    /// The authorities' certificates cannot be read.
    #[error("read certificates of authorities from {}", path.display())]
    Roots {
        /// From where.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// There is none in the file.
    #[error("no certificate of an authority in {}", path.display())]
    NoRoots {
        /// The file.
        path: PathBuf,
    },
    /// The agent's own certificate, or its key, cannot be read.
    #[error("read the agent's certificate or key from {}", path.display())]
    Identity {
        /// From where.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// TLS cannot be set up.
    #[error("set up tls")]
    Tls(#[from] rustls::Error),
    /// The request could not be made.
    #[error("make a request to the collector")]
    Request(#[from] http::Error),
    /// The request failed on the way.
    #[error("reach the collector at {authority}")]
    Network {
        /// Where.
        authority: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("collector at {authority} gave no answer within {seconds} s")]
    Timeout {
        /// Where.
        authority: String,
        /// How long was waited.
        seconds: u64,
    },
}

/// The certificate by which an agent is known to collectors that ask for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// A PEM file with the certificate, and those between it and an authority that the collector trusts.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
}

/// Where a collector is, and how many frames may be under way to it.
struct Target {
    base: String,
    authority: String,
    window: Mutex<Window>,
}

impl Target {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A collector, with others that take its place, and how to speak to it. Cheap to clone; clones speak to the same one.
#[derive(Clone)]
pub struct Collector {
    client: HttpClient,
    targets: Arc<Vec<Target>>,
    /// Which of them is spoken to, counted on and on.
    current: Arc<AtomicUsize>,
    authorization: Option<HeaderValue>,
    health: Arc<Health>,
}

/// What came back: status, `Retry-After`, the collector's date, body.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long the collector asks to wait.
    pub retry_after: Option<Duration>,
    /// Its `Date` header.
    pub date: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Collector {
    /// A collector at `url`. `roots` overrides the system's trusted authorities; they are read only for `https`.
    ///
    /// # Errors
    /// When url, token or certificates are not usable.
    pub fn new(url: &str, token: Option<&str>, roots: Option<&Path>) -> Result<Self, ShipError> {
        Collector::first_of([url], token, roots, None)
    }

    /// The first of several collectors; when it does not answer for a while, the next one takes its place, and keeps it until it
    /// does not answer itself. Each says for itself where it stands. `identity` is shown to those that ask for a certificate.
    ///
    /// # Errors
    /// As [`Collector::new`], for any of the urls.
    pub fn first_of<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        token: Option<&str>,
        roots: Option<&Path>,
        identity: Option<&ClientFiles>,
    ) -> Result<Self, ShipError> {
        let (mut targets, mut is_tls) = (Vec::new(), false);
        for url in urls {
            let bad = || ShipError::Url { url: url.to_owned() };
            let uri: Uri = url.parse().map_err(|_| bad())?;
            let authority = uri.authority().ok_or_else(bad)?.to_string();
            is_tls |= match uri.scheme_str() {
                Some("http") => false,
                Some("https") => true,
                _ => return Err(bad()),
            };
            if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
                return Err(bad());
            }
            let base = url.trim_end_matches('/').to_owned();
            targets.push(Target { base, authority, window: Mutex::default() });
        }
        if targets.is_empty() {
            return Err(ShipError::Url { url: String::new() });
        }
        let client = http_client(is_tls, roots, identity, FRAMES_IN_FLIGHT_MAX)?;
        let authorization = token
            .map(|token| {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ShipError::Token)?;
                value.set_sensitive(true);
                Ok::<_, ShipError>(value)
            })
            .transpose()?;
        let (targets, current) = (Arc::new(targets), Arc::default());
        Ok(Collector { client, targets, current, authorization, health: Arc::default() })
    }

    /// The one that is spoken to now, with its place among the others.
    #[expect(
        clippy::indexing_slicing,
        reason = "there is at least one target, and the remainder is below their number"
    )]
    fn target(&self) -> (usize, &Target) {
        let place = self.current.load(Ordering::Relaxed);
        (place, &self.targets[place % self.targets.len()])
    }

    /// Goes on to the next collector after several failures in a row of the one at this place. `true` when there is another one.
    fn moves_on(&self, from: usize, failures: u32) -> bool {
        let is_over = self.targets.len() > 1 && failures > 0 && failures.is_multiple_of(FAILURES_BEFORE_NEXT);
        if is_over {
            let gone = self.authority().to_owned();
            let next = from.wrapping_add(1);
            // Another request may have found out first.
            if self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                let to = self.authority();
                tracing::warn!(from = gone, to, "a collector does not answer, going on to the next");
            }
        }
        is_over
    }

    /// How many frames may be under way to the collector that is spoken to now.
    pub fn window(&self) -> MutexGuard<'_, Window> {
        self.target().1.window()
    }

    /// The same, telling `health` whether it takes data.
    #[must_use]
    pub fn reporting_to(mut self, health: Arc<Health>) -> Self {
        self.health = health;
        self
    }

    /// Where it is, for people.
    pub fn authority(&self) -> &str {
        &self.target().1.authority
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Answer, ShipError> {
        self.request_of(self.target().1, method, path, content_type, body).await
    }

    async fn request_of(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Answer, ShipError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", target.base));
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body))?;
        let asking = async {
            let response = self.client.request(request).await.map_err(|error| self.network(error))?;
            self.read(response).await
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        answer.map_err(|_| ShipError::Timeout {
            authority: self.authority().to_owned(),
            seconds: ANSWER_WITHIN.as_secs(),
        })?
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, ShipError> {
        let status = response.status().as_u16();
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let retry_after = text(RETRY_AFTER)
            .and_then(|seconds| seconds.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let date = text(http::header::DATE).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.network(error))?.to_bytes();
        Ok(Answer { status, retry_after, date, body })
    }

    fn network(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ShipError {
        ShipError::Network { authority: self.authority().to_owned(), source: source.into() }
    }

    /// Sends a frame, which has so many others before it, until there is an answer that is more than "later", or another collector
    /// takes the place of this one. One with others before it is sent once: those are the ones to try again.
    pub async fn ship(&self, frame: Bytes, others: usize, metrics: &Metrics) -> Verdict {
        let mut backoff = Backoff::default();
        let (place, target) = self.target();
        loop {
            let started = Instant::now();
            let (content_type, body) = (Some(FRAME_CONTENT_TYPE), frame.clone());
            let answer = self.request_of(target, Method::POST, INGEST_PATH, content_type, body).await;
            let wait = match answer {
                Ok(answer) => match judge_frame(answer.status, answer.retry_after, &answer.body) {
                    Verdict::Later(wait) => self.later(&mut backoff, wait, &answer.status),
                    Verdict::Refused(code) => self.later(&mut backoff, None, &format_args!("{code:?}")),
                    verdict => {
                        self.health.set_collector(true);
                        if let Verdict::Committed(answer) = &verdict {
                            let mut window = target.window();
                            window.on_answer(started.elapsed(), others);
                            window.on_credit(answer.credit_bytes);
                        }
                        return verdict;
                    }
                },
                Err(error) => self.later(&mut backoff, None, &chain(&error)),
            };
            target.window().on_trouble();
            metrics.retries.inc();
            if others > 0 {
                return Verdict::Later(None);
            }
            if self.moves_on(place, backoff.failures()) || self.target().0 != place {
                return Verdict::Elsewhere;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks for a session until there is one.
    pub async fn open_session(
        &self,
        ask: &SessionRequest,
        metrics: &Metrics,
    ) -> beeacon_record::wire::SessionAnswer {
        let mut backoff = Backoff::default();
        let body = Bytes::from(serde_json::to_vec(ask).unwrap_or_default());
        loop {
            let (place, target) = self.target();
            let (content_type, body) = (Some("application/json"), body.clone());
            let answer = self.request_of(target, Method::POST, SESSION_PATH, content_type, body).await;
            let wait = match answer {
                Ok(answer) => match judge_session(answer.status, answer.retry_after, &answer.body) {
                    SessionVerdict::Open(session) => {
                        self.health.set_collector(true);
                        target.window().on_credit(session.credit_bytes);
                        return session;
                    }
                    SessionVerdict::Later(wait) => self.later(&mut backoff, wait, &answer.status),
                    SessionVerdict::Refused(code) => {
                        self.later(&mut backoff, None, &format_args!("{code:?}"))
                    }
                },
                Err(error) => self.later(&mut backoff, None, &chain(&error)),
            };
            metrics.retries.inc();
            if !self.moves_on(place, backoff.failures()) {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// How long to wait; the first failure in a row is reported, and then every sixteenth.
    fn later(&self, backoff: &mut Backoff, asked: Option<Duration>, why: &dyn std::fmt::Display) -> Duration {
        self.health.set_collector(false);
        if backoff.failures().is_multiple_of(16) {
            tracing::warn!(collector = self.authority(), %why, "collector does not take data now, trying again");
        }
        backoff.next_wait().max(asked.unwrap_or_default())
    }
}

/// An error with its causes in one line. None of them holds text of a line: they are about connections.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A client for requests with small bodies.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that keeps so many connections open. `roots` overrides the system's trusted authorities; they are read only for TLS, as
/// is the certificate that is shown to who asks for one.
pub(crate) fn http_client(
    is_tls: bool,
    roots: Option<&Path>,
    identity: Option<&ClientFiles>,
    connections: usize,
) -> Result<HttpClient, ShipError> {
    let tls = if is_tls {
        tls_config(Some(roots.unwrap_or(Path::new(SYSTEM_ROOTS))), identity)?
    } else {
        tls_config(None, None)?
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    http.set_keepalive(Some(Duration::from_secs(30)));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(connections)
        .build(connector))
}

fn tls_config(
    roots: Option<&Path>,
    identity: Option<&ClientFiles>,
) -> Result<rustls::ClientConfig, ShipError> {
    let mut store = rustls::RootCertStore::empty();
    if let Some(path) = roots {
        let unreadable = |source| ShipError::Roots { path: path.to_owned(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            // A file of authorities may hold some that rustls does not take; the others still count.
            store.add(certificate.map_err(unreadable)?).ok();
        }
        if store.is_empty() {
            return Err(ShipError::NoRoots { path: path.to_owned() });
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(store);
    let Some(ClientFiles { certificate, key }) = identity else { return Ok(builder.with_no_client_auth()) };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ShipError::Identity { path, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(unreadable(certificate))?.collect();
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    Ok(builder.with_client_auth_cert(chain.map_err(unreadable(certificate))?, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_a_collector_are_taken() {
        for good in ["http://127.0.0.1:4880", "http://collector:80/"] {
            assert!(Collector::new(good, Some("token"), None).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:4880", "ftp://x", "http://", "http://x/path", "http://x?y=1"] {
            assert!(matches!(Collector::new(bad, None, None), Err(ShipError::Url { .. })), "{bad}");
        }
        assert!(matches!(Collector::new("http://x", Some("a\nb"), None), Err(ShipError::Token)));
        let missing = Path::new("/nonexistent/roots.pem");
        assert!(matches!(Collector::new("https://x", None, Some(missing)), Err(ShipError::Roots { .. })));
    }
}

//! One request, or one mail, to one receiver, where the policy lets it go.
//!
//! The name is resolved here, every address is checked, and the connection goes to an address that was checked. Redirects are
//! not followed, proxies of the environment are not used, and nothing of an answer is kept but its judgement.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limits::{ANSWER_BYTES_MAX, CA_BYTES_MAX, MAIL_TIME_MAX, SEND_TIME_MAX};
use crate::notify::Notification;
use crate::notify::config::{Receiver, ReceiverKind, Signing, WebhookBody};
use crate::outbound::{OutboundError, Policy, Target};
use crate::sign;

/// Where systems keep the certificates they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why there is no sender.
#[derive(Debug, Error)]
pub enum SenderError {
    /// No certificates to trust were found.
    #[error("no certificates to trust in {}: name a PEM file of at most {CA_BYTES_MAX} bytes", path.display())]
    Certificates {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken, or there is nobody to send it to.
    Delivered,
    /// It was not taken and may be later.
    Again {
        /// Why not.
        why: String,
        /// When the receiver wants it again.
        after: Option<Duration>,
    },
    /// It never will be taken.
    Never(String),
}

/// Why a request has no answer. Its text names hosts and addresses, never a path or a query.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the host {0} has no address")]
    Name(String),
    #[error("no connection to {host}: {kind}")]
    Connect { host: String, kind: std::io::ErrorKind },
    #[error("no TLS with {0}: there are no certificates to trust on this system, name a file of them")]
    Roots(String),
    #[error("no TLS with {host}: its certificate does not hold, or it does not speak it")]
    Tls { host: String },
    #[error("{0} ended the exchange before its answer")]
    Exchange(String),
    #[error("no answer within {}s", SEND_TIME_MAX.as_secs())]
    Time,
    #[error("the mail was not taken within {}s", MAIL_TIME_MAX.as_secs())]
    MailTime,
    #[error("the mail server {0} has no STARTTLS, or speaks it otherwise")]
    StartTls(String),
    #[error("the mail server {0} offers no login that is known here: PLAIN or LOGIN")]
    Login(String),
    #[error("{0} is not this host, and mail without TLS goes to this host only")]
    NotThisHost(IpAddr),
    #[error("the mail server {host} answered {code}")]
    Answer { host: String, code: u16, is_for_good: bool },
    #[error("the mail server {0} took none of the recipients")]
    Recipients(String),
}

/// Sends requests.
pub struct Sender {
    pub(super) policy: Policy,
    pub(super) tls: TlsConnector,
    /// The certificates to trust once more, in the form that mail's `STARTTLS` takes.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    external_url: String,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender that trusts the certificates of a PEM file, else the system's. `external_url` is where this server can be
    /// found, as messages say it.
    ///
    /// # Errors
    /// When there are no certificates to trust in the file named.
    pub fn new(policy: Policy, ca_file: Option<&Path>, external_url: &str) -> Result<Sender, SenderError> {
        let (roots, certificates) = trusted(ca_file)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SenderError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Sender {
            policy,
            tls: TlsConnector::from(Arc::new(config)),
            certificates,
            external_url: external_url.to_owned(),
        })
    }

    /// Sends a message to a receiver.
    pub async fn send(&self, receiver: &Receiver, message: &Notification, now: Timestamp) -> Outcome {
        let bodies = match crate::payload::bodies(receiver, message, &self.external_url, now) {
            Ok(bodies) => bodies,
            Err(error) => return Outcome::Never(error.to_string()),
        };
        // Several bodies are told again from the first one on when one is not taken: whoever takes several knows a repeat.
        for body in bodies {
            let outcome = match &receiver.kind {
                ReceiverKind::Email(email) => self.mail(email, &body).await,
                _ => self.post(receiver, message, Bytes::from(body), now).await,
            };
            if outcome != Outcome::Delivered {
                return outcome;
            }
        }
        Outcome::Delivered
    }

    /// One HTTP request.
    async fn post(
        &self,
        receiver: &Receiver,
        message: &Notification,
        body: Bytes,
        now: Timestamp,
    ) -> Outcome {
        // What the policy refuses is tried again: the policy, or what a name resolves to, may be corrected.
        let again = |error: SendError| Outcome::Again { why: error.to_string(), after: None };
        let Some(url) = url(receiver) else { return Outcome::Delivered };
        let target = match self.policy.target(&url) {
            Ok(target) => target,
            Err(error) => return again(error.into()),
        };
        let Some(request) = request(receiver, message, &target, body, now) else {
            return Outcome::Never(
                "the request cannot be written: its address or signature has no writing".to_owned(),
            );
        };
        match tokio::time::timeout(SEND_TIME_MAX, self.exchange(&target, request)).await {
            Ok(Ok(answer)) => judge(receiver, &answer),
            Ok(Err(error)) => again(error),
            Err(_) => again(SendError::Time),
        }
    }

    async fn exchange(&self, target: &Target, request: Request<Full<Bytes>>) -> Result<Answer, SendError> {
        let stream = self.connect(target).await?;
        if !target.is_tls() {
            return exchange_over(stream, request, &target.host()).await;
        }
        let host = target.host();
        if self.certificates.is_empty() {
            return Err(SendError::Roots(host));
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| SendError::Tls { host: host.clone() })?;
        let stream =
            self.tls.connect(name, stream).await.map_err(|_| SendError::Tls { host: host.clone() })?;
        exchange_over(stream, request, &host).await
    }

    /// A connection to an address that was checked.
    pub(super) async fn connect(&self, target: &Target) -> Result<TcpStream, SendError> {
        let host = target.host();
        let addresses: Vec<IpAddr> = match target.literal() {
            Some(address) => vec![address],
            None => tokio::net::lookup_host((host.as_str(), target.port()))
                .await
                .map_err(|_| SendError::Name(host.clone()))?
                .map(|address| address.ip())
                .collect(),
        };
        // One address of the inside among those of a name is reason enough to go to none of them.
        for address in &addresses {
            self.policy.address(*address)?;
        }
        let mut last = SendError::Name(host.clone());
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, target.port())).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = SendError::Connect { host: host.clone(), kind: error.kind() },
            }
        }
        Err(last)
    }
}

/// Status and the beginning of the body.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

async fn exchange_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
    host: &str,
) -> Result<Answer, SendError> {
    let failed = |_| SendError::Exchange(host.to_owned());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after =
            retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        Ok(Answer { status, retry_after, body: beginning(response.into_body()).await })
    }
    .await;
    connection.abort();
    answer
}

/// The beginning of an answer's body; what does not come counts as not said.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(part)) = body.frame().await {
        if let Some(data) = part.data_ref() {
            let room = ANSWER_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or(data));
        }
        if bytes.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    bytes
}

/// Where the requests of a receiver go.
fn url(receiver: &Receiver) -> Option<Cow<'_, str>> {
    match &receiver.kind {
        ReceiverKind::Nobody | ReceiverKind::Email(_) => None,
        ReceiverKind::Webhook(webhook) => Some(webhook.url.reveal().into()),
        ReceiverKind::Slack { url, .. } | ReceiverKind::Teams { url } => Some(url.reveal().into()),
        ReceiverKind::PagerDuty { url, .. } => Some(url.into()),
        ReceiverKind::Alertmanager(alertmanager) => {
            Some(format!("{}/api/v2/alerts", alertmanager.url.reveal().trim_end_matches('/')).into())
        }
    }
}

fn request(
    receiver: &Receiver,
    message: &Notification,
    target: &Target,
    body: Bytes,
    now: Timestamp,
) -> Option<Request<Full<Bytes>>> {
    let seconds = now.as_second();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target.path_and_query())
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, "Beeacon")
        .header(header::CONTENT_TYPE, content_type(receiver))
        .header("webhook-id", &message.id);
    if let ReceiverKind::Webhook(webhook) = &receiver.kind {
        match &webhook.signing {
            Signing::None => {}
            Signing::Grafana(secret) => {
                request = request
                    .header(sign::GRAFANA_HEADER, sign::grafana(secret.reveal(), seconds, &body))
                    .header(sign::GRAFANA_TIMESTAMP_HEADER, HeaderValue::from(seconds));
            }
            Signing::Standard(secret) => {
                request = request
                    .header(
                        "webhook-signature",
                        sign::standard(secret.reveal(), &message.id, seconds, &body)?,
                    )
                    .header("webhook-timestamp", HeaderValue::from(seconds));
            }
        }
    }
    if let ReceiverKind::Alertmanager(alertmanager) = &receiver.kind
        && let Some(token) = &alertmanager.bearer_token
    {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    request.body(Full::new(body)).ok()
}

/// A template may write anything; that it is text is all that is known.
fn content_type(receiver: &Receiver) -> &'static str {
    match &receiver.kind {
        ReceiverKind::Webhook(webhook) if matches!(webhook.body, WebhookBody::Template(_)) => {
            "text/plain; charset=utf-8"
        }
        _ => "application/json",
    }
}

fn judge(receiver: &Receiver, answer: &Answer) -> Outcome {
    let status = answer.status;
    let why = format!("the answer was {}", status.as_u16());
    if status.is_success() {
        if matches!(receiver.kind, ReceiverKind::Slack { .. }) && !is_slack_ok(&answer.body) {
            return Outcome::Never("Slack answered 200 and did not say ok".to_owned());
        }
        return Outcome::Delivered;
    }
    let is_for_now =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    if is_for_now || status.is_server_error() {
        Outcome::Again { why, after: answer.retry_after }
    } else if status.is_redirection() {
        Outcome::Never(format!("{why}: redirects are not followed"))
    } else {
        Outcome::Never(why)
    }
}

/// Slack says `ok`, or JSON with `"ok": true`.
fn is_slack_ok(body: &[u8]) -> bool {
    body.trim_ascii() == b"ok"
        || serde_json::from_slice::<serde_json::Value>(body)
            .is_ok_and(|answer| answer.get("ok") == Some(&serde_json::Value::Bool(true)))
}

/// The certificates to trust. Without a file named and without the system's, there are none, and only plain HTTP works.
fn trusted(file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), SenderError> {
    let (mut roots, mut kept) = (RootCertStore::empty(), Vec::new());
    let system = || SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|path| path.exists());
    let Some(path) = file.map(Path::to_path_buf).or_else(system) else {
        tracing::warn!(
            "no certificates to trust were found on this system: messages go over plain HTTP only until a file is named"
        );
        return Ok((roots, kept));
    };
    let refuse = || SenderError::Certificates { path: path.clone() };
    if std::fs::metadata(&path).map_err(|_| refuse())?.len() > CA_BYTES_MAX {
        return Err(refuse());
    }
    for certificate in CertificateDer::pem_file_iter(&path).map_err(|_| refuse())?.filter_map(Result::ok) {
        if roots.add(certificate.clone()).is_ok() {
            kept.push(certificate);
        }
    }
    if kept.is_empty() { Err(refuse()) } else { Ok((roots, kept)) }
}

//! Requests to a Vault over HTTP/1.1.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use zeroize::Zeroizing;

use super::answer;
use super::config::VaultConfig;
use super::error::VaultError;
use crate::limits::{VAULT_ANSWER_BYTES_MAX, VAULT_LINE_BYTES_MAX, VAULT_TRIES_MAX, VAULT_WAIT_MAX};
use crate::ship::http::{HttpClient, http_client};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault asks its clients to say that they are none of a browser's making.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A Vault, and how to speak to it.
pub(super) struct VaultClient {
    client: HttpClient,
    address: String,
    namespace: Option<HeaderValue>,
    timeout: Duration,
    /// The wait before the second try; each further one is twice as long.
    pub(super) retry_after: Duration,
}

/// What may be asked for.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// The path behind `/v1/`, not yet encoded.
    pub(super) path: &'a str,
    /// `list=true` and the like.
    pub(super) query: &'static str,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Ask<'a> {
        Ask { method: Method::GET, path, query: "", body: Zeroizing::default() }
    }
}

/// What came back with a status that says something about the secret.
pub(super) enum Answer {
    /// 2xx.
    Body(Zeroizing<Vec<u8>>),
    /// 404, with what it says.
    Missing(Zeroizing<Vec<u8>>),
}

impl VaultClient {
    pub(super) fn new(config: &VaultConfig) -> Result<VaultClient, VaultError> {
        let is_tls = config.address.starts_with("https:");
        let client = http_client(is_tls, config.roots.as_deref(), None, 1).map_err(VaultError::Tls)?;
        let namespace = config.namespace.as_deref().map(HeaderValue::try_from).transpose();
        Ok(VaultClient {
            client,
            address: config.address.clone(),
            namespace: namespace.map_err(|_| VaultError::Token)?,
            timeout: config.timeout,
            retry_after: Duration::from_millis(200),
        })
    }

    /// Asks, again after a while where that may help.
    pub(super) async fn ask(&self, ask: &Ask<'_>, token: Option<&HeaderValue>) -> Result<Answer, VaultError> {
        let mut wait = self.retry_after;
        for _ in 1..VAULT_TRIES_MAX {
            match tokio::time::timeout(self.timeout, self.once(ask, token)).await {
                Ok(Err((error, asked))) if error.may_pass() => {
                    tokio::time::sleep(asked.unwrap_or(wait).min(VAULT_WAIT_MAX)).await;
                    wait *= 2;
                }
                Ok(outcome) => return outcome.map_err(|(error, _)| error),
                Err(_) => tokio::time::sleep(wait).await,
            }
        }
        match tokio::time::timeout(self.timeout, self.once(ask, token)).await {
            Ok(outcome) => outcome.map_err(|(error, _)| error),
            Err(_) => Err(VaultError::Timeout { what: ask.path.to_owned(), within: self.timeout }),
        }
    }

    /// Asks once. An error comes with how long Vault asks to wait.
    async fn once(
        &self,
        ask: &Ask<'_>,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, (VaultError, Option<Duration>)> {
        let what = || ask.path.to_owned();
        let network = |source: Box<dyn std::error::Error + Send + Sync>| {
            (VaultError::Network { address: self.address.clone(), source }, None)
        };
        let uri = format!("{}/v1/{}{}", self.address, encoded(ask.path), ask.query);
        let mut request = Request::builder().method(ask.method.clone()).uri(uri).header(REQUEST, "true");
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        // The body's memory is wiped when the connection has let go of it.
        let body = Full::new(Bytes::from_owner(ask.body.clone()));
        let request = request.body(body).map_err(|source| network(source.into()))?;
        let response = self.client.request(request).await.map_err(|source| network(source.into()))?;
        let status = response.status();
        let asked = response.headers().get(http::header::RETRY_AFTER);
        let asked = asked.and_then(|seconds| seconds.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let mut incoming = response.into_body();
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|source| network(source.into()))?;
            let Some(data) = frame.data_ref() else { continue };
            if body.len() + data.len() > VAULT_ANSWER_BYTES_MAX {
                let bytes_max = VAULT_ANSWER_BYTES_MAX;
                return Err((VaultError::AnswerTooLarge { what: what(), bytes_max }, None));
            }
            extend(&mut body, data);
        }
        let error = match status {
            status if status.is_success() => return Ok(Answer::Body(body)),
            StatusCode::NOT_FOUND => return Ok(Answer::Missing(body)),
            StatusCode::FORBIDDEN => VaultError::Denied { what: what() },
            StatusCode::TOO_MANY_REQUESTS => VaultError::Busy { what: what() },
            StatusCode::SERVICE_UNAVAILABLE if answer::is_sealed(&body) => {
                VaultError::Sealed { address: self.address.clone() }
            }
            status if status.is_redirection() => VaultError::Redirected { what: what() },
            status => VaultError::Status { what: what(), status: status.as_u16() },
        };
        Err((error, asked))
    }
}

/// Adds bytes without leaving a copy behind when the memory is outgrown.
fn extend(body: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if body.capacity() - body.len() < data.len() {
        let room = (2 * body.capacity()).max(body.len() + data.len());
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(data);
}

/// A path as it stands in a URL.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The one line of a file that only its owner may read.
pub(super) fn secret_line(path: &Path) -> Result<Zeroizing<String>, VaultError> {
    let failed = |source| VaultError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VaultError::Mode { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(VAULT_LINE_BYTES_MAX + 1));
    let limit = u64::try_from(VAULT_LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_string(&mut text).map_err(failed)?;
    let line = text.trim();
    if line.is_empty() || line.lines().count() > 1 || text.len() > VAULT_LINE_BYTES_MAX {
        return Err(VaultError::NoLine { path: path.to_owned() });
    }
    Ok(Zeroizing::new(line.to_owned()))
}

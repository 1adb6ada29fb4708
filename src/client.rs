//! A small HTTP client for the verbs that talk to a running Beeacon: one request, its answer as it comes.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest error answer that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("\"{url}\" is not a URL such as http://127.0.0.1:4880")]
    Url { url: String },
    #[error("certificates of {path} cannot be read")]
    Certificates { path: String },
    #[error("no Beeacon answers at {url}: is it running? (\"beeacon up\" starts one)")]
    Unreachable {
        url: String,
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    #[error("the answer broke off")]
    BrokeOff(#[source] hyper::Error),
    #[error("{status}: {message}")]
    Refused {
        status: StatusCode,
        message: String,
        /// Line and column in the query, from one, where they are known.
        place: Option<(u64, u64)>,
    },
}

impl ClientError {
    /// Line and column in the query, from one, where the server named them.
    pub(crate) fn place(&self) -> Option<(u64, u64)> {
        match self {
            ClientError::Refused { place, .. } => *place,
            _ => None,
        }
    }
}

/// A client for one server.
pub(crate) struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<String>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = ClientConfig::builder();
        let tls = match ca {
            None => tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
            Some(path) => tls.with_root_certificates(trusted(path)?).with_no_client_auth(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Client { http, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// Gets a path: the status, and at most [`ERROR_BYTES_MAX`] of the answer.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: &[(&'static str, HeaderValue)],
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request =
            request.body(Full::default()).map_err(|_| ClientError::Url { url: self.url.clone() })?;
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|source| ClientError::Unreachable { url: self.url.clone(), source })?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await;
        Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    }

    /// Posts JSON and gives the answer's body once its status is good.
    pub(crate) async fn post(
        &self,
        path: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> Result<Incoming, ClientError> {
        let mut request = Request::post(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ClientError::Url { url: self.url.clone() })?;
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|source| ClientError::Unreachable { url: self.url.clone(), source })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let (message, place) = message_of(&body);
        Err(ClientError::Refused { status, message, place })
    }
}

/// The envelope's message, with its place behind it, else the text as it is.
fn message_of(body: &[u8]) -> (String, Option<(u64, u64)>) {
    let envelope: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = envelope.as_ref().and_then(|envelope| envelope.get("error"));
    let Some(message) = error.and_then(|error| error.get("message")?.as_str()) else {
        return (String::from_utf8_lossy(body).trim().to_owned(), None);
    };
    let number = |key: &str| error.and_then(|error| error.get(key)?.as_u64());
    match (number("line"), number("column")) {
        (Some(line), Some(column)) => {
            (format!("{message} (line {line}, column {column})"), Some((line, column)))
        }
        _ => (message.to_owned(), None),
    }
}

fn trusted(path: &Path) -> Result<RootCertStore, ClientError> {
    let unreadable = || ClientError::Certificates { path: path.display().to_string() };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unreadable())? {
        let certificate = certificate.map_err(|_| unreadable())?;
        store.add(certificate).map_err(|_| unreadable())?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_its_place_in_the_query() {
        let body = br#"{"error":{"code":"syntax","message":"no column x","line":1,"column":8}}"#;
        assert_eq!(message_of(body), ("no column x (line 1, column 8)".to_owned(), Some((1, 8))));
        assert_eq!(message_of(b" plain \n"), ("plain".to_owned(), None));
    }
}

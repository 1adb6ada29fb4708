//! One push over HTTP. Redirects are not followed, and nothing of an answer is kept but its judgement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::answer::{Answer, FailureKind, judge};
use super::options::{LokiOptionError, LokiOptions};
use super::push::CONTENT_TYPE;
use crate::limits::{LOKI_ANSWER_BYTES_MAX, LOKI_CA_BYTES_MAX, LOKI_CONNECT_TIME_MAX};

/// Where systems keep the certificates they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

type HyperClient = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Pushes to one Loki.
pub(super) struct Client {
    client: HyperClient,
    url: Uri,
    headers: HeaderMap,
    time_max: Duration,
}

impl Client {
    pub(super) fn new(options: &LokiOptions) -> Result<Self, LokiOptionError> {
        options.check_labels()?;
        let url = options.push_url()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("beeacon"));
        if let Some(authorization) = options.authorization()? {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        if let Some(tenant) = &options.tenant {
            let value =
                HeaderValue::from_str(tenant).map_err(|_| LokiOptionError::Header { option: "tenant" })?;
            headers.insert("x-scope-orgid", value);
        }
        let roots = match url.scheme_str() {
            Some("https") => trusted(options.certificate_file.as_deref())?,
            _ => RootCertStore::empty(),
        };
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|_| LokiOptionError::Tls)?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(LOKI_CONNECT_TIME_MAX));
        http.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Client { client, url, headers, time_max: options.push_time_max })
    }

    /// Sends one compressed push.
    pub(super) async fn push(&self, body: Bytes) -> Answer {
        let again = |kind| Answer::Again { kind, after: None };
        match tokio::time::timeout(self.time_max, self.exchange(body)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => again(FailureKind::Connection),
            Err(_) => again(FailureKind::Timeout),
        }
    }

    async fn exchange(&self, body: Bytes) -> Option<Answer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let response = self.client.request(request).await.ok()?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        let retry_after = retry_after.as_ref().and_then(|value| value.to_str().ok());
        let text = beginning(response.into_body()).await;
        Some(judge(status, retry_after, &text))
    }
}

/// The beginning of an answer's text; what does not come counts as not said.
async fn beginning(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(part)) = body.frame().await {
        if let Some(data) = part.data_ref() {
            let room = LOKI_ANSWER_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or(data));
        }
        if bytes.len() >= LOKI_ANSWER_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The certificates to trust: those of the file named, else the system's.
fn trusted(file: Option<&Path>) -> Result<RootCertStore, LokiOptionError> {
    let system = || SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = file.map(Path::to_path_buf).or_else(system).unwrap_or_default();
    let refuse = || LokiOptionError::Certificates { path: path.clone() };
    let bytes = std::fs::metadata(&path).map_err(|_| refuse())?.len();
    if bytes > LOKI_CA_BYTES_MAX {
        return Err(refuse());
    }
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|_| refuse())?;
    let (added, _) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if added == 0 { Err(refuse()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_for_https_needs_certificates_and_says_where_it_looked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let options =
            LokiOptions { certificate_file: Some(path.clone()), ..LokiOptions::new("https://loki") };
        assert_eq!(Client::new(&options).err(), Some(LokiOptionError::Certificates { path }));
        let missing = LokiOptions { certificate_file: Some("/nowhere".into()), ..options.clone() };
        assert!(Client::new(&missing).is_err());
        let plain = LokiOptions { url: "http://loki".into(), ..options };
        assert!(Client::new(&plain).is_ok(), "http needs none");
    }
}

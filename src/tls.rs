//! TLS of the doors: the server's certificate and the certificates that agents have to show, which both may change while it runs.
//!
//! What always holds: files that cannot be used leave those before in use, which is told; without a certificate that an authority
//! of `http.client_ca` has signed, nobody ships where that is set. Who an agent's certificate names plays no part. A connection keeps
//! what it was accepted with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use beeacon_access::refusal;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::stamp::{Settling, Stamp, stamp};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The files, PEM.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The authorities of which one must have signed an agent's certificate; no agent needs one without.
    pub(crate) client_ca: Option<PathBuf>,
}

/// TLS, ready to accept.
pub(crate) struct Tls {
    /// For HTTP: asks for a certificate where agents have to show one.
    pub(crate) http: Acceptor,
    /// For clients of PostgreSQL, who are never asked.
    pub(crate) postgres: TlsAcceptor,
    /// Whether agents have to show a certificate.
    pub(crate) is_shown: bool,
    current: Arc<Current>,
    files: TlsFiles,
}

/// Accepts the next connection as the files say now. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<RwLock<TlsAcceptor>>);

impl Acceptor {
    /// For one connection.
    pub(crate) fn get(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(files: &TlsFiles) -> anyhow::Result<Self> {
        let current = Arc::new(Current(RwLock::new(Arc::new(certified(files)?))));
        let unasked = ServerConfig::builder().with_no_client_auth().with_cert_resolver(current.clone());
        let postgres = TlsAcceptor::from(Arc::new(unasked));
        let http = match &files.client_ca {
            None => postgres.clone(),
            Some(path) => asking(path, current.clone())?,
        };
        let http = Acceptor(Arc::new(RwLock::new(http)));
        Ok(Tls { http, postgres, is_shown: files.client_ca.is_some(), current, files: files.clone() })
    }

    /// Takes changed certificates into use, for ever.
    pub(crate) fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let (http, current, files) = (self.http.clone(), self.current.clone(), self.files.clone());
        async move {
            let mut own = Settling::new(own(&files));
            let mut authorities = Settling::new(files.client_ca.as_deref().and_then(stamp));
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if own.is_new(self::own(&files)) {
                    current.renew(&files);
                }
                if authorities.is_new(files.client_ca.as_deref().and_then(stamp)) {
                    http.renew(&files, &current);
                }
            }
        }
    }
}

impl Current {
    fn renew(&self, files: &TlsFiles) {
        match certified(files) {
            Ok(certified) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                tracing::info!("another certificate is in use");
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the changed certificate is refused, the one before stays"
                );
            }
        }
    }
}

impl Acceptor {
    /// Sessions that were begun with the authorities before are not resumed either: they belong to the acceptor.
    fn renew(&self, files: &TlsFiles, current: &Arc<Current>) {
        let Some(path) = &files.client_ca else { return };
        match asking(path, current.clone()) {
            Ok(acceptor) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!("other authorities of agents' certificates are in use");
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the changed authorities of agents' certificates are refused, those before stay"
                );
            }
        }
    }
}

/// Asks for a certificate of one of these authorities.
fn asking(path: &Path, current: Arc<Current>) -> anyhow::Result<TlsAcceptor> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.with_context(|| format!("use the authorities in {}", path.display()))?;
    }
    // Browsers and Grafana come through the same port: who shows none is refused at the agents' doors.
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
    let verifier = verifier.with_context(|| format!("use the authorities in {}", path.display()))?;
    let asked = ServerConfig::builder().with_client_cert_verifier(verifier);
    Ok(TlsAcceptor::from(Arc::new(asked.with_cert_resolver(current))))
}

fn own(files: &TlsFiles) -> [Stamp; 2] {
    [stamp(&files.certificate), stamp(&files.key)]
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let all = all.with_context(|| format!("read the certificates in {}", path.display()))?;
    anyhow::ensure!(!all.is_empty(), "no certificate is in {}", path.display());
    Ok(all)
}

fn certified(files: &TlsFiles) -> anyhow::Result<CertifiedKey> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("read the private key in {}", files.key.display()))?;
    let builder = ServerConfig::builder();
    CertifiedKey::from_der(chain, key, builder.crypto_provider()).context("use the certificate with its key")
}

/// On a request whose connection came with a certificate that is good.
#[derive(Clone, Copy)]
pub(crate) struct Shown;

/// Lets those through who have shown a good certificate.
pub(crate) async fn certificate_shown(request: Request, next: Next) -> Response {
    if request.extensions().get::<Shown>().is_none() {
        let message =
            "a certificate of an authority in http.client_ca is needed here: agent.client_certificate";
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized", message);
    }
    next.run(request).await
}

#[cfg(test)]
#[path = "../tests/shared/certificates.rs"]
mod certificates;

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use beeacon_agent::ship::http::{ClientFiles, Collector, chain};
    use beeacon_record::wire::INGEST_PATH;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;

    const HOST: &str = "IP:127.0.0.1";

    struct Served {
        url: String,
        files: TlsFiles,
        tls: Arc<Tls>,
        _stop: watch::Sender<bool>,
    }

    async fn serve(directory: &Path) -> Served {
        certificates::make(directory, "server", HOST, Some("ours"));
        let files = TlsFiles {
            certificate: directory.join("server.crt"),
            key: directory.join("server.key"),
            client_ca: Some(directory.join("ours.crt")),
        };
        let tls = Tls::open(&files).unwrap();
        let agents = Router::new().route(INGEST_PATH, post(|| async { "taken" }));
        let agents = agents.layer(axum::middleware::from_fn(certificate_shown));
        let router = agents.route("/open", post(|| async { "open" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        let tls = Arc::new(tls);
        tokio::spawn(crate::doors::serve(listener, Some(tls.http.clone()), router, stopped));
        Served { url, files, tls, _stop: stop }
    }

    async fn ask(url: &str, roots: &Path, identity: Option<ClientFiles>, path: &str) -> Result<u16, String> {
        let collector = Collector::first_of([url], None, Some(roots), identity.as_ref()).unwrap();
        let answer = collector.request(axum::http::Method::POST, path, None, bytes::Bytes::new()).await;
        answer.map(|answer| answer.status).map_err(|error| chain(&error))
    }

    fn identity(directory: &Path, name: &str) -> Option<ClientFiles> {
        Some(ClientFiles {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn agents_ship_only_with_a_certificate_of_the_named_authority() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        certificates::make(directory, "agent", HOST, Some("ours"));
        certificates::make(directory, "stranger", HOST, Some("theirs"));
        let served = serve(directory).await;
        let (url, roots) = (served.url.as_str(), directory.join("ours.crt"));
        assert_eq!(ask(url, &roots, identity(directory, "agent"), INGEST_PATH).await, Ok(200));
        assert_eq!(ask(url, &roots, None, INGEST_PATH).await, Ok(401));
        assert_eq!(ask(url, &roots, None, "/open").await, Ok(200), "people need none");
        let stranger = ask(url, &roots, identity(directory, "stranger"), INGEST_PATH).await;
        assert!(stranger.is_err(), "the handshake fails: {stranger:?}");
        // The agent does not speak to whom it does not know either.
        assert!(ask(url, &directory.join("theirs.crt"), None, "/open").await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_certificate_is_used_for_the_next_connection_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let served = serve(directory).await;
        let ours = directory.join("ours.crt");
        std::fs::write(&served.files.certificate, "nothing").unwrap();
        served.tls.current.renew(&served.files);
        assert_eq!(ask(&served.url, &ours, None, "/open").await, Ok(200));
        certificates::make(directory, "server", HOST, Some("new"));
        served.tls.current.renew(&served.files);
        assert!(ask(&served.url, &ours, None, "/open").await.is_err());
        assert_eq!(ask(&served.url, &directory.join("new.crt"), None, "/open").await, Ok(200));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_authorities_count_for_the_next_connection_and_a_file_without_any_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        certificates::make(directory, "agent", HOST, Some("ours"));
        certificates::make(directory, "stranger", HOST, Some("theirs"));
        let served = serve(directory).await;
        let (url, roots) = (served.url.as_str(), directory.join("roots.crt"));
        std::fs::copy(directory.join("ours.crt"), &roots).unwrap();
        let renew = || served.tls.http.renew(&served.files, &served.tls.current);
        std::fs::write(directory.join("ours.crt"), "nothing").unwrap();
        renew();
        assert_eq!(ask(url, &roots, identity(directory, "agent"), INGEST_PATH).await, Ok(200));
        std::fs::copy(directory.join("theirs.crt"), directory.join("ours.crt")).unwrap();
        renew();
        assert_eq!(ask(url, &roots, identity(directory, "stranger"), INGEST_PATH).await, Ok(200));
        let agent = ask(url, &roots, identity(directory, "agent"), INGEST_PATH).await;
        assert!(agent.is_err(), "the handshake fails: {agent:?}");
    }
}

//! TLS to Redis: a URL that begins with `rediss://`. Who Redis is, is known by certificates that are named; nothing else is trusted.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::RedisFault;

/// The port where nobody says one.
const PORT: u16 = 6379;

/// The way to one server.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    address: (String, u16),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Tls {
    /// To the server of this URL, trusted by the certificates in a PEM file.
    pub(super) fn new(url: &str, certificates: &Path) -> Result<Tls, RedisFault> {
        let url = redis::parse_redis_url(url).ok_or(RedisFault::Url)?;
        // A fragment is how other clients are told to trust anybody.
        let host = url.host_str().filter(|_| url.fragment().is_none()).ok_or(RedisFault::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| RedisFault::Url)?;
        let nothing = || RedisFault::Certificates { path: certificates.to_owned() };
        let mut trusted = RootCertStore::empty();
        let found = CertificateDer::pem_file_iter(certificates).map_err(|_| nothing())?;
        trusted.add_parsable_certificates(found.filter_map(Result::ok));
        if trusted.is_empty() {
            return Err(nothing());
        }
        let config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Tls { connector, name, address: (host, url.port().unwrap_or(PORT)) })
    }

    /// A connection whose other end has shown a certificate of the name that is wanted.
    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let (host, port) = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(self.name.clone(), stream).await
    }
}

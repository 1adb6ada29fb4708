//! One mail to one server, over a connection to an address that the policy let through.
//!
//! A recipient that is refused for good does not keep the mail from the others; one that is refused for now does, for the mail
//! is tried again as a whole, and nobody gets it twice. What the server says is not repeated, only its number.
//!
//! What always holds: without TLS a mail goes to this host only; with `STARTTLS` no byte that came before TLS is read as one
//! that came within it (see [`Wire`]); a server without `STARTTLS` is given nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::send::{Outcome, SendError, Sender};
use crate::limits::{GOOD_BYE_TIME_MAX, MAIL_TIME_MAX};
use crate::notify::config::{Email, MailSecurity};

impl Sender {
    /// Sends a mail that is written already.
    pub(super) async fn mail(&self, email: &Email, mail: &[u8]) -> Outcome {
        let again = |error: SendError| Outcome::Again { why: error.to_string(), after: None };
        match tokio::time::timeout(MAIL_TIME_MAX, self.exchange_mail(email, mail)).await {
            Ok(Ok(mut connection)) => {
                // It is taken, whether or not the server says good-bye.
                drop(tokio::time::timeout(GOOD_BYE_TIME_MAX, connection.abort()).await);
                Outcome::Delivered
            }
            Ok(Err(error @ (SendError::Answer { is_for_good: true, .. } | SendError::Recipients(_)))) => {
                Outcome::Never(error.to_string())
            }
            Ok(Err(error)) => again(error),
            Err(_) => again(SendError::MailTime),
        }
    }

    /// Gives the mail away. What is left of the connection is for saying good-bye.
    async fn exchange_mail(&self, email: &Email, mail: &[u8]) -> Result<AsyncSmtpConnection, SendError> {
        let mut connection = self.connect_mail(email).await?;
        give(&mut connection, email, mail).await?;
        Ok(connection)
    }

    /// A connection that is greeted, guarded and logged in.
    async fn connect_mail(&self, email: &Email) -> Result<AsyncSmtpConnection, SendError> {
        let target = self.policy.mail_server(&email.host, email.port)?;
        let host = target.host();
        let stream = self.connect(&target).await?;
        let failed = |_| SendError::Exchange(host.clone());
        let peer = stream.peer_addr().map_err(failed)?;
        let own = match stream.local_addr().map_err(failed)?.ip() {
            IpAddr::V4(own) => ClientId::Ipv4(own),
            IpAddr::V6(own) => ClientId::Ipv6(own),
        };
        let wire: Box<dyn AsyncTokioStream> = match email.security {
            MailSecurity::None if !peer.ip().is_loopback() => {
                return Err(SendError::NotThisHost(peer.ip()));
            }
            MailSecurity::None => Box::new(Wire { stream, peer, is_before_tls: false }),
            MailSecurity::StartTls => Box::new(Wire { stream, peer, is_before_tls: true }),
            MailSecurity::Tls => {
                let no_tls = || SendError::Tls { host: host.clone() };
                let name = ServerName::try_from(host.clone()).map_err(|_| no_tls())?;
                let stream = self.tls.connect(name, stream).await.map_err(|_| no_tls())?;
                Box::new(Wire { stream, peer, is_before_tls: false })
            }
        };
        let answer = |error: Error| answer(&host, &error);
        let mut connection = AsyncSmtpConnection::connect_with_transport(wire, &own).await.map_err(answer)?;
        if email.security == MailSecurity::StartTls {
            if !connection.can_starttls() {
                return Err(SendError::StartTls(host));
            }
            let parameters = self.tls_parameters(&host)?;
            connection.starttls(parameters, &own).await.map_err(|error| {
                error.status().map_or_else(|| SendError::Tls { host: host.clone() }, |_| answer(error))
            })?;
        }
        if let Some((user, password)) = &email.login {
            let known = [Mechanism::Plain, Mechanism::Login];
            if connection.server_info().get_auth_mechanism(&known).is_none() {
                return Err(SendError::Login(host));
            }
            let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
            connection.auth(&known, &credentials).await.map_err(answer)?;
        }
        Ok(connection)
    }

    fn tls_parameters(&self, host: &str) -> Result<TlsParameters, SendError> {
        let no_tls = |_| SendError::Tls { host: host.to_owned() };
        let mut parameters =
            TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
        for certificate in &self.certificates {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(no_tls)?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build().map_err(no_tls)
    }
}

/// Gives the mail for all recipients that are not refused for good.
async fn give(connection: &mut AsyncSmtpConnection, email: &Email, mail: &[u8]) -> Result<(), SendError> {
    let host = &email.host;
    let answer = |error: Error| answer(host, &error);
    let is_ascii = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    let mut parameters = Vec::new();
    if !is_ascii(&email.from.email) || !email.to.iter().all(|to| is_ascii(&to.email)) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(SendError::Recipients(host.clone()));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let from = Some(email.from.email.clone());
    connection.command(Mail::new(from, parameters)).await.map_err(answer)?;
    let mut taken = 0_usize;
    for to in &email.to {
        match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
            Ok(_) => taken += 1,
            Err(error) if error.is_permanent() => {
                let code = error.status().map_or(0, u16::from);
                tracing::warn!(server = host, code, "a recipient of alerts is refused by the mail server");
            }
            Err(error) => return Err(answer(error)),
        }
    }
    if taken == 0 {
        return Err(SendError::Recipients(host.clone()));
    }
    connection.command(Data).await.map_err(answer)?;
    connection.message(mail).await.map_err(answer)?;
    Ok(())
}

/// What the server answered, or that it did not.
fn answer(host: &str, error: &Error) -> SendError {
    match error.status() {
        Some(code) => {
            SendError::Answer { host: host.to_owned(), code: code.into(), is_for_good: error.is_permanent() }
        }
        None => SendError::Exchange(host.to_owned()),
    }
}

/// The bytes to and from a mail server.
///
/// Before TLS it hands out one byte at a time. So whoever reads lines holds none beyond the line it asked for, and what somebody
/// put behind the server's consent to `STARTTLS` goes to TLS, which ends over it, and is not taken for an answer. TLS itself
/// shows by the first byte that is written of it, a handshake's.
#[derive(Debug)]
struct Wire<S> {
    stream: S,
    peer: SocketAddr,
    is_before_tls: bool,
}

/// The first byte of TLS: the type of a record that holds a handshake.
const TLS_HANDSHAKE: u8 = 22;

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> AsyncTokioStream for Wire<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_before_tls || buffer.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let mut byte = [0_u8];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut one))?;
        buffer.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            self.is_before_tls = false;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! Takes syslog in over TCP and UDP.
//!
//! Syslog knows no answer. Over TCP nothing more is read from a connection before what was read stands in the spool, so a full
//! spool holds senders back. Over UDP what nobody takes in time is lost in the kernel's buffer, uncounted: use TCP where that matters.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::syslog::{next_message, parse};
use super::{Door, PushError, PushLine, PushSender, SyslogConfig, Transport};
use crate::backoff::Backoff;
use crate::limits::{DATAGRAM_BYTES_MAX, SYSLOG_CONNECTIONS_MAX, SYSLOG_READ_BYTES};

/// An open syslog door.
pub struct SyslogDoor {
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

impl SyslogDoor {
    /// Opens the door, so that its address is taken or refused before anything else starts.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub async fn open(config: SyslogConfig) -> std::io::Result<Self> {
        let mut listen = config.listen;
        let tcp = match config.transport {
            Transport::Udp => None,
            Transport::Tcp | Transport::Both => Some(TcpListener::bind(listen).await?),
        };
        // With port 0 the system chooses, the same for both.
        if let Some(tcp) = &tcp {
            listen = tcp.local_addr()?;
        }
        let udp = match config.transport {
            Transport::Tcp => None,
            Transport::Udp | Transport::Both => Some(UdpSocket::bind(listen).await?),
        };
        Ok(SyslogDoor { tcp, udp })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        let tcp = self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        tcp.or_else(|| self.udp.as_ref().and_then(|udp| udp.local_addr().ok()))
    }

    /// Serves until told to stop; what was read by then is handed over.
    pub async fn serve(self, lane: PushSender, stop: CancellationToken) {
        let SyslogDoor { tcp, udp } = self;
        let by_tcp = async {
            if let Some(listener) = tcp {
                serve_tcp(listener, lane.clone(), stop.clone()).await;
            }
        };
        let by_udp = async {
            if let Some(socket) = udp {
                serve_udp(socket, lane.clone(), stop.clone()).await;
            }
        };
        tokio::join!(by_tcp, by_udp);
    }
}

async fn serve_tcp(listener: TcpListener, lane: PushSender, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(SYSLOG_CONNECTIONS_MAX));
    let mut backoff = Backoff::default();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                let (lane, stop) = (lane.clone(), stop.clone());
                tokio::spawn(async move {
                    connection(stream, peer, &lane, &stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a syslog connection");
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, lane: &PushSender, stop: &CancellationToken) {
    let name = peer.ip().to_string();
    if let Err(error) = read_all(stream, &name, lane, stop).await {
        tracing::warn!(%peer, %error, "closing a syslog connection");
    }
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Framing(#[from] super::syslog::FramingError),
    #[error("read from the connection: {0}")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Push(#[from] PushError),
}

async fn read_all(
    mut stream: impl AsyncRead + Unpin,
    peer: &str,
    lane: &PushSender,
    stop: &CancellationToken,
) -> Result<(), ConnectionError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(SYSLOG_READ_BYTES);
        let read = tokio::select! {
            read = stream.read_buf(&mut buffer) => read,
            () = stop.cancelled() => Ok(0),
        };
        // What has come before a connection broke counts all the same.
        let ends = !matches!(read, Ok(1..));
        let mut lines = Vec::new();
        let framing = loop {
            match next_message(&mut buffer) {
                Ok(Some(message)) => lines.push(parse(&message, peer)),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if ends && framing.is_ok() && !buffer.is_empty() {
            let mut line = parse(&buffer.split().freeze(), peer);
            line.attributes.push(("truncated".to_owned(), "eof".to_owned()));
            lines.push(line);
        }
        insist(lane, lines, stop).await?;
        framing?;
        if ends {
            return read.map(|_| ()).map_err(ConnectionError::Read);
        }
    }
}

/// Hands lines over again and again while there is no room.
async fn insist(lane: &PushSender, lines: Vec<PushLine>, stop: &CancellationToken) -> Result<(), PushError> {
    let lines = Arc::new(lines);
    let mut backoff = Backoff::default();
    loop {
        match lane.deliver(Door::Syslog, lines.clone()).await {
            Err(PushError::Full) => {}
            result => return result,
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = stop.cancelled() => return Err(PushError::Full),
        }
    }
}

async fn serve_udp(socket: UdpSocket, lane: PushSender, stop: CancellationToken) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut take = |buffer: &[u8], length: usize, peer: SocketAddr| {
            let datagram = buffer.get(..length).unwrap_or(&[]);
            let end =
                datagram.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |at| at + 1);
            if end > 0 {
                let message = Bytes::copy_from_slice(datagram.get(..end).unwrap_or(&[]));
                lines.push(parse(&message, &peer.ip().to_string()));
            }
            length
        };
        match received {
            Ok((length, peer)) => bytes += take(&buffer, length, peer),
            Err(error) => {
                tracing::warn!(%error, "cannot receive a syslog datagram");
                tokio::time::sleep(crate::limits::BACKOFF_MIN).await;
                continue;
            }
        }
        // All that is there already goes with it: one sync for many datagrams.
        while bytes < SYSLOG_READ_BYTES
            && let Ok((length, peer)) = socket.try_recv_from(&mut buffer)
        {
            bytes += take(&buffer, length, peer);
        }
        if let Err(error) = insist(&lane, lines, &stop).await {
            tracing::warn!(%error, "syslog datagrams were not kept");
            return;
        }
    }
}

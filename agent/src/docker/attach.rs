//! Fetches one log stream from Docker and hands its pieces to the pump.
//!
//! One attach, one task, bounded: a portion of at most [`PORTION_BYTES`] (and one piece more) waits for room in the queue,
//! which slows the stream down and nothing else. The task ends with its stream and says how; whether to attach again is the
//! pump's business. The end comes through the same queue, behind the last piece.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::mpsc;

use super::api::OwnedPiece;
use super::api_stream::{Decoder, Framing, Item};
use super::host::{DockerHost, next_bytes};
use crate::limits::PORTION_BYTES;
use crate::metrics::Metrics;

/// How an attach ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachEnd {
    /// The stream ended: the container stopped, or Docker closed it.
    Ended,
    /// Docker does not know the container any more, or is removing it.
    Gone,
    /// The log driver keeps nothing that could be read.
    Unsupported,
    /// Docker could not be asked, or the stream broke.
    Failed,
}

/// Pieces of one attach.
pub struct Portion {
    /// The container.
    pub container: Arc<str>,
    /// Which attach.
    pub attach: u64,
    /// The pieces, in order.
    pub pieces: Vec<OwnedPiece>,
    /// Set in the last portion.
    pub end: Option<AttachEnd>,
}

/// What to attach to.
pub struct Attach {
    /// Where Docker listens.
    pub host: DockerHost,
    /// The container.
    pub container: Arc<str>,
    /// The number that its portions carry.
    pub attach: u64,
    /// How the stream is framed.
    pub framing: Framing,
    /// From when; `None` for everything.
    pub since_ns: Option<i64>,
}

impl Attach {
    /// Reads the stream to its end, or until nobody listens any more.
    pub async fn run(self, portions: mpsc::Sender<Portion>, metrics: Metrics) {
        metrics.attaches.inc();
        let end = self.read(&portions, &metrics).await;
        if let Some(end) = end {
            let portion = self.portion(Vec::new(), Some(end));
            // Nobody listens when the agent stops.
            portions.send(portion).await.ok();
        }
    }

    fn portion(&self, pieces: Vec<OwnedPiece>, end: Option<AttachEnd>) -> Portion {
        Portion { container: self.container.clone(), attach: self.attach, pieces, end }
    }

    /// `None` when nobody listens.
    async fn read(&self, portions: &mpsc::Sender<Portion>, metrics: &Metrics) -> Option<AttachEnd> {
        let (status, mut body) = match self.host.logs(&self.container, self.since_ns).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(container = %self.container, %error, "cannot open a log stream");
                return Some(AttachEnd::Failed);
            }
        };
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => return Some(AttachEnd::Gone),
            StatusCode::NOT_IMPLEMENTED => return Some(AttachEnd::Unsupported),
            _ => {
                tracing::debug!(container = %self.container, %status, "docker refuses a log stream");
                return Some(AttachEnd::Failed);
            }
        }
        let mut decoder = Decoder::new(self.framing);
        let mut gathering = Gathering { attach: self, portions, metrics, pieces: Vec::new(), bytes: 0 };
        loop {
            let bytes = match next_bytes(&mut body).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(container = %self.container, %error, "a log stream broke");
                    return Some(AttachEnd::Failed);
                }
            };
            decoder.feed(&bytes);
            loop {
                match decoder.next_item() {
                    Ok(Some(item)) => gathering.add(item),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(container = %self.container, %error, "a log stream makes no sense");
                        return Some(AttachEnd::Failed);
                    }
                }
                if gathering.bytes >= PORTION_BYTES && !gathering.send().await {
                    return None;
                }
            }
            if !gathering.send().await {
                return None;
            }
        }
        while let Some(item) = decoder.finish() {
            gathering.add(item);
        }
        gathering.send().await.then_some(AttachEnd::Ended)
    }
}

struct Gathering<'a> {
    attach: &'a Attach,
    portions: &'a mpsc::Sender<Portion>,
    metrics: &'a Metrics,
    pieces: Vec<OwnedPiece>,
    bytes: usize,
}

impl Gathering<'_> {
    fn add(&mut self, item: Item<'_>) {
        match item {
            Item::Piece { stream, timestamp_ns, ends_line, text } => {
                // 64 is about what an empty piece costs.
                self.bytes += text.len() + 64;
                self.pieces.push(OwnedPiece { stream, timestamp_ns, ends_line, text: text.to_vec() });
            }
            Item::DaemonError => {
                self.metrics.daemon_errors.inc();
                tracing::warn!(container = %self.attach.container, "docker reports an error within a log stream");
            }
            Item::Damaged { bytes } => {
                self.metrics.damaged_bytes.inc_by(bytes as u64);
            }
        }
    }

    /// `false` when nobody listens.
    async fn send(&mut self) -> bool {
        if self.pieces.is_empty() {
            return true;
        }
        self.bytes = 0;
        let portion = self.attach.portion(std::mem::take(&mut self.pieces), None);
        self.portions.send(portion).await.is_ok()
    }
}

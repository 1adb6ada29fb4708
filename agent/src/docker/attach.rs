//! Fetches one log stream from Docker and hands its pieces to the pump.
//!
//! One attach, one task, bounded: a portion of at most [`PORTION_BYTES`] (and one piece more) waits for room in the queue,
//! which slows the stream down and nothing else. The task ends with its stream and says how; whether to attach again is the
//! pump's business. The end comes through the same queue, behind the last piece.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::api::OwnedPiece;
use super::api_stream::{Decoder, Framing, Item};
use super::host::{DockerHost, HostError, next_bytes};
use crate::clock::ClockMark;
use crate::limits::{
    CLOCK_LOOK_EVERY, CLOCK_STEP_NS_MIN, DOCKER_ANSWER_WITHIN, PORTION_BYTES, STREAM_PROBE_AFTER,
    STREAM_PROBE_BYTES_MAX, STREAM_PROBE_GRACE,
};
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
    /// The clock has been set back by so many nanoseconds, or nobody knows how far: what has come since may lie before the time from
    /// which Docker was asked.
    SetBack {
        /// How far.
        by_ns: Option<i64>,
    },
}

/// What a stream brought next.
enum Next {
    Bytes(Result<Option<Bytes>, HostError>),
    /// It is to be opened anew.
    Over(AttachEnd),
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
        let opened = ClockMark::now();
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
        let mut gathering =
            Gathering { attach: self, portions, metrics, pieces: Vec::new(), bytes: 0, last_ns: None };
        loop {
            let next = match self.next(&mut body, gathering.last_ns, opened).await {
                Next::Bytes(next) => next,
                Next::Over(end) => {
                    metrics.healed_streams.inc();
                    tracing::warn!(
                        container = %self.container,
                        "docker has entries that a log stream does not bring, opening it anew"
                    );
                    return Some(end);
                }
            };
            let bytes = match next {
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

    /// Waits for what comes next, and looks meanwhile whether it still can come.
    async fn next(&self, body: &mut Incoming, last_ns: Option<i64>, opened: ClockMark) -> Next {
        let mut heard_at = Instant::now();
        loop {
            let next = tokio::time::timeout(CLOCK_LOOK_EVERY, next_bytes(body)).await;
            let by_ns = ClockMark::now().step_back_ns(opened);
            if self.since_ns.is_some() && by_ns >= CLOCK_STEP_NS_MIN {
                return Next::Over(AttachEnd::SetBack { by_ns: Some(by_ns) });
            }
            if let Ok(next) = next {
                return Next::Bytes(next);
            }
            if heard_at.elapsed() < STREAM_PROBE_AFTER {
                continue;
            }
            heard_at = Instant::now();
            // The stream may break, or speak again, while Docker is asked.
            let end = tokio::select! {
                next = next_bytes(body) => return Next::Bytes(next),
                end = self.probe(last_ns) => end,
            };
            let Some(end) = end else { continue };
            // What Docker has may be on its way.
            return match tokio::time::timeout(STREAM_PROBE_GRACE, next_bytes(body)).await {
                Ok(next) => Next::Bytes(next),
                Err(_) => Next::Over(end),
            };
        }
    }

    /// How the stream has to end if Docker's log ends in another entry than the one that came last. A daemon that does not say counts
    /// as one that has nothing more.
    async fn probe(&self, last_ns: Option<i64>) -> Option<AttachEnd> {
        let asking = tokio::time::timeout(DOCKER_ANSWER_WITHIN, self.last_entry_ns());
        let there_ns = asking.await.ok().flatten().filter(|there_ns| last_ns != Some(*there_ns))?;
        let is_left_out = self.since_ns.is_some_and(|since_ns| there_ns < since_ns);
        Some(if is_left_out { AttachEnd::SetBack { by_ns: None } } else { AttachEnd::Failed })
    }

    async fn last_entry_ns(&self) -> Option<i64> {
        let (status, mut body) = self.host.last_entry(&self.container).await.ok()?;
        if status != StatusCode::OK {
            return None;
        }
        let (mut decoder, mut last_ns, mut bytes) = (Decoder::new(self.framing), None, 0);
        let mut note = |item: Item<'_>| {
            if let Item::Piece { timestamp_ns, .. } = item {
                last_ns = Some(timestamp_ns);
            }
        };
        while let Some(part) = next_bytes(&mut body).await.ok()? {
            bytes += part.len();
            if bytes > STREAM_PROBE_BYTES_MAX {
                return None;
            }
            decoder.feed(&part);
            while let Some(item) = decoder.next_item().ok()? {
                note(item);
            }
        }
        while let Some(item) = decoder.finish() {
            note(item);
        }
        last_ns
    }
}

struct Gathering<'a> {
    attach: &'a Attach,
    portions: &'a mpsc::Sender<Portion>,
    metrics: &'a Metrics,
    pieces: Vec<OwnedPiece>,
    bytes: usize,
    /// The timestamp of the last piece that came.
    last_ns: Option<i64>,
}

impl Gathering<'_> {
    fn add(&mut self, item: Item<'_>) {
        match item {
            Item::Piece { stream, timestamp_ns, ends_line, text } => {
                // 64 is about what an empty piece costs.
                self.bytes += text.len() + 64;
                self.last_ns = Some(timestamp_ns);
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

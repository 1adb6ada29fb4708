//! The way of lines that cannot be read again: gathered into batches, scrubbed, encoded, and kept in the spool before anybody is
//! answered. One thread; it blocks for the spool's syncs.
//!
//! What always holds: an answer that is good covers every line of the delivery; after one that is not, none or some of them were
//! kept, and the sender has to send all of them again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use beeacon_record::limits::{ATTRIBUTES_MAX, BATCH_TEXT_BYTES_TARGET, LINE_BYTES_MAX};
use beeacon_record::{
    AgentId, BatchBuilder, Epoch, FrameEncoder, Interval, Level, Line, Origin, OriginId, Position, Source,
    Stream,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Door, PushLine};
use crate::clock::now_ns;
use crate::docker::merge::cut_place;
use crate::event::Event;
use crate::filter::{self, Cutter, Filter};
use crate::level;
use crate::limits::{PUSH_ORIGINS_MAX, PUSHES_MAX};
use crate::metrics::Metrics;
use crate::names::Names;
use crate::spool::{Kept, SharedSpool, SpoolError, lock};
use crate::status::Health;

/// Why lines were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room; later there may be.
    #[error("the agent's spool is full, try again later")]
    Full,
    /// The agent is about to stop.
    #[error("the agent is stopping")]
    Stopping,
    /// The pollen filter has failed, so nothing is taken any more.
    #[error("the agent's pollen filter has failed")]
    Filter,
    /// The spool's disk has failed.
    #[error("the agent's spool has failed")]
    Spool,
}

/// Lines, and whom to answer.
struct Delivery {
    door: Door,
    lines: Arc<Vec<PushLine>>,
    answer: oneshot::Sender<Result<(), PushError>>,
}

/// The doors' end of the lane. Cheap to clone; the lane ends when the last one is gone.
#[derive(Clone)]
pub struct PushSender {
    sender: mpsc::Sender<Delivery>,
}

impl PushSender {
    /// Hands over lines; comes back when they survive a power cut.
    ///
    /// # Errors
    /// When they have to be sent again, or nothing is taken any more.
    pub async fn deliver(&self, door: Door, lines: Arc<Vec<PushLine>>) -> Result<(), PushError> {
        if lines.is_empty() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let delivery = Delivery { door, lines, answer };
        self.sender.send(delivery).await.map_err(|_| PushError::Stopping)?;
        answered.await.unwrap_or(Err(PushError::Stopping))
    }
}

/// What the lane is given.
pub struct LaneParts {
    /// The agent's id.
    pub agent: AgentId,
    /// The epoch of positions, higher than that of every earlier start.
    pub epoch: u64,
    /// The host's name.
    pub host: String,
    /// The zstd level of frames.
    pub compression_level: i32,
    /// The pollen filter that is in use at the time.
    pub filter: Arc<dyn Fn() -> Arc<dyn Filter> + Send + Sync>,
    /// Where frames are kept.
    pub spool: SharedSpool,
    /// What is counted.
    pub metrics: Metrics,
    /// What works.
    pub health: Arc<Health>,
    /// Wakes the pump, which ships what is in the spool.
    pub wake: Arc<Notify>,
    /// Tells the pump that the spool has failed.
    pub reports: mpsc::Sender<Event>,
}

/// One door's place.
struct Place {
    source: Source,
    /// What is durable ends here.
    from: Position,
    next: Position,
    is_touched: bool,
}

/// See the module.
pub struct Lane {
    parts: LaneParts,
    filter: Arc<dyn Filter>,
    deliveries: mpsc::Receiver<Delivery>,
    encoder: FrameEncoder,
    builder: BatchBuilder,
    places: BTreeMap<Door, Place>,
    origins: HashMap<(Door, Arc<Origin>), OriginId>,
    names: Names,
}

impl Lane {
    /// A lane and its other end.
    ///
    /// # Errors
    /// When frames cannot be compressed at this level.
    pub fn new(parts: LaneParts) -> Result<(Self, PushSender), beeacon_record::FrameError> {
        let (sender, deliveries) = mpsc::channel(PUSHES_MAX);
        let filter = (parts.filter)();
        let encoder =
            FrameEncoder::new(parts.agent, Epoch::default(), filter.key_version(), parts.compression_level)?;
        let builder = BatchBuilder::new(parts.agent.to_string());
        let lane = Lane {
            parts,
            filter,
            deliveries,
            encoder,
            builder,
            places: BTreeMap::new(),
            origins: HashMap::new(),
            names: Names::default(),
        };
        Ok((lane, PushSender { sender }))
    }

    /// Runs until every door is closed, or `stop` is set and nothing waits.
    pub fn run(mut self, runtime: &Handle, stop: &CancellationToken) {
        loop {
            let next = runtime.block_on(async {
                tokio::select! {
                    biased;
                    next = self.deliveries.recv() => next,
                    () = stop.cancelled() => None,
                }
            });
            let Some(first) = next else { return };
            let mut bytes = size(&first);
            let mut group = vec![first];
            while bytes < BATCH_TEXT_BYTES_TARGET
                && let Ok(next) = self.deliveries.try_recv()
            {
                bytes += size(&next);
                group.push(next);
            }
            let outcome = self.take(&group);
            if outcome.is_err() {
                self.give_up();
            }
            for delivery in group {
                let lines = delivery.lines.len() as u64;
                let metrics = &self.parts.metrics;
                if outcome.is_ok() {
                    metrics.pushed_lines.inc_by(lines)
                } else {
                    metrics.push_refusals.inc()
                };
                // Whoever asked may have gone.
                delivery.answer.send(outcome).ok();
            }
        }
    }

    /// The configuration may have changed: then other rules, and another key of hashes, count from here on.
    fn renew(&mut self) -> Result<(), PushError> {
        let filter = (self.parts.filter)();
        if Arc::ptr_eq(&filter, &self.filter) {
            return Ok(());
        }
        let LaneParts { agent, compression_level, .. } = self.parts;
        let encoder = FrameEncoder::new(agent, Epoch::default(), filter.key_version(), compression_level);
        self.encoder = encoder.map_err(|error| self.fail_spool(error.into()))?;
        self.filter = filter;
        self.names.clear();
        Ok(())
    }

    fn take(&mut self, group: &[Delivery]) -> Result<(), PushError> {
        self.renew()?;
        for delivery in group {
            for line in delivery.lines.iter() {
                self.add(delivery.door, line)?;
            }
        }
        self.flush()
    }

    fn add(&mut self, door: Door, line: &PushLine) -> Result<(), PushError> {
        let would_overflow = self.builder.would_overflow(line.text.len().min(LINE_BYTES_MAX));
        if self.builder.is_full() || would_overflow || self.origins.len() >= PUSH_ORIGINS_MAX {
            self.flush()?;
        }
        let observed_timestamp_ns = now_ns();
        let mut rest: &[u8] = &line.text;
        let mut part = 0u32;
        loop {
            let origin = self.origin(door, &line.origin)?;
            let is_last = rest.len() <= LINE_BYTES_MAX;
            let end = if is_last { rest.len() } else { self.cut(rest)? };
            let (text, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let Some(place) = self.places.get_mut(&door) else { return Err(PushError::Stopping) };
            let position = place.next;
            place.next = Position::new(position.major, position.minor + 1);
            place.is_touched = true;
            let level: Level = line.level.unwrap_or_else(|| level::detect(text));
            self.parts.metrics.lines.inc();
            self.parts.metrics.line_bytes.inc_by(text.len() as u64);
            let timestamp_ns = line.timestamp_ns.unwrap_or(observed_timestamp_ns);
            let stream: Stream = line.stream;
            self.builder
                .push(Line { origin, timestamp_ns, observed_timestamp_ns, stream, level, position }, text);
            if part > 0 || !is_last {
                self.builder.attribute("part", &part.to_string());
            }
            attributes(&mut self.builder, &line.attributes);
            if is_last {
                return Ok(());
            }
            rest = behind;
            part = part.saturating_add(1);
            if self.builder.is_full() {
                self.flush()?;
            }
        }
    }

    /// Where an over-long line is cut.
    fn cut(&self, text: &[u8]) -> Result<usize, PushError> {
        let cutter = Cutter::new(self.filter.as_ref());
        let place = cut_place(text, &|text, at_most| cutter.cut(text, at_most));
        if cutter.take_failure().is_some() { Err(self.fail_filter()) } else { Ok(place) }
    }

    fn fail_filter(&self) -> PushError {
        tracing::error!("the pollen filter failed on pushed lines, nothing is taken any more");
        self.parts.health.fail_filter();
        PushError::Filter
    }

    /// The origin's number in the batch being built, under names that have been scrubbed.
    fn origin(&mut self, door: Door, origin: &Arc<Origin>) -> Result<OriginId, PushError> {
        let key = (door, origin.clone());
        if let Some(id) = self.origins.get(&key) {
            return Ok(*id);
        }
        let scrubbed = self.scrub_names(origin)?;
        let place = self.places.entry(door).or_insert_with(|| Place {
            source: source(self.parts.agent, door),
            // Below everything: a new epoch goes on from wherever the last one ended.
            from: Position::START,
            next: Position::new(self.parts.epoch, 0),
            is_touched: false,
        });
        let id = self.builder.origin(&scrubbed, &place.source);
        self.origins.insert(key, id);
        Ok(id)
    }

    /// Names come from whoever sends, so the filter goes over them, as if they were lines.
    fn scrub_names(&mut self, origin: &Arc<Origin>) -> Result<Arc<Origin>, PushError> {
        if !self.parts.health.has_filter() {
            return Err(PushError::Filter);
        }
        let scrubbed = self.names.scrubbed(origin, &self.parts.host, self.filter.as_ref());
        scrubbed.map_err(|_| self.fail_filter())
    }

    /// Keeps what has been gathered.
    fn flush(&mut self) -> Result<(), PushError> {
        self.origins.clear();
        let touched: Vec<&mut Place> = self.places.values_mut().filter(|place| place.is_touched).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let interval = |place: &&mut Place| Interval::new(place.source.clone(), place.from, place.next);
        let intervals = touched.iter().map(interval).collect();
        let batch = self.builder.finish(intervals).map_err(|_| self.fail_filter())?;
        let (scrubbed, counts) =
            filter::scrub(self.filter.as_ref(), batch).map_err(|_| self.fail_filter())?;
        self.parts.metrics.redactions.inc_by(counts.redactions);
        self.parts.metrics.dropped_rows.inc_by(counts.dropped_rows);
        let frame = self.encoder.encode(&scrubbed).map_err(|error| self.fail_spool(error.into()))?;
        let bytes = frame.len();
        let kept = lock(&self.parts.spool).keep(frame).map_err(|error| self.fail_spool(error))?;
        if kept == Kept::Full {
            return Err(PushError::Full);
        }
        self.parts.metrics.note_spooled(bytes);
        for place in self.places.values_mut().filter(|place| place.is_touched) {
            place.from = place.next;
            place.is_touched = false;
        }
        self.parts.wake.notify_one();
        Ok(())
    }

    fn fail_spool(&self, error: SpoolError) -> PushError {
        // When nobody listens the agent has stopped already.
        self.parts.reports.try_send(Event::SpoolFailed { error }).ok();
        PushError::Spool
    }

    /// Forgets what was gathered and not kept. Its sequence numbers stay unused: they may be on the disk after all.
    fn give_up(&mut self) {
        self.builder = BatchBuilder::new(self.parts.agent.to_string());
        self.origins.clear();
        for place in self.places.values_mut() {
            place.is_touched = false;
        }
    }
}

fn size(delivery: &Delivery) -> usize {
    delivery.lines.iter().map(|line| line.text.len()).sum()
}

fn source(agent: AgentId, door: Door) -> Source {
    let name = format!("push:{agent}:{}", door.as_str());
    #[expect(
        clippy::expect_used,
        reason = "an agent's id and our own word are short and have no control characters"
    )]
    Source::new(name).expect("a name of our own making")
}

/// Attributes of the line last finished; those for which there is no room stand together in one.
fn attributes(builder: &mut BatchBuilder, attributes: &[(String, String)]) {
    // One place for "part", one for the rest.
    let (first, rest) = attributes.split_at_checked(ATTRIBUTES_MAX - 2).unwrap_or((attributes, &[]));
    for (key, value) in first {
        builder.attribute(key, value);
    }
    if !rest.is_empty() {
        let more: BTreeMap<&str, &str> =
            rest.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        builder.attribute("more", &serde_json::to_string(&more).unwrap_or_default());
    }
}

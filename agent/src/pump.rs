//! The agent's heart: one thread that reads, merges, batches, filters, encodes and hands frames to the shipper.
//!
//! What always holds:
//! - everything it owns has one owner, itself; what happens outside comes in as an [`Event`] or a [`Portion`] of API pieces,
//!   through bounded queues;
//! - as many frames are under way as the collector takes at once ([`flight`]), and at most one more is prepared; beyond that nothing
//!   is read, which holds back readers and never a container;
//! - no position counts before the collector has confirmed it. Whatever goes wrong, reading starts again at its positions;
//! - a batch that cannot be scrubbed is never encoded, and no other one after it;
//! - what goes through the spool, and when, is [`spooling`]'s.
//!
//! It blocks: files are read and batches compressed here. It must not run on a thread of the async runtime.

mod flight;
mod spooling;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeacon_record::limits::{BATCH_ROWS_MAX, BATCH_SOURCES_MAX};
use beeacon_record::wire::{IngestAnswer, SessionAnswer, SessionRequest};
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Epoch, FRAME_VERSION_FIRST, FrameEncoder, FrameError, IdentityError,
    Interval, OriginId, Position, Source,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::flight::{Commit, InFlight, Prepared};
use self::spooling::{Destination, Draining};
use crate::backoff::Backoff;
use crate::clock::{now_ns, thread_time};
use crate::config::AgentConfig;
use crate::container::Container;
use crate::docker::attach::Portion;
use crate::docker::cursor::read_plain;
use crate::docker::files::FileIdentity;
use crate::docker::host::DockerHost;
use crate::docker::watch::Watch;
use crate::door::tap::Taps;
use crate::event::{Change, Event};
use crate::files::FilesConfig;
use crate::files::find::{FoundFile, Look};
use crate::files::plain::{self, FilesShared, PlainSource};
use crate::filter::{self, Cutter, Filter};
use crate::journald::JournaldConfig;
use crate::journald::source::JournalSource;
use crate::limits::{AT_RISK_BYTES_MIN, CONTAINERS_MAX, DRAIN_WITHIN, POLL_EVERY};
use crate::metrics::Metrics;
use crate::names::NamesError;
use crate::picking;
use crate::progress::{Acked, Sink, Step};
use crate::reader::{Entry, Surroundings};
use crate::ship::http::Collector;
use crate::ship::level::{LevelByLoad, Load};
use crate::spool::{SharedSpool, SpoolError, lock};
use crate::status::{AgentStatus, Health, StatusBoard};

/// How often the status is written anew.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A second fence within this time means that the id is in use elsewhere.
const FENCE_MEMORY: Duration = Duration::from_secs(600);

/// Why the pump stopped of itself.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The spool's disk has failed: only a new start may say again what is on it.
    #[error("keep frames until the collector takes them")]
    Spool(#[from] SpoolError),
    /// Another agent works under the same id.
    #[error(
        "agent id {agent} is in use elsewhere: another agent opened a session with it twice; remove the file agent-id of the copy"
    )]
    Fenced {
        /// The id.
        agent: AgentId,
    },
}

/// What the pump is given.
pub struct PumpParts {
    /// The configuration.
    pub config: AgentConfig,
    /// The agent's id.
    pub agent: AgentId,
    /// The pollen filter.
    pub filter: Arc<dyn Filter>,
    /// Where frames go.
    pub collector: Collector,
    /// Where Docker listens, if it does.
    pub docker: Option<DockerHost>,
    /// What is counted.
    pub metrics: Metrics,
    /// What works.
    pub health: Arc<Health>,
    /// Where the status goes.
    pub board: StatusBoard,
    /// Who looks at lines as they pass.
    pub taps: Taps,
    /// Where frames wait for a collector that does not answer, if they may.
    pub spool: Option<SharedSpool>,
    /// What plain files share.
    pub files: FilesShared,
    /// Wakes the pump: there are new files, or new frames in the spool.
    pub wake: Arc<Notify>,
    /// The runtime on which requests and attaches run.
    pub runtime: Handle,
    /// Set when the agent shall stop.
    pub stop: CancellationToken,
}

/// See the module.
pub struct Pump {
    parts: PumpParts,
    events: mpsc::Receiver<Event>,
    reports: mpsc::Sender<Event>,
    portions: mpsc::Receiver<Portion>,
    surroundings: Surroundings,
    changed: Arc<Notify>,
    entries: HashMap<String, Entry>,
    /// Containers that the configuration leaves out.
    passed_over: HashMap<String, Container>,
    /// How plain files are read, by `[[agent.files]]`.
    files: Vec<Arc<FilesConfig>>,
    /// Sources of the plain files that patterns lead to, once that was looked at.
    named_files: Option<HashSet<Source>>,
    /// The ids of the entries in the order of their turns.
    turns: Vec<String>,
    turn: usize,
    builder: BatchBuilder,
    batch_started: Option<Instant>,
    rows_max: usize,
    held: Option<Portion>,
    /// The epoch of the session, while there is one.
    session: Option<Epoch>,
    encoder: FrameEncoder,
    /// How much is compressed, and how much time the thread had taken when that was last looked at.
    level: LevelByLoad,
    looked_at: (Instant, Duration),
    /// Number requests; answers to others are of no interest.
    session_round: u64,
    ship_round: u64,
    drain_round: u64,
    /// When a session was asked for.
    asked_at: Instant,
    /// Where reading starts again: what the collector has confirmed, and on top of it what the spool holds.
    states: HashMap<Source, Acked>,
    /// Whether `states` come from anywhere yet.
    has_states: bool,
    in_flight: VecDeque<InFlight>,
    /// When the collector last answered to one of these.
    answered_at: Instant,
    draining: Option<Draining>,
    /// Where the batch being built goes.
    destination: Destination,
    /// Whether the collector has answered since it last failed to.
    is_answered: bool,
    /// Whether the spool alone says where every source stands.
    is_alone: bool,
    /// Whether anything waits in the spool.
    has_backlog: bool,
    /// Whether Docker is about to remove something unread.
    is_hurried: bool,
    /// Whether that is more than is about to be read anyway.
    is_at_risk: bool,
    prepared: Option<Prepared>,
    pause: Backoff,
    paused_until: Option<Instant>,
    fenced_at: Option<Instant>,
    error: Option<PumpError>,
    status_at: Instant,
    block: Vec<u8>,
    /// Ends requests that are under way when the pump goes.
    over: DropGuard,
}

impl Pump {
    /// A pump; its events come from `events`, of which `reports` is the other end.
    ///
    /// # Errors
    /// When the thread that watches directories cannot be started.
    pub fn new(
        parts: PumpParts,
        events: mpsc::Receiver<Event>,
        reports: mpsc::Sender<Event>,
    ) -> std::io::Result<Self> {
        let changed = parts.wake.clone();
        let watch = Watch::start(changed.clone())?;
        let (portion_sender, portions) = mpsc::channel(crate::limits::PORTIONS_MAX);
        let surroundings = Surroundings {
            watch,
            docker: parts.docker.clone(),
            runtime: parts.runtime.clone(),
            portions: portion_sender,
            metrics: parts.metrics.clone(),
            filter: parts.filter.clone(),
            files: parts.files.clone(),
        };
        let files = parts.config.files.iter().cloned().map(Arc::new).collect();
        let agent_text = parts.agent.to_string();
        let level = LevelByLoad::new(parts.config.compression);
        let encoder =
            FrameEncoder::new(parts.agent, Epoch::default(), parts.filter.key_version(), level.level())
                .map_err(std::io::Error::other)?;
        let mut pump = Pump {
            builder: BatchBuilder::new(agent_text),
            encoder,
            parts,
            events,
            reports,
            portions,
            surroundings,
            changed,
            entries: HashMap::new(),
            passed_over: HashMap::new(),
            files,
            named_files: None,
            turns: Vec::new(),
            turn: 0,
            batch_started: None,
            rows_max: BATCH_ROWS_MAX,
            held: None,
            session: None,
            level,
            looked_at: (Instant::now(), Duration::ZERO),
            session_round: 0,
            ship_round: 0,
            drain_round: 0,
            asked_at: Instant::now(),
            states: HashMap::new(),
            has_states: false,
            in_flight: VecDeque::new(),
            answered_at: Instant::now(),
            draining: None,
            destination: Destination::Direct,
            is_answered: true,
            is_alone: false,
            has_backlog: false,
            is_hurried: false,
            is_at_risk: false,
            prepared: None,
            pause: Backoff::default(),
            paused_until: None,
            fenced_at: None,
            error: None,
            status_at: Instant::now(),
            block: Vec::new(),
            over: CancellationToken::new().drop_guard(),
        };
        pump.start_from_spool();
        for config in pump.parts.config.journald.clone() {
            pump.add_journal(Arc::new(config)).map_err(std::io::Error::other)?;
        }
        Ok(pump)
    }

    /// Runs until it is told to stop, then ships what has been read and waits for the answer.
    ///
    /// # Errors
    /// When another agent has taken its place.
    pub fn run(mut self) -> Result<(), PumpError> {
        self.open_session();
        while !self.parts.stop.is_cancelled() {
            self.take_events();
            if let Some(error) = self.error.take() {
                self.report_status();
                return Err(error);
            }
            self.divert_when_unanswered()?;
            self.choose_destination();
            let was_busy = self.read();
            self.close_when_due();
            self.keep_prepared()?;
            self.send()?;
            if self.status_at.elapsed() >= STATUS_EVERY {
                self.report_status();
                self.choose_level();
            }
            // Sources that follow the spool had their turn: the others come next, without a wait.
            if !was_busy && self.destination != Destination::Follow {
                self.wait();
            }
        }
        self.drain()
    }

    /// Ships what has been read, within a limit of time. What is not acknowledged is read again after the next start, or waits
    /// in the spool.
    fn drain(&mut self) -> Result<(), PumpError> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        while (self.session.is_some() || self.is_alone) && self.error.is_none() && Instant::now() < deadline {
            self.divert_when_unanswered()?;
            if self.prepared.is_none() {
                self.close();
            }
            self.keep_prepared()?;
            self.send()?;
            if self.in_flight.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now()).min(self.patience());
            let runtime = self.parts.runtime.clone();
            let event = runtime.block_on(async { tokio::time::timeout(left, self.events.recv()).await });
            match event {
                Ok(Some(event)) => self.on(event),
                Ok(None) => break,
                // The collector takes longer than the spool has patience.
                Err(_) => {}
            }
        }
        self.leave_positions()?;
        self.report_status();
        Ok(())
    }

    fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.on(event);
        }
    }

    /// Waits until something happens or is due.
    fn wait(&mut self) {
        let now = Instant::now();
        let mut until = now + POLL_EVERY;
        if self.is_way_free()
            && let Some(started) = self.batch_started
        {
            until = until.min(started + self.parts.config.flush_after);
        }
        let span = until.saturating_duration_since(now);
        let may_read = self.may_read() && self.held.is_none();
        let runtime = self.parts.runtime.clone();
        let (event, portion) = runtime.block_on(async {
            tokio::select! {
                event = self.events.recv() => (event, None),
                portion = self.portions.recv(), if may_read => (None, portion),
                () = self.changed.notified() => (None, None),
                () = self.parts.stop.cancelled() => (None, None),
                () = tokio::time::sleep(span) => (None, None),
            }
        });
        if let Some(event) = event {
            self.on(event);
        }
        if portion.is_some() {
            self.held = portion;
        }
    }

    fn may_read(&self) -> bool {
        (self.session.is_some() || self.destination != Destination::Direct)
            && self.prepared.is_none()
            && self.parts.health.has_filter()
            && self.paused_until.is_none_or(|until| Instant::now() >= until)
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Container(container) => self.on_container(*container),
            Event::Files(look) => self.on_files(*look),
            Event::Change(change) => self.on_change(*change),
            Event::Removed { id } => {
                self.passed_over.remove(&id);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.remove();
                }
            }
            Event::SpoolFailed { error } => self.error = Some(PumpError::Spool(error)),
            Event::Docker { is_healthy } => self.parts.health.set_docker(is_healthy),
            Event::Session { round, answer } if round == self.session_round => self.on_session(answer),
            Event::Shipped { round, verdict } => self.on_verdict(round, verdict),
            Event::Drained { round, verdict } if round == self.drain_round => self.on_drained(verdict),
            Event::Session { .. } | Event::Drained { .. } => {}
        }
    }

    fn on_container(&mut self, container: Container) {
        if let Some(entry) = self.entries.get_mut(&container.id) {
            entry.update(container, &self.parts.config, &self.surroundings);
            return;
        }
        if !self.parts.config.selection.takes(&container) {
            if self.passed_over.len() < CONTAINERS_MAX {
                self.passed_over.insert(container.id.clone(), container);
            }
            return;
        }
        if !container.is_readable_yet() {
            // Its start is another event.
            return;
        }
        let id = container.id.clone();
        match Entry::new(container, &self.parts.config, &self.surroundings) {
            Ok(mut entry) => {
                entry.stay_with_api(&self.states, &self.parts.config, &self.surroundings);
                entry.rewind(&self.states);
                self.turns.push(id.clone());
                self.entries.insert(id, entry);
            }
            Err(error) => tracing::warn!(container = id, %error, "cannot read a container's log"),
        }
    }

    /// What patterns over paths lead to.
    fn on_files(&mut self, look: Look) {
        let named: HashSet<FileIdentity> = look.files.iter().map(|found| found.identity).collect();
        self.entries.values_mut().for_each(|entry| entry.name_plain(&named));
        let mut sources = HashSet::new();
        for FoundFile { identity, path, section, file } in look.files {
            let Ok(source) = plain::source(&identity) else { continue };
            sources.insert(source.clone());
            let id = source.as_str().to_owned();
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.found_plain(file, &path);
                continue;
            }
            let (Some(file), Some(config)) = (file, self.files.get(section)) else { continue };
            let shared = self.surroundings.files.clone();
            self.add_plain(PlainSource::new(source, identity, file, path, config.clone(), shared));
        }
        self.named_files = Some(sources);
        self.end_missing_files();
    }

    fn add_journal(&mut self, config: Arc<JournaldConfig>) -> Result<(), IdentityError> {
        let source = JournalSource::new(config, &self.parts.config.host)?;
        let id = source.progress.source.as_str().to_owned();
        let mut entry = Entry::journal(source);
        entry.rewind(&self.states);
        self.turns.push(id.clone());
        self.entries.insert(id, entry);
        Ok(())
    }

    fn add_plain(&mut self, source: PlainSource) {
        let id = source.progress.source.as_str().to_owned();
        let mut entry = Entry::plain(source, &self.parts.config);
        entry.rewind(&self.states);
        self.turns.push(id.clone());
        self.entries.insert(id, entry);
    }

    /// Files that the collector knows, that had not ended, and that no pattern leads to at the start.
    fn end_missing_files(&mut self) {
        let (Some(named), true) = (&self.named_files, self.has_states) else { return };
        let is_missing = |source: &&Source| {
            source.as_str().starts_with(plain::PREFIX)
                && !named.contains(*source)
                && !self.entries.contains_key(source.as_str())
        };
        let has_ended = |acked: &Acked| read_plain(&acked.cursor).is_some_and(|(_, has_ended)| has_ended);
        let states = self.states.iter().filter(|(_, acked)| !has_ended(acked));
        let missing: Vec<Source> = states.map(|(source, _)| source).filter(is_missing).cloned().collect();
        for source in missing {
            self.add_plain(PlainSource::gone(source, self.surroundings.files.clone()));
        }
    }

    /// Uses another configuration. What is under way and not confirmed is read again: a new session says what the collector has,
    /// and fences off what may still be on its way, so that no line is lost or stored twice whatever has changed.
    fn on_change(&mut self, change: Change) {
        let Change { config, filter, collector } = change;
        self.surroundings.filter = filter.clone();
        if config.compression != self.parts.config.compression {
            self.level = LevelByLoad::new(config.compression);
        }
        (self.parts.config, self.parts.filter, self.parts.collector) = (config, filter, collector);
        let known: Vec<String> = self.entries.keys().cloned().collect();
        for id in known {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if !entry.is_container() || self.parts.config.selection.takes(entry.container()) {
                entry.configure(&self.parts.config, &self.surroundings);
                continue;
            }
            self.passed_over.insert(id.clone(), entry.container().clone());
            self.forget(&id);
        }
        let takes = |container: &Container| self.parts.config.selection.takes(container);
        let (taken, rest) =
            std::mem::take(&mut self.passed_over).into_iter().partition(|(_, one)| takes(one));
        self.passed_over = rest;
        let taken: HashMap<String, Container> = taken;
        for container in taken.into_values() {
            self.on_container(container);
        }
        let (key_version, level) = (self.parts.filter.key_version(), self.level.level());
        match FrameEncoder::new(self.parts.agent, Epoch::default(), key_version, level) {
            Ok(encoder) => self.encoder = encoder,
            Err(error) => return self.fail("frames cannot be encoded", &error),
        }
        self.fenced_at = None;
        self.open_session();
    }

    // === Reading ===

    /// Gives every source a turn. `true` when something was read and there may be more.
    fn read(&mut self) -> bool {
        if !self.may_read() {
            return false;
        }
        let mut was_busy = self.read_portions();
        let touched = self.entries.values_mut().filter_map(Entry::touched_sources).sum::<usize>();
        let mut room = BATCH_SOURCES_MAX.saturating_sub(touched);
        let mut finished = Vec::new();
        for _ in 0..self.turns.len() {
            if self.prepared.is_some() || room == 0 {
                break;
            }
            self.turn = (self.turn + 1) % self.turns.len().max(1);
            let Some(id) = self.turns.get(self.turn).cloned() else { break };
            if !self.admits(&id) {
                continue;
            }
            let step = self.step(&id);
            match step {
                Step::Idle => {}
                Step::Progress => {
                    was_busy = true;
                    // Two at most: the outputs of one container.
                    room = room.saturating_sub(2);
                }
                Step::Flush => {
                    was_busy = true;
                    self.close();
                    room = BATCH_SOURCES_MAX;
                }
            }
            if self.entries.get_mut(&id).is_some_and(Entry::is_finished) {
                finished.push(id);
            }
        }
        for id in finished {
            self.forget(&id);
        }
        if self.batch_started.is_none()
            && (self.builder.rows() > 0 || self.entries.values_mut().any(|e| e.touched_sources().is_some()))
        {
            self.batch_started = Some(Instant::now());
        }
        was_busy
    }

    fn step(&mut self, id: &str) -> Step {
        let Some(entry) = self.entries.get_mut(id) else { return Step::Idle };
        let cutter = Cutter::new(self.parts.filter.as_ref());
        let safe_cut = |text: &[u8], at_most: usize| cutter.cut(text, at_most);
        let origins = entry.origins(&mut self.builder);
        let mut sink = sink(&mut self.builder, origins, self.rows_max, &safe_cut, &self.parts.metrics, entry);
        let step = match entry.step(&mut sink, &mut self.block, &self.surroundings) {
            Ok(step) => step,
            Err(error) if NamesError::is_of_the_filter(&error) => {
                self.fail("nothing is shipped any more", &error);
                return Step::Idle;
            }
            Err(error) => {
                entry.note_error(&error);
                Step::Idle
            }
        };
        if let Some(error) = cutter.take_failure() {
            self.fail("nothing is shipped any more", &error);
        }
        step
    }

    /// Takes what API readers have handed over.
    fn read_portions(&mut self) -> bool {
        let mut was_busy = false;
        while self.prepared.is_none() {
            let Some(portion) = self.held.take().or_else(|| self.portions.try_recv().ok()) else { break };
            was_busy = true;
            let id: &str = &portion.container;
            if !self.admits(id) {
                self.held = Some(portion);
                self.close();
                break;
            }
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let cutter = Cutter::new(self.parts.filter.as_ref());
            let safe_cut = |text: &[u8], at_most: usize| cutter.cut(text, at_most);
            let origins = entry.origins(&mut self.builder);
            let mut sink =
                sink(&mut self.builder, origins, self.rows_max, &safe_cut, &self.parts.metrics, entry);
            let rest = entry.take_portion(portion, &mut sink);
            if let Some(error) = cutter.take_failure() {
                self.fail("nothing is shipped any more", &error);
                break;
            }
            if rest.is_some() {
                self.held = rest;
                self.close();
            }
        }
        was_busy
    }

    fn forget(&mut self, id: &str) {
        if let Some(entry) = self.entries.remove(id) {
            entry.close(&self.surroundings);
        }
        self.turns.retain(|turn| turn != id);
    }

    // === Batches ===

    fn close_when_due(&mut self) {
        let is_full = self.builder.is_full() || self.builder.rows() >= self.rows_max;
        let is_due = self.is_way_free()
            && self.batch_started.is_some_and(|started| started.elapsed() >= self.parts.config.flush_after);
        if self.prepared.is_none() && (is_full || is_due) {
            self.close();
        }
    }

    /// Makes a frame of what has been gathered.
    fn close(&mut self) {
        self.batch_started = None;
        let has_way = self.session.is_some() || self.destination != Destination::Direct;
        if !has_way || self.prepared.is_some() || !self.parts.health.has_filter() {
            return;
        }
        let intervals: Vec<Interval> = self.entries.values_mut().flat_map(Entry::take_intervals).collect();
        for entry in self.entries.values_mut() {
            entry.forget_origins();
        }
        if intervals.is_empty() && self.builder.rows() == 0 {
            return;
        }
        let gaps = intervals.iter().filter(|interval| interval.gap.is_some()).count();
        self.parts.metrics.gaps.inc_by(gaps as u64);
        let commits: Vec<Commit> = intervals.iter().map(Commit::of).collect();
        let batch = match self.builder.finish(intervals) {
            Ok(batch) => batch,
            Err(error) => return self.fail("a batch does not fit together", &error),
        };
        let (rows, places) = (batch.rows(), places(&batch, self.rows_max));
        let began = Instant::now();
        let scrubbed = filter::scrub(self.parts.filter.as_ref(), batch);
        self.parts.metrics.filter_seconds.inc_by(began.elapsed().as_secs_f64());
        let scrubbed = match scrubbed {
            Ok((scrubbed, counts)) => {
                self.parts.metrics.redactions.inc_by(counts.redactions);
                self.parts.metrics.dropped_rows.inc_by(counts.dropped_rows);
                scrubbed
            }
            Err(error) => return self.fail("nothing is shipped any more", &error),
        };
        let wanted: Vec<_> = self.entries.values_mut().filter_map(Entry::picks).collect();
        let scrubbed = match picking::to_attributes(scrubbed, &wanted) {
            Ok(scrubbed) => scrubbed,
            Err(error) => return self.fail("fields of a batch cannot be picked", &error),
        };
        if let Err(error) = self.parts.taps.show(&scrubbed) {
            return self.fail("a batch cannot be shown", &error);
        }
        for (source, count) in scrubbed.get().redactions_by_source() {
            for entry in self.entries.values_mut() {
                entry.note_redactions(&source, count);
            }
        }
        self.encoder.set_epoch(self.session.unwrap_or_default());
        let destination = self.destination;
        match self.encoder.encode(&scrubbed) {
            Ok(frame) => {
                let declares_gap = gaps > 0;
                self.prepared = Some(Prepared { frame, rows, destination, commits, declares_gap, places });
            }
            Err(FrameError::TooLarge { .. }) => self.shrink(rows, &places),
            Err(error) => self.fail("a batch cannot be encoded", &error),
        }
    }

    /// Stops shipping for good: what cannot be scrubbed or encoded must not be passed over.
    fn fail(&mut self, what: &str, error: &dyn std::error::Error) {
        tracing::error!(error = crate::ship::http::chain(error), "{what}");
        self.parts.health.fail_filter();
        self.report_status();
    }

    /// Reads again with smaller batches; a row that is refused even alone is left out from then on.
    fn shrink(&mut self, rows: usize, places: &[(Source, Position)]) {
        if rows <= 1 || self.rows_max == 1 {
            for (source, position) in places {
                tracing::error!(%source, %position, "collector refuses a row even alone, leaving it out");
                for entry in self.entries.values_mut() {
                    entry.poison(source, *position);
                }
            }
        }
        self.rows_max = (rows / 2).max(1);
        self.rewind();
    }

    // === Shipping ===

    fn open_session(&mut self) {
        self.session = None;
        self.draining = None;
        self.drain_round += 1;
        self.session_round += 1;
        if self.is_alone {
            // Reading may go on without a session, and must not leave out what is forgotten here.
            self.rewind();
        } else {
            self.forget_under_way();
        }
        self.asked_at = Instant::now();
        self.parts.metrics.sessions.inc();
        let ask = SessionRequest {
            agent: self.parts.agent,
            host: self.parts.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (collector, reports) = (self.parts.collector.clone(), self.reports.clone());
        let (metrics, round) = (self.parts.metrics.clone(), self.session_round);
        let over = self.over.token().clone();
        self.parts.runtime.spawn(async move {
            tokio::select! {
                answer = collector.open_session(&ask, &metrics) => {
                    // Nobody listens when the agent stops.
                    reports.send(Event::Session { round, answer }).await.ok();
                }
                () = over.cancelled() => {}
            }
        });
    }

    fn on_session(&mut self, answer: SessionAnswer) {
        self.session = Some(answer.epoch);
        self.is_answered = true;
        tracing::info!(
            epoch = answer.epoch.0,
            sources = answer.sources.len(),
            "session with the collector is open"
        );
        let version = answer.frame_version.unwrap_or(FRAME_VERSION_FIRST);
        self.encoder.set_version(version);
        if let Some(spool) = &self.parts.spool {
            lock(spool).set_frame_version(version);
        }
        self.states = answer.sources.iter().map(|state| (state.source.clone(), Acked::from(state))).collect();
        self.overlay_states();
        self.has_states = true;
        for entry in self.entries.values_mut() {
            entry.stay_with_api(&self.states, &self.parts.config, &self.surroundings);
        }
        self.rewind();
        self.end_missing_files();
    }

    /// Reads again from what the collector confirmed.
    fn rewind(&mut self) {
        self.parts.metrics.rewinds.inc();
        self.forget_under_way();
        self.held = None;
        self.batch_started = None;
        self.builder = BatchBuilder::new(self.parts.agent.to_string());
        for entry in self.entries.values_mut() {
            entry.rewind(&self.states);
        }
    }

    fn forget_under_way(&mut self) {
        self.in_flight.clear();
        self.prepared = None;
    }

    /// Waits a little before reading again, so that a refusal that repeats is no storm.
    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + self.pause.next_wait());
    }

    fn on_committed(&mut self, shipped: Prepared, answer: &IngestAnswer) {
        self.is_answered = true;
        self.pause.reset();
        self.paused_until = None;
        self.rows_max = self.rows_max.saturating_mul(2).min(BATCH_ROWS_MAX);
        let metrics = &self.parts.metrics;
        metrics.shipped_frames.inc();
        metrics.shipped_bytes.inc_by(shipped.frame.len() as u64);
        metrics.shipped_rows.inc_by(answer.rows);
        metrics.duplicate_rows.inc_by(answer.duplicate_rows);
        let agrees = shipped.commits.iter().all(|commit| {
            let answered = answer.committed.iter().find(|place| place.source == commit.source);
            answered.is_some_and(|answered| answered.position == commit.acked.committed)
        });
        if !agrees {
            // Somebody else has moved the positions, or the collector has lost some: it must say how things stand.
            tracing::warn!("collector confirms other positions than were sent, asking anew");
            self.pause();
            self.open_session();
            return;
        }
        self.secure(shipped.commits);
    }

    /// What was read up to here need not be read again.
    fn secure(&mut self, commits: Vec<Commit>) {
        for Commit { source, acked, is_final, .. } in commits {
            for entry in self.entries.values_mut() {
                entry.commit(&source, &acked, is_final);
            }
            if is_final {
                self.states.remove(&source);
            } else {
                self.states.insert(source, acked);
            }
        }
    }

    fn on_fenced(&mut self) {
        let again = self.fenced_at.is_some_and(|at| at.elapsed() < FENCE_MEMORY);
        if again {
            self.error = Some(PumpError::Fenced { agent: self.parts.agent });
            self.parts.health.set_collector(false);
            return;
        }
        tracing::warn!("a newer session of this agent exists, opening one more");
        self.fenced_at = Some(Instant::now());
        self.pause();
        self.open_session();
    }

    /// How much to compress from now on, by what the last second was like.
    fn choose_level(&mut self) {
        let (now, taken) = (Instant::now(), thread_time());
        let (at, before) = std::mem::replace(&mut self.looked_at, (now, taken));
        let span_ms = now.saturating_duration_since(at).as_millis().max(1);
        let busy = taken.saturating_sub(before).as_millis() * 100 / span_ms;
        let load = Load {
            busy_percent: u32::try_from(busy).unwrap_or(u32::MAX),
            lag_bytes: u64::try_from(self.parts.metrics.lag_bytes.get()).unwrap_or(0),
            is_hurried: self.is_hurried,
        };
        if self.level.observe(load) {
            let level = self.level.level();
            if let Err(error) = self.encoder.set_compression_level(level) {
                return self.fail("frames cannot be encoded", &error);
            }
            tracing::debug!(
                level,
                busy_percent = load.busy_percent,
                "frames are compressed with another level"
            );
        }
        self.parts.metrics.compression_level.set(self.level.level().into());
    }

    fn report_status(&mut self) {
        self.status_at = Instant::now();
        let metrics = &self.parts.metrics;
        let now = self.status_at;
        self.entries.values_mut().for_each(|entry| entry.measure(now));
        let risk = self.parts.config.spool.at_risk_below;
        let at_risk = |entry: &Entry| entry.time_to_loss().is_some_and(|time| time < risk);
        let at_risk: Vec<&Entry> = self.entries.values().filter(|entry| at_risk(entry)).collect();
        self.is_hurried = !at_risk.is_empty();
        self.is_at_risk = at_risk.iter().any(|entry| entry.lag_bytes() >= AT_RISK_BYTES_MIN);
        let mut containers: Vec<_> = self.entries.values().map(Entry::status).collect();
        containers.sort_by(|left, right| left.name.cmp(&right.name));
        metrics.set_times_to_loss(
            containers
                .iter()
                .filter_map(|container| Some((container.name.as_str(), container.time_to_loss_seconds?))),
        );
        let problems = self.parts.health.problems();
        let lag: u64 = containers.iter().map(|container| container.lag_bytes).sum();
        let open: usize = self.entries.values().map(Entry::open_bytes).sum();
        metrics.lag_bytes.set(i64::try_from(lag).unwrap_or(i64::MAX));
        metrics.open_line_bytes.set(i64::try_from(open).unwrap_or(i64::MAX));
        metrics.containers.set(i64::try_from(containers.len()).unwrap_or(i64::MAX));
        metrics.healthy.set(i64::from(problems.is_empty()));
        self.report_flight();
        let known = self.parts.health.known();
        known.as_ref().inspect(|known| known.gauge());
        let known = known.map(|known| known.status()).unwrap_or_default();
        self.parts.board.set(AgentStatus {
            agent: self.parts.agent.to_string(),
            healthy: problems.is_empty(),
            problems,
            epoch: self.session.map_or(0, |epoch| epoch.0),
            spool: self.spool_status(),
            doors: Vec::new(),
            containers,
            lines: metrics.lines.get(),
            shipped_rows: metrics.shipped_rows.get(),
            gaps: metrics.gaps.get(),
            redactions: metrics.redactions.get(),
            damaged_bytes: metrics.damaged_bytes.get(),
            quarantined_rows: metrics.quarantined_rows.get(),
            known,
            ..AgentStatus::default()
        });
    }
}

fn sink<'a>(
    builder: &'a mut BatchBuilder,
    origins: [OriginId; 2],
    rows_max: usize,
    safe_cut: &'a dyn Fn(&[u8], usize) -> usize,
    metrics: &'a Metrics,
    entry: &Entry,
) -> Sink<'a> {
    let has_terminal = entry.has_terminal();
    Sink { builder, origins, observed_ns: now_ns(), rows_max, has_terminal, safe_cut, metrics }
}

/// Where the rows stand, for a batch of which every row may be the one at fault.
fn places(batch: &Batch, rows_max: usize) -> Vec<(Source, Position)> {
    if batch.rows() > 1 && rows_max > 1 {
        return Vec::new();
    }
    let Ok((keys, values)) = batch.dictionary_column(beeacon_record::schema::Column::Source) else {
        return Vec::new();
    };
    let names: Vec<Option<Source>> =
        values.iter().map(|name| name.and_then(|name| Source::new(name).ok())).collect();
    keys.values()
        .iter()
        .zip(batch.positions())
        .filter_map(|(key, position)| {
            let source = names.get(usize::try_from(*key).ok()?)?.clone()?;
            Some((source, position))
        })
        .collect()
}

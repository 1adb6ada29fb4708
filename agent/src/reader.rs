//! One container as the pump reads it: by its file, by the API, or not at all; and one plain file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use beeacon_filters::PROFILE_LABEL;
use beeacon_record::{BatchBuilder, IdentityError, Interval, Origin, OriginId, Position, Source};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::clock::ClockMark;
use crate::config::AgentConfig;
use crate::container::{Container, ReaderChoice, ReaderKind};
use crate::docker::api::ApiSource;
use crate::docker::api_stream::Framing;
use crate::docker::attach::{Attach, AttachEnd, Portion};
use crate::docker::file::FileSource;
use crate::docker::files::{Chain, FileIdentity};
use crate::docker::host::DockerHost;
use crate::docker::retention::Pace;
use crate::docker::watch::Watch;
use crate::files::FilesConfig;
use crate::files::plain::{FilesShared, PlainSource};
use crate::filter::Filter;
use crate::journald::source::JournalSource;
use crate::limits::{RECHECK_EVERY, SILENT_STREAM_AFTER};
use crate::metrics::Metrics;
use crate::multiline::Grouper;
use crate::picking::Picks;
use crate::progress::{Acked, Progress, Sink, Step};
use crate::selection::Treatment;
use crate::status::ContainerStatus;

/// Why a container cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// Its id makes no source name.
    #[error("name the source of a container")]
    Name(#[from] IdentityError),
    /// Its directory cannot be watched.
    #[error("open the log files of a container")]
    Files(#[from] std::io::Error),
}

/// The label that says from which file a row is: the path by which it was found first.
pub const FILE_LABEL: &str = "file";

/// What readers use of what is around the pump.
pub struct Surroundings {
    /// Watches directories.
    pub watch: Watch,
    /// Where Docker listens, if it does.
    pub docker: Option<DockerHost>,
    /// Where attaches run.
    pub runtime: Handle,
    /// Where they hand over pieces.
    pub portions: mpsc::Sender<Portion>,
    /// What is counted.
    pub metrics: Metrics,
    /// The pollen filter.
    pub filter: Arc<dyn Filter>,
    /// What plain files share.
    pub files: FilesShared,
}

/// The API reader's state around its source.
struct ApiReader {
    source: ApiSource,
    task: Option<AbortHandle>,
    /// Whether a stream shall be opened once the time has come.
    wants_attach: bool,
    attach_at: Instant,
    backoff: Backoff,
    /// Whether open lines shall end with the stream that has ended.
    wants_end: bool,
    is_gone: bool,
    /// Whether the stream was opened when the container had stopped: only such a stream's end is the end of the log. A stream
    /// that follows may be ended before its last pieces.
    is_whole: bool,
    /// When something was last heard of the stream or of the container's state.
    heard_at: Instant,
}

enum Reader {
    File(Box<FileSource>),
    Api(Box<ApiReader>),
    Plain(Box<PlainSource>),
    Journal(Box<JournalSource>),
    Unsupported,
}

/// A container and its reader.
pub struct Entry {
    container: Container,
    origin: Origin,
    origin_ids: Option<[OriginId; 2]>,
    /// Stands in for a source where there is none; no row ever carries it.
    no_source: Source,
    reader: Reader,
    picks: Option<Arc<Picks>>,
    /// How much was redacted of its lines.
    redactions: u64,
    is_removed: bool,
    /// How many of its sources have committed their last interval.
    finals_committed: usize,
    retry_at: Option<Instant>,
    growth: Growth,
}

/// How fast a container writes.
#[derive(Default)]
struct Growth {
    pace: Pace,
    at: Option<Instant>,
    mark: Option<(u64, u64)>,
}

impl Entry {
    /// Chooses a reader and prepares it. Nothing is read before [`Entry::rewind`] has said from where.
    ///
    /// # Errors
    /// When the log's directory cannot be opened.
    pub fn new(
        container: Container,
        config: &AgentConfig,
        around: &Surroundings,
    ) -> Result<Self, ReaderError> {
        let kind = container.reader(config.reader, around.docker.is_some(), can_read);
        let reader = match (kind, &container.log_path) {
            (ReaderKind::File, Some(path)) => Reader::File(Box::new(open_files(&container, path, around)?)),
            (ReaderKind::Api, _) => Reader::Api(Box::new(ApiReader::new(&container)?)),
            _ => {
                tracing::warn!(
                    container = container.name,
                    driver = container.driver,
                    "log driver cannot be read, container is left out"
                );
                Reader::Unsupported
            }
        };
        let origin = origin(&container, config, around.filter.as_ref());
        let treatment = treatment(&container, config);
        let no_source = Source::new(format!("docker:{}", container.id))?;
        let mut entry = Entry {
            container,
            origin,
            origin_ids: None,
            no_source,
            reader,
            picks: None,
            redactions: 0,
            is_removed: false,
            finals_committed: 0,
            retry_at: None,
            growth: Growth::default(),
        };
        entry.tell_running();
        entry.treat(treatment, config);
        Ok(entry)
    }

    /// A plain file, which is none of any container.
    pub fn plain(source: PlainSource, config: &AgentConfig) -> Self {
        let path = source.path.display().to_string();
        let stem = source.path.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.split('.').find(|part| !part.is_empty()).unwrap_or_default();
        let service = source.config.service.clone().unwrap_or_else(|| stem.to_owned());
        let mut labels = source.config.labels.clone();
        labels.push((FILE_LABEL.to_owned(), path.clone()));
        let origin =
            Origin { host: config.host.clone(), service: service.clone(), labels, ..Origin::default() };
        let container = Container { name: path, is_running: true, ..Container::default() };
        let mut entry = Entry {
            container,
            origin,
            origin_ids: None,
            no_source: source.progress.source.clone(),
            picks: source.config.picks.clone().map(Arc::new),
            reader: Reader::Plain(Box::new(source)),
            redactions: 0,
            is_removed: false,
            finals_committed: 0,
            retry_at: None,
            growth: Growth::default(),
        };
        entry.treat_plain(config);
        entry
    }

    /// A journal, which is none of any container.
    pub fn journal(source: JournalSource) -> Self {
        let name = match &source.config.directory {
            Some(directory) => format!("journal {}", directory.display()),
            None => "journal".to_owned(),
        };
        Entry {
            container: Container { name, is_running: true, ..Container::default() },
            origin: Origin::default(),
            origin_ids: None,
            no_source: source.progress.source.clone(),
            picks: source.config.picks.clone().map(Arc::new),
            reader: Reader::Journal(Box::new(source)),
            redactions: 0,
            is_removed: false,
            finals_committed: 0,
            retry_at: None,
            growth: Growth::default(),
        }
    }

    /// Whether it is a container.
    pub fn is_container(&self) -> bool {
        !matches!(self.reader, Reader::Plain(_) | Reader::Journal(_))
    }

    /// Whether it is a plain file.
    pub fn is_plain(&self) -> bool {
        matches!(self.reader, Reader::Plain(_))
    }

    /// What patterns lead to now: a plain file that is not among it may have ended.
    pub fn name_plain(&mut self, named: &HashSet<FileIdentity>) {
        if let Reader::Plain(plain) = &mut self.reader {
            plain.is_named = plain.identity().is_some_and(|identity| named.contains(&identity));
        }
    }

    /// A plain file was found again.
    pub fn found_plain(&mut self, file: Option<Arc<File>>, path: &Path) {
        if let Reader::Plain(plain) = &mut self.reader {
            plain.found(file, path);
            self.container.name = path.display().to_string();
        }
    }

    fn treat_plain(&mut self, config: &AgentConfig) {
        let Reader::Plain(plain) = &mut self.reader else { return };
        let FilesConfig { grouping, line_time, .. } = plain.config.as_ref().clone();
        plain.grouper = grouping.map(|grouping| Grouper::new(grouping, config.selection.multiline_wait));
        plain.progress.line_time = line_time;
    }

    /// Stays with the API where the collector has positions of it and none of the file: another reader's positions are other
    /// ones, so changing it would store again what is stored.
    pub fn stay_with_api(
        &mut self,
        states: &HashMap<Source, Acked>,
        config: &AgentConfig,
        around: &Surroundings,
    ) {
        let Reader::File(file) = &self.reader else { return };
        if config.reader != ReaderChoice::Auto
            || around.docker.is_none()
            || states.contains_key(&file.progress.source)
        {
            return;
        }
        let Ok(mut api) = ApiReader::new(&self.container) else { return };
        let is_known = api.source.progress().iter().any(|progress| states.contains_key(&progress.source));
        if is_known {
            around.watch.remove(&file.chain);
            self.reader = Reader::Api(Box::new(api));
            self.treat(config.selection.treatment(&self.container).0, config);
        }
    }

    /// Takes what Docker says anew.
    pub fn update(&mut self, container: Container, config: &AgentConfig, around: &Surroundings) {
        let was_started_again = container.started_at != self.container.started_at;
        let has_changed = was_started_again || container.is_running != self.container.is_running;
        self.origin = origin(&container, config, around.filter.as_ref());
        self.origin_ids = None;
        self.container = container;
        self.tell_running();
        if has_changed && let Reader::Api(api) = &mut self.reader {
            api.heard_at = Instant::now();
            if was_started_again {
                api.source.is_unsupported = false;
                api.is_gone = false;
            }
            if api.source.has_ended && !api.source.is_unsupported {
                api.wants_attach = true;
                api.attach_at = Instant::now();
                api.backoff.reset();
            }
        }
    }

    /// The container, as Docker described it last.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Takes another configuration. Nothing may be read before [`Entry::rewind`].
    pub fn configure(&mut self, config: &AgentConfig, around: &Surroundings) {
        if let Reader::Journal(journal) = &mut self.reader {
            return journal.configure(&config.host);
        }
        if self.is_plain() {
            self.origin.host.clone_from(&config.host);
            self.origin_ids = None;
            return self.treat_plain(config);
        }
        self.origin = origin(&self.container, config, around.filter.as_ref());
        self.origin_ids = None;
        let treatment = treatment(&self.container, config);
        self.treat(treatment, config);
    }

    /// Says how lines are treated. Open groups are forgotten, so it comes before reading starts.
    fn treat(&mut self, treatment: Treatment, config: &AgentConfig) {
        let wait = config.selection.multiline_wait;
        match &mut self.reader {
            Reader::File(file) => {
                file.grouper = treatment.grouping.map(|grouping| Grouper::new(grouping, wait))
            }
            Reader::Api(api) => api.source.set_grouping(treatment.grouping.as_ref(), wait),
            Reader::Plain(_) | Reader::Journal(_) | Reader::Unsupported => {}
        }
        for progress in self.progress() {
            progress.shaping = treatment.shaping.clone();
            progress.line_time = treatment.line_time.clone();
        }
        self.picks = treatment.picks.map(Arc::new);
    }

    fn tell_running(&mut self) {
        if let Reader::File(file) = &mut self.reader {
            file.is_stopped = !self.container.is_running;
        }
    }

    /// The container has been removed.
    pub fn remove(&mut self) {
        self.is_removed = true;
        self.container.is_running = false;
        self.tell_running();
        if let Reader::File(file) = &mut self.reader {
            file.is_removed = true;
        }
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.container.has_terminal
    }

    /// Its origins in the batch being built, for stdout and for stderr.
    pub fn origins(&mut self, builder: &mut BatchBuilder) -> [OriginId; 2] {
        if let Some(ids) = self.origin_ids {
            return ids;
        }
        let origin = &self.origin;
        let ids = match &mut self.reader {
            Reader::File(file) => [builder.origin(origin, &file.progress.source); 2],
            Reader::Plain(plain) => [builder.origin(origin, &plain.progress.source); 2],
            Reader::Api(api) => {
                api.source.progress().map(|progress| builder.origin(origin, &progress.source))
            }
            // A journal's entries have origins of their own.
            Reader::Journal(_) | Reader::Unsupported => return [builder.origin(origin, &self.no_source); 2],
        };
        self.origin_ids = Some(ids);
        ids
    }

    /// The batch has been closed: origins have other numbers in the next one.
    pub fn forget_origins(&mut self) {
        self.origin_ids = None;
        if let Reader::Journal(journal) = &mut self.reader {
            journal.forget_origins();
        }
    }

    fn progress(&mut self) -> Vec<&mut Progress> {
        match &mut self.reader {
            Reader::File(file) => vec![&mut file.progress],
            Reader::Plain(plain) => vec![&mut plain.progress],
            Reader::Journal(journal) => vec![&mut journal.progress],
            Reader::Api(api) => api.source.progress().into_iter().collect(),
            Reader::Unsupported => Vec::new(),
        }
    }

    /// Which fields of its lines become attributes, and the sources of these lines.
    pub fn picks(&mut self) -> Option<(Vec<Source>, Arc<Picks>)> {
        let picks = self.picks.clone()?;
        Some((self.progress().into_iter().map(|progress| progress.source.clone()).collect(), picks))
    }

    /// Whether one of its sources is such.
    pub fn has_source(&mut self, is_such: impl Fn(&Source) -> bool) -> bool {
        self.progress().into_iter().any(|progress| is_such(&progress.source))
    }

    /// Starts again from what the collector confirmed.
    pub fn rewind(&mut self, states: &HashMap<Source, Acked>) {
        self.origin_ids = None;
        match &mut self.reader {
            Reader::File(file) => {
                let acked = states.get(&file.progress.source).cloned();
                file.rewind(acked);
            }
            Reader::Api(api) => {
                api.detach();
                api.source.rewind(|source| states.get(source).cloned());
                api.wants_attach = !api.source.is_unsupported && !api.is_gone;
                api.attach_at = Instant::now();
            }
            Reader::Plain(plain) => {
                let acked = states.get(&plain.progress.source).cloned();
                plain.rewind(acked);
            }
            Reader::Journal(journal) => {
                let acked = states.get(&journal.progress.source).cloned();
                journal.rewind(acked);
            }
            Reader::Unsupported => {}
        }
    }

    /// Reads at most one block of a file, or sees to the stream of the API.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn step(
        &mut self,
        sink: &mut Sink<'_>,
        block: &mut Vec<u8>,
        around: &Surroundings,
    ) -> std::io::Result<Step> {
        match &mut self.reader {
            Reader::File(file) => {
                if self.retry_at.is_some_and(|at| Instant::now() < at) {
                    return Ok(Step::Idle);
                }
                file.step(sink, block)
            }
            Reader::Plain(plain) => {
                if self.retry_at.is_some_and(|at| Instant::now() < at) {
                    return Ok(Step::Idle);
                }
                plain.step(sink, block)
            }
            Reader::Journal(journal) => {
                if self.retry_at.is_some_and(|at| Instant::now() < at) {
                    return Ok(Step::Idle);
                }
                journal.step(sink, around.filter.as_ref())
            }
            Reader::Api(api) => Ok(api.step(&self.container, self.is_removed, sink, around)),
            Reader::Unsupported => Ok(Step::Idle),
        }
    }

    /// Takes pieces from the API. Gives back what did not fit into the batch.
    pub fn take_portion(&mut self, mut portion: Portion, sink: &mut Sink<'_>) -> Option<Portion> {
        let Reader::Api(api) = &mut self.reader else { return None };
        if portion.attach != api.source.attach || api.source.has_ended {
            return None;
        }
        api.heard_at = Instant::now();
        let mut taken = 0;
        for piece in &portion.pieces {
            if sink.is_full() || !api.source.push(piece, sink) {
                break;
            }
            taken += 1;
        }
        let last_ns = portion.pieces.drain(..taken).next_back().map(|piece| piece.timestamp_ns);
        last_ns.inspect(|last_ns| api.source.note_clock(sink.observed_ns, *last_ns, ClockMark::now()));
        if !portion.pieces.is_empty() {
            return Some(portion);
        }
        if taken > 0 {
            api.backoff.reset();
        }
        if let Some(end) = portion.end {
            api.on_end(end, &self.container);
        }
        None
    }

    /// How many of its sources have something in the batch being built, if any has.
    pub fn touched_sources(&mut self) -> Option<usize> {
        let touched = self.progress().into_iter().filter(|progress| progress.is_touched()).count();
        (touched > 0).then_some(touched)
    }

    /// The intervals for the batch being closed.
    pub fn take_intervals(&mut self) -> Vec<Interval> {
        match &mut self.reader {
            Reader::File(file) => {
                if !file.progress.is_touched() {
                    return Vec::new();
                }
                let (open, cursor) = (file.open(), file.cursor());
                file.progress.take_interval(open, cursor).into_iter().collect()
            }
            Reader::Api(api) => api.source.take_intervals(),
            Reader::Plain(plain) => {
                if !plain.progress.is_touched() {
                    return Vec::new();
                }
                let (open, cursor) = (plain.open(), plain.cursor());
                plain.progress.take_interval(open, cursor).into_iter().collect()
            }
            Reader::Journal(journal) => {
                let cursor = journal.cursor();
                journal.progress.take_interval(Vec::new(), cursor).into_iter().collect()
            }
            Reader::Unsupported => Vec::new(),
        }
    }

    /// A row that the collector refuses even alone.
    pub fn poison(&mut self, source: &Source, position: Position) {
        for progress in self.progress() {
            if progress.source == *source {
                progress.poison(position);
            }
        }
    }

    /// The collector has confirmed an interval of this source, if it is one of these.
    pub fn commit(&mut self, source: &Source, acked: &Acked, is_final: bool) {
        let is_removed = self.is_removed;
        let mut found = false;
        for progress in self.progress() {
            if progress.source == *source {
                progress.acked = Some(acked.clone());
                found = true;
            }
        }
        if !found {
            return;
        }
        match &mut self.reader {
            Reader::File(file) => file.release(),
            Reader::Plain(plain) => plain.committed(),
            Reader::Api(_) | Reader::Journal(_) | Reader::Unsupported => {}
        }
        if is_final && (is_removed || self.is_plain()) {
            self.finals_committed += 1;
        }
    }

    /// Whether the container is gone and all it left is committed.
    pub fn is_finished(&mut self) -> bool {
        if self.is_plain() {
            return self.finals_committed > 0;
        }
        // What waits in the batch has no interval once the entry is gone, and a batch without it is no batch.
        if !self.is_removed || self.progress().into_iter().any(|progress| progress.is_touched()) {
            return false;
        }
        let committed = self.finals_committed;
        match &mut self.reader {
            Reader::File(file) => committed > 0 || file.has_nothing(),
            Reader::Api(api) => {
                // With another attempt to come nothing is marked final yet, and rows of it may wait in the batch.
                let is_over = api.source.has_ended && !api.wants_end && !api.wants_attach;
                is_over && committed >= api.source.final_count()
            }
            Reader::Plain(_) | Reader::Journal(_) | Reader::Unsupported => true,
        }
    }

    /// What to say about it.
    pub fn status(&self) -> ContainerStatus {
        let reader = match &self.reader {
            Reader::File(_) => ReaderKind::File,
            Reader::Api(api) if !api.source.is_unsupported => ReaderKind::Api,
            Reader::Plain(_) => ReaderKind::Plain,
            Reader::Journal(_) => ReaderKind::Journal,
            Reader::Api(_) | Reader::Unsupported => ReaderKind::Unsupported,
        };
        let lag_bytes = self.lag_bytes();
        ContainerStatus {
            id: self.container.id.clone(),
            name: self.container.name.clone(),
            service: self.origin.service.clone(),
            reader,
            running: self.container.is_running,
            lag_bytes,
            lag_seconds: self.lag_seconds(lag_bytes),
            lines: match &self.reader {
                Reader::File(file) => file.progress.rows,
                Reader::Api(api) => api.source.rows(),
                Reader::Plain(plain) => plain.progress.rows,
                Reader::Journal(journal) => journal.progress.rows,
                Reader::Unsupported => 0,
            },
            redactions: self.redactions,
            bytes_per_second: self.growth.pace.bytes_per_second(),
            time_to_loss_seconds: self.time_to_loss().map(|time| time.as_secs()),
        }
    }

    /// How old the line that was read last is, where others wait behind it.
    fn lag_seconds(&self, lag_bytes: u64) -> Option<u64> {
        let progress = match &self.reader {
            Reader::File(file) => &file.progress,
            Reader::Plain(plain) => &plain.progress,
            Reader::Api(_) | Reader::Journal(_) | Reader::Unsupported => return None,
        };
        let last_ns = u128::try_from(progress.last_timestamp_ns()).ok()?;
        match (lag_bytes, last_ns) {
            (0, _) => Some(0),
            (_, 0) => None,
            _ => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
                u64::try_from(now.as_nanos().saturating_sub(last_ns) / 1_000_000_000).ok()
            }
        }
    }

    /// So much was redacted of one of its sources.
    pub fn note_redactions(&mut self, source: &str, count: u64) {
        if self.has_source(|own| own.as_str() == source) {
            self.redactions += count;
        }
    }

    /// Looks how much has been written since the last time.
    pub fn measure(&mut self, now: Instant) {
        let Reader::File(file) = &self.reader else { return };
        let (bytes, mark) = file.written_since(self.growth.mark);
        if let Some(at) = self.growth.at {
            self.growth.pace.note(bytes, now.saturating_duration_since(at));
        }
        self.growth.mark = mark;
        self.growth.at = Some(now);
    }

    /// When Docker removes the first line that has not been read, if it will.
    pub fn time_to_loss(&self) -> Option<Duration> {
        let Reader::File(file) = &self.reader else { return None };
        if file.lag_bytes() == 0 {
            return None;
        }
        let (place, live_bytes) = file.place()?;
        self.growth.pace.time_for(self.container.retention.bytes_left(place, live_bytes)?)
    }

    /// How many bytes of its files have not been read.
    pub fn lag_bytes(&self) -> u64 {
        match &self.reader {
            Reader::File(file) => file.lag_bytes(),
            Reader::Plain(plain) => plain.lag_bytes(),
            Reader::Api(_) | Reader::Journal(_) | Reader::Unsupported => 0,
        }
    }

    /// How many bytes of open lines are held.
    pub fn open_bytes(&self) -> usize {
        match &self.reader {
            Reader::File(file) => file.open_bytes(),
            Reader::Api(api) => api.source.open_bytes(),
            Reader::Plain(plain) => plain.open_bytes(),
            Reader::Journal(_) | Reader::Unsupported => 0,
        }
    }

    /// A file could not be read: said once, tried again a little later.
    pub fn note_error(&mut self, error: &std::io::Error) {
        if self.retry_at.is_none() {
            tracing::warn!(container = self.container.name, %error, "cannot read a log file, trying again");
        }
        self.retry_at = Some(Instant::now() + RECHECK_EVERY);
    }

    /// Lets go of files and streams.
    pub fn close(mut self, around: &Surroundings) {
        match &mut self.reader {
            Reader::File(file) => around.watch.remove(&file.chain),
            Reader::Api(api) => api.detach(),
            Reader::Plain(plain) => plain.forget(),
            Reader::Journal(_) | Reader::Unsupported => {}
        }
    }
}

impl ApiReader {
    fn new(container: &Container) -> Result<Self, IdentityError> {
        Ok(ApiReader {
            source: ApiSource::new(&container.id)?,
            task: None,
            wants_attach: true,
            attach_at: Instant::now(),
            backoff: Backoff::default(),
            wants_end: false,
            is_gone: false,
            is_whole: false,
            heard_at: Instant::now(),
        })
    }

    /// Stops listening to the stream there is.
    fn detach(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        // Portions that are still on their way carry the old number.
        self.source.attach += 1;
        self.source.has_ended = true;
        self.wants_end = false;
    }

    fn step(
        &mut self,
        container: &Container,
        is_removed: bool,
        sink: &mut Sink<'_>,
        around: &Surroundings,
    ) -> Step {
        let is_over = is_removed || !container.is_running;
        if !self.source.has_ended {
            self.source.end_idle(sink);
            if is_over && self.heard_at.elapsed() >= SILENT_STREAM_AFTER {
                self.heal(container, is_removed);
            }
            return Step::Idle;
        }
        if self.wants_end && is_over {
            self.source.end(sink);
            self.wants_end = false;
        }
        if is_removed && !self.wants_attach {
            self.source.finish();
            return Step::Idle;
        }
        if !self.wants_attach || Instant::now() < self.attach_at {
            return Step::Idle;
        }
        let Some(host) = around.docker.clone() else { return Step::Idle };
        self.source.reattach();
        self.source.attach += 1;
        self.source.has_ended = false;
        self.wants_attach = false;
        self.wants_end = false;
        self.is_whole = !container.is_running;
        let attach = Attach {
            host,
            container: Arc::from(container.id.as_str()),
            attach: self.source.attach,
            framing: if container.has_terminal { Framing::Raw } else { Framing::Multiplexed },
            since_ns: self.source.since_ns(ClockMark::now()),
        };
        let task = around.runtime.spawn(attach.run(around.portions.clone(), around.metrics.clone()));
        self.task = Some(task.abort_handle());
        Step::Idle
    }

    /// The container has stopped and its stream goes on in silence: Docker forgets to end a stream that was opened while the
    /// container was stopping. Opened anew it ends; of a removed container nothing more can come.
    fn heal(&mut self, container: &Container, is_removed: bool) {
        tracing::debug!(container = container.name, "a stream outlives its container, opening it anew");
        self.detach();
        self.wants_attach = !is_removed;
        self.wants_end = is_removed;
        self.attach_at = Instant::now();
        self.heard_at = Instant::now();
    }

    fn on_end(&mut self, end: AttachEnd, container: &Container) {
        self.source.has_ended = true;
        self.task = None;
        match end {
            AttachEnd::Ended => {
                self.wants_end = self.is_whole;
                self.wants_attach = !self.is_whole;
            }
            AttachEnd::Failed => self.wants_attach = true,
            AttachEnd::SetBack { by_ns } => {
                self.source.look_back(by_ns);
                self.wants_attach = true;
            }
            AttachEnd::Gone => {
                self.wants_end = true;
                self.is_gone = true;
            }
            AttachEnd::Unsupported => {
                self.source.is_unsupported = true;
                tracing::warn!(
                    container = container.name,
                    driver = container.driver,
                    "docker cannot read the log driver, container is left out"
                );
            }
        }
        self.attach_at = Instant::now() + self.backoff.next_wait();
    }
}

/// Nobody reads a stream whose reader is gone.
impl Drop for ApiReader {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// How a container's lines are treated; labels that are not understood are said in the log.
fn treatment(container: &Container, config: &AgentConfig) -> Treatment {
    let (treatment, errors) = config.selection.treatment(container);
    for error in errors {
        let error = crate::ship::http::chain(&error);
        tracing::warn!(container = container.name, error, "a container's label is not understood");
    }
    treatment
}

/// Where a container's lines come from, with the service that its label names, unless other rules would scrub it under that name:
/// a label cannot make less of redaction. A profile that it chooses is a label of the rows, by which the filter knows it.
pub(crate) fn origin(container: &Container, config: &AgentConfig, filter: &dyn Filter) -> Origin {
    let mut origin = container.origin(&config.host, &config.labels);
    if let Some(profile) = config.selection.profile(container) {
        if !filter.offers(profile) {
            let container = &container.name;
            tracing::warn!(container, "label beeacon.profile names a profile that the host does not offer");
        } else if origin.labels.iter().all(|(name, _)| name != PROFILE_LABEL) {
            origin.labels.push((PROFILE_LABEL.to_owned(), profile.to_owned()));
        }
    }
    if let Some(service) = config.selection.service(container) {
        if filter.treats_alike(&origin.service, service, &origin.labels) {
            origin.service = service.to_owned();
        } else {
            let container = &container.name;
            tracing::warn!(
                container,
                "label beeacon.service names a service with other rules, it is left out"
            );
        }
    }
    origin
}

fn open_files(container: &Container, path: &Path, around: &Surroundings) -> Result<FileSource, ReaderError> {
    let source = Source::new(format!("docker-file:{}", container.id))?;
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let name = path.file_name().unwrap_or_default().to_owned();
    let chain = Arc::new(Mutex::new(Chain::new(directory, name)));
    around.watch.add(chain.clone())?;
    Ok(FileSource::new(source, chain))
}

/// Whether a log file can be read; one that is not there yet counts when its directory can be listed.
pub(crate) fn can_read(path: &PathBuf) -> bool {
    match File::open(path) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            path.parent().is_some_and(|directory| std::fs::read_dir(directory).is_ok())
        }
        Err(_) => false,
    }
}

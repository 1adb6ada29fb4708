//! One log, read once by one configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beeacon_filters::{Continuity, Engine, FilterError};
use beeacon_record::limits::BATCH_ROWS_MAX;
use beeacon_record::schema::Column;
use beeacon_record::{Batch, BatchBuilder, BatchError, IdentityError, Position, Scrubbed, Source};
use xxhash_rust::xxh3::Xxh3;

use super::{Differences, Outcome};
use crate::clock::{now_ns, thread_time};
use crate::config::AgentConfig;
use crate::container::Container;
use crate::docker::file::FileSource;
use crate::docker::files::Chain;
use crate::filter::{Cutter, PollenFilter, ScrubError};
use crate::metrics::Metrics;
use crate::multiline::Grouper;
use crate::picking;
use crate::progress::{Sink, Step};
use crate::reader;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("name the source of a container")]
    Name(#[from] IdentityError),
    #[error("read the log")]
    Read(#[from] std::io::Error),
    #[error("scrub a batch")]
    Scrub(#[from] FilterError),
    #[error("cut a long line")]
    Cut(#[from] ScrubError),
    #[error("gather a batch")]
    Batch(#[from] BatchError),
}

/// A row, as far as two are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Row {
    level: u8,
    text: u64,
}

pub(super) struct Reading {
    pub(super) outcome: Outcome,
    rows: HashMap<Position, Row>,
}

impl Reading {
    pub(super) fn of(
        container: &Container,
        config: &AgentConfig,
        engine: &Arc<Engine>,
        since_ns: i64,
        bytes_max: u64,
    ) -> Result<Reading, LogError> {
        let started = thread_time();
        let source = Source::new(format!("docker-file:{}", container.id))?;
        let path = container.log_path.clone().unwrap_or_default();
        let directory = path.parent().unwrap_or(std::path::Path::new("/")).to_owned();
        let mut chain = Chain::new(directory, path.file_name().unwrap_or_default().to_owned());
        let found = chain.find_since(since_ns)?;
        chain.take(found, None);
        let mut file = FileSource::new(source.clone(), Arc::new(Mutex::new(chain)));
        let treatment = config.selection.treatment(container).0;
        file.progress.shaping = treatment.shaping.since(since_ns);
        file.progress.line_time = treatment.line_time;
        file.grouper =
            treatment.grouping.map(|grouping| Grouper::new(grouping, config.selection.multiline_wait));
        let picks = treatment.picks.map(|picks| (vec![source.clone()], Arc::new(picks)));
        let picks: Vec<_> = picks.into_iter().collect();
        // What is open at the end of the file is a line, too, as far as anybody knows.
        file.is_stopped = true;
        file.rewind(None);
        let filter = PollenFilter::new(engine.clone(), 0);
        let origin = reader::origin(container, config, &filter);
        let (metrics, mut continuity) = (Metrics::default(), Continuity::default());
        let mut reading = Reading { outcome: Outcome::default(), rows: HashMap::new() };
        let (mut block, mut is_over) = (Vec::new(), false);
        while !is_over {
            let mut builder = BatchBuilder::new("replay");
            let origins = [builder.origin(&origin, &source); 2];
            loop {
                let cutter = Cutter::new(&filter);
                let safe_cut = |text: &[u8], at_most: usize| cutter.cut(text, at_most);
                let mut sink = Sink {
                    builder: &mut builder,
                    origins,
                    observed_ns: now_ns(),
                    rows_max: BATCH_ROWS_MAX,
                    has_terminal: container.has_terminal,
                    safe_cut: &safe_cut,
                    metrics: &metrics,
                };
                let step = file.step(&mut sink, &mut block)?;
                let is_full = sink.is_full();
                if let Some(failure) = cutter.take_failure() {
                    return Err(failure.into());
                }
                is_over = step == Step::Idle;
                if is_over || is_full || step == Step::Flush {
                    break;
                }
            }
            let (open, cursor) = (file.open(), Vec::new());
            let intervals: Vec<_> = file.progress.take_interval(open, cursor).into_iter().collect();
            if intervals.is_empty() && builder.rows() == 0 {
                continue;
            }
            let text_bytes = builder.text_bytes() as u64;
            let (scrubbed, report) = engine.scrub_with(builder.finish(intervals)?, &mut continuity)?;
            let outcome = &mut reading.outcome;
            outcome.read_bytes += text_bytes;
            outcome.dropped_rows += report.rows_dropped;
            for rule in report.counts {
                *outcome.redactions.entry(rule.rule).or_default() += rule.count;
            }
            reading.note(&picking::to_attributes(scrubbed, &picks)?)?;
            if reading.outcome.read_bytes >= bytes_max {
                reading.outcome.is_cut = !is_over;
                break;
            }
        }
        let outcome = &mut reading.outcome;
        outcome.sampled_rows = metrics.sampled_rows.get();
        outcome.rate_limited_rows = metrics.rate_limited_rows.get();
        outcome.own_timestamps = metrics.own_timestamps.get();
        let taken: Duration = thread_time().saturating_sub(started);
        outcome.ms_per_mib =
            taken.as_secs_f64() * 1e3 / (outcome.read_bytes as f64 / f64::from(1 << 20)).max(1e-6);
        Ok(reading)
    }

    fn note(&mut self, batch: &Scrubbed<Batch>) -> Result<(), BatchError> {
        let batch = batch.get();
        let (keys, names) = batch.dictionary_column(Column::Level)?;
        let messages = batch.messages();
        for (row, position) in batch.positions().enumerate() {
            let key = usize::try_from(keys.value(row)).unwrap_or_default();
            let level = names.value(key);
            if let Some(count) = self.outcome.levels.get_mut(level) {
                *count += 1;
            } else {
                self.outcome.levels.insert(level.to_owned(), 1);
            }
            let message = messages.value(row);
            let mut hash = Xxh3::new();
            hash.update(message.as_bytes());
            for (name, value) in batch.attributes_of(row) {
                hash.update(name.as_bytes());
                hash.update(value.as_bytes());
            }
            self.outcome.rows += 1;
            self.outcome.bytes += message.len() as u64;
            let level = level.as_bytes().first().copied().unwrap_or_default();
            self.rows.insert(position, Row { level, text: hash.digest() });
        }
        Ok(())
    }

    /// How the rows of another reading of the same log differ from these.
    pub(super) fn differences(&self, other: &Reading) -> Differences {
        let mut differences = Differences::default();
        for (position, row) in &other.rows {
            match self.rows.get(position) {
                None => differences.rows_new += 1,
                Some(known) => {
                    differences.other_level += u64::from(known.level != row.level);
                    differences.other_text += u64::from(known.text != row.text);
                }
            }
        }
        let is_gone = |position: &&Position| !other.rows.contains_key(position);
        differences.rows_gone = self.rows.keys().filter(is_gone).count() as u64;
        differences
    }
}

//! Scanning again: a part of the batches is looked at a second time, in the background, by what the rules mean.
//!
//! The pollen filter finds fast, in a way that is derived from the rules. Here the same text goes through their regular expressions, one
//! after another, and a difference is an alarm: a counter and an error in the log, with rule and span and without text.
//!
//! What always holds: the way to the collector never waits for it. What does not fit into the queue is not looked at, and counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use beeacon_filters::{Comparison, Engine};
use beeacon_record::{Batch, BatchError};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::limits::{RESCAN_FIRST_BYTES, RESCANS_WAITING_MAX};

/// All of the batches, in the unit in which a part of them is given.
const ALL: u64 = 1_000_000;

/// From this part of the batches on the rules' expressions are kept: making them takes as long as scanning a tenth of a batch.
const KEPT_FROM: u64 = ALL / 10;

/// A rule as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RuleLabel {
    rule: String,
}

/// What came out; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    batches: Counter,
    skipped: Counter,
    failed: Counter,
    findings: Counter,
    differences: Family<RuleLabel, Counter>,
}

/// Takes batches to be scanned again.
#[derive(Clone)]
pub struct Rescan {
    sender: SyncSender<Batch>,
    step: u64,
    due: Arc<AtomicU64>,
    counts: Counts,
}

impl fmt::Debug for Rescan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rescan").field("millionths", &self.step).finish_non_exhaustive()
    }
}

impl Rescan {
    /// Scans this part of the batches again with the engine's rules, in a thread of its own that ends with what is returned.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(engine: Arc<Engine>, millionths: u32, counts: Counts) -> std::io::Result<Rescan> {
        Ok(Rescan::started(engine, millionths, counts)?.0)
    }

    fn started(
        engine: Arc<Engine>,
        millionths: u32,
        counts: Counts,
    ) -> std::io::Result<(Rescan, JoinHandle<()>)> {
        let (mut rescan, batches) = Rescan::new(millionths);
        rescan.counts = counts;
        let step = rescan.step;
        let counts = rescan.counts.clone();
        let thread = std::thread::Builder::new().name("rescan".to_owned());
        let thread = thread.spawn(move || {
            for batch in batches {
                look(&engine, &batch, &counts);
                // Batches come seldom, and the expressions take more memory than the rest of the filter.
                if step < KEPT_FROM {
                    engine.forget_reference();
                }
            }
        })?;
        Ok((rescan, thread))
    }

    pub(crate) fn new(millionths: u32) -> (Rescan, Receiver<Batch>) {
        let (sender, batches) = sync_channel(RESCANS_WAITING_MAX);
        let step = u64::from(millionths).min(ALL);
        let due = Arc::new(AtomicU64::new(0));
        (Rescan { sender, step, due, counts: Counts::default() }, batches)
    }

    /// Hands a batch over if it is its turn. Costs a counter otherwise, and never waits. Of the first batch the first rows are handed
    /// over in any case: what is wrong from the start is known at the start, and a start costs little.
    pub fn offer(&self, batch: &Batch) {
        let before = self.due.fetch_add(self.step, Ordering::Relaxed);
        let is_due = before / ALL != (before + self.step) / ALL;
        let batch = match (is_due, before) {
            (true, _) => Ok(batch.clone()),
            (false, 0) if self.step > 0 => first_rows(batch, RESCAN_FIRST_BYTES),
            _ => return,
        };
        let Ok(batch) = batch else {
            self.counts.failed.inc();
            return;
        };
        match self.sender.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.skipped.inc();
            }
        }
    }

    /// What it counts.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }
}

impl Counts {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("beeacon_agent_rescan");
        let Counts { batches, skipped, failed, findings, differences } = self.clone();
        registry.register(
            "batches",
            "Batches that were scanned again by the plain meaning of the rules.",
            batches,
        );
        registry.register("skipped_batches", "Batches whose turn it was while others were waiting.", skipped);
        registry.register("failed_batches", "Batches that could not be scanned again.", failed);
        registry.register("findings", "What was found alike both times.", findings);
        registry.register(
            "differences",
            "What a rule missed, or found beyond its meaning; anything but 0 is an alarm.",
            differences,
        );
    }
}

/// The rows of a batch whose text begins within so many bytes.
fn first_rows(batch: &Batch, bytes: usize) -> Result<Batch, BatchError> {
    let offsets = batch.messages().value_offsets();
    let first = offsets.first().copied().unwrap_or(0);
    let limit = first.saturating_add(i32::try_from(bytes).unwrap_or(i32::MAX));
    let rows = offsets.partition_point(|offset| *offset < limit).min(batch.rows());
    batch.filter(&(0..batch.rows()).map(|row| Some(row < rows)).collect())
}

fn look(engine: &Engine, batch: &Batch, counts: &Counts) {
    match engine.compare_batch(batch) {
        Ok(comparison) => tell(&comparison, counts),
        Err(error) => {
            counts.failed.inc();
            tracing::error!(error = crate::ship::http::chain(&error), "a batch cannot be scanned again");
        }
    }
}

fn tell(comparison: &Comparison, counts: &Counts) {
    counts.batches.inc();
    counts.findings.inc_by(comparison.same);
    for one in &comparison.differences {
        let label = RuleLabel { rule: one.rule.clone() };
        counts.differences.get_or_create(&label).inc_by(one.missed + one.extra);
        let (source, position) = one.place.clone().unzip();
        tracing::error!(
            rule = one.rule,
            missed = one.missed,
            extra = one.extra,
            source = source.unwrap_or_default(),
            position = position.map(|position| position.to_string()).unwrap_or_default(),
            start = one.start,
            end = one.end,
            "the pollen filter does not find what a rule means"
        );
    }
}

#[cfg(test)]
mod tests {
    use beeacon_filters::{Difference, EngineOptions};
    use beeacon_record::{BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};
    use std::sync::Mutex;

    use super::*;
    use crate::filter::{Filter, PollenFilter};

    fn batch() -> Batch {
        let source = Source::new("docker-file:4f2a").unwrap();
        let mut builder = BatchBuilder::new("agent");
        let origin = builder.origin(&Origin::default(), &source);
        let position = Position::new(1, 0);
        let line = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 1,
            stream: Stream::Stdout,
            level: Level::Info,
            position,
        };
        builder.push(line, b"mail to bob@example.org");
        builder.finish(vec![Interval::new(source, position, Position::new(1, 9))]).unwrap()
    }

    #[test]
    fn the_first_batch_and_then_a_part_of_all_are_taken_and_a_full_queue_is_counted_and_never_waited_for() {
        let (rescan, batches) = Rescan::new(250_000);
        let taken: Vec<usize> =
            (0..8).map(|_| rescan.offer(&batch())).map(|()| batches.try_iter().count()).collect();
        assert_eq!(taken, [1, 0, 0, 1, 0, 0, 0, 1]);
        let (rescan, batches) = Rescan::new(1_000_000);
        for _ in 0..RESCANS_WAITING_MAX + 3 {
            rescan.offer(&batch());
        }
        assert_eq!(rescan.counts.skipped.get(), 3);
        drop(batches);
        rescan.offer(&batch());
        assert_eq!(rescan.counts.skipped.get(), 4);
        let (rescan, batches) = Rescan::new(0);
        rescan.offer(&batch());
        assert_eq!(batches.try_iter().count(), 0);
    }

    #[test]
    fn of_the_first_batch_the_first_rows_are_taken_unless_it_is_its_turn() {
        let long = "a line of which there are many ".repeat(1000);
        let source = Source::new("docker-file:4f2a").unwrap();
        let mut builder = BatchBuilder::new("agent");
        let origin = builder.origin(&Origin::default(), &source);
        let position = |row| Position::new(1, row);
        for row in 0..10 {
            let about = Line {
                origin,
                timestamp_ns: 1,
                observed_timestamp_ns: 1,
                stream: Stream::Stdout,
                level: Level::Info,
                position: position(row),
            };
            builder.push(about, long.as_bytes());
        }
        let whole = builder.finish(vec![Interval::new(source, position(0), position(10))]).unwrap();
        let taken = |millionths| {
            let (rescan, batches) = Rescan::new(millionths);
            rescan.offer(&whole);
            let rows: Vec<usize> = batches.try_iter().map(|batch| batch.rows()).collect();
            rows
        };
        assert_eq!(taken(1_000), [RESCAN_FIRST_BYTES.div_ceil(long.len())]);
        assert_eq!(taken(1_000_000), [10]);
        assert_eq!(taken(0), [0_usize; 0]);
    }

    #[test]
    fn a_batch_that_comes_out_alike_is_counted_by_a_thread_that_ends_with_its_door() {
        let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
        let (rescan, thread) = Rescan::started(engine, 1_000_000, Counts::default()).unwrap();
        rescan.offer(&batch());
        let counts = rescan.counts.clone();
        drop(rescan);
        thread.join().unwrap();
        assert_eq!((counts.batches.get(), counts.findings.get(), counts.failed.get()), (1, 1, 0));
        assert_eq!(counts.skipped.get(), 0);
    }

    #[test]
    fn the_filter_offers_what_it_scrubs_as_it_was() {
        let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
        let (rescan, batches) = Rescan::new(1_000_000);
        let counts = rescan.counts();
        let filter = PollenFilter::new(engine, 0).with_rescan(Some(rescan));
        let (scrubbed, _) = filter.scrub(batch()).unwrap();
        assert_eq!(scrubbed.get().messages().value(0), "mail to <EMAIL>");
        let offered: Vec<Batch> = batches.try_iter().collect();
        assert_eq!(offered.len(), 1);
        assert_eq!(offered[0].messages().value(0), "mail to bob@example.org");
        let mut registry = Registry::default();
        counts.register(&mut registry);
        crate::rule_metrics::register(Arc::new(move || filter.engine()), &mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in
            ["beeacon_agent_rescan_batches_total 0", "beeacon_agent_rule_matches_total{rule=\"email\"} 1"]
        {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_difference_is_counted_under_its_rule_and_told_as_an_error_with_its_span() {
        let (rescan, _batches) = Rescan::new(1);
        let difference = Difference {
            rule: "email".to_owned(),
            missed: 2,
            extra: 1,
            line: 0,
            start: 8,
            end: 23,
            place: Some(("docker-file:4f2a".to_owned(), Position::new(1, 0))),
        };
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tell(&Comparison { same: 0, differences: vec![difference] }, &rescan.counts);
        });
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        for part in ["ERROR", "rule=\"email\" missed=2 extra=1", "docker-file:4f2a", "start=8 end=23"] {
            assert!(logged.contains(part), "{part} is missing in {logged}");
        }
        let mut registry = Registry::default();
        rescan.counts.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("beeacon_agent_rescan_differences_total{rule=\"email\"} 3"), "{text}");
        assert!(text.contains("beeacon_agent_rescan_batches_total 1"), "{text}");
    }
}

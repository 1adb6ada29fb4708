//! How known secrets are doing: written by who keeps them, read by status, metrics and whoever waits for the first set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use tokio::sync::watch;

/// Where known secrets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownSource {
    /// A file.
    File,
    /// A Vault.
    Vault,
}

impl KnownSource {
    fn name(self) -> &'static str {
        match self {
            KnownSource::File => "file",
            KnownSource::Vault => "vault",
        }
    }
}

/// One source at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownSourceStatus {
    /// Which.
    pub source: KnownSource,
    /// How old what is in use of it may be, in seconds: since the last time that it could be asked. `None` before the first.
    pub age_seconds: Option<u64>,
    /// What kind of error there was at the last look; `None` when it went well.
    pub error: Option<&'static str>,
    /// How many looks have failed since the start.
    pub failures: u64,
}

/// Known secrets at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KnownStatus {
    /// How many are looked for.
    pub secrets: usize,
    /// How many are not, for they would take ordinary text out.
    pub refused: usize,
    /// Their sources.
    pub sources: Vec<KnownSourceStatus>,
}

/// A source, as it is kept.
#[derive(Clone, Copy)]
struct Source {
    is_required: bool,
    /// How old it may be before it is worth a word.
    age_max: Duration,
    asked_at: Option<Instant>,
    error: Option<&'static str>,
    failures: u64,
}

#[derive(Default)]
struct State {
    secrets: usize,
    refused: usize,
    sources: BTreeMap<KnownSource, Source>,
}

#[derive(Clone, Default)]
struct KnownMetrics {
    secrets: Gauge,
    refused: Gauge,
    age: Family<Vec<(&'static str, &'static str)>, Gauge>,
    failures: Family<Vec<(&'static str, &'static str)>, Counter>,
}

/// How known secrets are doing. Clones speak of the same ones.
#[derive(Clone)]
pub struct KnownBoard(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    is_ready: watch::Sender<bool>,
    metrics: KnownMetrics,
}

impl Default for KnownBoard {
    /// One without sources, for an agent that has no known secrets.
    fn default() -> Self {
        let (is_ready, _) = watch::channel(true);
        KnownBoard(Arc::new(Inner { state: Mutex::default(), is_ready, metrics: KnownMetrics::default() }))
    }
}

impl std::fmt::Debug for KnownBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KnownBoard").field(&self.status()).finish()
    }
}

impl KnownBoard {
    /// One without sources that counts where this one counts: for what takes its place.
    pub(crate) fn succeeding(&self) -> KnownBoard {
        let (is_ready, _) = watch::channel(true);
        let metrics = self.0.metrics.clone();
        KnownBoard(Arc::new(Inner { state: Mutex::default(), is_ready, metrics }))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// There is such a source, which has not been asked yet. Nothing is ready until every one has, or only tried and not required.
    pub(super) fn expect(&self, source: KnownSource, is_required: bool, age_max: Duration) {
        let new = Source { is_required, age_max, asked_at: None, error: None, failures: 0 };
        self.change(|state| {
            state.sources.insert(source, new);
        });
        self.0.is_ready.send_replace(false);
    }

    /// A source was asked, and what it has is in use.
    pub(super) fn succeeded(&self, source: KnownSource, now: Instant) {
        self.change(|state| {
            if let Some(source) = state.sources.get_mut(&source) {
                (source.asked_at, source.error) = (Some(now), None);
            }
        });
        self.settle();
    }

    /// A source could not be asked.
    pub(super) fn failed(&self, source: KnownSource, kind: &'static str) {
        self.0.metrics.failures.get_or_create(&vec![("source", source.name()), ("kind", kind)]).inc();
        self.change(|state| {
            if let Some(source) = state.sources.get_mut(&source) {
                source.error = Some(kind);
                source.failures += 1;
            }
        });
        self.settle();
    }

    /// How many are looked for, and how many are refused.
    pub(super) fn holds(&self, secrets: usize, refused: usize) {
        self.change(|state| (state.secrets, state.refused) = (secrets, refused));
    }

    /// Ready once, ready for good: from then on the last set stays.
    fn settle(&self) {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_settled =
            |source: &Source| source.asked_at.is_some() || (!source.is_required && source.error.is_some());
        let is_ready = state.sources.values().all(is_settled);
        drop(state);
        self.0.is_ready.send_if_modified(|ready| !std::mem::replace(ready, *ready || is_ready) && is_ready);
    }

    /// Whether everything that is required has been there.
    pub fn is_ready(&self) -> bool {
        *self.0.is_ready.borrow()
    }

    /// Waits until everything that is required has been there.
    pub async fn ready(&self) {
        // The sender is in `self`, so there is no error.
        self.0.is_ready.subscribe().wait_for(|is_ready| *is_ready).await.ok();
    }

    /// How they are doing.
    pub fn status(&self) -> KnownStatus {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = state.sources.iter().map(|(source, kept)| KnownSourceStatus {
            source: *source,
            age_seconds: kept.asked_at.map(|at| at.elapsed().as_secs()),
            error: kept.error,
            failures: kept.failures,
        });
        KnownStatus { secrets: state.secrets, refused: state.refused, sources: sources.collect() }
    }

    /// What does not work.
    pub fn problems(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = |(source, kept): (&KnownSource, &Source)| {
            let name = source.name();
            let why = kept.error.map(|kind| format!(" ({kind})")).unwrap_or_default();
            match kept.asked_at {
                None if kept.is_required => Some(format!(
                    "known secrets of the {name} are not there yet{why}: nothing is shipped before"
                )),
                None => kept.error.map(|_| {
                    format!("known secrets of the {name} are not there{why}: lines are shipped without them")
                }),
                Some(at) if kept.error.is_some() || at.elapsed() > kept.age_max => {
                    let age = at.elapsed().as_secs();
                    Some(format!(
                        "known secrets of the {name} could not be looked at for {age} s{why}: the last ones stay"
                    ))
                }
                Some(_) => None,
            }
        };
        state.sources.iter().filter_map(problem).collect()
    }

    /// Brings the gauges up to date.
    pub fn gauge(&self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (status, metrics) = (self.status(), &self.0.metrics);
        metrics.secrets.set(number(status.secrets));
        metrics.refused.set(number(status.refused));
        for source in status.sources {
            if let Some(age) = source.age_seconds {
                let gauge = metrics.age.get_or_create(&vec![("source", source.source.name())]);
                gauge.set(i64::try_from(age).unwrap_or(i64::MAX));
            }
        }
    }

    /// Registers what it counts, below the agent's prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        registry.register("known_secrets", "Known secrets that are looked for.", metrics.secrets.clone());
        registry.register(
            "known_secrets_refused",
            "Known secrets that are not looked for, for they would take ordinary text out.",
            metrics.refused.clone(),
        );
        registry.register_with_unit(
            "known_secrets_age",
            "Since a source of known secrets could last be asked.",
            Unit::Seconds,
            metrics.age.clone(),
        );
        registry.register(
            "known_secrets_failures",
            "Looks at a source of known secrets that failed, by kind of error.",
            metrics.failures.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_required_has_to_be_there_once_and_what_is_not_has_to_be_tried() {
        let board = KnownBoard::default();
        assert!(board.is_ready() && board.problems().is_empty());
        board.expect(KnownSource::Vault, true, MINUTE);
        board.failed(KnownSource::Vault, "sealed");
        assert!(!board.is_ready());
        assert!(board.problems()[0].contains("(sealed): nothing is shipped"), "{:?}", board.problems());
        board.succeeded(KnownSource::Vault, Instant::now());
        assert!(board.is_ready() && board.problems().is_empty());
        board.failed(KnownSource::Vault, "unreachable");
        assert!(board.is_ready());
        assert!(board.problems()[0].ends_with("(unreachable): the last ones stay"), "{:?}", board.problems());
        assert_eq!(board.status().sources[0].failures, 2);

        let board = KnownBoard::default();
        board.expect(KnownSource::Vault, false, MINUTE);
        assert!(!board.is_ready());
        board.failed(KnownSource::Vault, "denied");
        assert!(board.is_ready());
        assert!(board.problems()[0].contains("shipped without them"), "{:?}", board.problems());
    }

    #[test]
    fn a_source_that_nobody_asks_any_more_is_a_problem_too() {
        let board = KnownBoard::default();
        board.expect(KnownSource::Vault, true, MINUTE);
        let Some(long_ago) = Instant::now().checked_sub(2 * MINUTE) else { return };
        board.succeeded(KnownSource::Vault, long_ago);
        assert!(board.problems()[0].contains("the last ones stay"), "{:?}", board.problems());
        assert!(board.status().sources[0].age_seconds.unwrap() >= 120);
    }

    #[test]
    fn what_is_counted_has_these_names() {
        let board = KnownBoard::default();
        board.expect(KnownSource::Vault, true, MINUTE);
        board.failed(KnownSource::Vault, "sealed");
        board.succeeded(KnownSource::Vault, Instant::now());
        board.holds(3, 1);
        board.gauge();
        let mut registry = Registry::default();
        board.register(registry.sub_registry_with_prefix("beeacon_agent"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "beeacon_agent_known_secrets 3",
            "beeacon_agent_known_secrets_refused 1",
            "beeacon_agent_known_secrets_age_seconds{source=\"vault\"} 0",
            "beeacon_agent_known_secrets_failures_total{source=\"vault\",kind=\"sealed\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
        }
    }
}

//! What the query room tells Prometheus.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How a query ended: `ok`, `abandoned`, or an error's code.
type Outcome = [(&'static str, &'static str); 1];

/// Counters and gauges of one [`crate::Query`].
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    queries: Family<Outcome, Counter>,
    pub(crate) running: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) rows: Counter,
    pub(crate) bytes: Counter,
    pub(crate) files_total: Counter,
    pub(crate) files_skipped: Counter,
    pub(crate) files_damaged: Counter,
    pub(crate) seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let queries: Family<Outcome, Counter> = Family::default();
        // There from the start, so that a dashboard shows none and not nothing.
        drop(queries.get_or_create(&[("outcome", "ok")]));
        Metrics {
            queries,
            running: Gauge::default(),
            waiting: Gauge::default(),
            rows: Counter::default(),
            bytes: Counter::default(),
            files_total: Counter::default(),
            files_skipped: Counter::default(),
            files_damaged: Counter::default(),
            seconds: Histogram::new([0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0]),
        }
    }
}

impl Metrics {
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.queries.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn count(&self, outcome: &'static str) -> u64 {
        self.queries.get_or_create(&[("outcome", outcome)]).get()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "beeacon_query_queries",
            "Queries by outcome: ok, abandoned, or the error's code",
            self.queries.clone(),
        );
        registry.register("beeacon_query_running", "Queries that are running", self.running.clone());
        registry.register("beeacon_query_waiting", "Queries that wait for their turn", self.waiting.clone());
        registry.register("beeacon_query_rows", "Rows given out", self.rows.clone());
        registry.register_with_unit(
            "beeacon_query_answer",
            "Bytes given out over HTTP",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            "beeacon_query_files",
            "Live files of the tenants asked about, once per query of logs",
            self.files_total.clone(),
        );
        registry.register(
            "beeacon_query_files_skipped",
            "Of those, files that the catalog showed not to match",
            self.files_skipped.clone(),
        );
        registry.register(
            "beeacon_query_files_damaged",
            "Of those, files left out because they are missing or damaged",
            self.files_damaged.clone(),
        );
        registry.register_with_unit(
            "beeacon_query_duration",
            "Time from admission to the last row",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }
}

//! A store with lines in it, and the room over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beeacon_query::{Query, QueryError, QueryOptions};
use beeacon_record::batch::redactions_array;
use beeacon_record::schema::Column;
use beeacon_record::{
    BatchBuilder, Interval, Level, Line, Origin, Position, RuleSetId, Scrubbed, Source, Stream,
};
use beeacon_store::{Commit, Store, StoreOptions};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::array_value_to_string;
use futures_util::TryStreamExt;

pub(crate) const HOUR_NS: i64 = 3_600_000_000_000;

/// 2026-01-05T12:00:00Z.
pub(crate) const NOON_NS: i64 = 1_767_614_400_000_000_000;

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) query: Query,
    next_lsn: AtomicU64,
    pub(crate) directory: Arc<tempfile::TempDir>,
}

/// One line to store.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) service: &'static str,
    pub(crate) timestamp_ns: i64,
    pub(crate) message: String,
    pub(crate) redactions: Vec<(&'static str, u32)>,
}

pub(crate) fn said(service: &'static str, timestamp_ns: i64, message: impl Into<String>) -> Said {
    Said { service, timestamp_ns, message: message.into(), redactions: Vec::new() }
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(QueryOptions { partitions: 2, ..QueryOptions::default() }).await
    }

    pub(crate) async fn with(options: QueryOptions) -> World {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let mut store_options = StoreOptions::new(directory.path());
        store_options.flush_age = Duration::from_secs(3600);
        let store = Store::open(store_options).await.unwrap();
        let query = Query::new(store.clone(), options).unwrap();
        World { store, query, next_lsn: AtomicU64::new(1), directory }
    }

    /// Publishes lines of one tenant as one commit; positions are dense over the whole world.
    pub(crate) async fn publish(&self, tenant: &str, lines: &[Said]) {
        let lsn = self.next_lsn.fetch_add(1, Ordering::SeqCst);
        self.store.publish(commit(lsn, tenant, lines)).await.unwrap();
    }

    pub(crate) async fn publish_and_flush(&self, tenant: &str, lines: &[Said]) {
        self.publish(tenant, lines).await;
        self.store.flush().await.unwrap();
    }

    pub(crate) fn take_lsn(&self) -> u64 {
        self.next_lsn.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) async fn batches(&self, text: &str) -> Result<Vec<RecordBatch>, QueryError> {
        self.query.sql("default", text).await?.try_collect().await
    }

    /// Every cell as text, row by row.
    pub(crate) async fn cells(&self, text: &str) -> Vec<Vec<String>> {
        self.cells_of("default", text).await
    }

    pub(crate) async fn cells_of(&self, tenant: &str, text: &str) -> Vec<Vec<String>> {
        let rows =
            self.query.sql(tenant, text).await.unwrap_or_else(|e| panic!("{text}: {}", e.for_the_asker()));
        let batches: Vec<RecordBatch> =
            rows.try_collect().await.unwrap_or_else(|e| panic!("{text}: {}", e.for_the_asker()));
        let mut cells = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let line = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
                cells.push(line.collect());
            }
        }
        cells
    }

    pub(crate) async fn one(&self, text: &str) -> String {
        let cells = self.cells(text).await;
        assert_eq!((cells.len(), cells[0].len()), (1, 1), "{text}");
        cells[0][0].clone()
    }

    pub(crate) async fn error(&self, text: &str) -> QueryError {
        match self.batches(text).await {
            Ok(_) => panic!("answered: {}", text.chars().take(200).collect::<String>()),
            Err(error) => error,
        }
    }

    /// Waits until no query is running any more.
    pub(crate) async fn idle(&self) {
        let idle = async {
            while self.query.statistics().running > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), idle).await.expect("a query goes on running");
    }
}

pub(crate) fn commit(lsn: u64, tenant: &str, lines: &[Said]) -> Commit {
    let source = Source::new("docker-file:4f2a").unwrap();
    let mut builder = BatchBuilder::new("11111111-1111-1111-1111-111111111111");
    let base = lsn * 1_000_000;
    for (index, line) in lines.iter().enumerate() {
        let origin = Origin {
            host: "h1".into(),
            service: line.service.into(),
            container: format!("{}-1", line.service),
            container_id: "4f2a".into(),
            image: "img".into(),
            labels: vec![
                ("com.docker.compose.project".into(), "shop".into()),
                ("tier".into(), format!("{}-tier", line.service)),
            ],
        };
        let origin = builder.origin(&origin, &source);
        builder.push(
            Line {
                origin,
                timestamp_ns: line.timestamp_ns,
                observed_timestamp_ns: line.timestamp_ns + 5,
                stream: Stream::Stdout,
                level: Level::Info,
                position: Position::new(1, base + index as u64),
            },
            line.message.as_bytes(),
        );
        builder.attribute("trace_id", &format!("t{index}"));
    }
    let interval = Interval::new(source, Position::new(1, base), Position::new(1, base + 1_000_000));
    let batch = builder.finish(vec![interval]).unwrap();
    let entries = lines
        .iter()
        .enumerate()
        .flat_map(|(row, line)| line.redactions.iter().map(move |(rule, count)| (row, *rule, *count)));
    let redactions = redactions_array(lines.len(), entries).unwrap();
    let batch = batch.with_column(Column::Redactions, Arc::new(redactions)).unwrap();
    let received_ns = lines.iter().map(|line| line.timestamp_ns).max().unwrap_or(NOON_NS);
    let mut commit = Commit::new(lsn, tenant, received_ns);
    commit.batch = Some(Scrubbed::seal(batch, RuleSetId(1)));
    commit
}

//! What every story needs: a collector with its directories, an agent that speaks to it, and a look at what is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{RecordBatch, StringArray};
use axum::Router;
use axum::body::Body;
use beeacon_collector::{Collector, CollectorOptions, LokiOptions};
use beeacon_journal::JournalOptions;
use beeacon_record::schema::Column;
use beeacon_record::wire::{
    INGEST_PATH, IngestAnswer, Refusal, RefusalCode, SESSION_PATH, SessionAnswer, SessionRequest,
};
use beeacon_record::{
    AgentId, Batch, BatchBuilder, Epoch, FrameEncoder, Interval, Level, Line, Origin, Position, RuleSetId,
    Scrubbed, Source, Stream,
};
use beeacon_store::{Prune, Store, StoreOptions};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::ServiceExt;

/// A collector on a directory.
pub(crate) struct House {
    pub(crate) collector: Collector,
    pub(crate) store: Store,
    pub(crate) router: Router,
    directory: Arc<TempDir>,
    path: PathBuf,
    settings: Settings,
}

/// What differs between stories.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) journal: Option<JournalOptions>,
    pub(crate) loki: Option<LokiOptions>,
    pub(crate) store: Option<fn(&mut StoreOptions)>,
    pub(crate) followers: Vec<String>,
}

impl House {
    pub(crate) async fn new() -> House {
        House::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> House {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let path = directory.path().join("0");
        House::open(directory, path, settings).await
    }

    async fn open(directory: Arc<TempDir>, path: PathBuf, settings: Settings) -> House {
        let mut store = StoreOptions::new(&path);
        // Only a story that wants a flush has one.
        store.flush_age = Duration::from_secs(86_400);
        if let Some(change) = settings.store {
            change(&mut store);
        }
        let store = Store::open(store).await.unwrap();
        let mut options = CollectorOptions::new(path.join("journal"));
        options.journal = settings.journal.clone().unwrap_or_else(|| JournalOptions {
            segment_bytes: 1 << 20,
            record_bytes_max: 512 << 10,
            ..JournalOptions::default()
        });
        options.loki = settings.loki.clone();
        options.followers.clone_from(&settings.followers);
        let collector = Collector::open(options, store.clone()).await.unwrap();
        let router = collector.router();
        House { collector, store, router, directory, path, settings }
    }

    /// As after `kill -9`: a second collector on what is on the disk at this moment, while the first one is still there.
    pub(crate) async fn killed(&self) -> House {
        self.killed_with(self.settings.clone()).await
    }

    pub(crate) async fn killed_with(&self, settings: Settings) -> House {
        let path = self.copy();
        House::open(Arc::clone(&self.directory), path, settings).await
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of everything on the disk.
    pub(crate) fn copy(&self) -> PathBuf {
        let number = std::fs::read_dir(self.directory.path()).unwrap().count();
        let path = self.directory.path().join(number.to_string());
        copy(&self.path, &path);
        path
    }

    pub(crate) async fn open_copy(&self, path: PathBuf) -> House {
        House::open(Arc::clone(&self.directory), path, self.settings.clone()).await
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn session(&self, agent: &Agent) -> SessionAnswer {
        let request = SessionRequest { agent: agent.id, host: "h".into(), version: "0".into() };
        let body = serde_json::to_vec(&request).unwrap();
        let response = self.request(Request::post(SESSION_PATH).body(body.into()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await
    }

    /// Opens a session and lets the agent use it.
    pub(crate) async fn begin(&self, agent: &mut Agent) -> SessionAnswer {
        let answer = self.session(agent).await;
        agent.epoch = answer.epoch;
        answer
    }

    pub(crate) async fn send(&self, frame: Bytes) -> Result<IngestAnswer, (StatusCode, Refusal)> {
        let response = self.request(Request::post(INGEST_PATH).body(frame.into()).unwrap()).await;
        answer(response).await
    }

    /// Sends what has to be taken.
    pub(crate) async fn take(&self, frame: Bytes) -> IngestAnswer {
        self.send(frame).await.unwrap_or_else(|(status, refusal)| panic!("{status} {refusal:?}"))
    }

    /// Every row stored, fresh or in files, as (agent, source, position, message), with how often it is there.
    pub(crate) async fn rows(&self) -> BTreeMap<Row, u32> {
        let snapshot = self.store.snapshot("default", &Prune::default()).await.unwrap();
        let mut rows = BTreeMap::new();
        let objects = self.store.object_store();
        for file in &snapshot.files {
            let bytes = objects
                .get_opts(&file.path, object_store::GetOptions::default())
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            let reader =
                parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            for batch in reader.build().unwrap() {
                count(&batch.unwrap(), &mut rows);
            }
        }
        for batch in &snapshot.fresh {
            count(batch, &mut rows);
        }
        rows
    }

    /// The messages stored, each once, by source and position.
    pub(crate) async fn messages(&self) -> Vec<String> {
        let rows = self.rows().await;
        assert!(rows.values().all(|count| *count == 1), "a row is stored twice");
        rows.into_keys().map(|row| row.message).collect()
    }

    /// Gap rows as (from, to) of their minor positions, with the reason.
    pub(crate) async fn gaps(&self) -> Vec<(u64, u64, String)> {
        let gaps = self.store.gaps("default").await.unwrap();
        let number = |name: &str| gaps.column_by_name(name).unwrap().as_primitive::<UInt64Type>().clone();
        let (from, to) = (number("from_minor"), number("to_minor"));
        let reason = gaps.column_by_name("reason").unwrap().as_string::<i32>().clone();
        (0..gaps.num_rows()).map(|row| (from.value(row), to.value(row), reason.value(row).into())).collect()
    }
}

/// A stored row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) agent: String,
    pub(crate) source: String,
    pub(crate) position: (u64, u64),
    pub(crate) message: String,
}

fn count(batch: &RecordBatch, rows: &mut BTreeMap<Row, u32>) {
    let text = |column: Column| {
        let array =
            arrow_cast::cast(batch.column_by_name(column.name()).unwrap(), &arrow_schema::DataType::Utf8);
        array.unwrap().as_any().downcast_ref::<StringArray>().unwrap().clone()
    };
    let number =
        |column: Column| batch.column_by_name(column.name()).unwrap().as_primitive::<UInt64Type>().clone();
    let (agent, source, message) = (text(Column::Agent), text(Column::Source), text(Column::Message));
    let (major, minor) = (number(Column::PositionMajor), number(Column::PositionMinor));
    for row in 0..batch.num_rows() {
        let row = Row {
            agent: agent.value(row).into(),
            source: source.value(row).into(),
            position: (major.value(row), minor.value(row)),
            message: message.value(row).into(),
        };
        *rows.entry(row).or_default() += 1;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) async fn json<T: serde::de::DeserializeOwned>(response: Response<Body>) -> T {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

pub(crate) async fn answer(response: Response<Body>) -> Result<IngestAnswer, (StatusCode, Refusal)> {
    match response.status() {
        StatusCode::OK => Ok(json(response).await),
        status => Err((status, json(response).await)),
    }
}

/// A refusal's status and code.
pub(crate) fn refused(result: Result<IngestAnswer, (StatusCode, Refusal)>) -> (u16, RefusalCode) {
    let (status, refusal) = result.expect_err("it was taken");
    assert!(!refusal.error.message.is_empty());
    (status.as_u16(), refusal.error.code)
}

/// An agent that makes frames.
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) epoch: Epoch,
}

impl Agent {
    pub(crate) fn new(number: u8) -> Agent {
        Agent { id: AgentId::from_bytes([number; 16]), epoch: Epoch(0) }
    }

    pub(crate) fn encode(&self, batch: Batch) -> Bytes {
        let mut encoder = FrameEncoder::new(self.id, self.epoch, 0, 1).unwrap();
        encoder.encode(&Scrubbed::seal(batch, RuleSetId(1))).unwrap()
    }

    /// A frame of one source, with a row at each of these positions, whose text is `<source> <position>`.
    pub(crate) fn frame(&self, rows: &[u64], interval: Interval) -> Bytes {
        self.frame_of(&[(rows, interval)])
    }

    /// A frame of several sources.
    pub(crate) fn frame_of(&self, parts: &[(&[u64], Interval)]) -> Bytes {
        let mut builder = BatchBuilder::new(self.id.to_string());
        for (rows, interval) in parts {
            let origin = Origin {
                host: "host-1".into(),
                service: "web".into(),
                container: "shop-web-1".into(),
                container_id: "4f2a".into(),
                image: "shop/web:1".into(),
                labels: vec![("team".into(), "shop".into())],
            };
            let origin = builder.origin(&origin, &interval.source);
            for minor in *rows {
                let position = Position::new(1, *minor);
                let text = format!("{} {minor}", interval.source);
                builder.push(line(origin, position), text.as_bytes());
            }
        }
        self.encode(builder.finish(parts.iter().map(|(_, interval)| interval.clone()).collect()).unwrap())
    }

    /// The frame that covers `[from, to)` of the source `s`, with a row at every tenth position.
    pub(crate) fn tens(&self, from: u64, to: u64) -> Bytes {
        let rows: Vec<u64> = (from..to).filter(|minor| minor % 10 == 0).collect();
        self.frame(&rows, interval("s", from, to))
    }
}

pub(crate) fn line(origin: beeacon_record::OriginId, position: Position) -> Line {
    Line {
        origin,
        timestamp_ns: 1_700_000_000_000_000_000 + i64::try_from(position.minor).unwrap(),
        observed_timestamp_ns: 1_700_000_000_000_000_000,
        stream: Stream::Stderr,
        level: Level::Error,
        position,
    }
}

pub(crate) fn interval(source: &str, from: u64, to: u64) -> Interval {
    Interval::new(Source::new(source).unwrap(), Position::new(1, from), Position::new(1, to))
}

/// The messages that [`Agent::tens`] makes.
pub(crate) fn tens(from: u64, to: u64) -> Vec<String> {
    (from..to).filter(|minor| minor % 10 == 0).map(|minor| format!("s {minor}")).collect()
}

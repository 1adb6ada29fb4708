//! Running queries: admission, threads of their own, deadline, and the way rows come out.
//!
//! Queries run on a runtime of their own, so that no plan, however stubborn, takes a thread from those who take lines in; its
//! threads have deep stacks, because planner and expressions recurse. One query is one task there. It holds its permit until
//! it has really ended, it is cancelled when nobody wants its answer any more, and it is held back by a short queue while
//! its reader is slow. Whether an answer is complete is said explicitly, so that a task that died is never taken for an end.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use beeacon_store::Store;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures_util::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, timeout, timeout_at};

use crate::error::{Phase, QueryError};
use crate::limits;
use crate::metrics::Metrics;
use crate::session::Session;
use crate::tables::Moment;
use crate::{guard, session};

/// What a query may cost. Every field has a default.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// The memory one query may reserve, in bytes. Default 256 MiB. A sort, join or grouping beyond it spills, or ends with
    /// [`QueryError::Memory`].
    pub memory_bytes_max: usize,
    /// Where queries may spill. `None`, the default, is nowhere: a query that needs more memory ends. Rows there are scrubbed
    /// like all stored rows. Directories left by a killed process are removed when the room is opened.
    pub spill_directory: Option<PathBuf>,
    /// What one query may spill, in bytes. Default 1 GiB.
    pub spill_bytes_max: u64,
    /// How long one query may take, from its admission to the last row taken by the client. Default 30 s.
    pub time_max: Duration,
    /// The most rows in one answer. Default one million.
    pub rows_max: u64,
    /// The most bytes in one encoded answer. Default 512 MiB.
    pub answer_bytes_max: u64,
    /// How many queries run at once. Default 4. Zero counts as one.
    pub running_max: usize,
    /// How many more may wait. Default 16.
    pub waiting_max: usize,
    /// How long they may wait. Default 5 s.
    pub wait_max: Duration,
    /// How many partitions a plan has, and how many threads all queries share. Default: the processors.
    pub partitions: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        QueryOptions {
            memory_bytes_max: limits::QUERY_MEMORY_BYTES,
            spill_directory: None,
            spill_bytes_max: limits::SPILL_BYTES,
            time_max: limits::QUERY_TIME,
            rows_max: limits::ANSWER_ROWS,
            answer_bytes_max: limits::ANSWER_BYTES,
            running_max: limits::QUERIES_RUNNING,
            waiting_max: limits::QUERIES_WAITING,
            wait_max: limits::ADMISSION_TIME,
            partitions: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Counts since the start, for a status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Queries running now.
    pub running: i64,
    /// Queries waiting now.
    pub waiting: i64,
    /// Queries answered in full.
    pub answered: u64,
    /// Queries whose client left.
    pub abandoned: u64,
    /// Rows given out.
    pub rows: u64,
    /// Live files of the tenants asked about, summed over queries of `logs`.
    pub files: u64,
    /// Of those, files skipped by the catalog.
    pub files_skipped: u64,
    /// Of those, files left out as missing or damaged.
    pub files_damaged: u64,
}

/// The query room: cheap to clone.
#[derive(Clone)]
pub struct Query(Arc<Room>);

struct Room {
    store: Store,
    options: QueryOptions,
    runtime: Option<Runtime>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    metrics: Metrics,
    footers: Mutex<HashMap<String, Arc<FileMetadataCache>>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The room may be dropped on an async thread, where waiting for the threads is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Query {
    /// Opens the room over a store.
    ///
    /// # Errors
    /// [`QueryError::Setup`] when the spill directory or the threads cannot be made.
    pub fn new(store: Store, options: QueryOptions) -> Result<Query, QueryError> {
        if let Some(directory) = &options.spill_directory {
            session::clean_spill_directory(directory).map_err(QueryError::Setup)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.partitions.max(2))
            .thread_name("beeacon-query")
            .thread_stack_size(limits::STACK_BYTES)
            .enable_all()
            .build()
            .map_err(QueryError::Setup)?;
        let permits = Arc::new(Semaphore::new(options.running_max.max(1)));
        Ok(Query(Arc::new(Room {
            store,
            options,
            runtime: Some(runtime),
            permits,
            waiting: AtomicUsize::new(0),
            metrics: Metrics::default(),
            footers: Mutex::new(HashMap::new()),
        })))
    }

    /// Runs one query of `tenant` and gives its rows as they come.
    ///
    /// # Errors
    /// Whatever stops the query before its first row; later errors come in the stream.
    pub async fn sql(&self, tenant: &str, text: &str) -> Result<Rows, QueryError> {
        self.start(tenant, text, |_| Ok(AsTheyAre)).await
    }

    /// Adds the room's metrics, all named `beeacon_query_…`.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// Counts since the start.
    pub fn statistics(&self) -> Statistics {
        let metrics = &self.0.metrics;
        Statistics {
            running: metrics.running.get(),
            waiting: metrics.waiting.get(),
            answered: metrics.count("ok"),
            abandoned: metrics.count("abandoned"),
            rows: metrics.rows.get(),
            files: metrics.files_total.get(),
            files_skipped: metrics.files_skipped.get(),
            files_damaged: metrics.files_damaged.get(),
        }
    }

    /// What this room was opened with.
    pub fn options(&self) -> &QueryOptions {
        &self.0.options
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Runs a query whose batches are made into pieces by a transform, on the query threads.
    pub(crate) async fn start<T: Transform>(
        &self,
        tenant: &str,
        text: &str,
        transform: impl FnOnce(&SchemaRef) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Pieces<T::Piece>, QueryError> {
        let counted = |error: QueryError| {
            self.0.metrics.ended(error.code());
            error
        };
        let permit = self.0.admit().await.map_err(counted)?;
        let deadline = Instant::now() + self.0.options.time_max;
        let (head_sender, head) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(limits::ANSWER_QUEUE_PIECES);
        let outlet = Outlet { head: Some(head_sender), pieces: sender };
        let run = Run {
            room: self.0.clone(),
            permit,
            tenant: tenant.to_owned(),
            text: text.to_owned(),
            deadline,
            running: Running::new(self.0.metrics.clone()),
        };
        let Some(runtime) = &self.0.runtime else { return Err(QueryError::internal("shutting down")) };
        let task = Abort(runtime.spawn(run.finish(transform, outlet)).abort_handle());
        let seconds = self.0.options.time_max.as_secs();
        let head = match timeout_at(deadline, head).await {
            Err(_) => Err(QueryError::Time { seconds }),
            Ok(Err(_)) => Err(QueryError::internal("the query's task ended early")),
            Ok(Ok(head)) => head,
        }?;
        Ok(Pieces {
            schema: head.schema,
            files_damaged: head.files_damaged,
            pieces,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            seconds,
            done: false,
            _task: task,
        })
    }
}

impl Room {
    async fn admit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let busy = || QueryError::Busy { running: self.options.running_max };
        let _waiting = Waiting::enter(self).ok_or_else(busy)?;
        match timeout(self.options.wait_max, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy()),
        }
    }

    fn footers(&self, tenant: &str) -> Arc<FileMetadataCache> {
        let new = || -> Arc<FileMetadataCache> { Arc::new(DefaultCache::new(limits::FOOTER_CACHE_BYTES)) };
        // A thread that panicked with the lock held left a usable map behind: every step of it is one insertion.
        let mut caches = self.footers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !caches.contains_key(tenant) && caches.len() >= limits::FOOTER_CACHE_TENANTS {
            return new();
        }
        caches.entry(tenant.to_owned()).or_insert_with(new).clone()
    }
}

/// A place among those who wait.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn enter(room: &'a Room) -> Option<Self> {
        let before = room.waiting.fetch_add(1, Ordering::AcqRel);
        room.metrics.waiting.inc();
        let place = Waiting(room);
        (before < room.options.waiting_max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.waiting.dec();
    }
}

/// Counts a query as running until dropped, and how it ended.
struct Running {
    metrics: Metrics,
    since: Instant,
    outcome: &'static str,
}

impl Running {
    fn new(metrics: Metrics) -> Self {
        metrics.running.inc();
        Running { metrics, since: Instant::now(), outcome: "abandoned" }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.ended(self.outcome);
        self.metrics.seconds.observe(self.since.elapsed().as_secs_f64());
        self.metrics.running.dec();
    }
}

/// Makes pieces of an answer from batches.
pub(crate) trait Transform: Send + 'static {
    type Piece: Send + 'static;

    /// Called with no more than [`limits::PIECE_ROWS`] rows unless [`Transform::SLICES`] is false.
    fn rows(&mut self, rows: RecordBatch) -> Result<Self::Piece, QueryError>;

    /// What follows the last row.
    fn end(&mut self) -> Result<Option<Self::Piece>, QueryError>;

    /// Whether large batches are to be cut.
    const SLICES: bool;
}

struct AsTheyAre;

impl Transform for AsTheyAre {
    type Piece = RecordBatch;
    const SLICES: bool = false;

    fn rows(&mut self, rows: RecordBatch) -> Result<RecordBatch, QueryError> {
        Ok(rows)
    }

    fn end(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        Ok(None)
    }
}

/// What is known before the first row.
struct Head {
    schema: SchemaRef,
    files_damaged: u64,
}

enum Message<P> {
    Piece(P),
    End,
    Failed(QueryError),
}

/// Why a query stops before its end.
enum Stop {
    /// Nobody is there any more to be told.
    Left,
    /// There is an error to tell.
    Failed(QueryError),
}

impl From<QueryError> for Stop {
    fn from(error: QueryError) -> Self {
        Stop::Failed(error)
    }
}

/// The task's side of an answer.
struct Outlet<P> {
    head: Option<oneshot::Sender<Result<Head, QueryError>>>,
    pieces: mpsc::Sender<Message<P>>,
}

impl<P> Outlet<P> {
    fn open(&mut self, schema: &SchemaRef, files_damaged: u64) -> Result<(), Stop> {
        match self.head.take() {
            Some(head) => {
                head.send(Ok(Head { schema: schema.clone(), files_damaged })).map_err(|_| Stop::Left)
            }
            None => Ok(()),
        }
    }

    async fn send(&self, message: Message<P>) -> Result<(), Stop> {
        self.pieces.send(message).await.map_err(|_| Stop::Left)
    }

    /// Tells the error, unless the queue is full: then its reader finds it ended without an end.
    fn fail(&mut self, error: QueryError) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(error))),
            None => drop(self.pieces.try_send(Message::Failed(error))),
        }
    }
}

/// One query on its way.
struct Run {
    room: Arc<Room>,
    permit: OwnedSemaphorePermit,
    tenant: String,
    text: String,
    deadline: Instant,
    running: Running,
}

impl Run {
    async fn finish<T: Transform>(
        mut self,
        transform: impl FnOnce(&SchemaRef) -> Result<T, QueryError> + Send + 'static,
        mut outlet: Outlet<T::Piece>,
    ) {
        let late = QueryError::Time { seconds: self.room.options.time_max.as_secs() };
        let worked = timeout_at(self.deadline, self.work(transform, &mut outlet)).await;
        match worked.unwrap_or(Err(Stop::Failed(late))) {
            Ok(()) => self.running.outcome = "ok",
            Err(Stop::Left) => {}
            Err(Stop::Failed(error)) => {
                tracing::debug!(code = error.code(), "query failed");
                self.running.outcome = error.code();
                outlet.fail(error);
            }
        }
        drop(self.permit);
    }

    async fn work<T: Transform>(
        &self,
        transform: impl FnOnce(&SchemaRef) -> Result<T, QueryError> + Send + 'static,
        outlet: &mut Outlet<T::Piece>,
    ) -> Result<(), Stop> {
        let options = &self.room.options;
        let (mut stream, moment, files_damaged) = self.plan().await?;
        let schema = stream.schema();
        let mut transform = transform(&schema)?;
        let mut rows = 0_u64;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| self.sort(error, Phase::Run))?;
            rows = rows.saturating_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX));
            if rows > options.rows_max {
                return Err(QueryError::Rows { rows: options.rows_max }.into());
            }
            let step = if T::SLICES { limits::PIECE_ROWS } else { batch.num_rows().max(1) };
            for start in (0..batch.num_rows()).step_by(step) {
                let piece = transform.rows(batch.slice(start, step.min(batch.num_rows() - start)))?;
                outlet.open(&schema, files_damaged)?;
                outlet.send(Message::Piece(piece)).await?;
            }
            self.room.metrics.rows.inc_by(u64::try_from(batch.num_rows()).unwrap_or_default());
        }
        let last = transform.end()?;
        outlet.open(&schema, files_damaged)?;
        if let Some(piece) = last {
            outlet.send(Message::Piece(piece)).await?;
        }
        // Until here the files of the snapshot were in use.
        drop(moment);
        outlet.send(Message::End).await
    }

    /// From text to a running plan.
    async fn plan(&self) -> Result<(SendableRecordBatchStream, Arc<Moment>, u64), QueryError> {
        guard::check_text(&self.text)?;
        let statement = guard::parse(&self.text)?;
        let planning = |error| self.sort(error, Phase::Plan);
        let footers = self.room.footers(&self.tenant);
        let Session { state, moment } =
            session::open(&self.room.store, &self.tenant, &self.room.options, footers).map_err(planning)?;
        let plan = state.statement_to_plan(statement).await.map_err(planning)?;
        guard::check_plan(&plan)?;
        let plan = state.optimize(&plan).map_err(planning)?;
        let mut files_damaged = 0;
        if let Some(snapshot) = moment.arrive(&plan).await? {
            let metrics = &self.room.metrics;
            metrics.files_total.inc_by(snapshot.files_total);
            metrics.files_skipped.inc_by(snapshot.files_pruned);
            metrics.files_damaged.inc_by(snapshot.files_damaged);
            files_damaged = snapshot.files_damaged;
        }
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(planning)?;
        let plan = yielding(plan).map_err(planning)?;
        let stream = execute_stream(plan, state.task_ctx()).map_err(planning)?;
        Ok((stream, moment, files_damaged))
    }

    fn sort(&self, error: DataFusionError, phase: Phase) -> QueryError {
        QueryError::from_datafusion(error, phase, &self.text, self.room.options.memory_bytes_max)
    }
}

/// Makes joins give way to cancelling between their output batches. DataFusion gives way where rows are read, but a join can
/// make millions of batches from one batch read.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let wrapped = plan.transform_up(|node| {
        if node.name().ends_with("JoinExec") {
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        Ok(Transformed::no(node))
    });
    wrapped.data()
}

/// Cancels a query's task when its answer is dropped.
struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The rows of an answer as they come. Dropping it cancels the query.
pub type Rows = Pieces<RecordBatch>;

/// An answer in pieces. It is complete when the stream ends without an error.
pub struct Pieces<P> {
    schema: SchemaRef,
    files_damaged: u64,
    pieces: mpsc::Receiver<Message<P>>,
    deadline: Pin<Box<Sleep>>,
    seconds: u64,
    done: bool,
    _task: Abort,
}

impl<P> Pieces<P> {
    /// The answer's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many files are missing from the answer because they are missing or damaged on disk. Not zero means that rows may
    /// be missing.
    pub fn files_damaged(&self) -> u64 {
        self.files_damaged
    }

    fn last(&mut self, error: QueryError) -> Poll<Option<Result<P, QueryError>>> {
        self.done = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl<P> Stream for Pieces<P> {
    type Item = Result<P, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(Message::Piece(piece))) => Poll::Ready(Some(Ok(piece))),
            Poll::Ready(Some(Message::End)) => {
                self.done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Message::Failed(error))) => self.last(error),
            Poll::Ready(None) if self.deadline.is_elapsed() => {
                let seconds = self.seconds;
                self.last(QueryError::Time { seconds })
            }
            Poll::Ready(None) => self.last(QueryError::internal("the query's task ended early")),
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(context));
                let seconds = self.seconds;
                self.last(QueryError::Time { seconds })
            }
        }
    }
}

impl<P> Unpin for Pieces<P> {}

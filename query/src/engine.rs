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
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use beeacon_store::Store;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
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
use crate::postgres::settings::Settings;
use crate::relation::Relation;
use crate::session::Session;
use crate::system::Catalogs;
use crate::tables::Moment;
use crate::{dialect, guard, session};

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
    /// Tables that the program brings. Default: none.
    pub relations: Vec<Arc<dyn Relation>>,
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
            relations: Vec::new(),
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
    catalogs: OnceLock<Catalogs>,
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
            catalogs: OnceLock::new(),
        })))
    }

    /// Runs one query of `tenant` and gives its rows as they come.
    ///
    /// # Errors
    /// Whatever stops the query before its first row; later errors come in the stream.
    pub async fn sql(&self, tenant: &str, text: &str) -> Result<Rows, QueryError> {
        self.ask(Ask::new(tenant, text)).await
    }

    /// Runs one query and gives its rows as they come.
    ///
    /// # Errors
    /// Whatever stops the query before its first row; later errors come in the stream.
    pub async fn ask(&self, ask: Ask) -> Result<Rows, QueryError> {
        self.start(ask, |_| Ok(AsTheyAre)).await
    }

    /// Says what a query would give and which parameters it has, without running it.
    pub(crate) async fn describe(&self, ask: Ask) -> Result<Described, QueryError> {
        let run = self.0.admitted(ask).await?;
        let Some(runtime) = &self.0.runtime else { return Err(QueryError::internal("shutting down")) };
        let limit = run.limit;
        let (sender, described) = oneshot::channel();
        let task = runtime.spawn(async move {
            let mut run = run;
            let worked = timeout_at(run.deadline, run.described()).await;
            let worked = worked.unwrap_or(Err(QueryError::Time { limit }));
            run.running.outcome = worked.as_ref().map_or_else(QueryError::code, |_| "ok");
            // Nobody may be waiting any more.
            drop(sender.send(worked));
        });
        let _task = Abort(task.abort_handle());
        described.await.unwrap_or_else(|_| Err(QueryError::internal("the query's task ended early")))
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
        ask: Ask,
        transform: impl FnOnce(&SchemaRef) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Pieces<T::Piece>, QueryError> {
        let run = self.0.admitted(ask).await?;
        let (deadline, limit) = (run.deadline, run.limit);
        let (head_sender, head) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(limits::ANSWER_QUEUE_PIECES);
        let unsaid = Unsaid::default();
        let outlet = Outlet { head: Some(head_sender), pieces: sender, unsaid: unsaid.clone() };
        let Some(runtime) = &self.0.runtime else { return Err(QueryError::internal("shutting down")) };
        let task = Abort(runtime.spawn(run.finish(transform, outlet)).abort_handle());
        let head = match timeout_at(deadline, head).await {
            Err(_) => Err(QueryError::Time { limit }),
            // The task has the same deadline, and may see it first.
            Ok(Err(_)) if Instant::now() >= deadline => Err(QueryError::Time { limit }),
            Ok(Err(_)) => Err(QueryError::internal("the query's task ended early")),
            Ok(Ok(head)) => head,
        }?;
        Ok(Pieces {
            schema: head.schema,
            names: head.names,
            files_damaged: head.files_damaged,
            pieces,
            unsaid,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            limit,
            done: false,
            _task: task,
        })
    }
}

/// A query, and what goes with it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose rows it reads.
    pub tenant: String,
    /// The query.
    pub text: String,
    /// The values of `$1`, `$2`, … or of `$name`.
    pub parameters: Option<ParamValues>,
    /// How long it may take, where that is less than [`QueryOptions::time_max`].
    pub time_max: Option<Duration>,
    pub(crate) settings: Settings,
}

impl Ask {
    /// A query without parameters.
    pub fn new(tenant: impl Into<String>, text: impl Into<String>) -> Self {
        let (tenant, text) = (tenant.into(), text.into());
        Ask { tenant, text, parameters: None, time_max: None, settings: Settings::default() }
    }
}

/// What a query would give.
pub(crate) struct Described {
    pub(crate) schema: SchemaRef,
    /// See [`Pieces::names`].
    pub(crate) names: Option<Vec<String>>,
    /// The types of `$1`, `$2`, …, where the query tells.
    pub(crate) parameters: Vec<Option<DataType>>,
}

impl Room {
    /// A query with its permit, its deadline running.
    async fn admitted(self: &Arc<Self>, ask: Ask) -> Result<Run, QueryError> {
        let permit = self.admit().await.inspect_err(|error| self.metrics.ended(error.code()))?;
        let limit = ask.time_max.map_or(self.options.time_max, |own| own.min(self.options.time_max));
        let deadline = Instant::now() + limit;
        let running = Running::new(self.metrics.clone());
        Ok(Run { room: self.clone(), permit, ask, limit, deadline, running })
    }

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
    names: Option<Vec<String>>,
    files_damaged: u64,
}

enum Message<P> {
    Piece(P),
    End,
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

/// An error that is told behind the last piece.
type Unsaid = Arc<Mutex<Option<QueryError>>>;

/// The task's side of an answer.
struct Outlet<P> {
    head: Option<oneshot::Sender<Result<Head, QueryError>>>,
    pieces: mpsc::Sender<Message<P>>,
    /// What stopped the query, where the queue had no room to say it.
    unsaid: Unsaid,
}

impl<P> Outlet<P> {
    fn open(&mut self, schema: &SchemaRef, planned: &Planned) -> Result<(), Stop> {
        match self.head.take() {
            Some(head) => {
                let (schema, names) = (schema.clone(), planned.names.clone());
                let files_damaged = planned.files_damaged;
                head.send(Ok(Head { schema, names, files_damaged })).map_err(|_| Stop::Left)
            }
            None => Ok(()),
        }
    }

    async fn send(&self, message: Message<P>) -> Result<(), Stop> {
        self.pieces.send(message).await.map_err(|_| Stop::Left)
    }

    /// Tells the error without waiting; its reader finds what the queue has no room for behind the queue's end.
    fn fail(&mut self, error: QueryError) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(error))),
            None => *self.unsaid.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    }
}

/// One query on its way.
struct Run {
    room: Arc<Room>,
    permit: OwnedSemaphorePermit,
    ask: Ask,
    limit: Duration,
    deadline: Instant,
    running: Running,
}

/// A plan that runs.
struct Planned {
    stream: SendableRecordBatchStream,
    names: Option<Vec<String>>,
    moment: Arc<Moment>,
    files_damaged: u64,
}

impl Run {
    async fn finish<T: Transform>(
        mut self,
        transform: impl FnOnce(&SchemaRef) -> Result<T, QueryError> + Send + 'static,
        mut outlet: Outlet<T::Piece>,
    ) {
        let late = QueryError::Time { limit: self.limit };
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
        let mut planned = self.plan().await?;
        let schema = planned.stream.schema();
        let mut transform = transform(&schema)?;
        let mut rows = 0_u64;
        while let Some(batch) = planned.stream.next().await {
            let batch = batch.map_err(|error| self.sort(error, Phase::Run))?;
            rows = rows.saturating_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX));
            if rows > options.rows_max {
                return Err(QueryError::Rows { rows: options.rows_max }.into());
            }
            let step = if T::SLICES { limits::PIECE_ROWS } else { batch.num_rows().max(1) };
            for start in (0..batch.num_rows()).step_by(step) {
                let piece = transform.rows(batch.slice(start, step.min(batch.num_rows() - start)))?;
                outlet.open(&schema, &planned)?;
                outlet.send(Message::Piece(piece)).await?;
            }
            self.room.metrics.rows.inc_by(u64::try_from(batch.num_rows()).unwrap_or_default());
        }
        let last = transform.end()?;
        outlet.open(&schema, &planned)?;
        if let Some(piece) = last {
            outlet.send(Message::Piece(piece)).await?;
        }
        // Until here the files of the snapshot were in use.
        drop(planned.moment);
        outlet.send(Message::End).await
    }

    /// From text to a logical plan, whose parameters have no values yet.
    async fn understood(&self) -> Result<(Session, LogicalPlan, Option<Vec<String>>), QueryError> {
        guard::check_text(&self.ask.text)?;
        let mut statement = guard::parse(&self.ask.text)?;
        let names = dialect::column_names(&statement);
        let planning = |error| self.sort(error, Phase::Plan);
        let footers = self.room.footers(&self.ask.tenant);
        let room = &self.room;
        let session = session::open(&room.store, &self.ask.tenant, &room.options, footers, &room.catalogs)
            .map_err(planning)?;
        dialect::understand(&mut statement, &self.ask.settings)?;
        let plan = session.state.statement_to_plan(statement).await.map_err(planning)?;
        let fields = plan.schema().fields().iter();
        let names = names.or_else(|| dialect::shown_names(fields.map(|field| field.name())));
        Ok((session, plan, names))
    }

    /// What the query would give.
    async fn described(&self) -> Result<Described, QueryError> {
        let (_session, plan, names) = self.understood().await?;
        let types = plan.get_parameter_types().map_err(|error| self.sort(error, Phase::Plan))?;
        let places =
            types.keys().map(|name| name.strip_prefix('$').and_then(|place| place.parse::<usize>().ok()));
        let count = places.collect::<Option<Vec<_>>>().map(|places| places.into_iter().max().unwrap_or(0));
        let count = count.ok_or(QueryError::Parameters { fault: "here they are $1, $2 and so on" })?;
        if count > limits::PARAMETERS_MAX {
            return Err(QueryError::Parameters { fault: "there are more than 1000" });
        }
        let casts = casts_of_parameters(&plan).map_err(|error| self.sort(error, Phase::Plan))?;
        let type_of =
            |name: String| types.get(&name).cloned().flatten().or_else(|| casts.get(&name).cloned());
        let parameters = (1..=count).map(|place| type_of(format!("${place}"))).collect();
        Ok(Described { schema: Arc::clone(plan.schema().inner()), names, parameters })
    }

    /// The plan with the parameters' values in their places.
    fn bound(&self, plan: LogicalPlan) -> Result<LogicalPlan, QueryError> {
        let planning = |error| self.sort(error, Phase::Plan);
        let names = plan.get_parameter_names().map_err(planning)?;
        match &self.ask.parameters {
            None if names.is_empty() => Ok(plan),
            None => Err(QueryError::Parameters { fault: "it has some, and no values came with it" }),
            Some(values) => plan.with_param_values(values.clone()).map_err(planning),
        }
    }

    /// From text to a running plan.
    async fn plan(&self) -> Result<Planned, QueryError> {
        let (Session { state, moment }, plan, names) = self.understood().await?;
        let planning = |error| self.sort(error, Phase::Plan);
        let plan = self.bound(plan)?;
        guard::check_plan(&plan)?;
        let explains = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
        let plan = state.optimize(&plan).map_err(planning)?;
        let (mut files_damaged, mut files) = (0, None);
        if let Some(snapshot) = moment.arrive(&plan).await? {
            let metrics = &self.room.metrics;
            metrics.files_total.inc_by(snapshot.files_total);
            metrics.files_skipped.inc_by(snapshot.files_pruned);
            metrics.files_damaged.inc_by(snapshot.files_damaged);
            files_damaged = snapshot.files_damaged;
            files = Some(format!(
                "logs: {} of {} files and {} fresh batches; {} files skipped by time and service, {} damaged",
                snapshot.files.len(),
                snapshot.files_total,
                snapshot.fresh.len(),
                snapshot.files_pruned,
                snapshot.files_damaged
            ));
        }
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(planning)?;
        let plan = yielding(plan).map_err(planning)?;
        let mut stream = execute_stream(plan, state.task_ctx()).map_err(planning)?;
        if let Some(files) = files.filter(|_| explains) {
            stream = with_row(stream, "files", &files).map_err(planning)?;
        }
        Ok(Planned { stream, names, moment, files_damaged })
    }

    fn sort(&self, error: DataFusionError, phase: Phase) -> QueryError {
        QueryError::from_datafusion(error, phase, &self.ask.text, self.room.options.memory_bytes_max)
    }
}

/// The types that parameters are cast to where they stand, `$1::bigint`: that says what they are, as it does for PostgreSQL.
fn casts_of_parameters(plan: &LogicalPlan) -> Result<HashMap<String, DataType>, DataFusionError> {
    let mut casts = HashMap::new();
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expression| {
            expression.apply(|expression| {
                if let Expr::Cast(cast) = expression
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                {
                    casts.entry(placeholder.id.clone()).or_insert_with(|| cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(casts)
}

/// An explanation with a row of our own after its rows.
fn with_row(
    stream: SendableRecordBatchStream,
    name: &str,
    text: &str,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let schema = stream.schema();
    let columns = schema.fields().iter().zip([name, text]).map(|(field, text)| {
        let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
        Ok(cast(&text, field.data_type())?)
    });
    let row = RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, DataFusionError>>()?)?;
    let rows = stream.chain(futures_util::stream::once(async move { Ok(row) }));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
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
    names: Option<Vec<String>>,
    files_damaged: u64,
    pieces: mpsc::Receiver<Message<P>>,
    unsaid: Unsaid,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    done: bool,
    _task: Abort,
}

impl<P> Pieces<P> {
    /// The answer's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns' names as PostgreSQL has them, which may be equal; `None` where they are those of the schema.
    pub(crate) fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
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
            Poll::Ready(None) => {
                let unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.last(unsaid.unwrap_or_else(|| QueryError::internal("the query's task ended early")))
            }
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(context));
                let limit = self.limit;
                self.last(QueryError::Time { limit })
            }
        }
    }
}

impl<P> Unpin for Pieces<P> {}

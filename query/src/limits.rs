//! The query room's own limits. Those that an operator may set are the defaults of [`crate::QueryOptions`].

use std::time::Duration;

/// The longest query text, in bytes. A dashboard's largest query is a few KiB.
pub const QUERY_TEXT_BYTES_MAX: usize = 64 << 10;

/// The largest request body, in bytes: the longest text with every second character escaped, and the JSON around it.
pub const REQUEST_BYTES_MAX: usize = 2 * QUERY_TEXT_BYTES_MAX + 1024;

/// The most tokens in one query, blanks and comments not counted. Planner and expressions recurse once per operator of a
/// chain such as `a or b or …`; this many stay far within [`STACK_BYTES`].
pub const QUERY_TOKENS_MAX: usize = 2_000;

/// The deepest nesting of brackets and `case`.
pub const QUERY_DEPTH_MAX: usize = 50;

/// The parser's own recursion limit. Above [`QUERY_DEPTH_MAX`], because a bracket can cost it two steps.
pub const PARSER_RECURSION_MAX: usize = 128;

/// How much a query may multiply text or lists by functions such as `repeat`, `lpad` or `range`: a guess that leaves
/// padding and small series alone and keeps one batch of log lines below 2 GiB.
pub const GROWTH_MAX: u64 = 4_096;

/// The stack of a query thread, in bytes of address space; only touched pages cost memory. A chain of
/// [`QUERY_TOKENS_MAX`] tokens was planned and run in a debug build within it.
pub const STACK_BYTES: usize = 64 << 20;

/// How many encoded pieces of an answer wait for a slow client before the query is held back.
pub const ANSWER_QUEUE_PIECES: usize = 2;

/// How many rows are encoded into one piece of an answer.
pub const PIECE_ROWS: usize = 1_024;

/// How many rows DataFusion handles at once.
pub const BATCH_ROWS: usize = 8_192;

/// How many groups the first step of an aggregation holds before it hands them on: a day's minutes of forty services. More of them hold
/// more memory for groups that hardly come again.
pub const GROUPS_MAX: usize = 65_536;

/// How many columns rows are grouped by as numbers: their numbers, 32 bits each, are one of 128 bits together.
pub const GROUP_COLUMNS_MAX: usize = 4;

/// How many bytes of rows are held for one row group of a Parquet answer.
pub const PARQUET_GROUP_BYTES: usize = 16 << 20;

/// The memory one query may reserve, in bytes.
pub const QUERY_MEMORY_BYTES: usize = 256 << 20;

/// What one query may write to its spill directory, in bytes, where there is one.
pub const SPILL_BYTES: u64 = 1 << 30;

/// How long one query may take, from its admission to its last row taken by the client.
pub const QUERY_TIME: Duration = Duration::from_secs(30);

/// The most rows in one answer.
pub const ANSWER_ROWS: u64 = 1_000_000;

/// The most bytes in one answer, as encoded.
pub const ANSWER_BYTES: u64 = 512 << 20;

/// How many queries run at once. Times [`QUERY_MEMORY_BYTES`] this is the memory that queries can take.
pub const QUERIES_RUNNING: usize = 4;

/// How many more wait for their turn.
pub const QUERIES_WAITING: usize = 16;

/// How long they wait.
pub const ADMISSION_TIME: Duration = Duration::from_secs(5);

/// Parquet footers kept between queries, in bytes per tenant.
pub const FOOTER_CACHE_BYTES: usize = 32 << 20;

/// For how many tenants footers are kept.
pub const FOOTER_CACHE_TENANTS: usize = 64;

/// The longest text of an error that is shown to whoever asked, in bytes; a plan in an error can be very long.
pub const ERROR_TEXT_BYTES_MAX: usize = 2_048;

/// What a sort keeps back for merging its spilled runs, in bytes per partition: DataFusion's own default. It is less where
/// the query's memory is small.
pub const SORT_RESERVE_BYTES: usize = 10 << 20;

/// The most files one scan reads; beyond it a query must narrow its time. Each costs memory for its plan.
pub const SCAN_FILES_MAX: usize = 100_000;

/// The longest message of a PostgreSQL client, in bytes: a query of [`QUERY_TEXT_BYTES_MAX`] and values of its parameters.
pub const POSTGRES_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The longest opening message of a PostgreSQL connection, in bytes: PostgreSQL's own limit.
pub const POSTGRES_OPENING_BYTES_MAX: usize = 10_000;

/// How many PostgreSQL connections there are at once. Grafana keeps up to 100 by default.
pub const POSTGRES_CONNECTIONS_MAX: usize = 128;

/// How many prepared statements one session keeps; drivers keep up to 100 by themselves.
pub const POSTGRES_STATEMENTS_MAX: usize = 256;

/// How many portals one session keeps; each may hold a running query.
pub const POSTGRES_PORTALS_MAX: usize = 32;

/// How long a PostgreSQL client may take to open a connection, and again to log in.
pub const POSTGRES_LOGIN_TIME: Duration = Duration::from_secs(10);

/// How long a PostgreSQL client may take to read what is sent to it.
pub const POSTGRES_WRITE_TIME: Duration = Duration::from_secs(60);

/// How many bytes of rows are gathered before they are sent.
pub const POSTGRES_WRITE_BYTES: usize = 64 << 10;

/// How long PostgreSQL statements may take to end after the program was asked to stop.
pub const POSTGRES_DRAIN_TIME: Duration = Duration::from_secs(5);

/// The most parameters of one query: PostgreSQL's own limit is that of a 16-bit count.
pub const PARAMETERS_MAX: usize = 1_000;

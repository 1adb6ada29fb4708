//! The collector's own limits, with unit and reason. What it shares with other rooms stands in
//! [`beeacon_record::limits`].

use std::time::Duration;

use beeacon_record::limits::{
    BATCH_ROWS_MAX, BATCH_SOURCES_MAX, FRAME_BYTES_MAX, FRAME_INFLATED_BYTES_MAX, OPEN_LINES_MAX,
    ROW_REBUILT_BYTES,
};

/// The longest session request, in bytes: an id, a host's name and a version.
pub const SESSION_BYTES_MAX: usize = 4 << 10;

/// The longest host name or version kept of a session, in bytes; a longer one is refused.
pub const SESSION_FIELD_BYTES_MAX: usize = 256;

/// Request bodies in memory at once, in bytes: four of the largest. A permit is taken before a body is read.
pub const BODY_BYTES_IN_FLIGHT_MAX: usize = 32 << 20;

/// Memory for inflating and rebuilding batches at once, in bytes. One frame takes at most twice what its rows take when rebuilt.
pub const DECODE_BYTES_IN_FLIGHT_MAX: usize = 128 << 20;

/// How lately an agent has sent something to count among those who share the room that there is.
pub const CREDIT_SHARED_WITHIN: Duration = Duration::from_secs(10);

/// How often those are counted. One who has fallen silent has its share for so much longer.
pub const HEARD_COUNTED_EVERY: Duration = Duration::from_secs(1);

/// How long a request waits for such memory before it is told to come again: shorter than an agent's own time limit.
pub const PERMIT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a body may take, whatever its length: a slow start of a bad line.
pub const BODY_TIME_BASE: Duration = Duration::from_secs(20);

/// How fast a body must come beyond that, in bytes per second: an eighth of one megabit. It bounds how long a slow client
/// holds its permit.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Commits on their way at once, each a task with a frame: the journal's queue takes them all.
pub const COMMITS_IN_FLIGHT_MAX: usize = 512;

/// The most agents remembered. Each costs about 300 bytes and its sources.
pub const AGENTS_MAX: usize = 4096;

/// The most sources remembered of one agent: a host that starts a thousand containers a day has a fortnight until ended
/// ones have to be told as ended.
pub const SOURCES_PER_AGENT_MAX: usize = 16 << 10;

/// The most sources remembered of all agents. At 300 bytes each this is about 40 MiB.
pub const SOURCES_MAX: usize = 128 << 10;

/// How long an ended source is remembered, so that a late repeat is still recognised: longer than any agent retries one
/// batch without asking where it stood.
pub const FINAL_GRACE: Duration = Duration::from_secs(3600);

/// The longest tenant name in a journal entry, in bytes; the store allows the same.
pub const TENANT_BYTES_MAX: usize = 64;

/// What stands before the frame in a journal entry, at most, in bytes: the fixed part, the tenant, and what is committed of
/// every source.
pub const ENTRY_PREFIX_BYTES_MAX: usize =
    32 + TENANT_BYTES_MAX + BATCH_SOURCES_MAX * (2 + 16 + 16 * OPEN_LINES_MAX);

/// The largest frame taken in, in bytes: with its prefix it has to fit into one journal record, which is as long as the
/// largest frame. A longer one is refused as too large, and the agent cuts its batch.
pub const INGEST_FRAME_BYTES_MAX: usize = FRAME_BYTES_MAX - ENTRY_PREFIX_BYTES_MAX;

/// What a refusal for want of room asks an agent to wait, in seconds.
pub const RETRY_AFTER_FULL_S: u64 = 5;

/// What a refusal for want of a moment asks an agent to wait, in seconds.
pub const RETRY_AFTER_BUSY_S: u64 = 1;

/// How often the consumers' places and the journal's room are looked at, besides after each flush.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// The share of the journal's quota, in percent, from which a slow Loki loses its claim to what it has not taken yet. The
/// rest is room for what arrives while entries are skipped.
pub const PRESSURE_HIGH_PERCENT: u64 = 75;

/// The share of the quota, in percent, that skipping for Loki aims at.
pub const PRESSURE_LOW_PERCENT: u64 = 50;

/// Bytes of rows that are kept for those who follow the journal closely; beyond it they read the journal. Several frames of the largest
/// size, or some seconds at the rates that one server takes; the store's fresh rows hold most of it anyway.
pub const RECENT_BYTES_MAX: usize = 32 << 20;

/// What a record counts beside its rows, in bytes: it bounds how many records without rows are kept.
pub const RECENT_RECORD_BYTES: usize = 1 << 10;

/// The pause before a commit is offered again to a store that could not take it.
pub const PUBLISH_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long an answer waits until queries see the frame. Beyond it the frame is answered because it is durable, and shown
/// as soon as the store has room: an agent's own time limit must not run out over a frame that was taken.
pub const PUBLISH_ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long closing waits for commits on their way. What is durable by then is replayed at the next start.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Agents listed one by one in the status; past it they are only counted.
pub const STATUS_AGENTS_MAX: usize = 256;

/// Message and metadata bytes of one push to Loki: a quarter of the 4 MiB that Loki's gRPC takes by default, and half of
/// what its default rate lets one stream burst.
pub const LOKI_PUSH_BYTES_TARGET: usize = 1 << 20;

/// Entries in one push: empty lines have no bytes.
pub const LOKI_PUSH_ENTRIES_MAX: usize = 16 << 10;

/// How long one push may take until it counts as failed.
pub const LOKI_PUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a connection to Loki may take to be made.
pub const LOKI_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The pause after the first failed push; it doubles with each further one.
pub const LOKI_PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause between pushes that fail: a Loki that is back is found within a minute.
pub const LOKI_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is honoured: a mistaken one must not stop the leg for a day.
pub const LOKI_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Requests spent on separating refused entries of one push; what is not separated by then is given up together.
pub const LOKI_BISECT_REQUESTS_MAX: u32 = 64;

/// How much of Loki's answer is read, in bytes: enough for the reason.
pub const LOKI_ANSWER_BYTES_MAX: usize = 4 << 10;

/// Loki's default for the most labels of a stream.
pub const LOKI_LABELS_MAX: usize = 15;

/// Structured metadata of one entry: fewer than the 128 that Loki allows by default.
pub const LOKI_METADATA_FIELDS_MAX: usize = 100;

/// Bytes of one entry's structured metadata: half of what Loki allows by default. What does not fit is left out.
pub const LOKI_METADATA_BYTES_MAX: usize = 32 << 10;

/// The largest file of trusted certificates that is read, in bytes: the system's own has about 220 KiB.
pub const LOKI_CA_BYTES_MAX: u64 = 4 << 20;

const _: () = assert!(INGEST_FRAME_BYTES_MAX < beeacon_journal::limits::RECORD_BYTES_MAX as usize);
const _: () = assert!(
    2 * (FRAME_INFLATED_BYTES_MAX + BATCH_ROWS_MAX * ROW_REBUILT_BYTES) <= DECODE_BYTES_IN_FLIGHT_MAX
);
const _: () = assert!(FRAME_BYTES_MAX <= BODY_BYTES_IN_FLIGHT_MAX);
const _: () = assert!(DECODE_BYTES_IN_FLIGHT_MAX < u32::MAX as usize);
const _: () = assert!(PRESSURE_LOW_PERCENT < PRESSURE_HIGH_PERCENT);
const _: () = assert!(SOURCES_PER_AGENT_MAX <= SOURCES_MAX && BATCH_SOURCES_MAX <= SOURCES_PER_AGENT_MAX);

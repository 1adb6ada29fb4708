//! Every limit of the access room, with its unit and its reason.

use std::time::Duration;

/// Characters that a token has at least. What this room makes has 51; what an administrator chose must not be a word.
pub const TOKEN_CHARACTERS_MIN: usize = 16;

/// Tokens that can be configured. Each is compared with every request, in a hundred nanoseconds.
pub const TOKENS_MAX: usize = 1_000;

/// Bytes of a token's name. It stands in every line of the audit file.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// Changes of the tokens that wait to be noticed by answers without an end; one that misses some ends as if it had been meant.
pub const REVOCATIONS_WAITING_MAX: usize = 16;

/// Bytes of a client's own request id; a longer one is replaced by one of ours.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Bytes of an error's body that are read to complete its envelope. Refusals to agents list positions of sources, so it is not small.
pub const ERROR_BYTES_MAX: usize = 1 << 20;

/// Bytes of a path in the audit file. Identifiers fit; what is longer is cut.
pub const AUDIT_PATH_BYTES_MAX: usize = 256;

/// Files that the audit trail has at most: the one that is written, and what was rotated.
pub const AUDIT_FILES_MAX: u64 = 16;

/// Bytes of the audit trail that are read at a time. A line has some 300.
pub const AUDIT_READ_BYTES: u64 = 256 << 10;

/// Span over which requests of one address to one endpoint are counted.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Windows kept in memory, each some 150 bytes. What comes on top shares one window per endpoint.
pub const WINDOWS_MAX: usize = 50_000;

/// Wrong tokens of one address within a minute; then it is told to wait. Guessing is hopeless anyway: this spares the log.
pub const WRONG_TOKENS_PER_MINUTE_MAX: u64 = 30;

/// How long Redis may take to answer before memory takes over.
pub const REDIS_ANSWER_TIME_MAX: Duration = Duration::from_millis(50);

/// An answer that took longer is used, and then memory takes over: many slow answers cost more than one that never comes.
pub const REDIS_SLOW: Duration = Duration::from_millis(25);

/// How long a connection to Redis may take. Nobody waits for it.
pub const REDIS_CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Waits between two attempts to reach Redis, growing from one to the other.
pub const REDIS_RETRY_MIN: Duration = Duration::from_millis(250);
/// See [`REDIS_RETRY_MIN`].
pub const REDIS_RETRY_MAX: Duration = Duration::from_secs(5);

/// How often a subscription is asked whether it lives.
pub const SUBSCRIPTION_PING_EVERY: Duration = Duration::from_secs(5);

/// How often counts of requests go to Redis.
pub const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// Hours of which counts of requests are kept.
pub const STATISTICS_HOURS_MAX: usize = 25;

const _: () = assert!(REDIS_SLOW.as_millis() < REDIS_ANSWER_TIME_MAX.as_millis());
const _: () = assert!(REDIS_RETRY_MIN.as_millis() < REDIS_RETRY_MAX.as_millis());

//! Every limit of the events room, with its unit and its reason.

use std::time::Duration;

/// Bytes of one event as JSON. Ours have some 500; what comes from other servers is held to it before it is parsed.
pub const EVENT_BYTES_MAX: usize = 16 << 10;

/// Bytes of a name in an event: a service, a rule, a token, an agent.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of a text in an event that is for people, such as what a check says.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// Bytes of an event's id and of what correlates events.
pub const ID_BYTES_MAX: usize = 64;

/// Members of an event's payload, and of its metadata.
pub const MEMBERS_MAX: usize = 32;

/// Pairs of service and rule that are counted before they have to be written down, each some 200 bytes.
pub const TALLY_PAIRS_MAX: usize = 2_000;

/// Gaps that are told one by one before they have to be written down.
pub const TALLY_GAPS_MAX: usize = 1_000;

/// Events that the log keeps when nobody says: some 150 MB.
pub const EVENTS_KEPT_DEFAULT: u64 = 200_000;

/// How long it keeps them when nobody says.
pub const EVENTS_KEPT_FOR_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Events that are read at a time.
pub const PAGE_MAX: usize = 1_000;

/// How long a writer waits for another one.
pub const LOG_BUSY_WAIT: Duration = Duration::from_secs(10);

/// Readers at a time; more wait. Each page takes a millisecond or two.
pub const LOG_READERS_MAX: u32 = 4;

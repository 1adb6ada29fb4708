//! The agent's own limits, each with its unit and its reason. Those that other rooms share stand in `beeacon_record::limits`.

use std::time::Duration;

use beeacon_record::limits::{LINE_BYTES_MAX, LINE_OVERLAP_BYTES};

/// How long a changed configuration waits for the known secrets that it requires, before it is refused.
pub const KNOWN_WITHIN: Duration = Duration::from_secs(60);

/// How often the files of the configuration are looked at. A change is taken once it has stood still for so long.
pub const CONFIG_LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many may speak to the agent at once. A few people, and what reads its metrics.
pub const DOOR_CONNECTIONS_MAX: usize = 32;

/// How many may look at lines as they pass.
pub const TAPS_MAX: usize = 8;

/// How many batches wait for one who looks, and how many bytes of each: sixteen MiB for one who does not read.
pub const TAP_CHUNKS_MAX: usize = 16;

/// See [`TAP_CHUNKS_MAX`].
pub const TAP_CHUNK_BYTES_MAX: usize = 1 << 20;

/// How much of a log file is read at once, in bytes. It stays in the second-level cache while it is parsed.
pub const BLOCK_BYTES: usize = 256 << 10;

/// The longest record of a log file, in bytes. A daemon that joins split lines itself may write a line of the longest length
/// with every byte escaped as six; what is longer is skipped as damaged.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// How much of a file's start tells it from another, in bytes. The first record's time lies behind its text, so this is also
/// how far that record is looked for; a longer one is told by its first bytes alone.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// How many files of one container are kept open. Twice what a careful host configures as `max-file`.
pub const HELD_FILES_MAX: usize = 64;

/// How many bytes of files that Docker has already removed one container may pin on the disk.
pub const PINNED_BYTES_MAX: u64 = 256 << 20;

/// How many rotated files are looked for beside a log file. Docker itself sets no limit; a guess far above use.
pub const CHAIN_FILES_MAX: u64 = 256;

/// How often a look at a directory is repeated when it changes under the look, before the next change is waited for.
pub const LOOKS_MAX: usize = 16;

/// How often open files are looked at when nothing is heard of them.
pub const POLL_EVERY: Duration = Duration::from_millis(100);

/// How often a directory is compared with what is known of it, should an event have been lost.
pub const RECHECK_EVERY: Duration = Duration::from_millis(500);

/// How often containers are listed, however few events there are.
pub const LIST_EVERY: Duration = Duration::from_secs(30);

/// How often a containers directory is listed when there is no socket.
pub const SCAN_EVERY: Duration = Duration::from_secs(1);

/// How long the stream of a stopped container may be silent before it is opened anew.
pub const SILENT_STREAM_AFTER: Duration = Duration::from_secs(2);

/// How long a stream that has not ended may be silent before Docker is asked whether it has something newer.
pub const STREAM_PROBE_AFTER: Duration = Duration::from_secs(30);

/// How long after such an answer the stream may still bring what it named. It is opened anew after that, so that what Docker has
/// stands in a batch within a minute.
pub const STREAM_PROBE_GRACE: Duration = Duration::from_secs(5);

/// The largest answer to such a question that is read, in bytes: one piece with its header and timestamp.
pub const STREAM_PROBE_BYTES_MAX: usize = PIECE_BYTES_MAX + 1024;

/// How often a stream's task looks whether the clock has been set back.
pub const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(1);

/// The smallest step of the clock that counts, in nanoseconds: half of what Docker is asked for besides, so that a smaller one loses
/// nothing.
pub const CLOCK_STEP_NS_MIN: i64 = 500_000_000;

/// How much further back than the clock has stepped Docker is asked for, in nanoseconds: clocks are read one after another, and are
/// pulled along slowly as well.
pub const CLOCK_STEP_MARGIN_NS: i64 = 5_000_000_000;

/// The shortest wait before something that failed is tried again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait before something that failed is tried again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long the collector may take for one answer. A group commit takes milliseconds; a full journal answers at once.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How many frames may be under way to the collector at once. With one of them a link of 100 ms carries ten a second; eight fill it,
/// and more would only wait at the collector, which commits an agent's frames one after another.
pub const FRAMES_IN_FLIGHT_MAX: usize = 8;

/// How many bytes of frames may be under way beyond the first, whatever the collector would take: they stay in memory until they are
/// answered.
pub const BYTES_IN_FLIGHT_MAX: usize = 8 << 20;

/// How much longer than its fastest answers the collector may take before fewer frames are under way, beside [`LATENCY_RATIO_MAX`]:
/// an fdatasync more or less.
pub const LATENCY_SLACK: Duration = Duration::from_millis(20);

/// The same as a factor. Frames that wait for each other make each other's answers late, so this is about how many may.
pub const LATENCY_RATIO_MAX: u32 = 3;

/// The levels of zstd that are chosen among by load, lowest first. -1 takes two thirds of 1's time for half as many bytes again; 6 three
/// to four times as much for up to a tenth fewer. What lies between gives next to nothing over 1 as the frame sets it.
pub const COMPRESSION_LEVELS: [i32; 3] = [-1, 1, 6];

/// The share of one core that the pump may use, in per cent, for a higher level to be tried: it may double its work.
pub const COMPRESSION_IDLE_PERCENT: u32 = 20;

/// The share from which a lower level is taken.
pub const COMPRESSION_BUSY_PERCENT: u32 = 70;

/// How many unread bytes are a backlog for which bytes on the wire are given up: some ten seconds' worth of a busy host.
pub const COMPRESSION_BACKLOG_BYTES: u64 = 256 << 20;

/// How many seconds in a row must be idle before a higher level is tried. A lower one is taken at once.
pub const COMPRESSION_CALM_SECONDS: u32 = 10;

/// How long Docker may take for one answer that is no stream.
pub const DOCKER_ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How long a stopping agent waits for the answer to its last frame.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// How many lines a group may have. Stacks of a few hundred frames are the longest that are seen.
pub const GROUP_LINES_MAX: usize = 1000;

/// How many bytes of text a group may have: a quarter of a row, so that two open groups and two open lines stay small.
pub const GROUP_BYTES_MAX: usize = 256 << 10;

/// The longest time between two lines of a group. A stack is written at once; this is far above a slow writer's pauses.
pub const GROUP_WAIT: Duration = Duration::from_secs(1);

/// The longest pattern for groups, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// The most memory that a compiled pattern may take, in bytes; a thousand containers may bring one each.
pub const PATTERN_MEMORY_BYTES_MAX: usize = 1 << 20;

/// How many seconds' worth of lines a container may write at once before its rate counts.
pub const RATE_BURST_SECONDS: f64 = 5.0;

/// How far behind Docker's time a line's own may lie to be believed, in nanoseconds: a process may hold lines back for hours, but
/// what is a day old is the time of something else.
pub const TIMESTAMP_BEHIND_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;

/// How far ahead of Docker's time it may lie, in nanoseconds: both come from the same host's clock, which may step a little.
pub const TIMESTAMP_AHEAD_NS_MAX: i64 = 60 * 1_000_000_000;

/// The longest name of a field that holds a line's time, in bytes.
pub const TIMESTAMP_FIELD_BYTES_MAX: usize = 256;

/// How many fields of a line may become attributes; a row has room for twice as many.
pub const PICKS_MAX: usize = 32;

/// The longest name of such a field, and of an attribute, in bytes.
pub const PICKED_NAME_BYTES_MAX: usize = 256;

/// How many events may wait for the pump. Each is small; a full queue holds discovery back, which lists again anyway.
pub const EVENTS_MAX: usize = 256;

/// How many portions of API pieces may wait for the pump; a portion has at most [`PORTION_BYTES`] and one piece more.
pub const PORTIONS_MAX: usize = 16;

/// How many bytes of pieces an API reader hands over at once.
pub const PORTION_BYTES: usize = 64 << 10;

/// How many of its last pieces are known of each output that is read through the API: Docker may give those of a file that it has just
/// begun a second time. 64 KiB of memory at most.
pub const API_PIECES_KNOWN_MAX: usize = 4096;

/// The largest piece the Docker API may announce, in bytes. Pieces have 16 KiB, those of the dual-logging cache up to 1 MiB.
pub const PIECE_BYTES_MAX: usize = 2 << 20;

/// The piece length of Docker's copier, in bytes: where a terminal's line is cut and gets its timestamp again.
pub const COPIER_PIECE_BYTES: usize = 16 << 10;

/// The largest answer of the collector that is read, in bytes. A thousand sources with cursors stay below.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How many containers are read. Each costs descriptors and a watch.
pub const CONTAINERS_MAX: usize = 4096;

/// How many `[[agent.journald]]` a configuration has. Each is a child process.
pub const JOURNALD_SECTIONS_MAX: usize = 16;

/// How many matches such a section names.
pub const JOURNALD_MATCHES_MAX: usize = 64;

/// The longest name of a journal's field, in bytes, by journald's own rule.
pub const JOURNALD_NAME_BYTES_MAX: usize = 64;

/// How much is kept of a field that is not the message, in bytes. Names of units have at most 255.
pub const JOURNALD_FIELD_BYTES_MAX: usize = 1024;

/// How much is kept of a message, in bytes: a few of the longest rows, and less than a frame even where nothing compresses. journald
/// itself cuts lines of services at 48 KiB; only programs that speak to it directly write more.
pub const JOURNALD_MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How many blocks of a journal are read in one turn.
pub const JOURNALD_BLOCKS_PER_TURN: usize = 4;

/// How many `[[agent.files]]` a configuration has. Each is walked at every look.
pub const FILE_SECTIONS_MAX: usize = 64;

/// The longest pattern over paths, in bytes: the longest path of Linux.
pub const FILE_PATTERN_BYTES_MAX: usize = 4096;

/// How many names such a pattern has. Matching two stars tries all ways to skip some.
pub const FILE_PATTERN_NAMES_MAX: usize = 32;

/// How many names of directories one look for files meets. Beyond it the patterns are too wide, which is said.
pub const FILE_NAMES_MAX: usize = 100_000;

/// How many directories are watched for new files; those beyond it are looked at in turn.
pub const FILE_DIRECTORIES_MAX: usize = 4096;

/// How many plain files are open at once; further ones wait, the oldest longest. Leaves room below the usual 1,024 descriptors
/// that a process may have by default for logs of containers and connections.
pub const FILES_OPEN_MAX: usize = 512;

/// How many plain files are known at once, open or not. As many as containers.
pub const FILES_MAX: usize = 4096;

/// How often the patterns are walked when nothing is heard of a directory.
pub const FILE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two such walks, however much happens in a directory.
pub const FILE_LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How long a file that no pattern leads to any more must stand still before it counts as ended. Who rotates logs tells the
/// program within seconds to open a new one.
pub const FILE_CLOSE_AFTER: Duration = Duration::from_secs(60);

/// After how long a file that stands still is closed, once everything in it is committed. It is opened again when it grows.
pub const FILE_PARK_AFTER: Duration = Duration::from_secs(600);

/// The same while others wait to be opened.
pub const FILE_PARK_AFTER_IN_CROWD: Duration = Duration::from_secs(1);

/// How much of an endless line of a plain file is one piece, in bytes; a multiple of it from the line's start, so that rows stand at
/// the same places whenever they are read.
pub const FILE_PIECE_BYTES: usize = BLOCK_BYTES;

/// How many bytes before a place are read again with what follows, to see that they are still the same.
pub const FILE_OVERLAP_BYTES: usize = 64;

/// How many bytes before a place make the check by which it is found again.
pub const FILE_TAIL_BYTES: usize = 1024;

/// How long a file that looks like a copy of a log must stand still before that is decided without the log having been emptied.
pub const COPY_WAIT: Duration = Duration::from_secs(5);

/// How long a copy of an emptied log must stand still to count as whole.
pub const COPY_STILL_AFTER: Duration = Duration::from_secs(1);

/// Of how many emptyings of a log copies are told. Who rotates does it hours apart.
pub const COPY_MARKS_MAX: usize = 8;

/// How long after a log was emptied a file may be its copy.
pub const COPY_OF_LATELY: Duration = Duration::from_secs(300);

/// The largest `config.v2.json` that is read, in bytes.
pub const CONTAINER_CONFIG_BYTES_MAX: u64 = 4 << 20;

/// How many batches may wait to be scanned again. Each holds its text in memory until then.
pub const RESCANS_WAITING_MAX: usize = 2;

/// How much of the first batch is scanned again although it is not its turn, in bytes: a second of a processor for each 3 MiB, which
/// every start of an agent pays.
pub const RESCAN_FIRST_BYTES: usize = 64 << 10;

/// The shortest stretch after which a row of an over-long line may be cut, in bytes.
pub const LONG_ROW_BYTES_MIN: usize = LINE_BYTES_MAX / 2;

/// How deep folders of a Vault, and values within one of its secrets, may lie in one another. A guess far above use.
pub const VAULT_DEPTH_MAX: usize = 16;

/// How many paths and folders of a Vault are looked at. Each costs a request at every look.
pub const VAULT_PATHS_MAX: usize = 20_000;

/// The largest answer of a Vault that is read, in bytes. A secret has at most 1 MiB there by default, a folder of twenty thousand
/// names about as much.
pub const VAULT_ANSWER_BYTES_MAX: usize = 8 << 20;

/// The longest token or secret id, in bytes: batch tokens and those in JWT form have a few KiB.
pub const VAULT_LINE_BYTES_MAX: usize = 16 << 10;

/// How many requests a Vault answers at once. More gain little, and are more than our share of it.
pub const VAULT_REQUESTS_MAX: usize = 8;

/// How often a request to a Vault is tried before the look has failed.
pub const VAULT_TRIES_MAX: usize = 3;

/// The longest wait before the next try that a Vault may ask for.
pub const VAULT_WAIT_MAX: Duration = Duration::from_secs(10);

/// The shortest wait before a Vault is looked at again after a look that failed.
pub const VAULT_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest such wait: a Vault that is back is asked within a minute, however long it was away.
pub const VAULT_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How many segments the spool's quota is divided into: the unit in which space comes back and old frames are dropped.
pub const SPOOL_SEGMENTS: u64 = 16;

/// The smallest segment of the spool, in bytes: a batch of text that does not compress fits.
pub const SPOOL_SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// The largest segment of the spool, in bytes: what a spool with a single record takes of the disk.
pub const SPOOL_SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// How many deliveries of doors may wait for the lane. A door's senders are few; each waits for its answer.
pub const PUSHES_MAX: usize = 16;

/// How many different origins one batch of pushed lines may have. They are searched one after another.
pub const PUSH_ORIGINS_MAX: usize = 1024;

/// How many origins of pushed lines are remembered with their scrubbed names.
pub const PUSH_NAMES_MAX: usize = 4096;

/// The longest name that comes with a pushed line and gets a column of its own, in bytes: that of a host.
pub const PUSH_NAME_BYTES_MAX: usize = 255;

/// The largest body of a push, in bytes as sent. Senders' batches have 1 MiB by default.
pub const PUSH_BODY_BYTES_MAX: usize = 4 << 20;

/// What such a body may inflate to, in bytes.
pub const PUSH_INFLATED_BYTES_MAX: usize = 16 << 20;

/// How many pushes are worked on at once; further ones wait. Each may hold its body, inflated, and the lines of it.
pub const PUSH_REQUESTS_MAX: usize = 2;

/// How many connections of senders the HTTP door has at once.
pub const PUSH_CONNECTIONS_MAX: usize = 256;

/// How long a sender may take for the headers of a request.
pub const PUSH_HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// How long a sender may take for the body of a request.
pub const PUSH_BODY_WITHIN: Duration = Duration::from_secs(15);

/// How long requests and connections of senders have to end when the agent stops.
pub const PUSH_END_WITHIN: Duration = Duration::from_secs(5);

/// The longest syslog message, in bytes. Beyond it a message without an announced length comes in parts.
pub const SYSLOG_MESSAGE_BYTES_MAX: usize = 2 << 20;

/// How much of a syslog connection is read before it is kept, in bytes: one sync for all of it.
pub const SYSLOG_READ_BYTES: usize = 256 << 10;

/// How many syslog connections there are at once; further ones wait to be accepted.
pub const SYSLOG_CONNECTIONS_MAX: usize = 256;

/// The largest UDP datagram, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// How much of standard input is kept with one sync, in bytes.
pub const STDIN_READ_BYTES: usize = 256 << 10;

/// The longest line of standard input that is gathered, in bytes; the rest of a longer one is another line.
pub const STDIN_LINE_BYTES_MAX: usize = 8 << 20;

/// The smallest quota of the spool, in bytes: all its segments at their smallest.
pub const SPOOL_BYTES_MIN: u64 = SPOOL_SEGMENTS * SPOOL_SEGMENT_BYTES_MIN;

/// After how many sent bytes the spool's cursor is moved; each move costs a sync, and what lies behind it is sent again after a
/// crash.
pub const SPOOL_SAVE_BYTES: u64 = 8 << 20;

/// How long the spool's cursor may be behind.
pub const SPOOL_SAVE_EVERY: Duration = Duration::from_secs(1);

/// How much unread text at risk goes to the spool though the collector answers, in bytes: a few batches.
pub const AT_RISK_BYTES_MIN: u64 = 4 << 20;

const _: () = assert!(LONG_ROW_BYTES_MIN > LINE_OVERLAP_BYTES);
const _: () = assert!(GROUP_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(PICKS_MAX * 2 <= beeacon_record::limits::ATTRIBUTES_MAX);
const _: () = assert!(BLOCK_BYTES <= RECORD_BYTES_MAX);
const _: () = assert!(FILE_OVERLAP_BYTES <= FILE_TAIL_BYTES);

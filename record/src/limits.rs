//! Every limit that two rooms share, with its unit and its reason. A room's private limits stand in the room.

/// The longest line that is kept in one row, in bytes; a longer one is stored as several rows.
/// 1 MiB is four times what Loki accepts and keeps one line far below a frame.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// How much of a line that is too long stays behind for its next row, in bytes, so that a secret across the cut is seen whole.
/// No built-in rule but the private-key block is longer.
pub const LINE_OVERLAP_BYTES: usize = 4 << 10;

/// The message text after which a batch is closed, in bytes. Measured: beyond 1 MiB a frame hardly shrinks further.
pub const BATCH_TEXT_BYTES_TARGET: usize = 1 << 20;

/// The most message text one batch may hold, in bytes: the target and the longest line that may still arrive.
pub const BATCH_TEXT_BYTES_MAX: usize = 16 << 20;

/// The most rows in one batch. Empty lines have no text, so bytes alone would not bound them.
pub const BATCH_ROWS_MAX: usize = 64 << 10;

/// The most sources in one batch; each costs header bytes and a position to commit.
pub const BATCH_SOURCES_MAX: usize = 1024;

/// The most key-value pairs in one row's attributes.
pub const ATTRIBUTES_MAX: usize = 64;

/// The longest value that is cut out of a message to be an attribute, in bytes; the message still has all of it.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// The largest frame, in bytes as sent; also the largest request body. 1 MiB below the journal's largest record, so that
/// what the collector puts in front of a frame fits.
pub const FRAME_BYTES_MAX: usize = 7 << 20;

/// The largest frame header, in bytes: every source with the longest name and cursor would not fit, and does not occur.
pub const FRAME_HEADER_BYTES_MAX: usize = 1 << 20;

/// What a frame's payload may inflate to, in bytes. It bounds the memory that a hostile frame can ask for.
pub const FRAME_INFLATED_BYTES_MAX: usize = 32 << 20;

/// What a row takes beside its texts once a frame is rebuilt, in bytes: four numbers of eight, ten keys and three offsets of four. As
/// many are needed meanwhile, however little the frame has of them.
pub const ROW_REBUILT_BYTES: usize = 96;

/// The longest source name, in bytes. A container id is 64 characters; a path can be longer.
pub const SOURCE_BYTES_MAX: usize = 512;

/// The longest resume cursor that an agent may leave with the collector, in bytes per source.
pub const CURSOR_BYTES_MAX: usize = 1024;

/// The most places one source may leave open: per stream a line without its end, and a group of lines that may go on.
pub const OPEN_LINES_MAX: usize = 4;

/// The longest host, service, container, image or label text, in bytes; longer ones are cut when a batch is built.
pub const ORIGIN_FIELD_BYTES_MAX: usize = 1024;

const _: () = assert!(LINE_BYTES_MAX + BATCH_TEXT_BYTES_TARGET < BATCH_TEXT_BYTES_MAX);
const _: () = assert!(BATCH_TEXT_BYTES_MAX < FRAME_INFLATED_BYTES_MAX);
const _: () = assert!(FRAME_HEADER_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(LINE_OVERLAP_BYTES < LINE_BYTES_MAX);

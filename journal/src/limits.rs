//! Every limit of the journal, with its unit and its reason.

/// Bytes of a segment's header: one page, so that records never share a page with it.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: u64 = 24;
/// Smallest record on disk: the header, the payload's CRC, and padding to eight bytes.
pub const RECORD_BYTES_MIN: u64 = 32;
/// Largest payload of one record. A reader holds one record in memory, so this bounds its memory.
pub const RECORD_BYTES_MAX: u64 = 8 << 20;
/// Bytes of the record that ends a sealed segment; every segment keeps them free.
pub const SEAL_BYTES: u64 = 40;

/// Segment size unless chosen: a 1 GiB journal is 16 files, and a rotation costs about 1 % of the syncs.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment size: below it, rotation would cost more than appending.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest segment size: a whole segment is the unit in which space is returned.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Fewest segments a byte quota must allow: the full one that is being read, and the one written.
pub const QUOTA_SEGMENTS_MIN: u64 = 2;

/// Records in one write and sync: the index within the group is a `u16` on disk.
pub const GROUP_RECORDS_MAX: usize = 65_535;
/// Bytes in one write and sync: bounds how long one group holds up the next.
pub const GROUP_BYTES_MAX: u64 = 16 << 20;
/// Buffers in one vectored write: `IOV_MAX` of Linux.
pub const VECTORS_PER_WRITE_MAX: usize = 1024;
/// Payload parts smaller than this are copied next to their header; a copy is cheaper than a vector.
pub const COPY_BELOW_BYTES: usize = 4096;
/// Parts of one payload: each may cost a vector.
pub const PARTS_PER_RECORD_MAX: usize = 256;
/// Memory charged to the queue for each waiting record besides its payload (measured size, rounded up).
pub const QUEUE_OVERHEAD_BYTES: u64 = 256;

/// Bytes read at once by recovery, readers and `verify`; grows to one record where that is larger.
pub const SCAN_BUFFER_BYTES: usize = 1 << 20;
/// Bytes a reader reads at first after it has caught up: there is rarely more than one group to read.
pub const TAIL_BUFFER_BYTES: usize = 64 << 10;
/// Bytes given up when the device cannot read a block: the page size.
pub const UNREADABLE_BLOCK_BYTES: u64 = 4096;
/// Bytes of damaged ranges that are copied to `quarantine/`; past it damage is only counted.
pub const QUARANTINE_BYTES_MAX: u64 = 256 << 20;
/// Share of the quarantine that torn tails may take, so that crashes leave room for real damage.
pub const QUARANTINE_TORN_BYTES_MAX: u64 = 64 << 20;
/// Damaged ranges listed one by one in a report; past it they are only counted.
pub const DAMAGE_LISTED_MAX: usize = 1000;
/// Damaged ranges logged one by one at the start; the total is logged as well.
pub const DAMAGE_LOGGED_MAX: usize = 20;

/// Consumers of one journal: each is a file and holds segments back.
pub const CURSORS_MAX: usize = 64;
/// Bytes of a cursor's name: it becomes part of a file name.
pub const CURSOR_NAME_BYTES_MAX: usize = 64;
/// Bytes of one cursor slot: a page, so that writing one slot never touches the other.
pub const CURSOR_SLOT_BYTES: u64 = 4096;
/// Callbacks registered by `on_synced`.
pub const LISTENERS_MAX: usize = 64;

const _: () = assert!(RECORD_BYTES_MAX + RECORD_BYTES_MIN <= GROUP_BYTES_MAX);
const _: () = assert!(PARTS_PER_RECORD_MAX + 2 <= VECTORS_PER_WRITE_MAX);
const _: () = assert!(QUARANTINE_TORN_BYTES_MAX < QUARANTINE_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN > SEGMENT_HEADER_BYTES + SEAL_BYTES + RECORD_BYTES_MIN);

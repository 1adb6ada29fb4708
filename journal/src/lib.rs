//! A crash-safe segmented log of opaque bytes.
//!
//! The collector's journal and the agent's spool are both one of these. A caller hands over bytes and
//! is told their [`Lsn`] once they would survive a power cut; consumers read them back in order, each
//! with a durable [`Cursor`]; what every consumer has taken is removed.
//!
//! Always holds:
//! - An LSN is given out only after the `fdatasync` that covers the record, checked in release builds.
//! - Records are kept and read in the order of submission. What is lost to damage is told, with its
//!   LSNs; what an interrupted write left is cut off, from its first torn record on.
//! - Damage never keeps a journal from opening, and costs only the records it hit.
//! - A file whose write or sync failed is never written or synced again.
//! - Every queue, buffer and file has a limit; see [`limits`].
//!
//! Left to others: what the bytes mean, compression, encryption, and when to remove.
//!
//! To read the code: `journal` (the handle), `queue`, `writer`, `reader`, `cursor`; then what makes
//! it safe, `recover`, `survey`, `judge`, `scan`; then `format` and `disk` below everything.
//!
//! # Constraints of the format
//!
//! Plain files in one directory; no memory mapping, no index, nothing that has to agree with anything
//! else. Everything can be found again by reading the segments. Little-endian on every machine.
//!
//! | file | holds |
//! | --- | --- |
//! | `journal-<epoch>-<first lsn>.seg` | a segment; both numbers as 16 hexadecimal digits. The epoch grows with every segment ever begun, so that no name is used twice |
//! | `cursor-<name>.slots` | a consumer's position |
//! | `*.tmp` | a file that was not finished; removed at the next start |
//! | `quarantine/` | copies of damaged bytes, for people |
//! | `lock` | locked by the process that has the journal open |
//!
//! ## Segment
//!
//! ```text
//! 0        2048      4096                                                    segment_bytes
//! ┌────────┬─────────┬────────┬────────┬─ ─ ─ ─ ┬────────┬ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┐
//! │ header │ header  │ record │ record │        │  seal  │  zeros, reserved   │
//! └────────┴─────────┴────────┴────────┴─ ─ ─ ─ ┴────────┴ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┘
//!
//! header   0  magic "BEEJRNL\n"      16  segment uuid       48  created, unix ns u64
//! (twice)  8  version u16            32  epoch u64          56  boot id
//!         10  zero u16               40  first lsn u64      72  zeros
//!         12  header bytes u32 = 4096                     2044  crc32c u32
//!
//! record   0  magic B3 'r' 'e' 'c'    8  payload bytes u32  24  payload
//!          4  type u8: 1 data, 2 seal 12  lsn u64            .  zeros, so that the CRC ends at a
//!          5  zero u8                20  crc32c of the       .  multiple of 8
//!          6  group index u16            20 bytes before    -4  crc32c of payload and zeros
//! ```
//!
//! A header's CRC starts from the header's offset as a u64; a record's two CRCs start from the
//! segment's uuid (as a number) xor the offset of the bytes they cover. Bytes from another file, or
//! from another place in this one, are therefore no record. The header's copy lies in sectors of its
//! own, so that one bad sector does not cost a segment. A length is believed only when the header's
//! CRC matches, so that a broken one cannot lead the reader astray.
//!
//! The group index is the record's place among those that were written and synced together; `lsn -
//! index` is the first of them, and everything before that had been synced before this record was
//! written. That tells damage from an interrupted write. A seal ends a segment that was finished in
//! order; its LSN is the next one, its payload the count of records (u64).
//!
//! A segment owns the LSNs from its first one up to the first one of its successor. What lies beyond
//! was never acknowledged, and was written again in the successor or given back to its caller.
//!
//! ## Cursor
//!
//! ```text
//! two slots of 4096 bytes; generation g lies in slot g mod 2
//!  0  magic "BEECURS\n"    8  version u16    10  zeros    16  generation u64    24  lsn u64
//!  32 zeros                                             4092  crc32c u32, started from the slot's offset
//! ```
//!
//! # Write
//!
//! A new segment: `.tmp`, `fallocate`, header, `fsync`, rename, `fsync` of the directory, and only then
//! the first record. One thread takes all that is queued, writes it with one vectored write, calls
//! `fdatasync` once, publishes the LSN and answers everybody; meanwhile the next group gathers. There
//! is no timer. A full segment gets its seal, is cut to its length and synced.
//!
//! When a write or sync fails, the segment is left as it is, and the group is written into a new one,
//! because after a failed `fsync` the kernel may call pages clean that it never wrote. When that fails
//! as well, or a directory cannot be synced, the journal is poisoned: everybody is told to stop. When
//! there is no space (quota, floor, or the device says so), everything that waits is given back and
//! nothing is taken in until there is.
//!
//! # Read
//!
//! From the segment that owns the LSN, up to the last durable one. Where a CRC does not match, the
//! search goes on to the next offset, in steps of 8, with a valid header.
//!
//! # Delete
//!
//! A cursor is durable before it counts. Then segments wholly below the slowest cursor are unlinked,
//! oldest first, and the directory is synced. This takes no space. The last segment always stays.
//!
//! # Crash
//!
//! Opening reads every segment in bounded memory. A loss is *proven* when something was written after
//! the sync of what is missing; proven losses are reported, the bytes copied to `quarantine/`, the rest
//! kept. The last group of the last segment is not proven: at its first torn record it is cut off. The
//! records of that group that are kept are written once more and synced before anybody reads them,
//! because after a crash of the process alone they may exist only in the cache. Then a new segment is
//! begun with the first record; nothing is ever appended to an old one. A newer format version is
//! refused before anything is changed.

mod cursor;
mod disk;
mod error;
mod format;
mod inspect;
mod journal;
mod judge;
pub mod limits;
mod payload;
mod quarantine;
mod queue;
mod reader;
mod recover;
mod scan;
mod segment;
mod shared;
mod statistics;
mod survey;
mod writer;

pub use cursor::Cursor;
pub use error::{Duty, FullCause, JournalError};
pub use format::{FORMAT_VERSION, Lsn, RecordKind};
pub use inspect::{Dump, Entry, EntryState, VerifyReport, dump, verify};
pub use journal::{Journal, JournalOptions};
pub use judge::DamagedRange;
pub use payload::Payload;
pub use reader::{Reader, Record};
pub use recover::RecoveryReport;
pub use statistics::JournalStatistics;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

//! The journal entry: a few bytes of the collector's own, then the frame as it came.
//!
//! # Constraints
//! - A consumer can leave out the rows that were stored before without knowing any other entry: the entry says what was
//!   committed of each of its sources when it was written.
//! - The frame is not copied: it is the journal record's second part.
//! - The journal's checksum covers the whole entry, so there is none here.
//!
//! # Bytes
//! All integers are little-endian.
//! ```text
//!   0   2  version = 1
//!   2   1  kind: 1 a batch, 2 a session
//!   3   1  tenant_bytes
//!   4   8  received, nanoseconds since 1970
//!  12   …  tenant, UTF-8
//! kind 1
//!   …   2  source_count: one note per interval of the frame, in its order
//!   …   …  notes
//!   …   …  the frame, to the end
//! kind 2
//!   …  16  agent id
//!   …   8  epoch, to the end
//! note
//!   0   1  flags: 1 the source was known
//!   1   1  open_count
//!   2  16  committed (major, minor)
//!  18   …  open_count positions, 16 bytes each
//! ```
//! An entry of a newer version or of another kind is not read; what it covers counts as lost.

use beeacon_record::limits::{BATCH_SOURCES_MAX, OPEN_LINES_MAX};
use beeacon_record::{AgentId, Epoch, Position};
use bytes::Bytes;

use crate::commit::Progress;
use crate::limits::TENANT_BYTES_MAX;

const VERSION: u16 = 1;
const KIND_BATCH: u8 = 1;
const KIND_SESSION: u8 = 2;
const FLAG_KNOWN: u8 = 1;

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Too few bytes.
    #[error("journal entry ends within its {what}")]
    Truncated {
        /// In which part.
        what: &'static str,
    },
    /// Written by a newer collector.
    #[error("journal entry has version {version}, this collector reads {VERSION}")]
    Newer {
        /// The version found.
        version: u16,
    },
    /// A number names nothing, or is beyond its limit.
    #[error("journal entry has a value in its {what} that version {VERSION} does not know")]
    Field {
        /// In which field.
        what: &'static str,
    },
}

/// What an entry says, without its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose rows.
    pub tenant: String,
    /// When the collector received them, in nanoseconds since 1970.
    pub received_ns: i64,
    /// A batch or a session.
    pub kind: EntryKind,
}

/// The two kinds of entries.
#[derive(Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A frame, with what was committed of each of its sources; none where the source was new.
    Batch {
        /// One per interval of the frame, in its order.
        before: Vec<Option<Progress>>,
        /// The frame's bytes as received.
        frame: Bytes,
    },
    /// A session was opened.
    Session {
        /// By whom.
        agent: AgentId,
        /// Its number.
        epoch: Epoch,
    },
}

impl std::fmt::Debug for EntryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EntryKind::Batch { before, frame } => f
                .debug_struct("Batch")
                .field("sources", &before.len())
                .field("frame_bytes", &frame.len())
                .finish(),
            EntryKind::Session { agent, epoch } => {
                f.debug_struct("Session").field("agent", agent).field("epoch", epoch).finish()
            }
        }
    }
}

fn head(kind: u8, tenant: &str, received_ns: i64) -> Result<Vec<u8>, EntryError> {
    let tenant_bytes = u8::try_from(tenant.len())
        .ok()
        .filter(|bytes| usize::from(*bytes) <= TENANT_BYTES_MAX)
        .ok_or(EntryError::Field { what: "tenant" })?;
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(kind);
    out.push(tenant_bytes);
    out.extend_from_slice(&received_ns.to_le_bytes());
    out.extend_from_slice(tenant.as_bytes());
    Ok(out)
}

/// What stands before a frame.
///
/// # Errors
/// [`EntryError::Field`] when the tenant's name is too long, or there are more sources or open lines than a frame has.
pub fn batch_prefix(
    tenant: &str,
    received_ns: i64,
    before: &[Option<Progress>],
) -> Result<Vec<u8>, EntryError> {
    let mut out = head(KIND_BATCH, tenant, received_ns)?;
    let count = u16::try_from(before.len()).map_err(|_| EntryError::Field { what: "source_count" })?;
    out.extend_from_slice(&count.to_le_bytes());
    for note in before {
        let unknown = Progress::default();
        let progress = note.as_ref().unwrap_or(&unknown);
        out.push(if note.is_some() { FLAG_KNOWN } else { 0 });
        out.push(u8::try_from(progress.open.len()).map_err(|_| EntryError::Field { what: "open_count" })?);
        write_position(progress.committed, &mut out);
        for open in &progress.open {
            write_position(*open, &mut out);
        }
    }
    Ok(out)
}

/// A whole session entry.
///
/// # Errors
/// As [`batch_prefix`].
pub fn session(tenant: &str, received_ns: i64, agent: AgentId, epoch: Epoch) -> Result<Vec<u8>, EntryError> {
    let mut out = head(KIND_SESSION, tenant, received_ns)?;
    out.extend_from_slice(agent.as_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    Ok(out)
}

/// Reads an entry. The frame is a view on the same bytes, and is not looked into.
///
/// # Errors
/// What is wrong, without quoting any of it.
pub fn read(bytes: &Bytes) -> Result<Entry, EntryError> {
    let mut reader = Reader { rest: bytes, what: "head" };
    let version = u16::from_le_bytes(reader.array()?);
    if version != VERSION {
        return Err(if version > VERSION {
            EntryError::Newer { version }
        } else {
            EntryError::Field { what: "version" }
        });
    }
    let [kind, tenant_bytes] = reader.array()?;
    let received_ns = i64::from_le_bytes(reader.array()?);
    if usize::from(tenant_bytes) > TENANT_BYTES_MAX {
        return Err(EntryError::Field { what: "tenant" });
    }
    let tenant = std::str::from_utf8(reader.slice(tenant_bytes.into())?)
        .map_err(|_| EntryError::Field { what: "tenant" })?
        .to_owned();
    let kind = match kind {
        KIND_BATCH => {
            let before = read_notes(&mut reader)?;
            let frame = bytes.slice_ref(reader.rest);
            EntryKind::Batch { before, frame }
        }
        KIND_SESSION => {
            reader.what = "session";
            let agent = AgentId::from_bytes(reader.array()?);
            let epoch = Epoch(u64::from_le_bytes(reader.array()?));
            if !reader.rest.is_empty() {
                return Err(EntryError::Field { what: "session" });
            }
            EntryKind::Session { agent, epoch }
        }
        _ => return Err(EntryError::Field { what: "kind" }),
    };
    Ok(Entry { tenant, received_ns, kind })
}

fn read_notes(reader: &mut Reader<'_>) -> Result<Vec<Option<Progress>>, EntryError> {
    reader.what = "notes";
    let count = usize::from(u16::from_le_bytes(reader.array()?));
    if count > BATCH_SOURCES_MAX {
        return Err(EntryError::Field { what: "source_count" });
    }
    let mut notes = Vec::with_capacity(count);
    for _ in 0..count {
        let [flags, open_count] = reader.array()?;
        if flags & !FLAG_KNOWN != 0 || usize::from(open_count) > OPEN_LINES_MAX {
            return Err(EntryError::Field { what: "notes" });
        }
        let committed = reader.position()?;
        let open = (0..open_count).map(|_| reader.position()).collect::<Result<Vec<_>, _>>()?;
        notes.push((flags & FLAG_KNOWN != 0).then_some(Progress { committed, open }));
    }
    Ok(notes)
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.major.to_le_bytes());
    out.extend_from_slice(&position.minor.to_le_bytes());
}

/// Takes fields from the front; says in which part the bytes ended.
struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, count: usize) -> Result<&'a [u8], EntryError> {
        let (head, tail) =
            self.rest.split_at_checked(count).ok_or(EntryError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (head, tail) =
            self.rest.split_first_chunk::<N>().ok_or(EntryError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }

    fn position(&mut self) -> Result<Position, EntryError> {
        Ok(Position::new(u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::ENTRY_PREFIX_BYTES_MAX;

    fn progress() -> impl Strategy<Value = Option<Progress>> {
        let position = (any::<u64>(), any::<u64>()).prop_map(|(major, minor)| Position::new(major, minor));
        let open = proptest::collection::vec(position.clone(), 0..=OPEN_LINES_MAX);
        proptest::option::of((position, open).prop_map(|(committed, open)| Progress { committed, open }))
    }

    proptest! {
        #[test]
        fn a_batch_entry_survives_its_bytes(
            before in proptest::collection::vec(progress(), 0..5),
            frame in proptest::collection::vec(any::<u8>(), 0..100),
            received_ns in any::<i64>(),
        ) {
            let mut bytes = batch_prefix("default", received_ns, &before).unwrap();
            bytes.extend_from_slice(&frame);
            let entry = read(&Bytes::from(bytes)).unwrap();
            let kind = EntryKind::Batch { before, frame: Bytes::from(frame) };
            prop_assert_eq!(entry, Entry { tenant: "default".into(), received_ns, kind });
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&Bytes::from(bytes)));
        }
    }

    /// The bytes are a promise to every later version: journals are read after an upgrade.
    #[test]
    fn the_bytes_of_version_one_stay_as_they_are() {
        let before =
            [Some(Progress { committed: Position::new(1, 2), open: vec![Position::new(1, 1)] }), None];
        let mut expected = vec![1, 0, 1, 2, 7, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(b"ab");
        expected.extend_from_slice(&[2, 0]);
        expected.extend_from_slice(&[1, 1]);
        for number in [1u64, 2, 1, 1] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&[0; 18]);
        assert_eq!(batch_prefix("ab", 7, &before).unwrap(), expected);

        let mut expected = vec![1, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[0xab; 16]);
        expected.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(session("", 7, AgentId::from_bytes([0xab; 16]), Epoch(9)).unwrap(), expected);
    }

    #[test]
    fn a_session_entry_survives_its_bytes_and_no_shorter_or_longer_ones() {
        let agent = AgentId::from_bytes([3; 16]);
        let bytes = session("default", -1, agent, Epoch(4)).unwrap();
        let kind = EntryKind::Session { agent, epoch: Epoch(4) };
        let expected = Entry { tenant: "default".into(), received_ns: -1, kind };
        assert_eq!(read(&Bytes::from(bytes.clone())), Ok(expected));
        for end in 0..bytes.len() {
            assert!(read(&Bytes::copy_from_slice(&bytes[..end])).is_err(), "{end} bytes were enough");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(read(&Bytes::from(longer)).is_err());
    }

    #[test]
    fn newer_and_unknown_entries_are_told_apart() {
        let mut bytes = session("t", 0, AgentId::from_bytes([0; 16]), Epoch(1)).unwrap();
        bytes[2] = 9;
        assert_eq!(read(&Bytes::from(bytes.clone())), Err(EntryError::Field { what: "kind" }));
        bytes[0] = 2;
        assert_eq!(read(&Bytes::from(bytes)), Err(EntryError::Newer { version: 2 }));
    }

    #[test]
    fn the_longest_prefix_fits_its_limit() {
        let full = Progress { committed: Position::START, open: vec![Position::START; OPEN_LINES_MAX] };
        let before = vec![Some(full); BATCH_SOURCES_MAX];
        let tenant = "t".repeat(TENANT_BYTES_MAX);
        assert!(batch_prefix(&tenant, 0, &before).unwrap().len() <= ENTRY_PREFIX_BYTES_MAX);
    }
}

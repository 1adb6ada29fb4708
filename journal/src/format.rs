//! The bytes on disk: pure functions between values and bytes. The crate's front page draws them.

use std::fmt;

use uuid::Uuid;

use crate::disk::Stamp;
use crate::limits::{CURSOR_NAME_BYTES_MAX, CURSOR_SLOT_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// The format written, and the newest one read.
pub const FORMAT_VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"BEEJRNL\n";
const CURSOR_MAGIC: [u8; 8] = *b"BEECURS\n";
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"\xB3rec";
/// Records start at multiples of this, so that a search for the next one has few places to look.
pub(crate) const ALIGNMENT: u64 = 8;
const HALF_BYTES: usize = SEGMENT_HEADER_BYTES as usize / 2;
const CRC_BYTES: usize = 4;

/// A log sequence number: the place of a record in the journal, dense from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Takes fixed-size little-endian fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn uuid(&mut self) -> Option<Uuid> {
        self.take().map(Uuid::from_bytes)
    }
}

/// Fills up to a page or half a page and ends it with the CRC of everything before.
fn close_block(mut block: Vec<u8>, bytes: usize, seed: u64) -> Vec<u8> {
    block.resize(bytes - CRC_BYTES, 0);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &block);
    block.extend_from_slice(&crc.to_le_bytes());
    block
}

/// Whether a block made by [`close_block`] is whole.
fn block_is_whole(block: &[u8], bytes: usize, seed: u64) -> bool {
    block.len() == bytes
        && block.split_last_chunk::<CRC_BYTES>().is_some_and(|(content, stored)| {
            crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), content) == u32::from_le_bytes(*stored)
        })
}

/// The name of a segment's file: `journal-<epoch>-<first lsn>.seg`, both in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (epoch, first_lsn) = name.strip_prefix("journal-")?.strip_suffix(".seg")?.split_once('-')?;
        let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        let parsed = Self { epoch: number(epoch)?, first_lsn: number(first_lsn)? };
        // Only the spelling we write, so that one segment has one name.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "journal-{:016x}-{:016x}.seg", self.epoch, self.first_lsn)
    }
}

/// What the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) uuid: Uuid,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
    pub(crate) created_unix_ns: u64,
    pub(crate) boot_id: Uuid,
}

/// What was found where a segment's header should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    /// `damaged_half` is the offset of the copy that is not whole, if one is not.
    Valid {
        header: SegmentHeader,
        damaged_half: Option<u64>,
    },
    Newer(u16),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn new(stamp: &Stamp, name: SegmentName) -> Self {
        Self {
            uuid: stamp.uuid,
            epoch: name.epoch,
            first_lsn: name.first_lsn,
            created_unix_ns: stamp.created_unix_ns,
            boot_id: stamp.boot_id,
        }
    }

    /// The whole page: the same content twice, in sectors of their own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let half = |offset: usize| {
            let mut block = Vec::with_capacity(HALF_BYTES);
            block.extend_from_slice(&SEGMENT_MAGIC);
            block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
            block.extend_from_slice(&[0; 2]);
            block.extend_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
            block.extend_from_slice(self.uuid.as_bytes());
            block.extend_from_slice(&self.epoch.to_le_bytes());
            block.extend_from_slice(&self.first_lsn.to_le_bytes());
            block.extend_from_slice(&self.created_unix_ns.to_le_bytes());
            block.extend_from_slice(self.boot_id.as_bytes());
            close_block(block, HALF_BYTES, offset as u64)
        };
        [half(0), half(HALF_BYTES)].concat()
    }

    pub(crate) fn decode(page: &[u8]) -> HeaderFound {
        let halves = page.split_at_checked(HALF_BYTES).unwrap_or((page, &[]));
        let first = Self::decode_half(halves.0, 0);
        let second = Self::decode_half(halves.1, HALF_BYTES as u64);
        match (first, second) {
            (Half::Valid(header), Half::Valid(_)) => HeaderFound::Valid { header, damaged_half: None },
            (Half::Valid(header), _) => HeaderFound::Valid { header, damaged_half: Some(HALF_BYTES as u64) },
            (_, Half::Valid(header)) => HeaderFound::Valid { header, damaged_half: Some(0) },
            // A newer format may checksum differently, so two copies that agree are believed.
            (Half::Newer(version), Half::Newer(other)) if version == other => HeaderFound::Newer(version),
            _ => HeaderFound::Damaged,
        }
    }

    fn decode_half(block: &[u8], offset: u64) -> Half {
        let mut fields = Fields(block);
        let whole = block_is_whole(block, HALF_BYTES, offset);
        let read = || -> Option<Half> {
            if fields.take::<8>()? != SEGMENT_MAGIC {
                return None;
            }
            let version = fields.u16()?;
            if version > FORMAT_VERSION {
                return Some(Half::Newer(version));
            }
            fields.take::<6>()?;
            let header = Self {
                uuid: fields.uuid()?,
                epoch: fields.u64()?,
                first_lsn: fields.u64()?,
                created_unix_ns: fields.u64()?,
                boot_id: fields.uuid()?,
            };
            (whole && version == FORMAT_VERSION).then_some(Half::Valid(header))
        };
        let mut read = read;
        read().unwrap_or(Half::Damaged)
    }
}

enum Half {
    Valid(SegmentHeader),
    Newer(u16),
    Damaged,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordKind {
    /// A caller's bytes.
    Data,
    /// The end of a segment that was closed in order; its payload is the count of records (u64).
    Seal,
}

/// The fixed part in front of every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: RecordKind,
    /// Place within the records that were written and synced together.
    pub(crate) group_index: u16,
    pub(crate) payload_bytes: u32,
    pub(crate) lsn: u64,
}

impl RecordHeader {
    pub(crate) fn encode_into(&self, uuid: Uuid, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&RECORD_MAGIC);
        out.push(match self.kind {
            RecordKind::Data => 1,
            RecordKind::Seal => 2,
        });
        out.push(0);
        out.extend_from_slice(&self.group_index.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        let content = out.get(start..).unwrap_or_default();
        let crc = crc32c::crc32c_append(seed(uuid, offset), content);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// The header at `offset`, if the bytes there are one that was written there.
    pub(crate) fn decode(bytes: &[u8], uuid: Uuid, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES as usize)?;
        let mut fields = Fields(bytes);
        if fields.take::<4>()? != RECORD_MAGIC {
            return None;
        }
        let (content, stored) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32c::crc32c_append(seed(uuid, offset), content) != u32::from_le_bytes(*stored) {
            return None;
        }
        let kind = match fields.u8()? {
            1 => RecordKind::Data,
            2 => RecordKind::Seal,
            _ => return None,
        };
        if fields.u8()? != 0 {
            return None;
        }
        Some(Self { kind, group_index: fields.u16()?, payload_bytes: fields.u32()?, lsn: fields.u64()? })
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(u64::from(self.payload_bytes))
    }

    /// The first LSN that was written and synced together with this record. Everything before it
    /// had been synced before this record was written.
    pub(crate) fn group_lsn(&self) -> u64 {
        self.lsn.saturating_sub(u64::from(self.group_index))
    }
}

/// Bytes a payload takes on disk: header, payload, zeros up to the CRC, CRC.
pub(crate) const fn record_bytes(payload_bytes: u64) -> u64 {
    RECORD_HEADER_BYTES + (payload_bytes + CRC_BYTES as u64).next_multiple_of(ALIGNMENT)
}

/// Zeros between a payload and its CRC.
pub(crate) const fn padding_bytes(payload_bytes: u64) -> usize {
    (record_bytes(payload_bytes) - RECORD_HEADER_BYTES - payload_bytes) as usize - CRC_BYTES
}

/// Where a CRC starts: bytes of another file, or of another place in this one, never match.
pub(crate) fn seed(uuid: Uuid, offset: u64) -> u32 {
    crc32c::crc32c(&(uuid.as_u128() ^ u128::from(offset)).to_le_bytes())
}

/// Whether a record's body (payload, padding and CRC) is what was written at `offset`.
pub(crate) fn body_is_whole(body: &[u8], uuid: Uuid, offset: u64) -> bool {
    body.split_last_chunk::<CRC_BYTES>().is_some_and(|(content, stored)| {
        crc32c::crc32c_append(seed(uuid, offset), content) == u32::from_le_bytes(*stored)
    })
}

/// One of the two slots of a cursor's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CursorSlot {
    pub(crate) generation: u64,
    pub(crate) lsn: u64,
}

/// What was found in a cursor's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorFound {
    Valid { newest: CursorSlot, damaged_slot: bool },
    Newer(u16),
    Damaged,
}

impl CursorSlot {
    /// Where this generation lives: the two slots take turns.
    pub(crate) fn offset(&self) -> u64 {
        (self.generation % 2) * CURSOR_SLOT_BYTES
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(CURSOR_SLOT_BYTES as usize);
        block.extend_from_slice(&CURSOR_MAGIC);
        block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        block.extend_from_slice(&[0; 6]);
        block.extend_from_slice(&self.generation.to_le_bytes());
        block.extend_from_slice(&self.lsn.to_le_bytes());
        close_block(block, CURSOR_SLOT_BYTES as usize, self.offset())
    }

    pub(crate) fn decode_file(bytes: &[u8]) -> CursorFound {
        let (first, second) = bytes.split_at_checked(CURSOR_SLOT_BYTES as usize).unwrap_or((bytes, &[]));
        let slots = [Self::decode(first, 0), Self::decode(second, CURSOR_SLOT_BYTES)];
        if let [Err(Some(version)), Err(Some(other))] = slots
            && version == other
        {
            return CursorFound::Newer(version);
        }
        let damaged_slot = slots.iter().any(Result::is_err);
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.generation);
        newest.map_or(CursorFound::Damaged, |newest| CursorFound::Valid { newest, damaged_slot })
    }

    /// The slot, or the newer version that wrote it, or nothing.
    fn decode(block: &[u8], offset: u64) -> Result<Self, Option<u16>> {
        let mut fields = Fields(block);
        let magic = fields.take::<8>();
        let version = fields.u16().ok_or(None)?;
        if magic != Some(CURSOR_MAGIC) {
            return Err(None);
        }
        if version > FORMAT_VERSION {
            return Err(Some(version));
        }
        if version != FORMAT_VERSION || !block_is_whole(block, CURSOR_SLOT_BYTES as usize, offset) {
            return Err(None);
        }
        fields.take::<6>().ok_or(None)?;
        let slot = Self { generation: fields.u64().ok_or(None)?, lsn: fields.u64().ok_or(None)? };
        if slot.offset() == offset { Ok(slot) } else { Err(None) }
    }
}

/// Whether a name may become part of a cursor's file name.
pub(crate) fn is_cursor_name(name: &str) -> bool {
    (1..=CURSOR_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// The name of a cursor's file.
pub(crate) fn cursor_file_name(name: &str) -> String {
    format!("cursor-{name}.slots")
}

/// The cursor a file belongs to.
pub(crate) fn cursor_of_file(file_name: &str) -> Option<&str> {
    file_name.strip_prefix("cursor-")?.strip_suffix(".slots").filter(|name| is_cursor_name(name))
}

//! The frame's header: written and read field by field, as the table in the module above says.

use crate::frame::FrameError;
use crate::identity::{AgentId, Epoch, Gap, GapReason, Interval, Position, RuleSetId, Source};
use crate::limits::{
    BATCH_ROWS_MAX, BATCH_SOURCES_MAX, FRAME_HEADER_BYTES_MAX, FRAME_INFLATED_BYTES_MAX, ROW_REBUILT_BYTES,
};

/// The first eight bytes of every frame.
pub const MAGIC: [u8; 8] = *b"BEEACONF";

/// The newest frame version that this code reads and writes.
pub const FRAME_VERSION: u16 = 2;

/// The oldest one, which every reader knows.
pub const FRAME_VERSION_FIRST: u16 = 1;

/// Where the intervals start.
const FIXED_BYTES: usize = 72;

/// The two checksums at the end of the header.
const CHECKSUM_BYTES: usize = 8;

/// The first timestamps and positions before the columns of version 1.
pub(super) const PRELUDE_BYTES: usize = 32;

/// What stands before the columns.
const fn prelude_bytes(version: u16) -> usize {
    if version == 1 { PRELUDE_BYTES } else { 0 }
}

const FLAG_GAP: u8 = 1;
const FLAG_FINAL: u8 = 2;

/// What a frame says about itself in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// How its payload is written.
    pub version: u16,
    /// Who sent it.
    pub agent: AgentId,
    /// In which session.
    pub epoch: Epoch,
    /// Which rules scrubbed it.
    pub rule_set: RuleSetId,
    /// Which key made its keyed hashes; 0 without a key.
    pub key_version: u32,
    /// How many rows.
    pub row_count: u32,
    /// The payload's size as sent.
    pub payload_bytes: u32,
    /// The inflated columns' size.
    pub columns_bytes: u32,
    /// The inflated text's size.
    pub text_bytes: u32,
    /// What it covers of each source.
    pub intervals: Vec<Interval>,
}

impl FrameHeader {
    /// What the payload inflates to, in bytes.
    pub fn inflated_bytes(&self) -> usize {
        prelude_bytes(self.version) + self.columns_bytes as usize + self.text_bytes as usize
    }

    /// What the rows take at most once they are rebuilt, in bytes: what is the same in every row of the payload takes room there again.
    pub fn rebuilt_bytes(&self) -> usize {
        self.inflated_bytes() + self.row_count as usize * ROW_REBUILT_BYTES
    }

    /// The header's bytes, checksums included.
    pub(super) fn write(&self, payload_crc: u32) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        for number in [self.payload_bytes, self.columns_bytes, self.text_bytes, self.row_count] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(self.agent.as_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.rule_set.0.to_le_bytes());
        out.extend_from_slice(&self.key_version.to_le_bytes());
        out.extend_from_slice(&short(self.intervals.len(), "interval count")?.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        for interval in &self.intervals {
            write_interval(interval, &mut out)?;
        }
        let header_bytes = out.len() + CHECKSUM_BYTES;
        if header_bytes > FRAME_HEADER_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "frame header",
                bytes: header_bytes as u64,
                limit: FRAME_HEADER_BYTES_MAX as u64,
            });
        }
        if let Some(slot) = out.get_mut(12..16) {
            slot.copy_from_slice(&length(header_bytes, "header")?.to_le_bytes());
        }
        out.extend_from_slice(&payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Reads a header; gives it with the payload's checksum and the place where the payload starts.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, u32, usize), FrameError> {
        let mut reader = Reader { rest: bytes, what: "header" };
        if reader.array::<8>()? != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = reader.u16()?;
        if version > FRAME_VERSION {
            return Err(FrameError::Newer { version, known: FRAME_VERSION });
        }
        if version < FRAME_VERSION_FIRST || reader.u16()? != 0 {
            return Err(FrameError::Field { what: "version or flags" });
        }
        let header_bytes = reader.u32()? as usize;
        if header_bytes > FRAME_HEADER_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "frame header",
                bytes: header_bytes as u64,
                limit: FRAME_HEADER_BYTES_MAX as u64,
            });
        }
        if header_bytes < FIXED_BYTES + CHECKSUM_BYTES {
            return Err(FrameError::Field { what: "header_bytes" });
        }
        let header = bytes.get(..header_bytes).ok_or(FrameError::Truncated { what: "header" })?;
        let (checked, crc) = header
            .split_last_chunk::<4>()
            .ok_or(FrameError::Truncated { what: "header" })
            .map(|(checked, crc)| (checked, u32::from_le_bytes(*crc)))?;
        if crc32c::crc32c(checked) != crc {
            return Err(FrameError::Checksum { what: "header" });
        }
        let (body, payload_crc) =
            checked.split_last_chunk::<4>().ok_or(FrameError::Truncated { what: "header" })?;
        let mut reader = Reader { rest: body.get(16..).unwrap_or(&[]), what: "header" };
        let header = Self::read_fields(version, &mut reader)?;
        Ok((header, u32::from_le_bytes(*payload_crc), header_bytes))
    }

    /// Everything behind `header_bytes`, whose checksum holds.
    fn read_fields(version: u16, reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        let (payload_bytes, columns_bytes, text_bytes) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let row_count = reader.u32()?;
        let inflated = prelude_bytes(version) as u64 + u64::from(columns_bytes) + u64::from(text_bytes);
        if inflated > FRAME_INFLATED_BYTES_MAX as u64 {
            return Err(FrameError::TooLarge {
                what: "inflated payload",
                bytes: inflated,
                limit: FRAME_INFLATED_BYTES_MAX as u64,
            });
        }
        if row_count as usize > BATCH_ROWS_MAX {
            return Err(FrameError::Field { what: "row_count" });
        }
        let agent = AgentId::from_bytes(reader.array()?);
        let epoch = Epoch(reader.u64()?);
        let rule_set = RuleSetId(reader.u64()?);
        let key_version = reader.u32()?;
        let interval_count = usize::from(reader.u16()?);
        if reader.u16()? != 0 {
            return Err(FrameError::Field { what: "reserved" });
        }
        if interval_count > BATCH_SOURCES_MAX {
            return Err(FrameError::Field { what: "interval_count" });
        }
        let mut intervals = Vec::with_capacity(interval_count);
        for _ in 0..interval_count {
            intervals.push(read_interval(reader)?);
        }
        if !reader.rest.is_empty() {
            return Err(FrameError::Field { what: "header_bytes" });
        }
        Ok(FrameHeader {
            version,
            agent,
            epoch,
            rule_set,
            key_version,
            row_count,
            payload_bytes,
            columns_bytes,
            text_bytes,
            intervals,
        })
    }
}

fn write_interval(interval: &Interval, out: &mut Vec<u8>) -> Result<(), FrameError> {
    interval.check()?;
    let mut flags = 0;
    if interval.gap.is_some() {
        flags |= FLAG_GAP;
    }
    if interval.is_final {
        flags |= FLAG_FINAL;
    }
    let source = interval.source.as_str().as_bytes();
    out.extend_from_slice(&short(source.len(), "source")?.to_le_bytes());
    out.push(flags);
    out.push(u8::try_from(interval.open.len()).map_err(|_| FrameError::Field { what: "open_count" })?);
    out.extend_from_slice(&interval.dropped_rows.to_le_bytes());
    write_position(interval.from, out);
    write_position(interval.to, out);
    out.extend_from_slice(&short(interval.cursor.len(), "cursor")?.to_le_bytes());
    out.extend_from_slice(source);
    for open in &interval.open {
        write_position(*open, out);
    }
    out.extend_from_slice(&interval.cursor);
    if let Some(gap) = &interval.gap {
        write_position(gap.from, out);
        out.push(gap.reason as u8);
        out.extend_from_slice(&gap.bytes.to_le_bytes());
        out.extend_from_slice(&gap.timestamp_before_ns.to_le_bytes());
        out.extend_from_slice(&gap.timestamp_after_ns.to_le_bytes());
    }
    Ok(())
}

fn read_interval(reader: &mut Reader<'_>) -> Result<Interval, FrameError> {
    reader.what = "intervals";
    let source_bytes = usize::from(reader.u16()?);
    let flags = reader.u8()?;
    if flags & !(FLAG_GAP | FLAG_FINAL) != 0 {
        return Err(FrameError::Field { what: "interval flags" });
    }
    let open_count = reader.u8()?;
    let dropped_rows = reader.u32()?;
    let (from, to) = (reader.position()?, reader.position()?);
    let cursor_bytes = usize::from(reader.u16()?);
    let source = std::str::from_utf8(reader.slice(source_bytes)?)
        .map_err(|_| FrameError::Field { what: "source" })?
        .to_owned();
    let open = (0..open_count).map(|_| reader.position()).collect::<Result<Vec<_>, _>>()?;
    let cursor = reader.slice(cursor_bytes)?.to_vec();
    let gap = if flags & FLAG_GAP == 0 {
        None
    } else {
        Some(Gap {
            from: reader.position()?,
            reason: GapReason::from_number(reader.u8()?).ok_or(FrameError::Field { what: "gap reason" })?,
            bytes: reader.u64()?,
            timestamp_before_ns: reader.u64()?.cast_signed(),
            timestamp_after_ns: reader.u64()?.cast_signed(),
        })
    };
    let interval = Interval {
        source: Source::new(source)?,
        from,
        to,
        open,
        gap,
        dropped_rows,
        is_final: flags & FLAG_FINAL != 0,
        cursor,
    };
    interval.check()?;
    Ok(interval)
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.major.to_le_bytes());
    out.extend_from_slice(&position.minor.to_le_bytes());
}

/// A length as the header's 32 bits.
pub(super) fn length(bytes: usize, what: &'static str) -> Result<u32, FrameError> {
    u32::try_from(bytes).map_err(|_| FrameError::TooLarge {
        what,
        bytes: bytes as u64,
        limit: u64::from(u32::MAX),
    })
}

fn short(bytes: usize, what: &'static str) -> Result<u16, FrameError> {
    u16::try_from(bytes).map_err(|_| FrameError::TooLarge {
        what,
        bytes: bytes as u64,
        limit: u64::from(u16::MAX),
    })
}

/// Takes fields from the front; says in which part the bytes ended.
struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (head, tail) =
            self.rest.split_at_checked(count).ok_or(FrameError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, tail) =
            self.rest.split_first_chunk::<N>().ok_or(FrameError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn position(&mut self) -> Result<Position, FrameError> {
        Ok(Position::new(self.u64()?, self.u64()?))
    }
}

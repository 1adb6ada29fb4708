//! The frame: a scrubbed batch as bytes. The same bytes are the request body, the spool entry and the journal entry.
//!
//! # Constraints
//! - A reader can check everything about a frame's size and integrity before it allocates for it.
//! - What identifies the rows (agent, epoch, intervals) stands in the clear, so a frame can be judged without inflating it.
//! - What does not compress as it stands (nanoseconds, byte offsets) is coded as differences first; the rest is Arrow IPC, so that any
//!   Arrow library reads it.
//! - Equal batches make equal bytes with the same compressor.
//!
//! # Bytes
//! All integers are little-endian.
//! ```text
//! header
//!   0   8  magic "BEEACONF"
//!   8   2  version: 1 or 2
//!  10   2  flags = 0
//!  12   4  header_bytes: the whole header, its checksums included
//!  16   4  payload_bytes: as sent
//!  20   4  columns_bytes: the inflated columns
//!  24   4  text_bytes: the inflated message text
//!  28   4  row_count
//!  32  16  agent id
//!  48   8  epoch
//!  56   8  rule-set id
//!  64   4  key version of keyed hashes, 0 without a key
//!  68   2  interval_count
//!  70   2  reserved = 0
//!  72   …  intervals, one after another
//!   …   4  CRC-32C of the payload as sent
//!   …   4  CRC-32C of the header up to here
//! interval
//!   0   2  source_bytes
//!   2   1  flags: 1 a gap is declared, 2 the source has ended
//!   3   1  open_count
//!   4   4  dropped_rows
//!   8  16  from (major, minor)
//!  24  16  to (major, minor)
//!  40   2  cursor_bytes
//!  42   …  source, UTF-8
//!   …   …  open_count positions, 16 bytes each
//!   …   …  cursor
//!   …  41  with flag 1: gap from (16), reason (1), bytes lost (8), timestamp before (8), timestamp after (8)
//! ```
//! ## Payload of version 1
//! ```text
//! payload, which zstd inflates to 32 + columns_bytes + text_bytes bytes
//!   0  32  the first row's timestamp, observed timestamp, position major, position minor (64 bits each; 0 without rows)
//!  32   …  columns: an Arrow IPC stream with one record batch
//!   …   …  text: every message, one after another
//! columns
//!   timestamp, observed_timestamp, position_major, position_minor
//!                      difference to the row before, wrapping, as the narrowest of int8, int16, int32, int64 that holds all
//!   message_bytes      the message's length, as the narrowest of uint8, uint16, uint32 that holds all
//!   attributes, redactions                                    as in the log schema
//!   all other columns  dictionary(utf8) with int8, int16 or int32 keys
//! ```
//! ## Payload of version 2
//! ```text
//! payload, one or more zstd frames that inflate to columns_bytes + text_bytes bytes, one after another
//!   0   4  rows_bytes
//!   4   4  redactions_bytes
//!   8  60  of each of the six columns of numbers: width (1), is_less (1), first (8)
//!  68   4  zero
//!  72   …  rows: an Arrow IPC stream with one record batch
//!   …   …  redactions: the same with a row for each item of all rows' redactions; 0 bytes without any
//!   …   …  numbers: of each of the six columns as many planes as it is wide, of one byte a row: the lowest bytes first
//!   …   …  text: every message, one after another
//! rows
//!   attributes         as in the log schema; missing where no row has any
//!   all other columns  dictionary(utf8) with int8, int16 or int32 keys; a column whose rows are all the same may stand in the
//!                      schema's metadata instead, by its name
//! redactions
//!   rule, count        dictionary(utf8) as above; the narrowest of uint8, uint16, uint32 that holds all
//! numbers
//!   timestamp, observed_timestamp, position_major, position_minor
//!                      difference to the row before, wrapping, the first row's 0; d is written as d * 2, or -d * 2 - 1 where it is
//!                      negative. With is_less, what was expected is taken off first: of position_major the difference of the
//!                      timestamps, of position_minor the message_bytes of the row before
//!   message_bytes, redaction_count
//!                      as they are; first is 0
//! ```
//!
//! # Versions
//! A collector says in its answer to a session which versions it reads; one that says nothing reads version 1. What an agent kept as
//! a newer version than that, it writes anew ([`Frame::in_version`]).
//!
//! # Reading
//! [`Frame::parse`] checks magic, version, lengths against [`crate::limits`] and both checksums, and gives the header.
//! [`Frame::decode`] inflates into exactly the announced size and rebuilds the batch. A newer version is refused by name.

mod error;
mod header;
mod v1;
mod v2;

use std::io::Cursor;

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

pub use error::FrameError;
pub use header::{FRAME_VERSION, FRAME_VERSION_FIRST, FrameHeader, MAGIC};

use crate::batch::Batch;
use crate::identity::{AgentId, Epoch, Interval};
use crate::limits::{FRAME_BYTES_MAX, FRAME_INFLATED_BYTES_MAX};
use crate::scrubbed::Scrubbed;

/// What is chosen beside zstd's level 1, as logarithms: how far back it looks, how many places it remembers, and the shortest text that
/// it looks for. Its own choice is 19, 14 and 7, made for a small cache: with four times the memory, 256 KiB, a mixed log's text takes
/// an eighth fewer bytes for an eighth more time (Loghub's lines in blocks of 1 MiB).
const LEVEL_1: [u32; 3] = [20, 16, 7];

/// Where the parts of a payload lie before it is compressed.
struct Parts {
    columns_bytes: usize,
    text_bytes: usize,
    /// Where one zstd frame ends and the next begins: what lies on both sides has nothing in common.
    ends: Vec<usize>,
}

/// Encodes batches of one agent session, keeping the compressor's memory between frames.
pub struct FrameEncoder {
    agent: AgentId,
    epoch: Epoch,
    key_version: u32,
    version: u16,
    compressor: Compressor<'static>,
    scratch: Vec<u8>,
}

impl FrameEncoder {
    /// An encoder that compresses with this zstd level; -7 to 19 make sense, the agent's default is 1.
    ///
    /// # Errors
    /// [`FrameError::Compress`] when zstd refuses the level.
    pub fn new(
        agent: AgentId,
        epoch: Epoch,
        key_version: u32,
        compression_level: i32,
    ) -> Result<Self, FrameError> {
        let compressor = Compressor::new(compression_level)
            .map_err(|_| FrameError::Compress { level: compression_level })?;
        let (version, scratch) = (FRAME_VERSION, Vec::new());
        let mut encoder = FrameEncoder { agent, epoch, key_version, version, compressor, scratch };
        encoder.set_compression_level(compression_level)?;
        Ok(encoder)
    }

    /// From now on frames are written in this version, or the newest one that is known here.
    pub fn set_version(&mut self, version: u16) {
        self.version = version.clamp(FRAME_VERSION_FIRST, FRAME_VERSION);
    }

    /// From now on frames are compressed with this zstd level.
    ///
    /// # Errors
    /// [`FrameError::Compress`] when zstd refuses the level.
    pub fn set_compression_level(&mut self, compression_level: i32) -> Result<(), FrameError> {
        let compressor = &mut self.compressor;
        // Zero leaves the choice to zstd.
        let [window, hash, least] = if compression_level == 1 { LEVEL_1 } else { [0; 3] };
        compressor
            .set_compression_level(compression_level)
            .and_then(|()| compressor.set_parameter(CParameter::WindowLog(window)))
            .and_then(|()| compressor.set_parameter(CParameter::HashLog(hash)))
            .and_then(|()| compressor.set_parameter(CParameter::MinMatch(least)))
            .map_err(|_| FrameError::Compress { level: compression_level })
    }

    /// From now on frames belong to this session.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Encodes one batch.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when the frame would exceed [`FRAME_BYTES_MAX`] or inflate beyond
    /// [`FRAME_INFLATED_BYTES_MAX`]: cut the batch and encode the halves. Other variants mean a fault of ours.
    pub fn encode(&mut self, batch: &Scrubbed<Batch>) -> Result<Bytes, FrameError> {
        let (parts, payload) = self.payload(batch)?;
        let header = FrameHeader {
            version: self.version,
            agent: self.agent,
            epoch: self.epoch,
            rule_set: batch.rule_set(),
            key_version: self.key_version,
            row_count: header::length(batch.get().rows(), "rows")?,
            payload_bytes: header::length(payload.len(), "payload")?,
            columns_bytes: header::length(parts.columns_bytes, "columns")?,
            text_bytes: header::length(parts.text_bytes, "text")?,
            intervals: batch.get().intervals().to_vec(),
        };
        whole(&header, &payload)
    }

    /// The batch's payload, compressed.
    fn payload(&mut self, batch: &Scrubbed<Batch>) -> Result<(Parts, Vec<u8>), FrameError> {
        self.scratch.clear();
        let parts = match self.version {
            1 => v1::write(batch.get(), &mut self.scratch)?,
            _ => v2::write(batch.get(), &mut self.scratch)?,
        };
        if self.scratch.len() > FRAME_INFLATED_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "inflated payload",
                bytes: self.scratch.len() as u64,
                limit: FRAME_INFLATED_BYTES_MAX as u64,
            });
        }
        let mut pieces = Vec::with_capacity(parts.ends.len() + 1);
        let mut rest = self.scratch.as_slice();
        for end in parts.ends.iter().rev() {
            let (before, piece) = rest.split_at_checked(*end).unwrap_or((rest, &[]));
            pieces.push(piece);
            rest = before;
        }
        pieces.push(rest);
        let bound = pieces.iter().map(|piece| compress_bound(piece.len())).sum();
        let mut compressed = Cursor::new(Vec::with_capacity(bound));
        for piece in pieces.into_iter().rev() {
            let written = self.compressor.compress_to_buffer(piece, &mut compressed);
            let written = written.map_err(|_| FrameError::Compress { level: 0 })?;
            compressed.set_position(compressed.position() + written as u64);
        }
        Ok((parts, compressed.into_inner()))
    }
}

/// The header, then the payload.
fn whole(header: &FrameHeader, payload: &[u8]) -> Result<Bytes, FrameError> {
    let mut bytes = header.write(crc32c::crc32c(payload))?;
    let length = bytes.len() + payload.len();
    if length > FRAME_BYTES_MAX {
        let (bytes, limit) = (length as u64, FRAME_BYTES_MAX as u64);
        return Err(FrameError::TooLarge { what: "frame", bytes, limit });
    }
    bytes.extend_from_slice(payload);
    Ok(Bytes::from(bytes))
}

/// A frame whose header and checksums have been checked.
///
/// ```
/// # use beeacon_record::*;
/// # let source = Source::new("docker-file:4f2a").unwrap();
/// # let mut builder = BatchBuilder::new("a");
/// # let origin = builder.origin(&Origin::default(), &source);
/// # builder.push(Line { origin, timestamp_ns: 1, observed_timestamp_ns: 2, stream: Stream::Stdout,
/// #     level: Level::Info, position: Position::new(1, 0) }, b"started");
/// # let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 80));
/// # let batch = builder.finish(vec![interval]).unwrap();
/// # let scrubbed = Scrubbed::seal(batch, RuleSetId(7));
/// let mut encoder = FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(1), 0, 1).unwrap();
/// let bytes = encoder.encode(&scrubbed).unwrap();
/// let frame = Frame::parse(bytes).unwrap();
/// assert_eq!(frame.header().row_count, 1);
/// assert_eq!(frame.decode().unwrap().get().messages().value(0), "started");
/// ```
#[derive(Clone, Debug)]
pub struct Frame {
    header: FrameHeader,
    bytes: Bytes,
    payload_at: usize,
}

impl Frame {
    /// Checks a whole frame's header, lengths and checksums. Costs one pass over the bytes and no inflation.
    ///
    /// # Errors
    /// What is wrong, without quoting any of it.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "frame",
                bytes: bytes.len() as u64,
                limit: FRAME_BYTES_MAX as u64,
            });
        }
        let (header, payload_crc, payload_at) = FrameHeader::read(&bytes)?;
        let payload = bytes.get(payload_at..).unwrap_or(&[]);
        if payload.len() != header.payload_bytes as usize {
            return Err(FrameError::Length {
                what: "payload",
                announced: u64::from(header.payload_bytes),
                found: payload.len() as u64,
            });
        }
        if crc32c::crc32c(payload) != payload_crc {
            return Err(FrameError::Checksum { what: "payload" });
        }
        Ok(Frame { header, bytes, payload_at })
    }

    /// Who sent it and what it covers.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The whole frame as it travelled.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same rows as part of another session, under intervals that may say more than before: for frames that were kept
    /// until there was a collector. The payload stays as it is.
    ///
    /// # Errors
    /// When the intervals are not well formed or make the frame too large.
    pub fn readdress(&self, epoch: Epoch, intervals: Vec<Interval>) -> Result<Bytes, FrameError> {
        let payload = self.bytes.get(self.payload_at..).unwrap_or(&[]);
        whole(&FrameHeader { epoch, intervals, ..self.header.clone() }, payload)
    }

    /// The same frame for a reader who knows versions up to this one: as it is, or its rows written anew.
    ///
    /// # Errors
    /// When the payload cannot be read, or is too large in that version.
    pub fn in_version(&self, version: u16, encoder: &mut FrameEncoder) -> Result<Self, FrameError> {
        if self.header.version <= version {
            return Ok(self.clone());
        }
        let before = encoder.version;
        encoder.set_version(version);
        let written = self.decode().and_then(|batch| encoder.payload(&batch));
        let version = std::mem::replace(&mut encoder.version, before);
        let (parts, payload) = written?;
        let header = FrameHeader {
            version,
            payload_bytes: header::length(payload.len(), "payload")?,
            columns_bytes: header::length(parts.columns_bytes, "columns")?,
            text_bytes: header::length(parts.text_bytes, "text")?,
            ..self.header.clone()
        };
        Frame::parse(whole(&header, &payload)?)
    }

    /// Inflates and rebuilds the batch.
    ///
    /// # Errors
    /// When the payload is not what the header announces. Memory stays below twice [`FrameHeader::rebuilt_bytes`], whose parts
    /// [`Frame::parse`] held against [`FRAME_INFLATED_BYTES_MAX`] and [`crate::limits::BATCH_ROWS_MAX`].
    pub fn decode(&self) -> Result<Scrubbed<Batch>, FrameError> {
        let payload = self.bytes.get(self.payload_at..).unwrap_or(&[]);
        let inflated = zstd::bulk::decompress(payload, self.header.inflated_bytes())
            .map_err(|_| FrameError::Inflate { limit: self.header.inflated_bytes() as u64 })?;
        if inflated.len() != self.header.inflated_bytes() {
            return Err(FrameError::Length {
                what: "inflated payload",
                announced: self.header.inflated_bytes() as u64,
                found: inflated.len() as u64,
            });
        }
        let batch = match self.header.version {
            1 => v1::read(inflated, &self.header)?,
            _ => v2::read(inflated, &self.header)?,
        };
        Ok(Scrubbed::seal(batch, self.header.rule_set))
    }
}

#[cfg(test)]
mod tests;

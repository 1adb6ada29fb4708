//! The frame: a scrubbed batch as bytes. The same bytes are the request body, the spool entry and the journal entry.
//!
//! # Constraints
//! - A reader can check everything about a frame's size and integrity before it allocates for it.
//! - What identifies the rows (agent, epoch, intervals) stands in the clear, so a frame can be judged without inflating it.
//! - The payload is Arrow IPC, so that any Arrow library reads it; what does not compress as it stands (nanoseconds, byte
//!   offsets) is delta-coded and narrowed first.
//! - Equal batches make equal bytes with the same compressor.
//!
//! # Bytes
//! All integers are little-endian.
//! ```text
//! header
//!   0   8  magic "BEEACONF"
//!   8   2  version = 1
//!  10   2  flags = 0
//!  12   4  header_bytes: the whole header, its checksums included
//!  16   4  payload_bytes: as sent
//!  20   4  columns_bytes: the inflated Arrow IPC stream
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
//! payload, one zstd frame that inflates to 32 + columns_bytes + text_bytes bytes
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
//!
//! # Reading
//! [`Frame::parse`] checks magic, version, lengths against [`crate::limits`] and both checksums, and gives the header.
//! [`Frame::decode`] inflates into exactly the announced size and rebuilds the batch. A newer version is refused by name.

mod error;
mod header;
mod payload;

use bytes::Bytes;

pub use error::FrameError;
pub use header::{FRAME_VERSION, FrameHeader, MAGIC};

use crate::batch::Batch;
use crate::identity::{AgentId, Epoch, Interval};
use crate::limits::{FRAME_BYTES_MAX, FRAME_INFLATED_BYTES_MAX};
use crate::scrubbed::Scrubbed;

/// Encodes batches of one agent session, keeping the compressor's memory between frames.
pub struct FrameEncoder {
    agent: AgentId,
    epoch: Epoch,
    key_version: u32,
    compressor: zstd::bulk::Compressor<'static>,
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
        let compressor = zstd::bulk::Compressor::new(compression_level)
            .map_err(|_| FrameError::Compress { level: compression_level })?;
        Ok(FrameEncoder { agent, epoch, key_version, compressor, scratch: Vec::new() })
    }

    /// From now on frames are compressed with this zstd level.
    ///
    /// # Errors
    /// [`FrameError::Compress`] when zstd refuses the level.
    pub fn set_compression_level(&mut self, compression_level: i32) -> Result<(), FrameError> {
        let set = self.compressor.set_compression_level(compression_level);
        set.map_err(|_| FrameError::Compress { level: compression_level })
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
        self.scratch.clear();
        let sizes = payload::write(batch.get(), &mut self.scratch)?;
        if self.scratch.len() > FRAME_INFLATED_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "inflated payload",
                bytes: self.scratch.len() as u64,
                limit: FRAME_INFLATED_BYTES_MAX as u64,
            });
        }
        let compressed =
            self.compressor.compress(&self.scratch).map_err(|_| FrameError::Compress { level: 0 })?;
        let header = FrameHeader {
            agent: self.agent,
            epoch: self.epoch,
            rule_set: batch.rule_set(),
            key_version: self.key_version,
            row_count: header::length(batch.get().rows(), "rows")?,
            payload_bytes: header::length(compressed.len(), "payload")?,
            columns_bytes: header::length(sizes.columns_bytes, "columns")?,
            text_bytes: header::length(sizes.text_bytes, "text")?,
            intervals: batch.get().intervals().to_vec(),
        };
        let mut bytes = header.write(crc32c::crc32c(&compressed))?;
        bytes.extend_from_slice(&compressed);
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: "frame",
                bytes: bytes.len() as u64,
                limit: FRAME_BYTES_MAX as u64,
            });
        }
        Ok(Bytes::from(bytes))
    }
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
        let header = FrameHeader { epoch, intervals, ..self.header.clone() };
        let mut bytes = header.write(crc32c::crc32c(payload))?;
        let length = bytes.len() + payload.len();
        if length > FRAME_BYTES_MAX {
            let (bytes, limit) = (length as u64, FRAME_BYTES_MAX as u64);
            return Err(FrameError::TooLarge { what: "frame", bytes, limit });
        }
        bytes.extend_from_slice(payload);
        Ok(Bytes::from(bytes))
    }

    /// Inflates and rebuilds the batch.
    ///
    /// # Errors
    /// When the payload is not what the header announces. Memory stays below twice the announced inflated size, which
    /// [`Frame::parse`] held against [`FRAME_INFLATED_BYTES_MAX`].
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
        let batch = payload::read(inflated, &self.header)?;
        Ok(Scrubbed::seal(batch, self.header.rule_set))
    }
}

#[cfg(test)]
mod tests;

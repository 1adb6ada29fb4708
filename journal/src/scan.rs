//! Walking through one segment's bytes: valid records, damage, and where the records end.
//!
//! Always holds: memory is one read buffer or one record, whichever is larger; a record is given
//! out only when both of its CRCs match; a broken length never moves the walk further than to the
//! next header whose own CRC matches. What damage means is left to [`crate::judge`].

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::disk::{DiskFile, read_full_at};
use crate::format::{ALIGNMENT, RECORD_MAGIC, RecordHeader, body_is_whole};
use crate::limits::{
    RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SCAN_BUFFER_BYTES, SEGMENT_HEADER_BYTES, TAIL_BUFFER_BYTES,
    UNREADABLE_BLOCK_BYTES,
};

/// A part of a file held in memory.
struct Window {
    file: Arc<dyn DiskFile>,
    start: u64,
    data: Vec<u8>,
    /// How much to read next; doubles up to the limit, so that catching up is quick.
    ahead_bytes: usize,
}

impl Window {
    fn held(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.data.get(at..at.checked_add(bytes)?)
    }

    /// The bytes at `offset`; fewer where the file ends.
    fn get(&mut self, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        if self.held(offset, bytes).is_none() {
            self.load(offset, bytes.max(self.ahead_bytes))?;
            self.ahead_bytes = (self.ahead_bytes * 2).min(SCAN_BUFFER_BYTES);
        }
        let at = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let end = at.saturating_add(bytes).min(self.data.len());
        Ok(self.data.get(at..end).unwrap_or_default())
    }

    fn load(&mut self, offset: u64, bytes: usize) -> io::Result<()> {
        let rest = self.file.bytes()?.saturating_sub(offset);
        let bytes = usize::try_from(rest).map_or(bytes, |rest| rest.min(bytes));
        self.start = offset;
        self.data.clear();
        self.data.resize(bytes, 0);
        let read = match read_full_at(&*self.file, &mut self.data, offset) {
            Ok(read) => read,
            Err(_) => self.load_by_block(offset),
        };
        self.data.truncate(read);
        Ok(())
    }

    /// Reads what the device still gives. A block it cannot read becomes zeros, and with that
    /// damage like any other: one bad sector must not keep a journal from opening.
    fn load_by_block(&mut self, offset: u64) -> usize {
        let mut at = offset;
        for block in self.data.chunks_mut(UNREADABLE_BLOCK_BYTES as usize) {
            if read_full_at(&*self.file, block, at).is_err() {
                block.fill(0);
            }
            at += block.len() as u64;
        }
        self.data.len()
    }
}

/// What the walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record; its payload is in [`Scanner::payload`].
    Record { offset: u64, header: RecordHeader },
    /// Bytes that are no record, up to the next valid header. `header` is there when only the
    /// payload is damaged.
    Damage { offset: u64, end: u64, header: Option<RecordHeader> },
    /// No header follows. `used_end` is where the last byte other than zero ends.
    End { offset: u64, used_end: u64 },
}

/// A walk through one segment.
pub(crate) struct Scanner {
    window: Window,
    uuid: Uuid,
    offset: u64,
    payload: (u64, usize),
}

impl Scanner {
    pub(crate) fn new(file: Arc<dyn DiskFile>, uuid: Uuid) -> Self {
        Self {
            window: Window { file, start: 0, data: Vec::new(), ahead_bytes: SCAN_BUFFER_BYTES },
            uuid,
            offset: SEGMENT_HEADER_BYTES,
            payload: (0, 0),
        }
    }

    /// Forgets what was read ahead: the file has grown since.
    pub(crate) fn refresh(&mut self) {
        self.window.data.clear();
        self.window.ahead_bytes = TAIL_BUFFER_BYTES;
    }

    /// The payload of the record found last.
    pub(crate) fn payload(&mut self) -> io::Result<&[u8]> {
        let (offset, bytes) = self.payload;
        self.window.get(offset, bytes)
    }

    /// The next thing in the file.
    pub(crate) fn next(&mut self) -> io::Result<Found> {
        let offset = self.offset;
        let Some(header) = self.header_at(offset)? else {
            return self.search(offset);
        };
        let end = offset + header.record_bytes();
        let body_offset = offset + RECORD_HEADER_BYTES;
        let body_bytes = (end - body_offset) as usize;
        let body = self.window.get(body_offset, body_bytes)?;
        if body.len() < body_bytes {
            // The header promises more than the file holds: its tail was never written.
            return self.search(offset);
        }
        let is_whole = body_is_whole(body, self.uuid, body_offset);
        self.offset = end;
        if is_whole {
            self.payload = (body_offset, header.payload_bytes as usize);
            Ok(Found::Record { offset, header })
        } else {
            Ok(Found::Damage { offset, end, header: Some(header) })
        }
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<RecordHeader>> {
        let uuid = self.uuid;
        let bytes = self.window.get(offset, RECORD_HEADER_BYTES as usize)?;
        Ok(RecordHeader::decode(bytes, uuid, offset)
            .filter(|header| u64::from(header.payload_bytes) <= RECORD_BYTES_MAX))
    }

    /// Looks for the next valid header after `from`.
    fn search(&mut self, from: u64) -> io::Result<Found> {
        let mut used_end = from;
        let mut at = from;
        loop {
            let chunk = self.window.get(at, SCAN_BUFFER_BYTES)?;
            if chunk.is_empty() {
                self.offset = at;
                return Ok(Found::End { offset: from, used_end });
            }
            let chunk_bytes = chunk.len();
            if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
                let candidates: Vec<u64> = chunk
                    .chunks(ALIGNMENT as usize)
                    .enumerate()
                    .filter(|(_, piece)| piece.starts_with(&RECORD_MAGIC))
                    .map(|(index, _)| at + index as u64 * ALIGNMENT)
                    .filter(|candidate| *candidate > from)
                    .collect();
                for candidate in candidates {
                    if self.header_at(candidate)?.is_some() {
                        self.offset = candidate;
                        return Ok(Found::Damage { offset: from, end: candidate, header: None });
                    }
                }
                used_end = at + last as u64 + 1;
            }
            at += chunk_bytes as u64;
        }
    }
}

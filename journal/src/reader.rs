//! Reading durable records in order.
//!
//! Always holds: nothing is given out that is not synced; LSNs only grow; memory is one read
//! buffer or one record. A jump in the LSNs means that the records between are lost; recovery has
//! reported them, or the reader counts and logs them when it is the first to see the damage.

use std::fmt;
use std::io;

use crate::disk::Access;
use crate::error::JournalError;
use crate::format::{Lsn, RecordKind, SegmentName};
use crate::journal::Journal;
use crate::queue::lock;
use crate::scan::{Found, Scanner};
use crate::segment::Segment;
use crate::shared::Place;

/// One durable record.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the journal.
    pub lsn: Lsn,
    /// What was appended.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are somebody's logs: they have no place in ours.
        formatter
            .debug_struct("Record")
            .field("lsn", &self.lsn.0)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

struct OpenSegment {
    name: SegmentName,
    scanner: Scanner,
    /// The last durable LSN when the file was last read ahead.
    seen: u64,
}

/// Gives out durable records one by one.
pub struct Reader {
    journal: Journal,
    next: u64,
    open: Option<OpenSegment>,
}

impl Reader {
    pub(crate) fn new(journal: Journal, from: Lsn) -> Self {
        Self { journal, next: from.0.max(1), open: None }
    }

    /// The LSN the next record has at least.
    #[must_use]
    pub fn position(&self) -> Lsn {
        Lsn(self.next)
    }

    /// The next durable record, or none if there is no further one yet.
    ///
    /// Starting in the middle of a segment reads that segment from its beginning; going on costs
    /// nothing extra.
    ///
    /// # Errors
    /// [`JournalError::Truncated`] when the records wanted were removed: go on with a reader from
    /// the first one kept. `Io` when the file cannot be opened.
    pub fn read(&mut self) -> Result<Option<Record>, JournalError> {
        loop {
            let synced = self.journal.synced_lsn().0;
            if self.next > synced {
                return Ok(None);
            }
            let place = lock(&self.journal.shared().catalog).locate(self.next);
            let (segment, bound) = match place {
                Place::In { segment, bound } => (segment, bound),
                Place::Before { first } => {
                    return Err(JournalError::Truncated { wanted: Lsn(self.next), first });
                }
                Place::Nowhere => return Ok(None),
            };
            let end = bound.unwrap_or(u64::MAX).min(synced.saturating_add(1));
            let from = self.next;
            let Some(open) = self.enter(&segment, synced)? else {
                self.next = end;
                continue;
            };
            let found = next_record(&mut open.scanner, from, end)
                .map_err(JournalError::io("read segment", &segment.path))?;
            let shared = self.journal.shared();
            match found {
                Some(record) => {
                    if record.lsn.0 > self.next {
                        shared.counters.corrupt_ranges.add(1);
                        tracing::error!(from = self.next, to = record.lsn.0 - 1, "records are missing");
                    }
                    self.next = record.lsn.0 + 1;
                    return Ok(Some(record));
                }
                None => {
                    shared.counters.corrupt_ranges.add(1);
                    tracing::error!(from = self.next, to = end - 1, "records are missing");
                    self.next = end;
                    self.open = None;
                }
            }
        }
    }

    /// The open segment, opened now if it is another one; none if its header is lost.
    fn enter(&mut self, segment: &Segment, synced: u64) -> Result<Option<&mut OpenSegment>, JournalError> {
        let Some(uuid) = segment.uuid else {
            return Ok(None);
        };
        if self.open.as_ref().is_none_or(|open| open.name != segment.name) {
            let disk = &self.journal.shared().disk;
            let file = match disk.open(&segment.path, Access::Read) {
                Ok(file) => file,
                // Removed between looking it up and opening it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let first = lock(&self.journal.shared().catalog)
                        .segments
                        .first()
                        .map_or(Lsn(synced.saturating_add(1)), |first| Lsn(first.name.first_lsn));
                    return Err(JournalError::Truncated { wanted: Lsn(self.next), first });
                }
                Err(error) => return Err(JournalError::io("open segment", &segment.path)(error)),
            };
            let scanner = Scanner::new(file, uuid);
            self.open = Some(OpenSegment { name: segment.name, scanner, seen: synced });
        }
        // What was read ahead of the last sync may have been written since.
        if let Some(open) = self.open.as_mut().filter(|open| self.next > open.seen) {
            open.scanner.refresh();
            open.seen = synced;
        }
        Ok(self.open.as_mut())
    }
}

/// The first record from `from` on and before `end`.
fn next_record(scanner: &mut Scanner, from: u64, end: u64) -> io::Result<Option<Record>> {
    loop {
        match scanner.next()? {
            Found::Record { header, .. } if header.kind == RecordKind::Data && header.lsn >= from => {
                if header.lsn >= end {
                    return Ok(None);
                }
                let payload = scanner.payload()?.to_vec();
                return Ok(Some(Record { lsn: Lsn(header.lsn), payload }));
            }
            Found::Record { .. } | Found::Damage { .. } => {}
            Found::End { .. } => return Ok(None),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("next", &self.next).finish_non_exhaustive()
    }
}

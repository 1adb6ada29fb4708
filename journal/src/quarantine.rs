//! Copies of damaged bytes, kept so that people can look at them after the journal has gone on.
//!
//! Evidence, not data: making it is bounded in bytes and never fails anything.

use std::io;
use std::path::Path;

use crate::disk::{Access, Disk, read_full_at, write_whole_at};
use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_TORN_BYTES_MAX, SCAN_BUFFER_BYTES};
use crate::segment::UNFINISHED_SUFFIX;

/// The directory inside the journal's.
pub(crate) const QUARANTINE: &str = "quarantine";

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Bytes that had been durable.
    Damage,
    /// An interrupted write.
    Torn,
}

/// Copies `bytes` from `offset` of `source`; the bytes copied now.
pub(crate) fn copy_evidence(
    disk: &dyn Disk,
    directory: &Path,
    source: &Path,
    offset: u64,
    bytes: u64,
    evidence: Evidence,
) -> u64 {
    match try_copy(disk, directory, source, offset, bytes, evidence) {
        Ok(copied) => copied,
        Err(error) => {
            tracing::warn!(%error, source = %source.display(), offset, bytes, "damaged bytes were not copied");
            0
        }
    }
}

fn try_copy(
    disk: &dyn Disk,
    directory: &Path,
    source: &Path,
    offset: u64,
    bytes: u64,
    evidence: Evidence,
) -> io::Result<u64> {
    let quarantine = directory.join(QUARANTINE);
    if disk.create_directory(&quarantine)? {
        disk.sync_directory(directory)?;
    }
    let file_name = source.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{file_name}-{offset:016x}-{bytes:016x}.bin");
    let mut held = 0;
    for kept in disk.list(&quarantine)? {
        if kept == name {
            return Ok(0);
        }
        held += disk.open(&quarantine.join(kept), Access::Read)?.bytes()?;
    }
    let limit = match evidence {
        Evidence::Damage => QUARANTINE_BYTES_MAX,
        Evidence::Torn => QUARANTINE_TORN_BYTES_MAX,
    };
    if held.saturating_add(bytes) > limit {
        return Err(io::Error::other("the quarantine is full"));
    }
    let from = disk.open(source, Access::Read)?;
    let unfinished = quarantine.join(format!("{name}{UNFINISHED_SUFFIX}"));
    match disk.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let to = disk.create(&unfinished)?;
    let mut buffer = vec![0; SCAN_BUFFER_BYTES];
    let mut done = 0;
    while done < bytes {
        let wanted = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(SCAN_BUFFER_BYTES);
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let read = read_full_at(&*from, chunk, offset + done)?;
        if read == 0 {
            break;
        }
        write_whole_at(&*to, chunk.get(..read).unwrap_or_default(), done)?;
        done += read as u64;
    }
    to.sync_all()?;
    disk.rename(&unfinished, &quarantine.join(name))?;
    disk.sync_directory(&quarantine)?;
    Ok(done)
}

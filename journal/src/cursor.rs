//! How far a consumer has come, in a file of its own that is never resized.
//!
//! Always holds: a position is durable before it counts for truncation; writing one slot never
//! touches the other, so a crash costs at most the newest position, never both; no space is needed
//! to advance, so a full disk can be emptied.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{Access, Disk, DiskFile, write_whole_at};
use crate::error::JournalError;
use crate::format::{CursorSlot, Lsn, cursor_file_name};
use crate::journal::Journal;
use crate::queue::lock;
use crate::segment::UNFINISHED_SUFFIX;

struct State {
    slot: CursorSlot,
    /// Set once a write failed: the file is not written again, for the same reason as a segment.
    failed: Option<JournalError>,
    is_forgotten: bool,
}

/// A cursor's file, open for as long as the journal is.
pub(crate) struct CursorFile {
    name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    state: Mutex<State>,
    durable: AtomicU64,
}

impl CursorFile {
    /// Makes a cursor's file, replacing a damaged one.
    pub(crate) fn create(
        disk: &dyn Disk,
        directory: &Path,
        name: &str,
        lsn: u64,
    ) -> Result<Self, JournalError> {
        let path = directory.join(cursor_file_name(name));
        let unfinished = directory.join(format!("{}{UNFINISHED_SUFFIX}", cursor_file_name(name)));
        let (first, second) = (CursorSlot { generation: 0, lsn }, CursorSlot { generation: 1, lsn });
        let write = || {
            let file = disk.create(&unfinished)?;
            for slot in [first, second] {
                write_whole_at(&*file, &slot.encode(), slot.offset())?;
            }
            file.sync_all()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_directory(directory)?;
            Ok(file)
        };
        let file = write().map_err(|error| {
            // Left behind, it would be in the way of the next try.
            drop(disk.remove(&unfinished));
            JournalError::io("create cursor", &path)(error)
        })?;
        Ok(Self::from_parts(name, path, file, second))
    }

    /// Opens a cursor's file and writes its newest slot once more, in its own place: after a crash of
    /// the process alone it may have been read from a cache that never reached the disk.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        name: &str,
        newest: CursorSlot,
        lsn: u64,
    ) -> Result<Self, JournalError> {
        let file = disk.open(path, Access::Write).map_err(JournalError::io("open cursor", path))?;
        write_whole_at(&*file, &newest.encode(), newest.offset())
            .and_then(|()| file.sync_data())
            .map_err(JournalError::io("write cursor", path))?;
        let cursor = Self::from_parts(name, path.to_owned(), file, newest);
        if lsn > newest.lsn {
            cursor.write(&mut lock(&cursor.state), lsn)?;
        }
        Ok(cursor)
    }

    fn from_parts(name: &str, path: PathBuf, file: Arc<dyn DiskFile>, slot: CursorSlot) -> Self {
        let state = Mutex::new(State { slot, failed: None, is_forgotten: false });
        Self { name: name.to_owned(), path, file, state, durable: AtomicU64::new(slot.lsn) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The position that is on disk.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// From now on the position can neither move nor be brought back.
    pub(crate) fn forget(&self) {
        lock(&self.state).is_forgotten = true;
    }

    fn advance(&self, lsn: Lsn, synced: Lsn) -> Result<(), JournalError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.failed {
            return Err(JournalError::Poisoned(Arc::new(error.clone())));
        }
        if state.is_forgotten {
            return Err(JournalError::CursorForgotten { name: self.name.clone() });
        }
        let from = Lsn(state.slot.lsn);
        if lsn < from || lsn > synced.max(from) {
            return Err(JournalError::CursorRange {
                name: self.name.clone(),
                asked: lsn,
                from,
                to: synced.max(from),
            });
        }
        if lsn == from {
            return Ok(());
        }
        self.write(&mut state, lsn.0)
    }

    fn write(&self, state: &mut State, lsn: u64) -> Result<(), JournalError> {
        let slot = CursorSlot { generation: state.slot.generation.saturating_add(1), lsn };
        let write = write_whole_at(&*self.file, &slot.encode(), slot.offset())
            .and_then(|()| self.file.sync_data())
            .map_err(JournalError::io("write cursor", &self.path));
        if let Err(error) = write {
            state.failed = Some(error.clone());
            return Err(error);
        }
        state.slot = slot;
        self.durable.store(lsn, Ordering::Release);
        Ok(())
    }
}

/// One consumer's place in a journal. Cloning gives another handle on the same place.
#[derive(Clone)]
pub struct Cursor {
    journal: Journal,
    file: Arc<CursorFile>,
}

impl Cursor {
    pub(crate) fn new(journal: Journal, file: Arc<CursorFile>) -> Self {
        Self { journal, file }
    }

    /// The consumer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The last record the consumer has taken; zero before the first.
    #[must_use]
    pub fn get(&self) -> Lsn {
        Lsn(self.file.durable())
    }

    /// Says that every record up to and including `lsn` was taken, and returns when that is durable.
    /// Costs one sync. Moving to where the cursor is costs nothing.
    ///
    /// # Errors
    /// When `lsn` lies before the cursor or after the last durable record, when the cursor was
    /// forgotten, the journal is closed, or the file cannot be written; after the last of these the
    /// cursor stays where it is for good.
    pub fn advance(&self, lsn: Lsn) -> Result<(), JournalError> {
        self.journal.check_open()?;
        self.file.advance(lsn, self.journal.synced_lsn())
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cursor").field("name", &self.file.name).field("lsn", &self.get()).finish()
    }
}

//! The handle that everybody else holds.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cursor::{Cursor, CursorFile};
use crate::disk::{Disk, SystemDisk};
use crate::error::JournalError;
use crate::format::{Lsn, is_cursor_name, record_bytes};
use crate::limits::{
    CURSORS_MAX, PARTS_PER_RECORD_MAX, QUEUE_OVERHEAD_BYTES, QUOTA_SEGMENTS_MIN, RECORD_BYTES_MAX,
    SEAL_BYTES, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};
use crate::payload::Payload;
use crate::queue::{Submission, lock};
use crate::reader::Reader;
use crate::recover::{RecoveryReport, recover};
use crate::shared::Shared;
use crate::statistics::JournalStatistics;
use crate::writer::Writer;

/// How a journal is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Bytes of one segment, allocated when it is begun. Default 64 MiB; 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Longest payload. Default 8 MiB, which is also the most; it has to fit into a segment.
    pub record_bytes_max: u64,
    /// Payload bytes (and 256 bytes a record) that may wait for the disk. Default 64 MiB.
    pub queue_bytes_max: u64,
    /// Bytes of all segments together. Default 2 GiB; at least two segments.
    pub journal_bytes_max: u64,
    /// Free bytes of the file system below which nothing is taken in. Default 256 MiB.
    pub free_bytes_min: u64,
    /// The next LSN will lie above this one. For an owner that keeps LSNs elsewhere: should the
    /// journal's directory be lost, LSNs it already knows are not given to new records.
    /// Default zero.
    pub known_lsn: Lsn,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            record_bytes_max: RECORD_BYTES_MAX,
            queue_bytes_max: 64 << 20,
            journal_bytes_max: 2 << 30,
            free_bytes_min: 256 << 20,
            known_lsn: Lsn::ZERO,
        }
    }
}

impl JournalOptions {
    fn check(&self) -> Result<(), JournalError> {
        let range = |option, value, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(JournalError::Option { option, value, allowed: format!("{min} to {max}") })
        };
        range("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        let room = self.segment_bytes - SEGMENT_HEADER_BYTES - SEAL_BYTES - record_bytes(0);
        range("record_bytes_max", self.record_bytes_max, 1, RECORD_BYTES_MAX.min(room))?;
        let one = self.record_bytes_max + QUEUE_OVERHEAD_BYTES;
        range("queue_bytes_max", self.queue_bytes_max, one, u64::MAX)?;
        let segments = QUOTA_SEGMENTS_MIN * self.segment_bytes;
        range("journal_bytes_max", self.journal_bytes_max, segments, u64::MAX)
    }
}

/// Joins the writer when the last handle goes.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Owner {
    fn close(&self) {
        self.shared.queue.close();
        let thread = lock(&self.thread).take();
        // The last handle may be dropped by a callback, on the writer's own thread: it then ends by
        // itself after that.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer thread panicked");
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// An open journal. Cloning gives another handle; the last one to go closes it, which writes what
/// was submitted and waits for it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

impl Journal {
    /// Opens the journal in a directory, making it if there is none, and recovers what is there.
    ///
    /// Damage never keeps a journal from opening: it is set aside and told in the report.
    ///
    /// # Errors
    /// When an option is out of range, another process has the journal open, a file was written by
    /// a newer version (nothing is changed then), or the directory cannot be used.
    ///
    /// ```
    /// use beeacon_journal::{Journal, JournalOptions};
    /// # let directory = tempfile::tempdir()?;
    /// let (journal, report) = Journal::open(directory.path(), JournalOptions::default())?;
    /// assert!(report.is_clean());
    /// let lsn = journal.append(b"durable once this returns".to_vec())?;
    /// let record = journal.reader(lsn).read()?.expect("it is durable");
    /// assert_eq!(record.payload, b"durable once this returns");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(
        directory: impl AsRef<Path>,
        options: JournalOptions,
    ) -> Result<(Self, RecoveryReport), JournalError> {
        let started = Instant::now();
        let (journal, writer, mut report) = Self::open_on(Arc::new(SystemDisk), directory.as_ref(), options)?;
        report.duration = started.elapsed();
        journal.spawn(writer)?;
        Ok((journal, report))
    }

    /// Opens without a writer thread: whoever holds the writer drives it.
    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: JournalOptions,
    ) -> Result<(Self, Writer, RecoveryReport), JournalError> {
        options.check()?;
        let (shared, next, report) = recover(disk, directory, options)?;
        let shared = Arc::new(shared);
        let owner = Arc::new(Owner { shared: Arc::clone(&shared), thread: Mutex::new(None) });
        let journal = Self { shared: Arc::clone(&shared), owner };
        // What a crash kept from being removed, or brought back.
        journal.truncate()?;
        Ok((journal, Writer::new(shared, next), report))
    }

    pub(crate) fn spawn(&self, writer: Writer) -> Result<(), JournalError> {
        let thread = std::thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(JournalError::io("start the writer thread of", &self.shared.directory))?;
        *lock(&self.owner.thread) = Some(thread);
        Ok(())
    }

    /// Hands a record to the writer and returns at once. `done` is called on the writer's thread,
    /// and with an LSN only after the sync that covers the record; it should do no more than wake
    /// somebody.
    ///
    /// Records are stored in the order of submission. When one is given back, so is everything that
    /// was submitted after it and not yet stored. An error given to `done` does not prove that the
    /// record is absent: a crash right after may leave it to be found.
    ///
    /// # Errors
    /// At once, and without calling `done`, when the payload is too large, the queue or the journal
    /// is full, or the journal has failed or is closed.
    pub fn submit(
        &self,
        payload: impl Into<Payload>,
        done: impl FnOnce(Result<Lsn, JournalError>) + Send + 'static,
    ) -> Result<(), JournalError> {
        let payload = payload.into();
        let (bytes, parts) = (payload.bytes(), payload.parts());
        let bytes_max = self.shared.options.record_bytes_max;
        if bytes > bytes_max || parts > PARTS_PER_RECORD_MAX {
            let parts_max = PARTS_PER_RECORD_MAX;
            return Err(JournalError::TooLarge { bytes, parts, bytes_max, parts_max });
        }
        let submission = Submission { payload, done: Box::new(done) };
        self.shared
            .queue
            .push(submission, |cause| self.shared.still_full(cause))
            .inspect_err(|_| self.shared.counters.refused.add(1))
    }

    /// Appends a record and waits until it is durable. Not for async code, and not for a callback.
    ///
    /// # Errors
    /// As [`Journal::submit`], and whatever kept the record from becoming durable.
    pub fn append(&self, payload: impl Into<Payload>) -> Result<Lsn, JournalError> {
        let (sender, receiver) = sync_channel(1);
        self.submit(payload, move |result| {
            // The other end waits below until it has this.
            drop(sender.send(result));
        })?;
        receiver.recv().unwrap_or(Err(JournalError::WriterPanicked))
    }

    /// The last durable record; zero before the first. Also tells where a reader ends for now.
    #[must_use]
    pub fn synced_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.get())
    }

    /// Waits until a record after `lsn` is durable, at most for `timeout`, and returns the last
    /// durable one either way.
    #[must_use]
    pub fn wait_beyond(&self, lsn: Lsn, timeout: Duration) -> Lsn {
        Lsn(self.shared.durable.wait_beyond(lsn.0, timeout))
    }

    /// Calls `listener` on the writer's thread after each sync, with the last durable LSN, for as
    /// long as the journal is open. Those who submitted the records are told before. It should only wake somebody, and not register listeners.
    ///
    /// # Errors
    /// When there are too many listeners.
    pub fn on_synced(&self, listener: impl Fn(Lsn) + Send + 'static) -> Result<(), JournalError> {
        self.shared.durable.listen(Box::new(listener))
    }

    /// A reader of durable records, from this one on.
    #[must_use]
    pub fn reader(&self, from: Lsn) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// The cursor of this name; a new one starts before the oldest record that is kept. From then
    /// on it holds segments back, in later runs too, until it is forgotten.
    ///
    /// # Errors
    /// When the name is not one, there are too many cursors, or its file cannot be made.
    pub fn cursor(&self, name: &str) -> Result<Cursor, JournalError> {
        self.check_open()?;
        if !is_cursor_name(name) {
            return Err(JournalError::CursorName);
        }
        let mut catalog = lock(&self.shared.catalog);
        if let Some(file) = catalog.cursors.get(name) {
            return Ok(Cursor::new(self.clone(), Arc::clone(file)));
        }
        if catalog.cursors.len() >= CURSORS_MAX {
            return Err(JournalError::TooManyCursors { limit: CURSORS_MAX });
        }
        let start = catalog
            .segments
            .first()
            .map_or(self.shared.durable.get(), |segment| segment.name.first_lsn.saturating_sub(1));
        let file = CursorFile::create(&*self.shared.disk, &self.shared.directory, name, start)?;
        let file = Arc::new(file);
        catalog.cursors.insert(name.to_owned(), Arc::clone(&file));
        Ok(Cursor::new(self.clone(), file))
    }

    /// Every cursor with its position, also those that nobody opened in this run.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, Lsn)> {
        let catalog = lock(&self.shared.catalog);
        catalog.cursors.iter().map(|(name, file)| (name.clone(), Lsn(file.durable()))).collect()
    }

    /// Forgets a consumer, which then holds nothing back; false when there is none of this name.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget_cursor(&self, name: &str) -> Result<bool, JournalError> {
        self.check_open()?;
        let mut catalog = lock(&self.shared.catalog);
        let Some(file) = catalog.cursors.get(name) else {
            return Ok(false);
        };
        let disk = &self.shared.disk;
        disk.remove(file.path()).map_err(JournalError::io("remove cursor", file.path()))?;
        disk.sync_directory(&self.shared.directory)
            .map_err(JournalError::io("sync directory", &self.shared.directory))?;
        file.forget();
        catalog.cursors.remove(name);
        Ok(true)
    }

    /// Removes the segments that every consumer is done with, and returns how many. Without any
    /// cursor nothing is removed. Needs no space on the disk.
    ///
    /// # Errors
    /// When a file cannot be removed; those before it are gone.
    pub fn truncate(&self) -> Result<usize, JournalError> {
        self.check_open()?;
        let mut catalog = lock(&self.shared.catalog);
        let removable = catalog.removable();
        for _ in 0..removable {
            let Some(segment) = catalog.segments.first() else { break };
            self.shared
                .disk
                .remove(&segment.path)
                .map_err(JournalError::io("remove segment", &segment.path))?;
            catalog.segments.remove(0);
            self.shared.counters.segments_removed.add(1);
        }
        if removable > 0 {
            self.shared
                .disk
                .sync_directory(&self.shared.directory)
                .map_err(JournalError::io("sync directory", &self.shared.directory))?;
        }
        Ok(removable)
    }

    /// Counters since the journal was opened.
    #[must_use]
    pub fn statistics(&self) -> JournalStatistics {
        let (segments, allocated_bytes) = {
            let catalog = lock(&self.shared.catalog);
            (catalog.segments.len() as u64, catalog.allocated_bytes())
        };
        let queued_bytes = self.shared.queue.held_bytes();
        JournalStatistics { segments, allocated_bytes, queued_bytes, ..self.shared.counters.snapshot() }
    }

    /// What a caller of `submit` would be told now, for a health page.
    ///
    /// # Errors
    /// When the journal is full, has failed or is closed.
    pub fn health(&self) -> Result<(), JournalError> {
        self.shared.queue.health()
    }

    /// Writes what was submitted, ends the segment in order, and lets other processes in. Handles
    /// and readers that are left get [`JournalError::Closed`], or read what is on disk.
    ///
    /// # Errors
    /// When the journal had failed before.
    pub fn close(self) -> Result<(), JournalError> {
        self.owner.close();
        match self.shared.queue.health() {
            Err(error @ (JournalError::Poisoned(_) | JournalError::WriterPanicked)) => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// A full journal can still be read, and emptied.
    pub(crate) fn check_open(&self) -> Result<(), JournalError> {
        match self.shared.queue.health() {
            Ok(()) | Err(JournalError::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Journal")
            .field("directory", &self.shared.directory)
            .field("synced_lsn", &self.synced_lsn())
            .finish_non_exhaustive()
    }
}

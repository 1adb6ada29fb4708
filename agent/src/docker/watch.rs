//! Watches the directories of json-file logs, opens new files at once and counts how many were created.
//!
//! What always holds: a count is taken and the files opened while nothing changes in between (read events, open, read events:
//! the same count before and after), so a file's index is exact. Creations are never merged into one event, because moves and
//! removals lie between them. When events were lost, or cannot be had at all, files are linked by identity instead and what
//! cannot be linked stands behind a hole.
//!
//! It owns one thread, which holds no lock while it waits. Reading is left to the sources.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;

use super::files::Chain;
use crate::limits::{LOOKS_MAX, RECHECK_EVERY};

/// Room for events of one read. An event has 16 bytes and a name of some 80.
const EVENT_BYTES: usize = 16 << 10;

/// A chain that the watch and a source share.
pub type SharedChain = Arc<Mutex<Chain>>;

/// Locks a chain. A panic elsewhere leaves it as usable as it was.
pub fn lock(chain: &SharedChain) -> MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watched {
    chain: SharedChain,
    creations: u64,
    changes: u64,
    /// `changes` when the chain was last looked at with success.
    looked_at: u64,
    is_counting: bool,
}

#[derive(Default)]
struct Inner {
    inotify: Option<Inotify>,
    buffer: Vec<u8>,
    watched: HashMap<WatchDescriptor, Watched>,
    /// Chains for which no watch could be had.
    unwatched: Vec<Watched>,
}

/// The watch over all chains of an agent.
pub struct Watch {
    inner: Arc<Mutex<Inner>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching; `changed` is notified after new files were opened. Without inotify (no instances left) directories are
    /// looked at in turn.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(changed: Arc<Notify>) -> io::Result<Self> {
        let inotify = match Inotify::init() {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                tracing::warn!(%error, "cannot watch log directories, looking at them in turn");
                None
            }
        };
        let waiting = inotify.as_ref().and_then(|inotify| {
            use std::os::fd::AsFd;
            inotify.as_fd().try_clone_to_owned().ok()
        });
        let inner = Inner { inotify, buffer: vec![0; EVENT_BYTES], ..Inner::default() };
        let inner = Arc::new(Mutex::new(inner));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopping) = (inner.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("beeacon-watch".into()).spawn(move || {
            let mut checked_at = Instant::now();
            while !stopping.load(Ordering::Relaxed) {
                wait(waiting.as_ref());
                let mut inner = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let check_all = checked_at.elapsed() >= RECHECK_EVERY;
                if check_all {
                    checked_at = Instant::now();
                }
                if inner.turn(check_all) {
                    changed.notify_one();
                }
            }
        })?;
        Ok(Watch { inner, stop, thread: Some(thread) })
    }

    /// Watches a chain and takes a first look.
    ///
    /// # Errors
    /// When the files are there and cannot be opened.
    pub fn add(&self, chain: SharedChain) -> io::Result<()> {
        let directory = lock(&chain).directory().clone();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mask = WatchMask::CREATE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO | WatchMask::DELETE;
        let descriptor = inner.inotify.as_ref().map(|inotify| inotify.watches().add(&directory, mask));
        let mut watched = Watched { chain, creations: 0, changes: 0, looked_at: 0, is_counting: true };
        match descriptor {
            Some(Ok(descriptor)) => {
                inner.watched.insert(descriptor.clone(), watched);
                inner.look(&descriptor).map(|_| ())
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(error),
            refused => {
                if let Some(Err(error)) = refused {
                    tracing::warn!(%error, "cannot watch a log directory, looking at it in turn");
                }
                watched.is_counting = false;
                let result = watched.link();
                inner.unwatched.push(watched);
                result
            }
        }
    }

    /// Stops watching a chain. Its files stay open until it is dropped.
    pub fn remove(&self, chain: &SharedChain) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.unwatched.retain(|watched| !Arc::ptr_eq(&watched.chain, chain));
        let found = inner.watched.iter().find(|(_, watched)| Arc::ptr_eq(&watched.chain, chain));
        if let Some(descriptor) = found.map(|(descriptor, _)| descriptor.clone()) {
            inner.watched.remove(&descriptor);
            if let Some(inotify) = &inner.inotify {
                // The kernel has removed it already when the directory is gone.
                inotify.watches().remove(descriptor).ok();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn wait(descriptor: Option<&std::os::fd::OwnedFd>) {
    let Some(descriptor) = descriptor else {
        std::thread::sleep(RECHECK_EVERY);
        return;
    };
    let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
    let nanos = i64::from(RECHECK_EVERY.subsec_nanos());
    let timeout = Timespec { tv_sec: RECHECK_EVERY.as_secs().cast_signed(), tv_nsec: nanos };
    if poll(&mut fds, Some(&timeout)).is_err() {
        std::thread::sleep(crate::limits::BACKOFF_MIN);
    }
}

impl Watched {
    /// Links the files by identity, for nothing was counted.
    fn link(&mut self) -> io::Result<()> {
        let mut chain = lock(&self.chain);
        for _ in 0..LOOKS_MAX {
            let found = chain.find()?;
            if chain.is_current(&found) {
                let creations = self.is_counting.then_some(self.creations);
                chain.take(found, None);
                if let Some(creations) = creations {
                    chain.count_from(creations);
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Reads events and looks where something changed. Gives whether there was such a place.
    fn turn(&mut self, check_all: bool) -> bool {
        self.drain();
        let changed: Vec<WatchDescriptor> = self
            .watched
            .iter()
            .filter(|(_, watched)| {
                watched.changes != watched.looked_at
                    || !watched.is_counting
                    || (check_all && !lock(&watched.chain).is_up_to_date())
            })
            .map(|(descriptor, _)| descriptor.clone())
            .collect();
        for descriptor in &changed {
            if let Err(error) = self.look(descriptor) {
                tracing::debug!(%error, "cannot open a log file");
            }
        }
        if check_all {
            for watched in &mut self.unwatched {
                if !lock(&watched.chain).is_up_to_date()
                    && let Err(error) = watched.link()
                {
                    tracing::debug!(%error, "cannot open a log file");
                }
            }
        }
        !changed.is_empty()
    }

    /// Reads all events that are there and counts them.
    fn drain(&mut self) {
        let Inner { inotify: Some(inotify), buffer, watched, .. } = self else { return };
        // Ends at the first read without events.
        while let Ok(events) = inotify.read_events(buffer) {
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    for watched in watched.values_mut() {
                        watched.is_counting = false;
                        watched.changes += 1;
                    }
                    continue;
                }
                let Some(watched) = watched.get_mut(&event.wd) else { continue };
                let Some(name) = event.name else { continue };
                let is_creation = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
                let main = lock(&watched.chain).name().clone();
                if name == main {
                    watched.changes += 1;
                    watched.creations += u64::from(is_creation);
                } else if name.as_encoded_bytes().starts_with(main.as_encoded_bytes()) {
                    watched.changes += 1;
                }
            }
        }
    }

    /// Opens a chain's files while nothing changes. Gives up when it always does, or while the log's name is missing in the
    /// midst of a rotation: the next event brings another look.
    fn look(&mut self, descriptor: &WatchDescriptor) -> io::Result<bool> {
        for _ in 0..LOOKS_MAX {
            self.drain();
            let Some(watched) = self.watched.get(descriptor) else { return Ok(false) };
            let (before, chain) = (watched.changes, watched.chain.clone());
            let found = lock(&chain).find()?;
            self.drain();
            let is_current = lock(&chain).is_current(&found);
            self.drain();
            let Some(watched) = self.watched.get_mut(descriptor) else { return Ok(false) };
            if watched.changes != before || !is_current {
                continue;
            }
            watched.looked_at = before;
            if watched.is_counting {
                lock(&chain).take(found, Some(watched.creations));
            } else {
                let mut chain = lock(&chain);
                chain.take(found, None);
                chain.count_from(watched.creations);
                watched.is_counting = true;
            }
            return Ok(true);
        }
        Ok(false)
    }
}

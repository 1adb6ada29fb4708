//! Looks for plain files: walks over the patterns when a directory has changed, and in turn, and opens at once what it finds.
//!
//! What always holds: a file is opened at most once while anybody reads it; who reads it closes it by dropping it, and it is opened
//! again when its size or time has changed since; at most [`FILES_OPEN_MAX`] are open, and of those that wait the ones written to
//! last come first.
//!
//! It owns one thread, which holds no lock while it waits.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::FilesConfig;
use super::glob::Visitor;
use crate::docker::files::FileIdentity;
use crate::event::Event;
use crate::limits::{
    FILE_DIRECTORIES_MAX, FILE_LOOK_EVERY, FILE_LOOK_PAUSE, FILE_NAMES_MAX, FILES_MAX, FILES_OPEN_MAX,
};

/// Room for events of one read; what they say is not looked at.
const EVENT_BYTES: usize = 16 << 10;

/// A file that a pattern leads to.
pub struct FoundFile {
    /// Which it is.
    pub identity: FileIdentity,
    /// By which name.
    pub path: PathBuf,
    /// Which `[[agent.files]]` leads to it.
    pub section: usize,
    /// Open for reading, where it was not before and may be by now.
    pub file: Option<Arc<File>>,
}

/// All files that patterns lead to, at one look.
pub struct Look {
    /// The files.
    pub files: Vec<FoundFile>,
}

/// The thread that looks.
pub struct Finder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Finder {
    /// Starts looking; what is found goes to the pump.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        configs: Vec<Arc<FilesConfig>>,
        events: mpsc::Sender<Event>,
        is_crowded: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::Builder::new().name("beeacon-files".into()).spawn(move || {
            let mut search = Search::new(configs, is_crowded);
            while !stopping.load(Ordering::Relaxed) {
                if let Some(look) = search.look()
                    && events.blocking_send(Event::Files(Box::new(look))).is_err()
                {
                    return;
                }
                search.wait();
            }
        })?;
        Ok(Finder { stop, thread: Some(thread) })
    }

    /// Tells it to stop and waits until it has. The other end of its events has to be closed, or taken from.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Whoever lets go of it does not wait for it.
impl Drop for Finder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A file that is known.
struct Known {
    file: Weak<File>,
    /// What it was like when it was opened last.
    bytes: u64,
    modified: Option<SystemTime>,
    path: PathBuf,
}

struct Search {
    configs: Vec<Arc<FilesConfig>>,
    is_crowded: Arc<AtomicBool>,
    inotify: Option<Inotify>,
    waiting: Option<OwnedFd>,
    buffer: Vec<u8>,
    known: HashMap<FileIdentity, Known>,
    is_first: bool,
    has_said: HashSet<&'static str>,
    looked_at: Instant,
}

struct Walk<'a> {
    config: &'a FilesConfig,
    section: usize,
    names: usize,
    directories: &'a mut HashSet<PathBuf>,
    inotify: Option<&'a Inotify>,
    found: &'a mut Vec<(FileIdentity, PathBuf, usize, Metadata)>,
    seen: &'a mut HashSet<FileIdentity>,
}

impl Visitor for Walk<'_> {
    fn directory(&mut self, path: &Path) -> bool {
        if self.directories.len() < FILE_DIRECTORIES_MAX && self.directories.insert(path.to_owned()) {
            let mask = WatchMask::CREATE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO | WatchMask::DELETE;
            if let Some(inotify) = self.inotify {
                // Without a watch the directory is looked at in turn.
                inotify.watches().add(path, mask | WatchMask::ONLYDIR).ok();
            }
        }
        true
    }

    fn file(&mut self, path: PathBuf) {
        if !self.config.takes(&path) {
            return;
        }
        let Ok(metadata) = std::fs::metadata(&path) else { return };
        let identity = FileIdentity::of(&metadata);
        if metadata.is_file() && self.seen.insert(identity) {
            self.found.push((identity, path, self.section, metadata));
        }
    }

    fn has_room(&mut self) -> bool {
        self.names += 1;
        self.names <= FILE_NAMES_MAX
    }
}

impl Search {
    fn new(configs: Vec<Arc<FilesConfig>>, is_crowded: Arc<AtomicBool>) -> Self {
        let inotify = match Inotify::init() {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                tracing::warn!(%error, "cannot watch directories of log files, looking at them in turn");
                None
            }
        };
        let waiting = inotify.as_ref().and_then(|inotify| inotify.as_fd().try_clone_to_owned().ok());
        Search {
            configs,
            is_crowded,
            inotify,
            waiting,
            buffer: vec![0; EVENT_BYTES],
            known: HashMap::new(),
            is_first: true,
            has_said: HashSet::new(),
            looked_at: Instant::now(),
        }
    }

    /// Waits until something happens in a directory, or for the longest time between two looks.
    fn wait(&mut self) {
        let early = FILE_LOOK_PAUSE.saturating_sub(self.looked_at.elapsed());
        std::thread::sleep(early);
        let Some(descriptor) = &self.waiting else {
            std::thread::sleep(FILE_LOOK_EVERY.saturating_sub(early));
            return;
        };
        let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
        let nanos = i64::from(FILE_LOOK_EVERY.subsec_nanos());
        let timeout = Timespec { tv_sec: FILE_LOOK_EVERY.as_secs().cast_signed(), tv_nsec: nanos };
        if poll(&mut fds, Some(&timeout)).is_err() {
            std::thread::sleep(FILE_LOOK_PAUSE);
        }
        if let Some(inotify) = &mut self.inotify {
            // Ends at the first read without events.
            while let Ok(events) = inotify.read_events(&mut self.buffer) {
                if events.count() == 0 {
                    break;
                }
            }
        }
    }

    fn say(&mut self, what: &'static str) {
        if self.has_said.insert(what) {
            tracing::warn!("{what}");
        }
    }

    /// Walks over all patterns. None when nothing is new.
    fn look(&mut self) -> Option<Look> {
        self.looked_at = Instant::now();
        let (mut directories, mut found, mut seen) = (HashSet::new(), Vec::new(), HashSet::new());
        let mut is_too_wide = false;
        for (section, config) in self.configs.iter().enumerate() {
            let mut walk = Walk {
                config,
                section,
                names: 0,
                directories: &mut directories,
                inotify: self.inotify.as_ref(),
                found: &mut found,
                seen: &mut seen,
            };
            for glob in &config.include {
                glob.walk(&mut walk);
            }
            is_too_wide |= walk.names > FILE_NAMES_MAX;
        }
        if is_too_wide {
            self.say("patterns of agent.files lead over too many names, some files are not found");
        }
        // Those written to last come first where not all can be open.
        found.sort_by_key(|(.., metadata)| std::cmp::Reverse(metadata.modified().ok()));
        let before = self.known.len();
        self.known.retain(|identity, _| seen.contains(identity));
        let mut is_new = std::mem::take(&mut self.is_first) || self.known.len() != before;
        let mut open = self.known.values().filter(|known| known.file.strong_count() > 0).count();
        let mut waits = false;
        let mut files = Vec::with_capacity(found.len());
        for (identity, path, section, metadata) in found {
            let (bytes, modified) = (metadata.len(), metadata.modified().ok());
            let known = self.known.get_mut(&identity);
            let is_open = known.as_ref().is_some_and(|known| known.file.strong_count() > 0);
            let is_same =
                known.as_ref().is_some_and(|known| known.bytes == bytes && known.modified == modified);
            if let Some(known) = known
                && known.path != path
            {
                known.path.clone_from(&path);
                is_new = true;
            }
            let mut file = None;
            if !is_open && !is_same {
                if open >= FILES_OPEN_MAX {
                    waits = true;
                } else if self.known.len() >= FILES_MAX && !self.known.contains_key(&identity) {
                    self.say("patterns of agent.files lead to too many files, some are not read");
                } else {
                    file = self.open(&identity, &path);
                }
                open += usize::from(file.is_some());
                is_new |= file.is_some();
            }
            files.push(FoundFile { identity, path, section, file });
        }
        if waits {
            self.say("more log files than can be open at once, some wait");
        }
        self.is_crowded.store(waits, Ordering::Relaxed);
        is_new.then_some(Look { files })
    }

    fn open(&mut self, identity: &FileIdentity, path: &Path) -> Option<Arc<File>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound && self.has_said.insert("open") {
                    tracing::warn!(path = %path.display(), %error, "cannot open a log file");
                }
                return None;
            }
        };
        let metadata = file.metadata().ok()?;
        if FileIdentity::of(&metadata) != *identity {
            // Another one stands there by now, which the next look finds.
            return None;
        }
        let file = Arc::new(file);
        let known = Known {
            file: Arc::downgrade(&file),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            path: path.to_owned(),
        };
        self.known.insert(*identity, known);
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::files::glob::PathGlob;

    fn search(directory: &Path) -> Search {
        let include = vec![PathGlob::parse(&format!("{}/*.log", directory.display())).unwrap()];
        Search::new(vec![Arc::new(FilesConfig { include, ..FilesConfig::default() })], Arc::default())
    }

    #[test]
    fn a_file_is_opened_once_while_it_is_held_and_again_when_it_has_changed_since() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        std::fs::write(&path, "1\n").unwrap();
        let mut search = search(directory.path());
        let held = search.look().unwrap().files.remove(0).file.unwrap();
        std::fs::write(&path, "1\n2\n").unwrap();
        assert!(search.look().is_none(), "it is still held");
        drop(held);
        let held = search.look().unwrap().files.remove(0).file.unwrap();
        drop(held);
        assert!(search.look().is_none(), "it has not changed");
        std::fs::write(&path, "1\n2\n3\n").unwrap();
        assert!(search.look().unwrap().files.remove(0).file.is_some());
    }

    #[test]
    fn a_rename_and_a_removal_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a.log"), "1\n").unwrap();
        let mut search = search(directory.path());
        let first = search.look().unwrap().files.remove(0);
        std::fs::rename(at("a.log"), at("b.log")).unwrap();
        let second = search.look().unwrap().files.remove(0);
        assert_eq!((second.identity, &second.path), (first.identity, &at("b.log")));
        assert!(second.file.is_none());
        std::fs::remove_file(at("b.log")).unwrap();
        assert!(search.look().unwrap().files.is_empty());
        assert!(search.look().is_none());
    }

    #[test]
    fn no_more_files_are_open_than_allowed_and_the_newest_come_first() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..FILES_OPEN_MAX + 2 {
            let file = File::create(directory.path().join(format!("{number}.log"))).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            file.set_modified(modified).unwrap();
        }
        let mut search = search(directory.path());
        let look = search.look().unwrap();
        let open = |look: &Look| look.files.iter().filter(|found| found.file.is_some()).count();
        assert_eq!((open(&look), look.files.len()), (FILES_OPEN_MAX, FILES_OPEN_MAX + 2));
        assert!(search.is_crowded.load(Ordering::Relaxed));
        let waits = |found: &FoundFile| found.path.ends_with("0.log") || found.path.ends_with("1.log");
        assert!(look.files.iter().all(|found| found.file.is_some() != waits(found)));
        drop(look);
        assert_eq!(open(&search.look().unwrap()), 2);
    }
}

//! The files of one json-file log, held open: `<id>-json.log` and what Docker has rotated away from it.
//!
//! What always holds:
//! - a file is known by (device, inode, birth time), so renames do not matter, and a file that is held stays readable after
//!   Docker has removed it;
//! - every file has an index that grows by one with every file Docker creates. Indices come from counting creations
//!   ([`super::watch`]), so a hole between two held files says exactly that a file was missed, and no hole that none was;
//! - when counting was not possible, a file that cannot be linked to a held one gets an index behind a hole;
//! - what Docker has compressed is read as its content ([`super::gzip`]), with the content's place among the files; it is looked at
//!   only where the uncompressed file is gone, so never half-written, nor beside it.
//!
//! It never writes, renames or truncates.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use memchr::memchr;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::gzip::Inflated;
use super::json_line::LineParser;
use crate::limits::{CHAIN_FILES_MAX, HEAD_BYTES_MAX, HELD_FILES_MAX, PINNED_BYTES_MAX};

/// The index of the first file ever seen. Far from 0, so that older files found later still have one.
const FIRST_INDEX: u64 = 1 << 32;

/// What tells a file from every other one, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    born_ns: u64,
}

impl FileIdentity {
    /// That of the file which was looked at.
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        // 0 where the file system keeps no birth time: then device and inode must do.
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        FileIdentity { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }

    /// A number that stays the same over restarts of the host. The device's number may not, so it counts only where the file
    /// system keeps no birth time.
    pub fn number(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.inode.to_le_bytes());
        hash.update(&self.born_ns.to_le_bytes());
        if self.born_ns == 0 {
            hash.update(&self.device.to_le_bytes());
        }
        hash.digest()
    }

    /// A number that only whoever sees the file can know: it hides what a check of a file's text is a check of.
    pub fn salt(&self) -> u64 {
        let mut hash = Xxh3::with_seed(self.born_ns);
        hash.update(&self.inode.to_be_bytes());
        hash.digest()
    }
}

/// What a file starts with, to notice that it was emptied and written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadMark {
    bytes: usize,
    hash: u64,
}

/// One file, open for reading. Clones read the same one.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// Its place in the order of creation.
    pub index: u64,
    identity: FileIdentity,
    file: Arc<File>,
    /// What it holds, where it is compressed.
    inflated: Option<Arc<Mutex<Inflated>>>,
}

/// What finds a file again after a restart. It depends on no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of the file: birth time, inode, and time and length of the first record.
    pub file: u64,
    /// Of its content, which stays the same when it is compressed: time and length of the first record alone. Enough among the files
    /// of one log. None in cursors of before this was kept.
    pub content: Option<u64>,
}

impl HeldFile {
    /// A file that is open, in no chain.
    pub fn alone(identity: FileIdentity, file: Arc<File>) -> Self {
        HeldFile { index: 0, identity, file, inflated: None }
    }

    fn inflated(&self) -> Option<MutexGuard<'_, Inflated>> {
        self.inflated.as_ref().map(|inflated| inflated.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether Docker has compressed it.
    pub fn is_compressed(&self) -> bool {
        self.inflated.is_some()
    }

    /// Whether it was found to end before its content does.
    pub fn is_broken(&self) -> bool {
        self.inflated().is_some_and(|inflated| inflated.is_broken())
    }

    /// When it was written to last, in nanoseconds since 1970; 0 where the system does not say.
    pub fn modified_ns(&self) -> i64 {
        modified_ns(&self.file).unwrap_or(0)
    }

    /// How long it is, in bytes; of a compressed one, how long its content is.
    ///
    /// # Errors
    /// What the system says.
    pub fn bytes(&self) -> io::Result<u64> {
        if let Some(inflated) = self.inflated() {
            return Ok(inflated.bytes());
        }
        Ok(self.file.metadata()?.len())
    }

    /// Reads at an offset; may give less than asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(mut inflated) = self.inflated() {
            return inflated.read_at(buffer, offset);
        }
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The mark of the file's first line, once it is complete.
    ///
    /// # Errors
    /// What the system says.
    pub fn head(&self) -> io::Result<Option<HeadMark>> {
        Ok(self.first_line()?.map(|line| HeadMark { bytes: line.len(), hash: xxh3_64(&line) }))
    }

    /// Whether the file still starts with what it started with. Cheap: reads the first line only.
    ///
    /// # Errors
    /// What the system says.
    pub fn still_starts_with(&self, mark: HeadMark) -> io::Result<bool> {
        if self.is_compressed() {
            // Nobody writes to it any more.
            return Ok(true);
        }
        let mut head = vec![0; mark.bytes];
        let read = self.read_at(&mut head, 0)?;
        Ok(read == mark.bytes && xxh3_64(&head) == mark.hash)
    }

    /// What finds this file again after a restart. `None` until the first record is complete.
    ///
    /// # Errors
    /// What the system says.
    pub fn fingerprint(&self) -> io::Result<Option<Fingerprint>> {
        let Some(line) = self.first_line()? else { return Ok(None) };
        let mut text = Vec::new();
        let record = LineParser::default().parse(line.strip_suffix(b"\n").unwrap_or(&line), &mut text);
        let time = record.map_or(0, |record| record.timestamp_ns).to_le_bytes();
        let length = (line.len() as u64).to_le_bytes();
        let mut file = Xxh3::new();
        file.update(&self.identity.born_ns.to_le_bytes());
        file.update(&self.identity.inode.to_le_bytes());
        let mut content = Xxh3::new();
        for part in [time, length] {
            file.update(&part);
            content.update(&part);
        }
        Ok(Some(Fingerprint { file: file.digest(), content: Some(content.digest()) }))
    }

    /// The first line with its newline; a longer one is cut at [`HEAD_BYTES_MAX`], which tells files apart as well.
    ///
    /// # Errors
    /// What the system says.
    pub fn first_line(&self) -> io::Result<Option<Vec<u8>>> {
        // Beside the one by which the file is being read, which would have to go back for it.
        let mut inflated = self.inflated.as_ref().map(|_| Inflated::new(self.file.clone())).transpose()?;
        let mut want = 1024;
        loop {
            let mut head = vec![0; want];
            let read = match &mut inflated {
                Some(inflated) => inflated.read_at(&mut head, 0)?,
                None => self.read_at(&mut head, 0)?,
            };
            head.truncate(read);
            if let Some(end) = memchr(b'\n', &head) {
                head.truncate(end + 1);
                return Ok(Some(head));
            }
            if read < want {
                return Ok(None);
            }
            if want == HEAD_BYTES_MAX {
                return Ok(Some(head));
            }
            want = (want * 4).min(HEAD_BYTES_MAX);
        }
    }

    fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

fn modified_ns(file: &File) -> Option<i64> {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// A file found at one of the chain's names.
pub struct Found {
    identity: FileIdentity,
    file: Arc<File>,
    inflated: Option<Arc<Mutex<Inflated>>>,
}

/// The files of one log, ascending by index.
#[derive(Debug)]
pub struct Chain {
    directory: PathBuf,
    name: OsString,
    files: VecDeque<Arc<HeldFile>>,
    /// Index of the file at the log's own name, less the creations counted.
    origin: Option<u64>,
    creations: u64,
    released_below: u64,
    highest: u64,
}

impl Chain {
    /// The chain of the log `directory`/`name`; empty until it is looked at.
    pub fn new(directory: PathBuf, name: OsString) -> Self {
        Chain {
            directory,
            name,
            files: VecDeque::new(),
            origin: None,
            creations: 0,
            released_below: 0,
            highest: 0,
        }
    }

    /// The directory that holds the files.
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// The log's own file name.
    pub fn name(&self) -> &OsString {
        &self.name
    }

    /// The path of the file that was rotated `place` times; 0 is the log itself.
    fn path(&self, place: u64) -> PathBuf {
        if place == 0 {
            return self.directory.join(&self.name);
        }
        let mut name = self.name.clone();
        name.push(format!(".{place}"));
        self.directory.join(name)
    }

    /// Opens what is there: the log first, then what was rotated once, twice, until a name is missing. Where only the compressed
    /// file of a name is there, it is that one.
    ///
    /// # Errors
    /// When a file is there and cannot be opened.
    pub fn find(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for place in 0..CHAIN_FILES_MAX {
            let path = self.path(place);
            let one = match self.open(&path, false)? {
                None if place > 0 => self.open(&path.with_added_extension("gz"), true)?,
                one => one,
            };
            let Some(one) = one else { break };
            found.push(one);
        }
        Ok(found)
    }

    /// The same, but for what was last written before a time, in nanoseconds since 1970.
    ///
    /// # Errors
    /// As [`Chain::find`].
    pub(crate) fn find_since(&self, since_ns: i64) -> io::Result<Vec<Found>> {
        let mut found = self.find()?;
        let is_older = |one: &Found| modified_ns(&one.file).is_some_and(|modified_ns| modified_ns < since_ns);
        // A log that nobody has written to for long is still the first of its files.
        let end = found.iter().skip(1).position(is_older).map_or(found.len(), |place| place + 1);
        found.truncate(end);
        Ok(found)
    }

    fn open(&self, path: &Path, is_compressed: bool) -> io::Result<Option<Found>> {
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let identity = FileIdentity::of(&metadata);
        if let Some(held) = self.files.iter().find(|held| held.identity == identity) {
            return Ok(Some(Found { identity, file: held.file.clone(), inflated: held.inflated.clone() }));
        }
        let file = match File::open(path) {
            Ok(file) => Arc::new(file),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let identity = FileIdentity::of(&file.metadata()?);
        let inflated = is_compressed.then(|| Inflated::new(file.clone())).transpose()?;
        let inflated = inflated.map(|inflated| Arc::new(Mutex::new(inflated)));
        Ok(Some(Found { identity, file, inflated }))
    }

    /// Whether the log's name still leads to the first of `found`.
    pub fn is_current(&self, found: &[Found]) -> bool {
        let now = std::fs::metadata(self.path(0)).ok().map(|metadata| FileIdentity::of(&metadata));
        now == found.first().map(|found| found.identity)
    }

    /// Whether the log's name leads to the newest held file, or there is none.
    pub fn is_up_to_date(&self) -> bool {
        match std::fs::metadata(self.path(0)) {
            Ok(metadata) => {
                self.files.back().is_some_and(|held| held.identity == FileIdentity::of(&metadata))
            }
            Err(_) => true,
        }
    }

    /// Takes in what was found while nothing changed. `creations` is how many files were created under the log's name since
    /// it is watched, or `None` where that was not counted.
    pub fn take(&mut self, found: Vec<Found>, creations: Option<u64>) {
        if found.is_empty() {
            return;
        }
        let counted = creations.zip(self.origin).map(|(creations, origin)| origin.wrapping_add(creations));
        let newest = counted.filter(|newest| self.agrees(&found, *newest));
        let newest = newest.unwrap_or_else(|| self.link(&found));
        self.creations = creations.unwrap_or(self.creations);
        self.origin = Some(newest.wrapping_sub(self.creations));
        self.highest = self.highest.max(newest);
        for (place, found) in found.into_iter().enumerate() {
            let index = newest.wrapping_sub(place as u64);
            let place = self.files.partition_point(|held| held.index < index);
            let is_held = self.files.get(place).is_some_and(|held| held.index == index);
            if !is_held && index >= self.released_below {
                let Found { identity, file, inflated } = found;
                let held = HeldFile { index, identity, file, inflated };
                self.files.insert(place, Arc::new(held));
            }
        }
        self.shrink();
    }

    /// From now on creations are counted again, and this many have been.
    pub fn count_from(&mut self, creations: u64) {
        let newest = self.origin.map(|origin| origin.wrapping_add(self.creations));
        self.creations = creations;
        self.origin = newest.map(|newest| newest.wrapping_sub(creations));
    }

    /// Whether no held file contradicts that the first found one has this index.
    fn agrees(&self, found: &[Found], newest: u64) -> bool {
        found.iter().enumerate().all(|(place, found)| {
            let index = newest.wrapping_sub(place as u64);
            // Of a held file the name may lead to its compressed content by now, which is another file.
            let is_same = |held: &Arc<HeldFile>| held.identity == found.identity;
            let agrees = |held: &Arc<HeldFile>| {
                let is_here = held.index == index;
                is_same(held) == is_here || is_here && found.inflated.is_some()
            };
            self.files.iter().all(agrees)
        })
    }

    /// The first found file's index by the held file that is still among the found ones; behind a hole when there is none.
    fn link(&self, found: &[Found]) -> u64 {
        let known = |found: &Found| self.files.iter().find(|held| held.identity == found.identity);
        let linked = found.iter().enumerate().find_map(|(place, found)| Some((place, known(found)?.index)));
        match linked {
            Some((place, index)) => index + place as u64,
            None if self.origin.is_none() => FIRST_INDEX,
            None => self.highest + found.len() as u64 + 1,
        }
    }

    /// Lets go of files that pin too much. The oldest is being read and the newest is live, so what goes is in between, from
    /// the newest on: reading then goes on without a hole for as long as possible.
    fn shrink(&mut self) {
        while self.files.len() > HELD_FILES_MAX {
            self.files.remove(self.files.len() - 2);
        }
        loop {
            let removed: Vec<usize> = (0..self.files.len())
                .filter(|at| self.files.get(*at).is_some_and(|f| f.is_removed()))
                .collect();
            let pinned = removed.iter().filter_map(|at| self.files.get(*at)?.bytes().ok()).sum::<u64>();
            match removed.as_slice() {
                [_, .., last] if pinned > PINNED_BYTES_MAX => self.files.remove(*last),
                _ => return,
            };
        }
    }

    /// The held file with this index.
    pub fn at(&self, index: u64) -> Option<Arc<HeldFile>> {
        self.files.iter().find(|held| held.index == index).cloned()
    }

    /// The next held file behind this index.
    pub fn behind(&self, index: u64) -> Option<Arc<HeldFile>> {
        self.files.iter().find(|held| held.index > index).cloned()
    }

    /// The oldest held file.
    pub fn oldest(&self) -> Option<Arc<HeldFile>> {
        self.files.front().cloned()
    }

    /// All held files, oldest first.
    pub fn files(&self) -> impl DoubleEndedIterator<Item = &Arc<HeldFile>> {
        self.files.iter()
    }

    /// Closes the files below this index: what they held is committed.
    pub fn release_below(&mut self, index: u64) {
        self.released_below = self.released_below.max(index);
        while self.files.front().is_some_and(|held| held.index < index) && self.files.len() > 1 {
            self.files.pop_front();
        }
    }

    /// Notes that the newest file was emptied and is written anew, which makes it a new file with the next index.
    pub fn emptied(&mut self, index: u64) {
        if self.files.back().is_none_or(|held| held.index != index) {
            return;
        }
        if let Some(held) = self.files.pop_back() {
            let index = held.index + 1;
            self.highest = self.highest.max(index);
            self.origin = self.origin.map(|origin| origin.wrapping_add(1));
            let held = HeldFile { index, ..held.as_ref().clone() };
            self.files.push_back(Arc::new(held));
        }
    }
}

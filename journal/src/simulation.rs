//! A file system in memory that crashes the way real ones may.
//!
//! The model: a write or a size change lives in the cache until the file is synced; a power cut
//! keeps any subset of the unsynced 512-byte sectors and any of the unsynced sizes. Names live in
//! the cache until their directory is synced; a power cut keeps any subset of the unsynced
//! creations, renames and removals. A failed sync writes any subset and marks everything clean, so
//! that the next sync succeeds without writing. Killing the process loses nothing of this.
//!
//! It also holds the rule that nobody writes or syncs a file again after that failed, until the
//! process is started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::disk::{Access, Disk, DiskFile, Held, Stamp};
use crate::queue::lock;

const SECTOR_BYTES: usize = 512;

/// A generator of choices that a seed repeats (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Allocate,
    Write,
    Truncate,
    Sync,
    Rename,
    Remove,
    SyncDirectory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Eio,
    NoSpace,
    /// A write that takes only a part.
    Short,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What a read gives.
    content: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// Sectors that a sync would write.
    dirty: BTreeSet<usize>,
    has_failed: bool,
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        if to > from {
            self.dirty.extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
        }
    }

    /// Writes the sectors that `keep` chooses.
    fn write_back(&mut self, bytes: usize, mut keep: impl FnMut() -> bool) {
        self.durable.resize(bytes, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.content.len()).min(bytes);
            if keep() && start < end {
                self.durable[start..end].copy_from_slice(&self.content[start..end]);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
    Directory(PathBuf),
}

#[derive(Debug, Clone, Default)]
struct Directory {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone)]
struct State {
    inodes: Vec<Inode>,
    directories: BTreeMap<PathBuf, Directory>,
    durable_directories: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: u64,
    faults: Vec<(Operation, Fault)>,
    /// Operations left before the power goes.
    operations_left: Option<u64>,
    is_dead: bool,
    stamps: u64,
    counts: BTreeMap<Operation, u64>,
    chance: Chance,
}

/// The file system. Cloning gives another handle on it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

fn dead() -> io::Error {
    io::Error::other("the power is out")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn split(path: &Path) -> (PathBuf, String) {
    (path.parent().unwrap().to_owned(), path.file_name().unwrap().to_str().unwrap().to_owned())
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            directories: BTreeMap::from([(PathBuf::from("/"), Directory::default())]),
            durable_directories: BTreeSet::from([PathBuf::from("/")]),
            locks: BTreeSet::new(),
            capacity_bytes: 1 << 30,
            faults: Vec::new(),
            operations_left: None,
            is_dead: false,
            stamps: 0,
            counts: BTreeMap::new(),
            chance: Chance(seed),
        })))
    }

    /// Cuts the power: the disk as the next boot finds it. This one is dead from now on.
    pub(crate) fn power_cut(&self, seed: u64) -> Self {
        let mut state = lock(&self.0);
        state.is_dead = true;
        Self::restarted(state.after_power_cut(seed))
    }

    /// What a power cut at this moment would leave. This disk lives on.
    pub(crate) fn image(&self, seed: u64) -> Self {
        Self::restarted(lock(&self.0).after_power_cut(seed))
    }

    /// Kills the process: nothing in the cache is lost.
    pub(crate) fn kill(&self) -> Self {
        let mut state = lock(&self.0);
        state.is_dead = true;
        Self::restarted(state.clone())
    }

    fn restarted(mut state: State) -> Self {
        state.is_dead = false;
        state.operations_left = None;
        state.locks.clear();
        for inode in &mut state.inodes {
            inode.has_failed = false;
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn power_cut_after(&self, operations: u64) {
        lock(&self.0).operations_left = Some(operations);
    }

    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.0).is_dead
    }

    /// The next operation of this kind fails like this.
    pub(crate) fn fail_next(&self, operation: Operation, fault: Fault) {
        lock(&self.0).faults.push((operation, fault));
    }

    pub(crate) fn heal(&self) {
        lock(&self.0).faults.clear();
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        let mut state = lock(&self.0);
        state.capacity_bytes = state.used_bytes() + bytes;
    }

    pub(crate) fn count(&self, operation: Operation) -> u64 {
        lock(&self.0).counts.get(&operation).copied().unwrap_or(0)
    }

    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let state = lock(&self.0);
        let inode = state.find(path).unwrap();
        state.inodes[inode].content.clone()
    }

    /// Puts bytes into a file behind everybody's back, as bit rot does.
    pub(crate) fn set_content(&self, path: &Path, bytes: &[u8]) {
        let mut state = lock(&self.0);
        let inode = match state.find(path) {
            Ok(inode) => inode,
            Err(_) => {
                let (parent, name) = split(path);
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                let directory = state.directories.get_mut(&parent).unwrap();
                directory.names.insert(name.clone(), inode);
                directory.durable_names.insert(name, inode);
                inode
            }
        };
        let inode = &mut state.inodes[inode];
        inode.content = bytes.to_vec();
        inode.durable = bytes.to_vec();
        inode.dirty.clear();
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        self.directories
            .values()
            .flat_map(|directory| directory.names.values())
            .map(|inode| self.inodes[*inode].content.len() as u64)
            .sum()
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let (parent, name) = split(path);
        let directory = self.directories.get(&parent).ok_or(io::ErrorKind::NotFound)?;
        directory.names.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Counts an operation, and says how it has to fail.
    fn begin(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        if self.operations_left == Some(0) {
            self.is_dead = true;
        }
        if self.is_dead {
            return Err(dead());
        }
        self.operations_left = self.operations_left.map(|left| left - 1);
        *self.counts.entry(operation).or_default() += 1;
        let found = self.faults.iter().position(|(at, _)| *at == operation);
        let fault = found.map(|index| self.faults.remove(index).1);
        match (operation, fault) {
            (Operation::Sync | Operation::Write, fault) => Ok(fault),
            (_, Some(Fault::NoSpace)) => Err(no_space()),
            (_, Some(_)) => Err(eio()),
            (_, None) => Ok(None),
        }
    }

    fn after_power_cut(&self, seed: u64) -> Self {
        let mut after = self.clone();
        let mut chance = Chance(seed);
        for directory in after.directories.values_mut() {
            for change in std::mem::take(&mut directory.pending) {
                if !chance.coin() {
                    continue;
                }
                match change {
                    NameChange::Directory(path) => {
                        after.durable_directories.insert(path);
                    }
                    change => apply(&mut directory.durable_names, &change),
                }
            }
            directory.names = directory.durable_names.clone();
        }
        let durable = after.durable_directories.clone();
        after.directories.retain(|path, _| path.ancestors().all(|part| durable.contains(part)));
        for inode in &mut after.inodes {
            let bytes = if chance.coin() { inode.content.len() } else { inode.durable.len() };
            inode.write_back(bytes, || chance.coin());
            inode.content = inode.durable.clone();
        }
        after
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        NameChange::Unlink(name) => {
            names.remove(name);
        }
        NameChange::Directory(_) => {}
    }
}

struct Locked(SimDisk, PathBuf);

impl Drop for Locked {
    fn drop(&mut self) {
        lock(&self.0.0).locks.remove(&self.1);
    }
}

impl Disk for SimDisk {
    fn create_directory(&self, path: &Path) -> io::Result<bool> {
        let mut state = lock(&self.0);
        if state.directories.contains_key(path) {
            return Ok(false);
        }
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?.to_owned();
        if !state.directories.contains_key(&parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.begin(Operation::Create)?;
        state.directories.insert(path.to_owned(), Directory::default());
        state.directory(&parent)?.pending.push(NameChange::Directory(path.to_owned()));
        Ok(true)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).directory(directory)?.names.keys().cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.0);
        state.begin(Operation::Create)?;
        if state.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (parent, name) = split(path);
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        let directory = state.directory(&parent)?;
        directory.names.insert(name.clone(), inode);
        directory.pending.push(NameChange::Link(name, inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let state = lock(&self.0);
        if state.is_dead {
            return Err(dead());
        }
        Ok(Arc::new(SimFile { disk: self.clone(), inode: state.find(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.begin(Operation::Rename)?;
        let inode = state.find(from)?;
        let ((parent, from), (_, to)) = (split(from), split(to));
        let change = NameChange::Rename(from, to, inode);
        let directory = state.directory(&parent)?;
        apply(&mut directory.names, &change);
        directory.pending.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.begin(Operation::Remove)?;
        state.find(path)?;
        let (parent, name) = split(path);
        let change = NameChange::Unlink(name);
        let directory = state.directory(&parent)?;
        apply(&mut directory.names, &change);
        directory.pending.push(change);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.begin(Operation::SyncDirectory)?;
        let directory = state.directory(path)?;
        let pending = std::mem::take(&mut directory.pending);
        directory.durable_names = directory.names.clone();
        for change in pending {
            if let NameChange::Directory(path) = change {
                state.durable_directories.insert(path);
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = lock(&self.0);
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn lock(&self, path: &Path) -> io::Result<Held> {
        let mut state = lock(&self.0);
        if state.is_dead {
            return Err(dead());
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Locked(self.clone(), path.to_owned())))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Held> {
        self.lock(path)
    }

    fn stamp(&self) -> Stamp {
        let mut state = lock(&self.0);
        state.stamps += 1;
        let mut chance = Chance(state.stamps);
        let uuid = Uuid::from_u128(u128::from(chance.next()) << 64 | u128::from(chance.next()));
        Stamp { uuid, created_unix_ns: 1_700_000_000_000_000_000, boot_id: Uuid::from_u128(7) }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimFile {
    fn resize(&self, operation: Operation, bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        state.begin(operation)?;
        let (used, capacity) = (state.used_bytes(), state.capacity_bytes);
        let inode = &mut state.inodes[self.inode];
        let more = bytes.saturating_sub(inode.content.len() as u64);
        if more > 0 && used + more > capacity {
            return Err(no_space());
        }
        let bytes = bytes as usize;
        inode.content.resize(bytes, 0);
        inode.dirty.retain(|sector| sector * SECTOR_BYTES < bytes);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.0).inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = lock(&self.disk.0);
        if state.is_dead {
            return Err(dead());
        }
        let content = &state.inodes[self.inode].content;
        let start = (offset as usize).min(content.len());
        let bytes = buffer.len().min(content.len() - start);
        buffer[..bytes].copy_from_slice(&content[start..start + bytes]);
        Ok(bytes)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = lock(&self.disk.0);
        let fault = state.begin(Operation::Write)?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut chance = state.chance.clone();
        let inode = &mut state.inodes[self.inode];
        assert!(!inode.has_failed, "a file was written again after it had failed");
        if fault.is_some() {
            // What fails may still have been written in part.
            inode.has_failed = true;
            bytes.truncate(chance.below(bytes.len() as u64) as usize);
        }
        let start = offset as usize;
        let end = start + bytes.len();
        if inode.content.len() < end {
            inode.content.resize(end, 0);
        }
        inode.content[start..end].copy_from_slice(&bytes);
        inode.touch(start, end);
        state.chance = chance;
        match fault {
            None | Some(Fault::Short) => Ok(bytes.len()),
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::NoSpace) => Err(no_space()),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Operation::Allocate, bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Operation::Truncate, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        let fault = state.begin(Operation::Sync)?;
        let mut chance = state.chance.clone();
        let inode = &mut state.inodes[self.inode];
        assert!(!inode.has_failed, "a file was synced again after it had failed");
        let bytes = inode.content.len();
        match fault {
            None => inode.write_back(bytes, || true),
            Some(_) => {
                inode.has_failed = true;
                inode.write_back(bytes, || chance.coin());
            }
        }
        state.chance = chance;
        match fault {
            None => Ok(()),
            Some(Fault::NoSpace) => Err(no_space()),
            Some(_) => Err(eio()),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

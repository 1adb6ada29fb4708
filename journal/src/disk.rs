//! The file operations the journal needs, and nothing more.
//!
//! Everything that can fail or be lost in a crash goes through [`Disk`], so that the tests can put
//! a simulated file system in its place. This module holds no policy: who syncs what, and when, is
//! decided by its callers.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use uuid::Uuid;

/// Keeps a lock until dropped.
pub(crate) type Held = Box<dyn Any + Send + Sync>;

/// What is stamped into a new segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) uuid: Uuid,
    pub(crate) created_unix_ns: u64,
    pub(crate) boot_id: Uuid,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A file system.
pub(crate) trait Disk: Send + Sync {
    /// Makes one directory; false when it was there.
    fn create_directory(&self, path: &Path) -> io::Result<bool>;
    /// Names of the files in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Makes a file that must not exist, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Bytes free to an ordinary user.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
    /// Takes an exclusive lock, making the file; `WouldBlock` when it is taken.
    fn lock(&self, path: &Path) -> io::Result<Held>;
    /// Takes a shared lock without making or changing the file; `NotFound` when there is none.
    fn lock_shared(&self, path: &Path) -> io::Result<Held>;
    /// A fresh identity for a segment.
    fn stamp(&self) -> Stamp;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    fn bytes(&self) -> io::Result<u64>;
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// One vectored write; may be short.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reserves space and sets the size.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Data, and the metadata needed to read it.
    fn sync_data(&self) -> io::Result<()>;
    fn sync_all(&self) -> io::Result<()>;
}

/// Writes one buffer in one write. A short write is an error: it means that the device is failing or
/// full, and such a file is not written again.
pub(crate) fn write_whole_at(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    if file.write_at(&[IoSlice::new(bytes)], offset)? != bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full_at(file: &dyn DiskFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The real file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn create_directory(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Held> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Held> {
        let file = File::open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Box::new(file))
    }

    fn stamp(&self) -> Stamp {
        let uuid = Uuid::now_v7();
        // The wall clock is only for people who look into a file; taking it from the identifier
        // leaves one reading of the clock. Nothing is decided by it.
        let (seconds, nanoseconds) = uuid.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok())
            .unwrap_or(Uuid::nil());
        let created_unix_ns = seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(nanoseconds));
        Stamp { uuid, created_unix_ns, boot_id }
    }
}

struct SystemFile(File);

impl DiskFile for SystemFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, parts, offset)?)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot reserve still has to know the size; space is then
            // guarded by the floor alone.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(bytes),
            other => Ok(other?),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

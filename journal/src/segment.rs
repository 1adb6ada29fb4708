//! Making a segment, and what the journal remembers of each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::disk::{Disk, DiskFile, write_whole_at};
use crate::error::{JournalError, is_no_space};
use crate::format::{SegmentHeader, SegmentName};
use crate::limits::SEGMENT_HEADER_BYTES;

/// Ends the name of a file that is not finished.
pub(crate) const UNFINISHED_SUFFIX: &str = ".tmp";

/// A segment on disk. It owns the LSNs from its first one up to the next segment's first one;
/// whatever it holds beyond was never acknowledged and has been written again there.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    /// None when its header is lost; its records cannot be checked then, and count as lost.
    pub(crate) uuid: Option<Uuid>,
    /// Bytes it takes on disk.
    pub(crate) bytes: u64,
}

/// The segment being written.
pub(crate) struct ActiveSegment {
    pub(crate) segment: Segment,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) uuid: Uuid,
    /// Where the next record goes.
    pub(crate) offset: u64,
    pub(crate) records: u64,
}

/// Why no segment could be made.
pub(crate) enum CreateFailure {
    /// There is no space; nothing is wrong with the disk.
    Space,
    /// The new file could not be written; another one may be tried.
    File(JournalError),
    /// The directory could not be synced; nothing that depends on names can be promised any more.
    Directory(JournalError),
}

/// Makes a segment that survives a crash before its first record is written.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    directory: &Path,
    name: SegmentName,
    bytes: u64,
) -> Result<ActiveSegment, CreateFailure> {
    let path = directory.join(name.to_string());
    let unfinished = directory.join(format!("{name}{UNFINISHED_SUFFIX}"));
    let stamp = disk.stamp();
    let write = || -> io::Result<Arc<dyn DiskFile>> {
        let file = disk.create(&unfinished)?;
        file.allocate(bytes)?;
        write_whole_at(&*file, &SegmentHeader::new(&stamp, name).encode(), 0)?;
        file.sync_all()?;
        disk.rename(&unfinished, &path)?;
        Ok(file)
    };
    let file = write().map_err(|error| {
        // What is left behind holds space that is needed; recovery removes it otherwise.
        if disk.remove(&unfinished).is_err() {
            tracing::debug!(segment = %name, "an unfinished segment stays until the next start");
        }
        if is_no_space(&error) {
            CreateFailure::Space
        } else {
            CreateFailure::File(JournalError::io("create segment", &path)(error))
        }
    })?;
    disk.sync_directory(directory)
        .map_err(|error| CreateFailure::Directory(JournalError::io("sync directory", directory)(error)))?;
    Ok(ActiveSegment {
        segment: Segment { name, path, uuid: Some(stamp.uuid), bytes },
        file,
        uuid: stamp.uuid,
        offset: SEGMENT_HEADER_BYTES,
        records: 0,
    })
}

/// Makes a directory and every missing ancestor, each durable before anything is put into it.
pub(crate) fn create_directories(disk: &dyn Disk, directory: &Path) -> Result<(), JournalError> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in directory.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        match disk.create_directory(ancestor) {
            Ok(made) => {
                if made {
                    sync_parent(disk, ancestor)?;
                }
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(error) => return Err(JournalError::io("create directory", ancestor)(error)),
        }
    }
    for path in missing.into_iter().rev() {
        disk.create_directory(path).map_err(JournalError::io("create directory", path))?;
        sync_parent(disk, path)?;
    }
    Ok(())
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    disk.sync_directory(parent).map_err(JournalError::io("sync directory", parent))
}

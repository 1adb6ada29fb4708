//! What the agent keeps on disk besides the spool: its id and the key of keyed hashes. No position, and nothing of a line.
//!
//! Write: a temporary file is written, synced, and linked to its name, which fails if somebody was faster; then the directory
//! is synced. Read: the whole file. Crash: a temporary file may stay behind; it is replaced at the next start. Nothing is ever
//! written over, but for the epoch of handed-over lines, whose new file takes the old one's name.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use beeacon_record::AgentId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The id's file name.
const ID_FILE: &str = "agent-id";

/// The file name of the last epoch of lines that were handed over.
const PUSH_EPOCH_FILE: &str = "push-epoch";

/// The key's file name.
pub const KEY_FILE: &str = "redaction.key";

/// How long the key is, in bytes: that of a SHA-256 block's half, which is all that HMAC can use of it.
pub const KEY_BYTES: usize = 32;

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Room for such a file, and for the system to say that it has ended.
const FILE_BYTES_ROOM: usize = 4096 + 64;

/// Why the agent's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory cannot be used.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The id's file holds something else.
    #[error("{} holds no agent id; remove it to get a new one", path.display())]
    Id {
        /// The file.
        path: PathBuf,
    },
    /// The file of the epoch holds something else.
    #[error(
        "{} holds no number; remove it once the host's clock is right: the clock says then what is next",
        path.display()
    )]
    Epoch {
        /// The file.
        path: PathBuf,
    },
    /// The key's file holds something else.
    #[error("{} holds no key of {KEY_BYTES} bytes", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The key can be read by others.
    #[error("{} has mode {mode:03o}, wanted is 600 so that nobody else reads the key", path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The agent's id, made at the first call. On a host that has a machine id it is made from that, the host's name and the data
/// directory: an agent whose disk was erased gets the id that it had, and with it its positions from the collector. Elsewhere
/// it is random.
///
/// # Errors
/// When the directory cannot be written or holds something else under that name.
pub fn agent_id(data: &Path, machine_id_file: &Path, host: &str) -> Result<AgentId, StateError> {
    let path = data.join(ID_FILE);
    let text = match read(&path)? {
        Some(text) => text,
        None => {
            create_directory(data)?;
            let directory = std::fs::canonicalize(data).map_err(io_error("find", data))?;
            let id = match machine_id(machine_id_file)? {
                Some(machine) => derived_id(&machine, host, &directory),
                None => AgentId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
            };
            read_or_create(data, &path, 0o644, || id.to_string().into_bytes())?
        }
    };
    std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).ok_or(StateError::Id { path })
}

/// What the host says that it is, as `machine-id(5)` describes it: 32 hexadecimal digits. `None` where it says nothing yet.
fn machine_id(path: &Path) -> Result<Option<String>, StateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(is_id.then_some(text))
}

/// An id that this machine, under this name and with this data directory, always has. `machine-id(5)` asks that its id be not shown:
/// it is hashed. Version 8 of RFC 9562.
fn derived_id(machine: &str, host: &str, directory: &Path) -> AgentId {
    let mut hash = Sha256::new();
    for part in [
        b"beeacon agent id".as_slice(),
        machine.as_bytes(),
        host.as_bytes(),
        directory.as_os_str().as_bytes(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
        *byte = hashed;
    }
    AgentId::from_bytes(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
}

/// The epoch of this start, for the positions of lines that are handed over: higher than that of every start before, and durable
/// when it is given. The clock counts too, for the case that the file is lost and the id is not.
///
/// # Errors
/// When the directory cannot be written, or the file holds something else: with a clock that was set back the next epoch could be
/// one that has been, and its lines would count as repeats.
pub fn next_push_epoch(data: &Path) -> Result<u64, StateError> {
    let path = data.join(PUSH_EPOCH_FILE);
    let known = match read(&path)? {
        None => None,
        Some(text) => {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u64>().ok());
            Some(number.ok_or_else(|| StateError::Epoch { path: path.clone() })?)
        }
    };
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let epoch = known.map_or(0, |known| known.saturating_add(1)).max(clock.as_secs());
    create_directory(data)?;
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(epoch.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(data)?.sync_all()
    };
    write().map_err(io_error("write", &path))?;
    Ok(epoch)
}

/// The key of keyed hashes, made at the first call. Its file must belong to the agent alone.
///
/// # Errors
/// When the directory cannot be written, the file can be read by others, or it holds something else.
pub fn redaction_key(data: &Path) -> Result<[u8; KEY_BYTES], StateError> {
    let path = data.join(KEY_FILE);
    let random = File::open("/dev/urandom")
        .and_then(|mut file| {
            let mut key = [0; KEY_BYTES];
            file.read_exact(&mut key).map(|()| key)
        })
        .map_err(io_error("read random bytes from", Path::new("/dev/urandom")))?;
    let bytes = read_or_create(data, &path, 0o600, || random.to_vec())?;
    let metadata = std::fs::metadata(&path).map_err(io_error("look at", &path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::KeyMode { path, mode });
    }
    bytes.try_into().map_err(|_| StateError::Key { path })
}

/// A key from a file of the user's own, which must belong to its owner alone. Text may end with a line end, which is not the key's.
///
/// # Errors
/// When the file cannot be read, is too large, or can be read by others.
pub fn key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::KeyMode { path: path.to_owned(), mode });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_ROOM));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    let is_text = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r');
    while bytes.iter().all(is_text) && matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Makes the directory with all above it, and says so to the disk.
fn create_directory(path: &Path) -> Result<(), StateError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create directory", path))?;
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        if let Ok(directory) = File::open(parent) {
            // Not every file system above can sync a directory, and not every one above is ours.
            directory.sync_all().ok();
        }
    }
    Ok(())
}

fn read_or_create(
    data: &Path,
    path: &Path,
    mode: u32,
    make: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, StateError> {
    if let Some(bytes) = read(path)? {
        return Ok(bytes);
    }
    create_directory(data)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::remove_file(&temporary).ok();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(&make()).map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary).map_err(io_error("remove", &temporary))?;
    if let Err(error) = linked
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(io_error("create", path)(error));
    }
    let directory = File::open(data).map_err(io_error("open directory", data))?;
    directory.sync_all().map_err(io_error("sync directory", data))?;
    let gone = || io_error("read", path)(io::ErrorKind::NotFound.into());
    read(path)?.ok_or_else(gone)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(Some(bytes))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("a/b");
        let nowhere = directory.path().join("no machine id");
        let id = agent_id(&data, &nowhere, "host").unwrap();
        assert_eq!(agent_id(&data, &nowhere, "host").unwrap(), id);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "a temporary file was left");
        std::fs::write(data.join(ID_FILE), "nonsense").unwrap();
        assert!(matches!(agent_id(&data, &nowhere, "host"), Err(StateError::Id { .. })));
    }

    #[test]
    fn an_agent_whose_disk_was_erased_has_the_id_that_it_had_and_no_other_agent_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("agent");
        let machine = directory.path().join("machine-id");
        let id = |machine_id: &str, host: &str, data: &Path| {
            std::fs::write(&machine, machine_id).unwrap();
            std::fs::remove_dir_all(data).ok();
            agent_id(data, &machine, host).unwrap()
        };
        let (one, other) = ("3d1219c7c4c5404aaa1f6d2a48adfda4\n", "4d1219c7c4c5404aaa1f6d2a48adfda4\n");
        let first = id(one, "web-1", &data);
        assert_eq!(id(one, "web-1", &data), first);
        let elsewhere = directory.path().join("other");
        let ids = [first, id(other, "web-1", &data), id(one, "web-2", &data), id(one, "web-1", &elsewhere)];
        let distinct: std::collections::BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(!first.to_string().replace('-', "").contains("3d1219c7"), "the machine's id is not shown");
        for unset in ["", "uninitialized\n"] {
            assert_ne!(id(unset, "web-1", &data), id(unset, "web-1", &data), "{unset:?} is no machine's id");
        }
    }

    #[test]
    fn every_start_has_a_higher_epoch_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let first = next_push_epoch(directory.path()).unwrap();
        assert!(next_push_epoch(directory.path()).unwrap() > first);
        let ahead = first + 1_000_000;
        std::fs::write(directory.path().join(PUSH_EPOCH_FILE), ahead.to_string()).unwrap();
        assert_eq!(next_push_epoch(directory.path()).unwrap(), ahead + 1);
        std::fs::write(directory.path().join(PUSH_EPOCH_FILE), "17 or so").unwrap();
        assert!(matches!(next_push_epoch(directory.path()), Err(StateError::Epoch { .. })));
    }

    #[test]
    fn the_key_is_kept_and_refused_when_others_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let key = redaction_key(directory.path()).unwrap();
        assert_eq!(redaction_key(directory.path()).unwrap(), key);
        assert_ne!(key, [0; KEY_BYTES]);
        let path = directory.path().join(KEY_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(redaction_key(directory.path()), Err(StateError::KeyMode { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(redaction_key(directory.path()), Err(StateError::Key { .. })));
    }
}

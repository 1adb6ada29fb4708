//! A local directory as an object store in which a finished put survives a power cut.
//!
//! `object_store` 0.13 never syncs anything (its `with_fsync` came with 0.14), so puts are done here: the bytes go to a file
//! below `incoming/`, are synced through the descriptor that wrote them, and the file is renamed to its place; then the
//! directory is synced, and every directory above it, up to the root, that was not synced before by this process. An error of
//! a sync is never retried on the same file: the put fails, and the next attempt has another name.
//! Reading, listing and deleting are `object_store`'s own. Deletes are not synced: what comes back after a power cut is an
//! object without a row in the catalog, which nobody reads.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::error::StoreError;

/// Where puts are written before they get their name.
const INCOMING: &str = "incoming";

/// See the module.
#[derive(Debug)]
pub(crate) struct DurableDirectory {
    inner: LocalFileSystem,
    synced: Arc<Mutex<HashSet<PathBuf>>>,
    root: PathBuf,
}

impl DurableDirectory {
    /// Opens the directory, makes it if need be, and removes what unfinished puts left behind.
    ///
    /// # Errors
    /// When the directory can't be made, read or synced.
    pub(crate) fn open(root: &FilePath) -> std::result::Result<Self, StoreError> {
        let incoming = root.join(INCOMING);
        fs::create_dir_all(&incoming).map_err(|e| StoreError::io("create directory", &incoming, e))?;
        let leftovers =
            fs::read_dir(&incoming).map_err(|e| StoreError::io("list directory", &incoming, e))?;
        for leftover in leftovers {
            let leftover = leftover.map_err(|e| StoreError::io("list directory", &incoming, e))?.path();
            fs::remove_file(&leftover).map_err(|e| StoreError::io("remove unfinished file", &leftover, e))?;
        }
        for directory in [root.parent().unwrap_or(root), root] {
            sync_directory(directory).map_err(|e| StoreError::io("sync directory", directory, e))?;
        }
        let root = root.canonicalize().map_err(|e| StoreError::io("resolve directory", root, e))?;
        let inner = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| StoreError::object("open object store", &Path::default(), e))?;
        Ok(DurableDirectory { inner, synced: Arc::default(), root })
    }
}

impl std::fmt::Display for DurableDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableDirectory({})", self.root.display())
    }
}

/// Makes a directory's entries survive a power cut.
pub(crate) fn sync_directory(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes, syncs, names, and syncs the names.
fn put_file(
    root: &FilePath,
    target: &FilePath,
    payload: &PutPayload,
    synced: &Mutex<HashSet<PathBuf>>,
) -> io::Result<()> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let incoming = root.join(INCOMING).join(name);
    let written = write_synced(&incoming, payload).and_then(|()| {
        fs::create_dir_all(parent)?;
        if target.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&incoming, target)
    });
    if let Err(error) = written {
        // The first error is the one to report; a file that stays is removed when the store opens.
        drop(fs::remove_file(&incoming));
        return Err(error);
    }
    sync_directory(parent)?;
    let mut synced = synced.lock().unwrap_or_else(PoisonError::into_inner);
    let above: Vec<PathBuf> =
        parent.ancestors().skip(1).take_while(|a| a.starts_with(root)).map(PathBuf::from).collect();
    if synced.contains(parent) {
        return Ok(());
    }
    for directory in above {
        sync_directory(&directory)?;
    }
    synced.insert(parent.to_owned());
    Ok(())
}

fn write_synced(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_string();
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: "DurableDirectory", source: source.into() },
    }
}

#[async_trait]
impl ObjectStore for DurableDirectory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create || !options.attributes.is_empty() {
            return Err(Error::NotImplemented {
                operation: "put other than create, or with attributes".to_owned(),
                implementer: self.to_string(),
            });
        }
        let (root, synced) = (self.root.clone(), Arc::clone(&self.synced));
        let target = self.inner.path_to_filesystem(location)?;
        let put = tokio::task::spawn_blocking(move || put_file(&root, &target, &payload, &synced)).await;
        put.map_err(|source| Error::JoinError { source })?.map_err(failed(location))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart put".to_owned(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn create() -> PutOptions {
        PutOptions { mode: PutMode::Create, ..PutOptions::default() }
    }

    #[tokio::test]
    async fn a_put_object_is_there_whole_and_no_name_is_used_twice() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DurableDirectory::open(&directory.path().join("parquet")).unwrap();
        let path = Path::from("tenants/default/2026-11-20/a.parquet");
        let parts: PutPayload = [bytes::Bytes::from("one"), bytes::Bytes::from("two")].into_iter().collect();
        objects.put_opts(&path, parts, create()).await.unwrap();
        let again = objects.put_opts(&path, "other".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "onetwo");
        assert_eq!(fs::read_dir(directory.path().join("parquet/incoming")).unwrap().count(), 0);
        assert!(matches!(objects.put(&path, "x".into()).await, Err(Error::NotImplemented { .. })));
    }

    #[tokio::test]
    async fn a_put_that_cannot_get_its_name_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("parquet");
        let objects = DurableDirectory::open(&root).unwrap();
        fs::write(root.join("tenants"), b"a file where a directory has to be").unwrap();
        let put = objects.put_opts(&Path::from("tenants/a.parquet"), "x".into(), create()).await;
        assert!(put.is_err());
        assert_eq!(fs::read_dir(root.join(INCOMING)).unwrap().count(), 0);
    }
}

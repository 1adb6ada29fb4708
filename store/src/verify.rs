//! Reading every file whole and comparing it with the checksums in the catalog. Parquet's own pages carry none, so a flipped
//! bit can decode to a wrong value without any error; only this finds it.

use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use crate::catalog::{Catalog, Checksums, KnownFile};
use crate::error::StoreError;
use crate::recover::DamagedFile;

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files that are missing or differ from what was written.
    pub damaged: Vec<DamagedFile>,
}

impl VerifyReport {
    /// Whether every file is as it was written.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
    }
}

pub(crate) async fn verify(
    catalog: &dyn Catalog,
    objects: &Arc<dyn ObjectStore>,
) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport::default();
    for known in catalog.known_files(usize::MAX).await? {
        let checksums = catalog.checksums(known.file.file_id).await?;
        report.files += 1;
        match compare_file(objects, &known, &checksums).await {
            Ok(()) => {}
            Err(fault) => report.damaged.push(DamagedFile::new(&known, fault)),
        }
        report.bytes += known.file.bytes;
    }
    Ok(report)
}

async fn compare_file(
    objects: &Arc<dyn ObjectStore>,
    known: &KnownFile,
    checksums: &Checksums,
) -> Result<(), String> {
    let path = &known.file.path;
    let (length, sha256, crc32c) = hash_file(objects, path).await?;
    if length != known.file.bytes {
        return Err(format!("file has {length} bytes, the catalog says {}", known.file.bytes));
    }
    if sha256.as_slice() == checksums.sha256.as_slice() && crc32c == checksums.crc32c {
        return Ok(());
    }
    let mut places = Vec::new();
    for (number, group) in checksums.row_groups.iter().enumerate() {
        let range = group.offset_bytes..group.offset_bytes + group.length_bytes;
        let bytes =
            objects.get_range(path, range).await.map_err(|error| format!("file can't be read: {error}"))?;
        if crc32c::crc32c(&bytes) != group.crc32c {
            places.push(format!("row group {number} ({} rows)", group.rows));
        }
    }
    let place = if places.is_empty() {
        "outside its row groups".to_owned()
    } else {
        format!("in {}", places.join(", "))
    };
    Err(format!("checksum differs {place}"))
}

async fn hash_file(objects: &Arc<dyn ObjectStore>, path: &Path) -> Result<(u64, [u8; 32], u32), String> {
    let readable = |error: object_store::Error| match error {
        object_store::Error::NotFound { .. } => "file is missing".to_owned(),
        error => format!("file can't be read: {error}"),
    };
    let mut parts = objects.get(path).await.map_err(readable)?.into_stream();
    let (mut length, mut sha256, mut crc) = (0, Sha256::new(), 0);
    while let Some(part) = parts.next().await {
        let part = part.map_err(readable)?;
        length += part.len() as u64;
        sha256.update(&part);
        crc = crc32c::crc32c_append(crc, &part);
    }
    Ok((length, sha256.finalize().into(), crc))
}

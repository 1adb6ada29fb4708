//! A look at a file without reading it: its size, and whether its footer is that of the file it should be.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use uuid::Uuid;

use crate::catalog::FileFacts;
use crate::encode::key;
use crate::error::StoreError;
use crate::limits::FOOTER_BYTES_MAX;

/// The end of a Parquet file: the footer's length and the magic.
const TAIL_BYTES: u64 = 8;

fn fault(path: &Path, fault: impl Into<String>) -> StoreError {
    StoreError::ReadBack { path: path.to_string(), fault: fault.into() }
}

/// Reads and decodes a file's footer.
pub(crate) async fn read_footer(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: u64,
) -> Result<ParquetMetaData, StoreError> {
    let failed = |error| StoreError::object("read the footer of", path, error);
    let tail_start =
        bytes.checked_sub(TAIL_BYTES).ok_or_else(|| fault(path, "file is too short for a footer"))?;
    let tail = objects.get_range(path, tail_start..bytes).await.map_err(failed)?;
    let length = match tail.as_ref() {
        [a, b, c, d, b'P', b'A', b'R', b'1'] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => return Err(fault(path, "file does not end with the magic of Parquet")),
    };
    if length > FOOTER_BYTES_MAX as u64 {
        return Err(fault(path, format!("footer has {length} bytes, allowed are {FOOTER_BYTES_MAX}")));
    }
    let start =
        tail_start.checked_sub(length).ok_or_else(|| fault(path, "footer is longer than the file"))?;
    let footer = objects.get_range(path, start..tail_start).await.map_err(failed)?;
    ParquetMetaDataReader::decode_metadata(&footer).map_err(|_| fault(path, "footer can't be decoded"))
}

/// Whether the footer is that of the file with this id and number of rows.
pub(crate) fn compare(metadata: &ParquetMetaData, file_id: Uuid, rows: u64) -> Result<(), String> {
    let file = metadata.file_metadata();
    if u64::try_from(file.num_rows()) != Ok(rows) {
        return Err(format!("footer counts {} rows, the catalog {rows}", file.num_rows()));
    }
    let pairs = file.key_value_metadata().map(Vec::as_slice).unwrap_or_default();
    let found = pairs.iter().find(|pair| pair.key == key::FILE_ID).and_then(|pair| pair.value.as_deref());
    if found == Some(file_id.to_string().as_str()) {
        Ok(())
    } else {
        Err("footer names another file".to_owned())
    }
}

/// Reads a file's footer back right after it was written.
pub(crate) async fn check_footer(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    facts: &FileFacts,
) -> Result<(), StoreError> {
    let metadata = read_footer(objects, path, facts.bytes).await?;
    compare(&metadata, facts.file_id, facts.rows).map_err(|difference| fault(path, difference))
}

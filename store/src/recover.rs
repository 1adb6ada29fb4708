//! Start-up: what an interrupted flush left behind is removed, and every file is looked at.
//!
//! Both are safe to interrupt and to repeat. Nothing that a catalog row says is live is ever deleted here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use crate::catalog::{Catalog, KnownFile};
use crate::error::StoreError;
use crate::footer::{compare, read_footer};
use crate::limits::{OPEN_CHECK_FILES_MAX, OPEN_CHECK_PARALLEL};

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Files that were announced and never committed; the journal still has their rows.
    pub staged_removed: u64,
    /// Files whose size and footer were looked at.
    pub files_checked: u64,
    /// Files beyond the number that is looked at.
    pub files_unchecked: u64,
    /// Files that are missing or damaged; queries leave them out until they are back.
    pub damaged: Vec<DamagedFile>,
    /// Files that were damaged at an earlier start and are whole again.
    pub healed: u64,
    /// How long it took.
    pub took: Duration,
}

/// A file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedFile {
    /// Which file.
    pub file_id: Uuid,
    /// Where it is or should be.
    pub path: Path,
    /// Whose rows it holds.
    pub tenant: String,
    /// How many.
    pub rows: u64,
    /// What is wrong.
    pub fault: String,
}

impl DamagedFile {
    pub(crate) fn new(known: &KnownFile, fault: String) -> Self {
        DamagedFile {
            file_id: known.file.file_id,
            path: known.file.path.clone(),
            tenant: known.tenant.clone(),
            rows: known.file.rows,
            fault,
        }
    }
}

/// Removes announced files: the object first, the row after it, so that an object never stays without a row.
pub(crate) async fn sweep_staged(
    catalog: &dyn Catalog,
    objects: &Arc<dyn ObjectStore>,
) -> Result<u64, StoreError> {
    let staged = catalog.staged().await?;
    for (file_id, path) in &staged {
        match objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StoreError::object("delete", path, error)),
        }
        catalog.unstage(*file_id).await?;
    }
    Ok(staged.len() as u64)
}

/// Mends and checks.
pub(crate) async fn recover(
    catalog: &dyn Catalog,
    objects: &Arc<dyn ObjectStore>,
) -> Result<RecoveryReport, StoreError> {
    let started = Instant::now();
    let staged_removed = sweep_staged(catalog, objects).await?;
    let mut report = RecoveryReport { staged_removed, ..RecoveryReport::default() };
    if report.staged_removed > 0 {
        tracing::info!(files = report.staged_removed, "removed files of an interrupted flush");
    }
    let known = catalog.known_files(OPEN_CHECK_FILES_MAX).await?;
    let totals = catalog.totals().await?;
    report.files_checked = known.len() as u64;
    report.files_unchecked = (totals.files + totals.damaged_files).saturating_sub(report.files_checked);
    let mut checks = stream::iter(known)
        .map(|known| async move {
            let fault = check(objects, &known).await.err();
            (known, fault)
        })
        .buffer_unordered(OPEN_CHECK_PARALLEL);
    while let Some((known, fault)) = checks.next().await {
        let file_id = known.file.file_id;
        match (known.is_damaged, fault) {
            (was_damaged, Some(fault)) => {
                if !was_damaged {
                    catalog.mark(file_id, Some(&fault)).await?;
                }
                tracing::error!(path = %known.file.path, rows = known.file.rows, fault, "file is damaged and left out of queries");
                report.damaged.push(DamagedFile::new(&known, fault));
            }
            (true, None) => {
                catalog.mark(file_id, None).await?;
                tracing::info!(path = %known.file.path, "file is whole again");
                report.healed += 1;
            }
            (false, None) => {}
        }
    }
    report.took = started.elapsed();
    Ok(report)
}

/// Size and footer of one file.
async fn check(objects: &Arc<dyn ObjectStore>, known: &KnownFile) -> Result<(), String> {
    let file = &known.file;
    let size = match objects.head(&file.path).await {
        Ok(meta) => meta.size,
        Err(object_store::Error::NotFound { .. }) => return Err("file is missing".to_owned()),
        Err(error) => return Err(format!("file can't be looked at: {error}")),
    };
    if size != file.bytes {
        return Err(format!("file has {size} bytes, the catalog says {}", file.bytes));
    }
    let metadata = read_footer(objects, &file.path, size).await.map_err(|error| error.to_string())?;
    compare(&metadata, file.file_id, file.rows)
}

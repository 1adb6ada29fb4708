//! What a file looks like from outside, to tell whether it has changed.

use std::path::Path;
use std::time::SystemTime;

/// When a file was changed, and its length; none of one that cannot be looked at.
pub(crate) type Stamp = Option<(SystemTime, u64)>;

/// What a file looks like now.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

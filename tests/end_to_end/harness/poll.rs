//! Waiting for a condition, with a limit. The pause between two looks is not what a test relies on.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something, at most for `limit`.
///
/// # Panics
/// When the limit passes, naming what was waited for.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    try_wait_for(limit, &mut look)
        .unwrap_or_else(|| panic!("waited {} s in vain for {what}", limit.as_secs()))
}

/// Like [`wait_for`], for a condition.
pub(crate) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}

/// Looks until `look` gives something or the limit passes.
pub(crate) fn try_wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Seconds, for short limits in the stories.
pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

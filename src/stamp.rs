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

/// Tells when something that is looked at again and again has become something else, and has stood still since the look before: what
/// is being written is not read half.
pub(crate) struct Settling<S> {
    used: S,
    seen: S,
}

impl<S: PartialEq + Clone> Settling<S> {
    /// This is what is in use.
    pub(crate) fn new(used: S) -> Settling<S> {
        Settling { seen: used.clone(), used }
    }

    /// Another look. When it is something new that stands still, that counts as used from now on.
    pub(crate) fn is_new(&mut self, now: S) -> bool {
        let stands_still = now == self.seen;
        self.seen = now;
        let is_new = stands_still && self.seen != self.used;
        if is_new {
            self.used = self.seen.clone();
        }
        is_new
    }

    /// This is used now, whether it stands still or not.
    pub(crate) fn take(&mut self, now: S) {
        *self = Settling::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_counts_once_it_stands_still_and_counts_once() {
        let mut settling = Settling::new(1);
        let looks = [1, 2, 3, 3, 3, 4, 3, 3, 1, 1].map(|now| settling.is_new(now));
        assert_eq!(looks, [false, false, false, true, false, false, false, false, false, true]);
        settling.take(5);
        assert!(!settling.is_new(5));
    }
}

//! Lines of a buffer, walked from left to right.

use std::ops::Range;

/// Where lines begin and end, walked from left to right.
pub(super) struct Lines<'a> {
    offsets: &'a [i32],
    /// The line that held the last position asked for.
    line: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(offsets: &'a [i32]) -> Lines<'a> {
        Lines { offsets, line: 0 }
    }

    pub(super) fn bound(&self, index: usize) -> usize {
        self.offsets.get(index).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(usize::MAX)
    }

    pub(super) fn count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The line that holds `at`. Quick where `at` is near that of the last call.
    pub(super) fn holding(&mut self, at: usize) -> (usize, Range<usize>) {
        while self.line > 0 && self.bound(self.line) > at {
            self.line -= 1;
        }
        while self.bound(self.line + 1) <= at {
            self.line += 1;
        }
        (self.line, self.bound(self.line)..self.bound(self.line + 1))
    }
}

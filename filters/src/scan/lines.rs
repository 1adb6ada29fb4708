//! Lines of a buffer, walked from left to right.

use std::ops::Range;

/// Where lines begin and end, walked from left to right.
pub(super) struct Lines<'a> {
    offsets: &'a [i32],
    /// The line that held the last position asked for, and where it begins and ends.
    line: usize,
    bounds: Range<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(offsets: &'a [i32]) -> Lines<'a> {
        Lines { offsets, line: 0, bounds: 0..0 }
    }

    pub(super) fn bound(&self, index: usize) -> usize {
        self.offsets.get(index).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(usize::MAX)
    }

    pub(super) fn count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The line that holds `at`. Quick where `at` is near that of the last call.
    #[inline]
    pub(super) fn holding(&mut self, at: usize) -> (usize, Range<usize>) {
        if !self.bounds.contains(&at) {
            self.look_up(at);
        }
        (self.line, self.bounds.clone())
    }

    fn look_up(&mut self, at: usize) {
        while self.line > 0 && self.bound(self.line) > at {
            self.line -= 1;
        }
        while self.bound(self.line + 1) <= at {
            self.line += 1;
        }
        self.bounds = self.bound(self.line)..self.bound(self.line + 1);
    }
}

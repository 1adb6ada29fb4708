//! How long to wait before something that failed is tried again: twice as long each time, with jitter, up to a limit.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

/// The waits of one thing that may fail.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    randomness: RandomState,
}

impl Backoff {
    /// It has failed again: how long to wait. Between half of the step and the whole of it, so that many who failed together
    /// do not come back together.
    pub fn next_wait(&mut self) -> Duration {
        let step = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let random = self.randomness.hash_one(self.failures);
        let half = step / 2;
        let spread_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(random % spread_ns)
    }

    /// It has worked.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// How often it has failed since it worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        let first = backoff.next_wait();
        assert!(first >= BACKOFF_MIN / 2 && first <= BACKOFF_MIN);
        for _ in 0..100 {
            let wait = backoff.next_wait();
            assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX);
        }
        assert!(backoff.next_wait() >= BACKOFF_MAX / 2);
        backoff.reset();
        assert!(backoff.next_wait() <= BACKOFF_MIN);
    }
}

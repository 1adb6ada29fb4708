//! The clock of the host, as rows want it, and that of a thread's work.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_64;

/// Now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// How much processor time this thread has taken.
pub(crate) fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How the clock stands against the time since the host was started, which no step of the clock changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMark {
    /// The clock less the time since the start, in nanoseconds.
    pub offset_ns: i64,
    /// Which start of the host it was. Marks of two starts cannot be compared.
    pub boot: u64,
}

impl ClockMark {
    /// How it stands now.
    pub fn now() -> Self {
        static BOOT: OnceLock<u64> = OnceLock::new();
        // A host that does not tell has one start for all we know; then a step within it is still seen.
        let boot = BOOT
            .get_or_init(|| xxh3_64(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()));
        let running = clock_gettime(ClockId::Boottime);
        let running_ns = running.tv_sec.saturating_mul(1_000_000_000).saturating_add(running.tv_nsec);
        ClockMark { offset_ns: now_ns().saturating_sub(running_ns), boot: *boot }
    }

    /// How far the clock has been set back since `earlier`, in nanoseconds; 0 where that cannot be said.
    pub fn step_back_ns(self, earlier: ClockMark) -> i64 {
        if self.boot == earlier.boot { earlier.offset_ns.saturating_sub(self.offset_ns).max(0) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_has_not_stepped_back_and_one_that_was_has() {
        let before = ClockMark::now();
        let after = ClockMark::now();
        assert!(after.step_back_ns(before) < 50_000_000);
        let hour = 3_600_000_000_000;
        let ahead = ClockMark { offset_ns: before.offset_ns + hour, ..before };
        assert!((after.step_back_ns(ahead) - hour).abs() < 50_000_000);
        assert_eq!(ahead.step_back_ns(after), 0);
        assert_eq!(
            after.step_back_ns(ClockMark { boot: !ahead.boot, ..ahead }),
            0,
            "another start of the host"
        );
    }
}

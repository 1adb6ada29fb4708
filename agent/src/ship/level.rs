//! Which level of zstd frames are compressed with, by load. Pure.
//!
//! Idle, a higher level makes the wire smaller for time that nobody misses; where the pump's thread is what everything waits for, a
//! lower one gives time back. A backlog behind a slow link while the thread idles asks for a higher level, as an idle host does. A
//! lower level is taken at once, a higher one only after some calm seconds, and between the two shares of a core nothing changes.

use crate::limits::{
    COMPRESSION_BACKLOG_BYTES, COMPRESSION_BUSY_PERCENT, COMPRESSION_CALM_SECONDS, COMPRESSION_IDLE_PERCENT,
    COMPRESSION_LEVELS,
};

/// The level to start with, and the lowest one while nothing is urgent.
pub const USUAL: i32 = 1;

/// How things stood in the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The share of one core that the pump's thread took, in per cent.
    pub busy_percent: u32,
    /// What is not read yet of all sources, in bytes.
    pub lag_bytes: u64,
    /// Whether Docker is about to remove what has not been read.
    pub is_hurried: bool,
}

/// How frames are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// By load.
    #[default]
    ByLoad,
    /// Always with this level.
    Fixed(i32),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LevelByLoad {
    level: i32,
    is_fixed: bool,
    calm_seconds: u32,
}

impl LevelByLoad {
    /// The level at the start.
    pub fn new(compression: Compression) -> Self {
        let (level, is_fixed) = match compression {
            Compression::ByLoad => (USUAL, false),
            Compression::Fixed(level) => (level, true),
        };
        LevelByLoad { level, is_fixed, calm_seconds: 0 }
    }

    /// The level now.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// A second has passed. `true` when there is another level now.
    ///
    /// ```
    /// use beeacon_agent::ship::level::{Compression, LevelByLoad, Load};
    /// let mut level = LevelByLoad::new(Compression::ByLoad);
    /// for _ in 0..60 {
    ///     level.observe(Load::default());
    /// }
    /// assert_eq!(level.level(), 6);
    /// assert!(level.observe(Load { busy_percent: 100, ..Load::default() }));
    /// assert_eq!(level.level(), 1);
    /// ```
    pub fn observe(&mut self, load: Load) -> bool {
        if self.is_fixed {
            return false;
        }
        let before = self.level;
        let is_calm = load.busy_percent < COMPRESSION_IDLE_PERCENT && !load.is_hurried;
        self.calm_seconds = if is_calm { self.calm_seconds + 1 } else { 0 };
        let is_urgent = load.is_hurried || load.lag_bytes >= COMPRESSION_BACKLOG_BYTES;
        let is_relieved = !load.is_hurried && load.lag_bytes < COMPRESSION_BACKLOG_BYTES / 4;
        if before < USUAL && is_relieved {
            self.level = USUAL;
        } else if load.busy_percent >= COMPRESSION_BUSY_PERCENT {
            let lower = COMPRESSION_LEVELS.into_iter().rev().find(|level| *level < before);
            let lowest = if is_urgent { i32::MIN } else { USUAL.min(before) };
            self.level = lower.unwrap_or(before).max(lowest);
        } else if self.calm_seconds >= COMPRESSION_CALM_SECONDS {
            self.calm_seconds = 0;
            self.level = COMPRESSION_LEVELS.into_iter().find(|level| *level > before).unwrap_or(before);
        }
        self.level != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy_percent: u32, lag_bytes: u64, is_hurried: bool) -> Load {
        Load { busy_percent, lag_bytes, is_hurried }
    }

    /// What each stretch of seconds under one load ends with, one after another.
    #[test]
    fn each_load_has_its_level() {
        let backlog = COMPRESSION_BACKLOG_BYTES;
        let table = [
            ("the first calm seconds change nothing", 9, load(0, 0, false), 1),
            ("then one step", 1, load(19, 0, false), 6),
            ("which is the last", 100, load(0, 0, false), 6),
            ("between the two shares nothing changes", 100, load(69, 0, false), 6),
            ("busy: one step at once", 1, load(70, 0, false), 1),
            ("but not below the usual one", 10, load(100, backlog - 1, false), 1),
            ("unless much waits", 1, load(100, backlog, false), -1),
            ("and it stays until little does", 20, load(50, backlog / 4, false), -1),
            ("then the usual one again", 1, load(50, backlog / 4 - 1, false), 1),
            ("or Docker is about to remove something", 1, load(90, 0, true), -1),
            ("an idle thread behind a slow link compresses more", 30, load(5, backlog, false), 6),
        ];
        let mut by_load = LevelByLoad::new(Compression::ByLoad);
        for (what, seconds, load, expected) in table {
            (0..seconds).for_each(|_| {
                by_load.observe(load);
            });
            assert_eq!(by_load.level(), expected, "{what}");
        }
    }

    #[test]
    fn calm_seconds_count_only_in_a_row() {
        let mut by_load = LevelByLoad::new(Compression::ByLoad);
        for second in 0..100 {
            assert!(!by_load.observe(load(if second % 9 == 8 { 30 } else { 0 }, 0, false)));
        }
    }

    #[test]
    fn a_fixed_level_stays() {
        let mut fixed = LevelByLoad::new(Compression::Fixed(2));
        for load in [load(0, 0, false), load(100, u64::MAX, true)] {
            (0..100).for_each(|_| assert!(!fixed.observe(load)));
        }
        assert_eq!(fixed.level(), 2);
    }
}

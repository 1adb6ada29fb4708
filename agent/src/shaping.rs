//! Rows that a container's configuration leaves out: sampling and a limit of lines per second.
//!
//! What always holds: a row left out is counted, in a metric and in the interval that covers it, so no gap is told of; which
//! rows sampling keeps depends on their places alone, so it is the same when they are read again; lines of errors are never
//! left out by sampling.

use beeacon_record::{Level, Position};

use crate::limits::RATE_BURST_SECONDS;
use crate::metrics::Metrics;

/// All rows, in millionths.
pub const MILLION: u32 = 1_000_000;

/// What is left out of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shaping {
    /// Rows are kept whose place in their hash's range lies below; all without it.
    below: Option<u64>,
    rate: Option<Bucket>,
    /// Rows from before are passed over, in nanoseconds since 1970; none without it.
    since_ns: Option<i64>,
}

/// Fills by the rows' own timestamps: reading fast what was written slowly leaves nothing out.
#[derive(Clone, Debug, PartialEq)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    timestamp_ns: i64,
}

impl Shaping {
    /// Keeps so many of a million rows, and at most so many lines per second.
    pub fn new(sample_millionths: u32, lines_per_second: Option<u32>) -> Self {
        let below = (sample_millionths < MILLION)
            .then(|| (u64::MAX / u64::from(MILLION)).saturating_mul(sample_millionths.into()));
        let rate = lines_per_second.map(|per_second| Bucket {
            per_second: per_second.into(),
            tokens: f64::from(per_second) * RATE_BURST_SECONDS,
            timestamp_ns: i64::MIN,
        });
        Shaping { below, rate, since_ns: None }
    }

    /// The same, which passes over rows from before a time without counting them: for looking at a part of a log.
    pub(crate) fn since(self, since_ns: i64) -> Self {
        Shaping { since_ns: Some(since_ns), ..self }
    }

    /// Whether a row is kept. One that is not is counted.
    pub fn keeps(&mut self, position: Position, timestamp_ns: i64, level: Level, metrics: &Metrics) -> bool {
        if self.since_ns.is_some_and(|since_ns| timestamp_ns < since_ns) {
            return false;
        }
        if let Some(below) = self.below
            && !matches!(level, Level::Error | Level::Fatal)
            && hash(position) >= below
        {
            metrics.sampled_rows.inc();
            return false;
        }
        if let Some(bucket) = &mut self.rate
            && !bucket.takes(timestamp_ns)
        {
            metrics.rate_limited_rows.inc();
            return false;
        }
        true
    }
}

impl Bucket {
    fn takes(&mut self, timestamp_ns: i64) -> bool {
        if timestamp_ns > self.timestamp_ns {
            let span_ns = timestamp_ns.saturating_sub(self.timestamp_ns);
            let seconds = span_ns as f64 / 1e9;
            let most = self.per_second * RATE_BURST_SECONDS;
            self.tokens = (self.tokens + seconds * self.per_second).min(most);
            self.timestamp_ns = timestamp_ns;
        }
        let has_room = self.tokens >= 1.0;
        if has_room {
            self.tokens -= 1.0;
        }
        has_room
    }
}

/// Even over all positions, and the same at every reading.
fn hash(position: Position) -> u64 {
    let mut bytes = [0; 16];
    let (major, minor) = bytes.split_at_mut(8);
    major.copy_from_slice(&position.major.to_le_bytes());
    minor.copy_from_slice(&position.minor.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(shaping: &mut Shaping, rows: u64, step_ns: i64, level: Level) -> usize {
        let metrics = Metrics::default();
        let mut timestamp_ns = 0;
        let mut count = 0;
        for row in 0..rows {
            count += usize::from(shaping.keeps(Position::new(1, row * 97), timestamp_ns, level, &metrics));
            timestamp_ns += step_ns;
        }
        let left_out = metrics.sampled_rows.get() + metrics.rate_limited_rows.get();
        assert_eq!(count as u64 + left_out, rows);
        count
    }

    #[test]
    fn sampling_keeps_the_same_share_of_rows_each_time_and_every_error() {
        let mut shaping = Shaping::new(100_000, None);
        let first = kept(&mut shaping, 10_000, 1, Level::Info);
        assert!((800..1200).contains(&first), "{first}");
        assert_eq!(kept(&mut shaping, 10_000, 1, Level::Info), first);
        assert_eq!(kept(&mut shaping, 100, 1, Level::Error), 100);
        assert_eq!(kept(&mut Shaping::new(0, None), 100, 1, Level::Unknown), 0);
        assert_eq!(kept(&mut Shaping::new(MILLION, None), 100, 1, Level::Unknown), 100);
    }

    #[test]
    fn a_rate_counts_by_the_rows_own_time_and_allows_a_burst() {
        assert_eq!(kept(&mut Shaping::new(MILLION, Some(10)), 1000, 100_000_000, Level::Info), 1000);
        assert_eq!(kept(&mut Shaping::new(MILLION, Some(10)), 1000, 0, Level::Info), 50);
        // A clock that steps back fills nothing.
        assert_eq!(kept(&mut Shaping::new(MILLION, Some(10)), 1000, -1_000_000_000, Level::Info), 50);
    }
}

//! When a group is evaluated: at multiples of its interval, shifted by a part of it that its name decides, so that many
//! groups do not all run in one moment.
//!
//! Evaluations that a pause swallowed are caught up when the rule's query can be asked about a past moment, at most
//! [`CATCH_UP_MAX`] of them, oldest first; the others are told as missed. None is silently left out.

use std::time::Duration;

use jiff::Timestamp;

use crate::labels::fnv_of;
use crate::limits::CATCH_UP_MAX;

/// What has to be evaluated now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The moments, oldest first. The last one is the newest that is due.
    pub moments: Vec<Timestamp>,
    /// The evaluations that will never be made.
    pub missed: Option<Missed>,
}

/// Evaluations that were not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The moment of the first one.
    pub from: Timestamp,
    /// The moment of the last one.
    pub to: Timestamp,
    /// How many.
    pub count: u64,
}

/// Whether past moments can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// The query names its moment.
    Possible,
    /// The query speaks of now.
    Impossible,
}

/// The moments at which one group is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval_ns: i128,
    offset_ns: i128,
}

impl Schedule {
    /// The schedule of a group with a name and an interval.
    #[must_use]
    pub fn new(name: &str, interval: Duration) -> Schedule {
        let interval_ns = i128::try_from(interval.as_nanos()).unwrap_or(i128::MAX).max(1);
        // Whole seconds, so that the moments are, and a query's `$at` is pleasant to read.
        let seconds = i128::from(interval.as_secs()).max(1);
        let offset_ns = i128::from(fnv_of(name.as_bytes())).rem_euclid(seconds) * 1_000_000_000;
        Schedule { interval_ns, offset_ns }
    }

    /// The newest moment at or before a time.
    fn moment_at(self, now: Timestamp) -> i128 {
        let since = now.as_nanosecond() - self.offset_ns;
        since - since.rem_euclid(self.interval_ns) + self.offset_ns
    }

    /// The first moment after a time.
    #[must_use]
    pub fn next_after(self, now: Timestamp) -> Timestamp {
        Timestamp::from_nanosecond(self.moment_at(now) + self.interval_ns).unwrap_or(Timestamp::MAX)
    }

    /// What is due at `now`, when `last` was the newest moment evaluated.
    #[must_use]
    pub fn due(self, last: Option<Timestamp>, now: Timestamp, catch_up: CatchUp) -> Due {
        let newest = self.moment_at(now);
        // Without a last evaluation there is no past to catch up with.
        let last = last.map_or(newest - self.interval_ns, |last| self.moment_at(last));
        let count = (newest - last) / self.interval_ns;
        if count <= 0 {
            return Due::default();
        }
        let kept_max = match catch_up {
            CatchUp::Possible => i128::try_from(CATCH_UP_MAX).unwrap_or(i128::MAX),
            CatchUp::Impossible => 1,
        };
        let kept = count.min(kept_max);
        let moment = |number: i128| {
            Timestamp::from_nanosecond(last + number * self.interval_ns).unwrap_or(Timestamp::MIN)
        };
        let missed = (count > kept).then(|| Missed {
            from: moment(1),
            to: moment(count - kept),
            count: u64::try_from(count - kept).unwrap_or(u64::MAX),
        });
        Due { moments: (count - kept + 1..=count).map(moment).collect(), missed }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_evaluation_is_the_newest_moment_alone() {
        let schedule = Schedule::new("group", Duration::from_secs(60));
        let due = schedule.due(None, at(1_000_000), CatchUp::Possible);
        assert_eq!(due.moments.len(), 1);
        assert_eq!(due.missed, None);
        assert_eq!(schedule.due(Some(due.moments[0]), at(1_000_000), CatchUp::Possible), Due::default());
    }

    #[test]
    fn a_query_about_now_is_not_asked_about_the_past() {
        let schedule = Schedule::new("group", Duration::from_secs(60));
        let last = schedule.due(None, at(1_000_000), CatchUp::Impossible).moments[0];
        let due = schedule.due(Some(last), at(1_000_600), CatchUp::Impossible);
        assert_eq!((due.moments.len(), due.missed.unwrap().count), (1, 9));
    }

    proptest! {
        /// Guarantees: between two calls every moment is either evaluated or told as missed, once, in order.
        #[test]
        fn every_moment_is_evaluated_or_told(
            interval in 1_u64..4_000, pauses in proptest::collection::vec(0_i64..300_000, 1..30), name in "[a-z]{0,6}",
        ) {
            let schedule = Schedule::new(&name, Duration::from_secs(interval));
            let step = i64::try_from(interval).unwrap();
            let (mut now, mut last) = (1_700_000_000, None::<Timestamp>);
            for pause in pauses {
                now += pause;
                let due = schedule.due(last, at(now), CatchUp::Possible);
                let mut expected = last.map(|last| last.as_second() + step);
                if let Some(missed) = due.missed {
                    prop_assert_eq!(Some(missed.from.as_second()), expected);
                    let count = i64::try_from(missed.count).unwrap();
                    prop_assert_eq!(missed.to.as_second(), missed.from.as_second() + (count - 1) * step);
                    expected = Some(missed.to.as_second() + step);
                }
                for moment in &due.moments {
                    prop_assert_eq!(moment.as_second(), expected.unwrap_or(moment.as_second()));
                    prop_assert!(moment.as_second() <= now);
                    expected = Some(moment.as_second() + step);
                }
                prop_assert!(due.moments.len() <= CATCH_UP_MAX);
                last = due.moments.last().copied().or(last);
                prop_assert!(last.unwrap().as_second() > now - step);
                prop_assert_eq!(schedule.next_after(at(now)).as_second(), last.unwrap().as_second() + step);
            }
        }
    }
}

//! When a message that was not taken is tried again.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::limits::{DELIVERY_TRIED_FOR, RETRY_AFTER_MOST, RETRY_FIRST, RETRY_MOST};

/// The pauses between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first pause; it doubles from there.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// How long a message is tried.
    pub tried_for: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { first: RETRY_FIRST, most: RETRY_MOST, tried_for: DELIVERY_TRIED_FOR }
    }
}

impl Retry {
    /// The time of the next attempt; none when the message has been tried for long enough. `attempts` is how many failed before
    /// this one; `after` is what the receiver asked for.
    ///
    /// A pause is spread over its half and itself by the message's id, so that many messages do not come back together, and the
    /// same message keeps its times when they are counted again.
    #[must_use]
    pub fn next(
        &self,
        id: &str,
        attempts: u32,
        made_at: Timestamp,
        now: Timestamp,
        after: Option<Duration>,
    ) -> Option<Timestamp> {
        let whole = self.first.saturating_mul(1 << attempts.min(30)).min(self.most);
        let part = u32::from(spread(id, attempts));
        let pause = whole / 2 + whole / 2 * part / 255;
        let pause = pause.max(after.unwrap_or(Duration::ZERO).min(RETRY_AFTER_MOST));
        let next_at = now.checked_add(pause).ok()?;
        let last_at = made_at.checked_add(self.tried_for).unwrap_or(Timestamp::MAX);
        (next_at <= last_at).then_some(next_at)
    }
}

fn spread(id: &str, attempts: u32) -> u8 {
    let mut hash = Sha256::new();
    hash.update(attempts.to_be_bytes());
    hash.update(id.as_bytes());
    hash.finalize().first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_spread_and_end_after_a_day() {
        let at = |seconds: i64| Timestamp::from_second(1_764_187_200 + seconds).unwrap();
        let pause = |id: &str, attempts, after| {
            let next = Retry::default().next(id, attempts, at(0), at(0), after).unwrap();
            Duration::try_from(next.duration_since(at(0))).unwrap()
        };
        for (attempts, whole) in [(0, 1), (1, 2), (4, 16), (8, 256), (9, 300), (4_000, 300)] {
            let whole = Duration::from_secs(whole);
            let pauses: Vec<_> =
                (0..200).map(|number| pause(&format!("msg_{number}"), attempts, None)).collect();
            assert!(pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)), "{attempts}");
            let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*most - *least > whole / 3, "the pauses after attempt {attempts} are not spread");
        }
        assert_eq!(pause("a", 3, None), pause("a", 3, None));
        assert_eq!(pause("a", 0, Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(pause("a", 0, Some(Duration::from_secs(90_000))), Duration::from_secs(3_600));
        let retry = Retry::default();
        assert!(retry.next("a", 300, at(0), at(86_000), None).is_some());
        assert_eq!(retry.next("a", 300, at(0), at(86_399), None), None);
    }
}

//! How often one address asks one endpoint, and how often all of them are asked.
//!
//! A window of a minute begins with the first request and holds so many; then `429` until it ends. Counted always in memory, and in
//! Redis too where there is one, so that several servers count together: `rate_limit:{ip}:{endpoint}`. What Redis says decides while
//! it answers; when it does not, memory has counted all along. Addresses of IPv6 count by their first 64 bits, which is what one
//! subscriber has.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{STATISTICS_HOURS_MAX, WINDOW, WINDOWS_MAX};
use crate::redis::Redis;

/// How an address stands with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests in this window, this one included.
    pub count: u64,
    /// How many are allowed.
    pub limit: u64,
    /// When the window ends.
    pub ends_in: Duration,
}

impl Standing {
    /// Whether this request is one too many.
    pub fn is_over(&self) -> bool {
        self.count > self.limit
    }

    /// How many are left.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.count)
    }

    /// The whole seconds until the window ends, one at least.
    pub fn ends_in_seconds(&self) -> u64 {
        (self.ends_in.as_millis().div_ceil(1_000)).try_into().unwrap_or(u64::MAX).max(1)
    }
}

#[derive(Debug)]
struct Window {
    began: Instant,
    count: u64,
}

/// The windows of all addresses. Pure: the time is given.
#[derive(Debug, Default)]
struct Windows {
    windows: HashMap<String, Window>,
    purged: Option<Instant>,
}

impl Windows {
    fn count(&mut self, key: String, overflow: String, now: Instant) -> (u64, Duration) {
        let is_old = |window: &Window| now.duration_since(window.began) >= WINDOW;
        let mut key = key;
        if self.windows.len() >= WINDOWS_MAX && !self.windows.contains_key(&key) {
            // Looking through all of them for every new address would be what the address wants.
            if self.purged.is_none_or(|purged| now.duration_since(purged) >= Duration::from_secs(1)) {
                self.windows.retain(|_, window| !is_old(window));
                self.purged = Some(now);
            }
            if self.windows.len() >= WINDOWS_MAX {
                key = overflow;
            }
        }
        let window = self.windows.entry(key).or_insert(Window { began: now, count: 0 });
        if is_old(window) {
            *window = Window { began: now, count: 0 };
        }
        window.count += 1;
        (window.count, WINDOW.saturating_sub(now.duration_since(window.began)))
    }
}

/// Counts requests.
#[derive(Debug)]
pub struct Limiter {
    per_minute: u64,
    windows: Mutex<Windows>,
    hours: Mutex<BTreeMap<i64, BTreeMap<&'static str, u64>>>,
    redis: Option<Redis>,
}

impl Limiter {
    /// Allows so many requests a minute of one address to one endpoint; with Redis, to all servers that share it.
    pub fn new(per_minute: u64, redis: Option<Redis>) -> Self {
        Limiter { per_minute, windows: Mutex::default(), hours: Mutex::default(), redis }
    }

    /// Counts a request to an endpoint with the configured limit.
    pub async fn count(&self, from: IpAddr, endpoint: &str) -> Standing {
        let key = format!("rate_limit:{}:{endpoint}", counted(from));
        let (count, ends_in) = self.count_here(key.clone(), endpoint);
        let shared = match &self.redis {
            Some(redis) => redis.count(&key, WINDOW).await,
            None => None,
        };
        let (count, ends_in) = shared.unwrap_or((count, ends_in));
        Standing { count, limit: self.per_minute, ends_in }
    }

    /// Counts something of an address that only this process has to know, with a limit of its own.
    pub fn count_locally(&self, from: IpAddr, what: &str, limit: u64) -> Standing {
        let (count, ends_in) = self.count_here(format!("rate_limit:{}:{what}", counted(from)), what);
        Standing { count, limit, ends_in }
    }

    fn count_here(&self, key: String, endpoint: &str) -> (u64, Duration) {
        // Every step under this lock is one call, so a panic leaves usable windows.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.count(key, format!("rate_limit:others:{endpoint}"), Instant::now())
    }

    /// Notes an answered request for the statistics of its hour (hours since 1970, UTC).
    pub fn note(&self, hour: i64, endpoint: &'static str) {
        let mut hours = self.hours();
        *hours.entry(hour).or_default().entry(endpoint).or_default() += 1;
        while hours.len() > STATISTICS_HOURS_MAX {
            hours.pop_first();
        }
    }

    /// Requests of an hour by endpoint: of all servers where Redis has them, else of this one.
    pub async fn requests(&self, hour: i64) -> BTreeMap<String, u64> {
        let shared = match &self.redis {
            Some(redis) => redis.requests(hour).await,
            None => None,
        };
        // What this server counted since it last told is newer than what Redis has; less is never said.
        let mut requests = shared.unwrap_or_default();
        for (endpoint, count) in self.hours().get(&hour).into_iter().flatten() {
            let entry = requests.entry((*endpoint).to_owned()).or_default();
            *entry = (*entry).max(*count);
        }
        requests
    }

    /// What this server counted, for Redis.
    pub(crate) fn counted(&self, hour: i64) -> Vec<(&'static str, u64)> {
        self.hours().get(&hour).into_iter().flatten().map(|(endpoint, count)| (*endpoint, *count)).collect()
    }

    fn hours(&self) -> MutexGuard<'_, BTreeMap<i64, BTreeMap<&'static str, u64>>> {
        self.hours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Redis that it counts in.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }
}

/// The address that is counted.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_with_its_first_request_and_ends_after_a_minute() {
        let mut windows = Windows::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut count = |seconds| windows.count("a".into(), "others".into(), at(seconds));
        assert_eq!(count(0), (1, WINDOW));
        assert_eq!(count(59), (2, Duration::from_secs(1)));
        assert_eq!(count(60), (1, WINDOW));
        assert_eq!(windows.count("b".into(), "others".into(), at(60)).0, 1);
    }

    #[test]
    fn windows_never_take_more_memory_than_their_limit_and_old_ones_make_room() {
        let mut windows = Windows::default();
        let start = Instant::now();
        for n in 0..WINDOWS_MAX {
            windows.count(n.to_string(), "others".into(), start);
        }
        assert_eq!(windows.count("new".into(), "others".into(), start).0, 1);
        assert_eq!(windows.count("newer".into(), "others".into(), start).0, 2, "they share a window");
        assert_eq!(windows.windows.len(), WINDOWS_MAX + 1);
        let later = start + WINDOW;
        assert_eq!(windows.count("new".into(), "others".into(), later).0, 1);
        assert_eq!(windows.windows.len(), 1);
    }

    #[test]
    fn addresses_of_one_subscriber_count_together() {
        let of = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
    }

    #[tokio::test]
    async fn requests_of_an_hour_are_counted_by_endpoint_and_old_hours_go() {
        let limiter = Limiter::new(10, None);
        for hour in 0..100 {
            limiter.note(hour, "/a");
        }
        limiter.note(99, "/a");
        limiter.note(99, "/b");
        let requests = limiter.requests(99).await;
        assert_eq!(requests, BTreeMap::from([("/a".to_owned(), 2), ("/b".to_owned(), 1)]));
        assert!(limiter.requests(99 - 25).await.is_empty());
        assert_eq!(limiter.requests(75).await.len(), 1);
    }
}

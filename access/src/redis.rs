//! Redis, for several servers that count together and take turns. Optional: whoever asks has an answer of its own.
//!
//! What always holds:
//! - nobody waits for a connection: one is made in the background, and proves by echoing a random text that Redis is behind it;
//! - the first answer that is late ([`REDIS_ANSWER_TIME_MAX`]), wrong or missing ends the connection, and until there is a new one
//!   nobody asks at all; a slow answer ([`REDIS_SLOW`]) is used, and ends it too;
//! - an answer of another kind or outside its range is no answer.
//!
//! Keys: `rate_limit:{ip}:{endpoint}` (a count, for its window), `lock:{name}` (who holds it, for as long as it said),
//! `stats:requests:{hour}:hourly` (a hash of `{server} {endpoint}` to what that server counted; sums are made by readers, so telling
//! the same twice changes nothing). Channels are their users'.

mod hear;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult};
use tokio::sync::Notify;
use tokio::time::timeout;

pub use self::hear::Heard;
use self::tls::Tls;
use crate::limits::{
    REDIS_ANSWER_TIME_MAX, REDIS_CONNECT_TIME_MAX, REDIS_RETRY_MAX, REDIS_RETRY_MIN, REDIS_SLOW,
    STATISTICS_EVERY, STATISTICS_HOURS_MAX,
};
use crate::rate::Limiter;

/// Why Redis cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    /// Not a URL that is understood. It may hold a password, so it is not quoted.
    #[error(
        "is not a URL such as redis://127.0.0.1:6379/0, rediss://redis.example.org/0 or redis+unix:///run/redis/redis.sock"
    )]
    Url,
    /// Nothing to know a Redis by.
    #[error("{} holds no certificate that can be read, by which a Redis with TLS is known", path.display())]
    Certificates {
        /// Where they were looked for.
        path: PathBuf,
    },
}

/// How a URL begins whose Redis speaks TLS.
const TLS_SCHEME: &str = "rediss:";

/// Where the certificates of the system are, on Debian and its kin.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This server's, for the time it asked for.
    Mine,
    /// Another server's.
    Anothers,
    /// Nobody can say: without Redis each server acts for itself. What it does must bear being done by all.
    Unshared,
}

impl Turn {
    /// Whether this server acts.
    pub fn is_mine(self) -> bool {
        self != Turn::Anothers
    }
}

/// Takes the lock, or prolongs one's own; in one step, so that no other can come between.
const TAKE: &str = "local held = redis.call('get', KEYS[1])
if held == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) return 1 end
if held then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

const GIVE_BACK: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// A Redis: cheap to clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    tls: Option<Tls>,
    /// Who we are among the servers that share it: new with every start.
    server: String,
    connection: Mutex<Option<Connection>>,
    lost: Notify,
    losses: AtomicU64,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection {}", self.number)
    }
}

impl Redis {
    /// Reads the URL. Nothing is connected before [`Redis::keep`] runs. `certificates` is a PEM file by which a Redis with TLS
    /// (`rediss`) is known, instead of the system's.
    ///
    /// # Errors
    /// When it is no URL of Redis, or there is no certificate for one with TLS.
    pub fn new(url: &str, certificates: Option<&Path>) -> Result<Self, RedisFault> {
        let rest = url.get(..TLS_SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(TLS_SCHEME));
        let rest = rest.and_then(|_| url.get(TLS_SCHEME.len()..));
        let (client, tls) = match rest {
            None => (Client::open(url), None),
            Some(rest) => {
                let tls = Tls::new(url, certificates.unwrap_or(Path::new(SYSTEM_CERTIFICATES)))?;
                // The same server, user, password and database; how to get there is ours.
                (Client::open(format!("redis:{rest}")), Some(tls))
            }
        };
        Ok(Redis(Arc::new(Inner {
            client: client.map_err(|_| RedisFault::Url)?,
            tls,
            server: uuid::Uuid::now_v7().simple().to_string(),
            connection: Mutex::new(None),
            lost: Notify::new(),
            losses: AtomicU64::new(0),
        })))
    }

    /// Whether it answers, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.connection().is_some()
    }

    /// How often it stopped answering since the start.
    pub fn losses(&self) -> u64 {
        self.0.losses.load(Ordering::Relaxed)
    }

    /// Keeps a connection, and tells it what was counted; never ends by itself.
    pub async fn keep(self, limiter: Arc<Limiter>) {
        let mut number = 0;
        let mut wait = REDIS_RETRY_MIN;
        let mut said = false;
        loop {
            if let Some(connection) = self.connect().await {
                number += 1;
                let since = Instant::now();
                *self.locked() = Some(Connection { number, connection });
                tracing::info!("Redis answers");
                said = false;
                self.tell_until_lost(&limiter).await;
                if since.elapsed() > 2 * REDIS_RETRY_MAX {
                    wait = REDIS_RETRY_MIN;
                }
            }
            if !said {
                tracing::warn!(
                    "Redis does not answer in time: each server counts and acts for itself until it does"
                );
                said = true;
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(REDIS_RETRY_MAX);
        }
    }

    /// A connection that has proved to be one.
    async fn connect(&self) -> Option<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REDIS_CONNECT_TIME_MAX))
            .set_response_timeout(Some(REDIS_ANSWER_TIME_MAX));
        let client = &self.0.client;
        let connecting = async {
            let Some(tls) = &self.0.tls else {
                return client.get_multiplexed_async_connection_with_config(&config).await;
            };
            let settings = client.get_connection_info().redis_settings();
            let stream = tls.connect().await?;
            let (connection, driving) =
                MultiplexedConnection::new_with_config(settings, stream, config).await?;
            // It ends with the last clone of its connection.
            tokio::spawn(driving);
            Ok(connection)
        };
        let mut connection = timeout(REDIS_CONNECT_TIME_MAX, connecting).await.ok()?.ok()?;
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let mut echo = redis::cmd("ECHO");
        let echoed = echo.arg(&nonce).query_async::<String>(&mut connection);
        let echoed = timeout(REDIS_SLOW, echoed).await.ok()?.ok()?;
        (echoed == nonce).then_some(connection)
    }

    async fn tell_until_lost(&self, limiter: &Limiter) {
        let mut every = tokio::time::interval(STATISTICS_EVERY);
        loop {
            let lost = self.0.lost.notified();
            if !self.is_connected() {
                return;
            }
            tokio::select! {
                () = lost => {}
                _ = every.tick() => {
                    let hour = jiff::Timestamp::now().as_second() / 3_600;
                    // The last requests of an hour are told in the next one.
                    for hour in [hour - 1, hour] {
                        self.tell(hour, limiter.counted(hour)).await;
                    }
                    // Also where there is nothing to tell: a Redis that went away is noticed before somebody needs it.
                    self.ask(async |mut connection| redis::cmd("PING").query_async::<String>(&mut connection).await).await;
                }
            }
        }
    }

    async fn tell(&self, hour: i64, counts: Vec<(&'static str, u64)>) {
        if counts.is_empty() {
            return;
        }
        let key = statistics_key(hour);
        let fields: Vec<(String, u64)> = counts
            .into_iter()
            .map(|(endpoint, count)| (format!("{} {endpoint}", self.0.server), count))
            .collect();
        let kept_seconds = i64::try_from(STATISTICS_HOURS_MAX).unwrap_or(i64::MAX) * 3_600;
        self.ask(async |mut connection| {
            let mut pipe = redis::pipe();
            pipe.atomic().hset_multiple(&key, &fields).ignore().expire(&key, kept_seconds).ignore();
            pipe.query_async::<()>(&mut connection).await
        })
        .await;
    }

    /// Requests of an hour by endpoint, of all servers.
    pub(crate) async fn requests(&self, hour: i64) -> Option<BTreeMap<String, u64>> {
        let key = statistics_key(hour);
        let fields = self
            .ask(async |mut connection| {
                redis::cmd("HGETALL").arg(&key).query_async::<HashMap<String, u64>>(&mut connection).await
            })
            .await?;
        let mut requests = BTreeMap::new();
        for (field, count) in fields {
            let endpoint = field.split_once(' ').map(|(_, endpoint)| endpoint)?;
            let sum: &mut u64 = requests.entry(endpoint.to_owned()).or_default();
            *sum = sum.saturating_add(count);
        }
        Some(requests)
    }

    /// Counts one more of a key in its window: the count, and when the window ends.
    pub(crate) async fn count(&self, key: &str, window: Duration) -> Option<(u64, Duration)> {
        let window_ms = u64::try_from(window.as_millis()).ok()?;
        let counted = self.ask(async |mut connection| {
            let mut pipe = redis::pipe();
            pipe.atomic();
            pipe.cmd("SET").arg(key).arg(0).arg("PX").arg(window_ms).arg("NX").ignore();
            pipe.cmd("INCR").arg(key);
            pipe.cmd("PTTL").arg(key);
            let (count, ends_ms): (i64, i64) = pipe.query_async(&mut connection).await?;
            let count = u64::try_from(count).ok().filter(|count| *count > 0);
            let ends_ms = u64::try_from(ends_ms).ok().filter(|ends| *ends <= window_ms);
            count
                .zip(ends_ms)
                .ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "a count out of range")))
        });
        counted.await.map(|(count, ends_ms)| (count, Duration::from_millis(ends_ms)))
    }

    /// Asks for a turn at something that one of several servers should do, such as evaluating a rule. It lasts for `span` and is
    /// prolonged by asking again; after the end of this process the next server gets it when `span` is over.
    pub async fn take_turn(&self, name: &str, span: Duration) -> Turn {
        let Ok(span_ms) = u64::try_from(span.as_millis()) else { return Turn::Unshared };
        let taken = self.ask(async |mut connection| {
            let mut script = redis::cmd("EVAL");
            script.arg(TAKE).arg(1).arg(format!("lock:{name}")).arg(&self.0.server).arg(span_ms.max(1));
            match script.query_async::<i64>(&mut connection).await? {
                1 => Ok(Turn::Mine),
                0 => Ok(Turn::Anothers),
                _ => Err(RedisError::from((ErrorKind::UnexpectedReturnType, "neither taken nor held"))),
            }
        });
        taken.await.unwrap_or(Turn::Unshared)
    }

    /// Gives a turn back before its time is over. A turn that is another server's by now stays so.
    pub async fn give_turn_back(&self, name: &str) {
        self.ask(async |mut connection| {
            let mut script = redis::cmd("EVAL");
            script.arg(GIVE_BACK).arg(1).arg(format!("lock:{name}")).arg(&self.0.server);
            script.query_async::<i64>(&mut connection).await
        })
        .await;
    }

    /// Asks over the connection there is; none when there is no answer in time, and then there is no connection any more.
    async fn ask<T, F>(&self, ask: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Connection { number, connection } = self.connection()?;
        let asked = Instant::now();
        let answer = timeout(REDIS_ANSWER_TIME_MAX, ask(connection)).await;
        let is_slow = asked.elapsed() > REDIS_SLOW;
        match answer {
            Ok(Ok(answer)) => {
                if is_slow {
                    self.lose(number);
                }
                Some(answer)
            }
            Ok(Err(error)) => {
                tracing::debug!(kind = ?error.kind(), "Redis gave no answer that can be used");
                self.lose(number);
                None
            }
            Err(_) => {
                self.lose(number);
                None
            }
        }
    }

    fn lose(&self, number: u64) {
        let mut connection = self.locked();
        if connection.as_ref().is_some_and(|connection| connection.number == number) {
            *connection = None;
            self.0.losses.fetch_add(1, Ordering::Relaxed);
            self.0.lost.notify_waiters();
        }
    }

    fn connection(&self) -> Option<Connection> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `stats:requests:2026-11-26T23:hourly`.
fn statistics_key(hour: i64) -> String {
    let time = jiff::Timestamp::from_second(hour.saturating_mul(3_600)).unwrap_or_default();
    format!("stats:requests:{}:hourly", time.strftime("%Y-%m-%dT%H"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_of_redis_is_refused_without_quoting_it() {
        for url in [
            "",
            "http://127.0.0.1",
            "redis:",
            "rediss://:geheim@/",
            "rediss://:geheim@x/#insecure",
            "rediss:",
        ] {
            let fault = Redis::new(url, None).unwrap_err();
            assert!(!fault.to_string().contains("geheim"));
        }
        assert!(Redis::new("redis://:geheim@127.0.0.1:6379/2", None).is_ok());
        assert!(Redis::new("redis+unix:///run/redis/redis.sock", None).is_ok());
    }

    #[test]
    fn a_redis_with_tls_is_known_by_certificates_and_without_any_by_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let fault = |path: &Path| Redis::new("rediss://:geheim@127.0.0.1/", Some(path)).unwrap_err();
        assert_eq!(fault(&path), RedisFault::Certificates { path: path.clone() });
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(fault(&path), RedisFault::Certificates { path: path.clone() });
    }

    #[test]
    fn the_key_of_an_hour_names_it() {
        assert_eq!(statistics_key(0), "stats:requests:1970-01-01T00:hourly");
        assert_eq!(statistics_key(490_000), "stats:requests:2025-11-24T16:hourly");
    }

    #[tokio::test]
    async fn without_a_connection_each_server_acts_for_itself_at_once() {
        let redis = Redis::new("redis://127.0.0.1:1/", None).unwrap();
        let began = Instant::now();
        assert_eq!(redis.take_turn("rule", Duration::from_secs(5)).await, Turn::Unshared);
        assert!(redis.count("x", Duration::from_secs(60)).await.is_none());
        assert!(began.elapsed() < Duration::from_millis(20));
    }
}

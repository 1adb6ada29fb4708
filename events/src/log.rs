//! The log of events: one SQLite file, in WAL and with `synchronous = FULL`; a step that returned survives a power cut.
//!
//! Write: [`EventLog::append`] writes events, places and standings in one transaction, and leaves out events that are there. Read:
//! [`EventLog::after`], through connections of its own that hold no writer up. Delete: [`EventLog::forget`] drops the oldest beyond
//! their number and age. Crash: a step is there whole or not at all.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use thiserror::Error;
use tokio::sync::watch;

use crate::event::{Event, EventType};
use crate::limits::{LOG_BUSY_WAIT, LOG_READERS_MAX, PAGE_MAX};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The name under which the last number is kept: it outlives the events.
const LAST: &str = "last";

/// The name under which the server's id is kept.
const SERVER: &str = "server";

/// Why the log did not do what it was asked for.
#[derive(Debug, Error)]
pub enum LogError {
    /// SQLite says so. It can be tried again.
    #[error("{action}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// It cannot be opened; when a newer program made it, nothing was changed.
    #[error("open the log of events")]
    Open(#[from] beeacon_sqlite::OpenError),
    /// An event cannot be written, or one that is there cannot be read.
    #[error("an event in the log cannot be read or written")]
    Json,
}

/// What is written together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What happened.
    pub events: Vec<Event>,
    /// What stands from now on, by name; none for what does not any more.
    pub kept: Vec<(String, Option<String>)>,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of these types; of every type when there are none.
    pub types: Vec<EventType>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Not behind this one.
    pub until: Option<Timestamp>,
}

/// What happened when, and its number in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its type.
    pub kind: EventType,
    /// When it happened, in nanoseconds since 1970.
    pub at_ns: i64,
}

/// An event with its place in this log.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its number here.
    pub number: u64,
    /// The event.
    pub event: Event,
}

impl Serialize for Stored {
    /// The event, with its number among the metadata, as `sequence`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = self.event.clone();
        event.metadata.insert("sequence".to_owned(), Value::from(self.number));
        event.serialize(serializer)
    }
}

/// See the module.
#[derive(Debug)]
pub struct EventLog {
    writer: SqlitePool,
    readers: SqlitePool,
    server: String,
    last: watch::Sender<u64>,
}

impl EventLog {
    /// Opens the log, making or migrating it.
    ///
    /// # Errors
    /// [`LogError::Open`]; when a newer program made it nothing is changed. And what SQLite reports.
    pub async fn open(path: &Path) -> Result<EventLog, LogError> {
        let writer = beeacon_sqlite::writer(path, &MIGRATIONS, LOG_BUSY_WAIT).await?;
        let readers = beeacon_sqlite::readers(path, LOG_BUSY_WAIT, LOG_READERS_MAX).await?;
        let server = match kept(&writer, SERVER).await? {
            Some(server) => server,
            None => {
                let server = uuid::Uuid::now_v7().to_string();
                let mut connection = writer.acquire().await.map_err(failed("write the server's id"))?;
                keep(&mut connection, SERVER, Some(&server)).await?;
                server
            }
        };
        let last = kept(&writer, LAST).await?.and_then(|last| last.parse().ok()).unwrap_or(0);
        Ok(EventLog { writer, readers, server, last: watch::Sender::new(last) })
    }

    /// The id of the server whose log this is, as long as the file lives.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The last number that was given, as it grows.
    #[must_use]
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Closes it; what was appended is on disk already.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn kept(&self, name: &str) -> Result<Option<String>, LogError> {
        kept(&self.readers, name).await
    }

    /// Everything that stands under names that begin so: what comes behind that, and the value.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn kept_below(&self, prefix: &str) -> Result<Vec<(String, String)>, LogError> {
        let rows =
            sqlx::query("SELECT name, value FROM kept WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name")
                .bind(prefix)
                .fetch_all(&self.readers)
                .await
                .map_err(failed("read what stands"))?;
        let pair = |row: &SqliteRow| {
            let name: String = row.try_get("name").map_err(failed("read what stands"))?;
            let behind = name.strip_prefix(prefix).unwrap_or_default().to_owned();
            Ok((behind, row.try_get("value").map_err(failed("read what stands"))?))
        };
        rows.iter().map(pair).collect()
    }

    /// Writes a step down, and says which of its events were not there.
    ///
    /// # Errors
    /// What SQLite reports; nothing of the step is written then.
    pub async fn append(&self, step: &Step, now: Timestamp) -> Result<Vec<EventType>, LogError> {
        let mut transaction =
            self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin to write events"))?;
        let mut last = *self.last.borrow();
        let mut written = Vec::new();
        for event in &step.events {
            let is_known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM event WHERE id = ?)")
                .bind(&event.id)
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed("look for an event"))?;
            if is_known {
                continue;
            }
            last += 1;
            let nanoseconds = i64::try_from(event.timestamp.as_nanosecond()).map_err(|_| LogError::Json)?;
            sqlx::query(
                "INSERT INTO event (number, id, type, at_ns, recorded_ms, server, body)
                 VALUES (?, ?, ?, ?, max(?, coalesce((SELECT max(recorded_ms) FROM event), 0)), ?, ?)",
            )
            .bind(integer(last))
            .bind(&event.id)
            .bind(event.kind.name())
            .bind(nanoseconds)
            .bind(now.as_millisecond())
            .bind(event.server())
            .bind(serde_json::to_string(event).map_err(|_| LogError::Json)?)
            .execute(&mut *transaction)
            .await
            .map_err(failed("write an event"))?;
            written.push(event.kind);
        }
        for (name, value) in &step.kept {
            keep(&mut transaction, name, value.as_deref()).await?;
        }
        if !written.is_empty() {
            keep(&mut transaction, LAST, Some(&last.to_string())).await?;
        }
        transaction.commit().await.map_err(failed("commit events"))?;
        if !written.is_empty() {
            self.last.send_replace(last);
        }
        Ok(written)
    }

    /// The selected events behind this number, the oldest first, at most so many; and the number up to which there are no others.
    ///
    /// # Errors
    /// What SQLite reports, and an event that cannot be read.
    pub async fn after(
        &self,
        number: u64,
        selection: &Selection,
        count_max: usize,
    ) -> Result<(Vec<Stored>, u64), LogError> {
        let last = *self.last.borrow();
        let count_max = count_max.min(PAGE_MAX);
        let mut query = select("number, body", selection, Some((number, last)));
        query.push(" ORDER BY number LIMIT ").push_bind(i64::try_from(count_max).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(&self.readers).await.map_err(failed("read events"))?;
        let found: Vec<Stored> = rows.iter().map(stored).collect::<Result<_, _>>()?;
        let upto = match found.last() {
            Some(event) if found.len() >= count_max => event.number,
            _ => last.max(number),
        };
        Ok((found, upto))
    }

    /// The newest of the selected events, the oldest of them first.
    ///
    /// # Errors
    /// What SQLite reports, and an event that cannot be read.
    pub async fn newest(&self, selection: &Selection, count_max: usize) -> Result<Vec<Stored>, LogError> {
        let mut query = select("number, body", selection, None);
        query.push(" ORDER BY number DESC LIMIT ").push_bind(i64::try_from(count_max).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(&self.readers).await.map_err(failed("read events"))?;
        rows.iter().rev().map(stored).collect()
    }

    /// The heads of the newest of the selected events, in no order: a tenth of the work, where no more is wanted.
    ///
    /// # Errors
    /// What SQLite reports, and an event that cannot be read.
    pub async fn newest_heads(&self, selection: &Selection, count_max: usize) -> Result<Vec<Head>, LogError> {
        let mut query = select("number, type, at_ns", selection, None);
        // All of them stand in one index. Where there are more, the first numbers are left out behind it.
        let rows = query.build().fetch_all(&self.readers).await.map_err(failed("read events"))?;
        let mut heads: Vec<Head> = rows.iter().map(head).collect::<Result<_, _>>()?;
        if heads.len() > count_max {
            let first = heads.len() - count_max;
            heads.select_nth_unstable_by_key(first, |head| head.number);
            heads.drain(..first);
        }
        Ok(heads)
    }

    /// The number of an event, if it is kept.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn number_of(&self, id: &str) -> Result<Option<u64>, LogError> {
        let number: Option<i64> = sqlx::query_scalar("SELECT number FROM event WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("look for an event"))?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }

    /// The number of the oldest event that is kept, and how many are.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn extent(&self) -> Result<(Option<u64>, u64), LogError> {
        let row = sqlx::query("SELECT min(number) AS first, count(*) AS count FROM event")
            .fetch_one(&self.readers)
            .await
            .map_err(failed("count the events"))?;
        let first: Option<i64> = row.try_get("first").map_err(failed("count the events"))?;
        let count: i64 = row.try_get("count").map_err(failed("count the events"))?;
        Ok((first.and_then(|first| u64::try_from(first).ok()), u64::try_from(count).unwrap_or(0)))
    }

    /// Drops the oldest: what is beyond `count_max`, and what was written longer ago than `kept_for`.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn forget(&self, now: Timestamp, count_max: u64, kept_for: Duration) -> Result<u64, LogError> {
        let beyond = self.last.borrow().saturating_sub(count_max);
        let before = now.checked_sub(kept_for).unwrap_or(Timestamp::MIN).as_millisecond();
        let done = sqlx::query(
            "DELETE FROM event WHERE number <= ?
             OR number <= (SELECT max(number) FROM event WHERE recorded_ms < ?)",
        )
        .bind(integer(beyond))
        .bind(before)
        .execute(&self.writer)
        .await
        .map_err(failed("drop old events"))?;
        Ok(done.rows_affected())
    }
}

fn select(columns: &str, selection: &Selection, between: Option<(u64, u64)>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(columns).push(" FROM event WHERE true");
    if let Some((behind, upto)) = between {
        query.push(" AND number > ").push_bind(integer(behind));
        query.push(" AND number <= ").push_bind(integer(upto));
    }
    if !selection.types.is_empty() {
        query.push(" AND type IN (");
        let mut types = query.separated(", ");
        for kind in &selection.types {
            types.push_bind(kind.name());
        }
        query.push(")");
    }
    if let Some(since) = selection.since {
        let nanoseconds = i64::try_from(since.as_nanosecond()).unwrap_or(i64::MAX);
        query.push(" AND at_ns >= ").push_bind(nanoseconds);
    }
    if let Some(until) = selection.until {
        let nanoseconds = i64::try_from(until.as_nanosecond()).unwrap_or(i64::MAX);
        query.push(" AND at_ns <= ").push_bind(nanoseconds);
    }
    query
}

fn head(row: &SqliteRow) -> Result<Head, LogError> {
    let number: i64 = row.try_get("number").map_err(failed("read an event"))?;
    let kind: &str = row.try_get("type").map_err(failed("read an event"))?;
    let at_ns = row.try_get("at_ns").map_err(failed("read an event"))?;
    let kind = EventType::of(kind).ok_or(LogError::Json)?;
    Ok(Head { number: u64::try_from(number).unwrap_or(0), kind, at_ns })
}

fn stored(row: &SqliteRow) -> Result<Stored, LogError> {
    let number: i64 = row.try_get("number").map_err(failed("read an event"))?;
    let body: String = row.try_get("body").map_err(failed("read an event"))?;
    let event = serde_json::from_str(&body).map_err(|_| LogError::Json)?;
    Ok(Stored { number: u64::try_from(number).unwrap_or(0), event })
}

async fn kept(pool: &SqlitePool, name: &str) -> Result<Option<String>, LogError> {
    let value = sqlx::query_scalar("SELECT value FROM kept WHERE name = ?").bind(name);
    value.fetch_optional(pool).await.map_err(failed("read what stands"))
}

async fn keep(connection: &mut SqliteConnection, name: &str, value: Option<&str>) -> Result<(), LogError> {
    let done = match value {
        Some(value) => {
            let set = "INSERT INTO kept (name, value) VALUES (?, ?)
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            sqlx::query(set).bind(name).bind(value).execute(connection).await
        }
        None => sqlx::query("DELETE FROM kept WHERE name = ?").bind(name).execute(connection).await,
    };
    done.map(|_| ()).map_err(failed("write what stands"))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> LogError {
    move |source| LogError::Sqlite { action, source }
}

#[cfg(test)]
mod tests {
    use beeacon_sqlite::OpenError;

    use super::*;
    use crate::event::Maker;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(kind: EventType, id: &str, second: i64) -> Event {
        Maker::new("s".to_owned(), "1").event(kind, id.to_owned(), at(second), "collector", [])
    }

    fn step(events: Vec<Event>) -> Step {
        Step { events, kept: Vec::new() }
    }

    fn numbers(found: &[Stored]) -> Vec<u64> {
        found.iter().map(|stored| stored.number).collect()
    }

    /// Guarantees: the numbers are dense whatever was repeated, over restarts, and also after everything was dropped.
    #[tokio::test]
    async fn an_event_is_there_once_and_numbers_have_no_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let log = EventLog::open(&path).await.unwrap();
        let server = log.server().to_owned();
        let (a, b) = (event(EventType::UserAction, "a", 1), event(EventType::SystemAlert, "b", 2));
        assert_eq!(log.append(&step(vec![a.clone(), a.clone()]), at(1)).await.unwrap().len(), 1);
        let written = log.append(&step(vec![a, b.clone()]), at(2)).await.unwrap();
        assert_eq!(written, [EventType::SystemAlert]);
        log.close().await;

        let log = EventLog::open(&path).await.unwrap();
        assert_eq!(log.server(), server);
        log.append(&step(vec![b, event(EventType::UserAction, "c", 3)]), at(3)).await.unwrap();
        let (found, upto) = log.after(0, &Selection::default(), 10).await.unwrap();
        assert_eq!((numbers(&found), upto), (vec![1, 2, 3], 3));
        assert_eq!(log.number_of("c").await.unwrap(), Some(3));
        assert_eq!(log.number_of("d").await.unwrap(), None);

        assert_eq!(log.forget(at(100), 0, Duration::from_secs(1_000)).await.unwrap(), 3);
        log.append(&step(vec![event(EventType::UserAction, "e", 4)]), at(4)).await.unwrap();
        assert_eq!(log.extent().await.unwrap(), (Some(4), 1));
        assert_eq!(*log.last().borrow(), 4);
    }

    #[tokio::test]
    async fn places_are_written_with_the_events_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(&folder.path().join("events.db")).await.unwrap();
        let keep = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let kept =
            vec![keep("health:store", Some("1")), keep("health:agent", Some("2")), keep("place", Some("7"))];
        log.append(&Step { events: Vec::new(), kept }, at(1)).await.unwrap();
        assert_eq!(log.kept("place").await.unwrap().as_deref(), Some("7"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(log.kept_below("health:").await.unwrap(), [pair("agent", "2"), pair("store", "1")]);

        // An event whose time does not fit is not written, and neither is what goes with it.
        let far = event(EventType::UserAction, "far", Timestamp::MAX.as_second());
        let events = vec![event(EventType::UserAction, "near", 1), far];
        let failing = Step { events, kept: vec![keep("place", Some("8")), keep("health:store", None)] };
        assert!(matches!(log.append(&failing, at(2)).await, Err(LogError::Json)));
        assert_eq!(log.kept("place").await.unwrap().as_deref(), Some("7"));
        assert_eq!(log.extent().await.unwrap(), (None, 0));
        log.append(&Step { kept: vec![keep("health:store", None)], ..Step::default() }, at(2)).await.unwrap();
        assert_eq!(log.kept_below("health:").await.unwrap(), [pair("agent", "2")]);
    }

    #[tokio::test]
    async fn a_page_has_what_was_selected_and_says_how_far_it_looked() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(&folder.path().join("events.db")).await.unwrap();
        let kind = |n: i64| if n % 3 == 0 { EventType::UserAction } else { EventType::SystemAlert };
        let events = (1..=9).map(|n| event(kind(n), &n.to_string(), n)).collect();
        log.append(&step(events), at(1)).await.unwrap();
        let actions = Selection { types: vec![EventType::UserAction], ..Selection::default() };
        let page = |number, count| {
            let (log, actions) = (&log, &actions);
            async move {
                let (found, upto) = log.after(number, actions, count).await.unwrap();
                (numbers(&found), upto)
            }
        };
        assert_eq!(page(0, 2).await, (vec![3, 6], 6));
        assert_eq!(page(6, 2).await, (vec![9], 9));
        assert_eq!(page(9, 2).await, (vec![], 9));
        let late = Selection { since: Some(at(8)), ..Selection::default() };
        assert_eq!(numbers(&log.after(0, &late, 10).await.unwrap().0), [8, 9]);
        let between = Selection { since: Some(at(3)), until: Some(at(6)), ..actions.clone() };
        assert_eq!(numbers(&log.after(0, &between, 10).await.unwrap().0), [3, 6]);
        let mut heads = log.newest_heads(&between, 10).await.unwrap();
        heads.sort_by_key(|head| head.number);
        let expected = [3, 6].map(|n: u64| Head {
            number: n,
            kind: EventType::UserAction,
            at_ns: i64::try_from(n).unwrap() * 1_000_000_000,
        });
        assert_eq!(heads, expected);
        assert_eq!(log.newest_heads(&between, 1).await.unwrap(), expected[1..]);
        assert_eq!(numbers(&log.newest(&actions, 2).await.unwrap()), [6, 9]);
    }

    #[tokio::test]
    async fn the_oldest_go_by_number_and_by_age_even_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(&folder.path().join("events.db")).await.unwrap();
        for (n, second) in [(1, 100), (2, 200), (3, 150), (4, 300)] {
            let one = step(vec![event(EventType::UserAction, &n.to_string(), n)]);
            log.append(&one, at(second)).await.unwrap();
        }
        let left = async |count, age| {
            log.forget(at(300), count, Duration::from_secs(age)).await.unwrap();
            numbers(&log.newest(&Selection::default(), 10).await.unwrap())
        };
        assert_eq!(left(10, 150).await, [2, 3, 4], "the third was written at 200 at the earliest");
        assert_eq!(left(2, 1_000).await, [3, 4]);
    }

    #[tokio::test]
    async fn a_log_of_a_newer_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let log = EventLog::open(&path).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'later', true, x'00', 1)",
        )
        .execute(&log.writer)
        .await
        .unwrap();
        log.close().await;
        assert!(matches!(
            EventLog::open(&path).await,
            Err(LogError::Open(OpenError::Newer { found: 999, .. }))
        ));
    }
}

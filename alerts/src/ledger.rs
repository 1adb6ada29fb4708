//! What alerts leave on disk: states, changes, and messages that wait to be delivered, in one SQLite file.
//!
//! A [`Step`] is written in one transaction: the states after it, the changes it made, and the messages that are due because of
//! them. So a message exists exactly when the state that says it was made does, whatever happens in between.
//!
//! Write: WAL and `synchronous = FULL`; a commit that returned survives a power cut. Read: [`Ledger::load`] at the start, then
//! [`Ledger::due`]. Delete: [`Ledger::forget`] drops messages that ended and changes that are old. Crash: between a delivery and
//! [`Ledger::delivered`] the message is sent again, with the same id.

mod cases;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

pub use self::cases::{Act, Case, CaseFilter, Incident, IncidentEvent, Severity};
pub use self::error::LedgerError;
use self::error::failed;
use crate::limits::{ERROR_BYTES_MAX, LEDGER_BUSY_WAIT, OUTBOX_WAITING_MAX};
use crate::notify::{Notification, NotifierState, Reason};
use crate::state::{Change, RuleState, Transition};
use crate::stream::StreamState;
use crate::template::cut;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// What one moment changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The states of the rules that were evaluated, by the rules' ids.
    pub rules: Vec<(String, RuleState)>,
    /// The notifier's state, when it changed.
    pub notifier: Option<NotifierState>,
    /// What changed, with the rules' ids.
    pub changes: Vec<(String, Transition)>,
    /// Messages that are due.
    pub messages: Vec<Notification>,
    /// The counts of the streaming rules that counted: the rule's id, the rule's own words, the counts.
    pub streams: Vec<(String, String, StreamState)>,
    /// The last record of the journal that the counts hold.
    pub place: Option<u64>,
    /// The ids of rules that are no more: their states and counts go.
    pub gone: Vec<String>,
}

/// What a start goes on from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The states of the rules, by their ids.
    pub rules: BTreeMap<String, RuleState>,
    /// The notifier's state.
    pub notifier: NotifierState,
    /// The counts of the streaming rules, by the rules' ids, each with the words of the rule that made it.
    pub streams: BTreeMap<String, (String, StreamState)>,
    /// The last record of the journal that the counts hold, when there is one.
    pub place: Option<u64>,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// What is to be said.
    pub notification: Notification,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was made.
    pub made_at: Timestamp,
}

/// How many messages there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Not delivered yet.
    pub waiting: u64,
    /// Delivered, and not forgotten yet.
    pub delivered: u64,
    /// Given up, and not forgotten yet.
    pub given_up: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    pool: SqlitePool,
}

impl Ledger {
    /// Opens the ledger, making or migrating it.
    ///
    /// # Errors
    /// [`LedgerError::Open`]; when a newer program made it nothing is changed.
    pub async fn open(path: &Path) -> Result<Ledger, LedgerError> {
        let pool = beeacon_sqlite::writer(path, &MIGRATIONS, LEDGER_BUSY_WAIT).await?;
        Ok(Ledger { pool })
    }

    /// Closes it; what was committed is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// What a start goes on from.
    ///
    /// # Errors
    /// What SQLite reports, and a state that cannot be read.
    pub async fn load(&self) -> Result<Loaded, LedgerError> {
        let mut loaded = Loaded::default();
        let rows = sqlx::query("SELECT rule_id, state FROM rule_state").fetch_all(&self.pool).await;
        for row in rows.map_err(failed("read the states of the rules"))? {
            let rule_id = text(&row, "rule_id")?;
            let state = from_json(&text(&row, "state")?, "the state of a rule")?;
            loaded.rules.insert(rule_id, state);
        }
        let row = sqlx::query("SELECT state FROM notifier").fetch_optional(&self.pool).await;
        if let Some(row) = row.map_err(failed("read the state of the notifier"))? {
            loaded.notifier = from_json(&text(&row, "state")?, "the state of the notifier")?;
        }
        let rows =
            sqlx::query("SELECT rule_id, made_by, state FROM stream_state").fetch_all(&self.pool).await;
        for row in rows.map_err(failed("read the counts of the streams"))? {
            let counts = from_json(&text(&row, "state")?, "the counts of a stream")?;
            loaded.streams.insert(text(&row, "rule_id")?, (text(&row, "made_by")?, counts));
        }
        let place: Option<i64> = sqlx::query_scalar("SELECT lsn FROM journal_place")
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read the place in the journal"))?;
        loaded.place = place.and_then(|place| u64::try_from(place).ok());
        Ok(loaded)
    }

    /// Writes a step down. Changes and messages that are there already stay as they are. A repeat is not put behind a message
    /// of its group that still waits: a receiver that is away for hours is not told the same a hundred times when it is back.
    ///
    /// # Errors
    /// What SQLite reports; nothing of the step is written then. [`LedgerError::Full`] when too many messages wait.
    pub async fn commit(&self, step: &Step) -> Result<(), LedgerError> {
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin a step"))?;
        for (rule_id, state) in &step.rules {
            sqlx::query(
                "INSERT INTO rule_state (rule_id, state) VALUES (?, ?)
                 ON CONFLICT (rule_id) DO UPDATE SET state = excluded.state",
            )
            .bind(rule_id)
            .bind(to_json(state, "the state of a rule")?)
            .execute(&mut *transaction)
            .await
            .map_err(failed("write the state of a rule"))?;
        }
        if let Some(state) = &step.notifier {
            sqlx::query(
                "INSERT INTO notifier (id, state) VALUES (1, ?)
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            )
            .bind(to_json(state, "the state of the notifier")?)
            .execute(&mut *transaction)
            .await
            .map_err(failed("write the state of the notifier"))?;
        }
        for (rule_id, made_by, state) in &step.streams {
            sqlx::query(
                "INSERT INTO stream_state (rule_id, made_by, state) VALUES (?, ?, ?)
                 ON CONFLICT (rule_id) DO UPDATE SET made_by = excluded.made_by, state = excluded.state",
            )
            .bind(rule_id)
            .bind(made_by)
            .bind(to_json(state, "the counts of a stream")?)
            .execute(&mut *transaction)
            .await
            .map_err(failed("write the counts of a stream"))?;
        }
        if let Some(place) = step.place {
            sqlx::query(
                "INSERT INTO journal_place (id, lsn) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET lsn = excluded.lsn",
            )
            .bind(i64::try_from(place).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await
            .map_err(failed("write the place in the journal"))?;
        }
        for rule_id in &step.gone {
            for statement in
                ["DELETE FROM rule_state WHERE rule_id = ?", "DELETE FROM stream_state WHERE rule_id = ?"]
            {
                let done = sqlx::query(statement).bind(rule_id).execute(&mut *transaction).await;
                done.map_err(failed("drop the state of a rule that is no more"))?;
            }
        }
        for (rule_id, transition) in &step.changes {
            let written = sqlx::query(
                "INSERT OR IGNORE INTO change (event_id, rule_id, fingerprint, kind, transition, at_ms)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(&transition.event_id)
            .bind(rule_id)
            .bind(transition.alert.labels.fingerprint().to_string())
            .bind(kind(transition.change))
            .bind(to_json(transition, "a change")?)
            .bind(transition.at.as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed("write a change"))?;
            if written.rows_affected() > 0 {
                cases::follow(&mut transaction, rule_id, transition).await?;
            }
        }
        if !step.messages.is_empty() {
            let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE state = 'waiting'")
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed("count the messages that wait"))?;
            if usize::try_from(waiting).unwrap_or(usize::MAX) >= OUTBOX_WAITING_MAX {
                return Err(LedgerError::Full);
            }
        }
        for message in &step.messages {
            if message.reason == Reason::Repeat && waits(&mut transaction, message).await? {
                continue;
            }
            sqlx::query(
                "INSERT OR IGNORE INTO outbox (id, receiver, group_key, notification, made_ms, next_ms)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(&message.id)
            .bind(&message.receiver)
            .bind(&message.group_key)
            .bind(to_json(message, "a message")?)
            .bind(message.at.as_millisecond())
            .bind(message.at.as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed("write a message"))?;
        }
        transaction.commit().await.map_err(failed("commit a step"))
    }

    /// The messages whose time has come: of each group and receiver the oldest that waits, so that no end overtakes its
    /// beginning. One that cannot be read is given up, and told, so that it holds no other.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn due(&self, now: Timestamp, count_max: usize) -> Result<Vec<Waiting>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, notification, attempts, made_ms FROM outbox
             WHERE number IN (SELECT min(number) FROM outbox WHERE state = 'waiting' GROUP BY receiver, group_key)
               AND next_ms <= ?
             ORDER BY next_ms, number LIMIT ?",
        )
        .bind(now.as_millisecond())
        .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("look for messages that are due"))?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            match waiting(row) {
                Ok(waiting) => due.push(waiting),
                Err(error) => {
                    let id = text(row, "id")?;
                    tracing::error!(id, error = &error as &dyn std::error::Error, "a message is given up");
                    self.given_up(&id, now, &error.to_string()).await?;
                }
            }
        }
        Ok(due)
    }

    /// When the next message is to be tried.
    ///
    /// # Errors
    /// What SQLite reports, and a time that cannot be read.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, LedgerError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(next_ms) FROM outbox
             WHERE number IN (SELECT min(number) FROM outbox WHERE state = 'waiting' GROUP BY receiver, group_key)",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed("look for the next message"))?;
        next.map(time).transpose()
    }

    /// A message was taken by its receiver.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn delivered(&self, id: &str, now: Timestamp) -> Result<(), LedgerError> {
        self.end(id, "delivered", None, now).await
    }

    /// A message will never be taken.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn given_up(&self, id: &str, now: Timestamp, why: &str) -> Result<(), LedgerError> {
        self.end(id, "given_up", Some(why), now).await
    }

    async fn end(&self, id: &str, state: &str, why: Option<&str>, now: Timestamp) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE outbox SET state = ?, ended_ms = ?, attempts = attempts + 1, last_error = coalesce(?, last_error)
             WHERE id = ? AND state = 'waiting'",
        )
        .bind(state)
        .bind(now.as_millisecond())
        .bind(why.map(|why| cut(why.to_owned(), ERROR_BYTES_MAX)))
        .bind(id)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(failed("write how a message ended"))
    }

    /// A message was not taken and is to be tried again.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn again(&self, id: &str, next_at: Timestamp, why: &str) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE outbox SET next_ms = ?, attempts = attempts + 1, last_error = ?
             WHERE id = ? AND state = 'waiting'",
        )
        .bind(next_at.as_millisecond())
        .bind(cut(why.to_owned(), ERROR_BYTES_MAX))
        .bind(id)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(failed("write when a message is tried again"))
    }

    /// How many messages there are in each state.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn counts(&self) -> Result<OutboxCounts, LedgerError> {
        let rows = sqlx::query("SELECT state, count(*) AS number FROM outbox GROUP BY state");
        let rows = rows.fetch_all(&self.pool).await.map_err(failed("count the messages"))?;
        let mut counts = OutboxCounts::default();
        for row in &rows {
            let number = u64::try_from(number(row, "number")?).unwrap_or(0);
            match text(row, "state")?.as_str() {
                "waiting" => counts.waiting = number,
                "delivered" => counts.delivered = number,
                _ => counts.given_up = number,
            }
        }
        Ok(counts)
    }

    /// The last changes, the newest first.
    ///
    /// # Errors
    /// What SQLite reports, and a change that cannot be read.
    pub async fn changes(&self, count_max: usize) -> Result<Vec<(String, Transition)>, LedgerError> {
        let rows = sqlx::query("SELECT rule_id, transition FROM change ORDER BY number DESC LIMIT ?")
            .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the changes"))?;
        rows.iter()
            .map(|row| Ok((text(row, "rule_id")?, from_json(&text(row, "transition")?, "a change")?)))
            .collect()
    }

    /// The changes behind this number, the oldest first, each with its number and the rule's id. Numbers grow; some may be left out.
    ///
    /// # Errors
    /// What SQLite reports, and a change that cannot be read.
    pub async fn changes_after(
        &self,
        after: u64,
        count_max: usize,
    ) -> Result<Vec<(u64, String, Transition)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT number, rule_id, transition FROM change WHERE number > ? ORDER BY number LIMIT ?",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the changes"))?;
        rows.iter()
            .map(|row| {
                let place = u64::try_from(number(row, "number")?).unwrap_or(0);
                let transition = from_json(&text(row, "transition")?, "a change")?;
                Ok((place, text(row, "rule_id")?, transition))
            })
            .collect()
    }

    /// Drops what ended, and what changed, longer ago than `kept_for`. Messages that wait are never dropped.
    ///
    /// # Errors
    /// What SQLite reports.
    pub async fn forget(&self, now: Timestamp, kept_for: Duration) -> Result<(), LedgerError> {
        let before = now.checked_sub(kept_for).unwrap_or(Timestamp::MIN).as_millisecond();
        for statement in [
            "DELETE FROM outbox WHERE state <> 'waiting' AND ended_ms < ?",
            "DELETE FROM change WHERE at_ms < ?",
        ] {
            let done = sqlx::query(statement).bind(before).execute(&self.pool).await;
            done.map_err(failed("drop what is old"))?;
        }
        cases::forget(self, now, kept_for).await
    }
}

fn waiting(row: &SqliteRow) -> Result<Waiting, LedgerError> {
    Ok(Waiting {
        notification: from_json(&text(row, "notification")?, "a message")?,
        attempts: u32::try_from(number(row, "attempts")?).unwrap_or(u32::MAX),
        made_at: time(number(row, "made_ms")?)?,
    })
}

/// Whether a message of the same group to the same receiver waits.
async fn waits(connection: &mut SqliteConnection, message: &Notification) -> Result<bool, LedgerError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE receiver = ? AND group_key = ? AND state = 'waiting')",
    )
    .bind(&message.receiver)
    .bind(&message.group_key)
    .fetch_one(connection)
    .await
    .map_err(failed("look for a message that waits"))
}

fn kind(change: Change) -> &'static str {
    match change {
        Change::Pending => "pending",
        Change::Firing => "firing",
        Change::Resolved => "resolved",
        Change::Cancelled => "cancelled",
    }
}

fn to_json<T: Serialize>(value: &T, what: &'static str) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|_| LedgerError::Json { what })
}

fn from_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|_| LedgerError::Json { what })
}

fn time(milliseconds: i64) -> Result<Timestamp, LedgerError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| LedgerError::Json { what: "the time of a message" })
}

fn text(row: &SqliteRow, column: &'static str) -> Result<String, LedgerError> {
    row.try_get(column).map_err(failed("read a text"))
}

fn number(row: &SqliteRow, column: &'static str) -> Result<i64, LedgerError> {
    row.try_get(column).map_err(failed("read a number"))
}

//! What people work on: an alert has a status and somebody who looks after it; an incident groups alerts and has a timeline.
//!
//! Rows appear and end with the changes of alerts, in their transaction; people acknowledge, assign, comment and resolve. A
//! resolution by a person ends the row, not the rule's alert: that ends when its rule says so, and a new row appears when it
//! fires anew.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Ledger, LedgerError, failed, number, text, time};
use crate::labels::{ALERTNAME, Labels};
use crate::limits::{ACTOR_BYTES_MAX, CASES_MAX, INCIDENT_JOINED_FOR, NOTE_BYTES_MAX, TITLE_BYTES_MAX};
use crate::sign::short_hex;
use crate::state::{Change, Transition};
use crate::template::cut;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the records.
    Low,
    /// In working hours.
    Medium,
    /// Today.
    High,
    /// Now.
    Critical,
}

impl Severity {
    /// What the label `severity` says, in the words of several tools; medium where it says nothing that is known.
    ///
    /// ```
    /// use beeacon_alerts::{Labels, ledger::Severity};
    ///
    /// assert_eq!(Severity::of(&Labels::from_iter([("severity", "warning")])), Severity::Medium);
    /// assert_eq!(Severity::of(&Labels::from_iter([("severity", "page")])), Severity::Critical);
    /// ```
    #[must_use]
    pub fn of(labels: &Labels) -> Severity {
        match labels.value("severity").to_ascii_lowercase().as_str() {
            "critical" | "page" | "emergency" | "fatal" => Severity::Critical,
            "high" | "error" | "major" => Severity::High,
            "low" | "info" | "informational" | "none" | "notice" => Severity::Low,
            _ => Severity::Medium,
        }
    }

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// One time that an alert fired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The id of the change to firing.
    pub id: String,
    /// The rule's id.
    pub rule: String,
    /// Names its labels.
    pub fingerprint: String,
    /// The rule's name.
    pub alertname: String,
    /// The service, where a label says it.
    pub service: String,
    /// low, medium, high or critical.
    pub severity: String,
    /// The annotation `summary`, or the rule's name.
    pub title: String,
    /// The annotation `description`.
    pub description: String,
    /// new, acknowledged or resolved.
    pub status: String,
    /// All labels.
    pub labels: serde_json::Value,
    /// The number with which it fired, as text.
    pub value: String,
    /// Who looks after it.
    pub assigned_to: Option<String>,
    /// Who has seen it.
    pub acknowledged_by: Option<String>,
    /// When.
    pub acknowledged_at: Option<Timestamp>,
    /// Who resolved it: a name, or `rule`.
    pub resolved_by: Option<String>,
    /// What was said with it.
    pub resolution: Option<String>,
    /// When it fired.
    pub created_at: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// The incident it belongs to.
    pub incident: String,
}

/// Alerts about one subject, close to each other in time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Names it.
    pub id: String,
    /// What it is about: the label `incident`, else `service`, else the rule's name.
    pub subject: String,
    /// The highest of its alerts.
    pub severity: String,
    /// The title of its first alert.
    pub title: String,
    /// open or resolved.
    pub status: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When its last alert ended.
    pub resolved_at: Option<Timestamp>,
    /// How many alerts it has.
    pub alerts: u64,
}

/// Something that happened in an incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentEvent {
    /// The incident.
    pub incident: String,
    /// When.
    pub at: Timestamp,
    /// opened, fired, acknowledged, assigned, commented, resolved, closed or reopened.
    pub kind: String,
    /// The alert it is about, if about one.
    pub alert: Option<String>,
    /// Who did it: a name, or `rule`.
    pub actor: String,
    /// What was said.
    pub note: String,
}

/// What a person does with an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Has seen it.
    Acknowledge,
    /// Gives it to somebody, or to nobody.
    Assign(Option<String>),
    /// Says something.
    Comment,
    /// Ends it.
    Resolve,
}

/// Which alerts are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaseFilter {
    /// Of this status; `open` is all but resolved.
    pub status: Option<String>,
    /// Of this severity.
    pub severity: Option<String>,
    /// Of this service.
    pub service: Option<String>,
    /// Of this incident.
    pub incident: Option<String>,
}

const CASE_COLUMNS: &str = "id, rule_id, fingerprint, alertname, service, severity, title, description, status, labels, value, \
     assigned_to, acknowledged_by, acknowledged_ms, resolved_by, resolution, created_ms, resolved_ms, incident_id";

impl Ledger {
    /// Alerts, the newest first, at most `count_max`.
    ///
    /// # Errors
    /// What SQLite reports, and a row that cannot be read.
    pub async fn cases(&self, filter: &CaseFilter, count_max: usize) -> Result<Vec<Case>, LedgerError> {
        let statement = sqlx::AssertSqlSafe(format!(
            "SELECT {CASE_COLUMNS} FROM alert
             WHERE (?1 IS NULL OR status = ?1 OR (?1 = 'open' AND status <> 'resolved'))
               AND (?2 IS NULL OR severity = ?2) AND (?3 IS NULL OR service = ?3) AND (?4 IS NULL OR incident_id = ?4)
             ORDER BY number DESC LIMIT ?5"
        ));
        let rows = sqlx::query(statement)
            .bind(&filter.status)
            .bind(&filter.severity)
            .bind(&filter.service)
            .bind(&filter.incident)
            .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the alerts"))?;
        rows.iter().map(case).collect()
    }

    /// One alert.
    ///
    /// # Errors
    /// What SQLite reports, and a row that cannot be read.
    pub async fn case(&self, id: &str) -> Result<Option<Case>, LedgerError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {CASE_COLUMNS} FROM alert WHERE id = ?"));
        let row = sqlx::query(statement).bind(id).fetch_optional(&self.pool).await;
        row.map_err(failed("read an alert"))?.as_ref().map(case).transpose()
    }

    /// Does what a person says with an alert, and writes it into the timeline. None when there is no such alert. An alert that
    /// has ended takes comments only; everything else leaves it as it is.
    ///
    /// # Errors
    /// What SQLite reports; nothing is written then.
    pub async fn act(
        &self,
        id: &str,
        act: &Act,
        actor: &str,
        note: &str,
        now: Timestamp,
    ) -> Result<Option<Case>, LedgerError> {
        let actor = cut(actor.to_owned(), ACTOR_BYTES_MAX);
        let note = cut(note.to_owned(), NOTE_BYTES_MAX);
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin a change of an alert"))?;
        let row = sqlx::query("SELECT status, incident_id FROM alert WHERE id = ?").bind(id);
        let row = row.fetch_optional(&mut *transaction).await.map_err(failed("read an alert"))?;
        let Some(row) = row else { return Ok(None) };
        let incident = text(&row, "incident_id")?;
        let has_ended = text(&row, "status")? == "resolved";
        let now_ms = now.as_millisecond();
        let (kind, statement) = match act {
            Act::Comment => ("commented", None),
            _ if has_ended => {
                drop(transaction);
                return self.case(id).await;
            }
            Act::Acknowledge => (
                "acknowledged",
                Some(
                    "UPDATE alert SET status = 'acknowledged', acknowledged_by = ?2, acknowledged_ms = ?3 WHERE id = ?1",
                ),
            ),
            Act::Assign(_) => ("assigned", Some("UPDATE alert SET assigned_to = ?4 WHERE id = ?1")),
            Act::Resolve => (
                "resolved",
                Some(
                    "UPDATE alert SET status = 'resolved', resolved_by = ?2, resolved_ms = ?3, resolution = ?5 WHERE id = ?1",
                ),
            ),
        };
        let assignee = match act {
            Act::Assign(assignee) => assignee.clone().map(|name| cut(name, ACTOR_BYTES_MAX)),
            _ => None,
        };
        if let Some(statement) = statement {
            sqlx::query(statement)
                .bind(id)
                .bind(&actor)
                .bind(now_ms)
                .bind(&assignee)
                .bind(&note)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write what is done with an alert"))?;
        }
        let note = match (&assignee, note.is_empty()) {
            (Some(assignee), true) => format!("to {assignee}"),
            (Some(assignee), false) => format!("to {assignee}: {note}"),
            (None, _) => note,
        };
        event(&mut transaction, &incident, now_ms, kind, Some(id), &actor, &note).await?;
        if matches!(act, Act::Resolve) {
            close_when_all_ended(&mut transaction, &incident, now_ms).await?;
        }
        transaction.commit().await.map_err(failed("commit what is done with an alert"))?;
        self.case(id).await
    }

    /// Incidents, the newest first, at most `count_max`.
    ///
    /// # Errors
    /// What SQLite reports, and a row that cannot be read.
    pub async fn incidents(
        &self,
        status: Option<&str>,
        count_max: usize,
    ) -> Result<Vec<Incident>, LedgerError> {
        self.incidents_of(status, None, count_max).await
    }

    /// One incident.
    ///
    /// # Errors
    /// What SQLite reports, and a row that cannot be read.
    pub async fn incident(&self, id: &str) -> Result<Option<Incident>, LedgerError> {
        Ok(self.incidents_of(None, Some(id), 1).await?.pop())
    }

    async fn incidents_of(
        &self,
        status: Option<&str>,
        id: Option<&str>,
        count_max: usize,
    ) -> Result<Vec<Incident>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, subject, severity, title, status, opened_ms, resolved_ms,
                    (SELECT count(*) FROM alert WHERE incident_id = incident.id) AS alerts
             FROM incident WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR id = ?2)
             ORDER BY number DESC LIMIT ?3",
        )
        .bind(status)
        .bind(id)
        .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the incidents"))?;
        rows.iter()
            .map(|row| {
                Ok(Incident {
                    id: text(row, "id")?,
                    subject: text(row, "subject")?,
                    severity: text(row, "severity")?,
                    title: text(row, "title")?,
                    status: text(row, "status")?,
                    opened_at: time(number(row, "opened_ms")?)?,
                    resolved_at: optional_time(row, "resolved_ms")?,
                    alerts: u64::try_from(number(row, "alerts")?).unwrap_or(0),
                })
            })
            .collect()
    }

    /// What happened in an incident, or in all, the newest first, at most `count_max`.
    ///
    /// # Errors
    /// What SQLite reports, and a row that cannot be read.
    pub async fn timeline(
        &self,
        incident: Option<&str>,
        count_max: usize,
    ) -> Result<Vec<IncidentEvent>, LedgerError> {
        let rows = sqlx::query(
            "SELECT incident_id, at_ms, kind, alert_id, actor, note FROM incident_event
             WHERE ?1 IS NULL OR incident_id = ?1 ORDER BY number DESC LIMIT ?2",
        )
        .bind(incident)
        .bind(i64::try_from(count_max).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the timeline of an incident"))?;
        rows.iter()
            .map(|row| {
                Ok(IncidentEvent {
                    incident: text(row, "incident_id")?,
                    at: time(number(row, "at_ms")?)?,
                    kind: text(row, "kind")?,
                    alert: optional_text(row, "alert_id")?,
                    actor: text(row, "actor")?,
                    note: text(row, "note")?,
                })
            })
            .collect()
    }
}

/// What a change means for the rows of alerts and incidents. Called once for each change, in its transaction.
pub(super) async fn follow(
    connection: &mut SqliteConnection,
    rule_id: &str,
    transition: &Transition,
) -> Result<(), LedgerError> {
    match transition.change {
        Change::Pending | Change::Cancelled => Ok(()),
        Change::Firing => open(connection, rule_id, transition).await,
        Change::Resolved => end(connection, rule_id, transition).await,
    }
}

async fn open(
    connection: &mut SqliteConnection,
    rule_id: &str,
    transition: &Transition,
) -> Result<(), LedgerError> {
    let alert = &transition.alert;
    let labels = &alert.labels;
    let (now_ms, severity) = (transition.at.as_millisecond(), Severity::of(labels));
    let title = match alert.annotations.value("summary") {
        "" => labels.value(ALERTNAME),
        summary => summary,
    };
    let title = cut(title.to_owned(), TITLE_BYTES_MAX);
    let incident = incident_of(connection, transition, severity, &title).await?;
    sqlx::query(
        "INSERT INTO alert (id, rule_id, fingerprint, alertname, service, severity, title, description, labels, value,
                            created_ms, incident_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&transition.event_id)
    .bind(rule_id)
    .bind(labels.fingerprint().to_string())
    .bind(labels.value(ALERTNAME))
    .bind(labels.value("service"))
    .bind(severity.name())
    .bind(&title)
    .bind(alert.annotations.value("description"))
    .bind(super::to_json(labels, "the labels of an alert")?)
    .bind(crate::template::general(alert.value))
    .bind(now_ms)
    .bind(&incident)
    .execute(&mut *connection)
    .await
    .map_err(failed("write an alert"))?;
    event(connection, &incident, now_ms, "fired", Some(&transition.event_id), "rule", &title).await?;
    // The oldest that ended make room, so that the table has a limit whatever the rules do.
    sqlx::query(
        "DELETE FROM alert WHERE status = 'resolved' AND number <= (SELECT max(number) FROM alert) - ?",
    )
    .bind(i64::try_from(CASES_MAX).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await
    .map(|_| ())
    .map_err(failed("drop the oldest alerts"))
}

/// The incident that an alert belongs to: one about its subject that is open or ended a moment ago, else a new one.
async fn incident_of(
    connection: &mut SqliteConnection,
    transition: &Transition,
    severity: Severity,
    title: &str,
) -> Result<String, LedgerError> {
    let labels = &transition.alert.labels;
    let named = ["incident", "service", ALERTNAME].into_iter().find_map(|name| labels.get(name));
    let subject = cut(named.unwrap_or("").to_owned(), TITLE_BYTES_MAX);
    let now_ms = transition.at.as_millisecond();
    let row = sqlx::query(
        "SELECT id, status, severity, resolved_ms FROM incident WHERE subject = ? ORDER BY number DESC LIMIT 1",
    )
    .bind(&subject)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed("look for an incident"))?;
    if let Some(row) = row {
        let (id, is_open) = (text(&row, "id")?, text(&row, "status")? == "open");
        let joined_for = i64::try_from(INCIDENT_JOINED_FOR.as_millis()).unwrap_or(i64::MAX);
        let ended_ms: Option<i64> = row.try_get("resolved_ms").map_err(failed("read a number"))?;
        if is_open || ended_ms.is_some_and(|ended_ms| now_ms.saturating_sub(ended_ms) <= joined_for) {
            let is_worse = severity.name() != text(&row, "severity")?
                && ["low", "medium", "high", "critical"]
                    .iter()
                    .position(|name| *name == text(&row, "severity").unwrap_or_default())
                    .is_none_or(|at| at < severity as usize);
            let severity = if is_worse { Some(severity.name()) } else { None };
            sqlx::query(
                "UPDATE incident SET status = 'open', resolved_ms = NULL, severity = coalesce(?, severity) WHERE id = ?",
            )
            .bind(severity)
            .bind(&id)
            .execute(&mut *connection)
            .await
            .map_err(failed("write an incident"))?;
            if !is_open {
                event(connection, &id, now_ms, "reopened", None, "rule", "").await?;
            }
            return Ok(id);
        }
    }
    let mut hash = Sha256::new();
    hash.update(b"beeacon-incident-1\0");
    hash.update(transition.event_id.as_bytes());
    let id = format!("inc_{}", short_hex(&hash.finalize()));
    sqlx::query("INSERT INTO incident (id, subject, severity, title, opened_ms) VALUES (?, ?, ?, ?, ?)")
        .bind(&id)
        .bind(&subject)
        .bind(severity.name())
        .bind(title)
        .bind(now_ms)
        .execute(&mut *connection)
        .await
        .map_err(failed("write an incident"))?;
    event(connection, &id, now_ms, "opened", None, "rule", title).await?;
    Ok(id)
}

async fn end(
    connection: &mut SqliteConnection,
    rule_id: &str,
    transition: &Transition,
) -> Result<(), LedgerError> {
    let now_ms = transition.at.as_millisecond();
    let rows = sqlx::query(
        "UPDATE alert SET status = 'resolved', resolved_by = 'rule', resolved_ms = ?
         WHERE rule_id = ? AND fingerprint = ? AND status <> 'resolved' RETURNING id, incident_id",
    )
    .bind(now_ms)
    .bind(rule_id)
    .bind(transition.alert.labels.fingerprint().to_string())
    .fetch_all(&mut *connection)
    .await
    .map_err(failed("write the end of an alert"))?;
    for row in &rows {
        let (id, incident) = (text(row, "id")?, text(row, "incident_id")?);
        event(connection, &incident, now_ms, "resolved", Some(&id), "rule", "").await?;
        close_when_all_ended(connection, &incident, now_ms).await?;
    }
    Ok(())
}

async fn close_when_all_ended(
    connection: &mut SqliteConnection,
    incident: &str,
    now_ms: i64,
) -> Result<(), LedgerError> {
    let closed = sqlx::query(
        "UPDATE incident SET status = 'resolved', resolved_ms = ?1
         WHERE id = ?2 AND status = 'open'
           AND NOT EXISTS (SELECT 1 FROM alert WHERE incident_id = ?2 AND status <> 'resolved')",
    )
    .bind(now_ms)
    .bind(incident)
    .execute(&mut *connection)
    .await
    .map_err(failed("write the end of an incident"))?;
    if closed.rows_affected() > 0 {
        event(connection, incident, now_ms, "closed", None, "rule", "").await?;
    }
    Ok(())
}

async fn event(
    connection: &mut SqliteConnection,
    incident: &str,
    at_ms: i64,
    kind: &str,
    alert: Option<&str>,
    actor: &str,
    note: &str,
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO incident_event (incident_id, at_ms, kind, alert_id, actor, note) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(incident)
    .bind(at_ms)
    .bind(kind)
    .bind(alert)
    .bind(actor)
    .bind(note)
    .execute(&mut *connection)
    .await
    .map(|_| ())
    .map_err(failed("write what happened in an incident"))
}

/// Drops what ended long ago.
pub(super) async fn forget(ledger: &Ledger, now: Timestamp, kept_for: Duration) -> Result<(), LedgerError> {
    let before = now.checked_sub(kept_for).unwrap_or(Timestamp::MIN).as_millisecond();
    for statement in [
        "DELETE FROM alert WHERE status = 'resolved' AND resolved_ms < ?",
        "DELETE FROM incident WHERE status = 'resolved' AND resolved_ms < ?",
        "DELETE FROM incident_event WHERE at_ms < ?
           AND NOT EXISTS (SELECT 1 FROM incident WHERE incident.id = incident_event.incident_id)",
    ] {
        let done = sqlx::query(statement).bind(before).execute(&ledger.pool).await;
        done.map_err(failed("drop alerts that are old"))?;
    }
    Ok(())
}

fn case(row: &SqliteRow) -> Result<Case, LedgerError> {
    Ok(Case {
        id: text(row, "id")?,
        rule: text(row, "rule_id")?,
        fingerprint: text(row, "fingerprint")?,
        alertname: text(row, "alertname")?,
        service: text(row, "service")?,
        severity: text(row, "severity")?,
        title: text(row, "title")?,
        description: text(row, "description")?,
        status: text(row, "status")?,
        labels: super::from_json(&text(row, "labels")?, "the labels of an alert")?,
        value: text(row, "value")?,
        assigned_to: optional_text(row, "assigned_to")?,
        acknowledged_by: optional_text(row, "acknowledged_by")?,
        acknowledged_at: optional_time(row, "acknowledged_ms")?,
        resolved_by: optional_text(row, "resolved_by")?,
        resolution: optional_text(row, "resolution")?,
        created_at: time(number(row, "created_ms")?)?,
        resolved_at: optional_time(row, "resolved_ms")?,
        incident: text(row, "incident_id")?,
    })
}

fn optional_text(row: &SqliteRow, column: &'static str) -> Result<Option<String>, LedgerError> {
    row.try_get(column).map_err(failed("read a text"))
}

fn optional_time(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>, LedgerError> {
    let milliseconds: Option<i64> = row.try_get(column).map_err(failed("read a number"))?;
    milliseconds.map(time).transpose()
}

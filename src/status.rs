//! How everything is doing: the paths below `/api/beeacon/`, and the report about it for people.
//!
//! What is asked of others (Grafana, Loki) is asked when somebody wants to know, for two seconds at most, and what they answer is
//! shown as numbers and versions, never as they said it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use beeacon_access::{Gate, refusal};
use beeacon_collector::{Collector, CollectorStatus, LOKI_PUSH_PATH, LokiOptions};
use beeacon_query::Query;
use beeacon_settings::Setting;
use beeacon_store::Store;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::page;
use crate::server::{Companion, TENANT};

/// How long another program may take to say how it is.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Where Debian keeps the authorities that are trusted.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The part of the journal's room above which a report warns.
const JOURNAL_WARNING_PERCENT: u64 = 80;

/// Everything that is looked at.
pub(crate) struct Status {
    pub(crate) started: Instant,
    pub(crate) collector: Collector,
    pub(crate) store: Store,
    pub(crate) query: Query,
    pub(crate) companion: Option<Arc<dyn Companion>>,
    pub(crate) gate: Gate,
    pub(crate) grafana: Option<String>,
    pub(crate) loki: Option<LokiOptions>,
    pub(crate) settings: Vec<Setting>,
}

/// The doors.
pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/api/beeacon/status", get(show_status))
        .route("/api/beeacon/pollen-filter/stats", get(show_pollen_filter))
        .route("/api/beeacon/grafana/status", get(show_grafana))
        .route("/api/beeacon/loki/status", get(show_loki))
        .route("/api/beeacon/config", get(show_config))
        .route("/api/beeacon/health-report", post(report))
        .with_state(status)
}

async fn show_status(State(status): State<Arc<Status>>) -> Response {
    let limiter = status.gate.limiter();
    let hour = Timestamp::now().as_second().div_euclid(3_600);
    let redis =
        limiter.redis().map(|redis| json!({ "connected": redis.is_connected(), "losses": redis.losses() }));
    Json(json!({
        "api_version": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": status.started.elapsed().as_secs(),
        "collector": status.collector.status(),
        "store": status.store.statistics(),
        "query": status.query.statistics(),
        "agent": status.companion.as_ref().map(|companion| companion.status()),
        "access": {
            "tokens_needed": !status.gate.is_open(),
            "requests_this_hour": limiter.requests(hour).await,
            "redis": redis,
        },
    }))
    .into_response()
}

async fn show_pollen_filter(State(status): State<Arc<Status>>) -> Response {
    match status.query.pollen_filter_statistics(TENANT).await {
        Ok(statistics) => Json(json!({
            "api_version": 1,
            "stored": statistics,
            "agent": status.companion.as_ref().map(|companion| companion.pollen_filter()),
        }))
        .into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

async fn show_config(State(status): State<Arc<Status>>) -> Response {
    let setting = |setting: &Setting| {
        let origin = if setting.is_given { "file" } else { "default" };
        json!({ "key": setting.key, "value": setting.value, "origin": origin })
    };
    let settings: Vec<Value> = status.settings.iter().map(setting).collect();
    Json(json!({ "api_version": 1, "settings": settings })).into_response()
}

/// How another program answered.
#[derive(Clone, Debug, Default, Serialize)]
struct Probe {
    /// Whether there is one in the configuration.
    configured: bool,
    /// Whether it answered in time and with success.
    available: bool,
    /// The HTTP status of its answer.
    status: Option<u16>,
    /// How long that took.
    milliseconds: Option<u64>,
    /// Its version, where it says one.
    version: Option<String>,
    /// What its database is, as Grafana says: `ok`, or not.
    database: Option<String>,
}

/// Asks a program for its health, and gives it with what it said if that is JSON.
async fn probe(
    client: Option<&Client>,
    path: &str,
    headers: &[(&'static str, HeaderValue)],
) -> (Probe, Value) {
    let Some(client) = client else { return (Probe { configured: true, ..Probe::default() }, Value::Null) };
    let asked = Instant::now();
    let answer = tokio::time::timeout(PROBE_TIME_MAX, client.get(path, headers)).await;
    let milliseconds = u64::try_from(asked.elapsed().as_millis()).ok();
    match answer {
        Ok(Ok((status, body))) => {
            let probe = Probe {
                configured: true,
                available: status.is_success(),
                status: Some(status.as_u16()),
                milliseconds,
                ..Probe::default()
            };
            (probe, serde_json::from_slice(&body).unwrap_or_default())
        }
        Ok(Err(_)) | Err(_) => (Probe { configured: true, milliseconds, ..Probe::default() }, Value::Null),
    }
}

/// A word of somebody else's that is short and plain enough to be shown.
fn word(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_' | ' ');
    (text.len() <= 64 && text.chars().all(is_plain)).then(|| text.to_owned())
}

/// What asks another program. Without certificates that can be read it trusts nobody, so that it asks over plain HTTP only.
fn client(url: &str, certificates: &Path) -> Option<Client> {
    Client::new(url, None, Some(certificates)).or_else(|_| Client::new(url, None, None)).ok()
}

async fn ask_grafana(status: &Status) -> Probe {
    let Some(url) = &status.grafana else { return Probe::default() };
    let client = client(url, SYSTEM_CERTIFICATES.as_ref());
    let (probe, said) = probe(client.as_ref(), "/api/health", &[]).await;
    Probe { version: word(said.get("version")), database: word(said.get("database")), ..probe }
}

async fn ask_loki(status: &Status) -> Probe {
    let Some(loki) = &status.loki else { return Probe::default() };
    // The configuration was checked: its URL and its authentication can be used.
    let url = loki.push_url().map(|url| url.to_string()).unwrap_or_default();
    let url = url.strip_suffix(LOKI_PUSH_PATH).unwrap_or(&url);
    let certificates = loki.certificate_file.clone().unwrap_or_else(|| SYSTEM_CERTIFICATES.into());
    let client = client(url, &certificates);
    let mut headers = Vec::new();
    headers.extend(loki.tenant.as_ref().and_then(|tenant| Some(("x-scope-orgid", tenant.parse().ok()?))));
    headers.extend(loki.authorization().ok().flatten().map(|value| ("authorization", value)));
    let (ready, _) = probe(client.as_ref(), "/ready", &headers).await;
    let (_, said) = probe(client.as_ref(), "/loki/api/v1/status/buildinfo", &headers).await;
    Probe { version: word(said.get("version")), ..ready }
}

async fn show_grafana(State(status): State<Arc<Status>>) -> Response {
    Json(json!({ "api_version": 1, "grafana": ask_grafana(&status).await })).into_response()
}

async fn show_loki(State(status): State<Arc<Status>>) -> Response {
    let (probe, forwarding) = (ask_loki(&status).await, status.collector.status().loki);
    Json(json!({ "api_version": 1, "loki": probe, "forwarding": forwarding })).into_response()
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Fine,
    Warning,
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    severity: Severity,
    message: String,
}

fn check(check: &'static str, is_fine: bool, otherwise: Severity, message: String) -> Check {
    Check { check, severity: if is_fine { Severity::Fine } else { otherwise }, message }
}

/// Looks at everything of this process; `collector` is how its collector is.
fn examine_here(status: &Status, collector: &CollectorStatus) -> Vec<Check> {
    use Severity::{Fault, Warning};
    let (store, query) = (status.store.statistics(), status.query.statistics());
    let journal = &collector.journal;
    let used = journal.allocated_bytes.saturating_mul(100) / journal.bytes_max.max(1);
    let mut checks = vec![
        check(
            "collector",
            collector.is_ready,
            Fault,
            collector.failure.clone().unwrap_or_else(|| {
                format!(
                    "{} agents, {} rows taken since the start",
                    collector.agents_count, collector.totals.rows
                )
            }),
        ),
        check(
            "journal",
            journal.refusing.is_none() && used < JOURNAL_WARNING_PERCENT,
            if journal.refusing.is_some() { Fault } else { Warning },
            journal.refusing.clone().unwrap_or_else(|| {
                format!(
                    "{used} % of its room is used, {} records wait for the store",
                    journal.store_lag_records
                )
            }),
        ),
        check(
            "journal's damage",
            journal.lost_records == 0,
            Fault,
            format!("{} records were lost to damage at the start", journal.lost_records),
        ),
        check(
            "store",
            store.has_room,
            Fault,
            format!("{} rows in {} files, {} rows in memory", store.rows, store.files, store.fresh_rows),
        ),
        check(
            "files",
            store.damaged_files == 0,
            Fault,
            format!("{} files are missing or damaged", store.damaged_files),
        ),
        check(
            "writing",
            store.flush_errors == 0,
            Warning,
            format!("{} flushes failed since the start and were or will be tried again", store.flush_errors),
        ),
        check(
            "queries",
            query.waiting == 0,
            Warning,
            format!("{} run, {} wait, {} were answered", query.running, query.waiting, query.answered),
        ),
        check(
            "access",
            !status.gate.is_open(),
            Warning,
            match status.gate.is_open() {
                true => "no token is needed: every program of this host may do everything".to_owned(),
                false => "tokens are needed".to_owned(),
            },
        ),
    ];
    if let Some(redis) = status.gate.limiter().redis() {
        let message = format!("it stopped answering {} times since the start", redis.losses());
        checks.push(check("redis", redis.is_connected(), Warning, message));
    }
    if let Some(companion) = &status.companion {
        let is_ready = companion.is_ready();
        let message = if is_ready { "it reads and ships" } else { "it does not ship" };
        checks.push(check("agent", is_ready, Fault, message.to_owned()));
    }
    checks
}

/// The checks that say that something does not work now: what is written as events.
pub(crate) fn failing(status: &Status) -> Vec<(&'static str, String)> {
    let is_failing = |check: &Check| check.severity == Severity::Fault || is_redis_away(check);
    let checks = examine_here(status, &status.collector.status()).into_iter().filter(is_failing);
    checks.map(|check| (check.check, check.message)).collect()
}

/// Without Redis everything works, and several servers work each by itself.
fn is_redis_away(check: &Check) -> bool {
    check.check == "redis" && check.severity != Severity::Fine
}

/// Looks at everything.
async fn examine(status: &Status) -> Vec<Check> {
    use Severity::Warning;
    let collector = status.collector.status();
    let mut checks = examine_here(status, &collector);
    if let Some(forwarding) = &collector.loki {
        let probe = ask_loki(status).await;
        let message = format!(
            "{}, {} records behind the journal",
            if probe.available { "it answers" } else { "it does not answer" },
            forwarding.lag_records
        );
        checks.push(check("loki", probe.available && forwarding.last_failure.is_none(), Warning, message));
    }
    let grafana = ask_grafana(status).await;
    if grafana.configured {
        let message = match &grafana.version {
            Some(version) => format!("version {version}"),
            None => "it does not say its version".to_owned(),
        };
        checks.push(check("grafana", grafana.available, Warning, message));
    }
    checks
}

/// `POST /api/beeacon/health-report`: JSON, or a page where `Accept` prefers `text/html`.
async fn report(State(status): State<Arc<Status>>, headers: HeaderMap) -> Response {
    let checks = examine(&status).await;
    let worst = checks.iter().map(|check| check.severity).max().unwrap_or(Severity::Fine);
    let generated = format!("{:.3}", Timestamp::now());
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.trim_start().starts_with("text/html") {
        let body = json!({
            "api_version": 1,
            "generated": generated,
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": worst != Severity::Fault,
            "checks": checks,
        });
        return Json(body).into_response();
    }
    let word = |severity| match severity {
        Severity::Fine => "fine",
        Severity::Warning => "warning",
        Severity::Fault => "fault",
    };
    let rows: String = checks
        .iter()
        .map(|check| {
            let (severity, message) = (word(check.severity), page::escaped(&check.message));
            format!(
                "<tr class=\"{severity}\"><td>{severity}<td>{}<td>{message}</tr>\n",
                page::escaped(check.check)
            )
        })
        .collect();
    let body = format!(
        "<p>Beeacon {}, {generated}: <strong>{}</strong></p>\n<table>\n<tr><th>State<th>Of<th>What</tr>\n{rows}</table>\n",
        env!("CARGO_PKG_VERSION"),
        word(worst)
    );
    page::html("Health of Beeacon", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_words_of_others_are_shown() {
        assert_eq!(word(Some(&json!("12.1.0+deb"))), Some("12.1.0+deb".to_owned()));
        for odd in [json!("<b>"), json!("a\nb"), json!("x".repeat(65)), json!(12), Value::Null] {
            assert_eq!(word(Some(&odd)), None, "{odd}");
        }
    }
}

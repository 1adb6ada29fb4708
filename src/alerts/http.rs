//! The doors of alerting: rules and alerts in Prometheus' shape, what people do with alerts, silences, incidents.
//!
//! Who may use them stands in src/routes.rs. What a person does is noted under the name of the token; where there are no tokens, under the
//! name that the request gives.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use beeacon_access::{Principal, refusal};
use beeacon_alerts::ledger::{Act, Case, CaseFilter, LedgerError};
use beeacon_alerts::matchers::Matcher;
use beeacon_alerts::notify::silence::Silence;
use beeacon_alerts::runner::{GroupView, Handle};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::asked::{Asked, BODY_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX, Refused, success};

/// The longest silence: a year. Whoever wants longer changes the rule.
const SILENCE_SECONDS_MAX: i64 = 366 * 24 * 3600;

/// The most matchers of one silence.
const SILENCE_MATCHERS_MAX: usize = 64;

/// The doors, to be merged into the program's router.
pub(crate) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/api/v1/rules", get(rules))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/alerts/{id}", get(alert).patch(change))
        .route("/api/v1/alerts/{id}/acknowledge", post(acknowledge))
        .route("/api/v1/alerts/{id}/assign", post(assign))
        .route("/api/v1/alerts/{id}/comment", post(comment))
        .route("/api/v1/alerts/{id}/resolve", post(resolve))
        .route("/api/v1/silences", get(silences).post(silence))
        .route("/api/v1/silences/{id}", get(one_silence).delete(expire))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/beeacon/alerts", get(overview))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handle)
}

fn not_found(what: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, "not_found", &format!("there is no such {what}"))
}

fn malformed(message: &str) -> Response {
    Refused::malformed(message).into_response()
}

fn failed(error: LedgerError) -> Response {
    tracing::error!(
        error = format!("{:#}", anyhow::Error::new(error)),
        "the ledger of alerts cannot be used"
    );
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "internal",
        "the ledger of alerts cannot be used; the log says why",
    )
}

fn stopping() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping")
}

async fn rules(State(handle): State<Handle>, query: RawQuery) -> Response {
    let asked = match Asked::read(query, &["type", "rule"]) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let kind = match asked.get("type") {
        None => None,
        Some("alert") => Some("alerting"),
        Some("record") => Some("recording"),
        Some(_) => return malformed("type is alert or record"),
    };
    let mut groups = handle.groups();
    for group in &mut groups {
        group.rules.retain(|rule| {
            kind.is_none_or(|kind| rule.kind == kind) && asked.get("rule").is_none_or(|id| rule.id == id)
        });
    }
    groups.retain(|group| !group.rules.is_empty());
    success(json!({ "groups": groups }))
}

async fn alerts(State(handle): State<Handle>, query: RawQuery) -> Response {
    let asked = Asked::read(query, &["status", "severity", "service", "incident", "limit"]);
    let (asked, limit) = match asked.and_then(|asked| asked.limit().map(|limit| (asked, limit))) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let status = match asked.get("status") {
        None | Some("open") => Some("open".to_owned()),
        Some("all") => None,
        Some(status @ ("new" | "acknowledged" | "resolved")) => Some(status.to_owned()),
        Some(_) => return malformed("status is open, new, acknowledged, resolved or all"),
    };
    if asked.get("severity").is_some_and(|one| !["low", "medium", "high", "critical"].contains(&one)) {
        return malformed("severity is low, medium, high or critical");
    }
    let own = |name| asked.get(name).map(str::to_owned);
    let filter =
        CaseFilter { status, severity: own("severity"), service: own("service"), incident: own("incident") };
    let shows_pending =
        filter.status.as_deref() == Some("open") && filter.severity.is_none() && filter.incident.is_none();
    let cases = match handle.ledger().cases(&filter, limit).await {
        Ok(cases) => cases,
        Err(error) => return failed(error),
    };
    let mut shown: Vec<Value> = cases.iter().map(shown_case).collect();
    if shows_pending {
        shown.extend(pending(&handle.groups(), asked.get("service")));
    }
    success(json!({ "alerts": shown }))
}

/// An alert as Prometheus shows one, and what is known of it beyond that.
fn shown_case(case: &Case) -> Value {
    let mut shown = json!(case);
    if let Some(shown) = shown.as_object_mut() {
        let state = if case.status == "resolved" { "resolved" } else { "firing" };
        shown.insert("state".to_owned(), json!(state));
        shown.insert("activeAt".to_owned(), json!(case.created_at));
        let annotations = json!({ "summary": case.title, "description": case.description });
        shown.insert("annotations".to_owned(), annotations);
    }
    shown
}

fn pending(groups: &[GroupView], service: Option<&str>) -> Vec<Value> {
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts = rules.flat_map(|rule| &rule.alerts).filter(|alert| alert.state == "pending");
    let of_service =
        alerts.filter(|alert| service.is_none_or(|service| alert.labels.value("service") == service));
    of_service.map(|alert| json!(alert)).collect()
}

async fn alert(State(handle): State<Handle>, Path(id): Path<String>) -> Response {
    match handle.ledger().case(&id).await {
        Ok(Some(case)) => success(shown_case(&case)),
        Ok(None) => not_found("alert"),
        Err(error) => failed(error),
    }
}

/// What may stand in the body of a change.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// Who says it.
    by: Option<String>,
    note: Option<String>,
    status: Option<String>,
    /// A name, or null for nobody; not there for no change.
    #[serde(default, deserialize_with = "given")]
    assigned_to: Option<Option<String>>,
}

fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

impl Said {
    fn read(body: Result<Bytes, BytesRejection>) -> Result<Said, Refused> {
        let body = body.map_err(|_| Refused::body())?;
        if body.is_empty() {
            return Ok(Said::default());
        }
        serde_json::from_slice(&body).map_err(|error| {
            Refused::malformed(format!(
                "the body is JSON with by, note, status and assigned_to; it is not at line {}, column {}",
                error.line(),
                error.column()
            ))
        })
    }

    /// Who acts: a token's name is known, one that is given is believed only where there are no tokens.
    fn by<'a>(&'a self, who: Option<&'a Extension<Principal>>) -> &'a str {
        let given = self.by.as_deref().filter(|by| !by.is_empty());
        match who {
            Some(Extension(principal)) if principal.name != "local" => &principal.name,
            _ => given.unwrap_or("local"),
        }
    }
}

async fn change(State(handle): State<Handle>, Path(id): Path<String>, who: Whoever, body: Body) -> Response {
    let said = match Said::read(body) {
        Ok(said) => said,
        Err(refused) => return refused.into_response(),
    };
    let mut acts = Vec::new();
    if let Some(assignee) = &said.assigned_to {
        acts.push(Act::Assign(assignee.clone()));
    }
    match said.status.as_deref() {
        None => {}
        Some("acknowledged") => acts.push(Act::Acknowledge),
        Some("resolved") => acts.push(Act::Resolve),
        Some(_) => return malformed("status becomes acknowledged or resolved"),
    }
    if acts.is_empty() {
        if said.note.is_none() {
            return malformed("the body says nothing: status, assigned_to or note");
        }
        acts.push(Act::Comment);
    }
    done(&handle, &id, &acts, &said, who).await
}

type Whoever = Option<Extension<Principal>>;
type Body = Result<Bytes, BytesRejection>;

async fn acknowledge(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    who: Whoever,
    body: Body,
) -> Response {
    act(&handle, &id, who, body, |_| Ok(Act::Acknowledge)).await
}

async fn assign(State(handle): State<Handle>, Path(id): Path<String>, who: Whoever, body: Body) -> Response {
    let assignment = |said: &Said| match &said.assigned_to {
        Some(assignee) => Ok(Act::Assign(assignee.clone())),
        None => Err(Refused::malformed("assign needs assigned_to: a name, or null for nobody")),
    };
    act(&handle, &id, who, body, assignment).await
}

async fn comment(State(handle): State<Handle>, Path(id): Path<String>, who: Whoever, body: Body) -> Response {
    let comment = |said: &Said| match said.note {
        Some(_) => Ok(Act::Comment),
        None => Err(Refused::malformed("comment needs note")),
    };
    act(&handle, &id, who, body, comment).await
}

async fn resolve(State(handle): State<Handle>, Path(id): Path<String>, who: Whoever, body: Body) -> Response {
    act(&handle, &id, who, body, |_| Ok(Act::Resolve)).await
}

async fn act(
    handle: &Handle,
    id: &str,
    who: Whoever,
    body: Body,
    meant: impl FnOnce(&Said) -> Result<Act, Refused>,
) -> Response {
    match Said::read(body).and_then(|said| Ok((meant(&said)?, said))) {
        Ok((act, said)) => done(handle, id, &[act], &said, who).await,
        Err(refused) => refused.into_response(),
    }
}

async fn done(handle: &Handle, id: &str, acts: &[Act], said: &Said, who: Whoever) -> Response {
    let actor = said.by(who.as_ref());
    let mut case = None;
    for act in acts {
        let note = said.note.as_deref().unwrap_or("");
        case = match handle.ledger().act(id, act, actor, note, handle.now()).await {
            Ok(case) => case,
            Err(error) => return failed(error),
        };
    }
    case.map_or_else(|| not_found("alert"), |case| success(shown_case(&case)))
}

async fn silences(State(handle): State<Handle>) -> Response {
    let now = handle.now();
    let silences: Vec<Value> = handle.silences().iter().map(|silence| shown_silence(silence, now)).collect();
    success(json!({ "silences": silences }))
}

fn shown_silence(silence: &Silence, now: Timestamp) -> Value {
    let state = if now < silence.starts_at {
        "pending"
    } else if now < silence.ends_at {
        "active"
    } else {
        "expired"
    };
    let mut shown = json!(silence);
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("state".to_owned(), json!(state));
    }
    shown
}

async fn one_silence(State(handle): State<Handle>, Path(id): Path<String>) -> Response {
    let now = handle.now();
    let found = handle.silences().into_iter().find(|silence| silence.id == id);
    found.map_or_else(|| not_found("silence"), |silence| success(shown_silence(&silence, now)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SilenceAsked {
    /// As Alertmanager writes them: `service="api"`, `severity=~"low|medium"`.
    matchers: Vec<String>,
    starts_at: Option<Timestamp>,
    ends_at: Timestamp,
    created_by: String,
    #[serde(default)]
    comment: String,
}

async fn silence(State(handle): State<Handle>, body: Result<Bytes, BytesRejection>) -> Response {
    let Ok(body) = body else { return Refused::body().into_response() };
    let asked: SilenceAsked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            return malformed(&format!(
                "the body is JSON with matchers, starts_at, ends_at, created_by and comment; it is not at line {}, column {}",
                error.line(),
                error.column()
            ));
        }
    };
    let now = handle.now();
    let starts_at = asked.starts_at.unwrap_or(now);
    let seconds = asked.ends_at.as_second().saturating_sub(starts_at.as_second());
    if asked.ends_at <= starts_at || asked.ends_at <= now || seconds > SILENCE_SECONDS_MAX {
        return malformed("ends_at is after starts_at and after now, and a year from starts_at at most");
    }
    if asked.matchers.is_empty() || asked.matchers.len() > SILENCE_MATCHERS_MAX {
        return malformed(&format!("a silence has 1 to {SILENCE_MATCHERS_MAX} matchers"));
    }
    if asked.created_by.is_empty() {
        return malformed("created_by says who sets the silence");
    }
    let matchers = asked.matchers.iter().map(|text| Matcher::read(text)).collect::<Result<Vec<_>, _>>();
    let matchers = match matchers {
        Ok(matchers) => matchers,
        Err(error) => return malformed(&error.to_string()),
    };
    let mut hash = Sha256::new();
    hash.update(now.as_nanosecond().to_be_bytes());
    hash.update(&body);
    let id = format!(
        "sil_{}",
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let silence = Silence {
        id,
        matchers,
        starts_at,
        ends_at: asked.ends_at,
        created_by: asked.created_by,
        comment: asked.comment,
    };
    let shown = shown_silence(&silence, now);
    match handle.silence(silence).await {
        Ok(true) => (StatusCode::CREATED, success(shown)).into_response(),
        Ok(false) => refusal(StatusCode::CONFLICT, "silences", "there are too many silences"),
        Err(_) => stopping(),
    }
}

async fn expire(State(handle): State<Handle>, Path(id): Path<String>) -> Response {
    match handle.expire_silence(&id).await {
        Ok(true) => {
            let now = handle.now();
            let found = handle.silences().into_iter().find(|silence| silence.id == id);
            found.map_or_else(|| not_found("silence"), |silence| success(shown_silence(&silence, now)))
        }
        Ok(false) => not_found("silence"),
        Err(_) => stopping(),
    }
}

async fn incidents(State(handle): State<Handle>, query: RawQuery) -> Response {
    let asked = Asked::read(query, &["status", "limit"]);
    let (asked, limit) = match asked.and_then(|asked| asked.limit().map(|limit| (asked, limit))) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let status = match asked.get("status") {
        None | Some("all") => None,
        Some(status @ ("open" | "resolved")) => Some(status),
        Some(_) => return malformed("status is open, resolved or all"),
    };
    match handle.ledger().incidents(status, limit).await {
        Ok(incidents) => success(json!({ "incidents": incidents })),
        Err(error) => failed(error),
    }
}

async fn incident(State(handle): State<Handle>, Path(id): Path<String>) -> Response {
    let ledger = handle.ledger();
    let found = async {
        let Some(incident) = ledger.incident(&id).await? else { return Ok(None) };
        let filter = CaseFilter { incident: Some(id.clone()), ..CaseFilter::default() };
        let alerts: Vec<Value> = ledger.cases(&filter, PAGE_MAX).await?.iter().map(shown_case).collect();
        let mut timeline = ledger.timeline(Some(&id), PAGE_MAX).await?;
        timeline.reverse();
        Ok(Some(json!({ "incident": incident, "alerts": alerts, "timeline": timeline })))
    };
    match found.await {
        Ok(Some(found)) => success(found),
        Ok(None) => not_found("incident"),
        Err(error) => failed(error),
    }
}

/// All that an on-call person wants to see first.
async fn overview(State(handle): State<Handle>) -> Response {
    let ledger = handle.ledger();
    let seen = async {
        let status = handle.status().await?;
        let open = CaseFilter { status: Some("open".to_owned()), ..CaseFilter::default() };
        let cases = ledger.cases(&open, PAGE_MAX).await?;
        let incidents = ledger.incidents(Some("open"), PAGE_DEFAULT).await?;
        Ok((status, cases, incidents))
    };
    let (status, cases, incidents) = match seen.await {
        Ok(seen) => seen,
        Err(error) => return failed(error),
    };
    let of = |severity: &str| cases.iter().filter(|case| case.severity == severity).count();
    axum::Json(json!({
        "api_version": 1,
        "status": status,
        "messages": {
            "waiting": status.outbox.waiting,
            "delivered": status.outbox.delivered,
            "given_up": status.outbox.given_up,
        },
        "open": { "critical": of("critical"), "high": of("high"), "medium": of("medium"), "low": of("low") },
        "incidents": incidents,
        "alerts": cases.iter().take(PAGE_DEFAULT).map(shown_case).collect::<Vec<_>>(),
    }))
    .into_response()
}

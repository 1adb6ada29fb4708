//! The door of events: a page as JSON, or a stream of server-sent events.
//!
//! ```text
//! GET /api/v1/events?type=threat.detected,user.action&since=2026-11-27T05:00:00Z
//! Accept: text/event-stream
//! Last-Event-ID: 7f3c…
//!
//! id: 9a01…
//! event: threat.detected
//! data: {"id": "9a01…", "type": "threat.detected", …}
//! ```
//! A stream reads the log from the place that its client has reached: nothing waits in memory for a client but the few events that are
//! on their way to it. What always holds:
//! - behind the id that a client names last it gets every event, once and in the order of the log; where that id is not known any
//!   more it is told so and gets what is kept;
//! - a client that does not read is told, and its connection is closed; its next one goes on from where it was.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use beeacon_access::{Gate, Principal, refusal};
use beeacon_events::limits::PAGE_MAX as LOG_PAGE_MAX;
use beeacon_events::{EventType, LogError, Selection, Stored};
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::Events;
use super::limits::{FAREWELL_TIME, HEARTBEAT_EVERY, SLOW_AFTER, STREAM_PAGE, STREAMS_MAX};
use crate::asked::{Asked, Refused, success};
use crate::doors::{self, HangUp};

/// Where events are.
pub(crate) const EVENTS_PATH: &str = "/api/v1/events";

/// The content type of a stream.
pub(crate) const STREAM: &str = "text/event-stream";

/// What a client says it had last, when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// How soon a client is to come back, in milliseconds.
const RETRY_MS: u32 = 2_000;

#[derive(Clone)]
struct Door {
    events: Events,
    gate: Gate,
    stop: watch::Receiver<bool>,
}

/// The door. Streams end when the server is to stop, and when the token that opened them is revoked.
pub(crate) fn router(events: Events, gate: Gate, stop: watch::Receiver<bool>) -> Router {
    Router::new().route(EVENTS_PATH, get(answer)).with_state(Door { events, gate, stop })
}

/// What is asked for.
struct Wanted {
    selection: Selection,
    /// The event behind which it begins.
    behind: Option<String>,
    limit: usize,
}

impl Wanted {
    fn read(query: RawQuery, headers: &HeaderMap) -> Result<Wanted, Refused> {
        let asked = Asked::read(query, &["type", "since", "after", "limit"])?;
        let mut selection = Selection::default();
        for name in asked.all("type").flat_map(|names| names.split(',')) {
            let Some(kind) = EventType::of(name) else {
                let names = EventType::ALL.map(EventType::name).join(", ");
                return Err(Refused::malformed(format!("type is one or more of {names}")));
            };
            if !selection.types.contains(&kind) {
                selection.types.push(kind);
            }
        }
        if let Some(since) = asked.get("since") {
            let since = since.parse();
            let wanted = || Refused::malformed("since is a time such as 2026-11-27T05:00:00Z");
            selection.since = Some(since.map_err(|_| wanted())?);
        }
        let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        let behind = last.or_else(|| asked.get("after")).map(str::to_owned);
        Ok(Wanted { selection, behind, limit: asked.limit()? })
    }
}

async fn answer(
    State(door): State<Door>,
    hang_up: Option<Extension<HangUp>>,
    principal: Option<Extension<Principal>>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let wanted = match Wanted::read(query, &headers) {
        Ok(wanted) => wanted,
        Err(refused) => return refused.into_response(),
    };
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_stream = accepts
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(STREAM));
    let answered = match wants_stream {
        true => {
            let who = principal.map(|Extension(principal)| principal.name).unwrap_or_default();
            stream(door, wanted, who, hang_up.map(|Extension(hang_up)| hang_up)).await
        }
        false => page(&door.events, wanted).await,
    };
    answered.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the log of events cannot be read");
        let message = "the log of events cannot be read; the log says why";
        refusal(StatusCode::SERVICE_UNAVAILABLE, "internal", message)
    })
}

/// The newest of the wanted events, or the first ones behind a place; the oldest of them first.
async fn page(events: &Events, wanted: Wanted) -> Result<Response, LogError> {
    let log = &events.0.log;
    let Wanted { selection, behind, limit } = wanted;
    let mut found: Vec<Stored> = Vec::new();
    match (behind, selection.since) {
        (None, None) => found = log.newest(&selection, limit).await?,
        (behind, _) => {
            let mut number = match behind {
                None => 0,
                Some(id) => match log.number_of(&id).await? {
                    Some(number) => number,
                    None => {
                        let message =
                            "there is no such event, or no more: ask without after for what is kept";
                        return Ok(refusal(StatusCode::NOT_FOUND, "not_found", message));
                    }
                },
            };
            let last = *log.last().borrow();
            while found.len() < limit && number < last {
                let (some, upto) =
                    log.after(number, &selection, (limit - found.len()).min(LOG_PAGE_MAX)).await?;
                found.extend(some);
                number = upto;
            }
        }
    }
    let last = found.last().map(|stored| stored.event.id.clone());
    Ok(success(json!({ "events": found, "last": last })))
}

/// How a stream ended, for the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody is there any more.
    Gone,
    /// The client did not read.
    Slow,
    /// The server stops.
    Stopping,
    /// The log cannot be read.
    Failed,
    /// The client's token opens nothing any more, or something else.
    Revoked,
}

impl End {
    /// The last thing that the client is told.
    fn farewell(self) -> Option<&'static str> {
        match self {
            End::Gone => None,
            End::Slow => Some("slow"),
            End::Stopping => Some("stopping"),
            End::Failed => Some("failed"),
            End::Revoked => Some("revoked"),
        }
    }
}

async fn stream(
    door: Door,
    wanted: Wanted,
    who: String,
    hang_up: Option<HangUp>,
) -> Result<Response, LogError> {
    let Door { events, gate, stop } = door;
    let revoked = gate.revoked();
    let Ok(permit) = events.0.streams.clone().try_acquire_owned() else {
        let message = format!("{STREAMS_MAX} streams of events are open, which is the limit");
        let mut refused = refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", &message);
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        return Ok(refused);
    };
    let mut first = format!("retry: {RETRY_MS}\n\n");
    let number = match wanted.behind {
        Some(id) => match events.0.log.number_of(&id).await? {
            Some(number) => number,
            None => {
                first.push_str(&told("beeacon.incomplete", "the last event is not known any more"));
                0
            }
        },
        // From now on, unless somebody says from when.
        None if wanted.selection.since.is_none() => *events.0.log.last().borrow(),
        None => 0,
    };
    let (to, mut from) = mpsc::channel::<Bytes>(1);
    let farewell = Arc::new(Mutex::new(None::<&'static str>));
    let (held, released) = oneshot::channel::<Infallible>();
    let mut telling =
        Telling { events, selection: wanted.selection, number, to, stop, who, revoked, _permit: permit };
    let last_words = farewell.clone();
    tokio::spawn(async move {
        let end = telling.run(first).await;
        *last_words.lock().unwrap_or_else(PoisonError::into_inner) = end.farewell();
        let slow_streams = telling.events.0.slow_streams.clone();
        // From here on the client's body ends behind what it has, with the last words.
        drop(telling);
        if end == End::Slow {
            slow_streams.inc();
            // The stream's end stands behind what was not read. Whoever does not come to it loses the connection.
            if timeout(FAREWELL_TIME, released).await.is_err()
                && let Some(HangUp(hang_up)) = hang_up
            {
                hang_up.notify_one();
            }
        }
    });
    let body = stream::poll_fn(move |context| {
        let _held = &held;
        match from.poll_recv(context) {
            Poll::Ready(None) => {
                let reason = farewell.lock().unwrap_or_else(PoisonError::into_inner).take();
                Poll::Ready(reason.map(|reason| Ok::<_, Infallible>(told("beeacon.closed", reason).into())))
            }
            polled => polled.map(|piece| piece.map(Ok)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that hold answers back until they are complete would hold these for ever.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Something about the stream itself; it has no id, so that clients go on from the last event.
fn told(name: &str, reason: &str) -> String {
    format!("event: {name}\ndata: {}\n\n", json!({ "reason": reason }))
}

/// Events as a client reads them. JSON has no line breaks of its own.
fn written(page: &[Stored]) -> Result<String, LogError> {
    let mut text = String::new();
    for stored in page {
        let data = serde_json::to_string(stored).map_err(|_| LogError::Json)?;
        text.push_str(&format!("id: {}\nevent: {}\ndata: {data}\n\n", stored.event.id, stored.event.kind));
    }
    Ok(text)
}

/// What one stream needs.
struct Telling {
    events: Events,
    selection: Selection,
    number: u64,
    to: mpsc::Sender<Bytes>,
    stop: watch::Receiver<bool>,
    /// Whose token it was.
    who: String,
    revoked: broadcast::Receiver<Arc<BTreeSet<String>>>,
    _permit: OwnedSemaphorePermit,
}

impl Telling {
    async fn run(&mut self, first: String) -> End {
        let Telling { events, selection, number, to, stop, who, revoked, .. } = self;
        let telling = async {
            send(to, first).await?;
            let mut last = events.0.log.last();
            loop {
                last.borrow_and_update();
                let (page, upto) = match events.0.log.after(*number, selection, STREAM_PAGE).await {
                    Ok(found) => found,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a stream of events ends: the log cannot be read");
                        return Err(End::Failed);
                    }
                };
                *number = upto;
                if !page.is_empty() {
                    send(to, written(&page).map_err(|_| End::Failed)?).await?;
                    continue;
                }
                tokio::select! {
                    changed = last.changed() => changed.map_err(|_| End::Stopping)?,
                    () = to.closed() => return Err(End::Gone),
                    () = tokio::time::sleep(HEARTBEAT_EVERY) => send(to, ": alive\n\n".to_owned()).await?,
                }
            }
        };
        let ended: Result<Infallible, End> = tokio::select! {
            ended = telling => ended,
            () = doors::until_stopped(stop) => Err(End::Stopping),
            () = until_revoked(revoked, who) => Err(End::Revoked),
        };
        match ended {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }
}

/// Ends when the token of this name opens nothing any more; also when so much has changed that nobody can say.
async fn until_revoked(revoked: &mut broadcast::Receiver<Arc<BTreeSet<String>>>, who: &str) {
    while let Ok(gone) = revoked.recv().await {
        if gone.contains(who) {
            return;
        }
    }
}

/// Hands a piece to the connection, which takes one when the one before has gone out.
async fn send(to: &mpsc::Sender<Bytes>, piece: String) -> Result<(), End> {
    match timeout(SLOW_AFTER, to.send(piece.into())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}

const _: () = assert!(FAREWELL_TIME.as_secs() > 0 && HEARTBEAT_EVERY.as_secs() < 60);

//! The door for frames.
//!
//! In this order: length against its limit, memory permits, body against its deadline, header and checksums, session,
//! memory permits again, rows, the agent's turn, the plan, room, journal, state, store, answer. Nothing is changed before
//! the journal has the frame; everything after that happens whether or not the client still listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use beeacon_journal::Payload;
use beeacon_record::limits::FRAME_BYTES_MAX;
use beeacon_record::wire::IngestAnswer;
use beeacon_record::{Batch, Frame, Scrubbed};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::OwnedMutexGuard;

use crate::agents::{Agent, AgentState};
use crate::collector::{Inner, now_ns, seconds_since};
use crate::entry;
use crate::followers::FollowedRows;
use crate::limits::{
    BODY_BYTES_PER_SECOND_MIN, BODY_TIME_BASE, INGEST_FRAME_BYTES_MAX, PUBLISH_ANSWER_WAIT_MAX,
};
use crate::permits::ByteBudgetPermit;
use crate::plan::{Known, Plan, PlanError, check_rows};
use crate::refusal::{Refused, json};

/// `POST /api/v1/ingest`.
pub(crate) async fn ingest(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    match take(&inner, request).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(refused) => {
            inner.metrics.refused(refused.code);
            tracing::debug!(status = refused.status.as_u16(), message = refused.message, "frame refused");
            refused.into_response()
        }
    }
}

async fn take(inner: &Arc<Inner>, request: Request) -> Result<IngestAnswer, Refused> {
    let answer = take_in(inner, request).await?;
    // Last, when what this frame took is given back.
    Ok(IngestAnswer { credit_bytes: Some(inner.credit_bytes()), ..answer })
}

async fn take_in(inner: &Arc<Inner>, request: Request) -> Result<IngestAnswer, Refused> {
    inner.check_room()?;
    let (parts, body) = request.into_parts();
    let announced = announced_bytes(&parts.headers, FRAME_BYTES_MAX)?;
    let permit = inner.bodies.take(announced.unwrap_or(FRAME_BYTES_MAX)).await;
    let permit = permit.ok_or_else(|| Refused::busy("too many frames are being received"))?;
    let bytes = read_body(body, announced, FRAME_BYTES_MAX).await?;
    let frame = Frame::parse(bytes)?;
    if frame.bytes().len() > INGEST_FRAME_BYTES_MAX {
        let message =
            format!("frame has {} bytes, allowed are {INGEST_FRAME_BYTES_MAX}", frame.bytes().len());
        return Err(Refused::too_large(message));
    }
    let agent = inner.agents.get(frame.header().agent).ok_or_else(Refused::no_session)?;
    check_epoch(&agent, &frame)?;
    let (batch, decoded) = decode(inner, &frame).await?;

    let mut state = Arc::clone(&agent.state).lock_owned().await;
    // A session may have begun while this frame waited for its turn.
    check_epoch(&agent, &frame)?;
    let received_ns = now_ns();
    let intervals = &frame.header().intervals;
    let known: Vec<Known> = intervals
        .iter()
        .map(|interval| Known { memory: state.sources.get(&interval.source).cloned(), lost: None })
        .collect();
    let plan =
        Plan::new(agent.id, &inner.tenant, received_ns, &batch, &known).map_err(|error| match error {
            PlanError::Hole { expected } => Refused::position(expected),
            PlanError::Batch(error) => Refused::malformed(error.to_string()),
        })?;
    if plan.is_empty() {
        inner.metrics.duplicate_frames.inc();
        inner.metrics.duplicate_rows.inc_by(plan.duplicate_rows);
        return Ok(answer(&plan));
    }
    let sources = plan.after.iter().map(|(source, _)| source);
    let room = inner.agents.make_room(&agent, &mut state, sources, received_ns);
    room.map_err(|error| Refused::busy(error.to_string()))?;
    inner.check_room()?;

    let inner = Arc::clone(inner);
    // A task of its own: a client that hangs up must not leave a durable frame without its effects.
    let task = tokio::spawn(commit(inner, agent, state, plan, frame, received_ns, (permit, decoded)));
    task.await.unwrap_or_else(|_| Err(Refused::internal("the commit ended without an answer")))
}

/// Everything from the journal on.
async fn commit(
    inner: Arc<Inner>,
    agent: Arc<Agent>,
    mut state: OwnedMutexGuard<AgentState>,
    plan: Plan,
    frame: Frame,
    received_ns: i64,
    (body, decoded): (ByteBudgetPermit, ByteBudgetPermit),
) -> Result<IngestAnswer, Refused> {
    let Ok(running) = Arc::clone(&inner.commits).acquire_owned().await else {
        return Err(Refused::full("the collector is closing"));
    };
    let started = Instant::now();
    let prefix = entry::batch_prefix(&inner.tenant, received_ns, &plan.before)
        .map_err(|error| Refused::internal(error.to_string()))?;
    let payload = Payload::new().with(prefix).with(frame.bytes().clone());
    let rows = FollowedRows::of(&plan);
    let row_bytes = frame.header().rebuilt_bytes();
    let lsn = inner.append(payload, Some((received_ns, rows)), row_bytes).await?;
    drop(body);

    // From here on the frame counts, whatever happens to the store: sent again it is a duplicate.
    inner.agents.remember(&agent, &mut state, plan.after.iter().cloned());
    let commit = plan.commit(agent.id, &inner.tenant, received_ns, lsn);
    let showing = tokio::spawn({
        let inner = Arc::clone(&inner);
        async move {
            let _held = (running, decoded);
            inner.publish(commit).await
        }
    });
    match tokio::time::timeout(PUBLISH_ANSWER_WAIT_MAX, showing).await {
        Ok(Ok(shown)) => shown?,
        Ok(Err(_)) => return Err(Refused::internal("the commit ended without an answer")),
        Err(_) => tracing::warn!(lsn, "a frame is durable and waits for room in the store"),
    }
    drop(state);

    let metrics = &inner.metrics;
    metrics.frames.inc();
    metrics.frame_bytes.inc_by(frame.bytes().len() as u64);
    metrics.rows.inc_by(plan.rows);
    metrics.duplicate_rows.inc_by(plan.duplicate_rows);
    metrics.trimmed_frames.inc_by(u64::from(plan.duplicate_rows > 0));
    metrics.gaps.inc_by(plan.gaps.len() as u64);
    metrics.commit_seconds.observe(seconds_since(started));
    Ok(answer(&plan))
}

fn answer(plan: &Plan) -> IngestAnswer {
    IngestAnswer {
        committed: plan.committed.clone(),
        rows: plan.rows,
        duplicate_rows: plan.duplicate_rows,
        credit_bytes: None,
    }
}

fn check_epoch(agent: &Agent, frame: &Frame) -> Result<(), Refused> {
    match frame.header().epoch.cmp(&agent.epoch()) {
        std::cmp::Ordering::Less => Err(Refused::fenced()),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Refused::no_session()),
    }
}

/// Inflates and checks a frame's rows on a thread that may block: it takes milliseconds, and whatever a hostile frame does
/// to a decoder stays there. The permit is for the batch and held as long as it.
async fn decode(inner: &Inner, frame: &Frame) -> Result<(Scrubbed<Batch>, ByteBudgetPermit), Refused> {
    let rebuilt_bytes = frame.header().rebuilt_bytes();
    let permit = inner.decodes.take(2 * rebuilt_bytes).await;
    let mut permit = permit.ok_or_else(|| Refused::busy("too many frames are being decoded"))?;
    let frame = frame.clone();
    let decoded = tokio::task::spawn_blocking(move || {
        let batch = frame.decode().map_err(Refused::from)?;
        check_rows(frame.header().agent, batch.get())
            .map_err(|error| Refused::malformed(error.to_string()))?;
        // What was inflated is gone; the batch stays.
        drop(permit.split(rebuilt_bytes));
        Ok((batch, permit))
    });
    decoded.await.unwrap_or_else(|_| Err(Refused::malformed("frame can't be decoded")))
}

/// The length that a request announces, held against the limit; none when it announces none.
pub(crate) fn announced_bytes(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, Refused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::malformed(
            "content encodings are not understood: a frame is compressed already",
        ));
    }
    let Some(announced) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let announced: u64 = announced
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refused::malformed("content-length is not a number"))?;
    match usize::try_from(announced) {
        Ok(bytes) if bytes <= limit => Ok(Some(bytes)),
        _ => Err(Refused::too_large(format!("body has {announced} bytes, allowed are {limit}"))),
    }
}

/// Reads a body of at most `limit` bytes, within a time that grows with what was announced.
pub(crate) async fn read_body(body: Body, announced: Option<usize>, limit: usize) -> Result<Bytes, Refused> {
    let seconds = announced.unwrap_or(limit) as u64 / BODY_BYTES_PER_SECOND_MIN;
    let time_max = BODY_TIME_BASE + Duration::from_secs(seconds);
    let read = collect(body, announced, limit);
    tokio::time::timeout(time_max, read).await.unwrap_or_else(|_| {
        let message = format!("body did not arrive within {} seconds", time_max.as_secs());
        Err(Refused::too_slow(message))
    })
}

async fn collect(mut body: Body, announced: Option<usize>, limit: usize) -> Result<Bytes, Refused> {
    let limit = announced.unwrap_or(limit);
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(64 << 10));
    while let Some(part) = body.frame().await {
        let part = part.map_err(|_| Refused::malformed("body ended before it was whole"))?;
        let Ok(data) = part.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(Refused::too_large(format!("body is longer than {limit} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    match announced {
        Some(announced) if bytes.len() < announced => {
            Err(Refused::malformed("body is shorter than its content-length"))
        }
        _ => Ok(bytes.freeze()),
    }
}

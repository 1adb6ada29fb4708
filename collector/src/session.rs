//! The door where an agent says who it is: it gets the next epoch, durable before it is told, and where its sources stand.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use beeacon_journal::Payload;
use beeacon_record::wire::{SessionAnswer, SessionRequest};
use beeacon_record::{Epoch, FRAME_VERSION};
use beeacon_store::Commit;
use http::StatusCode;
use tokio::sync::OwnedMutexGuard;

use crate::agents::{Agent, AgentState, Who};
use crate::collector::{Inner, now_ns};
use crate::entry;
use crate::ingest::{announced_bytes, read_body};
use crate::limits::{SESSION_BYTES_MAX, SESSION_FIELD_BYTES_MAX};
use crate::refusal::{Refused, json};

/// `POST /api/v1/session`.
pub(crate) async fn session(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    match take(&inner, request).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(refused) => {
            inner.metrics.refused(refused.code);
            tracing::debug!(status = refused.status.as_u16(), message = refused.message, "session refused");
            refused.into_response()
        }
    }
}

async fn take(inner: &Arc<Inner>, request: Request) -> Result<SessionAnswer, Refused> {
    inner.check_room()?;
    let (parts, body) = request.into_parts();
    let announced = announced_bytes(&parts.headers, SESSION_BYTES_MAX)?;
    let permit = inner.bodies.take(SESSION_BYTES_MAX).await;
    let permit = permit.ok_or_else(|| Refused::busy("too many requests are being received"))?;
    let bytes = read_body(body, announced, SESSION_BYTES_MAX).await?;
    // serde's message may quote what it read.
    let request: SessionRequest = serde_json::from_slice(&bytes)
        .map_err(|_| Refused::malformed("body is not a session request: agent, host and version as JSON"))?;
    drop((bytes, permit));
    if request.host.len() > SESSION_FIELD_BYTES_MAX || request.version.len() > SESSION_FIELD_BYTES_MAX {
        let message = format!("host and version may have {SESSION_FIELD_BYTES_MAX} bytes each");
        return Err(Refused::malformed(message));
    }
    let agent = inner.agents.get_or_add(request.agent).map_err(|error| Refused::busy(error.to_string()))?;
    let state = Arc::clone(&agent.state).lock_owned().await;
    let who = Who { host: request.host, version: request.version };
    let task = tokio::spawn(begin(Arc::clone(inner), agent, state, who));
    task.await.unwrap_or_else(|_| Err(Refused::internal("the session ended without an answer")))
}

async fn begin(
    inner: Arc<Inner>,
    agent: Arc<Agent>,
    mut state: OwnedMutexGuard<AgentState>,
    who: Who,
) -> Result<SessionAnswer, Refused> {
    let Ok(_running) = Arc::clone(&inner.commits).acquire_owned().await else {
        return Err(Refused::full("the collector is closing"));
    };
    let received_ns = now_ns();
    let epoch = Epoch(state.epoch.0.saturating_add(1));
    let bytes = entry::session(&inner.tenant, received_ns, agent.id, epoch)
        .map_err(|error| Refused::internal(error.to_string()))?;
    let lsn = inner.append(Payload::from(bytes), None, 0).await?;
    inner.agents.begin(&agent, &mut state, epoch);
    agent.set_who(who);
    inner.agents.forget_over(&agent, &mut state, received_ns);
    let commit =
        Commit { epoch: Some((agent.id, epoch)), ..Commit::new(lsn, inner.tenant.as_str(), received_ns) };
    inner.publish(commit).await?;
    inner.metrics.sessions.inc();
    let sources = state.sources.iter().map(|(source, memory)| memory.to_wire(source.clone())).collect();
    let credit_bytes = Some(inner.credit_bytes());
    Ok(SessionAnswer { epoch, sources, frame_version: Some(FRAME_VERSION), credit_bytes })
}

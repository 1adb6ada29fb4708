//! How a door says no: one envelope, with a status, a code for programs and a sentence for people.
//!
//! Always holds: the sentence quotes nothing that was read; what can pass by itself has a `Retry-After`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use beeacon_journal::{Duty, JournalError};
use beeacon_record::FrameError;
use beeacon_record::wire::{Committed, Refusal, RefusalBody, RefusalCode};
use http::{HeaderValue, StatusCode, header};

use crate::limits::{RETRY_AFTER_BUSY_S, RETRY_AFTER_FULL_S};

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) code: RefusalCode,
    pub(crate) message: String,
    expected: Vec<Committed>,
    retry_after_s: Option<u64>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, code: RefusalCode, message: impl Into<String>) -> Self {
        Refused { status, code, message: message.into(), expected: Vec::new(), retry_after_s: None }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, RefusalCode::Malformed, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, message)
    }

    /// No room for long: the disk, the journal or the store is full.
    pub(crate) fn full(message: impl Into<String>) -> Self {
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, RefusalCode::Busy, message);
        Refused { retry_after_s: Some(RETRY_AFTER_FULL_S), ..refused }
    }

    /// The client took too long: as busy, though nothing here is.
    pub(crate) fn too_slow(message: impl Into<String>) -> Self {
        Refused { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::busy(message) }
    }

    /// No room for a moment: too much at once.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, RefusalCode::Busy, message);
        Refused { retry_after_s: Some(RETRY_AFTER_BUSY_S), ..refused }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, RefusalCode::Internal, message)
    }

    pub(crate) fn fenced() -> Self {
        let message = "a newer session of this agent exists";
        Self::new(StatusCode::CONFLICT, RefusalCode::Fenced, message)
    }

    pub(crate) fn no_session() -> Self {
        let message = "no such session is known for this agent";
        Self::new(StatusCode::CONFLICT, RefusalCode::NoSession, message)
    }

    pub(crate) fn position(expected: Vec<Committed>) -> Self {
        let message = "an interval starts behind what is committed and declares no gap";
        Refused { expected, ..Self::new(StatusCode::CONFLICT, RefusalCode::Position, message) }
    }
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        match &error {
            FrameError::Newer { .. } => {
                Self::new(StatusCode::BAD_REQUEST, RefusalCode::Newer, error.to_string())
            }
            FrameError::TooLarge { .. } => Self::too_large(error.to_string()),
            FrameError::Interval(inner) => Self::malformed(format!("{error}: {inner}")),
            FrameError::Batch(inner) => Self::malformed(format!("{error}: {inner}")),
            _ => Self::malformed(error.to_string()),
        }
    }
}

impl From<&JournalError> for Refused {
    fn from(error: &JournalError) -> Self {
        match (error, error.duty()) {
            (JournalError::TooLarge { .. }, _) => Self::too_large("frame does not fit into a journal record"),
            (JournalError::QueueFull { .. }, _) => Self::busy("the journal's queue is full"),
            (JournalError::Full(_), _) => Self::full("the journal has no room"),
            (JournalError::Closed, _) => Self::full("the collector is closing"),
            (_, Duty::Retry) => Self::full("the journal can't take the frame now"),
            (_, Duty::Drop | Duty::Stop) => Self::internal("the journal has failed"),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = RefusalBody { code: self.code, message: self.message };
        let refusal = Refusal { error: body, expected: self.expected };
        let mut response = json(self.status, &refusal);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An answer as JSON.
pub(crate) fn json(status: StatusCode, document: &impl serde::Serialize) -> Response {
    // Fails only for maps whose keys are not text, and there are none.
    let bytes = serde_json::to_vec(document).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

//! What doors of the program have in common: what stands behind the `?` of a request, refusals, and the form of what was found.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use beeacon_access::refusal;
use serde::Serialize;
use serde_json::json;

/// The longest body, in bytes: a note of a few thousand characters, or some matchers.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;

/// The most things of one answer, and how many there are when nobody says.
pub(crate) const PAGE_MAX: usize = 10_000;
pub(crate) const PAGE_DEFAULT: usize = 1_000;

/// An answer with what was found.
pub(crate) fn success(data: impl Serialize) -> Response {
    axum::Json(json!({ "api_version": 1, "status": "success", "data": data })).into_response()
}

/// Why a request is not understood.
pub(crate) struct Refused(StatusCode, &'static str, String);

impl Refused {
    pub(crate) fn malformed(message: impl Into<String>) -> Refused {
        Refused(StatusCode::BAD_REQUEST, "malformed", message.into())
    }

    pub(crate) fn body() -> Refused {
        let message = format!("the body did not arrive, or has more than {BODY_BYTES_MAX} bytes");
        Refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refusal(self.0, self.1, &self.2)
    }
}

/// What stands behind the `?` of a request.
pub(crate) struct Asked(Vec<(String, String)>);

impl Asked {
    /// Reads it; a name that is not among `known` is refused.
    pub(crate) fn read(query: RawQuery, known: &[&str]) -> Result<Asked, Refused> {
        let query = query.0.unwrap_or_default();
        let asked: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        match asked.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Asked(asked)),
            Some(_) => Err(Refused::malformed(format!("what may be asked for here: {}", known.join(", ")))),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Everything that was said under a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// How many are wanted.
    pub(crate) fn limit(&self) -> Result<usize, Refused> {
        let Some(text) = self.get("limit") else { return Ok(PAGE_DEFAULT) };
        match text.parse::<usize>() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
            _ => Err(Refused::malformed(format!("limit is a number from 1 to {PAGE_MAX}"))),
        }
    }
}

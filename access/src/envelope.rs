//! What every answer has: a request id, one form of errors, and the second form of the whole body for those who ask for it.
//!
//! ```text
//! {"error": {"code": "forbidden", "message": "…", "timestamp": "2026-11-26T23:20:00.123Z", "request_id": "0193…"}}
//! ```
//! A door says what it has to say, with a code and a message of its own where it has them; this layer completes it, so no door can
//! forget. What is no such envelope (the router's own refusals) becomes one; its text is replaced by the status' own words, because
//! such texts may quote what was read.
//!
//! `Accept: application/vnd.sting.v2+json` asks for `{"api_version": "2.0", "data": …}` around whatever JSON the route answers with,
//! as it flows: nothing is held back for it. `…v1+json` is the same as `application/json`; other versions are refused with 406.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::limits::{ERROR_BYTES_MAX, REQUEST_ID_BYTES_MAX};

/// The header with the request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The content type of the second form.
pub const SECOND_VERSION: &str = "application/vnd.sting.v2+json";

const VERSIONED_PREFIX: &str = "application/vnd.sting.v";

/// The error envelope of every route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorEnvelope {
    /// What went wrong.
    pub error: ErrorBody,
}

/// The inside of an [`ErrorEnvelope`]. Doors may add to it: SQL a line and a column, for instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// For programs: words with underscores.
    pub code: String,
    /// For people.
    pub message: String,
    /// When, in UTC (RFC 3339).
    pub timestamp: String,
    /// The request's id, which stands in the audit file too.
    pub request_id: String,
}

/// The id of a request, among its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The client's own where it is fit for logs, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let is_fit = |text: &&str| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_fit);
        RequestId(given.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned))
    }
}

/// A refusal in the envelope; the time and the request's id are added on its way out.
///
/// ```
/// use beeacon_access::refusal;
/// let response = refusal(http::StatusCode::CONFLICT, "held", "the rule is held by another server");
/// assert_eq!(response.status(), 409);
/// ```
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Which form of JSON a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    First,
    Second,
    Unknown,
}

impl Version {
    /// Reads `Accept`, and leaves in it what the doors know.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let version = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|range| range.split(';').next())
            .find_map(|range| {
                let range = range.trim().to_ascii_lowercase();
                let number = range.strip_prefix(VERSIONED_PREFIX)?.strip_suffix("+json")?.to_owned();
                Some(match number.as_str() {
                    "1" => Version::First,
                    "2" => Version::Second,
                    _ => Version::Unknown,
                })
            });
        if version.is_some() {
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        }
        version.unwrap_or(Version::First)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

/// Completes an answer.
pub(crate) async fn complete(response: Response, id: &RequestId, version: Version) -> Response {
    let status = response.status();
    let mut response = if status.is_client_error() || status.is_server_error() {
        error(response, id, version).await
    } else if version == Version::Second && is_json(response.headers()) {
        second(response)
    } else {
        response
    };
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn error(response: Response, id: &RequestId, version: Version) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = Limited::new(body, ERROR_BYTES_MAX).collect().await.ok().map(|body| body.to_bytes());
    let mut envelope = body
        .filter(|_| is_json(&parts.headers))
        .and_then(|body| serde_json::from_slice::<Map<String, Value>>(&body).ok())
        .unwrap_or_default();
    if !envelope.get("error").is_some_and(Value::is_object) {
        let words = parts.status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
        let code = words.replace([' ', '-'], "_").replace('\'', "");
        envelope = Map::new();
        envelope.insert("error".to_owned(), json!({ "code": code, "message": words }));
    }
    if let Some(Value::Object(error)) = envelope.get_mut("error") {
        error.entry("timestamp").or_insert_with(|| Value::String(format!("{:.3}", Timestamp::now())));
        error.entry("request_id").or_insert_with(|| Value::String(id.0.clone()));
    }
    if version == Version::Second {
        envelope.insert("api_version".to_owned(), Value::String("2.0".to_owned()));
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SECOND_VERSION));
    } else {
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Value::Object(envelope).to_string()))
}

/// Puts the second form around a body as it flows.
fn second(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let piece = |text: &'static str| {
        stream::once(async move { Ok::<_, axum::Error>(Bytes::from_static(text.as_bytes())) })
    };
    let body = piece("{\"api_version\":\"2.0\",\"data\":").chain(body.into_data_stream()).chain(piece("}"));
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SECOND_VERSION));
    Response::from_parts(parts, Body::from_stream(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_request_id_is_kept_only_where_it_is_fit_for_logs() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            RequestId::of(&headers).0
        };
        assert_eq!(of("abc-1.2_3"), "abc-1.2_3");
        for unfit in ["", "a b", "a\"b", "ü", &"x".repeat(65)] {
            assert_ne!(of(unfit), unfit);
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }

    #[test]
    fn versions_are_read_from_accept() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(text));
            (Version::take(&mut headers), headers[header::ACCEPT].to_str().unwrap().to_owned())
        };
        assert_eq!(
            of("text/html, application/vnd.sting.v2+json;q=0.9"),
            (Version::Second, "application/json".to_owned())
        );
        assert_eq!(of("application/vnd.sting.v1+json").0, Version::First);
        assert_eq!(of("application/vnd.sting.v9+json").0, Version::Unknown);
        assert_eq!(of("text/csv"), (Version::First, "text/csv".to_owned()));
    }
}

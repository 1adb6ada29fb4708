//! The HTTP door: `POST /api/v1/sql`.
//!
//! ```text
//! POST /api/v1/sql
//! Content-Type: application/json
//! Accept: application/json | application/x-ndjson | text/csv | application/vnd.apache.arrow.stream | application/vnd.apache.parquet
//!
//! {"query": "select service, count(*) from logs where level = $1 group by 1", "parameters": ["error"]}
//! ```
//! `parameters` are an array for `$1`, `$2`, …, or an object for `$name`; they may be left out.
//!
//! The body must say that it is JSON, so that no web page can send it without the browser asking first. Rows are sent as they
//! are produced. An error before the first one is a status and an envelope,
//! `{"error": {"code", "message", "line", "column"}}`, the last two where the place in the query is known. After the first
//! one the connection is closed without the last chunk, which every HTTP client reports as a broken body. A client that
//! leaves cancels its query. `beeacon-damaged-files` says that rows may be missing, and from how many files.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use datafusion::common::ParamValues;
use datafusion::scalar::ScalarValue;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encode::{Encoder, Format};
use crate::engine::{Ask, Query};
use crate::error::QueryError;
use crate::limits::{PARAMETERS_MAX, REQUEST_BYTES_MAX};
use crate::position::Place;

/// Where queries go.
pub const SQL_PATH: &str = "/api/v1/sql";

/// The header that says how many files of an answer are missing or damaged.
pub const DAMAGED_FILES_HEADER: &str = "beeacon-damaged-files";

/// Whose rows a request may read: put into the request's extensions by whoever checks who is asking. Without it the tenant is
/// `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(pub String);

/// The error envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorBody,
}

/// The inside of an [`ErrorAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs; see [`QueryError::code`].
    pub code: String,
    /// For people. It may quote the query or a scrubbed value.
    pub message: String,
    /// The line in the query, from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column in the line, in characters from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    query: String,
    #[serde(default)]
    parameters: Option<Value>,
}

/// Values for `$1`, `$2`, … from an array, for `$name` from an object.
fn parameters(given: Value) -> Result<ParamValues, QueryError> {
    let misfit = || QueryError::Parameters {
        fault: "they are an array for $1, $2 and so on, or an object for $name, of texts, numbers, booleans and null",
    };
    let scalar = |value: Value| match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(flag) => Ok(ScalarValue::Boolean(Some(flag))),
        Value::String(text) => Ok(ScalarValue::from(text)),
        Value::Number(number) => {
            let whole = number.as_i64().map(|number| ScalarValue::Int64(Some(number)));
            let whole = whole.or_else(|| number.as_u64().map(|number| ScalarValue::UInt64(Some(number))));
            whole
                .or_else(|| number.as_f64().map(|number| ScalarValue::Float64(Some(number))))
                .ok_or_else(misfit)
        }
        Value::Array(_) | Value::Object(_) => Err(misfit()),
    };
    let count = match &given {
        Value::Array(values) => values.len(),
        Value::Object(values) => values.len(),
        _ => return Err(misfit()),
    };
    if count > PARAMETERS_MAX {
        return Err(QueryError::Parameters { fault: "there are more than 1000" });
    }
    match given {
        Value::Array(values) => Ok(values.into_iter().map(scalar).collect::<Result<Vec<_>, _>>()?.into()),
        Value::Object(values) => {
            let named = values.into_iter().map(|(name, value)| Ok((name, scalar(value)?)));
            Ok(named.collect::<Result<HashMap<_, _>, QueryError>>()?.into())
        }
        _ => Err(misfit()),
    }
}

impl Query {
    /// The door, to be merged into the program's router.
    pub fn router(&self) -> Router {
        Router::new()
            .route(SQL_PATH, post(answer))
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(self.clone())
    }
}

async fn answer(
    State(query): State<Query>,
    tenant: Option<Extension<Tenant>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_json = text(header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "the body must be application/json",
            None,
        );
    }
    let accept = text(header::ACCEPT).unwrap_or("*/*");
    let Some(format) = Format::accepted(accept) else {
        let message = "answers are application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream or application/vnd.apache.parquet";
        return refusal(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message, None);
    };
    let request: Request = match body.map(|body| serde_json::from_slice(&body)) {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            let message = format!(
                "the body must be {{\"query\": \"…\"}}; it is not at line {}, column {}",
                error.line(),
                error.column()
            );
            return refusal(StatusCode::BAD_REQUEST, "malformed", &message, None);
        }
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body may have {REQUEST_BYTES_MAX} bytes");
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "query_too_long", &message, None);
        }
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "malformed", "the body did not arrive", None),
    };
    let tenant = tenant.map_or_else(|| "default".to_owned(), |Extension(Tenant(name))| name);
    let bytes_max = query.options().answer_bytes_max;
    let mut ask = Ask::new(tenant, request.query);
    ask.parameters = match request.parameters.map(parameters).transpose() {
        Ok(parameters) => parameters,
        Err(error) => return error.into_response(),
    };
    let started = query.start(ask, move |schema| Encoder::new(format, schema, bytes_max)).await;
    match started {
        Err(error) => error.into_response(),
        Ok(pieces) => {
            let damaged = pieces.files_damaged();
            let sent = query.metrics().bytes.clone();
            let pieces = pieces.inspect_ok(move |piece: &Bytes| {
                sent.inc_by(u64::try_from(piece.len()).unwrap_or_default());
            });
            let mut response = Response::new(Body::from_stream(pieces));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if damaged > 0 {
                headers.insert(DAMAGED_FILES_HEADER, HeaderValue::from(damaged));
            }
            response
        }
    }
}

/// The status of an error that comes before the first row.
fn status(error: &QueryError) -> StatusCode {
    match error {
        QueryError::TextBytes { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        QueryError::Time { .. }
        | QueryError::Memory { .. }
        | QueryError::Rows { .. }
        | QueryError::Bytes { .. }
        | QueryError::Files { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        QueryError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        QueryError::Store(_) | QueryError::Relation { .. } => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::ForeignFile | QueryError::Setup(_) | QueryError::Internal { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        QueryError::Format { .. } => StatusCode::NOT_ACCEPTABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let status = status(&self);
        if status.is_server_error() {
            tracing::warn!(code = self.code(), error = %self, "query could not be answered");
        }
        let mut response = refusal(status, self.code(), &self.for_the_asker(), self.place());
        if matches!(self, QueryError::Busy { .. } | QueryError::Store(_) | QueryError::Relation { .. }) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn refusal(status: StatusCode, code: &str, message: &str, place: Option<Place>) -> Response {
    let error = ErrorBody {
        code: code.to_owned(),
        message: message.to_owned(),
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
    };
    (status, Json(ErrorAnswer { error })).into_response()
}

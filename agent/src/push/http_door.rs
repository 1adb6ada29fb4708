//! The HTTP door for other senders on this host: Loki's push request and OpenTelemetry's log export.
//!
//! ```text
//! POST /loki/api/v1/push  JSON, plain or gzip; or protobuf in one snappy block  → 204
//! POST /v1/logs           JSON or protobuf, plain or gzip                       → 200
//! GET  /ready                                                                   → 200 once it takes lines
//! anything else                                                                 → 4xx, 5xx with a sentence
//! ```
//! What always holds: 2xx means that every line of the request is in the spool and survives a power cut; any other answer means
//! that the sender has to send all of it again, or, with 400, 413 and 415, that this will not help. What a request inflates to is
//! held against the limit before memory is taken for it.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Door, PushError, PushLine, PushSender, loki, otlp};
use crate::backoff::Backoff;
use crate::limits::{
    PUSH_BODY_BYTES_MAX, PUSH_BODY_WITHIN, PUSH_CONNECTIONS_MAX, PUSH_END_WITHIN, PUSH_HEADERS_WITHIN,
    PUSH_INFLATED_BYTES_MAX, PUSH_REQUESTS_MAX,
};

/// An open HTTP door.
pub struct HttpDoor {
    listener: TcpListener,
    token: Option<String>,
}

/// What requests share.
struct Shared {
    lane: PushSender,
    token: Option<String>,
    requests: Semaphore,
}

/// Why a request was refused.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refused { status, message: message.into() }
    }
}

impl From<PushError> for Refused {
    fn from(error: PushError) -> Self {
        let status = match error {
            PushError::Full | PushError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            PushError::Filter | PushError::Spool => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused::new(status, error.to_string())
    }
}

impl HttpDoor {
    /// Opens the door, so that its address is taken or refused before anything else starts.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub async fn open(listen: SocketAddr, token: Option<String>) -> std::io::Result<Self> {
        Ok(HttpDoor { listener: TcpListener::bind(listen).await?, token })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until told to stop; requests under way then are answered.
    pub async fn serve(self, lane: PushSender, stop: CancellationToken) {
        let requests = Semaphore::new(PUSH_REQUESTS_MAX);
        let shared = Arc::new(Shared { lane, token: self.token, requests });
        let places = Arc::new(Semaphore::new(PUSH_CONNECTIONS_MAX));
        let mut backoff = Backoff::default();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of a sender");
                    tokio::time::sleep(backoff.next_wait()).await;
                    continue;
                }
            };
            backoff.reset();
            let (shared, stop) = (shared.clone(), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(shared.clone(), request));
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PUSH_HEADERS_WITHIN)
                    .serve_connection(TokioIo::new(stream), service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    // A peer that breaks off is its own affair.
                    _ = serving.as_mut() => {}
                    () = stop.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        tokio::time::timeout(PUSH_END_WITHIN, serving).await.ok();
                    }
                }
                drop(place);
            });
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, http::Error> {
    let is_otlp = request.uri().path() == "/v1/logs";
    let is_json = is_type(request.headers(), "application/json");
    match take(&shared, request).await {
        Ok(response) => response,
        Err(Refused { status, message }) => {
            tracing::debug!(status = status.as_u16(), message, "a push was refused");
            let response = Response::builder().status(status);
            let response = match status {
                StatusCode::SERVICE_UNAVAILABLE => response.header(RETRY_AFTER, "1"),
                _ => response,
            };
            let (content_type, body) = match (is_otlp, is_json) {
                (true, true) => {
                    ("application/json", serde_json::json!({ "message": message }).to_string().into())
                }
                (true, false) => ("application/x-protobuf", Bytes::from(status_message(&message))),
                _ => ("text/plain; charset=utf-8", Bytes::from(message + "\n")),
            };
            response.header(CONTENT_TYPE, content_type).body(Full::new(body))
        }
    }
}

/// The protobuf message `Status` with its field 2, the message.
fn status_message(message: &str) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    prost::Message::encode_to_vec(&Status { message: message.to_owned() })
}

type Answered = Result<Response<Full<Bytes>>, http::Error>;

async fn take(shared: &Shared, request: Request<Incoming>) -> Result<Answered, Refused> {
    let (parts, body) = request.into_parts();
    let door = match (parts.uri.path(), &parts.method) {
        ("/ready", &Method::GET) => {
            return Ok(Response::builder().status(StatusCode::OK).body(Full::new("ready\n".into())));
        }
        ("/loki/api/v1/push", &Method::POST) => Door::Loki,
        ("/v1/logs", &Method::POST) => Door::Otlp,
        ("/loki/api/v1/push" | "/v1/logs" | "/ready", _) => {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "wanted POST"));
        }
        _ => {
            let wanted = "nothing here; there are /loki/api/v1/push, /v1/logs and /ready";
            return Err(Refused::new(StatusCode::NOT_FOUND, wanted));
        }
    };
    if !shared.lets_in(&parts.headers) {
        return Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "wanted the header Authorization: Bearer <token>",
        ));
    }
    let (form, packing) = Form::of(door, &parts.headers)?;
    let announced =
        parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > PUSH_BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let Ok(_place) = shared.requests.acquire().await else { return Err(PushError::Stopping.into()) };
    let body =
        tokio::time::timeout(PUSH_BODY_WITHIN, Limited::new(body, PUSH_BODY_BYTES_MAX).collect()).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Refused::new(StatusCode::BAD_REQUEST, "body broke off")),
        Err(_) => {
            let message = format!("body was not sent within {} s", PUSH_BODY_WITHIN.as_secs());
            return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    // Up to some megabytes are taken apart: not on a thread of the runtime.
    let lines = tokio::task::spawn_blocking(move || form.lines(unpack(body, packing)?)).await;
    // A panic is our fault and no word on the body: the sender keeps it.
    let ours = || Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the agent failed on this body");
    let lines = lines.unwrap_or_else(|_| Err(ours()))?;
    shared.lane.deliver(door, Arc::new(lines)).await?;
    let response = Response::builder();
    Ok(match form {
        Form::LokiJson | Form::LokiSnappy => response.status(StatusCode::NO_CONTENT).body(Full::default()),
        Form::OtlpJson => response.header(CONTENT_TYPE, "application/json").body(Full::new("{}".into())),
        Form::OtlpProtobuf => response.header(CONTENT_TYPE, "application/x-protobuf").body(Full::default()),
    })
}

fn too_large() -> Refused {
    let message = format!("body has more than {PUSH_BODY_BYTES_MAX} bytes: send fewer lines at once");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

impl Shared {
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let given = given.unwrap_or_default();
        // As many steps whatever is equal.
        let differences =
            given.iter().zip(token.as_bytes()).fold(0, |sum, (left, right)| sum | (left ^ right));
        given.len() == token.len() && differences == 0
    }
}

/// How a request's body is written.
#[derive(Clone, Copy)]
enum Form {
    LokiJson,
    LokiSnappy,
    OtlpJson,
    OtlpProtobuf,
}

/// How a body is packed for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
}

/// Takes a body out of its packing; memory is taken as it comes, up to the limit.
fn unpack(body: Bytes, packing: Packing) -> Result<Bytes, Refused> {
    match packing {
        Packing::None => Ok(body),
        Packing::Gzip => {
            let mut inflated = Vec::new();
            let limit = PUSH_INFLATED_BYTES_MAX as u64;
            let read = MultiGzDecoder::new(body.as_ref()).take(limit + 1).read_to_end(&mut inflated);
            match read {
                Ok(bytes) if bytes > PUSH_INFLATED_BYTES_MAX => {
                    let message =
                        format!("body inflates to more than {limit} bytes: send fewer lines at once");
                    Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message))
                }
                Ok(_) => Ok(Bytes::from(inflated)),
                Err(_) => Err(Refused::new(StatusCode::BAD_REQUEST, "body is no gzip")),
            }
        }
    }
}

fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

impl Form {
    fn of(door: Door, headers: &HeaderMap) -> Result<(Self, Packing), Refused> {
        let encoding =
            headers.get(CONTENT_ENCODING).map_or("identity", |value| value.to_str().unwrap_or("?"));
        let is_protobuf =
            is_type(headers, "application/x-protobuf") || is_type(headers, "application/protobuf");
        let form = match (door, is_type(headers, "application/json"), is_protobuf) {
            (Door::Loki, true, _) => Form::LokiJson,
            (Door::Loki, _, true) => Form::LokiSnappy,
            (_, true, _) => Form::OtlpJson,
            (_, _, true) => Form::OtlpProtobuf,
            _ => {
                let wanted = "wanted the content type application/json or application/x-protobuf";
                return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted));
            }
        };
        match (form, encoding) {
            (_, "identity" | "") | (Form::LokiSnappy, "snappy") => Ok((form, Packing::None)),
            (Form::LokiJson | Form::OtlpJson | Form::OtlpProtobuf, "gzip") => Ok((form, Packing::Gzip)),
            _ => {
                let wanted = "cannot read this content encoding: configure the sender to use gzip or none (Loki's protobuf: snappy)";
                Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted))
            }
        }
    }

    fn lines(self, body: Bytes) -> Result<Vec<PushLine>, Refused> {
        let bad = |error: &dyn std::fmt::Display| Refused::new(StatusCode::BAD_REQUEST, error.to_string());
        match self {
            Form::LokiJson => loki::from_json(&body).map_err(|error| bad(&error)),
            Form::OtlpJson => otlp::from_json(&body).map_err(|error| bad(&error)),
            Form::OtlpProtobuf => otlp::from_protobuf(body).map_err(|error| bad(&error)),
            Form::LokiSnappy => {
                let bytes = snap::raw::decompress_len(&body).map_err(|_| bad(&"body is no snappy block"))?;
                if bytes > PUSH_INFLATED_BYTES_MAX {
                    let message =
                        format!("body inflates to {bytes} bytes, the limit is {PUSH_INFLATED_BYTES_MAX}");
                    return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message));
                }
                let inflated = snap::raw::Decoder::new().decompress_vec(&body);
                let inflated = inflated.map_err(|_| bad(&"body is no snappy block"))?;
                loki::from_protobuf(Bytes::from(inflated)).map_err(|error| bad(&error))
            }
        }
    }
}

//! Speaks to a running agent of this host through the socket in its data directory.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::socket_path;
use super::tap::Wanted;
use crate::limits::ANSWER_BYTES_MAX;

/// Why an agent gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Nobody is there.
    #[error("reach an agent at {} (does it run, as this user, with this data directory?)", path.display())]
    Absent {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("speak to the agent")]
    Broken(#[from] hyper::Error),
    /// The request cannot be made.
    #[error("make a request to the agent")]
    Request(#[from] http::Error),
    /// It refuses.
    #[error("the agent answers {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it says.
        text: String,
    },
    /// The answer cannot be read.
    #[error("read the agent's answer")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is shown cannot be written.
    #[error("write what the agent says")]
    Write(#[from] std::io::Error),
}

async fn get(data: &Path, path_and_query: &str) -> Result<http::Response<Incoming>, DoorError> {
    let path = socket_path(data);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(source) => return Err(DoorError::Absent { path, source }),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path_and_query).header("host", "agent").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let text = whole(response).await.unwrap_or_default();
    Err(DoorError::Refused { status, text: String::from_utf8_lossy(&text).trim().to_owned() })
}

async fn whole(response: http::Response<Incoming>) -> Result<Bytes, DoorError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(DoorError::Answer)?.to_bytes())
}

/// How the agent with this data directory is doing.
///
/// # Errors
/// When there is none, or its answer is no status.
pub async fn status(data: &Path) -> Result<serde_json::Value, DoorError> {
    let answer = whole(get(data, "/status").await?).await?;
    serde_json::from_slice(&answer).map_err(|error| DoorError::Answer(error.into()))
}

/// What it counts.
///
/// # Errors
/// When there is none.
pub async fn metrics(data: &Path) -> Result<String, DoorError> {
    let answer = whole(get(data, "/metrics").await?).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Scrubbed lines as they pass, given line by line as JSON until the agent ends, or `give` says that it is enough.
///
/// # Errors
/// When there is no agent, or `give` fails.
pub async fn tap(
    data: &Path,
    container: Option<&str>,
    mut give: impl FnMut(&str) -> std::io::Result<bool>,
) -> Result<(), DoorError> {
    let mut body = get(data, &format!("/tap{}", Wanted::to_query(container))).await?.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        // An agent that ends cuts the stream.
        let Ok(frame) = frame else { break };
        let Ok(chunk) = frame.into_data() else { continue };
        rest.extend_from_slice(&chunk);
        let Some(end) = memchr::memrchr(b'\n', &rest) else { continue };
        let behind = rest.split_off(end + 1);
        let text = String::from_utf8_lossy(&rest).into_owned();
        rest = behind;
        for line in text.lines() {
            if !give(line)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A line of the tap for people, with its control characters escaped: a log line must not steer a terminal.
pub fn for_people(line: &str) -> String {
    let Ok(object) = serde_json::from_str::<serde_json::Value>(line) else { return escaped(line) };
    if let Some(skipped) = object.get("skipped") {
        return format!("... {skipped} lines were skipped, for they came faster than they were read");
    }
    let text = |key: &str| object.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let mark = if text("stream") == "stderr" { '!' } else { ' ' };
    let line = format!(
        "{} {}{mark} {:7} {}",
        text("timestamp"),
        text("container"),
        text("level"),
        text("message").trim_end_matches('\n')
    );
    escaped(&line)
}

fn escaped(line: &str) -> String {
    line.chars()
        .flat_map(|one| {
            let shown: Vec<char> = if one.is_control() { one.escape_default().collect() } else { vec![one] };
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_cannot_steer_a_terminal() {
        let line = "{\"timestamp\":\"T\",\"container\":\"web\",\"stream\":\"stderr\",\"level\":\"error\",\
                    \"message\":\"a\\u001b[2Jb\\u009bc\\nd\"}";
        assert_eq!(for_people(line), "T web! error   a\\u{1b}[2Jb\\u{9b}c\\nd");
        assert!(for_people("{\"skipped\":7}").contains("7 lines"));
        assert_eq!(for_people("no JSON \u{1b}["), "no JSON \\u{1b}[", "what cannot be read is not hidden");
    }
}

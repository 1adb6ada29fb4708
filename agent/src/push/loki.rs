//! Loki's push request, as JSON and as protobuf. Pure.
//!
//! ```text
//! JSON      {"streams": [{"stream": {label: value}, "values": [[nanoseconds as text, line, {key: value}?]]}]}
//! protobuf  PushRequest 1 streams: Stream 1 labels "{a=\"b\"}" 2 entries: Entry 1 timestamp 2 line 3 metadata
//! ```
//! Labels become the row's own columns where their names say so, and its labels otherwise; structured metadata becomes
//! attributes.

use std::collections::BTreeMap;
use std::sync::Arc;

use beeacon_record::{Level, Origin, Stream};
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;

use super::{PushLine, is_name};
use crate::level;

/// Why a request is no push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LokiError {
    /// Not the JSON of a push.
    #[error(r#"body is no push request: wanted {{"streams": [{{"stream": {{...}}, "values": [["nanoseconds", "line"]]}}]}}"#)]
    Json,
    /// Not the protobuf of a push.
    #[error("body is no push request: not the protobuf message PushRequest")]
    Protobuf,
    /// Labels that cannot be read.
    #[error("labels of stream {stream} are not of the form {{name=\"value\", ...}}")]
    Labels {
        /// Which, counted from 0.
        stream: usize,
    },
    /// A timestamp that cannot be read.
    #[error("timestamp of value {value} in stream {stream} is no number of nanoseconds")]
    Timestamp {
        /// Which stream, counted from 0.
        stream: usize,
        /// Which value, counted from 0.
        value: usize,
    },
}

#[derive(Deserialize)]
struct JsonPush {
    streams: Vec<JsonStream>,
}

#[derive(Deserialize)]
struct JsonStream {
    #[serde(default)]
    stream: BTreeMap<String, String>,
    values: Vec<JsonValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonValue {
    Plain(String, String),
    Rich(String, String, BTreeMap<String, String>),
}

/// A push request in JSON.
///
/// # Errors
/// See [`LokiError`].
pub fn from_json(body: &[u8]) -> Result<Vec<PushLine>, LokiError> {
    // serde's message may quote what it read.
    let push: JsonPush = serde_json::from_slice(body).map_err(|_| LokiError::Json)?;
    let mut lines = Vec::new();
    for (stream, given) in push.streams.into_iter().enumerate() {
        let (origin, level) = origin_of(given.stream);
        for (value, entry) in given.values.into_iter().enumerate() {
            let (time, text, metadata) = match entry {
                JsonValue::Plain(time, text) => (time, text, BTreeMap::new()),
                JsonValue::Rich(time, text, metadata) => (time, text, metadata),
            };
            let time = time.parse().map_err(|_| LokiError::Timestamp { stream, value })?;
            lines.push(line(&origin, level, time, metadata.into_iter(), text.into()));
        }
    }
    Ok(lines)
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamAdapter {
    #[prost(string, tag = "1")]
    pub(crate) labels: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<EntryAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    pub(crate) timestamp: Option<Time>,
    /// Text, but a line that is no UTF-8 shall not cost the request.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) line: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub(crate) metadata: Vec<LabelPair>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A push request in protobuf, uncompressed.
///
/// # Errors
/// See [`LokiError`].
pub fn from_protobuf(body: Bytes) -> Result<Vec<PushLine>, LokiError> {
    let push = PushRequest::decode(body).map_err(|_| LokiError::Protobuf)?;
    let mut lines = Vec::new();
    for (stream, given) in push.streams.into_iter().enumerate() {
        let labels = labels(&given.labels).ok_or(LokiError::Labels { stream })?;
        let (origin, level) = origin_of(labels);
        for (value, entry) in given.entries.into_iter().enumerate() {
            let time = entry.timestamp.unwrap_or_default();
            let time = time.seconds.checked_mul(1_000_000_000);
            let nanos = i64::from(entry.timestamp.unwrap_or_default().nanos);
            let time = time.and_then(|time| time.checked_add(nanos));
            let time = time.ok_or(LokiError::Timestamp { stream, value })?;
            let metadata = entry.metadata.into_iter().map(|pair| (pair.name, pair.value));
            lines.push(line(&origin, level, time, metadata, entry.line));
        }
    }
    Ok(lines)
}

fn line(
    origin: &Arc<Origin>,
    level: Option<Level>,
    timestamp_ns: i64,
    metadata: impl Iterator<Item = (String, String)>,
    text: Bytes,
) -> PushLine {
    let attributes: Vec<(String, String)> = metadata.collect();
    let stated = attributes.iter().find(|(key, _)| is_level(key)).map(|(_, value)| level::of_value(value));
    let level = stated.or(level).filter(|level| *level != Level::Unknown);
    PushLine {
        origin: origin.clone(),
        timestamp_ns: Some(timestamp_ns).filter(|time| *time != 0),
        level,
        stream: Stream::Stdout,
        attributes,
        text,
    }
}

fn is_level(key: &str) -> bool {
    matches!(key, "level" | "detected_level" | "severity")
}

/// What labels say of where lines come from, and of how severe they are.
fn origin_of(labels: BTreeMap<String, String>) -> (Arc<Origin>, Option<Level>) {
    let level = labels.iter().find(|(key, _)| is_level(key)).map(|(_, value)| level::of_value(value));
    let first = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| labels.get(*key).filter(|value| is_name(value)));
        found.cloned().unwrap_or_default()
    };
    let mut origin = Origin {
        host: first(&["host", "hostname", "node_name"]),
        service: first(&["service_name", "service", "app", "job", "container"]),
        container: first(&["container", "container_name"]),
        ..Origin::default()
    };
    if origin.service.is_empty() {
        "loki".clone_into(&mut origin.service);
    }
    origin.labels = labels.into_iter().collect();
    (Arc::new(origin), level)
}

/// Labels as Loki writes them: `{name="value", other="a \"quoted\" one"}`.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return behind.trim().is_empty().then_some(labels);
        }
        let (name, behind) = rest.split_once('=')?;
        // A Go string is a JSON string, but for escapes that label values hardly have.
        let mut value = serde_json::Deserializer::from_str(behind).into_iter::<String>();
        let parsed = value.next()?.ok()?;
        labels.insert(name.trim().to_owned(), parsed);
        rest = behind.get(value.byte_offset()..)?.trim_start();
        rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PushRequest {
        PushRequest {
            streams: vec![StreamAdapter {
                labels:
                    r#"{app="shop web", service_name="shop", level="warn", host="web-1", note="a \"b\", c"}"#
                        .into(),
                entries: vec![EntryAdapter {
                    timestamp: Some(Time { seconds: 2, nanos: 7 }),
                    line: Bytes::from_static(b"paid \xff"),
                    metadata: vec![LabelPair { name: "trace_id".into(), value: "0af7".into() }],
                }],
            }],
        }
    }

    #[test]
    fn both_forms_of_a_push_give_the_same_line() {
        let json = r#"{"streams":[{"stream":{"app":"shop web","service_name":"shop","level":"warn","host":"web-1",
            "note":"a \"b\", c"},"values":[["2000000007","paid",{"trace_id":"0af7"}],["2000000008","plain"]]}]}"#;
        let lines = from_json(json.as_bytes()).unwrap();
        let [from_json, plain] = lines.as_slice() else { panic!() };
        let lines = from_protobuf(request().encode_to_vec().into()).unwrap();
        let [from_protobuf] = lines.as_slice() else { panic!() };
        for line in [from_json, from_protobuf] {
            assert_eq!((&*line.origin.host, &*line.origin.service), ("web-1", "shop"));
            assert_eq!((line.timestamp_ns, line.level), (Some(2_000_000_007), Some(Level::Warn)));
            assert_eq!(line.attributes, [("trace_id".to_owned(), "0af7".to_owned())]);
            assert!(line.origin.labels.contains(&("note".to_owned(), "a \"b\", c".to_owned())));
        }
        assert_eq!(
            (&*from_json.text, &*from_protobuf.text, &*plain.text),
            (&b"paid"[..], &b"paid \xff"[..], &b"plain"[..])
        );
    }

    #[test]
    fn what_is_no_push_is_refused_and_nothing_of_it_is_quoted() {
        for body in [
            "",
            "secret",
            "{}",
            r#"{"streams":[{"values":[["1"]]}]}"#,
            r#"{"streams":[{"values":[[1,"secret"]]}]}"#,
        ] {
            assert_eq!(from_json(body.as_bytes()).err(), Some(LokiError::Json), "{body}");
        }
        let late = br#"{"streams":[{"values":[["1","a"],["x","b"]]}]}"#;
        assert_eq!(from_json(late).err(), Some(LokiError::Timestamp { stream: 0, value: 1 }));
        assert_eq!(from_protobuf(Bytes::from_static(b"\xff\xff")).err(), Some(LokiError::Protobuf));
        for labels in ["", "{a}", "{a=b}", "{a=\"b\"", "{a=\"b\"} x"] {
            let mut request = request();
            labels.clone_into(&mut request.streams[0].labels);
            let refused = from_protobuf(request.encode_to_vec().into()).err();
            assert_eq!(refused, Some(LokiError::Labels { stream: 0 }), "{labels}");
        }
        let mut request = request();
        request.streams[0].entries[0].timestamp = Some(Time { seconds: i64::MAX, nanos: 0 });
        assert!(from_protobuf(request.encode_to_vec().into()).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(from_json(deep.as_bytes()).err(), Some(LokiError::Json));
    }
}

//! OpenTelemetry's log export request, as JSON and as protobuf. Pure.
//!
//! A record's body is the line: text as it is, anything else as JSON. `service.name`, `host.name`, `container.name`,
//! `container.id` and `container.image.name` of the resource become columns; all other attributes of resource, scope and record
//! become the row's attributes, the record's last, so that they win.

use std::sync::Arc;

use beeacon_record::{Level, Origin, Stream};
use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value};

use super::{PushLine, is_name};
use crate::level;

/// Why a request is no log export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// Not the JSON of an export.
    #[error("body is no log export: not the JSON form of ExportLogsServiceRequest")]
    Json,
    /// Not the protobuf of an export.
    #[error("body is no log export: not the protobuf message ExportLogsServiceRequest")]
    Protobuf,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Export {
    #[prost(message, repeated, tag = "1")]
    pub(crate) resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub(crate) resource: Option<Attributed>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) scope_logs: Vec<ScopeLogs>,
}

/// A resource: of its fields only the attributes matter.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attributed {
    #[prost(message, repeated, tag = "1")]
    pub(crate) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    pub(crate) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Scope {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) name: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub(crate) time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub(crate) severity_number: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) severity_text: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub(crate) body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub(crate) span_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    pub(crate) observed_time_unix_nano: u64,
    #[prost(bytes = "vec", tag = "12")]
    pub(crate) event_name: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Values {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pairs {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<KeyValue>,
}

/// Texts are taken as bytes: one that is no UTF-8 shall not cost the request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    #[prost(bytes, tag = "1")]
    Text(Vec<u8>),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(Values),
    #[prost(message, tag = "6")]
    Pairs(Pairs),
    #[prost(bytes, tag = "7")]
    Bytes(Vec<u8>),
}

/// A log export in protobuf, uncompressed.
///
/// # Errors
/// See [`OtlpError`].
pub fn from_protobuf(body: Bytes) -> Result<Vec<PushLine>, OtlpError> {
    Export::decode(body).map(lines).map_err(|_| OtlpError::Protobuf)
}

/// A log export in JSON.
///
/// # Errors
/// See [`OtlpError`].
pub fn from_json(body: &[u8]) -> Result<Vec<PushLine>, OtlpError> {
    // serde's message may quote what it read.
    let value: Value = serde_json::from_slice(body).map_err(|_| OtlpError::Json)?;
    export(&value).map(lines).ok_or(OtlpError::Json)
}

fn lines(export: Export) -> Vec<PushLine> {
    let mut lines = Vec::new();
    for resource_logs in export.resource_logs {
        let resource = pairs(resource_logs.resource.map(|resource| resource.attributes).unwrap_or_default());
        let (origin, of_resource) = origin_of(resource);
        for scope_logs in resource_logs.scope_logs {
            let mut shared = of_resource.clone();
            if let Some(scope) = scope_logs.scope {
                put(&mut shared, "scope", text(&scope.name));
                for (key, value) in pairs(scope.attributes) {
                    put(&mut shared, &key, value);
                }
            }
            for record in scope_logs.log_records {
                lines.push(line(&origin, &shared, record));
            }
        }
    }
    lines
}

fn line(origin: &Arc<Origin>, shared: &[(String, String)], record: LogRecord) -> PushLine {
    let mut attributes = shared.to_vec();
    for (key, value) in pairs(record.attributes) {
        put(&mut attributes, &key, value);
    }
    for (key, bytes) in [("trace_id", &record.trace_id), ("span_id", &record.span_id)] {
        if bytes.iter().any(|byte| *byte != 0) {
            put(&mut attributes, key, bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    if !record.event_name.is_empty() {
        put(&mut attributes, "event_name", text(&record.event_name));
    }
    let severity = text(&record.severity_text);
    let level = by_number(record.severity_number)
        .or_else(|| Some(level::of_value(&severity)).filter(|level| *level != Level::Unknown));
    if level.is_none() && !severity.is_empty() {
        put(&mut attributes, "severity_text", severity);
    }
    let time = [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|time| *time != 0);
    let text = match record.body.and_then(|body| body.kind) {
        Some(Kind::Text(text)) => Bytes::from(text),
        Some(kind) => Bytes::from(json(&AnyValue { kind: Some(kind) }).to_string()),
        None => Bytes::new(),
    };
    PushLine {
        origin: origin.clone(),
        timestamp_ns: time.and_then(|time| i64::try_from(time).ok()),
        level,
        stream: Stream::Stdout,
        attributes,
        text,
    }
}

fn by_number(number: i32) -> Option<Level> {
    match number {
        1..=4 => Some(Level::Trace),
        5..=8 => Some(Level::Debug),
        9..=12 => Some(Level::Info),
        13..=16 => Some(Level::Warn),
        17..=20 => Some(Level::Error),
        21..=24 => Some(Level::Fatal),
        _ => None,
    }
}

fn put(attributes: &mut Vec<(String, String)>, key: &str, value: String) {
    attributes.retain(|(known, _)| known != key);
    attributes.push((key.to_owned(), value));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pairs(pairs: Vec<KeyValue>) -> Vec<(String, String)> {
    pairs
        .into_iter()
        .map(|pair| (text(&pair.key), pair.value.as_ref().map(plain).unwrap_or_default()))
        .collect()
}

/// A value as an attribute: text as it is, anything else as JSON.
fn plain(value: &AnyValue) -> String {
    match &value.kind {
        Some(Kind::Text(bytes)) => text(bytes),
        None => String::new(),
        Some(_) => json(value).to_string(),
    }
}

fn json(value: &AnyValue) -> Value {
    match &value.kind {
        None => Value::Null,
        Some(Kind::Text(bytes)) => Value::String(text(bytes)),
        Some(Kind::Bool(value)) => Value::Bool(*value),
        Some(Kind::Int(value)) => Value::from(*value),
        Some(Kind::Double(value)) => Value::from(*value),
        Some(Kind::Array(array)) => Value::Array(array.values.iter().map(json).collect()),
        Some(Kind::Pairs(pairs)) => {
            let entry = |pair: &KeyValue| (text(&pair.key), pair.value.as_ref().map_or(Value::Null, json));
            Value::Object(pairs.values.iter().map(entry).collect::<Map<String, Value>>())
        }
        Some(Kind::Bytes(bytes)) => Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// What a resource says of where lines come from, and the rest of what it says.
fn origin_of(resource: Vec<(String, String)>) -> (Arc<Origin>, Vec<(String, String)>) {
    let mut origin = Origin::default();
    let mut rest = Vec::new();
    for (key, value) in resource {
        let field = match key.as_str() {
            "service.name" => &mut origin.service,
            "host.name" => &mut origin.host,
            "container.name" => &mut origin.container,
            "container.id" => &mut origin.container_id,
            "container.image.name" => &mut origin.image,
            _ => {
                rest.push((key, value));
                continue;
            }
        };
        if is_name(&value) {
            *field = value;
        } else {
            rest.push((key, value));
        }
    }
    if origin.service.is_empty() {
        "otlp".clone_into(&mut origin.service);
    }
    (Arc::new(origin), rest)
}

// === The JSON form ===

/// The list under a key; empty where it is missing, none where it is something else.
fn list<'a>(value: &'a Value, key: &str) -> Option<&'a [Value]> {
    match value.get(key) {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(list)) => Some(list),
        Some(_) => None,
    }
}

fn export(value: &Value) -> Option<Export> {
    value.as_object()?;
    let resource_logs = list(value, "resourceLogs")?.iter().map(|logs| {
        let resource = logs
            .get("resource")
            .map(|resource| Some(Attributed { attributes: json_pairs(list(resource, "attributes")?)? }));
        let scopes = list(logs, "scopeLogs")?.iter().map(|logs| {
            let scope = logs.get("scope").map(|scope| {
                let name = scope.get("name").and_then(Value::as_str).unwrap_or_default().into();
                Some(Scope { name, attributes: json_pairs(list(scope, "attributes")?)? })
            });
            let records = list(logs, "logRecords")?.iter().map(record);
            Some(ScopeLogs { scope: scope.transpose_option()?, log_records: records.collect::<Option<_>>()? })
        });
        let scope_logs = scopes.collect::<Option<_>>()?;
        Some(ResourceLogs { resource: resource.transpose_option()?, scope_logs })
    });
    Some(Export { resource_logs: resource_logs.collect::<Option<_>>()? })
}

/// A part that may be missing, but not be wrong.
trait TransposeOption<T> {
    fn transpose_option(self) -> Option<Option<T>>;
}

impl<T> TransposeOption<T> for Option<Option<T>> {
    fn transpose_option(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(value) => Some(value),
        }
    }
}

fn record(value: &Value) -> Option<LogRecord> {
    value.as_object()?;
    let bytes = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
    };
    Some(LogRecord {
        time_unix_nano: number("timeUnixNano")?,
        observed_time_unix_nano: number("observedTimeUnixNano")?,
        severity_number: i32::try_from(number("severityNumber").unwrap_or(0)).unwrap_or(0),
        severity_text: bytes("severityText").into(),
        body: value.get("body").map(any_value).transpose_option()?,
        attributes: json_pairs(list(value, "attributes")?)?,
        trace_id: hexadecimal(bytes("traceId"))?,
        span_id: hexadecimal(bytes("spanId"))?,
        event_name: bytes("eventName").into(),
    })
}

fn json_pairs(pairs: &[Value]) -> Option<Vec<KeyValue>> {
    let pair = |pair: &Value| {
        let key = pair.get("key")?.as_str()?.into();
        Some(KeyValue { key, value: pair.get("value").map(any_value).transpose_option()? })
    };
    pairs.iter().map(pair).collect()
}

fn any_value(value: &Value) -> Option<AnyValue> {
    let (key, value) = match value {
        Value::Null => return Some(AnyValue { kind: None }),
        Value::Object(fields) => match fields.iter().next() {
            Some(field) => field,
            None => return Some(AnyValue { kind: None }),
        },
        _ => return None,
    };
    let kind = match key.as_str() {
        "stringValue" => Kind::Text(value.as_str()?.into()),
        "boolValue" => Kind::Bool(value.as_bool()?),
        "intValue" => Kind::Int(value.as_i64().or_else(|| value.as_str()?.parse().ok())?),
        "doubleValue" => Kind::Double(value.as_f64()?),
        "arrayValue" => {
            let values = list(value, "values")?.iter().map(any_value).collect::<Option<_>>()?;
            Kind::Array(Values { values })
        }
        "kvlistValue" => Kind::Pairs(Pairs { values: json_pairs(list(value, "values")?)? }),
        // Base64, kept as it is.
        "bytesValue" => Kind::Text(value.as_str()?.into()),
        _ => return None,
    };
    Some(AnyValue { kind: Some(kind) })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let pair = |pair: &[u8]| pair.iter().fold(0u8, |byte, digit| byte << 4 | digit);
    Some(digits?.chunks(2).map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_value(text: &str) -> Option<AnyValue> {
        Some(AnyValue { kind: Some(Kind::Text(text.into())) })
    }

    fn pair(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.into(), value: text_value(value) }
    }

    #[test]
    fn both_forms_of_an_export_give_the_same_lines() {
        let list = Values {
            values: vec![AnyValue { kind: Some(Kind::Int(5)) }, AnyValue { kind: Some(Kind::Bool(true)) }],
        };
        let records = vec![
            LogRecord {
                time_unix_nano: 1_700_000_000_000_000_007,
                severity_number: 13,
                body: text_value("paid"),
                attributes: vec![pair("user", "7"), pair("env", "record wins")],
                trace_id: vec![0x0a, 0xf7],
                ..LogRecord::default()
            },
            LogRecord {
                observed_time_unix_nano: 9,
                severity_text: "ERROR".into(),
                body: Some(AnyValue {
                    kind: Some(Kind::Pairs(Pairs {
                        values: vec![KeyValue {
                            key: "a".into(),
                            value: Some(AnyValue { kind: Some(Kind::Array(list)) }),
                        }],
                    })),
                }),
                ..LogRecord::default()
            },
        ];
        let scope = Scope { name: "lib".into(), attributes: vec![] };
        let resource = Attributed {
            attributes: vec![
                pair("service.name", "shop"),
                pair("host.name", "web-1"),
                pair("env", "test"),
                pair("container.name", "no name at all"),
            ],
        };
        let export = Export {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs { scope: Some(scope), log_records: records }],
            }],
        };
        let json = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},
            {"key":"host.name","value":{"stringValue":"web-1"}},{"key":"env","value":{"stringValue":"test"}},
            {"key":"container.name","value":{"stringValue":"no name at all"}}]},
            "scopeLogs":[{"scope":{"name":"lib"},"logRecords":[
            {"timeUnixNano":"1700000000000000007","severityNumber":13,"body":{"stringValue":"paid"},"traceId":"0af7",
             "attributes":[{"key":"user","value":{"stringValue":"7"}},{"key":"env","value":{"stringValue":"record wins"}}]},
            {"observedTimeUnixNano":9,"severityText":"ERROR","body":{"kvlistValue":{"values":[{"key":"a","value":
              {"arrayValue":{"values":[{"intValue":"5"},{"boolValue":true}]}}}]}}}]}]}]}"#;
        for lines in
            [from_json(json.as_bytes()).unwrap(), from_protobuf(export.encode_to_vec().into()).unwrap()]
        {
            let [first, second] = lines.as_slice() else { panic!() };
            assert_eq!(
                (&*first.origin.service, &*first.origin.host, &*first.origin.container),
                ("shop", "web-1", "")
            );
            assert_eq!(
                (first.timestamp_ns, first.level, &*first.text),
                (Some(1_700_000_000_000_000_007), Some(Level::Warn), &b"paid"[..])
            );
            let expected = [
                ("container.name", "no name at all"),
                ("scope", "lib"),
                ("user", "7"),
                ("env", "record wins"),
                ("trace_id", "0af7"),
            ];
            assert_eq!(first.attributes, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
            assert_eq!(
                (second.timestamp_ns, second.level, &*second.text),
                (Some(9), Some(Level::Error), &b"{\"a\":[5,true]}"[..])
            );
        }
    }

    #[test]
    fn what_is_no_export_is_refused_and_depth_is_bounded() {
        for body in [
            "",
            "[]",
            "secret",
            r#"{"resourceLogs":{}}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"secretValue":1}}]}]}]}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"x"}]}]}]}"#,
        ] {
            assert_eq!(from_json(body.as_bytes()).err(), Some(OtlpError::Json), "{body}");
        }
        assert_eq!(from_json(b"{}").unwrap().len(), 0);
        assert_eq!(from_protobuf(Bytes::from_static(b"\xff\xff\xff")).err(), Some(OtlpError::Protobuf));
        let mut value = AnyValue { kind: Some(Kind::Bool(true)) };
        for _ in 0..200 {
            value = AnyValue { kind: Some(Kind::Array(Values { values: vec![value] })) };
        }
        let deep = Export {
            resource_logs: vec![ResourceLogs {
                resource: None,
                scope_logs: vec![ScopeLogs {
                    scope: None,
                    log_records: vec![LogRecord { body: Some(value), ..LogRecord::default() }],
                }],
            }],
        };
        assert_eq!(from_protobuf(deep.encode_to_vec().into()).err(), Some(OtlpError::Protobuf));
    }
}

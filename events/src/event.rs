//! What an event is.
//!
//! ```text
//! {"id": "7f3c…", "type": "observability.pii.detected", "timestamp": "2026-11-27T05:00:00.123Z", "source": "collector",
//!  "payload": {"service": "web", "rule": "email", "category": "pii", "severity": "medium", "count": 3, "lines": 2, …},
//!  "metadata": {"server": "0193…", "version": "0.1.0"}, "correlation_id": "9a01…"}
//! ```
//! Payload and metadata are flat: their members are texts, numbers, flags or null.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits::{EVENT_BYTES_MAX, ID_BYTES_MAX, MEMBERS_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A rule of the pollen filter found something in a service's lines.
    PiiDetected,
    /// Lines of a service had something taken out.
    LogSanitized,
    /// A part of the server is not well.
    HealthFailed,
    /// It is well again.
    HealthRecovered,
    /// Somebody looked through Grafana.
    DashboardAccessed,
    /// An alert fires.
    AlertTriggered,
    /// It does no more.
    AlertResolved,
    /// A secret of a critical kind was in a line, or an alert fires that is about a threat.
    ThreatDetected,
    /// Somebody changed something.
    UserAction,
    /// Something went wrong with the pipeline itself: lines are missing, an agent is silent.
    SystemAlert,
}

impl EventType {
    /// Every type.
    pub const ALL: [EventType; 10] = [
        EventType::PiiDetected,
        EventType::LogSanitized,
        EventType::HealthFailed,
        EventType::HealthRecovered,
        EventType::DashboardAccessed,
        EventType::AlertTriggered,
        EventType::AlertResolved,
        EventType::ThreatDetected,
        EventType::UserAction,
        EventType::SystemAlert,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventType::PiiDetected => "observability.pii.detected",
            EventType::LogSanitized => "observability.log.sanitized",
            EventType::HealthFailed => "observability.health.failed",
            EventType::HealthRecovered => "observability.health.recovered",
            EventType::DashboardAccessed => "observability.dashboard.accessed",
            EventType::AlertTriggered => "observability.alert.triggered",
            EventType::AlertResolved => "observability.alert.resolved",
            EventType::ThreatDetected => "threat.detected",
            EventType::UserAction => "user.action",
            EventType::SystemAlert => "system.alert",
        }
    }

    /// The type of this name.
    ///
    /// ```
    /// use beeacon_events::EventType;
    /// assert_eq!(EventType::of("threat.detected"), Some(EventType::ThreatDetected));
    /// assert_eq!(EventType::of("threat"), None);
    /// ```
    #[must_use]
    pub fn of(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        EventType::of(&name).ok_or_else(|| serde::de::Error::custom("no type of event that is known"))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The same for the same thing, however often it is told.
    pub id: String,
    /// What kind of thing it was.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When.
    pub timestamp: Timestamp,
    /// The part that saw it: `collector`, `alerts`, `health`, `access` or `dashboards`.
    pub source: String,
    /// What it was about; the members depend on the type.
    pub payload: Map<String, Value>,
    /// Where it comes from: `server`, the id of the server, and `version`.
    pub metadata: Map<String, Value>,
    /// Events with the same one belong together.
    pub correlation_id: Option<String>,
}

/// Why something that another server sent is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Too long to be one.
    #[error("is longer than {EVENT_BYTES_MAX} bytes")]
    Long,
    /// Not JSON of an event's form.
    #[error("is no event")]
    Form,
    /// A member that is too long, or of a kind that no event has.
    #[error("has a member that no event has")]
    Member,
}

impl Event {
    /// Reads what another server sent: nothing that does not look like ours is taken.
    ///
    /// # Errors
    /// [`Unreadable`], without quoting it.
    pub fn read(bytes: &[u8]) -> Result<Event, Unreadable> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(Unreadable::Long);
        }
        let event: Event = serde_json::from_slice(bytes).map_err(|_| Unreadable::Form)?;
        let is_id = |text: &str| {
            (1..=ID_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        let is_source = !event.source.is_empty()
            && event.source.len() <= ID_BYTES_MAX
            && event.source.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_member = |(name, value): (&String, &Value)| {
            let is_name = !name.is_empty() && name.len() <= ID_BYTES_MAX && !name.contains(char::is_control);
            let is_value = match value {
                Value::String(text) => text.len() <= TEXT_BYTES_MAX,
                Value::Array(_) | Value::Object(_) => false,
                Value::Null | Value::Bool(_) | Value::Number(_) => true,
            };
            is_name && is_value
        };
        let is_flat =
            |members: &Map<String, Value>| members.len() <= MEMBERS_MAX && members.iter().all(is_member);
        let is_ours = is_id(&event.id)
            && is_source
            && event.correlation_id.as_deref().is_none_or(is_id)
            && is_flat(&event.payload)
            && is_flat(&event.metadata)
            && is_id(event.server());
        if is_ours { Ok(event) } else { Err(Unreadable::Member) }
    }

    /// The id of the server that it happened on; empty where it does not say.
    #[must_use]
    pub fn server(&self) -> &str {
        self.metadata.get("server").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Makes the events of one server.
#[derive(Clone, Debug)]
pub struct Maker {
    server: String,
    version: &'static str,
}

impl Maker {
    /// Of the server with this id and version.
    #[must_use]
    pub fn new(server: String, version: &'static str) -> Maker {
        Maker { server, version }
    }

    /// The server's id.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// An id that is made from what happened on this server.
    #[must_use]
    pub fn id(&self, parts: &[&str]) -> String {
        let mut digest = Sha256::new();
        for part in [self.server.as_str()].iter().chain(parts) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
        uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
    }

    /// An event.
    #[must_use]
    pub fn event(
        &self,
        kind: EventType,
        id: String,
        timestamp: Timestamp,
        source: &'static str,
        payload: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Event {
        let metadata = [
            ("server".to_owned(), Value::from(self.server.as_str())),
            ("version".to_owned(), Value::from(self.version)),
        ];
        Event {
            id,
            kind,
            timestamp,
            source: source.to_owned(),
            payload: payload.into_iter().map(|(name, value)| (name.to_owned(), cut(value))).collect(),
            metadata: metadata.into_iter().collect(),
            correlation_id: None,
        }
    }
}

impl Event {
    /// The same, belonging together with others of this id.
    #[must_use]
    pub fn correlated(self, id: impl Into<String>) -> Event {
        Event { correlation_id: Some(id.into()), ..self }
    }
}

/// A text as long as one may be.
fn cut(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            Value::String(text)
        }
        other => other,
    }
}

/// A name as long as one may be.
pub(crate) fn name(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        let maker = Maker::new("server-1".to_owned(), "1.0");
        let at = "2026-11-27T05:00:00.123Z".parse().unwrap();
        let payload = [("service", Value::from("web")), ("count", Value::from(3))];
        let id = maker.id(&["pii", "web"]);
        maker.event(EventType::PiiDetected, id, at, "collector", payload).correlated("c-1")
    }

    #[test]
    fn what_is_written_is_the_envelope_and_is_read_back() {
        let text = serde_json::to_string(&event()).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        let id = event().id;
        let expected = json!({
            "id": id, "type": "observability.pii.detected", "timestamp": "2026-11-27T05:00:00.123Z",
            "source": "collector", "payload": {"service": "web", "count": 3},
            "metadata": {"server": "server-1", "version": "1.0"}, "correlation_id": "c-1",
        });
        assert_eq!(shown, expected);
        assert_eq!(Event::read(text.as_bytes()), Ok(event()));
    }

    #[test]
    fn what_no_server_of_ours_sends_is_not_taken() {
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut value = serde_json::to_value(event()).unwrap();
            change(&mut value);
            Event::read(value.to_string().as_bytes())
        };
        assert!(changed(&|_| {}).is_ok());
        let set = |path: &'static str, to: Value| {
            changed(&move |value| *value.pointer_mut(path).unwrap() = to.clone())
        };
        assert_eq!(set("/type", json!("ai.analysis.complete")), Err(Unreadable::Form));
        assert_eq!(set("/timestamp", json!("yesterday")), Err(Unreadable::Form));
        assert_eq!(changed(&|value| value["more"] = json!(1)), Err(Unreadable::Form));
        assert_eq!(set("/id", json!("a\nid: b")), Err(Unreadable::Member));
        assert_eq!(set("/source", json!("Some One")), Err(Unreadable::Member));
        assert_eq!(set("/correlation_id", json!("")), Err(Unreadable::Member));
        assert_eq!(set("/payload/count", json!({"deep": 1})), Err(Unreadable::Member));
        assert_eq!(set("/payload/service", json!("x".repeat(TEXT_BYTES_MAX + 1))), Err(Unreadable::Member));
        assert_eq!(set("/metadata", json!({})), Err(Unreadable::Member));
        assert_eq!(Event::read(&vec![b' '; EVENT_BYTES_MAX + 1]), Err(Unreadable::Long));
        assert_eq!(Event::read(b"garbage"), Err(Unreadable::Form));
    }

    #[test]
    fn ids_are_made_from_what_happened_and_from_nothing_else() {
        let (one, other) = (Maker::new("a".to_owned(), "1"), Maker::new("b".to_owned(), "1"));
        assert_eq!(one.id(&["x", "y"]), one.id(&["x", "y"]));
        assert_ne!(one.id(&["x", "y"]), one.id(&["xy", ""]));
        assert_ne!(one.id(&["x"]), other.id(&["x"]));
        assert_eq!(one.id(&["x"]).len(), 36);
    }

    #[test]
    fn every_type_has_a_name_of_its_own() {
        for kind in EventType::ALL {
            assert_eq!(EventType::of(kind.name()), Some(kind));
        }
    }

    #[test]
    fn a_text_is_as_long_as_one_may_be_and_whole() {
        let long = Value::from("ü".repeat(TEXT_BYTES_MAX));
        let maker = Maker::new("a".to_owned(), "1");
        let event =
            maker.event(EventType::SystemAlert, "x".into(), Timestamp::UNIX_EPOCH, "s", [("t", long)]);
        assert_eq!(event.payload["t"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    }
}

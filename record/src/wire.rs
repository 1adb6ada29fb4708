//! The JSON around the frame: what agent and collector say to each other besides batches.
//!
//! ```text
//! POST /api/v1/session   SessionRequest (JSON)  → 200 SessionAnswer
//! POST /api/v1/ingest    a frame (bytes)        → 200 IngestAnswer
//! anything else                                 → 4xx or 5xx Refusal
//! ```
//! A session gives the agent its epoch and tells where each of its sources stood, so an agent with an empty disk loses
//! and repeats nothing. An ingest answer of 200 means that the frame's rows survive a power cut of the collector. Both say how
//! much the collector takes beside that, and the session which frames it reads; whoever does not know such a word leaves it out.

use serde::{Deserialize, Serialize};

use crate::identity::{AgentId, Epoch, Position, Source};

/// Where a session is opened.
pub const SESSION_PATH: &str = "/api/v1/session";

/// Where frames go.
pub const INGEST_PATH: &str = "/api/v1/ingest";

/// The content type of a frame.
pub const FRAME_CONTENT_TYPE: &str = "application/vnd.beeacon.frame";

/// An agent's first words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Who.
    pub agent: AgentId,
    /// The host's name, for people.
    pub host: String,
    /// The agent's version, for people.
    pub version: String,
}

/// What the collector remembers of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The source.
    pub source: Source,
    /// Everything below this is committed, but for `open`.
    pub committed: Position,
    /// Where lines start that lie below `committed` and are still to come.
    #[serde(default)]
    pub open: Vec<Position>,
    /// The cursor of the last committed interval, in hexadecimal.
    #[serde(default, with = "hexadecimal")]
    pub cursor: Vec<u8>,
}

/// The collector's answer to [`SessionRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// The epoch to put into every frame; all lower ones are fenced from now on.
    pub epoch: Epoch,
    /// Where each source stands.
    pub sources: Vec<SourceState>,
    /// The newest version of frames that the collector reads. Collectors before this was told say nothing, and read version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_version: Option<u16>,
    /// How many bytes of frames the collector takes from this agent now, beside what it has taken: its share of the room in journal
    /// and memory. Collectors before this was told say nothing, and the agent keeps to its own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_bytes: Option<u64>,
}

/// The collector's answer to a frame that is durable now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestAnswer {
    /// Where each source of the frame stands.
    pub committed: Vec<Committed>,
    /// How many rows were stored.
    pub rows: u64,
    /// How many rows were left out because they were already stored.
    pub duplicate_rows: u64,
    /// How many bytes of frames the collector takes from this agent now, beside what it has taken: its share of the room in journal
    /// and memory. Collectors before this was told say nothing, and the agent keeps to its own limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_bytes: Option<u64>,
}

/// A source and the position up to which it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The source.
    pub source: Source,
    /// Everything below is committed.
    pub position: Position,
}

/// What a refusal asks of the agent, beside the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// A newer session of this agent exists: stop. (409)
    Fenced,
    /// The interval starts behind what is committed and declares no gap: read again from `expected`. (409)
    Position,
    /// No session is known for this agent: open one. (409)
    NoSession,
    /// The frame can't be read: sending it again won't help. (400)
    Malformed,
    /// The frame is of a newer version than this collector reads. (400)
    Newer,
    /// Too large: cut smaller batches. (413)
    TooLarge,
    /// Who you are was not shown. (401)
    Unauthorized,
    /// No room or no time now: try again after `Retry-After`. (503, 429)
    Busy,
    /// The collector is at fault. (500)
    Internal,
    /// No such path or method. (404, 405)
    NotFound,
}

/// The error envelope of every door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong.
    pub error: RefusalBody,
    /// For [`RefusalCode::Position`]: where the sources of the frame stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<Committed>,
}

/// The inside of a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalBody {
    /// For programs.
    pub code: RefusalCode,
    /// For people; never text of a line.
    pub message: String,
}

/// Bytes as lower-case hexadecimal text.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.len().is_multiple_of(2) {
            return Err(D::Error::custom("odd number of hexadecimal digits"));
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        text.as_bytes()
            .chunks_exact(2)
            .map(|pair| match pair {
                [high, low] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("not a hexadecimal digit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_state_survives_its_json() {
        let state = SourceState {
            source: Source::new("docker-file:4f2a").unwrap(),
            committed: Position::new(3, 99),
            open: vec![Position::new(3, 7)],
            cursor: vec![0, 0x7f, 0xff],
        };
        let json = serde_json::to_string(&state).unwrap();
        assert!(json.contains("\"cursor\":\"007fff\""));
        assert_eq!(serde_json::from_str::<SourceState>(&json).unwrap(), state);
        assert!(serde_json::from_str::<SourceState>(&json.replace("007fff", "00zz")).is_err());
    }

    /// Old and new programs meet: what one of them does not say or does not know is left out.
    #[test]
    fn answers_with_and_without_credit_are_read_by_either_side() {
        #[derive(Deserialize)]
        struct OldAnswer {
            rows: u64,
        }
        let new = IngestAnswer { committed: vec![], rows: 3, duplicate_rows: 0, credit_bytes: Some(7) };
        let json = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<OldAnswer>(&json).unwrap().rows, 3);
        assert_eq!(serde_json::from_str::<IngestAnswer>(&json).unwrap(), new);
        let old = r#"{"committed":[],"rows":3,"duplicate_rows":0}"#;
        let read: IngestAnswer = serde_json::from_str(old).unwrap();
        assert_eq!(read, IngestAnswer { credit_bytes: None, ..new });
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let old: SessionAnswer = serde_json::from_str(r#"{"epoch":1,"sources":[]}"#).unwrap();
        assert_eq!((old.credit_bytes, old.frame_version), (None, None));
    }
}

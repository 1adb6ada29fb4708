//! Who sent a line and where it stood.
//!
//! A [`Source`] names one ordered stream; a [`Position`] is a pair of numbers that only grows in it. Reading the same line
//! again, after any crash and in any other batch, makes the same pair, so a repeat is recognised without looking at text.
//! A batch says, per source, which [`Interval`] of positions it covers; the collector commits intervals in order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{CURSOR_BYTES_MAX, OPEN_LINES_MAX, SOURCE_BYTES_MAX};

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// The source's name is empty or too long.
    #[error("source name has {bytes} bytes, allowed are 1 to {SOURCE_BYTES_MAX}")]
    SourceLength {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// The source's name holds a control character.
    #[error("source name holds a control character at byte {at}")]
    SourceCharacter {
        /// Where, in bytes.
        at: usize,
    },
    /// Not a UUID.
    #[error("agent id is not a UUID")]
    AgentId,
    /// The interval ends before it starts.
    #[error("interval of a source runs from {from} back to {to}")]
    Backwards {
        /// Its start.
        from: Position,
        /// Its end.
        to: Position,
    },
    /// More unfinished lines than streams.
    #[error("interval names {count} open lines, allowed are {OPEN_LINES_MAX}")]
    OpenLines {
        /// How many.
        count: usize,
    },
    /// The cursor is too long.
    #[error("cursor has {bytes} bytes, allowed are {CURSOR_BYTES_MAX}")]
    CursorLength {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// The declared gap does not end where the interval starts.
    #[error("declared gap starts at {gap_from}, after the interval's start {from}")]
    GapBounds {
        /// Where the gap starts.
        gap_from: Position,
        /// Where the interval starts.
        from: Position,
    },
}

/// An agent's lasting name: a UUID given once per installation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId([u8; 16]);

impl AgentId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        AgentId(bytes)
    }

    /// The id's bytes, as the frame carries them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

impl FromStr for AgentId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        uuid::Uuid::try_parse(text).map(|id| AgentId(id.into_bytes())).map_err(|_| IdentityError::AgentId)
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> String {
        id.to_string()
    }
}

/// Which session of an agent is speaking. The collector hands out a higher one each time; lower ones are fenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Which rules scrubbed a batch: a hash over rules, profile and key version, never over the keys themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleSetId(pub u64);

/// The name of one ordered stream of lines, such as `docker-file:<container id>` or `docker-api:<container id>:stdout`.
///
/// ```
/// use beeacon_record::Source;
/// assert!(Source::new("docker-file:4f2a").is_ok());
/// assert!(Source::new("").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source(String);

impl Source {
    /// Takes a name of 1 to [`SOURCE_BYTES_MAX`] bytes without control characters.
    ///
    /// # Errors
    /// [`IdentityError::SourceLength`] and [`IdentityError::SourceCharacter`].
    pub fn new(name: impl Into<String>) -> Result<Self, IdentityError> {
        let name = name.into();
        if name.is_empty() || name.len() > SOURCE_BYTES_MAX {
            return Err(IdentityError::SourceLength { bytes: name.len() });
        }
        if let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(IdentityError::SourceCharacter { at });
        }
        Ok(Source(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Source {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        Source::new(text)
    }
}

impl From<Source> for String {
    fn from(source: Source) -> String {
        source.0
    }
}

/// Where a line stands in its source. Compared major first.
///
/// (file generation, byte offset) for a file; (timestamp in nanoseconds, ordinal) for the Docker API;
/// (epoch, sequence) for what cannot be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// File generation, timestamp or epoch.
    pub major: u64,
    /// Byte offset, ordinal or sequence.
    pub minor: u64,
}

impl Position {
    /// The lowest position of every source.
    pub const START: Position = Position { major: 0, minor: 0 };

    /// The position with these two numbers.
    pub const fn new(major: u64, minor: u64) -> Self {
        Position { major, minor }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum GapReason {
    /// Docker removed the file before it was read.
    Rotated = 1,
    /// The log driver dropped entries before anybody could read them.
    DriverDropped = 2,
    /// A configured policy dropped them.
    Policy = 3,
    /// Lines may be missing, and nothing tells which.
    Unknown = 4,
    /// Bytes were there and were no log records: a torn write or a hole.
    Damaged = 5,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [GapReason; 5] = [
        GapReason::Rotated,
        GapReason::DriverDropped,
        GapReason::Policy,
        GapReason::Unknown,
        GapReason::Damaged,
    ];

    /// The name as SQL users see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::Rotated => "rotated",
            GapReason::DriverDropped => "driver_dropped",
            GapReason::Policy => "policy",
            GapReason::Unknown => "unknown",
            GapReason::Damaged => "damaged",
        }
    }

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<GapReason> {
        GapReason::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

/// A proof of loss: what lay in `[from, start of the interval)` cannot be had any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Where the missing part starts: the position that was committed.
    pub from: Position,
    /// Why.
    pub reason: GapReason,
    /// How many bytes of the source are missing at least; zero where that cannot be known.
    pub bytes: u64,
    /// The timestamp of the last line read before the gap, in nanoseconds; zero where unknown.
    pub timestamp_before_ns: i64,
    /// The timestamp of the first line after the gap, in nanoseconds; zero where unknown.
    pub timestamp_after_ns: i64,
}

/// What a batch covers of one source: every line in `[from, to)` is in the batch, was dropped by a rule, or is named in
/// `open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The source.
    pub source: Source,
    /// The first position covered.
    pub from: Position,
    /// The position after the last one covered.
    pub to: Position,
    /// Where lines start that lie below `to`, had not ended when the batch was cut, and come in a later batch.
    pub open: Vec<Position>,
    /// What is missing right before `from`.
    pub gap: Option<Gap>,
    /// How many lines a rule dropped; they count as seen, and are not stored.
    pub dropped_rows: u32,
    /// The source has ended and will send nothing more: the collector may forget it after its grace time.
    pub is_final: bool,
    /// What the agent wants back when it asks where it was: opaque to the collector, never text of a line.
    pub cursor: Vec<u8>,
}

impl Interval {
    /// The plain interval `[from, to)` of a source.
    pub fn new(source: Source, from: Position, to: Position) -> Self {
        Interval {
            source,
            from,
            to,
            open: Vec::new(),
            gap: None,
            dropped_rows: 0,
            is_final: false,
            cursor: Vec::new(),
        }
    }

    /// Checks what holds for every interval, however it came here.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), IdentityError> {
        if self.to < self.from {
            return Err(IdentityError::Backwards { from: self.from, to: self.to });
        }
        if self.open.len() > OPEN_LINES_MAX {
            return Err(IdentityError::OpenLines { count: self.open.len() });
        }
        if self.cursor.len() > CURSOR_BYTES_MAX {
            return Err(IdentityError::CursorLength { bytes: self.cursor.len() });
        }
        if let Some(gap) = &self.gap
            && gap.from > self.from
        {
            return Err(IdentityError::GapBounds { gap_from: gap.from, from: self.from });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_by_generation_then_offset() {
        assert!(Position::new(1, 900) < Position::new(2, 0));
        assert!(Position::new(2, 1) > Position::new(2, 0));
    }

    #[test]
    fn an_agent_id_survives_its_text_form() {
        let id = AgentId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<AgentId>(), Ok(id));
        assert_eq!("not-a-uuid".parse::<AgentId>(), Err(IdentityError::AgentId));
    }

    #[test]
    fn an_interval_that_runs_backwards_is_refused() {
        let source = Source::new("file:a").unwrap();
        let interval = Interval::new(source, Position::new(1, 5), Position::new(1, 4));
        assert!(matches!(interval.check(), Err(IdentityError::Backwards { .. })));
    }

    #[test]
    fn a_gap_must_end_where_its_interval_starts() {
        let mut interval =
            Interval::new(Source::new("file:a").unwrap(), Position::new(1, 5), Position::new(1, 9));
        interval.gap = Some(Gap {
            from: Position::new(1, 6),
            reason: GapReason::Rotated,
            bytes: 1,
            timestamp_before_ns: 0,
            timestamp_after_ns: 0,
        });
        assert!(matches!(interval.check(), Err(IdentityError::GapBounds { .. })));
    }
}

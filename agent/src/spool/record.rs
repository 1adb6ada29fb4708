//! What stands in one record of the spool's journal.
//!
//! ```text
//! 0 1  kind: 1 frame, 2 positions, 3 losses
//! 1 …  1, 3: a frame, as it is sent but for its epoch; of kind 3 it has no rows, and every interval of it declares a gap
//!      2: JSON, a list of source states
//! ```
//! An unknown kind is not understood, and passed over by nobody: the spool is then not opened.

use beeacon_journal::Payload;
use beeacon_record::wire::SourceState;
use beeacon_record::{Frame, FrameError};
use bytes::Bytes;

const FRAME: u8 = 1;
const POSITIONS: u8 = 2;
const LOSSES: u8 = 3;

/// A record, read.
#[derive(Debug)]
pub(crate) enum Record {
    /// Rows that wait for the collector.
    Frame(Frame),
    /// Where every source stands once what lies before has been sent.
    Positions(Vec<SourceState>),
    /// What was removed unsent, all of it that the collector has not heard of.
    Losses(Frame),
}

/// Why a record cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Of a kind that this version does not know.
    #[error("spool record of kind {kind} is not known")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// No frame, though its checksum held.
    #[error("spool record holds no frame")]
    Frame(#[from] FrameError),
    /// No positions.
    #[error("spool record holds no positions")]
    Positions,
}

impl Record {
    /// Reads a record.
    pub(crate) fn read(payload: Vec<u8>) -> Result<Self, RecordError> {
        let bytes = Bytes::from(payload);
        let Some(kind) = bytes.first().copied() else { return Err(RecordError::Kind { kind: 0 }) };
        let rest = bytes.slice(1..);
        match kind {
            FRAME => Ok(Record::Frame(Frame::parse(rest)?)),
            LOSSES => Ok(Record::Losses(Frame::parse(rest)?)),
            // serde's message may quote what it read.
            POSITIONS => {
                serde_json::from_slice(&rest).map(Record::Positions).map_err(|_| RecordError::Positions)
            }
            kind => Err(RecordError::Kind { kind }),
        }
    }
}

/// The record of a frame.
pub(crate) fn frame(frame: Bytes) -> Payload {
    Payload::new().with(vec![FRAME]).with(frame)
}

/// The record of a frame that declares losses.
pub(crate) fn losses(frame: Bytes) -> Payload {
    Payload::new().with(vec![LOSSES]).with(frame)
}

/// The record of where sources stand.
pub(crate) fn positions(states: &[SourceState]) -> Payload {
    // Numbers and source names always make JSON.
    Payload::new().with(vec![POSITIONS]).with(serde_json::to_vec(states).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use beeacon_record::{Position, Source};

    use super::*;

    #[test]
    fn positions_survive_their_record_and_foreign_bytes_are_refused() {
        let state = SourceState {
            source: Source::new("docker-file:4f2a").unwrap(),
            committed: Position::new(3, 99),
            open: vec![Position::new(3, 7)],
            cursor: vec![1, 2],
        };
        let json = serde_json::to_vec(&[&state]).unwrap();
        let read = Record::read([vec![POSITIONS], json].concat());
        assert!(matches!(read, Ok(Record::Positions(states)) if states == [state]));
        for (bytes, wanted) in [
            (vec![], "kind 0"),
            (vec![9, 1], "kind 9"),
            (vec![POSITIONS, b'{'], "no positions"),
            (vec![FRAME, 1, 2], "no frame"),
        ] {
            let error = Record::read(bytes).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}

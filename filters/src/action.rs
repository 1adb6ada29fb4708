//! What happens to a finding.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens to a finding.
///
/// In files: `action = "marker"`, `"mask"` (with `keep_first` and `keep_last`), `"hash"`, `"truncate"`, `"remove"`, `"drop"`, `"tag"`, `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Replaced by the name of what it was: `<EMAIL>`.
    #[default]
    Marker,
    /// Each character becomes `*`, but for some at either end. Where that would show more than half, nothing is kept.
    Mask {
        /// How many characters stay at the front.
        keep_first: u8,
        /// How many characters stay at the end.
        keep_last: u8,
    },
    /// Replaced by a token that is equal for equal values under one key: `<EMAIL:v1:mfrggzdfmztwq2lkmjsw>`.
    Hash,
    /// An IP address keeps its network: IPv4 the first 24 bits, IPv6 the first 48. What is no address becomes a marker.
    Truncate,
    /// The field that holds the value goes with its key: a member of a JSON object, a pair of logfmt. What is no field gets a marker.
    Remove,
    /// The whole record is left out, and counted.
    Drop,
    /// Counted, and left as it is.
    Tag,
    /// Not looked for.
    Off,
}

impl Action {
    /// Whether nothing of the value stays readable.
    pub(crate) fn hides_all(self) -> bool {
        matches!(self, Action::Marker | Action::Hash | Action::Remove | Action::Drop)
    }

    /// Whether it leaves no more of a value than `other` does.
    pub(crate) fn is_at_least(self, other: Action) -> bool {
        match (self, other) {
            (_, Action::Off) | (Action::Drop, _) => true,
            (_, Action::Drop) => false,
            (Action::Remove, _) => true,
            (_, Action::Remove) => false,
            (Action::Mask { keep_first, keep_last }, Action::Mask { keep_first: first, keep_last: last }) => {
                keep_first <= first && keep_last <= last
            }
            (Action::Truncate, Action::Truncate) => true,
            (_, Action::Tag) => self != Action::Off,
            _ => self.hides_all(),
        }
    }

    /// Whether the text changes.
    pub(crate) fn rewrites(self) -> bool {
        !matches!(self, Action::Tag | Action::Off)
    }

    /// The action of this name in a file.
    pub(crate) fn parse(name: &str, keep_first: u8, keep_last: u8) -> Option<Action> {
        Some(match name {
            "marker" => Action::Marker,
            "mask" => Action::Mask { keep_first, keep_last },
            "hash" => Action::Hash,
            "truncate" => Action::Truncate,
            "remove" => Action::Remove,
            "drop" => Action::Drop,
            "tag" => Action::Tag,
            "off" => Action::Off,
            _ => return None,
        })
    }

    /// The names, for messages.
    pub(crate) const NAMES: &'static str = "marker, mask, hash, truncate, remove, drop, tag, off";
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Marker => f.write_str("marker"),
            Action::Mask { keep_first, keep_last } => write!(f, "mask keeping {keep_first} and {keep_last}"),
            Action::Hash => f.write_str("hash"),
            Action::Truncate => f.write_str("truncate"),
            Action::Remove => f.write_str("remove"),
            Action::Drop => f.write_str("drop"),
            Action::Tag => f.write_str("tag"),
            Action::Off => f.write_str("off"),
        }
    }
}

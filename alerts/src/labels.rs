//! The labels of an alert, and the fingerprint that names the set of them.
//!
//! The fingerprint is Prometheus' and Alertmanager's: FNV-1a of 64 bits over the labels in the order of their names, each as
//! name, 0xFF, value, 0xFF. The same labels have the same fingerprint in all three, so what comes in twice is one alert.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The label that names the rule of an alert.
pub const ALERTNAME: &str = "alertname";

/// A set of labels, in the order of their names.
///
/// ```
/// use beeacon_alerts::Labels;
///
/// let labels = Labels::from_iter([("severity", "critical"), ("alertname", "PiiLeak"), ("host", "a")]);
/// assert_eq!(labels.fingerprint().to_string(), "e1be7786a1dabe0a");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// No label.
    #[must_use]
    pub fn new() -> Self {
        Labels::default()
    }

    /// The value of a label; a label that is not there has the empty value, as everywhere in this family of tools.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The value of a label that is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a label. An empty value removes it: a label with an empty value is no label.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value);
        }
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels that this set and another one have with the same value.
    #[must_use]
    pub fn common(&self, other: &Labels) -> Labels {
        self.iter().filter(|(name, value)| other.get(name) == Some(value)).collect()
    }

    /// The name of this set of labels.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = FNV_OFFSET;
        for (name, value) in &self.0 {
            hash = fnv(hash, name.as_bytes());
            hash = fnv(hash, &[0xFF]);
            hash = fnv(hash, value.as_bytes());
            hash = fnv(hash, &[0xFF]);
        }
        Fingerprint(hash)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(labels: I) -> Self {
        let mut set = Labels::new();
        for (name, value) in labels {
            set.set(name, value);
        }
        set
    }
}

/// As Prometheus writes it: `{alertname="PiiLeak", host="a"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}={}", quoted_name(name), quoted(value))?;
        }
        f.write_str("}")
    }
}

/// A label's name, in quotes when it is not made of letters, digits and `_`.
pub(crate) fn quoted_name(name: &str) -> String {
    if is_plain_name(name) { name.to_owned() } else { quoted(name) }
}

/// Whether a name is made of letters, digits and `_`, and does not begin with a digit.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Text in double quotes, as Go's `strconv.Quote` writes it for what labels usually hold.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7F => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if (0x80..0xA0).contains(&u32::from(c)) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// One step of FNV-1a over some bytes.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// FNV-1a of 64 bits.
pub(crate) fn fnv_of(bytes: &[u8]) -> u64 {
    fnv(FNV_OFFSET, bytes)
}

/// What names a set of labels, written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Fingerprint {
    /// Reads the 16 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Fingerprint> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Fingerprint)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Fingerprint::parse(&text).ok_or_else(|| serde::de::Error::custom("a fingerprint is 16 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_no_labels_is_the_offset_of_fnv() {
        assert_eq!(Labels::new().fingerprint().to_string(), "cbf29ce484222325");
    }

    #[test]
    fn an_empty_value_is_no_label() {
        let with = Labels::from_iter([("a", "1"), ("b", "")]);
        assert_eq!(with, Labels::from_iter([("a", "1")]));
    }

    #[test]
    fn labels_are_written_in_order_with_their_quotes() {
        let labels = Labels::from_iter([("b.c", "x\"y"), ("a", "line\nend\u{1b}")]);
        assert_eq!(labels.to_string(), "{a=\"line\\nend\\x1b\", \"b.c\"=\"x\\\"y\"}");
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let fingerprint = Labels::from_iter([("a", "1")]).fingerprint();
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        assert_eq!(Fingerprint::parse("+123456789abcdef"), None);
        assert_eq!(Fingerprint::parse("12"), None);
    }
}

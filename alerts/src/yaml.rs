//! A YAML document as a tree in which every key and value knows its place, so that all faults of a file can be told at once.
//!
//! The parser stops at its first syntax error; everything above syntax (unknown keys, wrong kinds) is collected here.

mod parse;

use std::fmt;

use crate::limits::RULE_FILE_BYTES_MAX;

/// Where something stands in a file, both counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something that is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The faults of one file, in the order of their places when it is done.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.0.push(Fault { place, message: message.into() });
    }

    pub(crate) fn finish(mut self) -> Vec<Fault> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value, kept as far as a file of this room needs it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Place, String, Node)>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Integer(_) | Value::Float => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads a document.
pub(crate) fn read(text: &str) -> Result<Node, Vec<Fault>> {
    if text.len() > RULE_FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, the limit is {RULE_FILE_BYTES_MAX}", text.len());
        return Err(vec![Fault { place: Place { line: 1, column: 1 }, message }]);
    }
    parse::parse(text).map_err(|fault| vec![fault])
}

/// A map whose keys are taken one by one; what is left at the end was not known.
pub(crate) struct Taker {
    pub(crate) place: Place,
    what: &'static str,
    entries: Vec<(Place, String, Node)>,
}

impl Taker {
    /// A map, or a fault.
    pub(crate) fn new(node: Node, what: &'static str, faults: &mut Faults) -> Option<Taker> {
        match node.value {
            Value::Map(entries) => Some(Taker { place: node.place, what, entries }),
            other => {
                faults.add(node.place, format!("{what} is a map, not {}", other.kind()));
                None
            }
        }
    }

    /// A key's value, taken out. `key:` with nothing behind it counts as not written.
    pub(crate) fn node(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(_, name, _)| name == key)?;
        let (_, _, node) = self.entries.remove(at);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    pub(crate) fn text(&mut self, key: &str, faults: &mut Faults) -> Option<(Place, String)> {
        let node = self.node(key)?;
        text(node, key, faults)
    }

    pub(crate) fn count(&mut self, key: &str, faults: &mut Faults) -> Option<u64> {
        let node = self.node(key)?;
        match node.value {
            Value::Integer(number) if number >= 0 => u64::try_from(number).ok(),
            other => {
                faults.add(node.place, format!("`{key}` is a whole number from 0 on, not {}", other.kind()));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &str, faults: &mut Faults) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            other => {
                faults.add(node.place, format!("`{key}` is true or false, not {}", other.kind()));
                None
            }
        }
    }

    pub(crate) fn duration(&mut self, key: &str, faults: &mut Faults) -> Option<std::time::Duration> {
        let (place, text) = self.text(key, faults)?;
        crate::duration::parse(&text).map_err(|error| faults.add(place, format!("`{key}`: {error}"))).ok()
    }

    pub(crate) fn list(&mut self, key: &str, faults: &mut Faults) -> Option<Vec<Node>> {
        let node = self.node(key)?;
        match node.value {
            Value::List(items) => Some(items),
            other => {
                faults.add(node.place, format!("`{key}` is a list, not {}", other.kind()));
                None
            }
        }
    }

    pub(crate) fn texts(&mut self, key: &str, faults: &mut Faults) -> Option<Vec<(Place, String)>> {
        let items = self.list(key, faults)?;
        Some(items.into_iter().filter_map(|item| text(item, key, faults)).collect())
    }

    /// A map of texts, with the places of the keys.
    pub(crate) fn text_map(&mut self, key: &str, faults: &mut Faults) -> Vec<(Place, String, String)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        match node.value {
            Value::Map(entries) => entries
                .into_iter()
                .filter_map(|(place, name, node)| {
                    text(node, &name, faults).map(|(_, value)| (place, name, value))
                })
                .collect(),
            other => {
                faults.add(node.place, format!("`{key}` is a map, not {}", other.kind()));
                Vec::new()
            }
        }
    }

    /// Complains about every key that nobody took.
    pub(crate) fn finish(self, known: &[&str], faults: &mut Faults) {
        for (place, name, _) in self.entries {
            let near = known.iter().find(|known| is_near(known, &name));
            let hint = near.map_or_else(|| known.join(", "), |near| format!("`{near}`?"));
            let shown: String = name.chars().take(60).collect();
            faults.add(place, format!("unknown key `{shown}` in {}; known: {hint}", self.what));
        }
    }
}

fn text(node: Node, key: &str, faults: &mut Faults) -> Option<(Place, String)> {
    match node.value {
        Value::Text(text) => Some((node.place, text)),
        other => {
            faults.add(node.place, format!("`{key}` is text, not {}: write it in quotes", other.kind()));
            None
        }
    }
}

/// Whether two names differ by case, separators, or a letter or two.
fn is_near(known: &str, name: &str) -> bool {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (known, name) = (plain(known), plain(name));
    strsim::osa_distance(&known, &name) <= if known.len() > 4 { 2 } else { 1 }
}

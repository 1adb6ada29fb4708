//! Reads a configuration file into typed values and reports every fault of it at once.
//!
//! One TOML file configures every room. A room asks a [`Section`] for its keys, each with a default and its allowed range;
//! what was asked for is what is known, so an unknown key is a fault that names the nearest known one. Asking never fails:
//! a faulty value is noted and the default returned, and [`Document::finish`] gives all faults together.
//!
//! Text values may refer to what surrounds the process: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`,
//! `${file:/path}`; `$$` is a dollar sign. Faults never print a value that came from there.
//!
//! ```
//! use beeacon_settings::{Document, Nothing};
//! use std::time::Duration;
//!
//! let text = "[agent]\nflush_afer = \"1 s\"\nbatch_bytes_max = \"3 TiB\"\n";
//! let document = Document::parse("beeacon.toml", text, &Nothing);
//! let mut root = document.root();
//! let mut agent = root.section("agent");
//! agent.duration("flush_after", Duration::from_millis(200), Duration::from_millis(1)..=Duration::from_secs(60));
//! agent.bytes("batch_bytes_max", 1 << 20, 64 << 10..=8 << 20);
//! agent.close();
//! root.close();
//! let faults = document.finish().unwrap_err().to_string();
//! assert!(faults.contains("beeacon.toml:2: agent.flush_afer: no such key; did you mean \"flush_after\"?"));
//! assert!(faults.contains("beeacon.toml:3: agent.batch_bytes_max: got 3 TiB, allowed are 64 KiB to 8 MiB"));
//! ```

mod interpolate;
mod quantity;

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use interpolate::{Nothing, Process, Surroundings, fill_in};
pub use quantity::{read_duration, show_bytes, show_duration};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line in the file, counted from 1; 0 where no line is to blame.
    pub line: usize,
    /// The key with its sections, such as `agent.flush_after`; empty where no key is to blame.
    pub key: String,
    /// What is wrong, what was found and what is allowed.
    pub message: String,
}

/// Everything that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    file: String,
    faults: Vec<Fault>,
}

impl Faults {
    /// Every fault, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.file)?;
            if fault.line > 0 {
                write!(f, ":{}", fault.line)?;
            }
            if !fault.key.is_empty() {
                write!(f, ": {}", fault.key)?;
            }
            write!(f, ": {}", fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A key that was asked for, and what its reader got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key with its sections, such as `agent.flush_after`. Sections of a list have one path, in the order of the file.
    pub key: String,
    /// The value as a file would have it; nothing for a key without value and default. What may be a secret is `"***"`: whatever came
    /// from the environment or a file, and every text under a key whose name says so.
    pub value: Option<String>,
    /// Whether the file has the key.
    pub is_given: bool,
}

/// Words in the names of keys whose values nobody is shown.
const SECRET_WORDS: [&str; 9] =
    ["token", "password", "secret", "scram", "sha256", "deny", "values", "authorization", "role_id"];

fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    // A file that holds a secret is no secret; a list of names of fields is none either.
    let is_place = name.ends_with("_file") || name.ends_with("_fields") || name.ends_with("_max");
    !is_place && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A value of the file, with its line.
#[derive(Debug)]
struct Node {
    line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Text { text: String, from_outside: bool },
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
    Faulty,
}

/// A parsed file and the faults found so far.
#[derive(Debug)]
pub struct Document {
    file: String,
    root: Node,
    faults: RefCell<Vec<Fault>>,
    settings: RefCell<Vec<Setting>>,
}

impl Document {
    /// Parses a file's text. Syntax errors and references to nothing are faults like any other: they come out of
    /// [`Document::finish`].
    pub fn parse(file: &str, text: &str, surroundings: &dyn Surroundings) -> Self {
        let lines = Lines::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut faults: Vec<Fault> = errors
            .iter()
            .map(|error| Fault {
                line: error.span().map_or(0, |span| lines.line(span.start)),
                key: String::new(),
                message: error.message().to_owned(),
            })
            .collect();
        let line = lines.line(table.span().start);
        let mut reading = Reading { lines: &lines, surroundings, faults: &mut faults };
        let root = Node { line, value: reading.table(table.get_ref(), "") };
        Document { file: file.to_owned(), root, faults: RefCell::new(faults), settings: RefCell::default() }
    }

    /// A file with nothing in it: every key has its default.
    pub fn empty() -> Self {
        Document::parse("(no file)", "", &Nothing)
    }

    /// The file's outermost section.
    pub fn root(&self) -> Section<'_> {
        Section { document: self, path: String::new(), node: Some(&self.root), known: Vec::new() }
    }

    /// Notes a fault that concerns several keys, such as two limits that contradict each other.
    pub fn fault(&self, message: impl Into<String>) {
        self.note(0, String::new(), message.into());
    }

    /// Every key that was asked for so far, in that order, with the value its reader got. Secrets are hidden.
    pub fn settings(&self) -> Vec<Setting> {
        self.settings.borrow().clone()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every fault of the file, in its order.
    pub fn finish(self) -> Result<(), Faults> {
        let mut faults = self.faults.into_inner();
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by_key(|fault| if fault.line == 0 { usize::MAX } else { fault.line });
        Err(Faults { file: self.file, faults })
    }

    fn note(&self, line: usize, key: String, message: String) {
        self.faults.borrow_mut().push(Fault { line, key, message });
    }
}

/// Turns byte offsets into lines.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

/// Copies TOML's tree into ours, resolving references on the way.
struct Reading<'a> {
    lines: &'a Lines,
    surroundings: &'a dyn Surroundings,
    faults: &'a mut Vec<Fault>,
}

impl Reading<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let mut entries: Vec<(String, Node)> = Vec::new();
        for (key, value) in table {
            let path = join(path, key.get_ref());
            let line = self.lines.line(key.span().start);
            let value = self.value(value, &path);
            entries.push((key.get_ref().to_string(), Node { line, value }));
        }
        Value::Table(entries)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        let line = self.lines.line(value.span().start);
        let mut faulty = |message: String| {
            self.faults.push(Fault { line, key: path.to_owned(), message });
            Value::Faulty
        };
        match value.get_ref() {
            DeValue::String(text) => match interpolate::resolve(text, self.surroundings) {
                Ok((text, from_outside)) => Value::Text { text, from_outside },
                Err(message) => faulty(message),
            },
            DeValue::Integer(number) => {
                match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => faulty("integer is beyond 64 bits".to_owned()),
                }
            }
            DeValue::Float(number) => match number.as_str().replace('_', "").parse() {
                Ok(number) => Value::Float(number),
                Err(_) => faulty("not a number".to_owned()),
            },
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => faulty("dates have no use here".to_owned()),
            DeValue::Array(items) => {
                let item = |item: &Spanned<DeValue<'_>>| Node {
                    line: self.lines.line(item.span().start),
                    value: self.value(item, path),
                };
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => self.table(table, path),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A table of the file from which keys are asked.
#[derive(Debug)]
pub struct Section<'a> {
    document: &'a Document,
    path: String,
    node: Option<&'a Node>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Whether the file has this section at all.
    pub fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// A section within this one; empty when the file does not have it.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = join(&self.path, key);
        let mut node = self.take(key);
        if let Some(found) = node
            && !matches!(found.value, Value::Table(_))
        {
            self.misfit(found, key, "a section");
            node = None;
        }
        Section { document: self.document, path, node, known: Vec::new() }
    }

    /// The sections of a list of tables, such as `[[rule]]`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = join(&self.path, key);
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.misfit(node, key, "a list of sections");
            return Vec::new();
        };
        items
            .iter()
            .map(|item| Section {
                document: self.document,
                path: path.clone(),
                node: Some(item),
                known: Vec::new(),
            })
            .collect()
    }

    /// Text, or `None` when the key is absent.
    pub fn optional_text(&mut self, key: &'static str) -> Option<String> {
        let text = self.text_of(key);
        self.got(key, text.as_deref().map(quoted));
        text
    }

    fn text_of(&mut self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        match &node.value {
            Value::Text { text, .. } => Some(text.clone()),
            _ => {
                self.misfit(node, key, "text");
                None
            }
        }
    }

    /// Text.
    pub fn text(&mut self, key: &'static str, default: &str) -> String {
        let text = self.text_of(key).unwrap_or_else(|| default.to_owned());
        self.got(key, Some(quoted(&text)));
        text
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        let value = self.texts_of(key);
        self.got(key, Some(format!("{value:?}")));
        value
    }

    fn texts_of(&mut self, key: &'static str) -> Vec<String> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.misfit(node, key, "a list of texts");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text { text, .. } => texts.push(text.clone()),
                _ => self.misfit(item, key, "a list of texts"),
            }
        }
        texts
    }

    /// A table whose keys are free and whose values are texts.
    pub fn text_table(&mut self, key: &'static str) -> Vec<(String, String)> {
        let value = self.text_table_of(key);
        self.got(key, Some(format!("{value:?}")));
        value
    }

    fn text_table_of(&mut self, key: &'static str) -> Vec<(String, String)> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::Table(entries) = &node.value else {
            self.misfit(node, key, "a table of texts");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            match &entry.value {
                Value::Text { text, .. } => texts.push((name.clone(), text.clone())),
                _ => self.misfit(entry, key, "a table of texts"),
            }
        }
        texts
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let value = self.choice_of(key, choices, default);
        // A default has no name here that is surely its own.
        let given = match self.find(key).map(|node| &node.value) {
            Some(Value::Text { text, .. }) => Some(quoted(text)),
            _ => None,
        };
        self.got(key, given);
        value
    }

    fn choice_of<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let Some(node) = self.take(key) else { return default };
        let Value::Text { text, from_outside } = &node.value else {
            self.misfit(node, key, "text");
            return default;
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| name == text) {
            return *value;
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let got = shown_text(text, *from_outside);
        let nearest = nearest(text, names.iter().copied()).map(|name| format!("; did you mean \"{name}\"?"));
        let allowed = names.join(", ");
        self.fault_at(node, key, format!("got {got}, allowed are {allowed}{}", nearest.unwrap_or_default()));
        default
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let value = self.boolean_of(key, default);
        self.got(key, Some(value.to_string()));
        value
    }

    fn boolean_of(&mut self, key: &'static str, default: bool) -> bool {
        let Some(node) = self.take(key) else { return default };
        match &node.value {
            Value::Boolean(value) => *value,
            Value::Text { text, .. } if text == "true" => true,
            Value::Text { text, .. } if text == "false" => false,
            _ => {
                self.misfit(node, key, "true or false");
                default
            }
        }
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let value = self.integer_of(key, default, range);
        self.got(key, Some(value.to_string()));
        value
    }

    fn integer_of(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.take(key) else { return default };
        let number = match &node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text { text, .. } => text.parse().ok(),
            _ => None,
        };
        self.within(node, key, number, default, range, "a whole number", |number| number.to_string())
    }

    /// A part of everything, from 0 to 1, in millionths.
    pub fn millionths(&mut self, key: &'static str, default: u32) -> u32 {
        let value = self.millionths_of(key, default);
        self.got(key, Some((f64::from(value) / 1e6).to_string()));
        value
    }

    fn millionths_of(&mut self, key: &'static str, default: u32) -> u32 {
        let Some(node) = self.take(key) else { return default };
        let fraction = match &node.value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
            Value::Text { text, .. } => text.parse().ok(),
            _ => None,
        };
        let shown = f64::from(default) / 1e6;
        let range = 0.0..=1.0;
        let part = self.within(node, key, fraction, shown, range, "a part such as 0.001", f64::to_string);
        // Within the range, so the number fits.
        format!("{:.0}", part * 1e6).parse().unwrap_or(default)
    }

    /// An amount of bytes within a range: a number, or text such as `"64 MiB"`.
    pub fn bytes(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let value = self.bytes_of(key, default, range);
        self.got(key, Some(quoted(&show_bytes(value))));
        value
    }

    fn bytes_of(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.take(key) else { return default };
        let number = match &node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text { text, .. } => quantity::bytes(text),
            _ => None,
        };
        let wanted = "an amount of bytes such as \"64 MiB\"";
        self.within(node, key, number, default, range, wanted, |number| show_bytes(*number))
    }

    /// A span of time within a range: text such as `"200 ms"`, `"30 s"`, `"10 m"`, `"12 h"`, `"7 d"`.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let value = self.duration_of(key, default, range);
        self.got(key, Some(quoted(&show_duration(value))));
        value
    }

    fn duration_of(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(node) = self.take(key) else { return default };
        let span = match &node.value {
            Value::Text { text, .. } => read_duration(text),
            _ => None,
        };
        let wanted = "a span of time such as \"200 ms\" or \"30 s\"";
        self.within(node, key, span, default, range, wanted, |span| show_duration(*span))
    }

    /// Refuses a key that had another name once, pointing at the new one.
    pub fn retired(&mut self, old: &'static str, new: &str) {
        if let Some(node) = self.take(old) {
            self.fault_at(node, old, format!("is called \"{new}\" now"));
        }
    }

    /// Notes a fault of a key of this section that only the caller can see.
    pub fn fault(&mut self, key: &'static str, message: impl Into<String>) {
        let line = self.find(key).map_or(0, |node| node.line);
        self.document.note(line, join(&self.path, key), message.into());
    }

    /// Notes what a reader got.
    fn got(&self, key: &str, value: Option<String>) {
        let (path, node) = (join(&self.path, key), self.find(key));
        let hidden = node.is_some_and(|node| node.is_from_outside()) || is_secret(&path);
        let value = if hidden && node.is_some() { Some("\"***\"".to_owned()) } else { value };
        self.document.settings.borrow_mut().push(Setting { key: path, value, is_given: node.is_some() });
    }

    /// Ends the section: what was never asked for is unknown.
    pub fn close(self) {
        let Some(Node { value: Value::Table(entries), .. }) = self.node else { return };
        for (key, node) in entries {
            if self.known.iter().any(|known| known == key) {
                continue;
            }
            let hint = nearest(key, self.known.iter().copied())
                .map(|name| format!("; did you mean \"{name}\"?"))
                .unwrap_or_else(|| format!("; known are {}", self.known.join(", ")));
            self.document.note(node.line, join(&self.path, key), format!("no such key{hint}"));
        }
    }

    fn find(&self, key: &str) -> Option<&'a Node> {
        let Value::Table(entries) = &self.node?.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The key's node, which is known from now on. A value whose reference led nowhere has its fault already.
    fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.find(key).filter(|node| !matches!(node.value, Value::Faulty))
    }

    fn fault_at(&self, node: &Node, key: &str, message: String) {
        self.document.note(node.line, join(&self.path, key), message);
    }

    fn misfit(&self, node: &Node, key: &str, wanted: &str) {
        self.fault_at(node, key, format!("got {}, wanted {wanted}", shown(node)));
    }

    #[expect(clippy::too_many_arguments, reason = "three callers share it, each with its own unit")]
    fn within<T: PartialOrd>(
        &self,
        node: &Node,
        key: &str,
        found: Option<T>,
        default: T,
        range: RangeInclusive<T>,
        wanted: &str,
        show: impl Fn(&T) -> String,
    ) -> T {
        match found {
            None => {
                self.misfit(node, key, wanted);
                default
            }
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let (low, high) = (show(range.start()), show(range.end()));
                self.fault_at(node, key, format!("got {}, allowed are {low} to {high}", show(&value)));
                default
            }
        }
    }
}

impl Node {
    /// Whether it, or a part of it, came from the environment or a file, or is an address with a password in it.
    fn is_from_outside(&self) -> bool {
        match &self.value {
            Value::Text { text, from_outside } => {
                *from_outside || text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
            }
            Value::List(items) => items.iter().any(Node::is_from_outside),
            Value::Table(entries) => entries.iter().any(|(_, entry)| entry.is_from_outside()),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Faulty => false,
        }
    }
}

/// Text as a file would have it.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A value as a fault may print it.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Text { text, from_outside } => shown_text(text, *from_outside),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a section".to_owned(),
        Value::Faulty => "nothing".to_owned(),
    }
}

/// What came from the environment or a file may be a secret, so it is not printed.
fn shown_text(text: &str, from_outside: bool) -> String {
    if from_outside { "a value from outside the file".to_owned() } else { format!("\"{text}\"") }
}

/// The known name that a misspelt one most likely means.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;

//! Fields of JSON objects and of logfmt, by name, as places in a text.
//!
//! What always holds: pure, one pass, no copy; a text that is neither form, or breaks off, gives what stands before the break;
//! nesting is followed as deep as a wanted name goes, and skipped without a stack; what becomes an attribute stood in a scrubbed
//! message.

use std::ops::Range;
use std::sync::Arc;

use beeacon_record::schema::Column;
use beeacon_record::{Batch, BatchError, Cut, Scrubbed, Source};

use crate::limits::{PICKED_NAME_BYTES_MAX, PICKS_MAX};

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it stands, without quotes.
    pub range: Range<usize>,
    /// Whether it stood in quotes, so that escapes may stand in it.
    pub is_quoted: bool,
}

/// Which fields of a container's lines become attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picks {
    /// The fields' names, dots between the keys of nested ones.
    fields: Vec<String>,
    /// What the attributes are called.
    attributes: Vec<String>,
}

/// A text that names no fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PicksError {
    /// Not the form.
    #[error("got \"{text}\", wanted <field> or <field> as <attribute>, with commas between several, or none")]
    Form {
        /// What stood there.
        text: String,
    },
    /// Too many.
    #[error("names {count} fields, allowed are {PICKS_MAX}")]
    Count {
        /// How many.
        count: usize,
    },
    /// An attribute twice.
    #[error("attribute \"{name}\" stands twice")]
    Twice {
        /// Which.
        name: String,
    },
}

impl Picks {
    /// Reads `user, http.status as status`; `none` is `None`.
    ///
    /// ```
    /// use beeacon_agent::picking::Picks;
    /// assert!(Picks::parse("user, http.status as status").unwrap().is_some());
    /// assert!(Picks::parse("a as").is_err());
    /// ```
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Option<Self>, PicksError> {
        if text.trim() == "none" {
            return Ok(None);
        }
        let mut picks = Picks { fields: Vec::new(), attributes: Vec::new() };
        for one in text.split(',').map(str::trim) {
            let (field, attribute) = one.split_once(" as ").unwrap_or((one, one));
            let (field, attribute) = (field.trim(), attribute.trim());
            let is_name = |name: &str| {
                !name.is_empty() && name.len() <= PICKED_NAME_BYTES_MAX && !name.contains(char::is_whitespace)
            };
            if !is_name(field) || !is_name(attribute) {
                return Err(PicksError::Form { text: one.to_owned() });
            }
            if picks.attributes.iter().any(|known| known == attribute) {
                return Err(PicksError::Twice { name: attribute.to_owned() });
            }
            picks.fields.push(field.to_owned());
            picks.attributes.push(attribute.to_owned());
        }
        if picks.fields.len() > PICKS_MAX {
            return Err(PicksError::Count { count: picks.fields.len() });
        }
        Ok(Some(picks))
    }

    /// The attributes of a text and where their values stand, each at most once.
    pub fn pick<'a>(&'a self, text: &str, give: &mut dyn FnMut(&'a str, Value)) {
        let names: Vec<&str> = self.fields.iter().map(String::as_str).collect();
        let mut found = vec![false; names.len()];
        find(text, &names, &mut |number, value| {
            if let (Some(found), Some(attribute)) = (found.get_mut(number), self.attributes.get(number))
                && !std::mem::replace(found, true)
            {
                give(attribute, value);
            }
        });
    }
}

/// Picks the fields that each source's configuration names. What is picked comes out of scrubbed messages, and out of nothing else.
///
/// # Errors
/// Never for a batch that was made by a builder.
pub fn to_attributes(
    batch: Scrubbed<Batch>,
    wanted: &[(Vec<Source>, Arc<Picks>)],
) -> Result<Scrubbed<Batch>, BatchError> {
    if wanted.is_empty() {
        return Ok(batch);
    }
    let mut cuts = Vec::new();
    {
        let (keys, names) = batch.get().dictionary_column(Column::Source)?;
        let of = |name: Option<&str>| {
            let is_of = |(sources, _): &&(Vec<Source>, Arc<Picks>)| {
                sources.iter().any(|source| Some(source.as_str()) == name)
            };
            wanted.iter().find(is_of).map(|(_, picks)| picks.as_ref())
        };
        let by_source: Vec<Option<&Picks>> = names.iter().map(of).collect();
        for (row, (key, message)) in keys.values().iter().zip(batch.get().messages()).enumerate() {
            let picks = usize::try_from(*key).ok().and_then(|key| by_source.get(key).copied().flatten());
            if let (Some(picks), Some(message)) = (picks, message) {
                picks.pick(message, &mut |key, Value { range, is_quoted }| {
                    cuts.push(Cut { row, key, range, is_quoted });
                });
            }
        }
    }
    batch.with_cuts(&cuts)
}

/// Whether a line is a JSON object, or begins as one.
pub fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'{')
}

/// Finds the fields called `names`, and gives their number and value in the order in which they stand.
pub fn find(text: &str, names: &[&str], give: &mut dyn FnMut(usize, Value)) {
    if is_object(text.as_bytes()) {
        // What breaks off has given what stood before.
        object(text.as_bytes(), names, give);
    } else {
        logfmt(text.as_bytes(), names, give);
    }
}

fn object(text: &[u8], names: &[&str], give: &mut dyn FnMut(usize, Value)) -> Option<()> {
    let mut at = skip_spaces(text, 0);
    let mut path: Vec<u8> = Vec::new();
    // For each level of nesting on the way to a wanted field, how much of the path its keys make up.
    let mut ways: Vec<usize> = vec![0];
    at += 1;
    loop {
        at = skip_spaces(text, at);
        match text.get(at)? {
            b',' => at += 1,
            b'}' => {
                at += 1;
                ways.pop();
                path.truncate(*ways.last()?);
            }
            b'"' => {
                let key = string(text, at)?;
                at = skip_spaces(text, key.end + 1);
                if text.get(at)? != &b':' {
                    return None;
                }
                at = skip_spaces(text, at + 1);
                let before = *ways.last()?;
                path.truncate(before);
                if before > 0 {
                    path.push(b'.');
                }
                path.extend_from_slice(text.get(key)?);
                let number = names.iter().position(|name| name.as_bytes() == path);
                let is_on_the_way = |name: &&str| {
                    name.len() > path.len()
                        && name.as_bytes().starts_with(&path)
                        && name.as_bytes().get(path.len()) == Some(&b'.')
                };
                if number.is_none() && text.get(at) == Some(&b'{') && names.iter().any(is_on_the_way) {
                    ways.push(path.len());
                    at += 1;
                    continue;
                }
                let value = value(text, at)?;
                at = value.range.end + usize::from(value.is_quoted);
                if let Some(number) = number {
                    give(number, value);
                }
            }
            _ => return None,
        }
    }
}

/// The value that starts at `at`: a string without its quotes, or anything else as it stands.
fn value(text: &[u8], at: usize) -> Option<Value> {
    match text.get(at)? {
        b'"' => Some(Value { range: string(text, at)?, is_quoted: true }),
        b'{' | b'[' => {
            let (mut depth, mut to) = (0usize, at);
            loop {
                match text.get(to)? {
                    b'"' => to = string(text, to)?.end,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
                to += 1;
                if depth == 0 {
                    return Some(Value { range: at..to, is_quoted: false });
                }
            }
        }
        _ => {
            let rest = text.get(at..)?;
            let length =
                rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n'))?;
            (length > 0).then_some(Value { range: at..at + length, is_quoted: false })
        }
    }
}

/// The inside of the string that starts at `at`.
fn string(text: &[u8], at: usize) -> Option<Range<usize>> {
    let mut to = at + 1;
    loop {
        to += memchr::memchr2(b'"', b'\\', text.get(to..)?)?;
        match text.get(to)? {
            b'"' => return Some(at + 1..to),
            _ => to += 2,
        }
    }
}

fn skip_spaces(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or(&[]);
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// `key=value key="a value"` between other words.
fn logfmt(text: &[u8], names: &[&str], give: &mut dyn FnMut(usize, Value)) {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'=', text.get(at..).unwrap_or(&[])) {
        let equals = at + found;
        let before = text.get(at..equals).unwrap_or(&[]);
        let is_key =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@' | b'/');
        let length = before.iter().rev().take_while(|byte| is_key(byte)).count();
        let (front, key) = before.split_at(before.len() - length);
        // A key begins a word.
        let is_field =
            !key.is_empty() && front.last().is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b','));
        let start = equals + 1;
        let value = if text.get(start) == Some(&b'"') {
            let Some(range) = string(text, start) else { return };
            Value { range, is_quoted: true }
        } else {
            let rest = text.get(start..).unwrap_or(&[]);
            let length =
                rest.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n')).unwrap_or(rest.len());
            Value { range: start..start + length, is_quoted: false }
        };
        at = value.range.end + usize::from(value.is_quoted);
        if is_field && let Some(number) = names.iter().position(|name| name.as_bytes() == key) {
            give(number, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(&'static str, &'static str)];

    fn picked(picks: &str, text: &str) -> Vec<(String, String)> {
        let picks = Picks::parse(picks).unwrap().unwrap();
        let mut found = Vec::new();
        picks.pick(text, &mut |name, value| {
            found.push((name.to_owned(), text.get(value.range).unwrap().to_owned()))
        });
        found
    }

    #[test]
    fn every_field_of_the_table_is_found() {
        let table: &[(&str, &str, Pairs)] = &[
            ("a", r#"{"a":1}"#, &[("a", "1")]),
            ("a", r#" { "b" : "a" , "a" : "x \" y" }"#, &[("a", r#"x \" y"#)]),
            ("a.b", r#"{"a":{"c":{"b":1},"b":true},"b":2}"#, &[("a.b", "true")]),
            ("a.b", r#"{"a.b":3}"#, &[("a.b", "3")]),
            ("b", r#"{"a":{"b":1},"b":2}"#, &[("b", "2")]),
            ("a.b as x, c", r#"{"c":null,"a":{"b":"q"}}"#, &[("c", "null"), ("x", "q")]),
            ("a", r#"{"z":[{"a":1},"]"],"a":{"b":[1,2]}}"#, &[("a", r#"{"b":[1,2]}"#)]),
            ("a", r#"{"a":1,"a":2}"#, &[("a", "1")]),
            ("a", r#"{"a":"unfinished"#, &[]),
            ("a, b", r#"{"a":1,"b""#, &[("a", "1")]),
            ("a", r#"{"a":12"#, &[]),
            ("a", "{", &[]),
            ("a", "{}", &[]),
            ("a", "", &[]),
            ("a", "a=1 b=2", &[("a", "1")]),
            ("a, msg", r#"msg="x a=2 \" y" a=3"#, &[("msg", r#"x a=2 \" y"#), ("a", "3")]),
            ("a", "ba=1 a=", &[("a", "")]),
            ("a", "x?a=1", &[]),
            ("a", r#"a="open"#, &[]),
            ("user", "2024 INFO user=<EMAIL> done", &[("user", "<EMAIL>")]),
            ("\u{fc}", "\u{fc}=1", &[]),
        ];
        for (picks, text, wanted) in table {
            let wanted: Vec<(String, String)> =
                wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(picked(picks, text), wanted, "{text}");
        }
    }

    #[test]
    fn texts_that_name_no_fields_are_refused() {
        assert_eq!(Picks::parse("none"), Ok(None));
        for bad in ["", "a,", "a as ", "a b", "a as b as c", "a, b as a"] {
            assert!(Picks::parse(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=PICKS_MAX).map(|number| format!("f{number}")).collect();
        assert_eq!(Picks::parse(&many.join(",")), Err(PicksError::Count { count: PICKS_MAX + 1 }));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange_and_places_are_at_characters(text in "[{}\\[\\]\",:=\\\\ a\u{fc}.1\n]{0,60}") {
            for object in [text.clone(), format!("{{{text}")] {
                find(&object, &["a", "a.a", "1"], &mut |_, value| {
                    assert!(object.get(value.range.clone()).is_some(), "{object} {value:?}");
                });
            }
        }

        #[test]
        fn every_member_of_an_object_is_found(members: std::collections::BTreeMap<String, String>) {
            let text = serde_json::to_string(&members).unwrap();
            // Names are given as they stand in the text, without escapes.
            let key = |key: &str| serde_json::to_string(key).unwrap().len() == key.len() + 2;
            for (name, value) in members.iter().filter(|(name, _)| key(name)) {
                let mut found = None;
                find(&text, &[name], &mut |_, at| found = Some(text.get(at.range).unwrap().to_owned()));
                let found: String = serde_json::from_str(&format!("\"{}\"", found.unwrap())).unwrap();
                assert_eq!(&found, value);
            }
        }
    }
}

//! A document's text into its tree of [`Node`]s.
//!
//! Plain scalars are read by YAML 1.2's core schema. An alias stands for a copy of what its anchor named, and copies count
//! towards [`RULE_FILE_NODES_MAX`], so that no file of a few hundred bytes becomes a tree of a few gigabytes. Tags other than
//! the core schema's are refused, as is a second document.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{Fault, Node, Place, Value};
use crate::limits::{RULE_FILE_DEPTH_MAX, RULE_FILE_NODES_MAX};

/// Reads a document. A text without one is a document that holds nothing.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut root = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => return Err(fault(&span, "a second document: a file has one")),
            event => root = Some(reader.node(event, &span, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// What each anchor named, with the number of its nodes.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Fault> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                Err(Fault { place: place(error.marker()), message: format!("no YAML: {}", error.info()) })
            }
        }
    }

    fn inside(&mut self, span: &Span) -> Result<(Event<'a>, Span), Fault> {
        self.next()?.ok_or_else(|| fault(span, "no YAML: it ends in the middle"))
    }

    /// The node that an event begins.
    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Fault> {
        if depth > RULE_FILE_DEPTH_MAX {
            return Err(fault(span, format!("nested deeper than {RULE_FILE_DEPTH_MAX} levels")));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", span)?;
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.inside(span)?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, &span, depth + 1)?);
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", span)?;
                (Value::Map(self.map(span, depth)?), anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault(span, "an alias stands inside of what it names"));
                };
                self.count(nodes, span)?;
                return Ok(Node { place: place(&span.start), value: node.value });
            }
            _ => return Err(fault(span, "no YAML: a value is missing")),
        };
        let node = Node { place: place(&span.start), value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn map(&mut self, span: &Span, depth: usize) -> Result<Vec<(Place, String, Node)>, Fault> {
        let mut entries: Vec<(Place, String, Node)> = Vec::new();
        loop {
            let (event, key_span) = self.inside(span)?;
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(fault(&key_span, "a key is text")),
            };
            if entries.iter().any(|(_, known, _)| *known == key) {
                let shown: String = key.chars().take(60).collect();
                return Err(fault(&key_span, format!("the key `{shown}` is there twice")));
            }
            let (event, value_span) = self.inside(&key_span)?;
            let node = self.node(event, &value_span, depth + 1)?;
            entries.push((place(&key_span.start), key, node));
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > RULE_FILE_NODES_MAX {
            return Err(fault(
                span,
                format!("the file has more than {RULE_FILE_NODES_MAX} values, copies by alias included"),
            ));
        }
        Ok(())
    }
}

fn place(marker: &Marker) -> Place {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Place { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

fn fault(span: &Span, message: impl Into<String>) -> Fault {
    Fault { place: place(&span.start), message: message.into() }
}

const TAG: &str = "a tag that is not of YAML's core schema, or does not fit its value";

fn check_tag(tag: Option<&Tag>, suffix: &str, span: &Span) -> Result<(), Fault> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(suffix) => Err(fault(span, TAG)),
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Value, Fault> {
    let is_text = style != ScalarStyle::Plain;
    match tag {
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(Value::Text(text.to_owned())),
        Some(tag) if !tag.is_yaml_core_schema() => Err(fault(span, TAG)),
        None if is_text => Ok(Value::Text(text.to_owned())),
        _ => Ok(plain(text)),
    }
}

/// A plain scalar by the core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => return Value::Float,
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_or(Value::Float, Value::Integer);
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        let digits = text.strip_prefix(prefix).unwrap_or("");
        if !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)) {
            return i64::from_str_radix(digits, radix).map_or(Value::Float, Value::Integer);
        }
    }
    let begins_as_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if begins_as_number && text.parse::<f64>().is_ok() {
        return Value::Float;
    }
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float => "float".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => format!(
                "{{{}}}",
                entries
                    .iter()
                    .map(|(_, key, node)| format!("{key}:{}", shape(node)))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        }
    }

    #[test]
    fn scalars_are_those_of_the_core_schema() {
        for (text, expected) in [
            ("", "null"),
            ("# nothing", "null"),
            ("[~, null, '', yes, no, True, \"true\"]", r#"[null,null,"","yes","no",true,"true"]"#),
            (
                "[1, -7, +3, 0o17, 0x1F, 007, 1.5, 1e3, .5, -.inf, 1.2.3, 0x, 1_000]",
                r#"[1,-7,3,15,31,7,float,float,float,float,"1.2.3","0x","1_000"]"#,
            ),
            ("[99999999999999999999, 5m, 12:30, infinity, '5']", r#"[float,"5m","12:30","infinity","5"]"#),
            (
                "a: !!str 5\nb: !!int \"5\"\nc: |\n  x\n  y\nd: >-\n  x\n  y",
                r#"{a:"5",b:5,c:"x\ny\n",d:"x y"}"#,
            ),
            ("a: &x {b: [1]}\nc: *x\nd: [*x, *x]", "{a:{b:[1]},c:{b:[1]},d:[{b:[1]},{b:[1]}]}"),
            ("---\na: 1\n...\n", "{a:1}"),
        ] {
            assert_eq!(shape(&parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_taken_is_told_with_its_place() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3", "3:1: the key `a` is there twice"),
            ("a: 1\n---\nb: 2", "3:1: a second document: a file has one"),
            ("a: !secret x", "1:12: a tag that is not"),
            ("[a]: 1", "1:1: a key is text"),
            ("a: *nowhere", "1:"),
            ("a: &x [*x]", "1:"),
            ("a: \"x", "1:"),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{text}: {fault}");
        }
    }
}

//! Shapes that a built-in rule may name in its `[rule.anchor]`: the beginning of a pattern, or the joint that a look-back starts from.

use regex_automata::util::syntax;

use super::program::{Condition, Graph, SHAPE_BYTES_MAX};
use crate::pattern::syntax_config;

const NAMED: [(&str, &str); 7] = [
    ("ssn", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"),
    ("phone", r"\b[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}\b"),
    // Thirteen digits, or four with a separator behind, or eight with one soon.
    ("card", r"\b[0-9](?:[0-9]{12}|[0-9]{3}[ -][0-9]{4}|[0-9]{7}(?:[ -][0-9]{4}|[0-9]{2}[ -]|[0-9]{4}[ -]))"),
    // The first of three dots between digits.
    ("ipv4", r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),
    // `::`, or four colons near one another.
    ("ipv6", r":(?::|[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}:)"),
    // The first of five joints three apart.
    ("mac", r"[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]"),
    ("iban", r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4})"),
];

/// The condition of a named shape; nothing if there is none of that name.
pub(crate) fn by_name(graph: &mut Graph, name: &str) -> Condition {
    let (_, pattern) = NAMED.iter().find(|(known, _)| *known == name)?;
    let hir = syntax::parse_with(pattern, &syntax_config()).ok()?;
    graph.starts(&hir, None, SHAPE_BYTES_MAX)
}

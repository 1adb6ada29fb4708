//! The rules that run, as people and programs read them.

use std::fmt::Write;

use serde::Serialize;

use crate::action::Action;
use crate::engine::ActiveRule;
use crate::rule::{Severity, Strength};

/// A rule that runs, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleEntry<'a> {
    /// Its id.
    pub id: &'a str,
    /// What kind of thing it finds.
    pub category: &'a str,
    /// How bad it is when such a value gets out.
    pub severity: Severity,
    /// What happens to its findings.
    pub action: Action,
    /// Which check a match has to pass.
    pub validator: Option<&'a str>,
    /// Words of which one makes a value certain, or is asked for.
    pub context: &'a [String],
    /// Whether one of them is asked for.
    pub context_required: bool,
    /// What a match without context is worth.
    pub strength: Strength,
    /// How it is found.
    pub found_by: &'a str,
    /// Whether it is on the slow path, which reads every byte.
    pub reads_every_byte: bool,
    /// What it finds, in a sentence.
    pub description: &'a str,
}

impl<'a> From<&'a ActiveRule> for RuleEntry<'a> {
    fn from(active: &'a ActiveRule) -> Self {
        let rule = &active.rule;
        RuleEntry {
            id: rule.id(),
            category: rule.category(),
            severity: rule.severity(),
            action: active.action,
            validator: rule.validator(),
            context: rule.context(),
            context_required: rule.context_required(),
            strength: rule.strength(),
            found_by: &active.cost.found_by,
            reads_every_byte: active.cost.reads_every_byte,
            description: rule.description(),
        }
    }
}

/// Rows in columns that are as wide as their widest entry; the last column is not filled up.
///
/// ```
/// use beeacon_filters::in_columns;
/// let rows = [["rule", "bytes"].map(String::from), ["email", "7"].map(String::from)];
/// assert_eq!(in_columns(&rows), "rule   bytes\nemail  7\n");
/// ```
pub fn in_columns<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, text) in widths.iter().zip(row) {
            // Writing to a String cannot fail.
            write!(line, "{text:<width$}  ").ok();
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A table of rules: id, category, severity, action, check, how it is found, description.
pub fn rule_table(rules: &[ActiveRule]) -> String {
    let heads = ["RULE", "CATEGORY", "SEVERITY", "ACTION", "CHECK", "FOUND BY", "DESCRIPTION"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(rules.iter().map(RuleEntry::from).map(|entry| {
        [
            entry.id.to_owned(),
            entry.category.to_owned(),
            format!("{:?}", entry.severity).to_ascii_lowercase(),
            entry.action.to_string(),
            entry.validator.unwrap_or("-").to_owned(),
            shortened(entry.found_by),
            entry.description.to_owned(),
        ]
    }));
    in_columns(&rows)
}

/// How many characters of how a rule is found stand in a table; all of it is in the JSON.
const FOUND_BY_CHARACTERS_MAX: usize = 40;

fn shortened(text: &str) -> String {
    if text.chars().count() <= FOUND_BY_CHARACTERS_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(FOUND_BY_CHARACTERS_MAX - 1).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use crate::{Engine, EngineOptions};

    use super::*;

    #[test]
    fn every_rule_that_runs_is_listed_with_its_action_and_how_it_is_found() {
        let engine =
            Engine::new(EngineOptions { profile: "secrets".into(), ..EngineOptions::default() }).unwrap();
        let table = rule_table(engine.rules());
        assert_eq!(table.lines().count(), engine.rules().len() + 1);
        assert!(table.lines().any(|line| line.starts_with("aws_key ") && line.contains(" marker ")));
        assert!(!table.contains("email"));
        let entry = engine.rules().iter().map(RuleEntry::from).find(|entry| entry.id == "aws_key").unwrap();
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["action"], "marker");
        assert_eq!(json["reads_every_byte"], false);
        assert!(json["found_by"].as_str().unwrap().contains("AKIA"), "{json}");
    }
}

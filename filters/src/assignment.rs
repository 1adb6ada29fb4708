//! The frame of rules that know a value by the name before it: `keywords` and `value` instead of a `pattern`.
//!
//! ```toml
//! keywords = ["acme"]
//! value = '[a-z0-9]{32}'
//! ```
//!
//! finds `ACME_TOKEN=…`, `acmeApiKey: "…"`, `"acme_key": "…"`, `\"acme\":\"…\"`, `acme.key := …`, `set("ACME_KEY", "…")`,
//! `<acmeToken>…</acmeToken>`. What it means is the regular expression that it is turned into here, and nothing else; everything
//! between name and value is unbounded in the pattern and bounded by the rule's window, so that its automaton stays small.

use regex_automata::util::syntax;

/// The rest of the name, up to two words behind it, and what closes a quoted or bracketed name.
const NAME: &str = r#"[\w.-]*(?: [\w.-]*){0,2}[\s'"`\\\])}]*"#;

/// What assigns, and what opens a value.
const OPERATOR: &str = r#"(?:[:?.|]{0,3}={1,3}>?|[:>,])[\s'"`\\(\[{]*"#;

/// What may not follow, or the value would be a part of something longer.
const END: &str = "(?:[^A-Za-z0-9_-]|$)";

/// How far a keyword may be from the end of its value, in bytes.
pub(crate) const ASSIGNMENT_WINDOW_BYTES: usize = 512;

/// The pattern of a rule with these keywords and this value.
pub(crate) fn pattern(keywords: &[String], value: &str) -> Result<String, &'static str> {
    if keywords.is_empty() || keywords.iter().any(|keyword| keyword.len() < KEYWORD_BYTES_MIN) {
        return Err("keywords are missing or shorter than three bytes");
    }
    let hir = syntax::parse_with(value, &crate::pattern::syntax_config()).map_err(|_| "value is no regex")?;
    if hir.properties().explicit_captures_len() > 0 {
        return Err("value has a group of its own; write (?: )");
    }
    let names: Vec<String> = keywords.iter().map(|keyword| escape(keyword)).collect();
    Ok(format!("(?i:{}){NAME}{OPERATOR}({value}){END}", names.join("|")))
}

/// The shortest keyword worth looking for, in bytes.
const KEYWORD_BYTES_MIN: usize = 3;

fn escape(keyword: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ' ');
    keyword.chars().map(|each| if plain(each) { each.to_string() } else { format!("\\{each}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_with_keywords_needs_long_ones_and_a_value_without_groups() {
        let keywords = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(pattern(&keywords(&["acme", "a-b.c"]), "[0-9]{4}").unwrap().contains(r"(?i:acme|a\-b\.c)"));
        assert!(pattern(&keywords(&["ac"]), "[0-9]{4}").is_err());
        assert!(pattern(&[], "[0-9]{4}").is_err());
        assert!(pattern(&keywords(&["acme"]), "([0-9]{4})").is_err());
        assert!(pattern(&keywords(&["acme"]), "[0-9").is_err());
    }
}

//! Explanations: which rule, where and why, without the value.

use crate::{Engine, EngineOptions, RuleFile};

#[test]
fn an_explanation_says_rule_span_check_word_and_anchor_and_never_the_value() {
    let rules = r#"
[[rule]]
id = "stamp"
category = "own"
description = "Stamps"
pattern = '\b[0-9]{7}\b'
context = ["stamp", "stamp number"]
context_required = true
action = "tag"
finds = [["stamp 1234567", "1234567"]]
spares = ["1234567"]
"#;
    let rules = vec![RuleFile::parse("m", rules).unwrap()];
    let engine = Engine::new(EngineOptions { rules, ..EngineOptions::default() }).unwrap();
    let line = "card 4111111111111111 of Stamp_Number=7654321 mail bob@example.org";
    let explained = engine.explain(line.as_bytes()).unwrap();
    let told: Vec<(&str, &str, Option<&str>, Option<&str>)> = explained
        .iter()
        .map(|one| {
            let text = line.get(one.finding.start..one.finding.end).unwrap();
            (one.finding.rule.as_str(), text, one.validator.as_deref(), one.context.as_deref())
        })
        .collect();
    assert_eq!(told.len(), 3, "{explained:#?}");
    assert_eq!((told[1].0, told[1].1, told[1].3), ("stamp", "7654321", Some("stamp number")));
    assert_eq!((told[2].0, told[2].1), ("email", "bob@example.org"));
    assert_eq!((told[0].1, told[0].3), ("4111111111111111", Some("card")));
    assert!(told[0].2.is_some(), "a card passed a check: {explained:#?}");
    for one in &explained {
        let words = format!("{one} {one:?} {}", serde_json::to_string(one).unwrap());
        for value in ["4111", "7654321", "bob@"] {
            assert!(!words.contains(value), "{words}");
        }
        assert!(!one.found_by.is_empty() && words.contains(&one.finding.start.to_string()));
    }
    assert!(explained[1].to_string().contains("tag"), "{}", explained[1]);
}

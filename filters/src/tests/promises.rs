//! What holds for every text.

use proptest::prelude::*;
use serde_json::Value;

use super::texts;
use crate::{Action, Engine, EngineOptions, Key, Profile};

fn key() -> Option<Key> {
    Some(Key::new(7, b"a key for tests only").unwrap())
}

/// One engine for each action, all rules alike, and the built-in profiles.
fn engines() -> Vec<Engine> {
    let alike =
        ["marker", "hash", "truncate", "remove", "mask\"\nkeep_last = \"4", "mask\"\nkeep_first = \"2"].map(
            |action| {
                let text = format!(
                    "name = \"mine\"\ndescription = \"d\"\n[[use]]\nrules = [\"*\"]\naction = \"{action}\"\n"
                );
                let text = text.replace("\"4\"", "4").replace("\"2\"", "2");
                let profiles = vec![Profile::parse("mine.toml", &text).unwrap()];
                EngineOptions { profile: "mine".into(), profiles, key: key(), ..EngineOptions::default() }
            },
        );
    let named = ["default", "pci_dss", "soc2"].map(|profile| EngineOptions {
        profile: profile.into(),
        key: key(),
        ..EngineOptions::default()
    });
    alike.into_iter().chain(named).map(|options| Engine::new(options).unwrap()).collect()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn scrubbed(engine: &Engine, text: &str) -> String {
    engine.scrub_text(text).unwrap().0
}

#[test]
fn scrubbing_twice_changes_nothing_more_than_scrubbing_once() {
    let engines = engines();
    proptest!(config(300), |(lines in texts::lines())| {
        let text = lines.join("\n");
        for engine in &engines {
            let once = scrubbed(engine, &text);
            prop_assert_eq!(scrubbed(engine, &once), once, "{:?}", engine.rules()[0].action);
        }
    });
}

#[test]
fn a_line_comes_out_the_same_whatever_its_neighbours_are() {
    let engines = engines();
    proptest!(config(300), |(lines in texts::lines())| {
        // All but a private key, which goes on in the next line.
        let is_key = |line: &String| {
            line.contains("PRIVATE KEY") || crate::pem::bare_body(line.as_bytes()).is_some()
        };
        let lines: Vec<String> = lines.into_iter().filter(|line| !is_key(line)).collect();
        for engine in &engines {
            let together = scrubbed(engine, &lines.join("\n"));
            let alone: Vec<String> = lines.iter().map(|line| scrubbed(engine, line)).collect();
            prop_assert_eq!(together, alone.join("\n"));
        }
    });
}

/// JSON with generated text in keys and values, nested, and as a string inside a string.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => texts::line().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::from(4_111_111_111_111_111_u64)),
        1 => Just(Value::from(2_125_550_100_u64)),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ];
    let name = prop_oneof![
        proptest::sample::select(
            &["password", "token", "msg", "api_key", "a\"secret", "pwd", "token\\", "e"][..]
        )
        .prop_map(str::to_owned),
        texts::line(),
    ];
    leaf.prop_recursive(4, 20, 5, move |inner| {
        prop_oneof![
            3 => proptest::collection::btree_map(name.clone(), inner.clone(), 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            1 => inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

#[test]
fn a_line_of_json_stays_json() {
    let engines = engines();
    proptest!(config(600), |(value in document())| {
        let line = if value.is_object() || value.is_array() { value } else { serde_json::json!([value]) };
        let compact = line.to_string();
        let spaced = serde_json::to_string_pretty(&line).unwrap().replace('\n', " ");
        for engine in &engines {
            for text in [&compact, &spaced] {
                let out = scrubbed(engine, text);
                let parsed = serde_json::from_str::<Value>(&out);
                prop_assert!(parsed.is_ok(), "{:?}\n{}\n{}", engine.rules()[0].action, text, out);
            }
        }
    });
}

#[test]
fn what_is_found_is_found_in_order_without_overlap_and_at_characters() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    proptest!(config(300), |(line in texts::line())| {
        let mut end = 0;
        for finding in engine.scan(line.as_bytes()).unwrap() {
            prop_assert!(finding.start >= end && finding.end > finding.start);
            prop_assert!(line.is_char_boundary(finding.start) && line.is_char_boundary(finding.end));
            prop_assert!(finding.match_start <= finding.start && finding.match_end <= line.len());
            end = finding.end;
        }
    });
}

#[test]
fn keyed_hashes_join_spellings_of_one_value_under_one_key() {
    let engine = |version, bytes: &[u8]| {
        let text = "name = \"m\"\ndescription = \"d\"\n[[use]]\nrules = [\"email\", \"credit_card\", \"credit_card_grouped\"]\naction = \"hash\"\n";
        let profiles = vec![Profile::parse("m", text).unwrap()];
        let key = Some(Key::new(version, bytes).unwrap());
        Engine::new(EngineOptions { profile: "m".into(), profiles, key, ..EngineOptions::default() }).unwrap()
    };
    let one = engine(3, b"0123456789abcdef");
    let token = scrubbed(&one, "Bob@Example.org");
    assert!(token.starts_with("<EMAIL:v3:") && token.len() == 31, "{token}");
    assert_eq!(token, scrubbed(&one, "bob@example.ORG"));
    assert_eq!(scrubbed(&one, "4111111111111111"), scrubbed(&one, "4111-1111-1111-1111"));
    assert_ne!(token, scrubbed(&engine(3, b"0123456789abcdeX"), "bob@example.org"));
    assert_ne!(one.rule_set_id(), engine(4, b"0123456789abcdef").rule_set_id());
    assert_eq!(
        one.rule_set_id(),
        engine(3, b"0123456789abcdeX").rule_set_id(),
        "the key itself is not in the id"
    );
}

#[test]
fn actions_do_what_they_say() {
    let with = |action: &str, rule: &str| {
        let text = format!(
            "name = \"m\"\ndescription = \"d\"\n[[use]]\nrules = [\"{rule}\"]\naction = \"{action}\"\nkeep_last = 4\n"
        );
        let profiles = vec![Profile::parse("m", &text).unwrap()];
        Engine::new(EngineOptions { profile: "m".into(), profiles, ..EngineOptions::default() }).unwrap()
    };
    assert_eq!(
        scrubbed(&with("mask", "credit_card_grouped"), "pan 4111 1111 1111 1111."),
        "pan ***************1111."
    );
    assert_eq!(scrubbed(&with("truncate", "ipv4"), "from 203.0.113.77:80"), "from 203.0.113.0:80");
    assert_eq!(scrubbed(&with("truncate", "ipv6"), "[2001:db8:85a3::8a2e:370:7334]"), "[2001:db8:85a3::]");
    assert_eq!(scrubbed(&with("drop", "email"), "a\nbob@example.org\nc\n"), "a\nc\n");
    let tag = with("tag", "email");
    assert_eq!(scrubbed(&tag, "bob@example.org"), "bob@example.org");
    assert_eq!(tag.statistics().redactions, 1);
    assert_eq!(tag.rules()[0].action, Action::Tag);
}

#[test]
fn keys_and_schemes_stay_and_values_go() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    for (text, wanted) in [
        ("refresh_token=abc123def&x=1", "refresh_token=<TOKEN>&x=1"),
        (r#"{"m":"{\"password\":\"hunter2\",\"a\":1}"}"#, r#"{"m":"{\"password\":\"<PASSWORD>\",\"a\":1}"}"#),
        ("api_key: AKIAIOSFODNN7EXAMPLE", "api_key: <AWS_KEY>"),
        (
            "Authorization: Bearer eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abcdefghijkl ok",
            "Authorization: Bearer <JWT> ok",
        ),
        ("password=hunter2", "password=<PASSWORD>"),
        (r#"{"token": 12345, "n": 4111111111111111}"#, r#"{"token": "<TOKEN>", "n": "<CARD>"}"#),
        ("postgres://anna:s3cret@db:5432/app", "postgres://anna:<URL_PASSWORD>@db:5432/app"),
        (
            "x -----BEGIN RSA PRIVATE KEY-----\\nMIIE+/=\\n-----END RSA PRIVATE KEY----- y",
            "x <PRIVATE_KEY> y",
        ),
        ("build 1.2.3.4.5 by v1.2.3.4", "build 1.2.3.4.5 by v1.2.3.4"),
    ] {
        assert_eq!(scrubbed(&engine, text), wanted);
    }
}

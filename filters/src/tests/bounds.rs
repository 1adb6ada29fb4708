//! What text made to hurt costs, in bytes read while verifying, and where a long line is cut.

use beeacon_record::limits::LINE_OVERLAP_BYTES;

use crate::limits::STEPS_PER_BYTE_MAX;
use crate::{Engine, EngineOptions, RuleFile};

const BYTES: usize = 1 << 19;

fn filled(unit: &str) -> String {
    unit.repeat(BYTES / unit.len())
}

#[test]
fn no_text_makes_verification_more_than_linear() {
    let units = [
        "1",
        "4",
        "a@",
        "a.a.a.",
        "a@b.",
        "ab:",
        "aa:bb:cc:dd:ee:ff:",
        "=",
        "\"",
        "\\",
        "\\\"",
        "{\"",
        "password",
        "password=",
        "password=null,",
        "token:",
        "secret='",
        "pwd=\\\"",
        "eyJ",
        "eyJ-",
        "eyJaaaaaaaaaa.",
        "eyJaaaaaaaaaa.eyJ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "1.2.3.",
        "4111111111111112 ",
        "4111-1111-1111-1112-",
        "DE89370400440532013001",
        "DE89 3704 ",
        "+1 212 ",
        "(212) 555-",
        "212-555-",
        "::",
        "fe80::",
        "a://",
        "a://b:",
        "a://b:c@",
        "http://a:b",
        "bearer ",
        "SG.",
        "xoxb-a",
        "sk_live_a",
        "AKIA",
        "glpat-",
        "AIza",
        "<EMAIL>",
        "<",
        "é",
        "\u{0}",
        "password=<PASSWORD>",
        "secret_access_key",
        "authorization",
    ];
    for unit in units {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let text = filled(unit);
        engine.scan(text.as_bytes()).unwrap();
        let limit = u64::try_from((STEPS_PER_BYTE_MAX + 2) * BYTES).unwrap();
        for rule in engine.statistics().rules {
            let steps = rule.bytes_verified;
            assert!(steps < limit, "{unit:?} makes {} read {steps} bytes of {BYTES}", rule.rule);
            assert!(
                rule.candidates <= u64::try_from(BYTES).unwrap(),
                "{unit:?}: {} tries a start twice",
                rule.rule
            );
        }
    }
}

#[test]
fn a_text_of_one_kind_is_scrubbed_and_settles() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    for unit in ["password=", "a@b.cd ", "4111111111111111 ", "secret=\"x\" ", "eyJaaaaaaaaaa."] {
        let once = engine.scrub_text(&filled(unit)).unwrap().0;
        assert_eq!(engine.scrub_text(&once).unwrap().0, once, "{unit:?}");
    }
}

fn engine() -> Engine {
    Engine::new(EngineOptions::default()).unwrap()
}

#[test]
fn a_long_line_is_cut_at_a_character_and_leaves_an_overlap() {
    let text = "é".repeat(20_000);
    let cut = engine().safe_cut(text.as_bytes(), 30_001).unwrap();
    assert_eq!(cut, 30_000);
    let cut = engine().safe_cut(text.as_bytes(), 39_999).unwrap();
    assert_eq!(cut, 40_000 - LINE_OVERLAP_BYTES);
    assert_eq!(engine().safe_cut(text.as_bytes(), 40_000).unwrap(), 40_000);
}

#[test]
fn a_long_line_is_never_cut_inside_a_match_nor_between_key_and_value() {
    let value = "x".repeat(100) + "1";
    let text = format!("{} password={value} {}", "a ".repeat(5_000), "b ".repeat(5_000));
    let key_at = text.find("password").unwrap();
    for at_most in key_at - 2..key_at + 9 + value.len() + 2 {
        let cut = engine().safe_cut(text.as_bytes(), at_most).unwrap();
        assert!(cut <= at_most && (cut <= key_at || cut >= key_at + 9 + value.len()), "{at_most} {cut}");
        let parts = format!(
            "{}{}",
            engine().scrub_text(text.get(..cut).unwrap()).unwrap().0,
            engine().scrub_text(text.get(cut..).unwrap()).unwrap().0
        );
        assert!(!parts.contains("xxx"), "{at_most}");
    }
}

#[test]
fn a_text_that_is_one_match_is_still_cut() {
    let text = format!("password={}1", "x".repeat(3_000));
    assert_eq!(engine().safe_cut(text.as_bytes(), 1_000).unwrap(), 1_000);
    assert_eq!(engine().safe_cut(b"", 0).unwrap(), 0);
    assert!(engine().safe_cut(b"ab", 1).unwrap() > 0);
}

// Scenario: an `@` behind which no domain can stand, and a rule of a user whose matches may start at two hundred places before its anchor,
// in text that has one of these after the other.
// Guarantees: no start is tried in vain where nothing can follow, and what is asked of so many places stays linear.
#[test]
fn where_nothing_can_follow_an_anchor_no_start_before_it_is_tried() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    engine.scan("login root@localhost from anna.smith@backup ".repeat(100).as_bytes()).unwrap();
    let email = engine.statistics().rules.into_iter().find(|rule| rule.rule == "email").unwrap();
    assert_eq!(email.candidates, 0);
    assert!(email.bytes_verified > 0);

    let rules = r#"
[[rule]]
id = "place"
category = "internal"
description = "Places"
pattern = '[a-z:]{1,200}:xy[0-9]{3}'
finds = [["a:xy123", "a:xy123"]]
spares = ["a:xy12"]
"#;
    let rules = vec![RuleFile::parse("rules", rules).unwrap()];
    let engine = Engine::new(EngineOptions { rules, ..EngineOptions::default() }).unwrap();
    let text = "ab:xy:xy".repeat(BYTES / 8);
    engine.scan(text.as_bytes()).unwrap();
    let place = engine.statistics().rules.into_iter().find(|rule| rule.rule == "place").unwrap();
    let limit = u64::try_from((STEPS_PER_BYTE_MAX + 2) * BYTES).unwrap();
    assert!(place.bytes_verified < limit, "{} bytes were read of {BYTES}", place.bytes_verified);
    let found = engine.scan(format!("{}:xy123", "ab:xy:xy".repeat(20)).as_bytes()).unwrap();
    assert!(found.iter().any(|finding| finding.rule == "place"), "{found:?}");
}

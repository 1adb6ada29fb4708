//! Field rules, removal, lists, and evidence, through the engine.

use serde_json::Value;

use crate::corpus::{Dice, with_luhn_digit};
use crate::{Allow, Continuity, Engine, EngineOptions, FieldRule, Key, Profile};

fn with(fields: &[(&str, &str)]) -> Engine {
    let fields =
        fields.iter().map(|(name, action)| FieldRule::new(name, action, 0, 2, None).unwrap()).collect();
    let key = Some(Key::new(1, b"a key for tests only").unwrap());
    Engine::new(EngineOptions { fields, key, ..EngineOptions::default() }).unwrap()
}

#[test]
fn fields_are_found_by_name_wherever_fields_stand() {
    let engine = with(&[
        ("phone_*", "marker"),
        ("user.*.alias", "marker"),
        ("nick", "mask"),
        ("x-who", "remove"),
        ("legs", "remove"),
    ]);
    for (text, wanted) in [
        (r#"{"phone_home":"call me","n":1}"#, r#"{"phone_home":"<PHONE>","n":1}"#),
        (r#"{"a":[{"PHONE_HOME": 12345}]}"#, r#"{"a":[{"PHONE_HOME": "<PHONE>"}]}"#),
        (r#"{"phone_x":{"a":[1,"}"]},"n":1}"#, r#"{"phone_x":"<PHONE>","n":1}"#),
        (r#"{"m":"{\"phone_x\":\"abc\",\"n\":1}"}"#, r#"{"m":"{\"phone_x\":\"<PHONE>\",\"n\":1}"}"#),
        ("a=1 phone_2=abc b=2", "a=1 phone_2=<PHONE> b=2"),
        ("a=1 phone_2=\"a b\" b=2", "a=1 phone_2=\"<PHONE>\" b=2"),
        ("xphone_2x a=1 telephone_2=abc", "xphone_2x a=1 telephone_2=abc"),
        (r#"{"user":{"b":{"alias":"z"}},"alias":"z"}"#, r#"{"user":{"b":{"alias":"<ALIAS>"}},"alias":"z"}"#),
        ("user.b.alias=z alias=z", "user.b.alias=<ALIAS> alias=z"),
        ("nick=abcdefgh", "nick=******gh"),
        ("X-Who: some body", "X-Who: "),
        (r#"{"a":1,"legs":[1,2]}"#, r#"{"a":1}"#),
        (r#"{"legs":4,"a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"legs":4,"x-who":"z"}"#, r#"{"a":1}"#),
        (r#"{"phone_home":null,"phone_x":""}"#, r#"{"phone_home":null,"phone_x":""}"#),
    ] {
        let once = engine.scrub_text(text).unwrap().0;
        assert_eq!(once, wanted);
        assert_eq!(engine.scrub_text(&once).unwrap().0, once);
    }
}

#[test]
fn what_named_rules_find_in_a_field_that_spares_stays_and_nothing_else_does() {
    let rules = ["credit_card".to_owned(), "email".to_owned()];
    let fields = vec![
        FieldRule::sparing("order_*", &rules).unwrap(),
        FieldRule::sparing("user.alias", &["email".to_owned()]).unwrap(),
        FieldRule::new("pin", "marker", 0, 0, None).unwrap(),
    ];
    let engine = Engine::new(EngineOptions { fields, ..EngineOptions::default() }).unwrap();
    for (text, wanted) in [
        ("order_id=4539148803436467 card=4539148803436467", "order_id=4539148803436467 card=<CARD>"),
        (r#"{"order_by":"a@b.example","by":"a@b.example"}"#, r#"{"order_by":"a@b.example","by":"<EMAIL>"}"#),
        (
            r#"{"user":{"alias":"a@b.example"},"alias":"a@b.example"}"#,
            r#"{"user":{"alias":"a@b.example"},"alias":"<EMAIL>"}"#,
        ),
        (
            "order_note=\"a@b.example from 10.1.2.3\" pin=1",
            "order_note=\"a@b.example from 10.1.2.0\" pin=<PIN>",
        ),
    ] {
        assert_eq!(engine.scrub_text(text).unwrap().0, wanted);
        assert_eq!(engine.scrub_text(wanted).unwrap().0, wanted);
    }
    let refused =
        |field: Result<FieldRule, _>| field.map(|_| ()).map_err(|error: crate::RulesError| error.to_string());
    assert!(refused(FieldRule::sparing("nick", &[])).unwrap_err().contains("action off names no rule"));
    assert!(refused(FieldRule::new("nick", "off", 0, 0, None)).unwrap_err().contains("names no rule"));
    let unknown = FieldRule::sparing("nick", &["credit_crad".to_owned()]).unwrap();
    let error =
        Engine::new(EngineOptions { fields: vec![unknown], ..EngineOptions::default() }).err().unwrap();
    assert!(error.to_string().contains("credit_crad, which does not run"), "{error}");
}

#[test]
fn what_cannot_be_a_field_rule_is_refused_with_every_fault() {
    let fault = FieldRule::new("a..*", "markr", 0, 0, None).unwrap_err().to_string();
    for wanted in ["segments", "names nothing", "action markr is not known, marker is", "choose one of"] {
        assert!(fault.contains(wanted), "{fault}");
    }
    let twice = vec![FieldRule::new("nick", "tag", 0, 0, None).unwrap(); 2];
    let error = Engine::new(EngineOptions { fields: twice, ..EngineOptions::default() }).err().unwrap();
    assert!(error.to_string().contains("stands twice"), "{error}");
}

#[test]
fn removing_findings_leaves_json() {
    let text = "name = \"m\"\ndescription = \"d\"\n[[use]]\nrules = [\"email\"]\naction = \"remove\"\n";
    let profiles = vec![Profile::parse("m", text).unwrap()];
    let engine =
        Engine::new(EngineOptions { profile: "m".into(), profiles, ..EngineOptions::default() }).unwrap();
    for (text, wanted) in [
        (r#"{"a":"x bob@example.org y bob@example.org","b":2}"#, r#"{"b":2}"#),
        (r#"{"b":2,"a":["bob@example.org","eve@example.org"]}"#, r#"{"b":2,"a":[]}"#),
        (r#"{"b":2,"a":"bob@example.org","c":"eve@example.org"}"#, r#"{"b":2}"#),
        ("a=1 to=bob@example.org", "a=1"),
        ("mail from bob@example.org", "mail from <EMAIL>"),
    ] {
        let out = engine.scrub_text(text).unwrap().0;
        assert_eq!(out, wanted);
        assert!(!text.starts_with('{') || serde_json::from_str::<Value>(&out).is_ok());
    }
}

#[test]
fn excepted_values_stay_and_denied_ones_go() {
    let email = ["email".to_owned()];
    let digest = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"; // test@example.com
    let key = Key::new(1, b"a key for tests only").unwrap();
    let plain = Engine::new(EngineOptions { key: Some(key.clone()), ..EngineOptions::default() }).unwrap();
    let token = plain.tokens("email", "eve@example.org").remove(0);
    let allow = Allow::new(&email, &["help@example.org".into()], &[digest.into()], &[token]).unwrap();
    // The token was made with a key that is not the current one.
    let engine = Engine::new(EngineOptions {
        allow: vec![allow],
        deny: vec!["Project Hornet".into(), "a|b.c".into()],
        key: Some(Key::new(2, b"another key for tests").unwrap()),
        old_keys: vec![key],
        ..EngineOptions::default()
    })
    .unwrap();
    let out = |text: &str| engine.scrub_text(text).unwrap().0;
    assert_eq!(
        out("help@example.org test@example.com eve@example.org bob@example.org"),
        "help@example.org test@example.com eve@example.org <EMAIL>"
    );
    assert_eq!(out("about Project Hornet, a|b.c, ab.c"), "about <DENIED>, <DENIED>, ab.c");
    assert_eq!(engine.tokens("email", "a@b.cd").len(), 2);
    assert!(Allow::new(&[], &[], &["12".into()], &[]).unwrap_err().to_string().contains("64 hexadecimal"));
    let fault =
        Engine::new(EngineOptions { deny: vec!["abc".into()], ..EngineOptions::default() }).err().unwrap();
    assert!(fault.to_string().contains("at least 4 bytes") && !fault.to_string().contains("abc"), "{fault}");
}

#[test]
fn random_order_ids_are_found_out_and_cards_are_not() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let mut dice = Dice::new(5);
    let (mut lines, mut cards) = (Vec::new(), 0);
    for row in 0..4000_u32 {
        let id = format!("4{}", dice.text("0123456789", 15));
        if row % 40 == 0 {
            cards += 1;
            let card = with_luhn_digit(&format!("51{}", dice.text("0123456789", 13)));
            lines.push(format!("{{\"order_id\":\"{id}\",\"account\":\"{card}\"}}"));
        } else {
            lines.push(format!("{{\"order_id\":\"{id}\",\"user\":\"eve{row}@example.org\"}}"));
        }
    }
    let whole = engine.scrub_text(&lines.join("\n")).unwrap().0;
    assert_eq!(whole.matches("\"account\":\"<CARD>\"").count(), cards, "every card goes");
    let false_hits = whole.matches("\"order_id\":\"<CARD>\"").count();
    assert!(false_hits < 12, "{false_hits} of about 400 order ids that pass are taken for cards");
    // Wherever the text is cut the same comes out.
    let mut memory = Continuity::default();
    let parts: Vec<String> = lines
        .chunks(37)
        .map(|part| engine.scrub_text_with(&part.join("\n"), &mut memory).unwrap().0)
        .collect();
    assert_eq!(parts.join("\n"), whole);
    // With evidence off every valid number goes.
    let strict = Engine::new(EngineOptions { evidence: false, ..EngineOptions::default() }).unwrap();
    let strict = strict.scrub_text(&lines.join("\n")).unwrap().0;
    assert!(strict.matches("\"order_id\":\"<CARD>\"").count() > 300);
}

#[test]
fn a_field_flooded_with_invalid_numbers_hides_no_card_that_something_speaks_for() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let (mut dice, mut memory) = (Dice::new(9), Continuity::default());
    let flood: Vec<String> =
        (0..3000).map(|_| format!("order=4{} placed", dice.text("0123456789", 15))).collect();
    let out = engine.scrub_text_with(&flood.join("\n"), &mut memory).unwrap().0;
    assert!(out.matches("<CARD>").count() < 12, "the field is found out");
    for line in [
        "order=5307-5095-4777-0791 placed",
        "order=5307 5095 4777 0791 placed",
        "amex order=3777 419675 18980 placed",
        "card order=5307509547770791 placed",
        "cc_number=5307509547770791 placed",
        "reference=5307509547770791 placed",
        "visa debit, order=4576642039525285430 placed",
        "order=5307509547770791 placed",
        "order=377741967518980 placed",
    ] {
        let out = engine.scrub_text_with(line, &mut memory).unwrap().0;
        assert!(out.contains("=<CARD>"), "{line}: {out}");
    }
    // As many fields as an attacker may name are no way round: what is forgotten is redacted again.
    let names: Vec<String> = (0..500)
        .map(|_| format!("{}=4{} z", dice.text("abcdefgh", 9), dice.text("0123456789", 15)))
        .collect();
    engine.scrub_text_with(&names.join("\n"), &mut memory).unwrap();
    let hidden = "order=4156284385211721 placed";
    let out = engine.scrub_text_with(hidden, &mut memory).unwrap().0;
    assert_eq!(out, "order=<CARD> placed");
}

//! What a set of known secrets promises. The ways to write a secret are made here by other means than the set's own.

use proptest::prelude::*;

use super::*;
use crate::corpus::Dice;
use crate::{Engine, EngineOptions, Profile};

/// An engine with no rule but one that never matches, so that only known secrets are found.
fn engine(secrets: &[(&str, &str)]) -> Engine {
    let profile = "name = \"bare\"\ndescription = \"d\"\n[[use]]\nrules = [\"*\"]\naction = \"off\"\n";
    let profiles = vec![Profile::parse("bare.toml", profile).unwrap()];
    let options = EngineOptions { profile: "bare".into(), profiles, ..EngineOptions::default() };
    Engine::new(EngineOptions { known: Some(set(secrets)), ..options }).unwrap()
}

fn set(secrets: &[(&str, &str)]) -> KnownSecrets {
    let secret = |(reference, value): &(&str, &str)| KnownSecret::new(*reference, value.as_bytes().to_vec());
    KnownSecrets::new(secrets.iter().map(secret).collect()).unwrap()
}

fn scrubbed(engine: &Engine, text: &str) -> String {
    engine.scrub_text(text).unwrap().0
}

fn bits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:08b}")).collect()
}

const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 by way of a text of ones and zeros.
fn base64(bytes: &[u8], url_safe: bool) -> String {
    let mut bits = bits(bytes);
    bits.extend(std::iter::repeat_n('0', (6 - bits.len() % 6) % 6));
    let characters: Vec<char> = BASE64.chars().collect();
    let mut text = String::new();
    for at in (0..bits.len()).step_by(6) {
        text.push(characters[usize::from_str_radix(bits.get(at..at + 6).unwrap(), 2).unwrap()]);
    }
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    if url_safe { text.replace('+', "-").replace('/', "_") } else { text }
}

fn python_json(text: &str) -> String {
    text.chars().fold(String::new(), |out, character| match character {
        '"' => out + "\\\"",
        '\\' => out + "\\\\",
        '\n' => out + "\\n",
        character if character.is_ascii() => out + &character.to_string(),
        character => {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            units.iter().fold(out, |out, unit| out + &format!("\\u{unit:04x}"))
        }
    })
}

fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted.get(1..quoted.len() - 1).unwrap().to_owned()
}

fn percent(text: &str, kept: &str, upper: bool) -> String {
    text.bytes().fold(String::new(), |out, byte| match char::from(byte) {
        character if character.is_ascii_alphanumeric() || kept.contains(character) => {
            out + &character.to_string()
        }
        _ if upper => out + &format!("%{byte:02X}"),
        _ => out + &format!("%{byte:02x}"),
    })
}

/// The ways to write a secret that stand for themselves.
fn written(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    vec![
        secret.to_owned(),
        escaped(secret),
        escaped(&escaped(secret)),
        python_json(secret),
        escaped(&python_json(secret)),
        escaped(secret).replace('/', "\\/"),
        percent(secret, "-_.~", true),
        percent(secret, "-_.~", false),
        percent(secret, "-_.!~*'()", true),
        hex.to_uppercase(),
        hex,
    ]
}

/// Secrets of every length and of many characters, without blanks at their ends, and without a backslash at the last: before a
/// letter it is half an escape, which is taken whole.
fn secrets() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!-~]{11,64}",
        "[a-zA-Z0-9]{11,20}",
        "[!-~][ -~äß€😀]{9,40}[!-~]",
        "[a-f0-9]{32,300}",
        "[!-~]{120,140}",
    ]
    .prop_filter("of enough different bytes", |text| refusal(text.as_bytes()).is_none())
    .prop_filter("of whole escapes", |text| !text.chars().rev().take(6).any(|character| character == '\\'))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn every_way_to_write_a_secret_is_found_wherever_it_starts() {
    proptest!(config(60), |(secret in secrets())| {
        let engine = engine(&[("a/b", &secret)]);
        for text in written(&secret) {
            for shift in 0..9 {
                let (before, behind) = ("xyzxyzxyz".get(..shift).unwrap(), "q".repeat(9 - shift));
                let line = format!("{before}{text}{behind}");
                let expected = format!("{before}<VAULT_REF:a/b>{behind}");
                prop_assert_eq!(scrubbed(&engine, &line), expected, "{} in {}", text, secret);
            }
        }
    });
}

#[test]
fn of_a_secret_in_base64_no_bit_remains() {
    proptest!(config(120), |(secret in secrets(), before in "[ -~]{0,9}", behind in "[ -~]{0,9}")| {
        let engine = engine(&[("a/b", &secret)]);
        for url_safe in [false, true] {
            let encoded = base64(format!("{before}{secret}{behind}").as_bytes(), url_safe);
            for shift in 0..4 {
                let line = "....".get(..shift).unwrap().to_owned() + &encoded;
                let out = scrubbed(&engine, &line);
                let (head, tail) = out.split_once("<VAULT_REF:a/b>").expect("nothing was found");
                // What stands before ends before the secret's first bit, what stands behind begins after its last.
                prop_assert!((head.len() - shift) * 6 <= before.len() * 8, "{out}");
                let end = encoded.trim_end_matches('=').len() - tail.trim_end_matches('=').len();
                prop_assert!(end * 6 >= (before.len() + secret.len()) * 8, "{out}");
            }
        }
    });
}

#[test]
fn a_secret_of_nine_bytes_is_found_within_base64_and_a_shorter_one_where_it_is_all_of_it() {
    for secret in ["Syn-9.bte", "Syn8.bte", "Syn7bte", "Syn6bt"] {
        let engine = engine(&[("a/b", secret)]);
        let out = scrubbed(&engine, &format!("x {} y", base64(secret.as_bytes(), false)));
        assert_eq!(out.replace('=', ""), "x <VAULT_REF:a/b> y", "{secret}");
    }
    let engine = engine(&[("a/b", "Syn-9.bte")]);
    assert_eq!(
        scrubbed(&engine, &base64(b"user:Syn-9.bte", false)),
        "dXNlcj".to_owned() + "<VAULT_REF:a/b>="
    );
}

#[test]
fn scrubbing_twice_changes_nothing_more_and_neighbours_change_nothing() {
    let dice_lines = |seed: u64, secrets: &[String]| {
        let mut dice = Dice::new(seed);
        let mut clock = 1_700_000_000_000;
        let mut lines = Vec::new();
        for _ in 0..12 {
            let mut line = crate::corpus::line(&mut dice, &mut clock);
            for secret in secrets {
                let ways = written(secret);
                let way = ways[usize::try_from(dice.within(0, 10)).unwrap()].clone();
                let at = (0..=usize::try_from(dice.within(0, 30)).unwrap()).rev();
                let at = at.into_iter().find(|at| line.is_char_boundary(*at)).unwrap();
                line.insert_str(at, &way);
            }
            lines.push(line);
        }
        lines
    };
    proptest!(config(60), |(one in secrets(), two in secrets(), word in "[a-zA-Z0-9]{6,10}", seed in any::<u64>())| {
        prop_assume!(refusal(word.as_bytes()).is_none());
        let known = set(&[("one/o", &one), ("two/t", &two), ("pass word", &word)]);
        for profile in ["default", "hipaa"] {
            let options = EngineOptions { profile: profile.into(), known: Some(known.clone()), ..EngineOptions::default() };
            let engine = Engine::new(options).unwrap();
            let lines = dice_lines(seed, &[one.clone(), two.clone(), word.clone()]);
            let once = scrubbed(&engine, &lines.join("\n"));
            prop_assert_eq!(&scrubbed(&engine, &once), &once);
            let alone: Vec<String> = lines.iter().map(|line| scrubbed(&engine, line)).collect();
            prop_assert_eq!(alone.join("\n"), once);
        }
    });
}

#[test]
fn short_secrets_are_found_where_they_stand_alone() {
    let engine = engine(&[("a/b", "hun73r")]);
    for (line, expected) in [
        ("hun73r", "<VAULT_REF:a/b>"),
        ("pw=hun73r&x", "pw=<VAULT_REF:a/b>&x"),
        ("pw_hun73r_x", "pw_<VAULT_REF:a/b>_x"),
        (r#"{"m":"pw:\nhun73r\n"}"#, r#"{"m":"pw:\n<VAULT_REF:a/b>\n"}"#),
        (r"\u0026hun73r", r"\u0026<VAULT_REF:a/b>"),
        ("q=%20hun73r%20", "q=%20<VAULT_REF:a/b>%20"),
        ("\x1b[1;31mhun73r\x1b[0m", "\x1b[1;31m<VAULT_REF:a/b>\x1b[0m"),
        ("hun73r!hun73r", "<VAULT_REF:a/b>!<VAULT_REF:a/b>"),
    ] {
        assert_eq!(scrubbed(&engine, line), expected);
        // At every alignment of the places that are looked at.
        assert_eq!(scrubbed(&engine, &format!(" {line}")), format!(" {expected}"));
    }
    for spared in ["xhun73r", "hun73rs", "1hun73r", "hun73", "HUN73R", "hun 73r"] {
        assert_eq!(scrubbed(&engine, spared), spared);
    }
}

#[test]
fn a_secret_does_not_reach_over_the_end_of_a_line() {
    let engine = engine(&[("a/b", "synthetic-Pa55"), ("a/c", "hun73r")]);
    let text = "synthetic-\nPa55\nhun\n73r\n";
    assert_eq!(scrubbed(&engine, text), text);
}

#[test]
fn the_longest_wins_and_no_tail_of_another_remains() {
    let engine = engine(&[
        ("long/x", "abcdef-Ghijkl-Mnopqr"),
        ("short/x", "cdef-Ghijkl"),
        ("tail/x", "Mnopqr-stu.vw"),
    ]);
    assert_eq!(scrubbed(&engine, "a abcdef-Ghijkl-Mnopqr."), "a <VAULT_REF:long/x>.");
    assert_eq!(scrubbed(&engine, "a cdef-Ghijkl."), "a <VAULT_REF:short/x>.");
    assert_eq!(scrubbed(&engine, "a abcdef-Ghijkl-Mnopqr-stu.vw."), "a <VAULT_REF:long/x>.");
}

#[test]
fn a_long_secret_is_found_as_far_as_it_is_there_and_once_when_it_is_whole() {
    let mut dice = Dice::new(7);
    let secret = dice.text("abcdefghijkmnpqrstuvwxyz23456789", 1000);
    let engine = engine(&[("a/b", &secret)]);
    let (out, counts) = engine.scrub_text(&format!("x{secret}y")).unwrap();
    assert_eq!(out, "x<VAULT_REF:a/b>y");
    assert_eq!((counts[0].rule.as_str(), counts[0].count), (KNOWN_RULE, 1));
    let out = scrubbed(&engine, &format!("x{}...", secret.get(..700).unwrap()));
    assert_eq!(out, format!("x<VAULT_REF:a/b>{}...", secret.get(640..700).unwrap()));
    assert_eq!(scrubbed(&engine, &base64(secret.as_bytes(), false)).replace('=', ""), "<VAULT_REF:a/b>");
}

#[test]
fn the_lines_of_a_secret_are_known_and_what_marks_a_block_is_not() {
    let secret = "-----BEGIN SYNTHETIC KEY-----\nQm9ndXNLZXkxMjM0NTY3\nT3RoZXJMaW5lOTg3NjU0\n-----END SYNTHETIC KEY-----\n";
    let engine = engine(&[("a/b", secret)]);
    assert_eq!(scrubbed(&engine, "| Qm9ndXNLZXkxMjM0NTY3 |"), "| <VAULT_REF:a/b> |");
    let mark = "-----BEGIN SYNTHETIC KEY-----";
    assert_eq!(scrubbed(&engine, mark), mark);
    let json = serde_json::to_string(&serde_json::json!({ "key": secret.trim() })).unwrap();
    assert_eq!(scrubbed(&engine, &json), r#"{"key":"<VAULT_REF:a/b>"}"#);
}

#[test]
fn what_two_secrets_share_is_named_by_what_is_beside_it() {
    let mut dice = Dice::new(11);
    let mut text = |count| dice.text("abcdefghijkmnpqrstuvwxyz23456789", count);
    let (head, one, two) = (text(128), text(128), text(128));
    let (one, two) = (format!("{head}{one}"), format!("{head}{two}"));
    let engine = engine(&[("first/x", &one), ("second/x", &two)]);
    assert_eq!(scrubbed(&engine, &format!("t={two}")), "t=<VAULT_REF:second/x>");
    assert_eq!(scrubbed(&engine, &format!("t={one}")), "t=<VAULT_REF:first/x>");
    assert!(!scrubbed(&engine, &head).contains(head.get(..20).unwrap()));
}

#[test]
fn what_would_take_ordinary_text_out_is_refused_and_said() {
    let known = set(&[
        ("a/short", "12345"),
        ("a/stars", "****************"),
        ("a/bits", "010101010101"),
        ("a/blank", "  \n"),
        ("a/fine", " synthetic-Pa55\n"),
    ]);
    let report = known.report();
    assert_eq!(report.secrets, 1);
    let refused: Vec<_> = report.refused.iter().map(|(name, why)| (name.as_str(), *why)).collect();
    assert_eq!(
        refused,
        [
            ("a/short", Refusal::Short),
            ("a/stars", Refusal::Uniform),
            ("a/bits", Refusal::Uniform),
            ("a/blank", Refusal::Short)
        ]
    );
}

#[test]
fn too_many_secrets_make_no_set() {
    let many = (0..=KNOWN_SECRETS_MAX).map(|_| KnownSecret::new("a", b"x".to_vec())).collect();
    assert!(matches!(KnownSecrets::new(many), Err(KnownError::TooMany { .. })));
    let large = vec![KnownSecret::new("a", vec![b'x'; KNOWN_BYTES_MAX + 1])];
    assert!(matches!(KnownSecrets::new(large), Err(KnownError::TooLarge { .. })));
}

#[test]
fn a_made_up_marker_hides_nothing() {
    let engine = engine(&[("a/b", "synthetic-Pa55")]);
    assert_eq!(scrubbed(&engine, "<VAULT_REF:synthetic-Pa55>"), "<VAULT_REF:<VAULT_REF:a/b>>");
    let with_rules =
        EngineOptions { known: Some(set(&[("a/b", "synthetic-Pa55")])), ..EngineOptions::default() };
    let with_rules = Engine::new(with_rules).unwrap();
    let out = scrubbed(&with_rules, "<VAULT_REF:4111-1111-1111-1111>");
    assert!(!out.contains("1111"), "{out}");
    assert_eq!(scrubbed(&with_rules, "<VAULT_REF:a/b>"), "<VAULT_REF:a/b>");
}

#[test]
fn a_reference_that_is_a_secret_itself_changes_nothing_when_scrubbed_again() {
    let engine = engine(&[("synthetic-Pa55/x", "another-Secr3t"), ("y", "synthetic-Pa55")]);
    let once = scrubbed(&engine, "p another-Secr3t synthetic-Pa55");
    assert_eq!(once, "p <VAULT_REF:synthetic-Pa55/x> <VAULT_REF:y>");
    assert_eq!(scrubbed(&engine, &once), once);
}

#[test]
fn another_set_is_used_from_the_next_call_on() {
    let engine = engine(&[("a/b", "synthetic-Pa55")]);
    engine.replace_known(Some(set(&[("c/d", "other-synthetic")])));
    assert_eq!(scrubbed(&engine, "synthetic-Pa55 other-synthetic"), "synthetic-Pa55 <VAULT_REF:c/d>");
    let counted: Vec<_> =
        engine.statistics().rules.into_iter().filter(|rule| rule.rule == KNOWN_RULE).collect();
    assert_eq!((counted.len(), counted[0].matches), (1, 1));
    engine.replace_known(None);
    assert_eq!(scrubbed(&engine, "other-synthetic"), "other-synthetic");
}

#[test]
fn a_known_secret_gives_its_name_to_what_a_rule_finds_too() {
    let options = EngineOptions {
        known: Some(set(&[("mail/from", "ada.byron@example.com")])),
        ..EngineOptions::default()
    };
    let engine = Engine::new(options).unwrap();
    assert_eq!(scrubbed(&engine, "to ada.byron@example.com"), "to <VAULT_REF:mail/from>");
    let found = engine.explain(b"to ada.byron@example.com").unwrap();
    assert_eq!((found[0].finding.rule.as_str(), found[0].category.as_str()), (KNOWN_RULE, "secret"));
    let json = scrubbed(&engine, r#"{"m":"to ada.byron@example.com"}"#);
    assert_eq!(json, r#"{"m":"to <VAULT_REF:mail/from>"}"#);
}

#[test]
fn a_text_is_not_cut_inside_a_known_secret() {
    let engine = engine(&[("a/b", "synthetic-Pa55phrase")]);
    let text = format!("{}synthetic-Pa55phrase{}", ".".repeat(100), ".".repeat(8000));
    for at_most in 101..120 {
        assert_eq!(engine.safe_cut(text.as_bytes(), at_most).unwrap(), 100);
    }
}

#[test]
fn no_stretch_of_a_secret_is_in_the_set_or_in_what_it_prints() {
    let mut dice = Dice::new(3);
    let texts: Vec<String> = (0..50).map(|_| dice.text("abcdefghijkmnpqrstuvwxyz23456789-", 40)).collect();
    let pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("a/b", text.as_str())).collect();
    let known = set(&pairs);
    let image = known.image();
    let printed = format!(
        "{known:?} {:?} {:?}",
        known.report(),
        KnownSecret::new("a/b", texts[0].clone().into_bytes())
    );
    for text in &texts {
        for way in written(text).into_iter().chain([base64(text.as_bytes(), false)]) {
            // Four bytes of chance in a megabyte would be found; six are not.
            for stretch in way.as_bytes().windows(6) {
                assert!(
                    memchr::memmem::find(&image, stretch).is_none(),
                    "a stretch of a secret is in the set"
                );
            }
            assert!(!printed.contains(way.get(..8).unwrap()));
        }
    }
}

#[test]
fn work_on_text_without_secrets_is_a_small_part_of_it() {
    let mut dice = Dice::new(5);
    let texts: Vec<String> =
        (0..2000).map(|_| dice.text("abcdefghijkmnpqrstuvwxyzABCDEFGH23456789", 24)).collect();
    let pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("a/b", text.as_str())).collect();
    let engine = engine(&pairs);
    let text = crate::corpus::mixed(1, 1 << 20);
    assert_eq!(scrubbed(&engine, &text), text);
    let counted = engine.statistics().rules.pop().unwrap();
    // Whole needles are read at chance hits of 32 bits only.
    assert!(counted.bytes_verified < 1 << 10, "{}", counted.bytes_verified);
}

#[test]
fn a_set_is_brought_up_to_date_without_what_has_not_changed() {
    let known = set(&[
        ("a/old", "synthetic-Pa55"),
        ("a/kept", "synthetic-Kept1"),
        ("a/short", "12"),
        ("b/short", "34"),
    ]);
    let new = vec![KnownSecret::new("a/new", b"synthetic-N3w".to_vec())];
    let known = known
        .updated(|_, reference| reference.starts_with("a/") && reference != "a/old", new)
        .unwrap()
        .unwrap();
    assert_eq!(known.report().secrets, 2);
    assert_eq!(known.report().refused, [("a/short".to_owned(), Refusal::Short)]);
    let engine = engine(&[]);
    engine.replace_known(Some(known));
    let text = "synthetic-Pa55 synthetic-Kept1 synthetic-N3w";
    let expected = "synthetic-Pa55 <VAULT_REF:a/kept> <VAULT_REF:a/new>";
    assert_eq!(scrubbed(&engine, text), expected);
    assert_eq!(scrubbed(&engine, expected), expected);
}

#[test]
fn a_reference_with_another_value_is_the_same_reference_and_its_old_value_is_forgotten() {
    let mut known = set(&[("a/b", "synthetic-Pa55-0"), ("c/d", "another-synthetic")]);
    for version in 1..8 {
        let value = format!("synthetic-Pa55-{version}").into_bytes();
        known =
            known.updated(|_, name| name != "a/b", vec![KnownSecret::new("a/b", value)]).unwrap().unwrap();
    }
    assert_eq!(known.report().secrets, 2);
    let engine = engine(&[]);
    engine.replace_known(Some(known));
    let text = "synthetic-Pa55-7 synthetic-Pa55-6 another-synthetic";
    assert_eq!(scrubbed(&engine, text), "<VAULT_REF:a/b> synthetic-Pa55-6 <VAULT_REF:c/d>");
}

#[test]
fn a_set_that_has_changed_too_much_is_to_be_made_anew_and_limits_stay() {
    let mut dice = Dice::new(13);
    let mut known = set(&[("a/b", "synthetic-Pa55")]);
    let mut others = |count: usize| -> Vec<KnownSecret> {
        let mut text = || dice.text("abcdefghijkmnpqrstuvwxyz23456789", 24).into_bytes();
        (0..count).map(|number| KnownSecret::new(format!("x/{number}"), text())).collect()
    };
    let mut rounds = 0;
    while let Some(next) = known.updated(|_, name| !name.starts_with("x/"), others(2)).unwrap() {
        known = next;
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    assert_eq!(known.report().secrets, 3);
    let error = known.updated(|_, _| true, others(KNOWN_SECRETS_MAX - 2)).unwrap_err();
    assert!(matches!(error, KnownError::TooMany { .. }));
}

#[test]
fn two_sources_may_use_the_same_reference() {
    let of = |source, value: &str| KnownSecret::new("a/b", value.as_bytes().to_vec()).of_source(source);
    let known = KnownSecrets::new(vec![of(0, "synthetic-Zer0"), of(1, "synthetic-0ne"), of(1, "1")]).unwrap();
    let known = known.updated(|source, _| source != 1, vec![of(1, "synthetic-tw0")]).unwrap().unwrap();
    assert_eq!((known.report().secrets, known.report().refused.len()), (2, 0));
    let engine = engine(&[]);
    engine.replace_known(Some(known));
    let text = "synthetic-Zer0 synthetic-0ne synthetic-tw0";
    assert_eq!(scrubbed(&engine, text), "<VAULT_REF:a/b> synthetic-0ne <VAULT_REF:a/b>");
}

//! Rules and profiles that users bring.

use crate::{Engine, EngineOptions, Profile, RuleFile, RulesError};

fn rule(pattern: &str, more: &str) -> String {
    format!(
        "[[rule]]\nid = \"mine\"\ncategory = \"own\"\ndescription = \"d\"\npattern = '''{pattern}'''\n{more}\nfinds = [[\"a\", \"a\"]]\nspares = [\"b\"]\n"
    )
}

#[test]
fn what_cannot_be_a_rule_is_refused_by_name_with_the_reason_and_what_to_write_instead() {
    let faults = [
        (rule("(", ""), "cannot compile"),
        (rule("x(?<=a)b", ""), "(bytes 1 to 5); look-around is not linear-time: match the neighbour too"),
        (rule("(a)\\1", ""), "(bytes 3 to 5); back-references are not linear-time"),
        (rule("a*", ""), "matches the empty string (bytes 0 to 2); ask for at least one character"),
        (rule("(?:a{1000}){1000}", ""), "(bytes 0 to 17); use smaller repetition counts"),
        (
            rule(".+", ""),
            "matches everything: it would redact 100 % of harmless lines, allowed are 70 (bytes 0 to 2)",
        ),
        (rule(r"[\s\S]{1,}", ""), "matches everything"),
        (rule(r"[\x00-\xff]", ""), "matches everything"),
        (rule("(?:[^q]|q)+", ""), "matches everything"),
        (rule(r"\S+", ""), "matches everything"),
        (rule("(?u:\\ba)", ""), "Unicode word boundary"),
        (rule("\\p{Greek}", ""), "put non-ASCII classes into (?u:...)"),
        (rule("a", "redact = \"group\""), "put ( ) around the value"),
        (rule("a", "validator = \"magic\""), "choose one of "),
        (rule("a", "action = \"eat\""), "choose one of marker"),
        (rule("a", "window_bytes = 99999"), "window_bytes"),
        (rule("a", "marker = \"lower\""), "marker is not a name"),
        (rule("a", "anchor = { literals = [\"a\"] }"), "it is derived"),
        (rule("a", "colour = 1"), "unknown field"),
        (rule("a", "").replace("\"mine\"", "\"Mine!\""), "id is not a name"),
        (rule("a", "").replace("spares = [\"b\"]", ""), "has no examples"),
        (rule("a", "").replace("[[\"a\", \"a\"]]", "[[\"a\", \"z\"]]"), "is not [text, part of it]"),
        (rule("a", "") + &rule("b", ""), "id stands twice"),
        (String::new(), "write at least one [[rule]]"),
    ];
    for (text, wanted) in faults {
        let error = RuleFile::parse("mine.toml", &text).unwrap_err();
        assert!(error.to_string().contains(wanted), "wanted `{wanted}`, got `{error}`");
    }
}

#[test]
fn all_faults_of_a_file_are_told_at_once_each_with_its_bytes() {
    let text = rule("a(?=b)", "validator = \"magic\"\naction = \"eat\"")
        + &rule(".*", "colour = 1\nvalidatr = \"luhn\"").replace("\"mine\"", "\"other\"")
        + &rule("b", "severity = 3").replace("\"mine\"", "\"third\"")
        + &rule("", "keywords = [\"acme\"]\nvalue = '[0-9'")
            .replace("pattern = ''''''", "")
            .replace("\"mine\"", "\"fourth\"");
    let RulesError(faults) = RuleFile::parse("mine.toml", &text).unwrap_err();
    let told: Vec<(&str, Option<std::ops::Range<usize>>)> =
        faults.iter().map(|fault| (fault.subject.as_str(), fault.span.clone())).collect();
    let wanted = [
        ("other", None),
        ("other", None),
        ("third", None),
        ("mine", None),
        ("mine", None),
        ("mine", Some(1..4)),
        ("other", Some(0..2)),
        ("fourth", Some(0..1)),
    ];
    assert_eq!(told, wanted, "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.reason.ends_with("`validatr`, validator is")), "{faults:#?}");
}

#[test]
fn a_pattern_that_takes_words_only_where_something_special_stands_is_no_match_of_everything() {
    for (pattern, more) in [
        ("ticket .+", ""),
        ("[0-9]+", ""),
        (".+", "context = [\"ticket\"]\ncontext_required = true"),
        ("[A-Z]{2}[0-9]+", ""),
    ] {
        let text = rule(pattern, more).replace("[\"a\", \"a\"]", "[\"ticket 1\", \"1\"]");
        assert!(RuleFile::parse("m", &text).is_ok(), "{pattern}");
    }
}

#[test]
fn a_users_rule_runs_beside_the_library_and_may_not_take_a_taken_id() {
    let file = RuleFile::parse("m", &rule("TICKET-([0-9]{3})", "redact = \"group\"")).unwrap();
    let engine = Engine::new(EngineOptions { rules: vec![file], ..EngineOptions::default() }).unwrap();
    assert_eq!(engine.scrub_text("TICKET-123 of a@b.cd").unwrap().0, "TICKET-<MINE> of <EMAIL>");
    let mine = engine.rules().iter().find(|active| active.rule.id() == "mine").unwrap();
    assert!(mine.cost.found_by.contains("TICKET-") && !mine.cost.reads_every_byte);

    let taken = RuleFile::parse("m", &rule("a", "").replace("\"mine\"", "\"email\"")).unwrap();
    let error = Engine::new(EngineOptions { rules: vec![taken], ..EngineOptions::default() }).err().unwrap();
    assert!(error.to_string().contains("id is taken"), "{error}");
}

#[test]
fn a_rule_without_an_anchor_runs_and_says_its_price() {
    let file = RuleFile::parse("m", &rule("[xy0-9]+[a-z]?", "")).unwrap();
    let engine = Engine::new(EngineOptions { rules: vec![file], ..EngineOptions::default() }).unwrap();
    assert_eq!(engine.scrub_text("a xyx1234z b").unwrap().0, "a <MINE> b");
    assert!(engine.rules().iter().any(|active| active.cost.reads_every_byte));
}

#[test]
fn a_users_profile_inherits_and_overrides() {
    let text = "name = \"m\"\ndescription = \"d\"\ninherits = \"default\"\n[[use]]\nrules = [\"email\"]\naction = \"off\"\n[[use]]\nrules = [\"ipv4\"]\naction = \"marker\"\n";
    let profiles = vec![Profile::parse("m", text).unwrap()];
    let engine =
        Engine::new(EngineOptions { profile: "m".into(), profiles, ..EngineOptions::default() }).unwrap();
    assert_eq!(
        engine.scrub_text("a@b.cd 10.1.2.3 AKIAIOSFODNN7EXAMPLE").unwrap().0,
        "a@b.cd <IPV4> <AWS_KEY>"
    );
}

#[test]
fn profiles_that_cannot_be_are_refused() {
    let parse = |text: &str| Profile::parse("m", &format!("name = \"m\"\ndescription = \"d\"\n{text}"));
    assert!(parse("").unwrap_err().to_string().contains("uses no rule"));
    assert!(
        parse("[[use]]\nrules=[\"*\"]\naction=\"eat\"").unwrap_err().to_string().contains("choose one of")
    );
    let fault = |text: &str| {
        let profiles = vec![parse(text).unwrap()];
        Engine::new(EngineOptions { profile: "m".into(), profiles, ..EngineOptions::default() })
            .err()
            .unwrap()
            .to_string()
    };
    assert!(fault("inherits = \"m\"").contains("from itself"));
    assert!(fault("inherits = \"nowhere\"").contains("no profile of this name"));
    assert!(fault("[[use]]\nrules = [\"emial\"]").contains("emial, which does not exist"));
    assert!(fault("[[use]]\ncategories = [\"pie\"]").contains("pie, which no rule has"));
    assert!(fault("[[use]]\nrules = [\"email\"]\naction = \"hash\"").contains("needs a key"));
}

//! Scopes: other rules for the containers of a service or with a label.

use beeacon_record::{Batch, BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};

use crate::{Continuity, Engine, EngineOptions, FieldRule, Profile, RulesError, Scope};

const HEAD: &str = "-----BEGIN EC PRIVATE KEY-----";
const BODY: &str = "AbCdEfGhIjKlMnOp";

/// Lines of containers, each (service, team, text); every service is a source of its own, and the batch begins at `from`.
fn batch(lines: &[(&str, &str, &str)], from: u64) -> Batch {
    let mut builder = BatchBuilder::new("agent");
    let mut intervals: Vec<Interval> = Vec::new();
    for (index, (service, team, text)) in (from..).zip(lines) {
        let source = Source::new(format!("docker-file:{service}")).unwrap();
        let labels = vec![("team".to_owned(), (*team).to_owned())];
        let origin = Origin { service: (*service).to_owned(), labels, ..Origin::default() };
        let origin = builder.origin(&origin, &source);
        let position = Position::new(1, index);
        let line = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 1,
            stream: Stream::Stdout,
            level: Level::Info,
            position,
        };
        builder.push(line, text.as_bytes());
        if !intervals.iter().any(|interval| interval.source == source) {
            intervals.push(Interval::new(source, Position::new(1, from), Position::new(1, from + 100)));
        }
    }
    builder.finish(intervals).unwrap()
}

fn messages(engine: &Engine, batch: Batch, continuity: &mut Continuity) -> Vec<String> {
    let scrubbed = engine.scrub_with(batch, continuity).unwrap().0;
    scrubbed.get().messages().iter().flatten().map(str::to_owned).collect()
}

fn scope(services: &[&str], labels: &[(&str, &str)], profile: Option<&str>, fields: Vec<FieldRule>) -> Scope {
    let services: Vec<String> = services.iter().map(|text| (*text).to_owned()).collect();
    let labels: Vec<(String, String)> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Scope::new(&services, &labels, profile, fields).unwrap()
}

fn engine(scopes: Vec<Scope>) -> Engine {
    Engine::new(EngineOptions { scopes, ..EngineOptions::default() }).unwrap()
}

#[test]
fn the_first_scope_that_covers_a_container_chooses_its_profile_and_its_fields() {
    let colour = FieldRule::new("colour_*", "marker", 0, 0, None).unwrap();
    let engine = engine(vec![
        scope(&["pay*"], &[], Some("hipaa"), vec![]),
        scope(&[], &[("team", "sec?et*")], Some("secrets"), vec![colour]),
    ]);
    let text = "a@b.cd 10.1.2.3 colour_x=red AKIAIOSFODNN7EXAMPLE";
    let lines =
        [("web", "x", text), ("Payments", "secret", text), ("job", "Secret-2", text), ("web", "x", "1")];
    let mut out = messages(&engine, batch(&lines, 0), &mut Continuity::default());
    out.sort();
    let mut wanted = [
        "1",
        "<EMAIL> 10.1.2.0 colour_x=red <AWS_KEY>",
        "<EMAIL> <IPV4> colour_x=red <AWS_KEY>",
        "a@b.cd 10.1.2.3 colour_x=<COLOUR> <AWS_KEY>",
    ];
    wanted.sort();
    assert_eq!(out, wanted);
    let statistics = engine.statistics();
    assert_eq!(statistics.lines, 4);
    let keys = statistics.rules.iter().find(|rule| rule.rule == "aws_key").map(|rule| rule.matches);
    assert_eq!(keys, Some(3));
}

#[test]
fn a_key_over_several_batches_is_followed_in_every_scope() {
    let engine = engine(vec![
        scope(&["a"], &[], Some("gdpr"), vec![]),
        scope(&["b"], &[], Some("secrets"), vec![]),
        scope(&["c"], &[], Some("soc2"), vec![]),
    ]);
    let mut continuity = Continuity::default();
    let services = ["a", "b", "c", "d"];
    let lines = |text| services.map(|service| (service, "x", text));
    assert_eq!(messages(&engine, batch(&lines(HEAD), 0), &mut continuity), ["<PRIVATE_KEY>"; 4]);
    for from in [100, 200, 300, 400, 500, 600] {
        assert_eq!(
            messages(&engine, batch(&lines(BODY), from), &mut continuity),
            ["<PRIVATE_KEY>"; 4],
            "{from}"
        );
    }
    // One source alone, then all again: the others are where they were.
    let mut two =
        messages(&engine, batch(&[("b", "x", "-----END EC PRIVATE KEY-----")], 700), &mut continuity);
    two.extend(messages(&engine, batch(&[("b", "x", BODY)], 800), &mut continuity));
    assert_eq!(two, ["<PRIVATE_KEY>", BODY]);
}

#[test]
fn rows_and_intervals_are_all_there_and_in_order_of_each_source() {
    let engine = engine(vec![scope(&["a"], &[], Some("secrets"), vec![])]);
    let lines = [("b", "x", "b1 a@b.cd"), ("a", "x", "a1 a@b.cd"), ("b", "x", "b2"), ("a", "x", "a2")];
    let (scrubbed, report) = engine.scrub(batch(&lines, 0)).unwrap();
    let out: Vec<_> = scrubbed.get().messages().iter().flatten().collect();
    assert_eq!(out, ["b1 <EMAIL>", "b2", "a1 a@b.cd", "a2"]);
    assert_eq!(scrubbed.get().intervals().len(), 2);
    assert_eq!((report.lines, report.lines_redacted, report.counts.len()), (4, 1, 1));
    let compared = engine.compare_batch(&batch(&lines, 0)).unwrap();
    assert_eq!((compared.same, compared.differences.len()), (1, 0));
}

#[test]
fn scopes_are_part_of_the_rule_sets_id_and_their_faults_name_them() {
    let plain = engine(vec![]).rule_set_id();
    let one = engine(vec![scope(&["a"], &[], Some("secrets"), vec![])]).rule_set_id();
    let two = engine(vec![scope(&["b"], &[], Some("secrets"), vec![])]).rule_set_id();
    assert!(plain != one && one != two);
    let scopes = vec![
        scope(&["a"], &[], Some("secrets"), vec![]),
        scope(&["a"], &[], Some("secret"), vec![]),
        scope(&["b"], &[], Some("nowhere"), vec![]),
    ];
    let RulesError(faults) = Engine::new(EngineOptions { scopes, ..EngineOptions::default() }).err().unwrap();
    let subjects: Vec<&str> = faults.iter().map(|fault| fault.subject.as_str()).collect();
    assert_eq!(subjects, ["scope 2: secret", "scope 3: nowhere"]);
    assert!(Scope::new(&["a".into()], &[], None, vec![]).is_err());
}

#[test]
fn a_long_line_is_cut_where_no_scope_finds_anything() {
    let field = FieldRule::new("colour", "marker", 0, 0, None).unwrap();
    let engine = engine(vec![scope(&["a"], &[], None, vec![field])]);
    let text = format!("{} colour=\"red and blue\" {}", "x ".repeat(500), "y ".repeat(40_000));
    let inside = text.find("and").unwrap();
    let cut = engine.safe_cut(text.as_bytes(), inside).unwrap();
    assert!(text.get(cut..).unwrap().contains("colour=") && cut <= inside, "{cut} {inside}");
}

#[test]
fn containers_choose_only_profiles_that_leave_no_more_than_the_hosts() {
    let offers = |host: &str, profiles: &[Profile], chosen: &str| {
        let (profile, profiles) = (host.to_owned(), profiles.to_vec());
        let scopes = vec![Scope::chosen(chosen)];
        Engine::new(EngineOptions { profile, profiles, scopes, ..EngineOptions::default() })
    };
    for (host, chosen, is_strict) in [
        ("default", "hipaa", true),
        ("default", "gdpr", true),
        ("default", "default", true),
        ("default", "secrets", false),
        ("hipaa", "default", false),
        ("secrets", "hipaa", true),
        // Its tags could win over a secret, and a mask that keeps digits too.
        ("secrets", "soc2", false),
        ("secrets", "pci_dss", false),
        // A card keeps four digits there, and nothing here.
        ("default", "pci_dss", false),
        ("soc2", "pci_dss", false),
    ] {
        assert_eq!(offers(host, &[], chosen).is_ok(), is_strict, "{host} {chosen}");
    }
    let own = |uses: &str| {
        let text = format!(
            "name = \"own\"\ndescription = \"d\"\ninherits = \"secrets\"\n[[use]]\nrules = [\"email\"]\n{uses}"
        );
        vec![Profile::parse("own", &text).unwrap()]
    };
    assert!(offers("secrets", &own("action = \"marker\""), "own").is_ok());
    // It could win over a rule that hides, and leaves what it finds.
    let RulesError(faults) = offers("secrets", &own("action = \"tag\""), "own").err().unwrap();
    assert!(faults[0].reason.contains("1 rules, email among them"), "{faults:?}");
    // The host's scopes decide first.
    let label = [("beeacon.profile".to_owned(), "HIPAA".to_owned())];
    let scopes = vec![scope(&["lab"], &[], Some("secrets"), vec![]), Scope::chosen("hipaa")];
    let engine = engine(scopes);
    assert!(engine.offers("hipaa") && !engine.offers("secrets"));
    assert!(engine.treats_alike(("lab", &label), ("lab", &[])));
    assert!(!engine.treats_alike(("web", &label), ("web", &[])));
}

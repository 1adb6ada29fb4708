//! Whole batches.

use arrow_array::Array;
use beeacon_record::schema::Column;
use beeacon_record::{
    Batch, BatchBuilder, Interval, Level, Line, Origin, Position, Scrubbed, Source, Stream,
};

use crate::{Engine, EngineOptions, Profile};

fn batch(lines: &[&str], labels: &[(&str, &str)], attributes: &[(usize, &str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new("agent");
    let source = Source::new("docker-file:4f2a").unwrap();
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let origin = builder.origin(&Origin { labels, ..Origin::default() }, &source);
    for (row, text) in lines.iter().enumerate() {
        let position = Position::new(1, u64::try_from(row).unwrap());
        let (stream, level) = (Stream::Stdout, Level::Info);
        builder.push(
            Line { origin, timestamp_ns: 1, observed_timestamp_ns: 2, stream, level, position },
            text.as_bytes(),
        );
        for (_, key, value) in attributes.iter().filter(|(at, _, _)| *at == row) {
            assert!(builder.attribute(key, value));
        }
    }
    let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 1_000));
    builder.finish(vec![interval]).unwrap()
}

fn engine(profile: Option<&str>) -> Engine {
    let profiles: Vec<Profile> = profile.iter().map(|text| Profile::parse("m", text).unwrap()).collect();
    let name = if profile.is_some() { "m" } else { "default" };
    Engine::new(EngineOptions { profile: name.into(), profiles, ..EngineOptions::default() }).unwrap()
}

fn messages(batch: &Scrubbed<Batch>) -> Vec<String> {
    batch.get().messages().iter().flatten().map(str::to_owned).collect()
}

#[test]
fn a_clean_batch_keeps_its_buffers() {
    let batch = batch(&["nothing here", "", "nor there"], &[("app", "web")], &[(0, "k", "v")]);
    let place = |batch: &Batch| {
        let (_, labels) = batch.dictionary_column(Column::Labels).unwrap();
        (
            batch.messages().value_data().as_ptr(),
            batch.column(Column::Attributes).to_data().child_data()[0].child_data()[1].buffers()[1].as_ptr(),
            labels.value_data().as_ptr(),
        )
    };
    let before = place(&batch);
    let (out, report) = engine(None).scrub(batch).unwrap();
    assert_eq!(place(out.get()), before);
    assert_eq!((report.lines, report.lines_redacted, report.counts.len()), (3, 0, 0));
    assert_eq!(out.rule_set(), engine(None).rule_set_id());
}

#[test]
fn messages_attributes_and_labels_are_scrubbed_and_rows_say_what_went() {
    let lines = ["a", "bob@example.org and x@y.io", "", "password=hunter2 10.1.2.3"];
    let batch = batch(
        &lines,
        &[("owner", "eve@example.org")],
        &[(0, "user", "u@v.org"), (3, "k", "clean"), (3, "ssn", "123-45-6789")],
    );
    let (out, report) = engine(None).scrub(batch).unwrap();
    assert_eq!(messages(&out), ["a", "<EMAIL> and <EMAIL>", "", "password=<PASSWORD> 10.1.2.0"]);
    let labels = out.get().dictionary_column(Column::Labels).unwrap().1;
    assert_eq!(labels.value(0), r#"{"owner":"<EMAIL>"}"#);
    let values = out.get().attributes().values().as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
    let values: Vec<_> = values.iter().flatten().collect();
    assert_eq!(values, ["<EMAIL>", "clean", "<SSN>"]);

    let redactions = |row: usize| {
        let list = out.get().redactions().value(row);
        let list = list.as_any().downcast_ref::<arrow_array::StructArray>().unwrap();
        let rules = list.column(0).as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
        let counts = list.column(1).as_any().downcast_ref::<arrow_array::UInt32Array>().unwrap();
        let mut pairs: Vec<(String, u32)> = rules
            .iter()
            .flatten()
            .zip(counts.values())
            .map(|(rule, count)| (rule.to_owned(), *count))
            .collect();
        pairs.sort();
        pairs
    };
    assert_eq!(redactions(0), [("email".to_owned(), 1)]);
    assert_eq!(redactions(1), [("email".to_owned(), 2)]);
    assert_eq!(redactions(2), []);
    assert_eq!(redactions(3), [("ipv4".to_owned(), 1), ("password".to_owned(), 1), ("ssn".to_owned(), 1)]);
    assert_eq!((report.lines, report.lines_redacted), (4, 3));
    assert_eq!((report.counts[0].rule.as_str(), report.counts[0].count), ("email", 4));
}

#[test]
fn dropped_rows_are_left_out_and_counted_in_their_interval() {
    let profile = "name = \"m\"\ndescription = \"d\"\n[[use]]\nrules = [\"email\"]\naction = \"drop\"\n[[use]]\nrules = [\"ssn\"]\n";
    let batch =
        batch(&["a", "bob@example.org", "123-45-6789", "x"], &[("owner", "e@f.org")], &[(3, "u", "u@v.org")]);
    let (out, report) = engine(Some(profile)).scrub(batch).unwrap();
    assert_eq!(messages(&out), ["a", "<SSN>"]);
    assert_eq!((report.rows_dropped, out.get().intervals()[0].dropped_rows), (2, 2));
    let labels = out.get().dictionary_column(Column::Labels).unwrap().1;
    assert_eq!(labels.value(0), r#"{"owner":"<EMAIL>"}"#);
}

#[test]
fn a_batch_that_is_a_slice_of_another_is_scrubbed_alike() {
    let whole = batch(
        &["bob@example.org", "x@y.io", "z"],
        &[],
        &[(0, "a", "u@v.org"), (1, "b", "w@v.org"), (2, "c", "c")],
    );
    let sliced = Batch::try_new(whole.records().slice(1, 2), whole.intervals().to_vec()).unwrap();
    let (out, report) = engine(None).scrub(sliced).unwrap();
    assert_eq!(messages(&out), ["<EMAIL>", "z"]);
    assert_eq!(report.lines_redacted, 1);
    let entry = out.get().attributes().value(0);
    let values = entry.column(1).as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
    assert_eq!(values.value(0), "<EMAIL>");
}

#[test]
fn the_engine_can_be_shared_and_counts_everything() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let engine = shared(engine(None));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (out, _) = engine.scrub(batch(&["bob@example.org"], &[], &[])).unwrap();
                    assert_eq!(messages(&out), ["<EMAIL>"]);
                }
            });
        }
    });
    let statistics = engine.statistics();
    assert_eq!((statistics.lines, statistics.lines_redacted, statistics.redactions), (80, 80, 80));
    assert_eq!(statistics.rules.iter().find(|rule| rule.rule == "email").unwrap().matches, 80);
}

#[test]
fn a_fault_inside_is_an_error_and_no_text_comes_out() {
    fn broken() -> u64 {
        panic!("the clock of this test is broken")
    }
    let engine = Engine::new(EngineOptions { clock: Some(broken), ..EngineOptions::default() }).unwrap();
    let error = engine.scrub(batch(&["bob@example.org"], &[], &[])).err().unwrap();
    assert_eq!(error.to_string(), "the pollen filter failed inside, the text is withheld");
    assert!(engine.scrub_text("bob@example.org").is_err() && engine.safe_cut(b"a@a@a@a@a", 5).is_err());
    assert_eq!(engine.statistics().failures, 3);
    assert!(engine.scrub(batch(&["clean"], &[], &[])).is_ok(), "later text is scrubbed again");
}

#[test]
fn only_one_line_of_this_crate_declares_text_scrubbed() {
    fn count(directory: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| !path.ends_with("tests"))
            .map(|path| match path.is_dir() {
                true => count(&path),
                false => {
                    std::fs::read_to_string(&path).unwrap().matches(concat!("Scrubbed::", "seal(")).count()
                }
            })
            .sum()
    }
    assert_eq!(count(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))), 1);
}

//! A changed configuration tried on logs that are there, by the program.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::stories::{directory, log};

fn replay(directory: &Path, before: &str, after: &str, further: &[&str]) -> Output {
    let (old, new) = (directory.join("old.toml"), directory.join("new.toml"));
    std::fs::write(&old, before).unwrap();
    std::fs::write(&new, after).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
    command
        .args(["replay", "--docker-host", "none", "--containers-directory"])
        .arg(directory.join("containers"));
    command.arg("--data").arg(directory.join("data")).arg("--config").arg(new).arg("--current").arg(old);
    command.args(further).env("BEEACON_LOG", "trace").output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Rules, groups, samples and the choice of containers differ between the two. Fails when a side reads by the other's configuration,
/// when counts are not those of the rows, and when anything of a line is printed.
#[test]
fn what_a_changed_configuration_would_do_is_counted_and_no_line_is_shown() {
    let directory = directory();
    let mut one = log(&directory, "one", 4000, 9);
    one.compresses = true;
    for number in 0..100 {
        one.line(
            "stdout",
            &format!("user planted-{number}@example.org from 10.1.2.3 asked for planted-word"),
        );
        one.line("stdout", &format!("    at planted.frame({number})"));
    }
    log(&directory, "two", 0, 1).line("stdout", "planted in the other");
    let after = "[agent]\nexclude = [\"name:name-two\"]\nmultiline = [\"name:* => indent\"]\n[filter]\ndeny = [\"planted-word\"]\n";
    let further = ["--format", "json"];
    let output = replay(directory.path(), "[agent]\n", after, &further);
    let report = json(&output);
    let [one, two] = report["containers"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let number =
        |side: &str, key: &str| one[side].pointer(&format!("/{key}")).and_then(Value::as_u64).unwrap_or(0);
    assert_eq!((number("before", "rows"), number("after", "rows")), (200, 100), "{report}");
    assert_eq!(
        (number("before", "redactions/email"), number("after", "redactions/email")),
        (100, 100),
        "{report}"
    );
    assert!(number("before", "read_bytes") > 0 && number("after", "bytes") > 0);
    let differences = &one["differences"];
    assert_eq!((&differences["rows_gone"], &differences["rows_new"]), (&100.into(), &0.into()), "{report}");
    assert_eq!(differences["other_text"], 100, "{report}");
    assert!(two["before"]["rows"] == 1 && two["after"].is_null(), "{report}");
    let text = replay(directory.path(), "[agent]\n", after, &[]);
    let shown = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(shown.contains("name-two: would not be read any more (1 rows)"), "{shown}");
    assert!(shown.contains("2 of 2 containers would differ"), "{shown}");
    for output in [output, text] {
        let all = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains("planted"), "a line is shown");
    }
    assert!(!directory.path().join("data").exists(), "nothing is kept");
}

/// The lines of these logs are of the year 2023; the same configuration twice differs in nothing.
#[test]
fn lines_from_before_are_passed_over_and_faulty_configurations_are_refused() {
    let directory = directory();
    let mut one = log(&directory, "one", 0, 1);
    for number in 0..50 {
        one.line("stdout", &format!("line {number}"));
    }
    let rows = |further: &[&str]| {
        let report = json(&replay(
            directory.path(),
            "[agent]\n",
            "[agent]\n",
            &[further, &["--format", "json"]].concat(),
        ));
        let compared = &report["containers"][0];
        assert_eq!(compared["before"]["rows"], compared["after"]["rows"]);
        assert!(compared["differences"].as_object().unwrap().values().all(|count| *count == 0));
        compared["after"]["rows"].as_u64().unwrap()
    };
    assert_eq!(rows(&[]), 50);
    assert_eq!(rows(&["--since", "1h"]), 0);
    let code =
        |after: &str, further: &[&str]| replay(directory.path(), "[agent]\n", after, further).status.code();
    assert_eq!(code("[agent]\nreder = 1\n", &[]), Some(78));
    assert_eq!(code("[filter]\nprofile = \"no such\"\n", &[]), Some(78));
    assert_eq!(code("[agent]\n", &["--since", "soon"]), Some(64));
    std::fs::remove_dir_all(directory.path().join("containers")).unwrap();
    assert_eq!(code("[agent]\n", &[]), Some(74));
}

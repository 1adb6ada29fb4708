//! The page on how Docker's logs are read is made from the table `conformance.txt`, and the table names tests that are there.
//!
//! `BEEACON_UPDATE_PAGES=1` writes the page anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("conformance.txt");

const PAGE: &str = "docs/docker-conformance.md";

struct Case<'a> {
    number: u32,
    what: &'a str,
    how: &'a str,
    tests: Vec<&'a str>,
    open: &'a str,
}

fn case(line: &str) -> Case<'_> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let &[number, what, how, tests, open] = fields.as_slice() else { panic!("not five fields: {line}") };
    let tests = tests.split(", ").filter(|test| !test.is_empty()).collect();
    Case { number: number.parse().unwrap(), what, how, tests, open }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page() -> String {
    let mut page = String::from(
        "# Reading Docker's logs right\n\n\
         Which cases of Docker's logs are shown by a test, and by which. Made from `agent/tests/room/conformance.txt`; a test holds this page\n\
         to that table, and that table to the tests. *real* is a dockerd of its own, *scripted* a Docker API over a unix socket that answers,\n\
         breaks and lies as told, *files* are log files written as dockerd writes them, *bytes* a stream cut anywhere, *rules* the\n\
         decision alone. Every test on a real dockerd reaches it through a proxy that lets six routes pass.\n",
    );
    let (mut shown, mut in_part, mut open, mut rows) = (0, 0, 0, String::new());
    for line in TABLE.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()) {
        if let Some(title) = line.strip_prefix("## ") {
            write!(
                rows,
                "\n## {title}\n\n| | Case | How | Shown by | Result |\n| --- | --- | --- | --- | --- |\n"
            )
            .unwrap();
            continue;
        }
        let Case { number, what, how, tests, open: left } = case(line);
        let result = match (tests.is_empty(), left) {
            (true, _) => {
                open += 1;
                "open".to_owned()
            }
            (false, "") => {
                shown += 1;
                "shown".to_owned()
            }
            (false, left) => {
                in_part += 1;
                format!("in part; open: {left}")
            }
        };
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        writeln!(rows, "| {number} | {what} | {how} | {} | {result} |", tests.join(", ")).unwrap();
    }
    writeln!(
        page,
        "\nOf {} cases {shown} are shown, {in_part} in part, {open} are open.",
        shown + in_part + open
    )
    .unwrap();
    page + &rows
}

/// Where the tests of a module stand, and what marks a test there.
fn sources() -> Vec<(String, String)> {
    let directories = ["agent/src", "agent/tests/room", "tests/end_to_end", "collector/src"];
    let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| root().join(directory)).collect();
    let mut sources = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let module = path.file_stem().unwrap().to_string_lossy().into_owned();
                sources.push((module, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    sources
}

#[test]
fn every_case_is_there_once_and_names_only_tests_that_exist() {
    let sources = sources();
    let cases: Vec<Case<'_>> =
        TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(case).collect();
    assert!(cases.iter().map(|case| case.number).eq(1..=72));
    for Case { number, how, tests, .. } in &cases {
        assert_eq!(how.is_empty(), tests.is_empty(), "case {number}");
        for test in tests {
            let (module, name) = test.split_once("::").unwrap();
            let is_test = |text: &str| {
                let marked = [format!("]\n    fn {name}()"), format!("]\n    async fn {name}()")];
                let plain = [format!("]\nfn {name}()"), format!("]\nasync fn {name}()")];
                marked.iter().chain(&plain).any(|mark| text.contains(mark.as_str()))
            };
            let is_there = sources.iter().any(|(own, text)| own == module && is_test(text));
            assert!(is_there, "case {number} names {test}, which is no test");
        }
    }
}

#[test]
fn the_page_on_dockers_logs_says_what_the_table_says() {
    let path = root().join(PAGE);
    if std::env::var_os("BEEACON_UPDATE_PAGES").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page(), "{PAGE} differs: write it anew with BEEACON_UPDATE_PAGES=1 and this test");
}

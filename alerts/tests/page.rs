//! `docs/alerts.md` says what is so: its files are read, and its helpers verify what this room signs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use beeacon_alerts::notify::config::Config;
use beeacon_alerts::rules::RuleFile;
use beeacon_alerts::unit_test::TestFile;
use beeacon_alerts::{limits, pack, sign};

const PAGE: &str = include_str!("../../docs/alerts.md");

/// The blocks of a kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    PAGE.split(&format!("```{kind}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn block(kind: &str) -> &'static str {
    let blocks = blocks(kind);
    assert_eq!(blocks.len(), 1, "{kind}");
    blocks.first().unwrap()
}

#[test]
fn the_files_of_the_page_are_right() {
    let rules = RuleFile::read(block("yaml rules")).unwrap_or_else(|error| panic!("{error}"));
    let tests = TestFile::read(block("yaml test")).unwrap_or_else(|error| panic!("{error}"));
    for case in tests.tests.iter().flat_map(|test| &test.cases) {
        assert!(rules.places.contains_key(&format!("shop/{}", case.alertname)), "{}", case.alertname);
    }
    Config::read(block("yaml receivers")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_page_names_the_ready_rules_and_the_limits_as_they_are() {
    for (name, text) in pack() {
        for (_, rule) in RuleFile::read(text).unwrap().rules() {
            let name_of_rule = rule.id().rsplit('/').next().unwrap();
            assert!(PAGE.contains(&format!("`{name_of_rule}`")), "{name}: {name_of_rule}");
        }
    }
    assert!(PAGE.contains("(at most 60 moments;") && limits::CATCH_UP_MAX == 60);
    assert!(PAGE.contains("after a second, doubling up to five minutes, for a day"));
    assert_eq!((limits::RETRY_FIRST.as_secs(), limits::RETRY_MOST.as_secs()), (1, 300));
    assert_eq!(limits::DELIVERY_TRIED_FOR.as_secs(), 24 * 3_600);
    assert!(PAGE.contains("(25, 465, 587 and 2525 for mail)") && limits::MAIL_PORTS == [25, 465, 587, 2525]);
    assert!(PAGE.contains("after four of them") && limits::ALERTMANAGER_RESENDS_MISSED_MAX == 4);
    assert!(PAGE.contains("more than five minutes away") && limits::SIGNATURE_WINDOW.as_secs() == 300);
}

/// What a program says to a script on its standard input.
fn run(program: &str, script: &str) -> String {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Guarantees: the helper takes what is signed in both schemes, once, within the window, and nothing that was changed.
#[test]
fn the_helper_in_python_takes_what_is_signed_and_nothing_else() {
    let (time, body, id) = (1_764_187_200_i64, "{\"a\": \"ü\"}", "msg_1");
    let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let grafana = sign::grafana("a secret", time, body.as_bytes());
    let standard = sign::standard(whsec, id, time, body.as_bytes()).unwrap();
    let script = format!(
        r#"{}
def grafana(id, signature={grafana:?}, sent="{time}"):
    return {{"webhook-id": id, "x-grafana-alerting-signature": signature, "x-grafana-alerting-signature-timestamp": sent}}
def standard(id, signature={standard:?}, sent="{time}"):
    return {{"webhook-id": id, "webhook-signature": signature, "webhook-timestamp": sent}}
body, whsec, seen = {body:?}.encode(), "{whsec}", {{}}
print(verify(grafana("{id}"), body, "a secret", seen, now={time} + 299))
print(verify(standard("{id}"), body, whsec, {{}}, now={time} - 299))
print(verify(standard("{id}", "v1,AAAA {standard}"), body, whsec, {{}}, now={time}))
print(verify(grafana("{id}"), body, "a secret", seen, now={time} + 298))
print(verify(grafana("x"), body, "a secret", {{}}, now={time} + 301))
print(verify(grafana("x"), body + b" ", "a secret", {{}}, now={time}))
print(verify(grafana("x"), body, "another", {{}}, now={time}))
print(verify(standard("x"), body, whsec, {{}}, now={time}))
print(verify(standard("{id}", sent="{}"), body, whsec, {{}}, now={time}))
"#,
        block("python verify"),
        time + 1
    );
    let said = run("python3", &script);
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["True", "True", "True", "False", "False", "False", "False", "False", "False"]
    );
}

#[test]
fn the_helper_in_the_shell_takes_what_is_signed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, "{\"a\": \"ü\"}\n").unwrap();
    let now = jiff::Timestamp::now().as_second();
    let signed = |time: i64| sign::grafana("a secret", time, "{\"a\": \"ü\"}\n".as_bytes());
    let call = |secret: &str, time: i64, signature: &str| {
        format!(
            "if verify '{secret}' {time} {signature} {}; then echo yes; else echo no; fi\n",
            body.display()
        )
    };
    let script = [
        block("sh verify").to_owned(),
        call("a secret", now, &signed(now)),
        call("a secret", now - 400, &signed(now - 400)),
        call("another", now, &signed(now)),
        call("a secret", now, &signed(now + 1)),
    ]
    .concat();
    assert_eq!(run("sh", &script).split_whitespace().collect::<Vec<_>>(), ["yes", "no", "no", "no"]);
}

use super::*;

/// Two variables and a file, as a process might have them.
struct Some2;

impl Surroundings for Some2 {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("hunter2".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        if path == "/run/secret" { Ok("from-a-file".to_owned()) } else { Err("not found".to_owned()) }
    }
}

fn faults(text: &str, ask: impl Fn(&mut Section<'_>)) -> Vec<String> {
    let document = Document::parse("b.toml", text, &Some2);
    let mut root = document.root();
    ask(&mut root);
    root.close();
    match document.finish() {
        Ok(()) => Vec::new(),
        Err(faults) => faults.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn every_fault_of_a_file_is_reported_in_one_run() {
    let text = "colour = \"red\"\nlimit = 99\nwait = \"soon\"\non = 3\nmode = \"fats\"\n";
    let found = faults(text, |root| {
        root.integer("limit", 1, 1..=10);
        root.duration("wait", Duration::from_secs(1), Duration::ZERO..=Duration::from_secs(9));
        root.boolean("on", false);
        root.choice("mode", &[("fast", 1), ("slow", 2)], 1);
    });
    assert_eq!(
        found,
        [
            "b.toml:1: colour: no such key; known are limit, wait, on, mode",
            "b.toml:2: limit: got 99, allowed are 1 to 10",
            "b.toml:3: wait: got \"soon\", wanted a span of time such as \"200 ms\" or \"30 s\"",
            "b.toml:4: on: got 3, wanted true or false",
            "b.toml:5: mode: got \"fats\", allowed are fast, slow; did you mean \"fast\"?",
        ]
    );
}

#[test]
fn a_syntax_error_has_its_line() {
    let found = faults("a = 1\nb = = 2\n", |root| {
        root.integer("a", 1, 0..=9);
        root.integer("b", 1, 0..=9);
    });
    assert!(found.iter().any(|line| line.starts_with("b.toml:2: ")), "{found:?}");
}

#[test]
fn references_are_resolved_and_what_they_brought_is_never_printed() {
    let document = Document::parse(
        "b.toml",
        "a = \"x-${TOKEN}-$$\"\nb = \"${NONE:-else}\"\nc = \"${file:/run/secret}\"\nd = \"${EMPTY:-filled}\"\n",
        &Some2,
    );
    let mut root = document.root();
    assert_eq!(root.text("a", ""), "x-hunter2-$");
    assert_eq!(root.text("b", ""), "else");
    assert_eq!(root.text("c", ""), "from-a-file");
    assert_eq!(root.text("d", ""), "filled");
    root.close();
    assert_eq!(document.finish(), Ok(()));

    let found = faults("a = \"${TOKEN}\"\nb = \"${TOKEN}\"\n", |root| {
        root.integer("a", 1, 0..=9);
        root.choice("b", &[("fast", 1)], 1);
    });
    assert_eq!(found.len(), 2);
    assert!(!found.concat().contains("hunter2"), "{found:?}");
}

#[test]
fn a_reference_to_nothing_says_what_is_missing() {
    let ask = |root: &mut Section<'_>| {
        root.text("a", "");
        root.text("b", "");
        root.text("c", "");
    };
    let found =
        faults("a = \"${NONE}\"\nb = \"${NONE:?set it in the unit}\"\nc = \"${file:/nowhere}\"\n", ask);
    assert_eq!(
        found,
        [
            "b.toml:1: a: environment variable NONE is not set",
            "b.toml:2: b: environment variable NONE is not set: set it in the unit",
            "b.toml:3: c: file /nowhere cannot be read: not found",
        ]
    );
}

#[test]
fn amounts_and_spans_are_read_as_people_write_them() {
    let document =
        Document::parse("b.toml", "a = \"64 MiB\"\nb = 1000\nc = \"90s\"\nd = \"5kB\"\n", &Nothing);
    let mut root = document.root();
    assert_eq!(root.bytes("a", 0, 0..=u64::MAX), 64 << 20);
    assert_eq!(root.bytes("b", 0, 0..=u64::MAX), 1000);
    assert_eq!(root.duration("c", Duration::ZERO, Duration::ZERO..=Duration::MAX), Duration::from_secs(90));
    assert_eq!(root.bytes("d", 0, 0..=u64::MAX), 5000);
    root.close();
    assert_eq!(document.finish(), Ok(()));
    assert_eq!(show_bytes(1536), "1536 B");
    assert_eq!(show_duration(Duration::from_secs(90)), "90 s");
}

#[test]
fn sections_nest_and_a_retired_key_points_at_its_new_name() {
    let found = faults("[agent]\nsocket = \"a\"\n[agent.inner]\nx = 1\ny = 2\n", |root| {
        let mut agent = root.section("agent");
        agent.retired("socket", "docker_host");
        let mut inner = agent.section("inner");
        inner.integer("x", 0, 0..=9);
        inner.close();
        agent.close();
    });
    assert_eq!(
        found,
        [
            "b.toml:2: agent.socket: is called \"docker_host\" now",
            "b.toml:5: agent.inner.y: no such key; did you mean \"x\"?",
        ]
    );
}

#[test]
fn settings_show_what_readers_got_and_never_a_secret() {
    struct Outside;
    impl Surroundings for Outside {
        fn variable(&self, _: &str) -> Option<String> {
            Some("geheim".to_owned())
        }
        fn file(&self, _: &str) -> Result<String, String> {
            Ok("geheim".to_owned())
        }
    }
    let text = "[http]\nlisten = \"127.0.0.1:1\"\ntoken = \"geheim\"\nname = \"${NAME}\"\nurl = \"redis://:geheim@h/\"\n\
                token_file = \"/etc/t\"\ndeny = [\"geheim\"]\nsome = [\"a\", \"${file:x}\"]\nwait = \"90 s\"\n";
    let document = Document::parse("t.toml", text, &Outside);
    let mut http = document.root().section("http");
    http.text("listen", "");
    http.optional_text("token");
    http.optional_text("name");
    http.optional_text("url");
    http.optional_text("token_file");
    http.texts("deny");
    http.texts("some");
    http.optional_text("password");
    http.duration("wait", Duration::from_secs(1), Duration::ZERO..=Duration::from_secs(900));
    http.bytes("room", 64 << 20, 0..=u64::MAX);
    http.boolean("quick", true);
    let shown: Vec<String> = document
        .settings()
        .into_iter()
        .map(|s| format!("{} = {}{}", s.key, s.value.unwrap_or_default(), if s.is_given { "" } else { " #" }))
        .collect();
    assert_eq!(
        shown,
        [
            "http.listen = \"127.0.0.1:1\"",
            "http.token = \"***\"",
            "http.name = \"***\"",
            "http.url = \"***\"",
            "http.token_file = \"/etc/t\"",
            "http.deny = \"***\"",
            "http.some = \"***\"",
            "http.password =  #",
            "http.wait = \"90 s\"",
            "http.room = \"64 MiB\" #",
            "http.quick = true #",
        ]
    );
}

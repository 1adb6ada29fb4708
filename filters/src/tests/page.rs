//! `docs/pollen-filter.md` says what is so: its rules and profiles are used, and its lines come out as they are printed.

use crate::{Engine, EngineOptions, Key, Profile, RuleFile};

const PAGE: &str = include_str!("../../../docs/pollen-filter.md");

/// The page's blocks, with what stands behind their fence and the section that they are in.
fn blocks() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut blocks = Vec::new();
    for section in PAGE.split("\n## ") {
        let title = section.lines().next().unwrap();
        let mut rest = section;
        while let Some((_, block)) = rest.split_once("\n```") {
            let (info, block) = block.split_once('\n').unwrap();
            let (body, after) = block.split_once("\n```").unwrap();
            blocks.push((title, info, body));
            rest = after;
        }
    }
    blocks
}

#[test]
fn every_rule_profile_and_line_of_the_page_is_as_it_says() {
    let key = || Some(Key::new(1, b"a key for tests only").unwrap());
    let default = || Engine::new(EngineOptions { key: key(), ..EngineOptions::default() }).unwrap();
    let (mut section, mut engine, mut lines) = ("", None, 0);
    for (title, info, body) in blocks() {
        if title != section {
            (section, engine) = (title, Some(default()));
        }
        match info {
            "toml rules" => {
                let rules = vec![RuleFile::parse("page", body).unwrap()];
                let made =
                    Engine::new(EngineOptions { rules, key: key(), ..EngineOptions::default() }).unwrap();
                assert_eq!(made.check_examples(), []);
                engine = Some(made);
            }
            "toml profile" => {
                let profiles = vec![Profile::parse("page", body).unwrap()];
                let profile = "support".to_owned();
                let options = EngineOptions { profile, profiles, key: key(), ..EngineOptions::default() };
                engine = Some(Engine::new(options).unwrap());
            }
            // What follows from these is tested where they are read.
            "toml configuration" => engine = None,
            "text scrubbed" => {
                let Some(engine) = &engine else { continue };
                let texts: Vec<&str> = body.lines().collect();
                for pair in texts.chunks(2) {
                    let (given, wanted) =
                        (pair[0].strip_prefix("< ").unwrap(), pair[1].strip_prefix("> ").unwrap());
                    assert_eq!(engine.scrub_text(given).unwrap().0, wanted, "{title}");
                    lines += 1;
                }
            }
            other => panic!("nobody tests a block of {other}"),
        }
    }
    assert!(lines >= 4, "{lines}");
}

#[test]
fn the_page_names_every_profile_and_every_key_of_a_rule() {
    for profile in crate::library::profiles().unwrap() {
        assert!(PAGE.contains(&format!("`{}`", profile.name)), "{}", profile.name);
    }
    let keys = "id category description severity pattern keywords value redact validator context context_required \
                strength marker normalise action keep_first keep_last precedence window_bytes finds spares";
    for key in keys.split_whitespace() {
        assert!(PAGE.contains(&format!("`{key}`")), "{key}");
    }
    for action in ["marker", "mask", "hash", "truncate", "remove", "drop", "tag", "off"] {
        assert!(PAGE.contains(&format!("\n| `{action}` |")), "{action}");
    }
}

//! A user's rule with any pattern is refused, or finds in any text what the pattern plainly means.
//!
//! The pattern ends at the first zero byte; what follows is the text.
#![no_main]

use beeacon_filters::{Engine, EngineOptions, Profile, RuleFile};
use libfuzzer_sys::{Corpus, fuzz_target};

const PROFILE: &str = "name = \"fuzz\"\ndescription = \"d\"\n[[use]]\nrules = [\"fuzz\"]\naction = \"marker\"\n";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return Corpus::Reject };
    let (Ok(pattern), text) = (std::str::from_utf8(&data[..end]), &data[end + 1..]) else {
        return Corpus::Reject;
    };
    // Strings of JSON are strings of TOML.
    let Ok(quoted) = serde_json::to_string(pattern) else { return Corpus::Reject };
    let file = format!(
        "[[rule]]\nid = \"fuzz\"\ndescription = \"d\"\ncategory = \"secret\"\npattern = {quoted}\nfinds = [[\"a\", \"a\"]]\nspares = [\"b\"]\n"
    );
    let Ok(file) = RuleFile::parse("fuzz.toml", &file) else { return Corpus::Keep };
    let profile = Profile::parse("fuzz.toml", PROFILE).expect("a good profile");
    let options = EngineOptions {
        profile: "fuzz".into(),
        rules: vec![file],
        profiles: vec![profile],
        ..EngineOptions::default()
    };
    let Ok(engine) = Engine::new(options) else { return Corpus::Keep };
    let mut offsets = vec![0];
    offsets.extend(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as i32 + 1));
    if offsets.last() != Some(&(text.len() as i32)) {
        offsets.push(text.len() as i32);
    }
    let compared = engine.compare(text, &offsets).expect("compares");
    assert!(compared.differences.is_empty(), "{pattern:?} differs: {compared:?}");
    Corpus::Keep
});

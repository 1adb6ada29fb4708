//! Scrubbing any text: no panic, twice is once, a line of JSON stays one, and cutting the text between lines changes nothing.
#![no_main]

use std::sync::LazyLock;

use beeacon_filters::{Continuity, Engine, EngineOptions, Key};
use libfuzzer_sys::fuzz_target;

/// Without what is learned from line to line, which a cut between calls may postpone.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let key = Key::new(1, b"a key for fuzzing only").expect("long enough");
    let options = EngineOptions { key: Some(key), evidence: false, ..EngineOptions::default() };
    Engine::new(options).expect("the built-in profile compiles")
});

fuzz_target!(|data: &[u8]| {
    let engine = &*ENGINE;
    let (cut, data) = data.split_at(data.len().min(1));
    let text = String::from_utf8_lossy(data);
    let once = engine.scrub_text(&text).expect("scrubs").0;
    let twice = engine.scrub_text(&once).expect("scrubs again").0;
    assert_eq!(twice, once, "scrubbed twice");

    for line in text.lines() {
        if serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object() || value.is_array()) {
            let out = engine.scrub_text(line).expect("scrubs a line").0;
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "no json any more: {out}");
        }
    }

    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    if let Some(at) = cut.first().and_then(|cut| ends.get(usize::from(*cut) % ends.len().max(1))) {
        let mut continuity = Continuity::default();
        let mut out = String::new();
        for piece in [&text[..*at], &text[*at..]] {
            out += &engine.scrub_text_with(piece, &mut continuity).expect("scrubs a piece").0;
        }
        assert_eq!(out, once, "cut at {at}");
    }

    // Room for one character at least: where it has none, nothing can be right.
    let at_most = 4 + data.len() / 2;
    let cut = engine.safe_cut(text.as_bytes(), at_most).expect("cuts");
    assert!(text.is_char_boundary(cut), "cut at {cut} of a character");
});

//! Known secrets of any bytes: wherever one stands in a text, plain or encoded, nothing of it remains, and what was taken out was one.
//!
//! The secret ends at the first zero byte. In the text after it, bytes 1 to 4 stand for the secret as it is, in hexadecimal, in base64
//! and percent-encoded: random bytes would seldom hold it.
#![no_main]

use beeacon_filters::{Engine, EngineOptions, KnownSecret, KnownSecrets, Profile};
use libfuzzer_sys::{Corpus, fuzz_target};

const BARE: &str = "name = \"bare\"\ndescription = \"d\"\n[[use]]\nrules = [\"*\"]\naction = \"off\"\n";

/// Known from this length on wherever it stands.
const ANYWHERE_BYTES_MIN: usize = 11;

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let six = |bits: &[u8]| (0..6).fold(0, |value, at| value << 1 | bits.get(at).copied().unwrap_or(0));
    bits.chunks(6).map(|bits| char::from(ALPHABET[usize::from(six(bits))])).collect()
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return Corpus::Reject };
    let Ok(secret) = std::str::from_utf8(&data[..end]) else { return Corpus::Reject };
    let secret = secret.trim_ascii();
    // What an escape before or behind it does to a line is tested elsewhere; here lines are taken as they are.
    if secret.contains(['\\', '\n', '{', '<', '>']) || secret.len() > 400 {
        return Corpus::Reject;
    }
    let known = KnownSecrets::new(vec![KnownSecret::new("a", secret.as_bytes().to_vec())]).expect("one is not many");
    let is_known = known.report().secrets == 1;
    let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret
        .bytes()
        .map(|byte| match char::from(byte) {
            plain if plain.is_ascii_alphanumeric() || "-_.~".contains(plain) => plain.to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let ways = [secret.to_owned(), hexadecimal, base64(secret.as_bytes()), percent];
    let mut text = String::new();
    for character in String::from_utf8_lossy(&data[end + 1..]).chars() {
        match character {
            '\u{1}'..='\u{4}' => text += &ways[character as usize - 1],
            '{' | '\\' => text.push('.'),
            character => text.push(character),
        }
    }
    let options = EngineOptions {
        profile: "bare".into(),
        profiles: vec![Profile::parse("bare.toml", BARE).expect("a good profile")],
        known: Some(known),
        ..EngineOptions::default()
    };
    let engine = Engine::new(options).expect("no rule is a good set of rules");
    let out = engine.scrub_text(&text).expect("scrubs").0;
    if !is_known {
        assert_eq!(out, text, "what is refused is not looked for");
        return Corpus::Keep;
    }
    assert_eq!(engine.scrub_text(&out).expect("scrubs again").0, out, "scrubbed twice");
    if secret.len() >= ANYWHERE_BYTES_MIN {
        for way in &ways {
            assert!(!out.contains(way.as_str()), "{way:?} remains in {out:?}");
        }
    }
    // Outside of markers every byte was there before, in this order.
    let mut rest = text.as_str();
    for piece in out.split("<VAULT_REF:a>") {
        let at = rest.find(piece).expect("something new in the text");
        rest = &rest[at + piece.len()..];
    }
    Corpus::Keep
});

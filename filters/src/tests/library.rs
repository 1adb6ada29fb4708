//! The rules and profiles that come with the program.

use crate::{Engine, EngineOptions, Key};

fn engine(profile: &str) -> Engine {
    let key = Key::new(1, b"a key for tests only").unwrap();
    Engine::new(EngineOptions { profile: profile.into(), key: Some(key), ..EngineOptions::default() })
        .unwrap()
}

#[test]
fn every_rule_finds_and_spares_what_its_examples_say() {
    let engine = engine("default");
    assert!(engine.rules().len() >= 20);
    let faults: Vec<String> = engine.check_examples().iter().map(ToString::to_string).collect();
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn every_profile_makes_an_engine_and_they_differ() {
    let names = ["default", "secrets", "gdpr", "ccpa", "hipaa", "pci_dss", "soc2"];
    let mut ids: Vec<_> = names.iter().map(|name| engine(name).rule_set_id()).collect();
    ids.sort_unstable();
    ids.dedup();
    // ccpa and hipaa choose the same rules and actions today, gdpr those of the default.
    assert!(ids.len() >= names.len() - 2, "{ids:?}");
}

#[test]
fn no_built_in_rule_reads_every_byte_or_is_built_lazily() {
    let engine = engine("default");
    let verifiers = engine.verifiers();
    assert_eq!(verifiers.len(), engine.rules().len());
    for (active, verifier) in engine.rules().iter().zip(&verifiers) {
        assert!(!active.cost.reads_every_byte, "{}", active.rule.id());
        assert!(verifier.precomputed, "{}: verifier is not precomputed", active.rule.id());
    }
    let total: usize = verifiers.iter().map(|verifier| verifier.memory_bytes).sum();
    let total = total + engine.finder_bytes();
    assert!(total < 16 << 20, "the default profile takes {total} bytes");
}

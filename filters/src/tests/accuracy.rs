//! How accurate the default profile is on labelled lines, and that the plain meaning is what its words say.

use crate::corpus::labelled::{self, Labelled};
use crate::corpus::score::{self, Score};
use crate::{Engine, EngineOptions};

fn scored(lines: &[Labelled]) -> Score {
    score::score(&Engine::new(EngineOptions::default()).unwrap(), lines).unwrap()
}

#[test]
fn of_the_labelled_lines_of_services_nearly_all_is_taken_out_and_little_else() {
    let score = scored(&labelled::mixed(77, 1_500_000, 8));
    let labels: u64 = score.kinds.values().map(|kind| kind.labelled).sum();
    assert!(labels > 2_000, "{labels} labels");
    assert!(score.recall() >= 0.995, "recall {}: {score:?}", score.recall());
    assert!(score.precision() >= 0.99, "precision {}: {score:?}", score.precision());
    // The addresses at the lines' beginnings are many and easy: the rest is held to the same.
    let mut others = score.clone();
    others.kinds.remove("ipv4");
    assert!(others.recall() >= 0.995, "recall {}: {score:?}", others.recall());
    assert!(others.precision() >= 0.98, "precision {}: {score:?}", others.precision());
    let (recall, precision) = score.of("card", score::CARDS);
    assert_eq!(recall.to_bits(), 1_f64.to_bits(), "every card: {score:?}");
    assert!(precision >= 0.90, "cards among random order ids: {score:?}");
    assert_eq!(score.of("ssn", &[]).0.to_bits(), 1_f64.to_bits(), "every number with dashes: {score:?}");
}

#[test]
fn of_the_lines_made_to_confuse_nearly_all_is_taken_out_and_little_else() {
    let score = scored(&labelled::hard(78, 1_000_000));
    assert!(score.recall() >= 0.995, "recall {}: {score:?}", score.recall());
    assert!(score.precision() >= 0.99, "precision {}: {score:?}", score.precision());
    let (recall, precision) = score.of("card", score::CARDS);
    assert!(recall >= 1.0 && precision >= 0.90, "cards: {score:?}");
}

#[test]
fn labels_stand_on_their_values_and_the_same_seed_gives_the_same_lines() {
    let lines = labelled::hard(3, 50_000);
    assert_eq!(lines, labelled::hard(3, 50_000));
    assert_ne!(lines, labelled::hard(5, 50_000));
    let emails = lines.iter().flat_map(|line| line.labels.iter().map(move |label| (line, label)));
    for (line, label) in emails.filter(|(_, label)| label.kind == "email") {
        let value = line.text.get(label.start..label.end).unwrap();
        assert!(value.contains('@') && !value.contains(['"', ' ', '\\']), "{value}");
    }
}

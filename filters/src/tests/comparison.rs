//! The fast way compared with the plain meaning, when it is asked for.

use crate::action::Action;
use crate::engine::Engine;
use crate::known::Shelf;
use crate::{EngineOptions, corpus};

#[test]
fn the_library_finds_in_a_mixed_corpus_what_it_means_to() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let text = corpus::mixed(5, 60_000).replace('\n', "");
    let compared = engine.compare(text.as_bytes(), &[0, i32::try_from(text.len()).unwrap()]).unwrap();
    assert!(compared.same > 50 && compared.differences.is_empty(), "{compared:?}");
    assert_eq!(engine.statistics().rules.iter().map(|rule| rule.candidates).sum::<u64>(), 0);
}

#[test]
fn a_rule_that_is_found_by_the_wrong_thing_is_told_with_its_span_and_no_text() {
    let text = "[[rule]]\nid = 'wrong'\ncategory = 'c'\ndescription = 'd'\npattern = 'q[0-9]+'\n\
                finds = [['q1', 'q1']]\nspares = ['x']\n[rule.anchor]\nliterals = ['q7']\n";
    let file = crate::rule::RuleFile::read("r", text).unwrap();
    let chosen = file.rules().iter().map(|rule| (rule.clone(), Action::Marker)).collect();
    let engine = Engine::ready(chosen, EngineOptions::default(), Shelf::default()).unwrap();
    let compared = engine.compare(b"nothingsee q71 and q81", &[0, 7, 22]).unwrap();
    let [one] = compared.differences.as_slice() else { panic!("{compared:?}") };
    assert_eq!((one.rule.as_str(), one.missed, one.extra), ("wrong", 1, 0));
    assert_eq!((one.line, one.start, one.end, compared.same), (1, 12, 15, 1));
    assert!(!format!("{compared:?}").contains("q81"));
}

#[test]
fn a_way_that_is_found_by_the_end_of_its_line_is_found_beside_one_that_is_not() {
    let text = "[[rule]]\nid = 'ways'\ncategory = 'c'\ndescription = 'd'\npattern = '(?i)ab+c|x[0-9a-f]{4,8}$'\n\
                finds = [['abc', 'abc']]\nspares = ['x']\n";
    let file = crate::rule::RuleFile::read("r", text).unwrap();
    let chosen = file.rules().iter().map(|rule| (rule.clone(), Action::Marker)).collect();
    let engine = Engine::ready(chosen, EngineOptions::default(), Shelf::default()).unwrap();
    let text = b"x12ab.x1234567abcx1234xabcd";
    for offsets in [[0, 6, 14, 14, 17, 27], [0, 0, 5, 14, 22, 27]] {
        let compared = engine.compare(text, &offsets).unwrap();
        assert!(compared.same >= 3 && compared.differences.is_empty(), "{offsets:?} {compared:?}");
    }
}

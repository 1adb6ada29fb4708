//! Every path of the scan, with vectors of any width and without, finds the same in any text, and what the rules plainly mean.
#![no_main]

use std::sync::LazyLock;

use beeacon_filters::{Engine, EngineOptions, ProcessorLevel};
use libfuzzer_sys::fuzz_target;

/// One engine for each path that this machine has.
static ENGINES: LazyLock<Vec<(ProcessorLevel, Engine)>> = LazyLock::new(|| {
    let engine = |level| {
        let options = EngineOptions { level: Some(level), ..EngineOptions::default() };
        (level, Engine::new(options).expect("the built-in profile compiles"))
    };
    ProcessorLevel::available().into_iter().map(engine).collect()
});

fuzz_target!(|data: &[u8]| {
    let found = ENGINES.iter().map(|(level, engine)| (level, engine.scan(data).expect("scans")));
    let found: Vec<_> = found.collect();
    for pair in found.windows(2) {
        let [(one, here), (other, there)] = pair else { continue };
        assert_eq!(here, there, "{one:?} and {other:?} differ");
    }
    let Some((level, engine)) = ENGINES.last() else { return };
    let compared = engine.compare(data, &[0, data.len() as i32]).expect("compares");
    assert!(compared.differences.is_empty(), "{level:?} is not what the rules mean: {compared:?}");
});

//! `beeacon test`: unit tests of alert rules, on the real filter, the real store and the real query engine.

mod world;

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use beeacon_alerts::rules::RuleFile;
use beeacon_alerts::unit_test::{self, TestFile};

pub(crate) use self::world::Planner;
use self::world::Room;
use crate::alert_files::Faults;
use crate::command_line::TestArguments;
use crate::config;
use crate::exit::Exit;

pub(crate) async fn run(arguments: TestArguments) -> anyhow::Result<Exit> {
    let filter =
        config::load_filter(&arguments.filter)?.engine_to_try().context("make the pollen filter ready")?;
    let mut out = io::stdout().lock();
    let (mut tests, mut failures) = (0, 0);
    for path in &arguments.files {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        let file = TestFile::read(&text).map_err(|error| Faults::of(path, &error))?;
        let mut groups = Vec::new();
        for rules in &file.rule_files {
            let rules = path.parent().unwrap_or(Path::new("")).join(rules);
            let text =
                std::fs::read_to_string(&rules).with_context(|| format!("read {}", rules.display()))?;
            groups.extend(RuleFile::read(&text).map_err(|error| Faults::of(&rules, &error))?.groups);
        }
        for test in &file.tests {
            tests += 1;
            let mut room = Room::open(filter.clone()).await?;
            let failed = unit_test::run(&mut room, &file, &groups, test).await;
            room.close().await;
            for failure in &failed {
                writeln!(out, "{name}:{failure}")?;
            }
            failures += usize::from(!failed.is_empty());
        }
    }
    writeln!(out, "{tests} tests, {failures} failed")?;
    Ok(if failures == 0 { Exit::Done } else { Exit::Failed })
}

//! `beeacon validate`: every fault of a configuration at once, those in the files that it names included: rules of the filter, rules and receivers of alerts.

use std::io::Write;

use anyhow::Context;

use crate::command_line::{CommonArguments, ListenArguments, ValidateArguments};
use crate::config;
use crate::exit::Exit;

pub(crate) fn run(arguments: ValidateArguments) -> anyhow::Result<Exit> {
    let common = CommonArguments { config: Some(arguments.config.clone()), data: None };
    let config = config::load(&common, &ListenArguments::default())?;
    let engine = config.filter.check().context("make the pollen filter ready")?;
    let faults = engine.check_examples();
    if !faults.is_empty() {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::bail!("{}", faults.join("\n"));
    }
    config.server.alerts.files.read()?;
    let rules = engine.rules().len();
    writeln!(std::io::stdout(), "{} is valid; {rules} rules run", arguments.config.display())?;
    Ok(Exit::Done)
}

//! `beeacon doctor`: looks at what Beeacon needs on this host and says how to mend what is missing.

use std::io::Write;

use beeacon_agent::doctor::{Severity, examine};

use crate::command_line::{DoctorArguments, ListenArguments};
use crate::exit::Exit;
use crate::{config, up};

pub(crate) async fn run(arguments: DoctorArguments) -> anyhow::Result<Exit> {
    let mut config = config::load(&arguments.common, &ListenArguments::default())?;
    up::apply(&arguments.docker, &mut config.agent);
    if let Some(collector) = arguments.collector {
        config.agent.collector = collector;
    }
    let findings = examine(&config.agent).await;
    let mut out = std::io::stdout().lock();
    let mut worst = Severity::Fine;
    for finding in &findings {
        let mark = match finding.severity {
            Severity::Fine => "ok     ",
            Severity::Warning => "warning",
            Severity::Fault => "FAULT  ",
        };
        writeln!(out, "{mark} {}: {}", finding.check, finding.message)?;
        worst = worst.max(finding.severity);
    }
    Ok(if worst == Severity::Fault { Exit::Failed } else { Exit::Done })
}

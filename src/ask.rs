//! What can be asked of an agent that runs on this host, through the socket in its data directory.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use beeacon_agent::door::client::{self, DoorError};
use beeacon_agent::door::top;
use beeacon_agent::replay::{self, Replay};

use crate::command_line::{AgentAction, CommonArguments, ListenArguments, Listing};
use crate::config;
use crate::exit::Exit;

/// How often `top` looks.
const TOP_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(action: AgentAction) -> anyhow::Result<Exit> {
    let asked = match action {
        AgentAction::Top { common, once } => {
            let data = config::load(&common, &ListenArguments::default())?.agent.data;
            let is_terminal = std::io::stdout().is_terminal();
            top::run(&data, TOP_EVERY, once, is_terminal, &mut std::io::stdout()).await
        }
        AgentAction::Tap { common, container, format } => {
            let data = config::load(&common, &ListenArguments::default())?.agent.data;
            let give = |line: &str| {
                let shown = if format == Listing::Json { line.to_owned() } else { client::for_people(line) };
                writeln!(std::io::stdout(), "{shown}").map(|()| true)
            };
            client::tap(&data, container.as_deref(), give).await
        }
        AgentAction::Replay { common, current, since, mib_max, format } => {
            let current =
                CommonArguments { config: current.or_else(replay::config_in_use), ..common.clone() };
            let load = |common: &CommonArguments| {
                let config = config::load(common, &ListenArguments::default())?;
                Ok::<_, anyhow::Error>((config.agent, config.filter))
            };
            let (before, after) = (load(&current)?, load(&common)?);
            let report =
                Replay { before, after, since, bytes_max: mib_max.saturating_mul(1 << 20) }.run().await?;
            let shown = match format {
                Listing::Json => serde_json::to_string_pretty(&report)? + "\n",
                Listing::Table => replay::table(&report),
            };
            Ok(std::io::stdout().write_all(shown.as_bytes())?)
        }
    };
    match asked {
        // Whoever reads has enough.
        Err(DoorError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        asked => asked.map(|()| Exit::Done).map_err(anyhow::Error::from),
    }
}

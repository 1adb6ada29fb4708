//! What can be asked of an agent that runs on this host, through the socket in its data directory.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use beeacon_agent::door::client::{self, DoorError};
use beeacon_agent::door::top;

use crate::command_line::{AgentAction, ListenArguments, Listing};
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
    };
    match asked {
        // Whoever reads has enough.
        Err(DoorError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        asked => asked.map(|()| Exit::Done).map_err(anyhow::Error::from),
    }
}

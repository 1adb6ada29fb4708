//! The verbs that stay: `up`, `server`, `agent`, `demo`. Each opens what it needs, runs until asked to stop, and drains.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use beeacon_access::{Role, TokenHash, new_token};
use beeacon_agent::container::ReaderChoice;
use beeacon_agent::pollen::FilterConfig;
use beeacon_agent::reload::{self, Load};
use beeacon_agent::{Agent, AgentConfig};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ask;
use crate::command_line::{
    AgentArguments, CommonArguments, DemoArguments, DockerArguments, ListenArguments, Reader,
    ServerArguments, UpArguments,
};
use crate::config::{self, Config};
use crate::demo::Containers;
use crate::exit::Exit;
use crate::server::{Companion, Server, locked};
use crate::stamp::{Stamp, stamp};
use crate::tokens::{self, TokenSet};

/// The name of the token of an agent in this process.
const THIS_PROCESS: &str = "this process";

/// Lines a second of a demo that nobody asked for in particular.
const DEMO_RATE: u32 = 20;

pub(crate) async fn up(arguments: UpArguments) -> anyhow::Result<Exit> {
    let origin = Origin::of(&arguments.common, &arguments.listen);
    let mut config = config::load(&arguments.common, &arguments.listen)?;
    apply(&arguments.docker, &mut config.agent);
    if let Some(missing) = missing_docker(&config.agent) {
        if !arguments.or_demo {
            anyhow::bail!("{missing}; start Docker, name it with --docker-host, or try \"beeacon demo\"");
        }
        say(&format!("{missing}: running the demo instead, with made-up containers and made-up data"));
        let demo = DemoArguments { common: arguments.common, listen: arguments.listen, rate: DEMO_RATE };
        return self::demo(demo).await;
    }
    let file = arguments.common.config.clone();
    let load = move || {
        let mut config = config::load(&arguments.common, &arguments.listen)?;
        apply(&arguments.docker, &mut config.agent);
        Ok((config.agent, config.filter))
    };
    together(config, origin, Some((file, Box::new(load)))).await
}

/// What a server's configuration is read from.
struct Origin {
    common: CommonArguments,
    listen: ListenArguments,
    /// What the file looked like before it was read.
    looked: Stamp,
}

impl Origin {
    fn of(common: &CommonArguments, listen: &ListenArguments) -> Origin {
        let looked = common.config.as_deref().and_then(stamp);
        Origin { common: common.clone(), listen: listen.clone(), looked }
    }
}

/// Where tokens are read again from, if there is a file; `own` is that of an agent in this process.
fn token_source(origin: Origin, own: Option<TokenHash>) -> Option<tokens::Source> {
    let Origin { common, listen, looked } = origin;
    let file = common.config.clone()?;
    let load = move || {
        let server = config::load(&common, &listen)?.server;
        let mut tokens = server.access.tokens;
        if let Some(own) = own.clone().filter(|_| !tokens.is_empty()) {
            tokens.add(THIS_PROCESS, Role::Agent, own)?;
        }
        Ok(TokenSet { token: server.token, tokens, logins: server.access.logins })
    };
    Some(tokens::Source { file, looked, load: Arc::new(load) })
}

pub(crate) async fn server(arguments: ServerArguments) -> anyhow::Result<Exit> {
    let origin = Origin::of(&arguments.common, &arguments.listen);
    let config = config::load(&arguments.common, &arguments.listen)?;
    let server = Server::open(config.server).await?;
    let tokens = token_source(origin, None);
    say(&format!("listening on {}", server.url()?));
    if let Some(address) = server.postgres_address() {
        say(&format!("PostgreSQL clients on {address}"));
    }
    server.run(None, tokens, stop_signal()?).await?;
    Ok(Exit::Done)
}

pub(crate) async fn agent(arguments: AgentArguments) -> anyhow::Result<Exit> {
    if let Some(action) = arguments.action {
        return ask::run(action).await;
    }
    let load = move || {
        let mut config = config::load(&arguments.common, &ListenArguments::default())?;
        apply(&arguments.docker, &mut config.agent);
        if let Some(collector) = &arguments.collector {
            config.agent.collector.clone_from(collector);
        }
        config.agent.push.stdin |= arguments.stdin;
        anyhow::Ok((config.agent, config.filter, arguments.common.config.clone()))
    };
    let (agent, filter, file) = load()?;
    let worker = Worker::new(agent, &filter)?;
    let stop = cancelled_by(stop_signal()?);
    follow(&worker.agent, file, filter, stop.clone(), move || {
        load().map(|(agent, filter, _)| (agent, filter))
    });
    worker.agent.run(stop).await?;
    Ok(Exit::Done)
}

pub(crate) async fn demo(arguments: DemoArguments) -> anyhow::Result<Exit> {
    let origin = Origin::of(&arguments.common, &arguments.listen);
    let mut config = config::load(&arguments.common, &arguments.listen)?;
    let directory = config.data.join("demo");
    config.agent.docker_host = None;
    config.agent.containers_directory = Some(directory.clone());
    config.agent.reader = ReaderChoice::File;
    let seed = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(1);
    let containers = Containers::create(&directory, seed, Timestamp::now());
    let containers =
        containers.with_context(|| format!("write the demo's logs below {}", directory.display()))?;
    let writer = tokio::spawn(keep_writing(containers, arguments.rate));
    let done = together(config, origin, None).await;
    writer.abort();
    done
}

/// The configuration's file, and how the agent's part of it is read again.
type Reloading =
    (Option<PathBuf>, Box<dyn Fn() -> anyhow::Result<(AgentConfig, FilterConfig)> + Send + Sync>);

/// Server and agent in this process, over loopback: the same way that a line of another host takes. What is the server's in the
/// configuration, but for tokens, changes at the next start only.
async fn together(config: Config, origin: Origin, reloading: Option<Reloading>) -> anyhow::Result<Exit> {
    let Config { data, mut server, mut agent, filter } = config;
    let mut own = None;
    if agent.token.is_none() {
        // Known to this process only, for as long as it lives. It is shown also where none is asked for, since that may change.
        let token = new_token().context("make a token for the agent in this process")?;
        let hash = TokenHash::of(&token);
        if !server.access.tokens.is_empty() {
            server.access.tokens.add(THIS_PROCESS, Role::Agent, hash.clone())?;
        }
        (agent.token, own) = (Some(token), Some(hash));
    }
    let tokens = token_source(origin, own);
    let server = Server::open(server).await?;
    let url = server.url()?;
    agent.collector.clone_from(&url);
    let postgres = server.postgres_address();
    let worker = Worker::new(agent, &filter)?;
    worker.agent.register(&mut locked(&server.registry));
    say(&format!("listening on {url}, data in {}", data.display()));
    if let Some(address) = postgres {
        say(&format!("psql \"host={} port={}\"", address.ip(), address.port()));
    }
    say("ask: beeacon sql \"select service, level, count(*) from logs group by 1, 2\"");

    let (serve_until, served_until) = watch::channel(false);
    let stop = cancelled_by(stop_signal()?);
    let agent = worker.agent.clone();
    if let Some((file, load)) = reloading {
        let (token, url) = (agent.config().token, url.clone());
        follow(&agent, file, filter, stop.clone(), move || {
            let (mut agent, filter) = load()?;
            (agent.token, agent.collector) = (token.clone(), url.clone());
            Ok((agent, filter))
        });
    }
    let serving = tokio::spawn(server.run(Some(Arc::new(worker)), tokens, served_until));
    // The agent drains into the server, so the server ends last.
    let worked = agent.run(stop.clone()).await;
    stop.cancel();
    serve_until.send_replace(true);
    serving.await.context("the server ended badly")??;
    worked?;
    Ok(Exit::Done)
}

/// Takes changes of the configuration while the agent runs.
fn follow(
    agent: &Agent,
    file: Option<PathBuf>,
    filter: FilterConfig,
    stop: CancellationToken,
    load: impl Fn() -> anyhow::Result<(AgentConfig, FilterConfig)> + Send + Sync + 'static,
) {
    let load: Load = Arc::new(move || load().map_err(|error| format!("{error:#}")));
    let agent = agent.clone();
    tokio::spawn(async move {
        if let Err(error) = reload::follow(agent, file, filter, load, stop).await {
            tracing::warn!(%error, "changes of the configuration are not noticed");
        }
    });
}

/// An agent that stands beside a server.
struct Worker {
    agent: Agent,
}

impl Worker {
    fn new(agent: AgentConfig, filter: &FilterConfig) -> anyhow::Result<Self> {
        let pollen = filter.engine(&agent.data).context("make the pollen filter ready")?;
        let agent = Agent::with_pollen(agent, pollen, filter.key_version).context("make the agent ready")?;
        Ok(Worker { agent })
    }
}

impl Companion for Worker {
    fn is_ready(&self) -> bool {
        self.agent.status().healthy
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!(self.agent.status())
    }

    fn pollen_filter(&self) -> serde_json::Value {
        serde_json::json!(self.agent.engine().map(|engine| engine.statistics()))
    }
}

/// Lets the flags win over the file.
pub(crate) fn apply(docker: &DockerArguments, agent: &mut AgentConfig) {
    if let Some(host) = &docker.docker_host {
        agent.docker_host = (host != "none").then(|| host.clone());
    }
    if let Some(directory) = &docker.containers_directory {
        agent.containers_directory = Some(directory.clone());
    }
    match docker.reader {
        None => {}
        Some(Reader::Auto) => agent.reader = ReaderChoice::Auto,
        Some(Reader::File) => agent.reader = ReaderChoice::File,
        Some(Reader::Api) => agent.reader = ReaderChoice::Api,
    }
}

/// What is missing when there is no Docker on this host at all. One that is down for a moment has left its socket.
fn missing_docker(agent: &AgentConfig) -> Option<String> {
    let Some(host) = &agent.docker_host else {
        if !agent.files.is_empty() {
            return None;
        }
        let directory = agent.containers_directory.as_deref().unwrap_or(Path::new(""));
        return (!directory.is_dir()).then(|| format!("no containers in {}", directory.display()));
    };
    let socket = PathBuf::from(host.strip_prefix("unix://")?);
    (!socket.exists()).then(|| format!("no Docker at {}", socket.display()))
}

/// Writes the demo's lines at an even pace.
async fn keep_writing(mut containers: Containers, rate: u32) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    loop {
        pace.tick().await;
        if let Err(error) = containers.write_line(Timestamp::now()) {
            tracing::warn!(error = %error.kind(), "the demo cannot write its logs any more");
            return;
        }
    }
}

/// Becomes true at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let mut asked = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked += 1;
            if asked > 1 {
                tracing::warn!("asked to stop twice: ending without draining");
                std::process::exit(i32::from(Exit::Failed as u8));
            }
            tracing::info!("asked to stop: draining");
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}

fn cancelled_by(mut stop: watch::Receiver<bool>) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelling = token.clone();
    tokio::spawn(async move {
        // An error means that nobody can ask any more, and then nobody does.
        if stop.wait_for(|stop| *stop).await.is_ok() {
            cancelling.cancel();
        }
    });
    token
}

/// Tells the user something. Logs go to standard error too, but may be filtered away.
pub(crate) fn say(message: &str) {
    #[expect(clippy::print_stderr, reason = "it is for the user, and standard output is for data")]
    {
        eprintln!("beeacon: {message}");
    }
}

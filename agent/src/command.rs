//! The verbs of `beeacon-agent`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use beeacon_agent::container::ReaderChoice;
use beeacon_agent::doctor::{Severity, examine};
use beeacon_agent::door::client::{self, DoorError};
use beeacon_agent::door::top;
use beeacon_agent::pollen::FilterConfig;
use beeacon_agent::reload::{self, Load};
use beeacon_agent::replay::{self, REPLAY_MIB_DEFAULT, Replay, ReplayError};
use beeacon_agent::{Agent, AgentConfig};
use beeacon_settings::{Document, Process};
use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

/// How often `top` looks.
const TOP_EVERY: Duration = Duration::from_secs(2);

const EXIT_USAGE: u8 = 64;
const EXIT_IO: u8 = 74;
const EXIT_CONFIG: u8 = 78;

/// Tails this host's containers, scrubs their lines in memory and ships them to a collector.
#[derive(Parser)]
#[command(name = "beeacon-agent", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run until told to stop.
    Run(Options),
    /// Check the configuration, without looking at anything else.
    Validate(Options),
    /// Which containers write how much, and what is behind, from the agent that runs with this data directory.
    Top {
        #[command(flatten)]
        options: Options,
        /// Show it once, and end.
        #[arg(long)]
        once: bool,
    },
    /// Scrubbed lines as they pass, from the agent that runs with this data directory.
    Tap {
        #[command(flatten)]
        options: Options,
        /// Of containers with this name, service or id; * and ? stand for characters.
        #[arg(value_name = "CONTAINER")]
        container: Option<String>,
        /// As JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// What the agent that runs with this data directory counts, in the text format of Prometheus.
    Metrics(Options),
    /// What a changed configuration would do to the logs that this host still has. Nothing is shipped, and no line is shown.
    Replay {
        #[command(flatten)]
        options: Options,
        /// The configuration in use; without it /etc/beeacon/beeacon.toml where that is there, else the defaults.
        #[arg(long, value_name = "FILE")]
        current: Option<PathBuf>,
        /// Only lines of this last while, such as 30m, 1h or 2d; all that are there without it.
        #[arg(long, value_name = "TIME", value_parser = replay::span)]
        since: Option<Duration>,
        /// How much text of each container is looked at, in MiB.
        #[arg(long, value_name = "MIB", default_value_t = REPLAY_MIB_DEFAULT)]
        mib_max: u64,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Check everything the agent needs, and say what to do about what is missing.
    Doctor(Options),
}

#[derive(Clone, clap::Args)]
struct Options {
    /// A TOML file; its sections [agent] and [filter] are read. Options given here win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the collector is.
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// A file with the collector's token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file with the authorities that may sign the collector's certificate.
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Where the agent's id and key are kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where Docker listens: unix:///path, tcp://name:port, or none to read files only. Without it: $DOCKER_HOST.
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
    /// Docker's directory of containers, as seen from here.
    #[arg(long, value_name = "DIR")]
    containers_directory: Option<PathBuf>,
    /// How logs are read.
    #[arg(long)]
    reader: Option<Reader>,
    /// Read standard input too, line by line; after its end, and once everything has been shipped, the program ends.
    #[arg(long)]
    stdin: bool,
    /// The rules' profile, instead of the configured one.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

/// How a report is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reader {
    Auto,
    File,
    Api,
}

impl Options {
    fn resolve(&self) -> anyhow::Result<(AgentConfig, FilterConfig)> {
        let mut config = AgentConfig::from_environment();
        let mut filter = FilterConfig::default();
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let document = Document::parse(&path.display().to_string(), &text, &Process);
            let mut section = document.root().section("agent");
            config = config.read(&document, &mut section);
            section.close();
            filter = FilterConfig::read_document(&document);
            document.finish()?;
        }
        if let Some(profile) = &self.profile {
            filter.profile.clone_from(profile);
        }
        if let Some(collector) = &self.collector {
            config.collector.clone_from(collector);
        }
        if let Some(path) = &self.token_file {
            let token = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            config.token = Some(token.trim().to_owned());
        }
        config.roots = self.roots.clone().or(config.roots);
        config.push.stdin |= self.stdin;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        if let Some(host) = &self.docker_host {
            config.docker_host = (host != "none").then(|| host.clone());
        }
        config.containers_directory = self.containers_directory.clone().or(config.containers_directory);
        match self.reader {
            Some(Reader::Auto) => config.reader = ReaderChoice::Auto,
            Some(Reader::File) => config.reader = ReaderChoice::File,
            Some(Reader::Api) => config.reader = ReaderChoice::Api,
            None => {}
        }
        Ok((config, filter))
    }

    fn validate(&self) -> anyhow::Result<(AgentConfig, FilterConfig)> {
        let (config, filter) = self.without_faults()?;
        filter.check().context("make the pollen filter ready")?;
        Ok((config, filter))
    }

    /// The same, but for faults that only making the pollen filter ready shows.
    fn without_faults(&self) -> anyhow::Result<(AgentConfig, FilterConfig)> {
        let (config, filter) = self.resolve()?;
        let faults = config.faults();
        let label_faults = filter.label_faults(&config.labels);
        if faults.is_empty() && label_faults.is_empty() {
            return Ok((config, filter));
        }
        let lines = faults.iter().map(|fault| format!("agent.{}: {}", fault.key, fault.message));
        let lines: Vec<String> = lines.chain(label_faults).collect();
        anyhow::bail!("{}", lines.join("\n"))
    }
}

/// Reads the command line; what was wrong with it has been said when there is a code.
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        let code = if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        // Nothing can be done when standard error is closed.
        error.print().ok();
        code
    })
}

/// Carries out what was asked for.
pub(crate) fn execute(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(EXIT_IO, &anyhow::Error::new(error)),
    };
    match arguments.verb {
        Verb::Validate(options) => match options.validate() {
            Ok(_) => say("configuration is valid"),
            Err(error) => refuse(EXIT_CONFIG, &error),
        },
        Verb::Top { options, once } => look(&runtime, &options, async |data| {
            let is_terminal = std::io::stdout().is_terminal();
            top::run(&data, TOP_EVERY, once, is_terminal, &mut std::io::stdout()).await
        }),
        Verb::Tap { options, container, json } => look(&runtime, &options, async |data| {
            client::tap(&data, container.as_deref(), |line| {
                let shown = if json { line.to_owned() } else { client::for_people(line) };
                writeln!(std::io::stdout(), "{shown}").map(|()| true)
            })
            .await
        }),
        Verb::Metrics(options) => look(&runtime, &options, async |data| {
            let text = client::metrics(&data).await?;
            Ok(write!(std::io::stdout(), "{text}")?)
        }),
        Verb::Replay { options, current, since, mib_max, format } => {
            let current = current.or_else(replay::config_in_use);
            let before = Options { config: current, ..options.clone() };
            match before.validate().and_then(|before| Ok((before, options.validate()?))) {
                Ok((before, after)) => {
                    let replay = Replay { before, after, since, bytes_max: mib_max.saturating_mul(1 << 20) };
                    match runtime.block_on(replay.run()) {
                        Ok(report) if format == Form::Json => match serde_json::to_string_pretty(&report) {
                            Ok(text) => say(&text),
                            Err(error) => refuse(EXIT_IO, &error.into()),
                        },
                        Ok(report) => say(replay::table(&report).trim_end()),
                        Err(error @ ReplayError::Filter { .. }) => refuse(EXIT_CONFIG, &error.into()),
                        Err(error) => refuse(EXIT_IO, &error.into()),
                    }
                }
                Err(error) => refuse(EXIT_CONFIG, &error),
            }
        }
        Verb::Doctor(options) => match options.resolve() {
            Ok((config, _)) => runtime.block_on(doctor(&config)),
            Err(error) => refuse(EXIT_CONFIG, &error),
        },
        Verb::Run(options) => match options.validate() {
            Ok((config, filter)) => match runtime.block_on(run(config, filter, options)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refuse(EXIT_IO, &error),
            },
            Err(error) => refuse(EXIT_CONFIG, &error),
        },
    }
}

/// Speaks to the agent that runs with the configured data directory.
fn look(
    runtime: &tokio::runtime::Runtime,
    options: &Options,
    ask: impl AsyncFnOnce(PathBuf) -> Result<(), DoorError>,
) -> ExitCode {
    match options.resolve() {
        Ok((config, _)) => match runtime.block_on(ask(config.data)) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has enough.
            Err(DoorError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(error) => refuse(EXIT_IO, &error.into()),
        },
        Err(error) => refuse(EXIT_CONFIG, &error),
    }
}

async fn run(config: AgentConfig, filter: FilterConfig, options: Options) -> anyhow::Result<()> {
    let pollen = filter.engine(&config.data).context("make the pollen filter ready")?;
    let agent = Agent::with_pollen(config, pollen, filter.key_version)?;
    let stop = CancellationToken::new();
    let (stopping, signals) = (stop.clone(), signals()?);
    tokio::spawn(async move {
        signals.await;
        tracing::info!("stopping");
        stopping.cancel();
    });
    let file = options.config.clone();
    // Whoever takes the change makes the filter ready, and says what is wrong with it. Doing so here as well would cost every start with
    // a configuration ten MiB that are never given back.
    let load: Load = Arc::new(move || options.without_faults().map_err(|error| format!("{error:#}")));
    let (followed, stopped) = (agent.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = reload::follow(followed, file, filter, load, stopped).await {
            tracing::warn!(%error, "changes of the configuration are not noticed");
        }
    });
    tracing::info!(agent = %agent.id(), "agent starts");
    agent.run(stop).await?;
    tracing::info!("agent has stopped");
    Ok(())
}

/// Ends at SIGTERM or SIGINT. SIGHUP is a changed configuration.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn doctor(config: &AgentConfig) -> ExitCode {
    let findings = examine(config).await;
    let mut worst = Severity::Fine;
    let mut text = String::new();
    for finding in findings {
        worst = worst.max(finding.severity);
        let mark = match finding.severity {
            Severity::Fine => "ok     ",
            Severity::Warning => "warning",
            Severity::Fault => "FAULT  ",
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.check, finding.message));
    }
    say(text.trim_end());
    if worst == Severity::Fault { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS }
}

fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_IO),
    }
}

fn refuse(code: u8, error: &anyhow::Error) -> ExitCode {
    // Nothing can be done when standard error is closed.
    writeln!(std::io::stderr(), "beeacon-agent: {error:#}").ok();
    ExitCode::from(code)
}

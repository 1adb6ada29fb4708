//! The verbs and their flags. What a flag means in detail stands in its help; what it does, in the module of its verb.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use beeacon_agent::replay::{self, REPLAY_MIB_DEFAULT};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Scrubbed, durable, queryable logs from every container.
#[derive(Debug, Parser)]
#[command(name = "beeacon", version, about, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Everything in one process over the local Docker: agent, collector, store and queries
    Up(UpArguments),
    /// Collector, store and queries for the agents of several hosts
    Server(ServerArguments),
    /// The agent alone, as the small program beeacon-agent runs it
    Agent(AgentArguments),
    /// Run the pollen filter over files or standard input
    Scrub(ScrubArguments),
    /// List the filter's rules, run their examples, or say what each costs
    Rules(RulesArguments),
    /// Check files of alerts, or try a receiver of them
    Alerts(AlertsArguments),
    /// Run unit tests of alert rules, with log lines as input
    Test(TestArguments),
    /// Lines of a running Beeacon, and with -f those that come
    Logs(LogsArguments),
    /// Grafana dashboards and data sources, ready for provisioning
    Dashboards(DashboardsArguments),
    /// Ask a running Beeacon in SQL
    Sql(SqlArguments),
    /// Check a configuration and report every fault of it
    Validate(ValidateArguments),
    /// Check what Beeacon needs on this host, and say how to mend what is missing
    Doctor(DoctorArguments),
    /// Like up, over made-up logs with planted personal data instead of Docker
    Demo(DemoArguments),
    /// Look into a journal that no process has open
    Journal(JournalArguments),
    /// Tokens for people, dashboards and agents
    Token(TokenArguments),
}

/// Flags that configure, in the order in which they win: flag, file, default.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CommonArguments {
    /// The configuration file; every key of it has a default
    #[arg(long, value_name = "FILE", env = "BEEACON_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ListenArguments {
    /// Where HTTP is served; anything but loopback needs a token
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where clients of PostgreSQL are served, or "none"; anything but loopback needs a token and a certificate
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) postgres: Option<String>,
    /// Forward to the Loki at this address too
    #[arg(long, value_name = "URL")]
    pub(crate) loki: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DockerArguments {
    /// Docker's API
    #[arg(long, value_name = "URL", env = "DOCKER_HOST")]
    pub(crate) docker_host: Option<String>,
    /// Where Docker keeps its containers' files
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) containers_directory: Option<PathBuf>,
    /// How containers' logs are read
    #[arg(long, value_enum)]
    pub(crate) reader: Option<Reader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reader {
    /// The file where it can be read, the API otherwise
    Auto,
    /// Only files
    File,
    /// Only the API
    Api,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct UpArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) listen: ListenArguments,
    #[command(flatten)]
    pub(crate) docker: DockerArguments,
    /// Run the demo where there is no Docker, instead of saying so and stopping
    #[arg(long)]
    pub(crate) or_demo: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) listen: ListenArguments,
}

#[derive(Clone, Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArguments {
    #[command(subcommand)]
    pub(crate) action: Option<AgentAction>,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) docker: DockerArguments,
    /// The collector to ship to
    #[arg(long, value_name = "URL")]
    pub(crate) collector: Option<String>,
    /// Read standard input too; after its end, and once everything has been shipped, the program ends
    #[arg(long)]
    pub(crate) stdin: bool,
}

/// What can be asked of an agent that runs here: `beeacon up`, `beeacon agent` or `beeacon-agent`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AgentAction {
    /// Which containers write how much, and what is behind
    Top {
        #[command(flatten)]
        common: CommonArguments,
        /// Show it once, and end
        #[arg(long)]
        once: bool,
    },
    /// Scrubbed lines as they pass
    Tap {
        #[command(flatten)]
        common: CommonArguments,
        /// Of containers with this name, service or id; * and ? stand for characters
        #[arg(value_name = "CONTAINER")]
        container: Option<String>,
        /// How lines are printed
        #[arg(long, value_enum, default_value_t = Listing::Table)]
        format: Listing,
    },
    /// What a changed configuration would do to the logs that this host still has; nothing is shipped, and no line is shown
    Replay {
        #[command(flatten)]
        common: CommonArguments,
        /// The configuration in use; without it /etc/beeacon/beeacon.toml where that is there, else the defaults
        #[arg(long, value_name = "FILE")]
        current: Option<PathBuf>,
        /// Only lines of this last while, such as 30m, 1h or 2d; all that are there without it
        #[arg(long, value_name = "TIME", value_parser = replay::span)]
        since: Option<Duration>,
        /// How much text of each container is looked at, in MiB
        #[arg(long, value_name = "MIB", default_value_t = REPLAY_MIB_DEFAULT)]
        mib_max: u64,
        /// How it is printed
        #[arg(long, value_enum, default_value_t = Listing::Table)]
        format: Listing,
    },
}

/// Which rules run, over what the configuration says.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilterArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    /// The profile, instead of the configured one
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// A file with further rules
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Vec<PathBuf>,
    /// A file with known secrets, instead of the configured one
    #[arg(long, value_name = "FILE")]
    pub(crate) known: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ScrubArguments {
    #[command(subcommand)]
    pub(crate) action: Option<ScrubAction>,
    #[command(flatten)]
    pub(crate) what: ScrubInput,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ScrubAction {
    /// Say what would be found, where, by which rule and why, without the values
    Explain(ScrubInput),
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ScrubInput {
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    /// The files to read; standard input when none is named
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What was found: a sum on standard error when done, or each finding as JSON where it is explained
    #[arg(long, value_enum, default_value_t = Report::None)]
    pub(crate) report: Report,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// Nothing
    #[default]
    None,
    /// JSON: lines, bytes, and hits by rule
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RulesArguments {
    #[command(subcommand)]
    pub(crate) action: RulesAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RulesAction {
    /// The rules that run, what happens to their findings, and how they are found
    List {
        #[command(flatten)]
        filter: FilterArguments,
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Listing::Table)]
        format: Listing,
    },
    /// Run the examples of every rule, built in or your own, whatever the profile
    Test {
        #[command(flatten)]
        filter: FilterArguments,
    },
    /// What each rule costs on a text
    Bench {
        #[command(flatten)]
        filter: FilterArguments,
        /// The text; made-up log lines when none is named
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// How it is printed
        #[arg(long, value_enum, default_value_t = Listing::Table)]
        format: Listing,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AlertsArguments {
    #[command(subcommand)]
    pub(crate) action: AlertsAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AlertsAction {
    /// Check files of rules, of receivers and of unit tests: every fault at once, with its line; ends with 78 when there is one
    Check {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Send a message that says that it is a test, with what is configured, and tell what became of it
    Test(TestReceiverArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TestReceiverArguments {
    /// The receiver's name
    #[arg(value_name = "RECEIVER")]
    pub(crate) receiver: String,
    /// Then send that it is over, so that an incident that was opened is closed
    #[arg(long)]
    pub(crate) resolved: bool,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TestArguments {
    /// The files of unit tests; the rule files that they name stand beside them
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// Columns for people
    #[default]
    Table,
    /// JSON
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SqlArguments {
    /// The query; without one, a shell on a terminal, or the statements of standard input
    #[arg(value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// The values of $1, $2, … in the query, as texts; may be given several times
    #[arg(long = "parameter", short = 'p', value_name = "VALUE")]
    pub(crate) parameters: Vec<String>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) server: AskedServer,
}

/// Which Beeacon is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskedServer {
    /// The Beeacon to ask
    #[arg(long, value_name = "URL", env = "BEEACON_URL", default_value = "http://127.0.0.1:4880")]
    pub(crate) url: String,
    /// A file with the token
    #[arg(long, value_name = "FILE", env = "BEEACON_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the certificates to trust, for https
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only lines with this text, whatever its case
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Go on with the lines that come
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines of this service; may be given several times
    #[arg(long, short, value_name = "NAME")]
    pub(crate) service: Vec<String>,
    /// Only lines of this level; may be given several times
    #[arg(long, short, value_name = "LEVEL")]
    pub(crate) level: Vec<String>,
    /// How far back, such as 15m, 2h, 7d
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    pub(crate) since: Span,
    /// The last so many lines of that time
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1_000)]
    pub(crate) lines: usize,
    #[command(flatten)]
    pub(crate) server: AskedServer,
}

/// A span of time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

fn span(text: &str) -> Result<Span, String> {
    replay::span(text).map(Span)
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DashboardsArguments {
    #[command(subcommand)]
    pub(crate) action: DashboardsAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DashboardsAction {
    /// Write the whole provisioning tree
    Export {
        /// Where to, such as /etc/grafana/provisioning
        directory: PathBuf,
        /// Replace files that are there
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people; control characters are escaped
    #[default]
    Table,
    /// A JSON array of objects
    Json,
    /// A JSON object per line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// A Parquet file; into a file or a pipe
    Parquet,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ValidateArguments {
    /// The configuration file
    #[arg(value_name = "FILE", env = "BEEACON_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) docker: DockerArguments,
    /// The collector to reach
    #[arg(long, value_name = "URL")]
    pub(crate) collector: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DemoArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) listen: ListenArguments,
    /// Lines a second, over all made-up containers
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make one: it is printed once, on standard output; the section for the configuration, which holds only hashes, on standard error
    New {
        /// What its holder may do
        #[arg(long, value_enum)]
        role: TokenRole,
        /// Its name, in the audit file and as the user of the PostgreSQL door
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// The names and roles of the tokens that a configuration has
    List {
        /// The configuration
        #[arg(long, value_name = "FILE", env = "BEEACON_CONFIG")]
        config: PathBuf,
    },
    /// Take a token out of a configuration; a server that runs with it notices within seconds
    Revoke {
        /// The token's name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The configuration
        #[arg(long, value_name = "FILE", env = "BEEACON_CONFIG")]
        config: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Ships lines, and nothing else
    Agent,
    /// Reads: SQL, status, metrics, alerts
    Viewer,
    /// Also works with alerts
    Editor,
    /// Everything
    Admin,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct JournalArguments {
    #[command(subcommand)]
    pub(crate) action: JournalAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum JournalAction {
    /// Read every record and check every checksum; changes nothing
    Verify {
        /// The journal's directory, such as beeacon-data/journal
        directory: PathBuf,
    },
    /// Print every record: where it stands, and what its entry says about itself
    Dump {
        /// The journal's directory, such as beeacon-data/journal
        directory: PathBuf,
        /// Print the scrubbed lines too
        #[arg(long)]
        messages: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        assert_eq!(span("15m"), Ok(Span(Duration::from_secs(900))));
        assert_eq!(span("2d"), Ok(Span(Duration::from_secs(172_800))));
        for wrong in ["", "15", "m", "-1h", "1y", "99999999999999999999d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn agent_runs_an_agent_or_asks_one() {
        let agent = |words: &[&str]| match CommandLine::try_parse_from(words).unwrap().verb {
            Verb::Agent(arguments) => arguments,
            other => panic!("{other:?}"),
        };
        let run = agent(&["beeacon", "agent", "--collector", "http://c:4880"]);
        assert!(run.action.is_none() && run.collector.is_some());
        let tap = agent(&["beeacon", "agent", "tap", "web*", "--format", "json"]).action;
        assert!(
            matches!(tap, Some(AgentAction::Tap { container: Some(name), format: Listing::Json, .. }) if name == "web*")
        );
    }

    #[test]
    fn the_command_line_is_well_formed_and_scrub_takes_files_or_explain() {
        CommandLine::command().debug_assert();
        let scrub = |words: &[&str]| match CommandLine::try_parse_from(words).unwrap().verb {
            Verb::Scrub(arguments) => arguments,
            other => panic!("{other:?}"),
        };
        let plain = scrub(&["beeacon", "scrub", "--profile", "secrets", "a.log"]);
        assert!(plain.action.is_none());
        assert_eq!(plain.what.files, [PathBuf::from("a.log")]);
        let explain = scrub(&["beeacon", "scrub", "explain", "--known", "k.toml", "a.log"]);
        let Some(ScrubAction::Explain(input)) = explain.action else { panic!("no explain") };
        assert_eq!(input.files, [PathBuf::from("a.log")]);
        assert_eq!(input.filter.known, Some(PathBuf::from("k.toml")));
    }
}

//! The program `beeacon`: reads the command line and the configuration, composes the rooms, and ends with a documented
//! exit code. See ARCHITECTURE.md for the rooms.

mod alert_files;
mod alert_verbs;
mod alerts;
mod ask;
mod asked;
mod client;
mod command_line;
mod config;
mod dashboards;
mod demo;
mod doctor;
mod doors;
mod events;
mod exit;
mod journal;
mod logs;
mod openapi;
mod page;
mod relations;
mod routes;
mod rule_tests;
mod rules;
mod scrub;
mod server;
mod shell;
mod sql;
mod stamp;
mod status;
mod tls;
mod token;
mod tokens;
mod up;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{CommandLine, Verb};
use crate::exit::Exit;

/// The C library's allocator keeps what large frames took in one arena per thread; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let verb = match CommandLine::try_parse() {
        Ok(line) => line.verb,
        Err(error) => {
            // Nothing can be done when standard error is closed.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    beeacon_agent::process::start_logging();
    beeacon_agent::process::harden();
    match run(verb) {
        Ok(exit) => exit.into(),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of the program are for its user")]
            {
                eprintln!("beeacon: {error:#}");
            }
            exit_of(&error).into()
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match verb {
        Verb::Up(arguments) => runtime.block_on(up::up(arguments)),
        Verb::Server(arguments) => runtime.block_on(up::server(arguments)),
        Verb::Agent(arguments) => runtime.block_on(up::agent(arguments)),
        Verb::Demo(arguments) => runtime.block_on(up::demo(arguments)),
        Verb::Logs(arguments) => runtime.block_on(logs::run(arguments)),
        Verb::Dashboards(arguments) => dashboards::run(arguments),
        Verb::Sql(arguments) => runtime.block_on(sql::run(arguments)),
        Verb::Doctor(arguments) => runtime.block_on(doctor::run(arguments)),
        Verb::Scrub(arguments) => scrub::run(arguments),
        Verb::Rules(arguments) => rules::run(arguments),
        Verb::Alerts(arguments) => runtime.block_on(alert_verbs::run(arguments)),
        Verb::Test(arguments) => runtime.block_on(rule_tests::run(arguments)),
        Verb::Validate(arguments) => validate::run(arguments),
        Verb::Journal(arguments) => journal::run(arguments),
        Verb::Token(arguments) => token::run(arguments),
    }
}

/// What kind of fault ends the program.
fn exit_of(error: &anyhow::Error) -> Exit {
    if error.chain().any(|cause| cause.is::<beeacon_settings::Faults>() || cause.is::<alert_files::Faults>())
    {
        Exit::Configuration
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        Exit::InputOutput
    } else {
        Exit::Failed
    }
}

//! `beeacon-agent`: the agent as a small program of its own.
//!
//! Exit codes: 0 stopped in order, 64 wrong usage, 74 input or output failed, 78 wrong configuration.

use std::process::ExitCode;

mod command;

fn main() -> ExitCode {
    beeacon_agent::process::start_logging();
    beeacon_agent::process::harden();
    match command::parse() {
        Ok(arguments) => command::execute(arguments),
        Err(code) => code,
    }
}

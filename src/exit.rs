//! How the program ends. The numbers are those of `sysexits.h`, and part of the interface.

use std::process::ExitCode;

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It was tried and did not succeed: a query failed, a journal is damaged, the doctor found something.
    Failed = 1,
    /// The command line is at fault.
    Usage = 64,
    /// The configuration is at fault.
    Configuration = 78,
    /// A disk or a socket is at fault.
    InputOutput = 74,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

//! The closed sets of the schema: severity and output stream.

/// A line's severity, detected cheaply by the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing in the line said.
    #[default]
    Unknown = 0,
    /// `trace`.
    Trace = 1,
    /// `debug`.
    Debug = 2,
    /// `info`, `notice`.
    Info = 3,
    /// `warn`, `warning`.
    Warn = 4,
    /// `error`.
    Error = 5,
    /// `fatal`, `critical`, `panic`, `alert`, `emergency`.
    Fatal = 6,
}

impl Level {
    /// Every level, in the order of its number.
    pub const ALL: [Level; 7] =
        [Level::Unknown, Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

    /// The name as SQL users see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Unknown => "unknown",
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

/// Which of a process's outputs a line was written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stream {
    /// Standard output; also everything a container with a terminal prints.
    #[default]
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

impl Stream {
    /// Every stream, in the order of its number.
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// The name as Docker and SQL users see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

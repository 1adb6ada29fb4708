//! Sources that cannot be read again: standard input, syslog, and the doors for Loki's and OpenTelemetry's senders.
//!
//! What always holds:
//! - whoever hands over lines is answered only when they stand in the spool and survive a power cut, scrubbed;
//! - a line's place is given here: the source `push:<agent>:<door>`, and (epoch, sequence) in it, where the epoch grows with
//!   every start. So exactly-once begins at the spool; a sender that repeats what was answered sends a second line;
//! - names that come with lines (host, service, container) go through the pollen filter as the text does;
//! - everything is bounded in bytes, and pressure reaches the sender: an answer that waits, or a refusal that says so.
//!
//! ```text
//! stdin, syslog, http ─ lines ─► lane: batch, filter, encode (a thread) ─ frame ─► spool ─► pump ─► collector
//!        ◄───────────── answer ──────────────────────────────────────────── fdatasync
//! ```
//! [`lane`] is the one consumer; [`syslog`], [`loki`] and [`otlp`] are pure; [`http_door`], [`syslog_door`] and [`stdin`] are
//! the edges.

pub mod doors;
pub mod http_door;
pub mod lane;
pub mod loki;
pub mod otlp;
pub mod stdin;
pub mod syslog;
pub mod syslog_door;

use std::net::SocketAddr;
use std::sync::Arc;

use beeacon_record::{Level, Origin, Stream};
use beeacon_settings::Section;
use bytes::Bytes;

pub use lane::{Lane, LaneParts, PushError, PushSender};

/// Which door lines came through; each is a source of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// Standard input.
    Stdin,
    /// Syslog over TCP or UDP.
    Syslog,
    /// Loki's push request.
    Loki,
    /// OpenTelemetry's log export over HTTP.
    Otlp,
}

impl Door {
    /// Its name in sources and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Door::Stdin => "stdin",
            Door::Syslog => "syslog",
            Door::Loki => "loki",
            Door::Otlp => "otlp",
        }
    }
}

/// A line as a door takes it in: raw, so it can be neither printed nor encoded.
#[derive(Clone)]
pub struct PushLine {
    /// Where it comes from; an empty host is the agent's own.
    pub origin: Arc<Origin>,
    /// When it was written, in nanoseconds since 1970; none when it does not say.
    pub timestamp_ns: Option<i64>,
    /// Its severity, where it comes with one.
    pub level: Option<Level>,
    /// Which output it stands for.
    pub stream: Stream,
    /// What else came with it.
    pub attributes: Vec<(String, String)>,
    /// Its text without the newline.
    pub text: Bytes,
}

impl PushLine {
    /// A line with nothing but its text.
    pub fn plain(origin: Arc<Origin>, text: Bytes) -> Self {
        let stream = Stream::Stdout;
        PushLine { origin, timestamp_ns: None, level: None, stream, attributes: Vec::new(), text }
    }
}

/// How a syslog door listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP and UDP, on the same port.
    #[default]
    Both,
    /// Over TCP.
    Tcp,
    /// Over UDP, which loses what nobody takes in time.
    Udp,
}

/// A syslog door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// By which transport; both by default.
    pub transport: Transport,
}

/// The sources that cannot be read again; none by default.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PushConfig {
    /// Whether standard input is read, line by line; the agent ends after its end, when everything has been shipped.
    pub stdin: bool,
    /// Syslog doors.
    pub syslog: Vec<SyslogConfig>,
    /// Where the HTTP door for Loki's and OpenTelemetry's senders listens.
    pub http: Option<SocketAddr>,
    /// The bearer token that it asks for; needed off loopback.
    pub token: Option<String>,
}

/// Without the token.
impl std::fmt::Debug for PushConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConfig")
            .field("stdin", &self.stdin)
            .field("syslog", &self.syslog)
            .field("http", &self.http)
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

impl PushConfig {
    /// Whether there is any such source.
    pub fn is_any(&self) -> bool {
        self.stdin || !self.syslog.is_empty() || self.http.is_some()
    }

    /// Reads its keys from the section `[agent]`.
    #[must_use]
    pub fn read(mut self, section: &mut Section<'_>) -> Self {
        self.stdin = section.boolean("stdin", self.stdin);
        for mut door in section.sections("syslog") {
            let transports = [("both", Transport::Both), ("tcp", Transport::Tcp), ("udp", Transport::Udp)];
            let transport = door.choice("transport", &transports, Transport::Both);
            match address(&mut door) {
                Some(listen) => self.syslog.push(SyslogConfig { listen, transport }),
                None => door.fault("listen", "is missing, wanted an address such as \"127.0.0.1:5514\""),
            }
            door.close();
        }
        let mut http = section.section("push");
        self.http = address(&mut http).or(self.http);
        self.token = http.optional_text("token").or(self.token);
        if self.token.as_ref().is_some_and(|token| token.len() < 16) {
            http.fault(
                "token",
                "has fewer than 16 characters; make one with: head -c 24 /dev/urandom | base64",
            );
        }
        if let Some(listen) = self.http.filter(|listen| !listen.ip().is_loopback() && self.token.is_none()) {
            http.fault("listen", format!("{listen} is reached from other hosts, so push.token is needed"));
        }
        http.close();
        self
    }
}

fn address(section: &mut Section<'_>) -> Option<SocketAddr> {
    let text = section.optional_text("listen")?;
    let address = text.parse().ok();
    if address.is_none() {
        section.fault(
            "listen",
            format!("got \"{text}\", wanted an address with a port such as \"127.0.0.1:4881\""),
        );
    }
    address
}

/// The service of lines from standard input.
pub const STDIN_SERVICE: &str = "stdin";

/// A name that came with lines, as it may stand in a column of its own: short, and of the characters of names. What is no name
/// stays with the line as an attribute.
pub(crate) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    !text.is_empty() && text.len() <= crate::limits::PUSH_NAME_BYTES_MAX && text.bytes().all(is_allowed)
}

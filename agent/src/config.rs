//! The agent's configuration: resolved, with a default for everything but the collector.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use beeacon_settings::{Document, Faults, Process, Section};

use crate::container::ReaderChoice;
use crate::docker::host::{DEFAULT_HOST, DockerHost};
use crate::door::is_loopback;
use crate::files::FilesConfig;
use crate::journald::JournaldConfig;
use crate::multiline::Grouping;
use crate::picking::Picks;
use crate::push::PushConfig;
use crate::selection::{Condition, Selection};
use crate::ship::http::{ClientFiles, Collector, ShipError, chain};
use crate::ship::level::Compression;
use crate::spool::{SpoolConfig, SpoolMode};
use crate::timestamp::LineTime;

/// How an agent runs. Every field has a default that works on a host with Docker and a collector beside it.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The collector's URL, `http://127.0.0.1:4880` by default. `https` off loopback.
    pub collector: String,
    /// Further collectors, each of which takes the place of the one before it when that does not answer; none by default.
    pub fallback_collectors: Vec<String>,
    /// The bearer token; none by default. Needed wherever the collector asks for one.
    pub token: Option<String>,
    /// A PEM file with the authorities that may sign the collector's certificate; the system's by default.
    pub roots: Option<PathBuf>,
    /// The certificate and key that are shown to a collector that asks for them; none by default.
    pub identity: Option<ClientFiles>,
    /// Where the agent keeps its id, the key of keyed hashes and the spool; `./beeacon-agent-data` by default. Nothing raw.
    pub data: PathBuf,
    /// Where Docker listens; `unix:///var/run/docker.sock` by default. `None` reads files only.
    pub docker_host: Option<String>,
    /// Docker's directory of containers as the agent sees it. By default Docker is asked for each path. Needed without a
    /// socket, and where Docker's directory is mounted elsewhere.
    pub containers_directory: Option<PathBuf>,
    /// Which reader to use; chosen per container by default.
    pub reader: ReaderChoice,
    /// The host's name in every row; the system's by default.
    pub host: String,
    /// The file with this machine's id, from which the agent's own is made; `/etc/machine-id` by default. An agent in a container is
    /// given the host's.
    pub machine_id_file: PathBuf,
    /// Which container labels become labels of rows; none by default. Choose such with few values.
    pub labels: Vec<String>,
    /// How long a batch may wait for more lines, 200 ms by default. Shorter makes smaller frames.
    pub flush_after: Duration,
    /// How much frames are compressed: by load, unless a zstd level is fixed. Higher ones cost CPU for a few per cent of size.
    pub compression: Compression,
    /// Where status and metrics are served over HTTP besides the socket in the data directory: an address on loopback; nowhere by
    /// default.
    pub listen: Option<SocketAddr>,
    /// Which containers are read, and which of their lines are joined or left out; all, as they are, by default.
    pub selection: Selection,
    /// Where frames wait for a collector that does not answer.
    pub spool: SpoolConfig,
    /// Standard input, syslog and other senders; none by default.
    pub push: PushConfig,
    /// Plain files by patterns over paths; none by default.
    pub files: Vec<FilesConfig>,
    /// journald's journals; none by default.
    pub journald: Vec<JournaldConfig>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            collector: "http://127.0.0.1:4880".to_owned(),
            fallback_collectors: Vec::new(),
            token: None,
            roots: None,
            identity: None,
            data: PathBuf::from("beeacon-agent-data"),
            docker_host: Some(DEFAULT_HOST.to_owned()),
            containers_directory: None,
            reader: ReaderChoice::Auto,
            host: system_host(),
            machine_id_file: PathBuf::from("/etc/machine-id"),
            labels: Vec::new(),
            flush_after: Duration::from_millis(200),
            compression: Compression::ByLoad,
            listen: None,
            selection: Selection::default(),
            spool: SpoolConfig::default(),
            push: PushConfig::default(),
            files: Vec::new(),
            journald: Vec::new(),
        }
    }
}

/// Without the token.
impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("collector", &self.collector)
            .field("fallback_collectors", &self.fallback_collectors)
            .field("has_token", &self.token.is_some())
            .field("data", &self.data)
            .field("docker_host", &self.docker_host)
            .field("containers_directory", &self.containers_directory)
            .field("reader", &self.reader)
            .field("host", &self.host)
            .field("labels", &self.labels)
            .field("flush_after", &self.flush_after)
            .field("compression", &self.compression)
            .field("selection", &self.selection)
            .finish_non_exhaustive()
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is faulty.
    #[error("{0}")]
    Faulty(Faults),
}

impl AgentConfig {
    /// The defaults, with `DOCKER_HOST` from the environment where it is set.
    pub fn from_environment() -> Self {
        let mut config = AgentConfig::default();
        if let Ok(host) = std::env::var("DOCKER_HOST")
            && !host.is_empty()
        {
            config.docker_host = Some(host);
        }
        config
    }

    /// Reads the `[agent]` section of a configuration file over `self`, and leaves other rooms' sections alone.
    ///
    /// # Errors
    /// When the file cannot be read, or every fault of the section at once.
    pub fn read_file(self, path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let document = Document::parse(&path.display().to_string(), &text, &Process);
        let config = self.read(&document, &mut document.root().section("agent"));
        document.finish().map_err(ConfigError::Faulty)?;
        Ok(config)
    }

    /// Reads its keys from a section, each with `self`'s value as the default. Faults are noted in the document.
    pub fn read(mut self, document: &Document, section: &mut Section<'_>) -> Self {
        self.collector = section.text("collector", &self.collector);
        let fallbacks = section.texts("fallback_collectors");
        if !fallbacks.is_empty() {
            self.fallback_collectors = fallbacks;
        }
        self.token = section.optional_text("token").or(self.token);
        self.roots = section.optional_text("roots").map(PathBuf::from).or(self.roots);
        match (section.optional_text("client_certificate"), section.optional_text("client_key")) {
            (Some(certificate), Some(key)) => {
                self.identity = Some(ClientFiles { certificate: certificate.into(), key: key.into() });
            }
            (None, None) => {}
            (Some(_), None) => section.fault("client_certificate", "needs client_key beside it"),
            (None, Some(_)) => section.fault("client_key", "needs client_certificate beside it"),
        }
        if let Some(data) = section.optional_text("data") {
            self.data = PathBuf::from(data);
        }
        if let Some(host) = section.optional_text("docker_host") {
            self.docker_host = (host != "none").then_some(host);
        }
        self.containers_directory =
            section.optional_text("containers_directory").map(PathBuf::from).or(self.containers_directory);
        let readers =
            [("auto", ReaderChoice::Auto), ("file", ReaderChoice::File), ("api", ReaderChoice::Api)];
        self.reader = section.choice("reader", &readers, self.reader);
        self.host = section.text("host", &self.host);
        if let Some(path) = section.optional_text("machine_id_file") {
            self.machine_id_file = PathBuf::from(path);
        }
        let labels = section.texts("labels");
        if !labels.is_empty() {
            self.labels = labels;
        }
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        self.flush_after = section.duration("flush_after", self.flush_after, range);
        let level = match self.compression {
            Compression::ByLoad => 0,
            Compression::Fixed(level) => level.unsigned_abs().into(),
        };
        self.compression = match i32::try_from(section.integer("compression_level", level, 0..=19)) {
            Ok(level @ 1..) => Compression::Fixed(level),
            _ => Compression::ByLoad,
        };
        if let Some(text) = section.optional_text("listen") {
            match text.parse::<SocketAddr>() {
                Ok(address) if is_loopback(address) => self.listen = Some(address),
                _ => section.fault(
                    "listen",
                    format!("got \"{text}\", wanted an address on loopback with a port, such as \"127.0.0.1:4882\""),
                ),
            }
        }
        self.selection = read_selection(section, self.selection);
        let mut spool = section.section("spool");
        self.spool = self.spool.read(&mut spool);
        spool.close();
        self.push = self.push.read(section);
        let files = FilesConfig::read_all(section);
        if !files.is_empty() {
            self.files = files;
        }
        let journald = JournaldConfig::read_all(section);
        if !journald.is_empty() {
            self.journald = journald;
        }
        for fault in self.faults() {
            if section.is_present() {
                section.fault(fault.key, fault.message);
            } else {
                document.fault(format!("agent.{}: {}", fault.key, fault.message));
            }
        }
        self
    }

    /// The collector with those that take its place.
    ///
    /// # Errors
    /// When url, token or certificates are not usable.
    pub fn shipper(&self) -> Result<Collector, ShipError> {
        let fallbacks = self.fallback_collectors.iter().map(String::as_str);
        let urls = std::iter::once(self.collector.as_str()).chain(fallbacks);
        Collector::first_of(urls, self.token.as_deref(), self.roots.as_deref(), self.identity.as_ref())
    }

    /// Whether anything but containers is read.
    fn has_others(&self) -> bool {
        self.push.is_any() || !self.files.is_empty() || !self.journald.is_empty()
    }

    /// What is wrong with it, all at once. Looks at nothing outside: see [`crate::doctor`] for that.
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |key, message: String| faults.push(ConfigFault { key, message });
        match self.shipper() {
            Err(error @ ShipError::Token) => fault("token", error.to_string()),
            Err(error @ (ShipError::Roots { .. } | ShipError::NoRoots { .. })) => {
                fault("roots", error.to_string())
            }
            Err(error @ ShipError::Identity { .. }) => fault("client_certificate", error.to_string()),
            Err(error @ ShipError::Tls(_)) if self.identity.is_some() => {
                fault("client_certificate", format!("{error}: {}", chain(&error)));
            }
            Err(error) => fault("collector", error.to_string()),
            Ok(_) => {}
        }
        match &self.docker_host {
            Some(host) => {
                if let Err(error) = DockerHost::parse(host) {
                    fault("docker_host", error.to_string());
                }
            }
            None if self.containers_directory.is_none() && !self.has_others() => {
                fault(
                    "docker_host",
                    "is none, so containers_directory must say where the logs are".to_owned(),
                );
            }
            None if self.reader == ReaderChoice::Api => {
                fault("reader", "got \"api\", but docker_host is none; allowed are auto, file".to_owned());
            }
            None => {}
        }
        if self.push.is_any() && self.spool.mode == SpoolMode::Off {
            fault(
                "spool",
                "mode is off, but what cannot be read again needs it: stdin, syslog, push".to_owned(),
            );
        }
        if self.host.is_empty() {
            fault("host", "is empty, wanted this host's name".to_owned());
        }
        faults
    }
}

/// Reads which containers are read and how.
fn read_selection(section: &mut Section<'_>, mut selection: Selection) -> Selection {
    for (key, conditions) in [("include", &mut selection.include), ("exclude", &mut selection.exclude)] {
        for text in section.texts(key) {
            match Condition::parse(&text) {
                Ok(condition) => conditions.push(condition),
                Err(error) => section.fault(key, error.to_string()),
            }
        }
    }
    selection.ignores_hints = !section.boolean("hints", !selection.ignores_hints);
    rules(section, "multiline", &mut selection.multiline, Grouping::parse);
    rules(section, "timestamp", &mut selection.timestamp, LineTime::parse);
    rules(section, "attributes", &mut selection.attributes, Picks::parse);
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    selection.multiline_wait = section.duration("multiline_wait", selection.multiline_wait, range);
    selection.sample_millionths = section.millionths("sample", selection.sample_millionths);
    if let rate @ 1.. = section.integer("rate", selection.rate.unwrap_or(0).into(), 0..=u32::MAX.into()) {
        selection.rate = u32::try_from(rate).ok();
    }
    selection
}

/// Reads `<condition> => <what>`, any number of them.
fn rules<T, E: std::error::Error>(
    section: &mut Section<'_>,
    key: &'static str,
    rules: &mut Vec<(Condition, Option<T>)>,
    parse: impl Fn(&str) -> Result<Option<T>, E>,
) {
    for text in section.texts(key) {
        let Some((condition, what)) = text.split_once(" => ") else {
            section.fault(key, format!("got \"{text}\", wanted <condition> => <what>"));
            continue;
        };
        match (Condition::parse(condition.trim()), parse(what)) {
            (Ok(condition), Ok(what)) => rules.push((condition, what)),
            (condition, what) => {
                condition.err().inspect(|error| section.fault(key, error.to_string()));
                what.err().inspect(|error| section.fault(key, format!("got \"{text}\", {error}")));
            }
        }
    }
}

/// Something wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The key within `[agent]`.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

fn system_host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::glob::PathGlob;
    use crate::push::{SyslogConfig, Transport};
    use crate::spool::WhenFull;

    fn read(text: &str) -> Result<AgentConfig, String> {
        let document = Document::parse("b.toml", text, &beeacon_settings::Nothing);
        let mut root = document.root();
        let mut section = root.section("agent");
        let config = AgentConfig::default().read(&document, &mut section);
        section.close();
        root.close();
        document.finish().map(|()| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_every_key_is_read() {
        assert_eq!(read("").unwrap(), AgentConfig::default());
        let config = read(
            "[agent]\ncollector = \"http://c:4880\"\nfallback_collectors = [\"http://d:4880\"]\ntoken = \"t\"\nclient_certificate = \"/i.crt\"\nclient_key = \"/i.key\"\ndata = \"/d\"\ndocker_host = \"none\"\n\
             containers_directory = \"/c\"\nreader = \"file\"\nhost = \"h\"\nmachine_id_file = \"/m\"\nlabels = [\"team\"]\n\
             flush_after = \"1 s\"\nstdin = true\ncompression_level = 3\ninclude = [\"name:a*\"]\n\
             exclude = [\"label:x\"]\nhints = false\nmultiline_wait = \"2 s\"\nmultiline = [\"name:* => java\"]\n\
             timestamp = [\"name:* => auto\"]\nattributes = [\"name:* => a, b as c\"]\nsample = 0.5\nrate = 10\nlisten = \"127.0.0.1:4882\"\n\
             [agent.spool]\nmode = \"always\"\ndirectory = \"/s\"\n\
             bytes_max = \"64 MiB\"\nwhen_full = \"drop_oldest\"\npatience = \"3 s\"\nat_risk_below = \"1 min\"\n\
             free_bytes_min = \"1 MiB\"\n[agent.push]\nlisten = \"127.0.0.1:4881\"\ntoken = \"sixteen characters\"\n\
             [[agent.syslog]]\nlisten = \"[::1]:514\"\ntransport = \"udp\"\n\
             [[agent.files]]\ninclude = [\"/l/*.log\"]\nexclude = [\"/l/a.log\"]\nservice = \"s\"\n\
             labels = { tier = \"web\" }\nmultiline = \"go\"\ntimestamp = \"auto\"\nattributes = \"a\"\nclose_after = \"2 s\"\n\
             [[agent.journald]]\ndirectory = \"/j\"\nmatches = [\"_SYSTEMD_UNIT=a.service\"]\nservice = \"s\"\n\
             labels = { tier = \"db\" }\nattributes = \"a\"\n",
        )
        .unwrap();
        let expected = AgentConfig {
            collector: "http://c:4880".into(),
            fallback_collectors: vec!["http://d:4880".into()],
            token: Some("t".into()),
            roots: None,
            identity: Some(ClientFiles { certificate: "/i.crt".into(), key: "/i.key".into() }),
            data: "/d".into(),
            docker_host: None,
            containers_directory: Some("/c".into()),
            reader: ReaderChoice::File,
            host: "h".into(),
            machine_id_file: "/m".into(),
            labels: vec!["team".into()],
            flush_after: Duration::from_secs(1),
            compression: Compression::Fixed(3),
            listen: Some("127.0.0.1:4882".parse().unwrap()),
            selection: Selection {
                include: vec![Condition::parse("name:a*").unwrap()],
                exclude: vec![Condition::parse("label:x").unwrap()],
                multiline: vec![(Condition::parse("name:*").unwrap(), Grouping::parse("java").unwrap())],
                timestamp: vec![(Condition::parse("name:*").unwrap(), LineTime::parse("auto").unwrap())],
                attributes: vec![(Condition::parse("name:*").unwrap(), Picks::parse("a, b as c").unwrap())],
                multiline_wait: Duration::from_secs(2),
                sample_millionths: 500_000,
                rate: Some(10),
                ignores_hints: true,
            },
            spool: SpoolConfig {
                mode: SpoolMode::Always,
                directory: Some("/s".into()),
                bytes_max: 64 << 20,
                when_full: WhenFull::DropOldest,
                patience: Duration::from_secs(3),
                at_risk_below: Duration::from_secs(60),
                free_bytes_min: 1 << 20,
            },
            push: PushConfig {
                stdin: true,
                syslog: vec![SyslogConfig {
                    listen: "[::1]:514".parse().unwrap(),
                    transport: Transport::Udp,
                }],
                http: Some("127.0.0.1:4881".parse().unwrap()),
                token: Some("sixteen characters".into()),
            },
            files: vec![FilesConfig {
                include: vec![PathGlob::parse("/l/*.log").unwrap()],
                exclude: vec![PathGlob::parse("/l/a.log").unwrap()],
                service: Some("s".into()),
                labels: vec![("tier".into(), "web".into())],
                grouping: Grouping::parse("go").unwrap(),
                line_time: LineTime::parse("auto").unwrap(),
                picks: Picks::parse("a").unwrap(),
                close_after: Duration::from_secs(2),
            }],
            journald: vec![JournaldConfig {
                directory: Some("/j".into()),
                matches: vec!["_SYSTEMD_UNIT=a.service".into()],
                service: Some("s".into()),
                labels: vec![("tier".into(), "db".into())],
                picks: Picks::parse("a").unwrap(),
            }],
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn every_configuration_of_the_page_on_the_agent_is_valid() {
        let page = include_str!("../../docs/agent.md");
        let blocks: Vec<&str> = page.split("\n```toml configuration\n").skip(1).collect();
        for block in &blocks {
            let config = read(block.split_once("\n```").unwrap().0).unwrap();
            assert_ne!(config, AgentConfig::default(), "{block}");
        }
        assert!(blocks.len() >= 5);
    }

    #[test]
    fn all_faults_are_told_at_once_and_no_token_is_printed() {
        let faults = read(
            "[agent]\ncollector = \"c:4880\"\nclient_key = \"k\"\nreder = \"file\"\nreader = \"fil\"\ndocker_host = \"ssh://x\"\n\
             flush_after = \"2 h\"\nhost = \"\"\ninclude = [\"x\"]\nmultiline = [\"name:* => perl\"]\n\
             timestamp = [\"nam:* => auto\"]\nattributes = [\"a\"]\n\
             sample = \"2\"\nrate = \"x\"\nlisten = \"0.0.0.0:4882\"\nstdin = true\n[agent.spool]\nmode = \"off\"\n\
             [agent.push]\nlisten = \"0.0.0.0:1\"\n[[agent.syslog]]\ntransport = \"udp\"\n\
             [[agent.files]]\ninclude = [\"logs/*.log\"]\n[[agent.files]]\nmultiline = \"perl\"\n\
             [[agent.journald]]\ndirectory = \"j\"\nmatches = [\"--file=x\"]\n",
        )
        .unwrap_err();
        for key in [
            "collector",
            "client_key",
            "reder",
            "reader",
            "docker_host",
            "flush_after",
            "host",
            "include",
            "multiline",
            "timestamp",
            "attributes",
            "listen",
            "sample",
            "spool",
            "push.listen",
            "syslog",
            "files.include",
            "files.multiline",
            "journald.directory",
            "journald.matches",
            "rate",
        ] {
            assert!(faults.contains(&format!("agent.{key}")), "{key} is missing in:\n{faults}");
        }
        let config = AgentConfig { token: Some("hunter2".into()), ..AgentConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

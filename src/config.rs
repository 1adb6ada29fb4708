//! The configuration: one TOML file, flags over it, every fault in one report.
//!
//! Sections: `http`, `postgres`, `data`, `journal`, `store`, `query`, `loki`, `alerts`, `events` here; `agent` and `filter` are the agent's, because the small
//! program reads them too. `deploy/beeacon.toml` documents every key with its default; a test holds it to this code.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use beeacon_access::limits::TOKEN_CHARACTERS_MIN;
use beeacon_access::{Redis, RedisFault, Role, TokenHash, Tokens};
use beeacon_agent::AgentConfig;
use beeacon_agent::pollen::FilterConfig;
use beeacon_collector::{CollectorOptions, LokiAuthentication, LokiOptions};
use beeacon_journal::JournalOptions;
use beeacon_query::{PostgresLogin, QueryOptions, ScramVerifier};
use beeacon_settings::{Document, Process, Section, Setting, show_bytes};
use beeacon_store::StoreOptions;

use crate::alerts::AlertsConfig;
use crate::command_line::{CommonArguments, FilterArguments, ListenArguments};
use crate::doors;
use crate::events::EventsConfig;
use crate::tls::TlsFiles;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The name of the token of the section `http`.
pub(crate) const HTTP_TOKEN: &str = "http.token";

/// Where everything is kept when nobody says otherwise.
const DATA_DEFAULT: &str = "beeacon-data";

/// Everything, resolved: no key is missing, every value is within its range.
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) server: ServerConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) filter: FilterConfig,
}

/// What collector, store, query and the listener need.
pub(crate) struct ServerConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) access: AccessConfig,
    pub(crate) tls: Option<TlsFiles>,
    /// Where clients of PostgreSQL are served, if they are.
    pub(crate) postgres: Option<SocketAddr>,
    /// The Grafana whose health is shown, if there is one.
    pub(crate) grafana: Option<String>,
    /// What the file says, with defaults and without secrets.
    pub(crate) settings: Vec<Setting>,
    pub(crate) collector: CollectorOptions,
    pub(crate) store: StoreOptions,
    pub(crate) query: QueryOptions,
    pub(crate) alerts: AlertsConfig,
    pub(crate) events: EventsConfig,
}

/// Who may come in, and what is kept about it.
pub(crate) struct AccessConfig {
    /// Those of `[[access.token]]`, and `http.token` as an administrator's.
    pub(crate) tokens: Tokens,
    /// The tokens that may read, as users of the PostgreSQL door.
    pub(crate) logins: Vec<PostgresLogin>,
    pub(crate) audit_directory: PathBuf,
    pub(crate) audit_bytes_max: u64,
    pub(crate) requests_per_minute: u64,
    pub(crate) redis: Option<Redis>,
}

/// Reads the file, if one is named, lets the flags win, and checks.
pub(crate) fn load(common: &CommonArguments, listen: &ListenArguments) -> anyhow::Result<Config> {
    let document = match &common.config {
        None => Document::empty(),
        Some(path) => read(path)?,
    };
    resolve(document, common.data.as_deref(), listen)
}

/// The filter's part of it, with what the command line says over it.
pub(crate) fn load_filter(arguments: &FilterArguments) -> anyhow::Result<FilterConfig> {
    let mut filter = load(&arguments.common, &ListenArguments::default())?.filter;
    if let Some(profile) = &arguments.profile {
        filter.profile.clone_from(profile);
    }
    filter.rules.extend(arguments.rules.iter().cloned());
    if let Some(path) = &arguments.known {
        filter.known.file = Some(path.clone());
    }
    Ok(filter)
}

pub(crate) fn read(path: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the configuration from {}", path.display()))?;
    Ok(Document::parse(&path.display().to_string(), &text, &Process))
}

/// Turns a parsed file into a configuration.
pub(crate) fn resolve(
    document: Document,
    data: Option<&Path>,
    listen: &ListenArguments,
) -> anyhow::Result<Config> {
    let mut root = document.root();
    let data = data_directory(&mut root, data);
    let mut access = read_access(root.section("access"), &data);
    let (address, token, tls) = read_http(root.section("http"), listen.listen, &mut access.tokens);
    access.redis = read_redis(root.section("redis"));
    let grafana = read_grafana(root.section("grafana"));
    let opens_postgres = token.is_some() || !access.logins.is_empty();
    let secured = (opens_postgres, !access.tokens.is_empty(), tls.is_some());
    let postgres = read_postgres(root.section("postgres"), listen.postgres.as_deref(), secured);
    let journal = read_journal(root.section("journal"), &document);
    let store = read_store(root.section("store"), &document, &data);
    let query = read_query(root.section("query"), &data);
    let loki = read_loki(root.section("loki"), listen.loki.clone());
    let alerts = AlertsConfig::read(root.section("alerts"), &data, access.redis.is_some());
    let events = EventsConfig::read(root.section("events"), &data);
    let agent = read_agent(root.section("agent"), &document, &data);
    let mut filter = root.section("filter");
    let rules = FilterConfig::read(&mut filter);
    filter.close();
    root.close();
    for fault in rules.label_faults(&agent.labels) {
        document.fault(fault);
    }
    let settings = document.settings();
    document.finish()?;
    let mut collector = CollectorOptions::new(data.join("journal"));
    collector.journal = journal;
    collector.loki = loki;
    let server = ServerConfig {
        listen: address,
        token,
        access,
        grafana,
        settings,
        tls,
        postgres,
        collector,
        store,
        query,
        alerts,
        events,
    };
    Ok(Config { data, server, agent, filter: rules })
}

fn read_agent(mut section: Section<'_>, document: &Document, data: &Path) -> AgentConfig {
    let mut defaults = AgentConfig::from_environment();
    defaults.data = data.join("agent");
    let agent = defaults.read(document, &mut section);
    section.close();
    agent
}

fn data_directory(root: &mut Section<'_>, flag: Option<&Path>) -> PathBuf {
    let mut section = root.section("data");
    let configured = section.text("directory", DATA_DEFAULT);
    section.close();
    flag.map_or_else(|| PathBuf::from(configured), Path::to_path_buf)
}

fn read_http(
    mut http: Section<'_>,
    flag: Option<SocketAddr>,
    tokens: &mut Tokens,
) -> (SocketAddr, Option<String>, Option<TlsFiles>) {
    let default = SocketAddr::from(([127, 0, 0, 1], 4880));
    let configured = http.optional_text("listen").and_then(|text| {
        let address = text.parse::<SocketAddr>();
        if address.is_err() {
            let wanted = "an address with a port such as \"127.0.0.1:4880\" or \"[::]:4880\"";
            http.fault("listen", format!("got \"{text}\", wanted {wanted}"));
        }
        address.ok()
    });
    let listen = flag.or(configured).unwrap_or(default);
    let token = http.optional_text("token");
    if token.as_ref().is_some_and(|token| token.len() < TOKEN_CHARACTERS_MIN) {
        http.fault("token", "has fewer than 16 characters; make one with: head -c 24 /dev/urandom | base64");
    }
    if let Some(token) = &token
        && let Err(error) = tokens.add(HTTP_TOKEN, Role::Admin, TokenHash::of(token))
    {
        http.fault("token", error.to_string());
    }
    if tokens.is_empty() && !doors::is_loopback(listen) {
        let reached = format!("{listen} is reached from other hosts, so");
        http.fault("listen", format!("{reached} http.token is needed, or an [[access.token]]"));
    }
    let tls = match (http.optional_text("tls_certificate"), http.optional_text("tls_key")) {
        (Some(certificate), Some(key)) => {
            let client_ca = http.optional_text("client_ca").map(PathBuf::from);
            Some(TlsFiles { certificate: certificate.into(), key: key.into(), client_ca })
        }
        (None, None) => {
            if http.optional_text("client_ca").is_some() {
                http.fault("client_ca", "needs tls_certificate and tls_key beside it");
            }
            None
        }
        (Some(_), None) => {
            http.fault("tls_certificate", "needs tls_key beside it");
            None
        }
        (None, Some(_)) => {
            http.fault("tls_key", "needs tls_certificate beside it");
            None
        }
    };
    http.close();
    (listen, token, tls)
}

fn read_access(mut section: Section<'_>, data: &Path) -> AccessConfig {
    let requests_per_minute = section.integer("requests_per_minute", 6_000, 1..=1_000_000);
    let audit_bytes_max = section.bytes("audit_bytes_max", 64 * MIB, MIB..=TIB);
    let (mut tokens, mut logins) = (Tokens::new(), Vec::new());
    for token in section.sections("token") {
        read_token(token, &mut tokens, &mut logins);
    }
    section.close();
    let audit_directory = data.join("audit");
    AccessConfig { tokens, logins, audit_directory, audit_bytes_max, requests_per_minute, redis: None }
}

/// One of `[[access.token]]`.
fn read_token(mut section: Section<'_>, tokens: &mut Tokens, logins: &mut Vec<PostgresLogin>) {
    let name = section.text("name", "");
    let roles = Role::ALL.map(|role| (role.name(), Some(role)));
    let role = section.choice("role", &roles, None);
    let text = section.optional_text("token");
    let hash = section.optional_text("sha256");
    let scram = section.optional_text("scram");
    if role.is_none() {
        section.fault("role", "is needed: agent, viewer, editor or admin");
    }
    if text.as_ref().is_some_and(|text| text.len() < TOKEN_CHARACTERS_MIN) {
        section.fault(
            "token",
            format!("has fewer than {TOKEN_CHARACTERS_MIN} characters; make one with: beeacon token new"),
        );
    }
    let hash = match (&text, &hash) {
        (Some(text), None) => Some(TokenHash::of(text)),
        (None, Some(hash)) => {
            let hash = TokenHash::parse(hash);
            if hash.is_none() {
                section.fault("sha256", "is not 64 hexadecimal digits; \"beeacon token new\" prints them");
            }
            hash
        }
        _ => {
            section.fault("sha256", "is needed, or token instead of it, and not both");
            None
        }
    };
    let verifier = match (&scram, &text) {
        (Some(scram), _) => {
            let verifier = ScramVerifier::parse(scram);
            if verifier.is_none() {
                section.fault("scram", "is not what \"beeacon token new\" prints: SCRAM-SHA-256$4096:…");
            }
            verifier
        }
        (None, Some(text)) => ScramVerifier::of(text).ok(),
        (None, None) => None,
    };
    if let Some((role, hash)) = role.zip(hash) {
        match tokens.add(&name, role, hash) {
            Err(error) => section.fault("name", error.to_string()),
            Ok(()) => logins.extend(
                verifier.filter(|_| role.may_read()).map(|verifier| PostgresLogin { user: name, verifier }),
            ),
        }
    }
    section.close();
}

fn read_grafana(mut section: Section<'_>) -> Option<String> {
    let url = section.optional_text("url");
    if url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        section.fault("url", "is not a URL such as http://127.0.0.1:3000");
    }
    section.close();
    url
}

fn read_redis(mut section: Section<'_>) -> Option<Redis> {
    let certificates = section.optional_text("certificates").map(PathBuf::from);
    let redis = section.optional_text("url").map(|url| Redis::new(&url, certificates.as_deref()));
    if let Some(Err(fault)) = &redis {
        let key = if matches!(fault, RedisFault::Certificates { .. }) { "certificates" } else { "url" };
        section.fault(key, fault.to_string());
    }
    section.close();
    redis.and_then(Result::ok)
}

/// Where clients of PostgreSQL are served. They show a token as their password, and other hosts see HTTP's certificate.
fn read_postgres(
    mut section: Section<'_>,
    flag: Option<&str>,
    (opens, asks, has_certificate): (bool, bool, bool),
) -> Option<SocketAddr> {
    let configured = section.text("listen", "127.0.0.1:5439");
    let text = flag.unwrap_or(&configured);
    let address = (text != "none").then(|| text.parse::<SocketAddr>());
    if let Some(Err(_)) = address {
        let wanted = "an address with a port such as \"127.0.0.1:5439\", or \"none\"";
        section.fault("listen", format!("got \"{text}\", wanted {wanted}"));
    }
    let mut address = address.and_then(Result::ok);
    if asks && !opens && doors::is_loopback(address.unwrap_or(([127, 0, 0, 1], 0).into())) {
        // There are tokens, and none of them can be shown there.
        address = None;
    }
    if let Some(address) = address.filter(|address| !doors::is_loopback(*address)) {
        let reached = format!("{address} is reached from other hosts, so");
        if !opens {
            let needed =
                "http.token is needed, which is also the password here, or an [[access.token]] with scram";
            section.fault("listen", format!("{reached} {needed}"));
        }
        if !has_certificate {
            section.fault("listen", format!("{reached} http.tls_certificate and http.tls_key are needed"));
        }
    }
    section.close();
    address
}

fn read_journal(mut section: Section<'_>, document: &Document) -> JournalOptions {
    let mut options = JournalOptions::default();
    options.segment_bytes = section.bytes("segment_bytes", options.segment_bytes, 16 * MIB..=GIB);
    options.journal_bytes_max = section.bytes("bytes_max", options.journal_bytes_max, 32 * MIB..=TIB);
    options.free_bytes_min = section.bytes("free_bytes_min", options.free_bytes_min, MIB..=TIB);
    options.queue_bytes_max = section.bytes("queue_bytes_max", options.queue_bytes_max, 8 * MIB..=GIB);
    if options.journal_bytes_max < 2 * options.segment_bytes {
        document.fault(format!(
            "journal.bytes_max must hold two segments: got {} with journal.segment_bytes {}",
            show_bytes(options.journal_bytes_max),
            show_bytes(options.segment_bytes)
        ));
    }
    section.close();
    options
}

fn read_store(mut section: Section<'_>, document: &Document, data: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(data.join("store"));
    let flush = section.bytes("flush_bytes", options.flush_bytes as u64, 64 * KIB..=4 * GIB);
    let fresh = section.bytes("fresh_bytes_max", options.fresh_bytes_max as u64, 32 * MIB..=64 * GIB);
    if flush > fresh / 2 {
        document.fault(format!(
            "store.fresh_bytes_max must be twice store.flush_bytes at least: got {} and {}",
            show_bytes(fresh),
            show_bytes(flush)
        ));
    }
    options.flush_bytes = usize::try_from(flush).unwrap_or(usize::MAX);
    options.fresh_bytes_max = usize::try_from(fresh).unwrap_or(usize::MAX);
    let day = Duration::from_secs(24 * 3600);
    options.flush_age = section.duration("flush_age", options.flush_age, Duration::from_secs(1)..=day);
    section.close();
    options
}

fn read_query(mut section: Section<'_>, data: &Path) -> QueryOptions {
    let mut options = QueryOptions::default();
    let memory = section.bytes("memory_bytes_max", options.memory_bytes_max as u64, 16 * MIB..=TIB);
    options.memory_bytes_max = usize::try_from(memory).unwrap_or(usize::MAX);
    let hour = Duration::from_secs(3600);
    options.time_max = section.duration("time_max", options.time_max, Duration::from_secs(1)..=hour);
    options.rows_max = section.integer("rows_max", options.rows_max, 1..=1_000_000_000);
    options.answer_bytes_max = section.bytes("answer_bytes_max", options.answer_bytes_max, MIB..=TIB);
    let running = section.integer("running_max", options.running_max as u64, 1..=256);
    options.running_max = usize::try_from(running).unwrap_or(1);
    let waiting = section.integer("waiting_max", options.waiting_max as u64, 0..=10_000);
    options.waiting_max = usize::try_from(waiting).unwrap_or(0);
    options.spill_bytes_max = section.bytes("spill_bytes_max", options.spill_bytes_max, 0..=TIB);
    options.spill_directory = (options.spill_bytes_max > 0).then(|| data.join("spill"));
    section.close();
    options
}

fn read_loki(mut section: Section<'_>, flag: Option<String>) -> Option<LokiOptions> {
    let url = flag.or_else(|| section.optional_text("url"));
    let tenant = section.optional_text("tenant");
    let user = section.optional_text("user");
    let password = section.optional_text("password");
    let token = section.optional_text("token");
    let certificates = section.optional_text("certificates").map(PathBuf::from);
    let labels = section.text_table("labels");
    if user.is_some() != password.is_some() {
        section.fault("user", "user and password go together");
    }
    let options = url.map(|url| {
        let mut options = LokiOptions::new(url);
        options.tenant = tenant;
        options.labels = labels;
        options.certificate_file = certificates;
        options.authentication = match (user.zip(password), token) {
            (Some((user, password)), None) => LokiAuthentication::Basic { user, password },
            (None, Some(token)) => LokiAuthentication::Bearer { token },
            (None, None) => LokiAuthentication::None,
            (Some(_), Some(_)) => {
                section
                    .fault("token", "is one way to say who you are, user and password another: choose one");
                LokiAuthentication::None
            }
        };
        options
    });
    if let Some(options) = &options {
        if let Err(error) = options.push_url() {
            section.fault("url", error.to_string());
        }
        if let Err(error) = options.check_labels() {
            section.fault("labels", error.to_string());
        }
    }
    section.close();
    options
}

#[cfg(test)]
mod tests {
    use beeacon_settings::Nothing;

    use super::*;

    const SAMPLE: &str = include_str!("../deploy/beeacon.toml");

    fn resolved(text: &str) -> anyhow::Result<Config> {
        resolve(Document::parse("beeacon.toml", text, &Nothing), None, &ListenArguments::default())
    }

    #[test]
    fn the_sample_holds_every_default_as_it_is() {
        let (sample, none) = (resolved(SAMPLE).unwrap(), resolved("").unwrap());
        assert_eq!(sample.data, none.data);
        assert_eq!(sample.agent, none.agent);
        assert_eq!(sample.filter, none.filter);
        assert_eq!(sample.server.listen, none.server.listen);
        assert_eq!(sample.server.postgres, none.server.postgres);
        let (access, default) = (&sample.server.access, &none.server.access);
        assert_eq!(access.requests_per_minute, default.requests_per_minute);
        assert_eq!(access.audit_bytes_max, default.audit_bytes_max);
        assert_eq!(access.audit_directory, default.audit_directory);
        assert_eq!(format!("{:?}", sample.server.collector), format!("{:?}", none.server.collector));
        assert_eq!(format!("{:?}", sample.server.store), format!("{:?}", none.server.store));
        assert_eq!(format!("{:?}", sample.server.query), format!("{:?}", none.server.query));
        assert_eq!(sample.server.alerts, none.server.alerts);
        assert_eq!(sample.server.events, none.server.events);
    }

    #[test]
    fn every_key_that_the_sample_only_mentions_is_known() {
        let mentioned = |line: &str| {
            let line = line.strip_prefix("# ")?;
            if line.starts_with('[') {
                return Some(line.to_owned());
            }
            let (key, _) = line.split_once(" = ")?;
            key.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                .then(|| line.to_owned())
        };
        let text: String =
            SAMPLE.lines().map(|line| mentioned(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
        // References lead nowhere here and Loki wants one way to say who we are; unknown keys must not be among the faults.
        let faults = resolved(&text).err().unwrap().to_string();
        assert!(!faults.contains("no such key"), "{faults}");
    }

    #[test]
    fn tokens_open_what_their_roles_allow_and_nonsense_among_them_is_told() {
        let hash = TokenHash::of("a-token-of-many-letters").to_hexadecimal();
        let scram = ScramVerifier::of("a-token-of-many-letters").unwrap();
        let token = |name: &str, rest: &str| format!("[[access.token]]\nname = \"{name}\"\n{rest}\n");
        let agent = token("web-1", &format!("role = \"agent\"\nsha256 = \"{hash}\""));
        let viewer =
            token("grafana", &format!("role = \"viewer\"\nsha256 = \"{hash}\"\nscram = \"{scram}\""));
        let plain = token("anna", "role = \"editor\"\ntoken = \"another-token-of-hers\"");

        let config = resolved(&format!("[http]\nlisten = \"0.0.0.0:1\"\n{agent}{viewer}{plain}")).unwrap();
        let users: Vec<_> = config.server.access.logins.iter().map(|login| login.user.as_str()).collect();
        assert_eq!(users, ["grafana", "anna"]);
        let who = |token: &str| config.server.access.tokens.principal(token.as_bytes()).map(|who| who.role);
        assert_eq!(who("another-token-of-hers"), Some(Role::Editor));
        assert_eq!(who("unknown"), None);
        assert!(config.server.postgres.is_some());
        assert_eq!(resolved(&agent).unwrap().server.postgres, None, "no token of these opens it");

        let wrong = token("a/b", "role = \"root\"\nsha256 = \"12\"\nscram = \"MD5\"")
            + &token("x", "role = \"viewer\"\ntoken = \"short\"\nsha256 = \"12\"")
            + "[redis]\nurl = \"http://:geheim@nowhere\"\n";
        let faults = resolved(&wrong).err().unwrap().to_string();
        for part in [
            "role: got \"root\"",
            "64 hexadecimal",
            "scram",
            "fewer than 16",
            "not both",
            "redis.url: is not a URL",
        ] {
            assert!(faults.contains(part), "{part} is missing in:\n{faults}");
        }
        assert!(!faults.contains("geheim") && !faults.contains("short\""), "{faults}");
    }

    #[test]
    fn nonsense_is_reported_in_one_run() {
        let text = "[http]\nlisten = \"0.0.0.0:1\"\nlisen = 3\n[postgres]\nlisten = \"0.0.0.0:2\"\n[journal]\nbytes_max = \"64 MiB\"\n\
                    [store]\nflush_bytes = \"100 MiB\"\n[agent]\nreader = \"fil\"\n[loki]\nurl = \"nowhere\"\n";
        let faults = resolved(text).err().unwrap().to_string();
        for part in [
            "http.token is needed",
            "0.0.0.0:2 is reached from other hosts, so http.tls_certificate",
            "http.lisen: no such key; did you mean \"listen\"?",
            "journal.bytes_max must hold two segments: got 64 MiB",
            "store.fresh_bytes_max must be twice store.flush_bytes",
            "agent.reader: got \"fil\", allowed are auto, file, api; did you mean \"file\"?",
            "loki.url",
        ] {
            assert!(faults.contains(part), "{part} is missing in:\n{faults}");
        }
    }
}

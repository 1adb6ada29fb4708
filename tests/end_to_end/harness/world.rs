//! A whole installation: private Docker, Loki, server, a proxy that records, an agent; each in a folder of its own.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::harness::docker::{Docker, Spec};
use crate::harness::http;
use crate::harness::leak::{Leaks, Search, Secret};
use crate::harness::link::Link;
use crate::harness::loki::Loki;
use crate::harness::metrics::Metrics;
use crate::harness::oracle::{Printed, Verdict, judge};
use crate::harness::poll::{seconds, try_wait_for};
use crate::harness::processes::{Program, beeacon, beeacon_agent, free_address};
use crate::harness::proxy::Proxy;
use crate::harness::six_routes::SixRoutes;
use crate::harness::sql::Sql;

/// The seed of this run: `BEEACON_TEST_SEED`, or the clock's. Printed, so that a run can be repeated.
pub(crate) fn seed(story: &str) -> u64 {
    let given = std::env::var("BEEACON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 1_000_000);
    println!("SEED={seed} ({story}; again with BEEACON_TEST_SEED={seed})");
    seed
}

/// How much of the drill is done: `BEEACON_DRILL_SCALE`, 1 where nothing is said, 15 for `make drill`.
pub(crate) fn scale() -> u64 {
    let said = std::env::var("BEEACON_DRILL_SCALE").ok();
    let scale = said.map_or(1, |text| text.parse().expect("BEEACON_DRILL_SCALE is a number from 1 to 15"));
    assert!((1..=15).contains(&scale), "BEEACON_DRILL_SCALE is a number from 1 to 15");
    scale
}

/// A secret that nobody printed, for searches that only count what they see.
fn canary() -> Secret {
    Secret { kind: "none", origin: "nowhere".into(), value: "a text that no program prints".into() }
}

/// The installation. Fields end in this order: programs first, Docker and files last.
pub(crate) struct World {
    pub(crate) agent: Program,
    pub(crate) server: Program,
    pub(crate) proxy: Proxy,
    pub(crate) loki: Loki,
    /// What stands between the agent and Docker's socket. At its end it fails the story if the agent asked for more than it needs.
    _routes: SixRoutes,
    pub(crate) docker: Docker,
    pub(crate) sql: Sql,
    pub(crate) seed: u64,
    /// The link between the agent and everything else, where there is one.
    pub(crate) link: Option<Link>,
    folder: Folder,
}

/// A folder that stays when `BEEACON_TEST_KEEP=1`.
pub(crate) struct Folder(Option<TempDir>);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        Folder(Some(tempfile::Builder::new().prefix(&format!("beeacon-{name}-")).tempdir().unwrap()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(folder) = self.0.take() else { return };
        if std::env::var("BEEACON_TEST_KEEP").is_ok_and(|value| value == "1") {
            println!("kept {}", folder.keep().display());
        }
    }
}

/// How an installation differs from the plain one.
#[derive(Default)]
pub(crate) struct Plan {
    /// For the agent's `--reader`.
    pub(crate) reader: Option<&'static str>,
    /// The server's data directory, when it is not a plain folder.
    pub(crate) server_data: Option<PathBuf>,
    /// Lines of the server's configuration file.
    pub(crate) server_config: Option<&'static str>,
    /// Further lines of the agent's.
    pub(crate) agent_config: &'static str,
    /// The agent's data directory, when it is not a plain folder.
    pub(crate) agent_data: Option<PathBuf>,
    /// A link that the agent lives behind.
    pub(crate) link: Option<Link>,
    /// Whether the agent is to reach Docker over that link, by TCP.
    pub(crate) is_docker_far: bool,
}

impl World {
    /// Starts everything and waits until server and agent are ready.
    pub(crate) fn start(story: &str, plan: Plan) -> Self {
        let mut world = World::prepare(story, plan, Docker::start());
        world.server.start();
        world.agent.start();
        world
    }

    /// Everything but the two programs under test.
    pub(crate) fn prepare(story: &str, plan: Plan, docker: Docker) -> Self {
        let seed = seed(story);
        let folder = Folder::new(story);
        let path = |name: &str| folder.path().join(name);
        let loki = Loki::start(&path("loki"));
        let address = free_address();
        let near = plan.link.as_ref().map_or(Ipv4Addr::LOCALHOST, Link::near_address);
        let proxy = Proxy::start(near, address, &path("wire"));
        let routes =
            SixRoutes::start(&docker.socket(), &path("docker.sock"), plan.is_docker_far.then_some(near));
        let server_data = plan.server_data.clone().unwrap_or_else(|| path("server-data"));
        let mut server = Program::new("server", beeacon(), &path("output"), Some(address))
            .argument("server")
            .option("--data", &server_data)
            .option("--listen", address.to_string())
            .option("--postgres", "none")
            .option("--loki", loki.url());
        if let Some(text) = plan.server_config {
            std::fs::write(path("server.toml"), text).unwrap();
            server = server.option("--config", path("server.toml"));
        }
        // An agent whose disk is erased is the same one again where the machine has an id.
        std::fs::write(path("machine-id"), format!("{seed:032x}\n")).unwrap();
        let agent_config =
            format!("[agent]\nmachine_id_file = {:?}\n{}", path("machine-id"), plan.agent_config);
        std::fs::write(path("agent.toml"), agent_config).unwrap();
        let agent_data = plan.agent_data.clone().unwrap_or_else(|| path("agent-data"));
        let agent = Program::new("agent", beeacon_agent(), &path("output"), None)
            .argument("run")
            .option("--config", path("agent.toml"))
            .option("--collector", format!("http://{}", proxy.address()))
            .option("--data", agent_data)
            .option("--docker-host", routes.host())
            .option("--containers-directory", docker.containers_directory())
            .option("--reader", plan.reader.unwrap_or("auto"))
            .through(plan.link.as_ref().map(Link::words).unwrap_or_default());
        let (sql, link) = (Sql { address }, plan.link);
        World { agent, server, proxy, loki, _routes: routes, docker, sql, seed, link, folder }
    }

    /// Runs a generator container for what it shall print.
    pub(crate) fn run(
        &self,
        printed: &Printed,
        rate: u64,
        gate: Option<u64>,
        change: impl FnOnce(&mut Spec),
    ) -> String {
        let mut spec = Spec::new(&printed.container, &[]);
        spec.command = printed.command(rate, gate);
        spec.binds.push(self.docker.shared_bind());
        change(&mut spec);
        self.docker.run(&spec)
    }

    /// Opens the gate of a generator.
    pub(crate) fn open_gate(&self, container: &str) {
        std::fs::write(self.docker.shared().join(format!("go.{container}")), "").unwrap();
    }

    /// Waits until SQL has this many rows of a container.
    ///
    /// # Panics
    /// When `limit_seconds` pass, with the number that was there.
    pub(crate) fn wait_rows(&self, container: &str, count: u64, limit_seconds: u64) {
        let query = format!("select count(*) as n from logs where container = '{container}'");
        let mut last = Err("never asked".to_owned());
        let enough = try_wait_for(seconds(limit_seconds), || {
            last = self.sql.try_number(&query);
            last.as_ref().is_ok_and(|n| *n >= count).then_some(())
        });
        assert!(
            enough.is_some(),
            "{container}: waited {limit_seconds} s for {count} rows, there are {last:?}"
        );
    }

    /// Waits until what is stored stops falling short: every container's last line is there. Gives the verdicts.
    pub(crate) fn judge_all(&self, containers: &[Printed], limit_seconds: u64) -> Vec<Verdict> {
        let started = Instant::now();
        let mut verdicts = Vec::new();
        let done = try_wait_for(seconds(limit_seconds), || {
            let pending = containers.iter().find(|printed| !self.has_last_lines(printed));
            pending.is_none().then_some(())
        });
        println!("settled after {:.1} s: {}", started.elapsed().as_secs_f64(), done.is_some());
        for printed in containers {
            let verdict = judge(self.sql, printed);
            println!("{verdict}");
            if !verdict.is_clean() {
                println!("    Docker's own last ids: {}", self.docker.last_ids(&printed.container));
            }
            verdicts.push(verdict);
        }
        verdicts
    }

    /// Whether the last line of each stream is stored, as far as Docker still has it.
    fn has_last_lines(&self, printed: &Printed) -> bool {
        let kept = self.docker.last_ids_kept(&printed.container);
        printed.counts().into_iter().filter(|(_, count)| *count > 0).all(|(stream, count)| {
            let name = if stream == 'e' { "stderr" } else { "stdout" };
            let last = match &kept {
                Some(kept) => kept.get(name).copied(),
                None => Some(count - 1),
            };
            let Some(last) = last else { return true };
            let query = format!(
                "select count(*) as n from logs where container = '{}' and stream = '{name}' and message like 'id={last} %'",
                printed.container,
            );
            self.sql.try_number(&query).is_ok_and(|n| n > 0)
        })
    }

    /// Duplicates as SQL counts them: rows less distinct positions.
    pub(crate) fn duplicates(&self) -> u64 {
        let query = "select count(*) - count(distinct concat(agent, ' ', source, ' ', cast(position_major as varchar), ' ', \
                     cast(position_minor as varchar))) as n from logs";
        self.sql.number(query)
    }

    /// Searches the data directories, the wire, Loki's requests and all output for these secrets.
    pub(crate) fn search(&self, secrets: Vec<Secret>) -> Search {
        let leaks = Leaks::new(secrets);
        let started = Instant::now();
        let search = leaks.search(&[self.folder.path()]);
        println!(
            "searched {} secrets in {} files, {} MB, {} frames, {} Parquet files, {} decoded rows, in {:.1} s: {} hits",
            leaks.secrets(),
            search.files,
            search.bytes / 1_000_000,
            search.frames,
            search.parquet_files,
            search.rows,
            started.elapsed().as_secs_f64(),
            search.hits.len(),
        );
        // Libraries that see raw bytes are capped below trace, so what is said is little; silence would be a fault of the rig.
        let said = std::fs::read_dir(self.path("output")).unwrap().flatten();
        let is_loud = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
        assert!(
            said.map(|entry| entry.path()).filter(|path| is_loud(path)).count() >= 2,
            "the programs said nothing"
        );
        // The wire must have been decoded too, or its frames would have been searched only as they were compressed.
        let wire = Leaks::new(vec![canary()]).search(&[self.proxy.folder()]);
        assert!(wire.frames > 0, "no frame was found among {} bytes of the wire", wire.bytes);
        search
    }

    /// The server's metrics now.
    pub(crate) fn server_metrics(&self) -> Metrics {
        Metrics::scrape(self.sql.address).unwrap_or_default()
    }

    /// The agent's metrics now, asked through its socket.
    pub(crate) fn agent_metrics(&self) -> Metrics {
        let stream = UnixStream::connect(self.path("agent-data/door/agent.sock"));
        let answer = stream.and_then(|stream| http::exchange(stream, "GET", "/metrics", &[], b""));
        answer.map(|answer| Metrics::parse(&answer.text())).unwrap_or_default()
    }

    /// A file or folder of this installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A server without anything around it.
pub(crate) struct Alone {
    pub(crate) server: Program,
    pub(crate) sql: Sql,
    pub(crate) data: PathBuf,
    folder: Folder,
}

impl Alone {
    /// Starts `beeacon server` on `data`, or on a folder of its own.
    pub(crate) fn start(story: &str, data: Option<&Path>, config: Option<&str>) -> Self {
        Alone::start_with_loki(story, data, config, None)
    }

    /// The same, forwarding to the Loki at this URL.
    pub(crate) fn start_with_loki(
        story: &str,
        data: Option<&Path>,
        config: Option<&str>,
        loki: Option<&str>,
    ) -> Self {
        let folder = Folder::new(story);
        let address = free_address();
        let data = data.map_or_else(|| folder.path().join("server-data"), Path::to_owned);
        let mut server = Program::new("server", beeacon(), &folder.path().join("output"), Some(address))
            .argument("server")
            .option("--data", &data)
            .option("--listen", address.to_string())
            .option("--postgres", "none");
        if let Some(loki) = loki {
            server = server.option("--loki", loki);
        }
        if let Some(text) = config {
            std::fs::write(folder.path().join("server.toml"), text).unwrap();
            server = server.option("--config", folder.path().join("server.toml"));
        }
        server.start();
        Alone { server, sql: Sql { address }, data, folder }
    }

    /// Everything that the server said so far.
    pub(crate) fn output(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.path("output")).into_iter().flatten().flatten() {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()));
        }
        text
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

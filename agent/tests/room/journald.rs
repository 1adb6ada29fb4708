//! A journald of our own, on private directories, and the agent that reads what it keeps.
//!
//! It needs root, for a mount namespace in which journald's fixed paths lead to the test's directory.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beeacon_agent::journald::JournaldConfig;
use beeacon_agent::{Agent, AgentConfig};
use beeacon_filters::{Engine, EngineOptions};
use beeacon_record::GapReason;
use tempfile::TempDir;

use crate::collector::{Collector, State};
use crate::stories::{Running, config, number};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Two of them at once take each other's messages away.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Journald, and what writes to it.
struct Journald {
    _alone: MutexGuard<'static, ()>,
    daemon: Child,
    socket: UnixDatagram,
    path: PathBuf,
    directory: TempDir,
    next: u64,
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

impl Journald {
    /// None where it cannot run, which is said.
    fn start() -> Option<Self> {
        let is_there = |path: &str| Path::new(path).exists();
        if !rustix::process::getuid().is_root() || !is_there(JOURNALD) || !is_there("/usr/bin/journalctl") {
            assert!(
                std::env::var_os("BEEACON_TEST_REQUIRE_ALL").is_none(),
                "no root, journald or journalctl"
            );
            writeln!(std::io::stderr(), "SKIPPED: needs root, {JOURNALD} and journalctl").ok();
            return None;
        }
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let (run, log) = (directory.path().join("run/journal"), directory.path().join("log/journal"));
        std::fs::create_dir_all(&run).unwrap();
        std::fs::create_dir_all(&log).unwrap();
        std::fs::create_dir_all(directory.path().join("containers")).unwrap();
        // The paths are on the machine, too; what is mounted there is seen by this journald alone.
        for path in ["/run/systemd", "/run/log"] {
            std::fs::create_dir_all(path).unwrap();
        }
        let script = format!(
            "mount --bind \"$0/run\" /run/systemd && mount --bind \"$0/log\" /run/log && exec {JOURNALD}"
        );
        let daemon = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (socket, path) = (UnixDatagram::unbound().unwrap(), run.join("socket"));
        let journald = Journald { _alone, daemon, socket, path, directory, next: 0 };
        for _ in 0..200 {
            if journald.socket.send_to(b"MESSAGE=first\n", &journald.path).is_ok() {
                return Some(journald);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("journald does not listen");
    }

    fn write(&mut self, lines: u64) {
        for _ in 0..lines {
            let text = format!("mail bob@example.org {}", self.next);
            self.send(&[("SYSLOG_IDENTIFIER", "planted"), ("PRIORITY", "3"), ("MESSAGE", &text)]);
            self.next += 1;
        }
    }

    fn send(&self, fields: &[(&str, &str)]) {
        let mut datagram = Vec::new();
        for (name, value) in fields {
            datagram.extend_from_slice(name.as_bytes());
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(value.as_bytes());
            datagram.push(b'\n');
        }
        self.socket.send_to(&datagram, &self.path).unwrap();
    }

    /// The journal goes on in a new file, once everything that was written has come to it.
    fn rotate(&self) {
        let last = format!("mail bob@example.org {}\n", self.next - 1);
        let has_come = || {
            let mut command = Command::new("journalctl");
            command.args([
                "--output=cat",
                "--quiet",
                "--lines=1",
                "SYSLOG_IDENTIFIER=planted",
                "--directory",
            ]);
            command.arg(self.machine()).output().unwrap().stdout == last.as_bytes()
        };
        assert!(
            (0..200).any(|_| has_come() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }),
            "{last}"
        );
        let files = self.files();
        let daemon = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(daemon, rustix::process::Signal::USR2).unwrap();
        for _ in 0..200 {
            if self.files().len() > files.len() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the journal is not rotated");
    }

    /// The directory with the journal's files, named by the machine's id.
    fn machine(&self) -> PathBuf {
        let mut entries = std::fs::read_dir(self.directory.path().join("log/journal")).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.machine()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn config(&self, collector: &Collector) -> AgentConfig {
        let machine = self.machine();
        let journald = JournaldConfig {
            directory: Some(machine),
            matches: vec!["SYSLOG_IDENTIFIER=planted".to_owned()],
            labels: vec![("tier".to_owned(), "host".to_owned())],
            ..JournaldConfig::default()
        };
        AgentConfig { journald: vec![journald], ..config(collector, self.directory.path()) }
    }

    fn run(&self, collector: &Collector) -> Running {
        let engine = std::sync::Arc::new(Engine::new(EngineOptions::default()).unwrap());
        Running::run(Agent::new(self.config(collector), engine, 0).unwrap())
    }
}

fn assert_all(state: &State, lines: u64) {
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    assert_eq!(numbers, (0..lines).collect::<Vec<_>>());
    assert!(state.gaps.is_empty() && state.duplicates_stored == 0, "{:?}", state.gaps);
}

/// Stopped, with the journal rotated meanwhile, and with its own disk erased. Fails when the entry behind the last one is passed over, or
/// that one given out again.
#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_a_real_journal_is_stored_once_scrubbed_with_its_level_and_names() {
    let Some(mut journald) = Journald::start() else { return };
    let collector = Collector::start().await;
    journald.write(500);
    let running = journald.run(&collector);
    collector.until("what was there", |state| state.rows.len() >= 500).await;
    journald.write(200);
    collector.until("what came", |state| state.rows.len() >= 700).await;
    running.stop().await;
    journald.write(100);
    journald.rotate();
    journald.write(100);
    let running = journald.run(&collector);
    collector.until("what came meanwhile", |state| state.rows.len() >= 900).await;
    running.stop().await;
    std::fs::remove_dir_all(journald.directory.path().join("data")).unwrap();
    let running = journald.run(&collector);
    journald.send(&[("SYSLOG_IDENTIFIER", "planted"), ("PRIORITY", "7"), ("MESSAGE", "two\nlines 900")]);
    collector.until("the last", |state| state.rows.len() >= 901).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    assert_all(&state, 901);
    let (_, _, first) = &state.rows[0];
    assert_eq!(
        (first.message.as_str(), first.level.as_str(), first.service.as_str()),
        ("mail <EMAIL> 0", "error", "planted")
    );
    let attribute =
        |name: &str| first.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((attribute("identifier"), attribute("transport")), (Some("planted"), Some("journal")));
    let (_, _, last) = state.rows.last().unwrap();
    assert_eq!((last.message.as_str(), last.level.as_str()), ("two\nlines 900", "debug"));
    let distance = last.timestamp_ns - first.timestamp_ns;
    assert!(distance > 0 && distance < 600_000_000_000, "{distance}");
}

/// Fails when what journald has removed is passed over in silence.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_from_the_journal_while_the_agent_was_down_is_one_gap() {
    let Some(mut journald) = Journald::start() else { return };
    let collector = Collector::start().await;
    journald.write(100);
    let running = journald.run(&collector);
    collector.until("what was there", |state| state.rows.len() >= 100).await;
    running.stop().await;
    journald.write(50);
    let old = journald.files();
    journald.rotate();
    journald.write(50);
    let archived = |path: &&PathBuf| path.to_string_lossy().contains('@');
    let all = journald.files();
    assert!(old.len() < all.len());
    all.iter().filter(archived).for_each(|path| std::fs::remove_file(path).unwrap());
    let running = journald.run(&collector);
    collector.until("what is left", |state| state.rows.len() >= 150).await;
    running.stop().await;
    let state = collector.state.lock().unwrap();
    let numbers: Vec<u64> = state.rows.iter().map(|(_, _, row)| number(&row.message)).collect();
    assert_eq!(numbers, (0..100).chain(150..200).collect::<Vec<_>>());
    let [(_, gap, _)] = state.gaps.as_slice() else { panic!("{:?}", state.gaps) };
    assert_eq!((gap.reason, state.duplicates_stored), (GapReason::Rotated, 0));
}

/// The program is killed again and again while entries come and the journal is rotated.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_loses_and_repeats_no_entry_of_the_journal() {
    let Some(mut journald) = Journald::start() else { return };
    let collector = Collector::start().await;
    let file = journald.directory.path().join("agent.toml");
    let machine = journald.machine().display().to_string();
    let text = format!(
        "[agent]\ncollector = \"{}\"\ndata = \"{}\"\ndocker_host = \"none\"\n[[agent.journald]]\ndirectory = \"{machine}\"\n\
         matches = [\"SYSLOG_IDENTIFIER=planted\"]\n",
        collector.url,
        journald.directory.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let spawn = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beeacon-agent"));
        command
            .arg("run")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    for round in 0..8 {
        let before = collector.state.lock().unwrap().sessions;
        let mut child = spawn();
        collector.until("a session of the new program", |state| state.sessions > before).await;
        for _ in 0..5 {
            journald.write(40);
            tokio::time::sleep(Duration::from_millis(round * 7)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 3 == 2 {
            journald.rotate();
        }
    }
    let mut child = spawn();
    let lines = journald.next;
    collector.until("every entry", |state| state.rows.len() as u64 >= lines).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_all(&collector.state.lock().unwrap(), lines);
}

//! A real agent that reads json-files and ships to a real collector over loopback: what a line costs it, and how much memory it takes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::programs::{Program, Server, free_port};
use crate::table::Table;

/// How many containers the lines are written by.
const CONTAINERS: usize = 4;

/// How long an agent without a collector, and one without anything to do, are looked at.
const LOOKED_AT: Duration = Duration::from_secs(20);

/// A profile of one rule that finds nothing in these lines, so that the same path can be measured without redaction: one without any
/// rule is refused.
const NOTHING: &str = "name = \"nothing\"\ndescription = \"Finds nothing: for measuring\"\n\
    [[use]]\nrules = [\"crates_io\"]\n";

pub(crate) fn measure(table: &mut Table, lines: &[&str], json_file: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory for the agents");
    let containers = directory.path().join("containers");
    for index in 0..CONTAINERS {
        write_container(&containers, index, &format!("bench-{index}"), json_file);
    }
    let count = lines.len() * CONTAINERS;
    table.note(&format!("{count} lines of {CONTAINERS} containers, read and shipped by an agent process"));
    std::fs::write(directory.path().join("nothing.toml"), NOTHING).expect("a profile");
    let unredacted = directory.path().join("unredacted.toml");
    let profile = directory.path().join("nothing.toml");
    let configuration = format!("[filter]\nprofile = \"nothing\"\nprofiles = [{profile:?}]\n");
    std::fs::write(&unredacted, configuration).expect("a configuration");

    for (name, configuration) in [("default profile", None), ("nothing redacted", Some(unredacted.as_path()))]
    {
        let data = tempfile::tempdir_in(directory.path()).expect("a directory");
        let server = Server::start(&data.path().join("server"));
        let start = Instant::now();
        let url = format!("http://{}", server.address);
        let agent = agent(&containers, &data.path().join("agent"), &url, configuration, Some(0));
        server.wait_for_lines(count as u64);
        let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), agent.cpu_s());
        table.figure(&format!("agent, {name}, CPU"), cpu_s * 1e6 / count as f64, "µs a line");
        table.figure(
            &format!("  agent on one core, {name}"),
            count as f64 / wall_s / 1e3,
            "thousand lines a second",
        );
        table.figure(&format!("  memory at most, {name}"), agent.memory_mib("VmHWM"), "MiB");
    }

    let data = directory.path().join("down");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let down = agent(&containers, &data, &nobody, None, None);
    std::thread::sleep(LOOKED_AT);
    table.figure("  memory at most, the collector down", down.memory_mib("VmHWM"), "MiB");
    drop(down);

    let server = Server::start(&directory.path().join("idle_server"));
    let empty = directory.path().join("no_containers");
    std::fs::create_dir_all(&empty).expect("a directory");
    let url = format!("http://{}", server.address);
    let idle = agent(&empty, &directory.path().join("idle"), &url, None, None);
    std::thread::sleep(LOOKED_AT / 4);
    table.figure("  memory, idle", idle.memory_mib("VmRSS"), "MiB");
    let size = std::fs::metadata(program()).map_or(0, |metadata| metadata.len());
    table.figure("the small program", size as f64 / f64::from(1 << 20), "MiB");
}

/// The small program, which `make bench` builds first.
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_beeacon")).with_file_name("beeacon-agent");
    assert!(path.exists(), "{} is missing: make agent builds it", path.display());
    path
}

/// An agent over these containers, on one core if one is named.
fn agent(
    containers: &Path,
    data: &Path,
    url: &str,
    configuration: Option<&Path>,
    core: Option<usize>,
) -> Program {
    let mut command = match core {
        None => Command::new(program()),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(program());
            command
        }
    };
    command
        .args(["run", "--reader", "file", "--docker-host", "none", "--collector", url, "--data"])
        .arg(data);
    command.arg("--containers-directory").arg(containers);
    if let Some(configuration) = configuration {
        command.arg("--config").arg(configuration);
    }
    Program::start(&mut command)
}

/// A container's directory as Docker makes it; the path of its log.
pub(crate) fn write_container(containers: &Path, index: usize, name: &str, json_file: &[u8]) -> PathBuf {
    let id = format!("{:064x}", 0xbee + index);
    let directory = containers.join(&id);
    std::fs::create_dir_all(&directory).expect("a directory");
    let log = directory.join(format!("{id}-json.log"));
    let configuration = serde_json::json!({
        "ID": id,
        "Name": format!("/{name}"),
        "Created": "2023-11-14T00:00:00Z",
        "State": { "Running": true, "StartedAt": "2023-11-14T00:00:00Z" },
        "Config": { "Image": "bench", "Tty": false, "Labels": {} },
        "LogPath": log,
    });
    std::fs::write(directory.join("config.v2.json"), configuration.to_string()).expect("a file");
    let host = serde_json::json!({ "LogConfig": { "Type": "json-file", "Config": {} } });
    std::fs::write(directory.join("hostconfig.json"), host.to_string()).expect("a file");
    std::fs::write(&log, json_file).expect("a log");
    log
}

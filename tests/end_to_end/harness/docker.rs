//! A private Docker: containerd and dockerd with roots and sockets of their own, one image, and nothing left behind.
//!
//! A host's own Docker is not touched. Containers have no network. dockerd can be stopped in order and started again; with
//! `--live-restore` the containers go on meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::http::{self, Response};
use crate::harness::poll::{seconds, try_wait_for, wait_for, wait_until};
use crate::harness::probe;

const IMAGE: &str = "beeacon-test:latest";

/// How a container's lines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// json-file without rotation.
    JsonFile,
    /// json-file with these bounds.
    Rotated { max_size: &'static str, max_file: u32 },
    /// The same, with rotated files compressed.
    Compressed { max_size: &'static str, max_file: u32 },
    /// The `local` driver, which only the Docker API can read.
    Local,
    /// Any other, with its options.
    Other { name: &'static str, options: &'static [(&'static str, &'static str)] },
}

/// A container to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) driver: Driver,
    pub(crate) tty: bool,
    pub(crate) remove_at_exit: bool,
    pub(crate) binds: Vec<String>,
    pub(crate) labels: Vec<(&'static str, &'static str)>,
}

impl Spec {
    /// A container of this name that runs `command`, json-file driver, no tty.
    pub(crate) fn new(name: &str, command: &[&str]) -> Self {
        Spec {
            name: name.into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            driver: Driver::JsonFile,
            tty: false,
            remove_at_exit: false,
            binds: Vec::new(),
            labels: Vec::new(),
        }
    }

    fn body(&self) -> Value {
        let log = match self.driver {
            Driver::JsonFile => json!({"Type": "json-file"}),
            Driver::Rotated { max_size, max_file } => json!({
                "Type": "json-file", "Config": {"max-size": max_size, "max-file": max_file.to_string()},
            }),
            Driver::Compressed { max_size, max_file } => json!({
                "Type": "json-file",
                "Config": {"max-size": max_size, "max-file": max_file.to_string(), "compress": "true"},
            }),
            Driver::Local => json!({"Type": "local"}),
            Driver::Other { name, options } => {
                let options: serde_json::Map<String, Value> =
                    options.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                json!({"Type": name, "Config": options})
            }
        };
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        json!({
            "Image": IMAGE, "Cmd": self.command, "Tty": self.tty, "Labels": labels,
            "HostConfig": {
                "NetworkMode": "none", "LogConfig": log, "Binds": self.binds, "AutoRemove": self.remove_at_exit,
            },
        })
    }
}

/// The private Docker; it ends, with all its containers, with the value.
pub(crate) struct Docker {
    folder: TempDir,
    containerd: Child,
    dockerd: Option<Child>,
    /// Folders shared with containers live here.
    shared: PathBuf,
    /// Whether containers go on while dockerd is away.
    lets_live: bool,
}

impl Docker {
    /// Starts containerd and dockerd and imports the image.
    pub(crate) fn start() -> Self {
        let docker = Docker::start_without_dockerd();
        let mut docker = docker;
        docker.start_dockerd();
        docker.import_image();
        docker
    }

    /// Starts containerd only; [`Docker::start_dockerd`] and [`Docker::import_image`] do the rest.
    pub(crate) fn start_without_dockerd() -> Self {
        let folder = tempfile::Builder::new().prefix("beeacon-docker-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("containerd-root"),
            path("containerd-state"),
            path("containerd.sock"),
        );
        fs::write(path("containerd.toml"), config).unwrap();
        let log = File::create(path("containerd.log")).unwrap();
        let containerd = tied("containerd")
            .args(["--config", &path("containerd.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        let docker = Docker { folder, containerd, dockerd: None, shared, lets_live: true };
        let socket = docker.path("containerd.sock");
        wait_until("containerd's socket", seconds(30), || UnixStream::connect(&socket).is_ok());
        docker
    }

    /// Starts dockerd and waits until it answers.
    pub(crate) fn start_dockerd(&mut self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        fs::remove_file(path("docker.pid")).ok();
        let log = File::options().create(true).append(true).open(path("dockerd.log")).unwrap();
        let child = tied("dockerd")
            .args(["--containerd", &path("containerd.sock"), "--data-root", &path("data")])
            .args(["--exec-root", &path("exec"), "--pidfile", &path("docker.pid")])
            .args(["-H", &format!("unix://{}", path("docker.sock"))])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(self.lets_live.then_some("--live-restore"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.dockerd = Some(child);
        let answers = try_wait_for(seconds(60), || {
            self.api("GET", "/_ping", None).ok().filter(|response| response.status == 200)
        });
        assert!(answers.is_some(), "dockerd does not answer; its log ends:\n{}", self.log_tail());
    }

    /// Stops dockerd in order; containers go on.
    pub(crate) fn stop_dockerd(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            terminate(&mut dockerd, seconds(30));
        }
    }

    /// kill -9 for dockerd.
    pub(crate) fn kill_dockerd(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            dockerd.kill().ok();
            dockerd.wait().ok();
        }
    }

    /// Whether the next dockerd lets containers go on while it is away.
    pub(crate) fn let_live(&mut self, lets_live: bool) {
        self.lets_live = lets_live;
    }

    /// What Docker itself has of one output of a container, by lines: pieces belong together when they have one timestamp and there is
    /// no newline between them.
    pub(crate) fn lines(&self, id: &str, output: &str) -> Vec<String> {
        let path = format!("/containers/{id}/logs?{output}=1&timestamps=1");
        let answer = self.api("GET", &path, None).unwrap();
        assert_eq!(answer.status, 200, "logs of {id}: {}", answer.text());
        let (mut lines, mut open, mut rest) = (Vec::<String>::new(), None::<String>, answer.body.as_slice());
        while let Some((header, after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
            let piece = String::from_utf8_lossy(&after[..length]).into_owned();
            rest = &after[length..];
            let (time, text) = piece.split_once(' ').unwrap();
            match lines.last_mut() {
                Some(line) if open.as_deref() == Some(time) => line.push_str(text.trim_end_matches('\n')),
                _ => lines.push(text.trim_end_matches('\n').to_owned()),
            }
            open = (!text.ends_with('\n')).then(|| time.to_owned());
        }
        lines
    }

    /// Makes the image that all containers use: busybox and the generator.
    pub(crate) fn import_image(&self) {
        let tree = self.path("tree");
        for folder in ["bin", "tmp", "dev", "proc", "sys", "etc", "shared"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        fs::copy(probe::program("busybox").unwrap(), tree.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "cat", "echo", "printf", "true", "head", "yes", "tr"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        fs::copy(generator(), tree.join("bin/generator")).unwrap();
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output().unwrap();
        assert!(tar.status.success(), "tar failed on the image's tree");
        let (repository, tag) = IMAGE.split_once(':').unwrap();
        let response = self.api_raw(
            "POST",
            &format!("/images/create?fromSrc=-&repo={repository}&tag={tag}"),
            &tar.stdout,
        );
        let response = response.unwrap();
        assert_eq!(response.status, 200, "image import: {}", response.text());
    }

    /// Creates and starts a container; gives its id.
    pub(crate) fn run(&self, spec: &Spec) -> String {
        let id = self.create(spec);
        self.start_container(&id);
        id
    }

    /// Creates a container; gives its id.
    pub(crate) fn create(&self, spec: &Spec) -> String {
        let created = self.api("POST", &format!("/containers/create?name={}", spec.name), Some(&spec.body()));
        let created = created.unwrap();
        assert_eq!(created.status, 201, "create {}: {}", spec.name, created.text());
        created.json()["Id"].as_str().unwrap().to_owned()
    }

    /// Starts a container.
    pub(crate) fn start_container(&self, id: &str) {
        // On a busy machine runc's network hook loses a race now and then; nothing of the container has run then.
        let mut fault = String::new();
        let started = try_wait_for(seconds(20), || {
            let response = self.api("POST", &format!("/containers/{id}/start"), None).unwrap();
            fault = response.text();
            (response.status == 204 || !fault.contains("OCI runtime create failed"))
                .then_some(response.status)
        });
        assert_eq!(started, Some(204), "start {id}: {fault}");
    }

    /// Does something with a container that answers with nothing.
    pub(crate) fn post(&self, id: &str, what: &str) {
        let response = self.api("POST", &format!("/containers/{id}/{what}"), None).unwrap();
        // 304: it is so already.
        assert!(matches!(response.status, 204 | 304), "{what} of {id}: {}", response.text());
    }

    /// Waits until a container has ended; gives its exit code.
    pub(crate) fn wait(&self, id: &str, limit: Duration) -> i64 {
        wait_for(&format!("the end of container {id}"), limit, || {
            let state = self.inspect(id)?["State"].clone();
            (state["Running"] == json!(false)).then(|| state["ExitCode"].as_i64().unwrap_or(-1))
        })
    }

    /// Docker's own description of a container; nothing when there is none.
    pub(crate) fn inspect(&self, id: &str) -> Option<Value> {
        let response = self.api("GET", &format!("/containers/{id}/json"), None).ok()?;
        (response.status == 200).then(|| response.json())
    }

    /// Removes a container, running or not.
    pub(crate) fn remove(&self, id: &str) {
        self.api("DELETE", &format!("/containers/{id}?force=1&v=1"), None).ok();
    }

    /// Removes every container.
    pub(crate) fn remove_all(&self) {
        let Ok(list) = self.api("GET", "/containers/json?all=1", None) else { return };
        let Ok(list) = serde_json::from_slice::<Vec<Value>>(&list.body) else { return };
        for id in list.iter().filter_map(|container| container["Id"].as_str()) {
            self.remove(id);
        }
    }

    /// What Docker keeps of a container's json-file, oldest file first.
    pub(crate) fn json_files(&self, id: &str) -> Vec<PathBuf> {
        let folder = self.containers_directory().join(id);
        let name = format!("{id}-json.log");
        let mut files: Vec<(u32, PathBuf)> = fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
            .unwrap_or_default()
            .into_iter()
            .filter_map(|path| {
                let rest = path.file_name()?.to_str()?.strip_prefix(&name)?.to_owned();
                let number = if rest.is_empty() { 0 } else { rest.strip_prefix('.')?.parse().ok()? };
                Some((number, path))
            })
            .collect();
        files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        files.into_iter().map(|(_, path)| path).collect()
    }

    /// The last id of each stream that Docker has, of an ended container whose json-files are rotated; otherwise nothing.
    pub(crate) fn last_ids_kept(&self, name: &str) -> Option<BTreeMap<String, u64>> {
        let container = self.inspect(name)?;
        let is_rotated = container["HostConfig"]["LogConfig"]["Config"]["max-size"].is_string();
        if !is_rotated || container["State"]["Running"] == json!(true) {
            return None;
        }
        let mut last = BTreeMap::new();
        for file in self.json_files(container["Id"].as_str()?) {
            for record in fs::read(file).ok()?.split(|byte| *byte == b'\n') {
                let Ok(record) = serde_json::from_slice::<Value>(record) else { continue };
                let id = record["log"]
                    .as_str()
                    .and_then(|text| text.strip_prefix("id=")?.split(' ').next()?.parse().ok());
                if let (Some(id), Some(stream)) = (id, record["stream"].as_str()) {
                    last.insert(stream.to_owned(), id);
                }
            }
        }
        Some(last)
    }

    /// The last ids that Docker itself has of a container, to tell what it never wrote from what was not read.
    pub(crate) fn last_ids(&self, name: &str) -> String {
        let path = format!("/containers/{name}/logs?stdout=1&stderr=1&tail=6");
        let body = self.api("GET", &path, None).map(|response| response.text()).unwrap_or_default();
        let ids = body.split("id=").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
        ids.collect::<Vec<_>>().join(" ")
    }

    /// For `--docker-host`, without what stands before the socket.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where dockerd listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// For the agent's `--containers-directory`.
    pub(crate) fn containers_directory(&self) -> PathBuf {
        self.path("data").join("containers")
    }

    /// A folder that containers see as `/shared` when bound with [`Docker::shared_bind`].
    pub(crate) fn shared(&self) -> &Path {
        &self.shared
    }

    /// The bind that shows [`Docker::shared`] to a container.
    pub(crate) fn shared_bind(&self) -> String {
        format!("{}:/shared", self.shared.display())
    }

    /// One request to dockerd.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Response> {
        self.api_raw(method, path, &body.map(|body| body.to_string().into_bytes()).unwrap_or_default())
    }

    fn api_raw(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        let stream = UnixStream::connect(self.path("docker.sock"))?;
        stream.set_read_timeout(Some(seconds(60)))?;
        http::exchange(stream, method, path, &[("Content-Type", "application/json")], body)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.path("dockerd.log")).unwrap_or_default();
        log.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.remove_all();
        self.stop_dockerd();
        terminate(&mut self.containerd, seconds(10));
        end_processes_below(self.folder.path());
        unmount_below(self.folder.path());
    }
}

/// A command whose process ends with this one, where `setpriv` can arrange that.
pub(crate) fn tied(name: &str) -> Command {
    let program = probe::program(name).unwrap_or_else(|| name.into());
    tied_path(&program)
}

/// [`tied`], for a program at a known place.
pub(crate) fn tied_path(program: &Path) -> Command {
    match probe::program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// TERM, then KILL after `limit`.
pub(crate) fn terminate(child: &mut Child, limit: Duration) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM).ok();
    }
    let ended = try_wait_for(limit, || child.try_wait().ok().flatten());
    if ended.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
}

/// Ends processes that were started for this folder and outlived their parents: shims, and what ran in their containers.
fn end_processes_below(folder: &Path) {
    let folder = folder.to_str().unwrap();
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let is_shim = fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| memchr::memmem::find(&line, folder.as_bytes()).is_some());
        let is_contained = fs::read_link(entry.path().join("ns/mnt")).ok() != own
            && fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(folder));
        if pid != std::process::id() as i32 && (is_shim || is_contained) {
            Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

/// Unmounts what is still mounted below a folder, deepest first.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder))
        .collect();
    below.sort_by_key(|at| std::cmp::Reverse(at.len()));
    for at in below {
        Command::new("umount").args(["-l", at]).stderr(Stdio::null()).status().ok();
    }
}

/// The generator, compiled once per run into a program that needs no library.
fn generator() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = PROGRAM.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("beeacon-generator-").tempdir().unwrap();
        let program = folder.path().join("generator");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/generator/main.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(compiler)
            .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
            .arg("-A")
            .arg("dead_code")
            .arg(source)
            .arg("-o")
            .arg(&program)
            .output()
            .unwrap();
        assert!(output.status.success(), "generator: {}", String::from_utf8_lossy(&output.stderr));
        (folder, program)
    });
    program
}

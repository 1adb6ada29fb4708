//! The programs under test as processes of their own: started, killed, started again, their whole output kept.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::harness::docker::{terminate, tied_path};
use crate::harness::http;
use crate::harness::poll::{seconds, try_wait_for};

/// How long a program may take until it is ready.
const READY_LIMIT: Duration = seconds(60);

/// The program `beeacon`.
pub(crate) fn beeacon() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_beeacon"))
}

/// The program `beeacon-agent`, which stands beside it. Cargo builds only the root package's programs for its tests, so
/// `cargo build -p beeacon-agent` must have run before; `make test` does that.
pub(crate) fn beeacon_agent() -> PathBuf {
    let program = beeacon().with_file_name("beeacon-agent");
    assert!(
        program.is_file(),
        "{} is not there: run `cargo build -p beeacon-agent` first, as `make test` does",
        program.display()
    );
    program
}

/// A loopback port that is free now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A program that can be started again with the same words.
pub(crate) struct Program {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    output: PathBuf,
    child: Option<Child>,
    starts: u32,
    ready: Option<SocketAddr>,
    /// What it is started through: a program that becomes it, with words of its own.
    through: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Program {
    /// A program that writes its output at trace level into `folder`. `ready` is where its `/readyz` answers, if it has one.
    pub(crate) fn new(name: &str, program: PathBuf, folder: &Path, ready: Option<SocketAddr>) -> Self {
        fs::create_dir_all(folder).unwrap();
        Program {
            name: name.into(),
            program,
            arguments: Vec::new(),
            output: folder.to_owned(),
            child: None,
            starts: 0,
            ready,
            through: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Starts through a program that becomes this one, such as `nsenter`.
    pub(crate) fn through(mut self, words: Vec<String>) -> Self {
        self.through = words;
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn variable(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Starts where and as a program may leave a core file.
    pub(crate) fn allow_core_files(&mut self) {
        let words = [
            "/bin/sh",
            "-c",
            "ulimit -c unlimited && cd \"$0\" && exec \"$@\"",
            self.output.to_str().unwrap(),
        ];
        self.through = words.map(str::to_owned).into();
    }

    /// Takes another file as the program.
    pub(crate) fn replace(&mut self, program: PathBuf, through: Vec<String>) {
        (self.program, self.through) = (program, through);
    }

    pub(crate) fn argument(mut self, word: impl Into<String>) -> Self {
        self.arguments.push(word.into());
        self
    }

    pub(crate) fn option(self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.argument(key).argument(value.as_ref().to_str().unwrap())
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.starts += 1;
        let file = |end: &str| {
            File::create(self.output.join(format!("{}.{:03}.{end}", self.name, self.starts))).unwrap()
        };
        let mut words = self.through.iter().map(String::as_str).chain([self.program.to_str().unwrap()]);
        let mut command = tied_path(Path::new(words.next().unwrap()));
        command.args(words).args(&self.arguments).env("BEEACON_LOG", "trace").env("RUST_BACKTRACE", "1");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        self.child =
            Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display())));
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Waits for `/readyz` to answer 200.
    pub(crate) fn wait_ready(&mut self) {
        let Some(address) = self.ready else { return };
        let mut ended = None;
        let ready = try_wait_for(READY_LIMIT, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let ready = http::request(address, "GET", "/readyz", &[], b"")
                .is_ok_and(|response| response.status == 200);
            (ready || ended.is_some()).then_some(())
        });
        if let Some(status) = ended {
            panic!("{} ended with {status} before it was ready:\n{}", self.name, self.last_words());
        }
        assert!(
            ready.is_some(),
            "{} was not ready within {READY_LIMIT:?}:\n{}",
            self.name,
            self.last_words()
        );
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// TERM, and the end it leads to.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(&mut child, seconds(30));
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        self.status_kib("VmRSS:")
    }

    /// The highest resident memory it ever had, in bytes.
    pub(crate) fn resident_bytes_peak(&self) -> Option<u64> {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> Option<u64> {
        let pid = self.child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// How many files it has open, and how many threads.
    pub(crate) fn descriptors_and_threads(&self) -> (usize, usize) {
        let pid = self.child.as_ref().unwrap().id();
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        (count("fd"), count("task"))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// Everything that all its runs said on standard error.
    pub(crate) fn output(&self) -> String {
        let files =
            (1..=self.starts).map(|start| self.output.join(format!("{}.{start:03}.stderr", self.name)));
        files.map(|file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()).collect()
    }

    /// The end of what the last run said, for a failing test.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(self.output.join(format!("{}.{:03}.stderr", self.name, self.starts)))
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let loud: Vec<&str> =
            text.lines().filter(|line| !line.contains("TRACE") && !line.contains("DEBUG")).collect();
        loud[loud.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- last words of {} (start {}):\n{}", self.name, self.starts, self.last_words());
            self.kill();
        }
        self.stop();
    }
}

/// Runs `beeacon` with these words to its end, at most for a minute.
pub(crate) fn run_beeacon(words: &[&str], input: &[u8]) -> Output {
    use std::io::Write;
    let mut child = Command::new(beeacon())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&input).ok();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().ok();
    output
}

//! The privacy of the process: no core dump, no debugger of another user, no payload in a log line or a panic message.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that sets the log filter.
pub const LOG_VARIABLE: &str = "BEEACON_LOG";

/// Libraries through whose hands raw bytes go. At debug and trace they print requests, answers and buffers, so they are held
/// at warnings whatever the filter says.
const CAPPED: [&str; 9] =
    ["hyper", "hyper_util", "bollard", "h2", "rustls", "tokio_util", "mio", "want", "tower"];

/// Takes what could carry text of a line out of the process: core files and attached debuggers. Raises the limit of open files
/// to what is allowed, for every log file of every container is held open.
pub fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "cannot forbid core dumps");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot make the process undumpable");
    }
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Logs to standard error, filtered by `BEEACON_LOG` (`info` by default). A panic is logged with its place and without its
/// message, which may quote what was being worked on.
pub fn start_logging() {
    let text = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = log_filter(&text);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(true);
    // Fails only when something else logs already, as in a test.
    tracing_subscriber::registry().with(filter).with(layer).try_init().ok();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        tracing::error!(place = place.unwrap_or_default(), "panic");
    }));
}

/// The filter that `text` asks for, with the capped libraries held at warnings.
fn log_filter(text: &str) -> EnvFilter {
    let text = if text.trim().is_empty() { "info" } else { text };
    // Directives for these targets would win over the cap by being longer, so they are left out.
    let kept: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|directive| {
            let target = directive.split(['=', '[', ':']).next().unwrap_or_default();
            !directive.is_empty() && !CAPPED.contains(&target)
        })
        .collect();
    let capped = CAPPED.map(|target| format!("{target}=warn"));
    let directives: Vec<&str> = kept.into_iter().chain(capped.iter().map(String::as_str)).collect();
    EnvFilter::builder().parse_lossy(directives.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_leaves_no_core_file_and_lets_no_other_user_look_into_it() {
        harden();
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }

    /// Scenario: the test starts itself; what it started logs at trace level, and panics over a secret.
    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        const ROLE: &str = "BEEACON_TEST_PANICS";
        if std::env::var_os(ROLE).is_some() {
            start_logging();
            std::thread::spawn(|| panic!("planted-{}", 77)).join().ok();
            return;
        }
        let name = "process::tests::a_panic_is_logged_with_its_place_and_without_its_message";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ROLE, "1")
            .env(LOG_VARIABLE, "trace")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("panic") && printed.contains("process.rs:"), "{printed}");
        assert!(!printed.contains("planted-77"), "{printed}");
    }

    #[test]
    fn libraries_that_handle_raw_bytes_stay_at_warnings_whatever_is_asked() {
        for text in ["", "trace", "hyper=trace,debug", "hyper::proto=trace", "bollard[x]=trace,info"] {
            let filter = log_filter(text).to_string();
            assert!(filter.contains("hyper=warn") && filter.contains("bollard=warn"), "{text}: {filter}");
            assert!(!filter.contains("hyper=trace") && !filter.contains("hyper::"), "{text}: {filter}");
        }
    }
}

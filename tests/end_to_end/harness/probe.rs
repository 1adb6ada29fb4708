//! What this machine can do. A test that cannot run says so; with `BEEACON_TEST_REQUIRE_ALL=1` that is a failure.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a program is, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What Docker stories need and this machine lacks.
pub(crate) fn missing_for_docker() -> Option<String> {
    if !is_root() {
        return Some("needs root, to run a private dockerd".into());
    }
    for name in ["dockerd", "containerd", "busybox"] {
        if program(name).is_none() {
            return Some(format!("{name} is not installed"));
        }
    }
    if !Path::new("/sys/fs/cgroup").is_dir() {
        return Some("no cgroups".into());
    }
    None
}

/// Says that a test was skipped.
///
/// # Panics
/// With `BEEACON_TEST_REQUIRE_ALL=1`, where nothing may be skipped.
pub(crate) fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test} {reason}");
    let required = std::env::var("BEEACON_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "{test} was skipped although everything is required: {reason}");
}

/// Waits until no other test has a dockerd. Two at a time get into each other's way (runc's network hook fails now and then),
/// and on two cores each would starve the other's containers.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns from the test with a visible skip unless Docker stories can run here.
macro_rules! need_docker {
    ($test:expr) => {
        if let Some(reason) = crate::harness::probe::missing_for_docker() {
            crate::harness::probe::skip($test, &reason);
            return;
        }
        let _turn = crate::harness::probe::turn();
    };
}
pub(crate) use need_docker;

//! How long a query has run and how much of its answer has come, on one line that goes away.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// Answers that come sooner show no progress.
const QUIET: Duration = Duration::from_millis(400);

/// How often the line is written anew.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line; it goes away when this is dropped.
pub(super) struct Progress {
    bytes: Arc<AtomicU64>,
    shown: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to count, and to show where somebody can see it.
    pub(super) fn start(visible: bool) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let shown = visible.then(|| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let started = Instant::now();
                tokio::time::sleep(QUIET).await;
                loop {
                    let seconds = started.elapsed().as_secs_f64();
                    write(&line(seconds, bytes.load(Ordering::Relaxed)));
                    tokio::time::sleep(INTERVAL).await;
                }
            })
        });
        Progress { bytes, shown }
    }

    /// Counts bytes of the answer.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Takes the line away, because rows are about to be written.
    pub(super) fn end(&self) {
        if let Some(task) = &self.shown
            && !task.is_finished()
        {
            task.abort();
            write("\r\u{1b}[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn line(seconds: f64, bytes: u64) -> String {
    let came = match bytes {
        0 => "waiting for the first row".to_owned(),
        bytes => format!("{:.1} MB", bytes as f64 / 1e6),
    };
    format!("\r\u{1b}[K{seconds:.1} s, {came} (Ctrl-C stops it)")
}

/// A terminal that is gone needs no progress.
fn write(text: &str) {
    let mut screen = std::io::stderr().lock();
    screen.write_all(text.as_bytes()).and_then(|()| screen.flush()).ok();
}

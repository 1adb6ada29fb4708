//! All doors of an agent: opened before anything starts, served beside the pump, closed before it ends.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http_door::HttpDoor;
use super::syslog_door::SyslogDoor;
use super::{Lane, LaneParts, PushConfig, STDIN_SERVICE, stdin};
use crate::limits::{POLL_EVERY, PUSH_END_WITHIN};
use crate::spool::lock;

/// Why the doors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// An address cannot be listened on.
    #[error("listen on {address} for {what}")]
    Listen {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Frames cannot be compressed.
    #[error("prepare frames of handed-over lines")]
    Frame(#[from] beeacon_record::FrameError),
    /// A thread cannot be started.
    #[error("start the thread of handed-over lines")]
    Thread(#[source] std::io::Error),
}

/// A door that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DoorStatus {
    /// For whom: `syslog` or `push`.
    pub door: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Doors that take nothing in yet.
pub struct Doors {
    stdin: bool,
    syslog: Vec<SyslogDoor>,
    http: Option<HttpDoor>,
}

impl Doors {
    /// Opens what is configured.
    ///
    /// # Errors
    /// When an address is in use or not ours.
    pub async fn open(config: &PushConfig) -> Result<Self, DoorsError> {
        let refused = |what, address| move |source| DoorsError::Listen { what, address, source };
        let mut syslog = Vec::new();
        for door in &config.syslog {
            syslog.push(SyslogDoor::open(*door).await.map_err(refused("syslog", door.listen))?);
        }
        let http = match config.http {
            Some(address) => {
                let door = HttpDoor::open(address, config.token.clone()).await;
                Some(door.map_err(refused("other senders", address))?)
            }
            None => None,
        };
        Ok(Doors { stdin: config.stdin, syslog, http })
    }

    /// Where they listen.
    pub fn status(&self) -> Vec<DoorStatus> {
        let syslog = self.syslog.iter().filter_map(SyslogDoor::address);
        let syslog = syslog.map(|address| DoorStatus { door: "syslog", address });
        let http = self.http.as_ref().and_then(HttpDoor::address);
        syslog.chain(http.map(|address| DoorStatus { door: "push", address })).collect()
    }

    /// Lets lines in. After the end of standard input, and once everything has been shipped, `stop` is set.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self, parts: LaneParts, stop: &CancellationToken) -> Result<OpenDoors, DoorsError> {
        let spool = parts.spool.clone();
        let (lane, sender) = Lane::new(parts)?;
        let (ended, runtime) = (CancellationToken::new(), Handle::current());
        let (end, handle) = (ended.clone(), runtime.clone());
        let lane = std::thread::Builder::new()
            .name("beeacon-push".to_owned())
            .spawn(move || lane.run(&handle, &end))
            .map_err(DoorsError::Thread)?;
        let mut tasks = JoinSet::new();
        for door in self.syslog {
            tasks.spawn(door.serve(sender.clone(), stop.clone()));
        }
        if let Some(door) = self.http {
            tasks.spawn(door.serve(sender.clone(), stop.clone()));
        }
        if self.stdin {
            let (stop, finished) = (stop.clone(), CancellationToken::new());
            let (stopping, finish) = (stop.clone(), finished.clone());
            // Never joined: it may wait for input for ever.
            std::thread::Builder::new()
                .name("beeacon-stdin".to_owned())
                .spawn(move || {
                    let input =
                        std::io::BufReader::with_capacity(crate::limits::STDIN_READ_BYTES, std::io::stdin());
                    match stdin::read(input, STDIN_SERVICE, &sender, &runtime, &stopping) {
                        Ok(lines) => tracing::info!(lines, "standard input has ended"),
                        Err(error) => {
                            tracing::error!(
                                error = crate::ship::http::chain(&error),
                                "standard input was given up"
                            );
                        }
                    }
                    finish.cancel();
                })
                .map_err(DoorsError::Thread)?;
            tasks.spawn(async move {
                tokio::select! {
                    () = finished.cancelled() => {}
                    () = stop.cancelled() => return,
                }
                while lock(&spool).has_waiting() && !stop.is_cancelled() {
                    tokio::time::sleep(POLL_EVERY).await;
                }
                stop.cancel();
            });
        }
        Ok(OpenDoors { tasks, lane, ended })
    }
}

/// Doors that are open.
pub struct OpenDoors {
    tasks: JoinSet<()>,
    lane: JoinHandle<()>,
    ended: CancellationToken,
}

impl OpenDoors {
    /// Waits until what was taken in has been kept. The doors have been told to stop.
    pub async fn close(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Connections end by themselves when they are told to; whoever does not is left behind.
        tokio::time::timeout(PUSH_END_WITHIN, all).await.ok();
        self.ended.cancel();
        let joined = tokio::task::spawn_blocking(move || self.lane.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread of handed-over lines panicked");
        }
    }
}

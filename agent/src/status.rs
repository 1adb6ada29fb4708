//! What the agent says about itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::container::ReaderKind;
use crate::known::board::{KnownBoard, KnownStatus};
use crate::push::doors::DoorStatus;
use crate::spool::SpoolStatus;

/// One container, as read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// How its log is read.
    pub reader: ReaderKind,
    /// Whether it runs.
    pub running: bool,
    /// Bytes in its log files that have not been read; 0 with the API reader, which cannot know.
    pub lag_bytes: u64,
    /// How far behind the last line read is, in seconds, where something is unread; 0 where nothing is, none with the API reader.
    pub lag_seconds: Option<u64>,
    /// Rows put into batches since the start, again after a rewind.
    pub lines: u64,
    /// What the pollen filter took out of them.
    pub redactions: u64,
    /// Bytes that its log grows by, per second.
    pub bytes_per_second: u64,
    /// In how many seconds Docker removes the first line that has not been read, at that pace; none where everything has been
    /// read, or nothing is removed.
    pub time_to_loss_seconds: Option<u64>,
}

/// The agent at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgentStatus {
    /// Its id.
    pub agent: String,
    /// Whether everything works.
    pub healthy: bool,
    /// What does not.
    pub problems: Vec<String>,
    /// The session's epoch; 0 without a session.
    pub epoch: u64,
    /// The spool, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolStatus>,
    /// Where doors for other senders listen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doors: Vec<DoorStatus>,
    /// The containers.
    pub containers: Vec<ContainerStatus>,
    /// Lines put into batches since the start.
    pub lines: u64,
    /// Rows that the collector stored.
    pub shipped_rows: u64,
    /// Gaps declared.
    pub gaps: u64,
    /// What the pollen filter took out.
    pub redactions: u64,
    /// Bytes in logs that were no records.
    pub damaged_bytes: u64,
    /// Rows that the collector refuses even alone.
    pub quarantined_rows: u64,
    /// Known secrets and their sources.
    pub known: KnownStatus,
    /// Changes of the configuration since the start.
    pub reload: ReloadStatus,
}

/// How changes of the configuration went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// How many were taken.
    pub taken: u64,
    /// How many were refused.
    pub refused: u64,
    /// What was wrong with the last one, which is refused; empty when it was taken.
    pub faults: String,
}

/// What works and what does not, told by whoever notices.
#[derive(Debug)]
pub struct Health {
    docker: AtomicBool,
    collector: AtomicBool,
    filter: AtomicBool,
    known: Mutex<Option<KnownBoard>>,
}

impl Default for Health {
    fn default() -> Self {
        Health { docker: false.into(), collector: false.into(), filter: true.into(), known: Mutex::default() }
    }
}

impl Health {
    /// Containers can be listed, or not.
    pub fn set_docker(&self, is_well: bool) {
        self.docker.store(is_well, Ordering::Relaxed);
    }

    /// The collector takes data, or does not.
    pub fn set_collector(&self, is_well: bool) {
        self.collector.store(is_well, Ordering::Relaxed);
    }

    /// The pollen filter has failed: nothing is shipped any more.
    pub fn fail_filter(&self) {
        self.filter.store(false, Ordering::Relaxed);
    }

    /// Whether the pollen filter works.
    pub fn has_filter(&self) -> bool {
        self.filter.load(Ordering::Relaxed)
    }

    /// Known secrets are told of here from now on.
    pub fn set_known(&self, board: KnownBoard) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(board);
    }

    /// How known secrets are doing, where there are any.
    pub fn known(&self) -> Option<KnownBoard> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What does not work.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (is_well, problem) in [
            (&self.docker, "containers cannot be listed"),
            (&self.collector, "the collector does not take data"),
            (&self.filter, "the pollen filter failed: nothing is shipped until the agent is started again"),
        ] {
            if !is_well.load(Ordering::Relaxed) {
                problems.push(problem.to_owned());
            }
        }
        problems.extend(self.known().into_iter().flat_map(|known| known.problems()));
        problems
    }
}

/// Where the pump leaves the status and others read it.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard {
    status: Arc<Mutex<AgentStatus>>,
}

impl StatusBoard {
    /// Leaves a new status.
    pub fn set(&self, status: AgentStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The last status.
    pub fn get(&self) -> AgentStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

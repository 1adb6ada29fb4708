//! The way to Grafana Loki: what is in the journal is pushed there, after its ack and apart from it.
//!
//! Always holds:
//! - nothing here delays an answer to an agent: the leg reads the journal, from a durable place of its own;
//! - equal rows make equal entries: labels and metadata come from the row alone, times from the source;
//! - entries of one stream are sent in the order of the journal, one push at a time;
//! - an entry is left out only when Loki refused it for good or the journal needed the room, and is counted then.
//!
//! A crash between a push and the moving of the place sends entries twice; Loki drops an entry that equals the one before.
//!
//! Modules in reading order: [`options`], [`push`] (the bytes, pure), `rows` (from batch to entries, pure), `answer`
//! (what Loki's answer asks for, pure), `client` (HTTP), `forward` (the loop).

pub mod options;

pub mod push;

mod rows;

mod answer;

mod client;

mod forward;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

pub use answer::{FailureKind, RefusalReason};
pub(crate) use forward::forward;
pub use options::{LokiAuthentication, LokiOptionError, LokiOptions, PUSH_PATH};

use client::Client;

/// The leg's settings, its client, and how it is doing.
pub(crate) struct Loki {
    pub(crate) options: LokiOptions,
    client: Client,
    /// The last LSN that is done with; also before it is durable.
    place: AtomicU64,
    /// How many bytes of the journal have to be let go of; 0 while there is room.
    pressure: watch::Sender<u64>,
    is_failing: AtomicBool,
    last_failure: Mutex<Option<FailureKind>>,
}

impl Loki {
    pub(crate) fn new(options: LokiOptions) -> Result<Self, LokiOptionError> {
        let client = Client::new(&options)?;
        Ok(Loki {
            options,
            client,
            place: AtomicU64::new(0),
            pressure: watch::Sender::new(0),
            is_failing: AtomicBool::new(false),
            last_failure: Mutex::new(None),
        })
    }

    pub(crate) fn place(&self) -> u64 {
        self.place.load(Ordering::Acquire)
    }

    fn set_place(&self, lsn: u64) {
        self.place.store(lsn, Ordering::Release);
    }

    pub(crate) fn press(&self, bytes: u64) {
        self.pressure.send_if_modified(|pressure| std::mem::replace(pressure, bytes) != bytes);
    }

    fn set_failing(&self, kind: Option<FailureKind>) {
        self.is_failing.store(kind.is_some(), Ordering::Relaxed);
        if kind.is_some() {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = kind;
        }
    }

    pub(crate) fn state(&self) -> LokiState {
        match self.is_failing.load(Ordering::Relaxed) {
            true => LokiState::Failing,
            false => LokiState::Working,
        }
    }

    pub(crate) fn last_failure(&self) -> Option<FailureKind> {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the last push got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LokiState {
    /// Nothing is wrong.
    Working,
    /// The last push failed and is tried again.
    Failing,
}

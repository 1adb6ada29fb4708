//! Delivery of what stands in the ledger: at least once, in order within a group, with one id however often.
//!
//! [`Courier::round`] takes the messages that are due, sends them, and writes down what became of each. A message that was not
//! taken is tried again after a pause that doubles from one second to five minutes and is spread by up to a half of it, for a
//! day; an answer that says that it never will be taken (4xx but 408, 425 and 429) ends it at once. [`Courier::run`] makes
//! rounds until it is told to stop.
//!
//! What always holds: nothing is sent that is not in the ledger; what was sent and not yet written down when the process died
//! is sent again with the same `webhook-id`.

mod mail;
pub mod retry;
pub mod send;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::retry::Retry;
use self::send::{Outcome, Sender};
use crate::ledger::{Ledger, LedgerError, Waiting};
use crate::limits::SENDS_AT_A_TIME;
use crate::notify::config::Config;

/// How a round went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Messages that were taken.
    pub delivered: usize,
    /// Messages that will be tried again.
    pub again: usize,
    /// Messages that were given up.
    pub given_up: usize,
    /// Messages whose sending broke off: they wait as before.
    pub broken_off: usize,
}

/// What became of messages since the start.
#[derive(Debug, Default)]
struct Totals {
    delivered: AtomicU64,
    again: AtomicU64,
    given_up: AtomicU64,
}

/// What became of messages since the start, and how many wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Messages that were taken.
    pub delivered: u64,
    /// Attempts that failed and are made again.
    pub again: u64,
    /// Messages that were given up.
    pub given_up: u64,
}

/// Delivers messages.
#[derive(Clone, Debug)]
pub struct Courier {
    ledger: Arc<Ledger>,
    config: Arc<Mutex<Arc<Config>>>,
    sender: Arc<Sender>,
    retry: Retry,
    totals: Arc<Totals>,
}

/// How a message ended its round.
enum End {
    Delivered,
    Again,
    GivenUp,
}

impl Courier {
    /// A courier for the receivers of a configuration.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, config: Arc<Config>, sender: Arc<Sender>, retry: Retry) -> Courier {
        Courier { ledger, config: Arc::new(Mutex::new(config)), sender, retry, totals: Arc::default() }
    }

    /// Other receivers from the next message on.
    pub fn use_config(&self, config: Arc<Config>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// What became of messages since the start.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        let Totals { delivered, again, given_up } = &*self.totals;
        let [delivered, again, given_up] =
            [delivered, again, given_up].map(|count| count.load(Ordering::Relaxed));
        Delivered { delivered, again, given_up }
    }

    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is due at a time, at most [`SENDS_AT_A_TIME`] messages.
    ///
    /// # Errors
    /// What the ledger reports. Messages whose end could not be written down are sent again.
    pub async fn round(&self, now: Timestamp) -> Result<Round, LedgerError> {
        let mut sends = JoinSet::new();
        for waiting in self.ledger.due(now, SENDS_AT_A_TIME).await? {
            let courier = self.clone();
            sends.spawn(async move { courier.deliver(waiting, now).await });
        }
        let (mut round, mut failure) = (Round::default(), None);
        while let Some(ended) = sends.join_next().await {
            match ended {
                Ok(Ok(End::Delivered)) => {
                    round.delivered += 1;
                    self.totals.delivered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(End::Again)) => {
                    round.again += 1;
                    self.totals.again.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(End::GivenUp)) => {
                    round.given_up += 1;
                    self.totals.given_up.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => failure = Some(error),
                // A send that panicked or was cancelled is still in the ledger as waiting, and due. What a panic says is not
                // told: it may hold what an alert holds.
                Err(error) => {
                    tracing::error!(is_panic = error.is_panic(), "the sending of a message broke off");
                    round.broken_off += 1;
                }
            }
        }
        failure.map_or(Ok(round), Err)
    }

    async fn deliver(&self, waiting: Waiting, now: Timestamp) -> Result<End, LedgerError> {
        let message = &waiting.notification;
        let config = self.config();
        let outcome = match config.receiver(&message.receiver) {
            Some(receiver) => self.sender.send(receiver, message, now).await,
            None => Outcome::Never("there is no receiver of this name any more".to_owned()),
        };
        match outcome {
            Outcome::Delivered => {
                self.ledger.delivered(&message.id, now).await?;
                Ok(End::Delivered)
            }
            Outcome::Again { why, after } => {
                match self.retry.next(&message.id, waiting.attempts, waiting.made_at, now, after) {
                    Some(next_at) => {
                        tracing::warn!(
                            receiver = message.receiver,
                            attempts = waiting.attempts + 1,
                            why,
                            "a message was not taken"
                        );
                        self.ledger.again(&message.id, next_at, &why).await?;
                        Ok(End::Again)
                    }
                    None => self.give_up(&waiting, now, &why).await,
                }
            }
            Outcome::Never(why) => self.give_up(&waiting, now, &why).await,
        }
    }

    async fn give_up(&self, waiting: &Waiting, now: Timestamp, why: &str) -> Result<End, LedgerError> {
        let message = &waiting.notification;
        tracing::error!(receiver = message.receiver, id = message.id, why, "a message is given up");
        self.ledger.given_up(&message.id, now, why).await?;
        Ok(End::GivenUp)
    }

    /// Makes rounds until told to stop, whenever something is due and whenever `changed` says that the ledger has new messages.
    pub async fn run(&self, mut changed: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = match self.round(Timestamp::now()).await {
                Ok(round) if round.broken_off > 0 => self.retry.first,
                Ok(round) if round != Round::default() => Duration::ZERO,
                Ok(_) => self.pause().await,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a round of delivery failed");
                    self.retry.first
                }
            };
            tokio::select! {
                stopped = stop.wait_for(|stop| *stop) => {
                    drop(stopped);
                    return;
                }
                more = changed.changed() => if more.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long until something is due.
    async fn pause(&self) -> Duration {
        match self.ledger.next_due().await {
            Ok(Some(next_at)) => {
                let left =
                    Duration::try_from(next_at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
                left.min(self.retry.most)
            }
            Ok(None) => self.retry.most,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the next message cannot be found");
                self.retry.first
            }
        }
    }
}

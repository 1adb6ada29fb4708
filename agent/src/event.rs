//! Everything that can happen to the pump, besides lines and the passing of time.

use beeacon_record::wire::SessionAnswer;

use crate::container::Container;
use crate::ship::verdict::Verdict;

/// One closed set: what reaches the pump from discovery and from the shipper.
pub enum Event {
    /// A container is there, or has changed.
    Container(Box<Container>),
    /// A container has been removed.
    Removed {
        /// Its id.
        id: String,
    },
    /// Docker answers, or does not.
    Docker {
        /// Whether it does.
        is_healthy: bool,
    },
    /// A session is open.
    Session {
        /// Which request it answers.
        round: u64,
        /// The answer.
        answer: SessionAnswer,
    },
    /// There is an answer to a frame of the spool.
    Drained {
        /// Which request it answers.
        round: u64,
        /// What it asks for.
        verdict: Verdict,
    },
    /// There is an answer to a frame.
    Shipped {
        /// Which request it answers.
        round: u64,
        /// What it asks for.
        verdict: Verdict,
    },
}

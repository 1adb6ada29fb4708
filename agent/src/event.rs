//! Everything that can happen to the pump, besides lines and the passing of time.

use std::sync::Arc;

use beeacon_record::wire::SessionAnswer;

use crate::config::AgentConfig;
use crate::container::Container;
use crate::files::find::Look;
use crate::filter::Filter;
use crate::ship::http::Collector;
use crate::ship::verdict::Verdict;
use crate::spool::SpoolError;

/// One closed set: what reaches the pump from discovery, the search for files, the shipper, the doors and a changed configuration.
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
    /// Plain files were found, or have gone.
    Files(Box<Look>),
    /// Another configuration is to be used from now on.
    Change(Box<Change>),
    /// A session is open.
    Session {
        /// Which request it answers.
        round: u64,
        /// The answer.
        answer: SessionAnswer,
    },
    /// The spool has failed under somebody else's hands.
    SpoolFailed {
        /// How.
        error: SpoolError,
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

/// What takes the place of what the pump was made with.
pub struct Change {
    /// The configuration.
    pub config: AgentConfig,
    /// The pollen filter.
    pub filter: Arc<dyn Filter>,
    /// Where frames go.
    pub collector: Collector,
}

//! The alerts room: rules over what was stored and over what flows by, their states, and what is sent about them.
//!
//! The way of an alert: a rule file ([`rules`]) gives queries and stream counts; an evaluation of one goes into the rule's
//! state machine ([`state`]), which answers with transitions; the notifier ([`notify`]) makes messages of them; a message
//! becomes a body ([`payload`]), is signed ([`sign`]), and goes where the policy ([`outbound`]) lets it. States, changes and
//! messages are written down together ([`ledger`]), and delivered from there ([`deliver`]). [`runner`] is the loop around it.
//!
//! What always holds:
//! - Rules, states, counts and the notifier are pure: they take a time and values and return values. Files are the ledger's,
//!   sockets those of delivery, the clock that of delivery and of the runner.
//! - A state change has one event id, made from what changed and when. Whoever sees it twice sees the same id.
//! - What a rule saw of a log line are names and counts; no text of a line enters a state, an error or a log.
//!
//! This room knows no other. Whoever runs SQL or reads the journal hands rows and lines in.

pub mod deliver;
pub mod duration;
pub mod labels;
pub mod ledger;
pub mod limits;
pub mod matchers;
pub mod notify;
pub mod outbound;
pub mod payload;
pub mod rules;
pub mod runner;
pub mod schedule;
pub mod sign;
pub mod state;
pub mod stream;
pub mod template;
pub mod unit_test;
mod yaml;

/// The ready rules, each file with its name: what most servers want to be told of. `alerts/pack/tests.yaml` has their tests.
#[must_use]
pub fn pack() -> [(&'static str, &'static str); 3] {
    [
        ("pack/privacy.yaml", include_str!("../pack/privacy.yaml")),
        ("pack/services.yaml", include_str!("../pack/services.yaml")),
        ("pack/beeacon.yaml", include_str!("../pack/beeacon.yaml")),
    ]
}

pub use labels::Labels;
pub use state::{Evaluation, Sample};

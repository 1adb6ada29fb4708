//! What the stories stand on: a private Docker, the programs under test, a proxy that sees every byte, a Loki, the oracle.
//!
//! Everything here is real but Loki. Whatever a story starts, it ends: by pid, on success, failure and panic.

pub(crate) mod dashboards;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod leak;
pub(crate) mod link;
pub(crate) mod loki;
pub(crate) mod metrics;
pub(crate) mod oracle;
pub(crate) mod poll;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod six_routes;
pub(crate) mod sql;
pub(crate) mod world;

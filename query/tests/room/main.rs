//! The query room over a real store in a temporary directory.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    reason = "helpers of tests fail a test by panicking"
)]

mod client;
mod clients;
mod dashboards;
mod formats;
mod grafana;
mod hostile;
mod page;
mod positions;
mod postgres;
mod pruning;
mod refusals;
mod relations;
mod rows;
mod serving;
mod world;

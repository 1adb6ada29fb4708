//! The query room over a real store in a temporary directory.

mod client;
mod formats;
mod hostile;
mod positions;
mod pruning;
mod refusals;
mod rows;
mod serving;
mod world;

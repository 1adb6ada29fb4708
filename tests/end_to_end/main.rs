//! The whole way, end to end: real Docker, real programs, real kills.
//!
//! One binary, one module per story. Run with `cargo test --test end_to_end -- --test-threads=2` after
//! `cargo build -p beeacon-agent`; `make test` does both. Stories about Docker need root and Debian's docker.io, containerd and
//! busybox-static, and start a private dockerd. What cannot run here prints `SKIPPED`; with `BEEACON_TEST_REQUIRE_ALL=1`
//! that fails. `BEEACON_TEST_SEED=n` repeats a run, `BEEACON_TEST_KEEP=1` keeps its files.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "a test fails by panicking, and prints its figures"
)]

#[path = "generator/payload.rs"]
mod payload;
#[path = "generator/planted.rs"]
mod planted;

mod harness;

mod access;
mod alert_files;
mod alerts;
mod bad_input;
mod churn;
mod events;
mod fresh;
mod harness_proof;
mod hostile;
mod injections;
mod kills;
mod layering;
mod links;
mod lives;
mod loki_leg;
mod planted_everywhere;
mod program;
mod prometheus;
mod whole_way;

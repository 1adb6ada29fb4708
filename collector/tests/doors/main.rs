//! The collector's doors over a real journal and a real store in temporary directories.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

mod harness;

mod bad_input;

mod commits;

mod followers;

mod loki;

mod restart;

mod room;

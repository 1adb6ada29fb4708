//! The collector's doors over a real journal and a real store in temporary directories.

mod harness;

mod bad_input;

mod commits;

mod loki;

mod restart;

mod room;

//! Containers' logs through Docker: who is there, and what they wrote.
//!
//! Pure: [`time`], [`json_line`], [`merge`], [`api_stream`], [`cursor`]. Files: `gzip`, [`files`], [`watch`], [`file`]. Docker's API:
//! [`host`], [`discover`], [`config_file`], [`api`], [`attach`].

pub mod time;

pub mod json_line;

pub mod merge;

pub mod api_stream;

pub mod cursor;

mod gzip;

pub mod files;

pub mod retention;

pub mod watch;

pub mod file;

pub mod host;

pub mod config_file;

pub mod discover;

pub mod api;

pub mod attach;

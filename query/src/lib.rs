//! The query room: DataFusion over the store, and the door that gives rows out.
//!
//! What always holds:
//! - queries read; nothing a query says can write, set or reach a file outside its tenant's part of the store;
//! - every stored row is in an answer exactly once, however rows move from memory to files meanwhile;
//! - every query has a limit in memory, time, rows and bytes, and an error that names the one it met;
//! - an answer that is not complete cannot be taken for one that is;
//! - text of queries and rows stands in answers and in errors to whoever asked, never in a log ([`error::Shown`]).
//!
//! SQL users see the tables `logs`, `gaps` and `redactions(minute, service, rule, count)`, and what the program brings. What taking data in, filtering
//! and storing mean is left to the other rooms; who may ask, to whoever composes the door.
//!
//! Modules in reading order:
//! - [`limits`]: every limit;
//! - [`error`] and [`position`]: why a query has no answer, and where in its text the reason lies;
//! - `guard`: what is checked before a query is planned and run;
//! - `dialect`: PostgreSQL's words put in DataFusion's;
//! - `sql_type`, `system` and `functions`: types, catalog and functions as users and clients of PostgreSQL know them;
//! - `prune`: what a filter says about time and service;
//! - `tables`: the tables;
//! - `grouping`: groups of words and times;
//! - `session`: one DataFusion session per query and tenant;
//! - [`engine`]: admission, threads, deadline, rows;
//! - [`encode`]: answers as bytes;
//! - [`http`] and [`postgres`]: the doors;
//! - [`display`]: rows for a terminal;
//! - [`relation`]: small tables that the program brings;
//! - [`labelled`]: rows as numbers with labels;
//! - [`pollen`]: totals of what was redacted;
//! - `metrics`: what Prometheus is told.

pub mod limits;

pub mod error;

pub mod position;

mod guard;

mod dialect;

mod sql_type;

mod system;

mod functions;

mod prune;

mod tables;

mod grouping;

mod session;

pub mod engine;

pub mod encode;

pub mod http;

pub mod postgres;

pub mod display;

pub mod relation;

pub mod labelled;

pub mod pollen;

mod metrics;

pub use encode::Format;
pub use engine::{Ask, Query, QueryOptions, Rows, Statistics};
pub use error::QueryError;
pub use http::{SQL_PATH, Tenant};
pub use labelled::Labelled;
pub use pollen::PollenFilterStatistics;
pub use postgres::{
    OnLogin, Postgres, PostgresKey, PostgresLogin, PostgresOptions, PostgresVisit, ScramVerifier,
};

//! The doors that take data in.

pub mod commit;

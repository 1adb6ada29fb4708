//! The access room: who may do what, and what every HTTP door has in common.
//!
//! The program gives a [`Gate`] the table of its [`Route`]s, its [`Tokens`] and an [`Audit`] file, and puts it around the router of
//! all rooms. On its way in a request gets an id, is known or not, may use the route or not, is counted, and is written to the audit
//! file if it changes something; on its way out, an error gets its one form.
//!
//! What always holds:
//! - what the table does not have is refused, whatever a room serves: the gate fails closed;
//! - this room knows no other, and nothing of what the routes do;
//! - no token, no body and no query string is logged, audited or quoted in an error.
//!
//! Modules in reading order: [`Role`] and [`Needs`], [`Route`] and [`Routes`], [`Tokens`], the envelope, [`Audit`], [`Limiter`],
//! [`Redis`], [`Gate`].

mod audit;
mod envelope;
mod gate;
pub mod limits;
mod rate;
mod redis;
mod role;
mod route;
mod token;

pub use audit::{Audit, AuditError, AuditLine, AuditPlace, AuditResult};
pub use envelope::{ErrorBody, ErrorEnvelope, REQUEST_ID, RequestId, SECOND_VERSION, refusal};
pub use gate::{ANYBODY_HERE, Gate, GateOptions, Peer, Verbatim};
pub use rate::{Limiter, Standing};
pub use redis::{Heard, Redis, RedisFault, Turn};
pub use role::{Needs, Role};
pub use route::{READS, Rate, Route, Routes, Takes};
pub use token::{Principal, TOKEN_PREFIX, TokenError, TokenHash, Tokens, new_token};

//! The pollen filter: finds personal data and secrets in a batch and takes them out.
//!
//! What always holds:
//! - text goes in raw and comes out scrubbed, or does not come out: any fault inside, a panic too, is an error without text;
//! - time is linear in the text: automata only, every start tried once per rule within a bounded window;
//! - scrubbing what has been scrubbed changes nothing, and a line's result does not depend on its neighbours, but for what
//!   [`Continuity`] remembers of its own source: a private key printed over several lines;
//! - nothing here reads a clock, a file or a socket; no error and no `Debug` carries text.
//!
//! Modules in reading order:
//! - [`limits`]: the filter's own limits;
//! - `rule`, `profile`, `library`: rules and profiles as data, and those that come with the program;
//! - `checks`: validators, one per file;
//! - `context`: words before a value that say what it is;
//! - `pattern`, `tagged`: what a rule means, and what verifies a candidate;
//! - `advice`, `harmless`: what is wrong with a user's pattern, and what to write instead;
//! - `scan`: finding candidates in the whole buffer;
//! - `known`: finding secrets that are known by themselves;
//! - `overlap`: of findings that share bytes, one;
//! - `pem`, `continuity`: secrets that go over several lines, and what is remembered between batches;
//! - `evidence`: whether a field's values pass a check by chance;
//! - `fields`, `remove`, `lists`: rules by a field's name, removing a field, values always or never redacted;
//! - `scope`: other rules for the containers of a service or with a label;
//! - `action`, `marker`, `json`, `rewrite`: what stands in a value's place;
//! - `batch`, `engine`: the doors;
//! - `reference`: what rules mean, done plainly;
//! - `statistics`, `listing`, `bench`: what rules do and cost, for people and programs;
//! - `error`, `key`.

pub mod limits;

mod rule;

mod profile;

pub mod library;

mod checks;

mod context;

mod pattern;

mod tagged;

mod advice;

mod harmless;

mod scan;

mod known;

mod overlap;

mod pem;

mod continuity;

mod evidence;

mod fields;

mod remove;

mod lists;

mod scope;

mod action;
mod assignment;

mod marker;

mod json;

mod rewrite;

mod batch;

mod engine;

mod reference;

mod statistics;

mod listing;

mod bench;

mod error;

mod key;

#[doc(hidden)]
pub mod corpus;

pub use action::Action;
pub use bench::{Bench, RulePrice, bench};
pub use continuity::Continuity;
pub use engine::{ActiveRule, Engine, EngineOptions, ExampleFault, Explanation, Finding, check_examples};
pub use error::{FilterError, KeyError, RuleFault, RulesError};
pub use fields::FieldRule;
pub use key::Key;
pub use known::{KNOWN_RULE, KnownError, KnownReport, KnownSecret, KnownSecrets, Refusal};
pub use listing::{RuleEntry, in_columns, rule_table};
pub use lists::Allow;
pub use profile::Profile;
pub use reference::{Comparison, Difference};
pub use rule::{Examples, Normalise, Redact, Rule, RuleFile, Severity, Strength};
pub use scan::simd::Level as ProcessorLevel;
pub use scan::{Cost, VerifierCost};
pub use scope::{PROFILE_LABEL, Scope};
pub use statistics::{RuleCount, RuleStatistics, ScrubReport, Statistics};

#[cfg(test)]
mod tests;

//! What the filter promises, tried.

mod accuracy;
mod batches;
mod bounds;
mod comparison;
mod continuity;
mod explain;
mod fields;
mod library;
mod page;
mod promises;
mod reference;
mod scopes;
mod texts;
mod users;

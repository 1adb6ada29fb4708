//! What the filter promises, tried.

mod library;

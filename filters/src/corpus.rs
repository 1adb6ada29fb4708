//! A deterministic mixed corpus.

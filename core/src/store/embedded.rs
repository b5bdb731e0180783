//! The embedded backend: one SQLite file in the state directory.

/// Store in an SQLite file.
pub struct EmbeddedStore;

//! The files index: paths, file facts, mirror sets and exceptions of one generation.
//!
//! - [`builder`]: from records in path order to the tables
//! - [`archive`]: the tables as they lie in the file
//! - [`slots`]: the hash table from paths to records
//! - [`prefetch`]: lookups announced in advance
//! - [`set`]: mirror sets
//! - [`path`]: which paths can be held
//! - [`verify`]: the rules that the tables follow
//! - [`reader`]: an open generation

pub(crate) mod archive;
pub(crate) mod builder;
mod path;
pub(crate) mod prefetch;
pub(crate) mod reader;
pub(crate) mod set;
mod slots;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

//! The store, through its interface: one suite for every backend, then what only a backend itself can get wrong.

#[macro_use]
mod suite;
mod embedded;
mod full_disk;
mod identity;
mod migrate;
mod redis;

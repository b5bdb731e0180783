//! The indexer: finds out what the source repository and the mirrors have, whether the mirrors answer, and publishes that
//! for the redirector.
//!
//! ```text
//!   repository ──walk, hash──▶ source ──▶ store ───────┐
//!   mirrors ──────rsync──────▶ scan ────▶ scan results ├─▶ build ──▶ StateDir/index ──▶ the redirector
//!   mirrors ◀─────HEAD──────── monitor ──▶ store ──────┘
//! ```
//!
//! - `source`: the repository: walk, compare with what is stored, hash what is new
//! - `scan`: a mirror: list it (`scan::rsync`), store the listing (`scan::results`)
//! - `build`: join source and scans into an index (pure but for reading them), and publish it (`build::publication`)
//! - `monitor`: health checks
//! - `schedule`: what is due when; the `run` command
//! - `sharing`: scan results to and from the other nodes of the store
//! - `serve`: requests over the socket in the state directory
//! - `indexer`: what all of these share; `published`: the index as it is now; `turn`, `lease_keeper`: who may scan now, on
//!   this node and across nodes; `ledger`: what was done so far; `job_panics`: what a panic ends, and what it does not; `http`, `lock`, `progress`: what the names say
//! - [`cli`]: the command line; `measure`: builds at size, for `examples/measure_build.rs`
//!
//! Work that takes long blocks on threads for it; one asynchronous thread waits for rsync, mirrors, timers and requests.
//! Whatever goes wrong, the results before it stay, in the store and in the index.

pub mod cli;
#[doc(hidden)]
pub mod measure;

#[cfg(fuzzing)]
pub use scan::rsync::fuzzing;

mod build;
mod http;
mod indexer;
mod job_panics;
mod lease_keeper;
mod ledger;
mod lock;
mod monitor;
mod progress;
mod published;
mod scan;
mod schedule;
mod serve;
mod sharing;
mod source;
mod turn;

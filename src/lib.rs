//! The redirector and its command line.
//!
//! A request runs through [`shard`] (bytes in), [`http`] (parse), [`handle`] (what to answer), [`select`] (which mirror)
//! and back. What it is answered from is a [`snapshot`].
//!
//! What a person asks for with a browser is left open by [`handle`], and [`pages`] shows it.
//!
//! Beside the requests, [`stats`] delivers what was counted and logged, and runs the [`control`] plane; [`cli`] is how people
//! speak to it. [`metrics`] is what all of them tell in numbers.

pub mod cli;
pub mod control;
pub mod handle;
pub mod http;
pub mod metrics;
pub mod pages;
pub mod select;
pub mod shard;
pub mod snapshot;
pub mod stats;
pub mod upgrade;

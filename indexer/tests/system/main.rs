//! The real program against a real rsync daemon and a real HTTP server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;
mod failures;
mod harness;
mod hostile_mirrors;
mod one_shot;
mod several_nodes;

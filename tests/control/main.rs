//! The control interface as scripts and other clients see it: the real command line and plain gRPC calls against a real
//! server, store and index. The indexer's side of the link is played by the test.

#![allow(clippy::unwrap_used, reason = "a step that fails fails its test")]

mod commands;
mod editing;
mod generic_client;
mod indexer;
mod limits;
mod reports;
mod scans;
mod server;
mod wire;

//! What program this is, as `version` tells it.

use std::thread::available_parallelism;

use super::rpc::proto::VersionReply;

/// The version of this program and what it runs on. The names of the fields are those of the wire format; the Go
/// version has no counterpart and stays empty.
pub fn version() -> VersionReply {
    VersionReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        go_version: String::new(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        go_max_procs: available_parallelism().map_or(1, |cores| i32::try_from(cores.get()).unwrap_or(i32::MAX)),
    }
}

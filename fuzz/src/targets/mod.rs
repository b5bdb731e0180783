//! The fuzz targets. Each takes any bytes, and panics when what came of them is wrong.

mod body;
mod config;
mod connection;
mod forwarded;
mod geo;
mod http_date;
mod index_file;
mod indexer_link;
mod mirror_yaml;
mod redis_record;
mod rsync_listing;
mod spool;
mod target;
mod upgrade;

use std::path::Path;
use std::time::Duration;

use crate::oracle::Limits;

/// A fuzz target.
pub struct Target {
    /// Its name, which is also that of its folder of seeds.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
    /// What an input may cost.
    pub limits: Limits,
    /// Longest input that is made up.
    pub longest: usize,
    /// Writes seeds that are made rather than kept, since they follow a format of ours.
    pub seeds: fn(&Path),
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const fn target(name: &'static str, run: fn(&[u8]), longest: usize, limits: Limits) -> Target {
    Target { name, run, limits, longest, seeds: |_| {} }
}

const fn limits(bytes: usize, bytes_per_byte: usize, milliseconds: u64, nanoseconds_per_byte: u64) -> Limits {
    Limits { bytes, bytes_per_byte, time: Duration::from_millis(milliseconds), nanoseconds_per_byte }
}

/// All of them. The memory allowed includes the harness's own copies.
///
/// The answers to a connection may be many times its requests: a mirror list of the small world has some kilobytes for a
/// request of 30 bytes.
pub const TARGETS: &[Target] = &[
    target("body", body::run, 70 * KIB, limits(4 * KIB, 2, 5, 2_000)),
    target("config", config::run, 4 * KIB, limits(256 * KIB, 200, 20, 20_000)),
    target("connection", connection::run, 70 * KIB, limits(4 * MIB, 400, 50, 100_000)),
    target("forwarded", forwarded::run, 4 * KIB, limits(16 * KIB, 120, 5, 5_000)),
    Target { seeds: geo::seeds, ..target("geo", geo::run, 64 * KIB, limits(4 * MIB, 8, 100, 2_000)) },
    target("http_date", http_date::run, 64, limits(4 * KIB, 4, 5, 500)),
    Target {
        seeds: index_file::seeds,
        ..target("index_file", index_file::run, 16 * KIB, limits(64 * KIB, 16, 20, 20_000))
    },
    target("indexer_link", indexer_link::run, 4 * KIB, limits(16 * KIB, 64, 5, 5_000)),
    target("mirror_yaml", mirror_yaml::run, 4 * KIB, limits(256 * KIB, 200, 20, 20_000)),
    target("redis_record", redis_record::run, 4 * KIB, limits(64 * KIB, 40, 10, 5_000)),
    target("rsync_listing", rsync_listing::run, 70 * KIB, limits(MIB, 40, 10, 5_000)),
    target("spool", spool::run, 16 * KIB, limits(256 * KIB, 200, 20, 20_000)),
    target("target", target::run, 8 * KIB, limits(16 * KIB, 16, 5, 5_000)),
    target("upgrade", upgrade::run, 8 * KIB, limits(16 * KIB, 64, 5, 5_000)),
];

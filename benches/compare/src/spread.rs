//! How evenly the kernel spreads connections over two shards that listen on one port.
//!
//! On the epoll runtime this can be seen from outside: each shard has an epoll instance, and proc(5) tells what it watches.
//! The listeners are the same on both runtimes.

use std::path::Path;

use crate::BenchError;
use crate::contest::{OURS, Setting, start_daemon};
use crate::idle::Crowd;
use crate::interrupt::Interrupt;
use crate::world::World;

/// Connections that are spread.
pub(crate) const CONNECTIONS: usize = 256;

/// The larger part of two shards, from 0.5 to 1, in each of `rounds`.
pub(crate) fn measure(
    rounds: usize,
    programs: &Path,
    world: &World,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, BenchError> {
    let mut parts = Vec::new();
    for _ in 0..rounds {
        let setting = Setting { name: "two shards", runtime: "epoll", shards: 2, ..OURS[0] };
        let daemon = start_daemon(setting, programs, world, interrupt)?;
        let before = daemon.server.watched()?;
        let crowd = Crowd::gather(daemon.address, CONNECTIONS)?;
        let after = daemon.server.watched()?;
        let gained =
            after.iter().map(|(instance, count)| count.saturating_sub(before.get(instance).copied().unwrap_or(0)));
        let part = gained.max().unwrap_or_default() as f64 / crowd.len() as f64;
        parts.push(part.max(1.0 - part));
    }
    Ok(parts)
}

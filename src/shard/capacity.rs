//! How many connections a shard may hold, and what is told when it cannot accept.
//!
//! The process's descriptor limit, less a reserve for everything that is no connection, is divided among the shards when they
//! start. A shard at its limit closes the connections that have been idle longest; when there are none, accepting pauses, and
//! clients wait in the kernel's queue.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// Interval between two log lines about connections that cannot be accepted, for the whole process.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The limit of one shard, and the log of all.
#[derive(Debug)]
pub struct Capacity {
    connections: usize,
    started: Instant,
    /// Milliseconds since `started` of the latest log line, plus 1; 0: there was none.
    logged: AtomicU64,
    /// Failures since that line.
    unlogged: AtomicU64,
}

impl Capacity {
    /// Divides `connections` among `shards`; each may hold one at least.
    pub fn divide(connections: usize, shards: usize) -> Capacity {
        Capacity {
            connections: (connections / shards.max(1)).max(1),
            started: Instant::now(),
            logged: AtomicU64::new(0),
            unlogged: AtomicU64::new(0),
        }
    }

    /// Connections that one shard may hold.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Logs that a connection could not be accepted: one line per minute, with how many failures came between.
    pub(super) fn log_failure(&self, error: &io::Error) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let before = self.logged.load(Ordering::Relaxed);
        let is_due = before == 0 || now.saturating_sub(before) >= LOG_INTERVAL.as_millis() as u64;
        // One of the threads that find it due logs.
        let is_ours = is_due && self.logged.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_ours {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unlogged = self.unlogged.swap(0, Ordering::Relaxed);
        tracing::warn!(
            unlogged,
            "connections cannot be accepted for a moment, and wait in the kernel's queue: {error}; raise the limit of \
             descriptors (systemd: LimitNOFILE; shell: ulimit -n) or MaxConnections if this goes on"
        );
    }
}

/// A shard holds as many connections as it may.
pub(super) fn full(connections: usize) -> io::Error {
    io::Error::other(format!("a shard holds {connections} connections, which is its limit"))
}

/// Whether accepting failed for want of descriptors or memory, so that closing a connection helps.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    let exhaustions = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|code| exhaustions.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_divided_and_every_shard_has_one() {
        assert_eq!(Capacity::divide(1000, 3).connections(), 333);
        assert_eq!(Capacity::divide(1, 4).connections(), 1);
        assert_eq!(Capacity::divide(7, 0).connections(), 7);
    }

    #[test]
    fn failures_of_a_minute_are_one_line() {
        let capacity = Capacity::divide(1, 1);
        for _ in 0..5 {
            capacity.log_failure(&full(1));
        }
        assert_eq!(capacity.unlogged.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn only_a_lack_of_resources_is_exhaustion() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
            assert!(is_exhaustion(&errno.into()));
        }
        assert!(!is_exhaustion(&Errno::CONNABORTED.into()) && !is_exhaustion(&full(1)));
    }
}

//! The descriptor limit of the process, and how many of the descriptors connections may take.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept free of connections: for opening an index, log files, the database, commands, metrics, a reload and an
/// upgrade, each of which needs some ten at its worst, and commands up to their limit of connections. A guess.
const RESERVE: u64 = 256;
/// Where the limit is small, the reserve is this part of what is free, a quarter.
const RESERVE_PART: u64 = 4;
/// No process has more, whatever its limit says (`fs.nr_open` is this much by default).
const MOST: u64 = 1 << 20;
/// Fewer connections than this are an oversight.
const FEW: u64 = 256;

/// Raises the soft limit to the hard one, and logs that. Returns the limit that is in force.
pub(super) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.unwrap_or(MOST);
    if current == maximum {
        return before.min(MOST);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            let now = maximum.unwrap_or(MOST);
            tracing::info!("the limit of descriptors is raised from {before} to {now}");
            now.min(MOST)
        }
        Err(error) => {
            tracing::warn!("the limit of descriptors stays at {before}: it cannot be raised: {error}");
            before.min(MOST)
        }
    }
}

/// How many connections the process may hold: as configured, but no more than descriptors allow.
pub(super) fn connections(limit: u64, configured: Option<usize>) -> usize {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let allowed = allowed(limit, open);
    let connections = configured.map_or(allowed, |configured| allowed.min(configured as u64));
    if let Some(configured) = configured
        && connections < configured as u64
    {
        tracing::warn!(
            "MaxConnections: {configured}: the limit of {limit} descriptors allows {connections} connections; raise it \
             (systemd: LimitNOFILE; shell: ulimit -n)"
        );
    } else if configured.is_none() && connections < FEW {
        tracing::warn!(
            "the limit of {limit} descriptors allows {connections} connections only; raise it (systemd: LimitNOFILE; \
             shell: ulimit -n)"
        );
    }
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// Connections that a limit of descriptors allows when `open` are in use: one at least.
fn allowed(limit: u64, open: u64) -> u64 {
    let free = limit.saturating_sub(open);
    free.saturating_sub(RESERVE.min(free / RESERVE_PART)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_at_every_limit() {
        assert_eq!(allowed(1024, 24), 1000 - 250);
        assert_eq!(allowed(1_048_576, 76), 1_048_500 - 256);
        assert_eq!(allowed(64, 44), 15);
        assert_eq!(allowed(10, 44), 1);
    }
}

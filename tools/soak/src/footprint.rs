//! What a process holds: memory that is its own, and descriptors.

use std::fmt;
use std::fs;

use rustix::process::Pid;

/// Growth that is always allowed beside [`SHARE`]: the heap's granularity in a process this small.
const SLACK_KIB: u64 = 4 * 1024;
/// Descriptors that may come and go with a connection or a job of the moment.
const SLACK_DESCRIPTORS: usize = 4;
/// Growth that is allowed, as a part of what there was: a tenth.
const SHARE: u64 = 10;

/// A process's memory and descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Resident anonymous memory (`RssAnon` of proc_pid_status(5)) in KiB.
    pub(crate) memory_kib: u64,
    /// Open descriptors.
    pub(crate) descriptors: usize,
}

impl Footprint {
    /// Of a process that runs.
    pub(crate) fn of(pid: Pid) -> Option<Footprint> {
        let pid = pid.as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let memory_kib = memory.split_whitespace().next()?.parse().ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Footprint { memory_kib, descriptors })
    }

    /// Whether a process that had `self` at the start has at most a tenth more now.
    pub(crate) fn allows(self, now: Footprint) -> bool {
        now.memory_kib <= self.memory_kib + self.memory_kib / SHARE + SLACK_KIB
            && now.descriptors <= self.descriptors + self.descriptors / SHARE as usize + SLACK_DESCRIPTORS
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB and {} descriptors", self.memory_kib as f64 / 1024.0, self.descriptors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_the_slack_are_allowed_and_no_more() {
        let start = Footprint { memory_kib: 10_000, descriptors: 50 };
        assert!(start.allows(Footprint { memory_kib: 11_000 + SLACK_KIB, descriptors: 55 + SLACK_DESCRIPTORS }));
        assert!(!start.allows(Footprint { memory_kib: 11_001 + SLACK_KIB, descriptors: 50 }));
        assert!(!start.allows(Footprint { memory_kib: 10_000, descriptors: 56 + SLACK_DESCRIPTORS }));
    }

    #[test]
    fn a_process_is_measured() {
        let own = Footprint::of(rustix::process::getpid()).expect("this process");
        assert!(own.memory_kib > 0 && own.descriptors >= 3, "{own}");
        assert_eq!(Footprint::of(Pid::from_raw(i32::MAX).expect("a number")), None);
    }
}

//! What a listing of a mirror may take, whatever the protocol: entries, bytes, lines that are none, and time.
//!
//! A mirror decides what it answers, so each part of an answer is charged to a [`ListingBudget`] before it is kept. Memory
//! is at most the bytes of the budget and about 32 for each entry.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mb_core::config::Config;
use tokio::time::Instant;

/// The limits of one listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListingLimits {
    /// Files, directories, links: each line or record that names something.
    pub(crate) entries: u64,
    /// Bytes of the answer as it arrives, error messages included.
    pub(crate) bytes: u64,
    /// Lines or records that are not understood or whose path is not clean.
    pub(crate) rejected: u64,
    /// From the start of the scan.
    pub(crate) time: Duration,
    /// Who limits the time.
    pub(crate) time_set_by: TimeSetBy,
}

/// Who limits the time of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeSetBy {
    /// `ScanLimits.Seconds`, or its default.
    Configuration,
    /// The command that asked for the scan.
    Command,
}

impl ListingLimits {
    /// The limits by the configuration with `source_files` in the repository; `command` is the time by the command line.
    pub(crate) fn new(config: &Config, source_files: u64, command: Option<Duration>) -> ListingLimits {
        let limits = &config.scan_limits;
        let entries = limits.files_for(source_files);
        let configured = limits.time_for(config.scan_interval);
        let (time, time_set_by) = match command {
            Some(time) if time < configured => (time, TimeSetBy::Command),
            _ => (configured, TimeSetBy::Configuration),
        };
        ListingLimits { entries, bytes: limits.bytes_for(entries), rejected: limits.rejected_lines, time, time_set_by }
    }
}

/// A listing of fewer is slow: such a scan leaves its place when others wait. Even a disk that
/// seeks for each file lists a hundred.
pub(crate) const ENTRIES_PER_SECOND_MIN: u64 = 4;

/// A limit that a listing reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitReached {
    /// Too many entries.
    #[error(
        "the listing has more than {0} entries: the mirror lists more than it should, or `Files` of ScanLimits in the \
         configuration must be raised"
    )]
    Entries(u64),
    /// Too many bytes.
    #[error(
        "the listing has more than {0} bytes: the mirror sends more than it should, or `Bytes` of ScanLimits in the \
         configuration must be raised"
    )]
    Bytes(u64),
    /// Too many lines that are none of a listing.
    #[error(
        "more than {0} lines of the listing are not understood or have paths that are not clean: check what the URL \
         lists; `RejectedLines` of ScanLimits in the configuration is the limit"
    )]
    Rejected(u64),
    /// Too slow.
    #[error(
        "the scan took longer than {} s: the mirror is too slow or sends without end, or `Seconds` of ScanLimits in the \
         configuration must be raised",
        .0.as_secs()
    )]
    Time(Duration),
    /// Too slow while others wait.
    #[error(
        "the mirror lists fewer than {ENTRIES_PER_SECOND_MIN} entries a second while other mirrors wait to be scanned: the next \
         scan runs apart from theirs and may take as long as `Seconds` of ScanLimits allows"
    )]
    Pace,
    /// Nothing is listed.
    #[error("nothing was listed for {} s, though the mirror sends: check its server, or its message of the day", .0.as_secs())]
    Silence(Duration),
    /// Too slow for whoever asked.
    #[error("the scan took longer than {} s, as -timeout allows", .0.as_secs())]
    CommandTime(Duration),
}

/// What is left of the limits of one scan.
#[derive(Debug)]
pub(crate) struct ListingBudget {
    limits: ListingLimits,
    deadline: Option<Instant>,
    entries: AtomicU64,
    bytes: AtomicU64,
    rejected: AtomicU64,
}

impl ListingBudget {
    /// The whole of `limits`; the time counts from now.
    pub(crate) fn new(limits: ListingLimits) -> ListingBudget {
        ListingBudget {
            limits,
            // A time that no clock can tell is no limit.
            deadline: Instant::now().checked_add(limits.time),
            entries: AtomicU64::new(limits.entries),
            bytes: AtomicU64::new(limits.bytes),
            rejected: AtomicU64::new(limits.rejected),
        }
    }

    /// Charges `count` bytes that arrived.
    pub(crate) fn take_bytes(&self, count: usize) -> Result<(), LimitReached> {
        take(&self.bytes, u64::try_from(count).unwrap_or(u64::MAX)).ok_or(LimitReached::Bytes(self.limits.bytes))
    }

    /// Charges one entry, before it is kept.
    pub(crate) fn take_entry(&self) -> Result<(), LimitReached> {
        take(&self.entries, 1).ok_or(LimitReached::Entries(self.limits.entries))
    }

    /// Charges one line that is not understood.
    pub(crate) fn take_rejected(&self) -> Result<(), LimitReached> {
        take(&self.rejected, 1).ok_or(LimitReached::Rejected(self.limits.rejected))
    }

    /// How many lines were not understood.
    pub(crate) fn rejected(&self) -> u64 {
        self.limits.rejected.saturating_sub(self.rejected.load(Ordering::Relaxed))
    }

    /// How many entries and rejected lines were charged.
    pub(crate) fn charged_lines(&self) -> u64 {
        let entries = self.limits.entries.saturating_sub(self.entries.load(Ordering::Relaxed));
        entries.saturating_add(self.rejected())
    }

    /// How long the scan may take.
    pub(crate) fn time(&self) -> Duration {
        self.limits.time
    }

    /// Waits for `work` until the time is over; the work is dropped then.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, LimitReached> {
        let Some(deadline) = self.deadline else {
            return Ok(work.await);
        };
        tokio::time::timeout_at(deadline, work).await.map_err(|_| match self.limits.time_set_by {
            TimeSetBy::Configuration => LimitReached::Time(self.limits.time),
            TimeSetBy::Command => LimitReached::CommandTime(self.limits.time),
        })
    }
}

fn take(left: &AtomicU64, count: u64) -> Option<()> {
    // One task charges a budget, so that nothing comes between.
    let rest = left.load(Ordering::Relaxed).checked_sub(count)?;
    left.store(rest, Ordering::Relaxed);
    Some(())
}

#[cfg(any(test, fuzzing))]
impl ListingBudget {
    /// A budget that no test's listing exhausts.
    pub(crate) fn ample() -> ListingBudget {
        ListingBudget::new(ListingLimits {
            entries: u64::MAX,
            bytes: u64::MAX,
            rejected: u64::MAX,
            time: Duration::from_secs(3_600),
            time_set_by: TimeSetBy::Configuration,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(entries: u64, bytes: u64, rejected: u64) -> ListingBudget {
        let time = Duration::from_secs(60);
        ListingBudget::new(ListingLimits { entries, bytes, rejected, time, time_set_by: TimeSetBy::Configuration })
    }

    #[test]
    fn each_limit_allows_as_much_as_it_says_and_no_more() {
        let budget = budget(2, 10, 1);
        assert_eq!(budget.take_entry().and(budget.take_entry()), Ok(()));
        assert_eq!(budget.take_entry(), Err(LimitReached::Entries(2)));
        assert_eq!(budget.take_bytes(10), Ok(()));
        assert_eq!(budget.take_bytes(1), Err(LimitReached::Bytes(10)));
        assert_eq!((budget.rejected(), budget.take_rejected(), budget.rejected()), (0, Ok(()), 1));
        assert_eq!(budget.take_rejected(), Err(LimitReached::Rejected(1)));
    }

    #[test]
    fn messages_name_the_key() {
        for (reached, key) in [
            (LimitReached::Entries(1), "`Files` of ScanLimits"),
            (LimitReached::Bytes(1), "`Bytes` of ScanLimits"),
            (LimitReached::Rejected(1), "`RejectedLines` of ScanLimits"),
            (LimitReached::Time(Duration::from_secs(1)), "`Seconds` of ScanLimits"),
            (LimitReached::CommandTime(Duration::from_secs(1)), "-timeout"),
        ] {
            assert!(reached.to_string().contains(key), "{reached}");
        }
    }

    #[test]
    fn the_command_lowers_the_time_and_never_raises_it() {
        let config = mb_core::config::parse("Repository: /srv\n", std::path::Path::new("test.conf")).unwrap().config;
        let time = |seconds: u64| {
            let limits = ListingLimits::new(&config, 10, Some(Duration::from_secs(seconds)));
            (limits.time.as_secs(), limits.time_set_by)
        };
        assert_eq!(time(5), (5, TimeSetBy::Command));
        assert_eq!(time(10_000), (7_200, TimeSetBy::Configuration));
        assert_eq!(ListingLimits::new(&config, 10, None).entries, 1_000_020);
    }
}

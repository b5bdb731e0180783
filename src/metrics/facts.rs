//! Everything that one look at the daemon shows, gathered before anything is made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use mb_core::link::Activity;
use mb_core::time::Timestamp;

use super::totals::Totals;
use crate::snapshot::Snapshot;
use crate::stats::figures::Figures;

/// What one look shows.
pub struct Facts<'a> {
    /// When it was taken.
    pub now: Timestamp,
    /// When the daemon was started.
    pub started: Timestamp,
    /// What the shards counted.
    pub totals: &'a Totals,
    /// How long the answers of the last minute took, in nanoseconds.
    pub recent_durations: Histogram<u64>,
    /// What requests are answered from.
    pub snapshot: &'a Snapshot,
    /// The store.
    pub store: StoreState,
    /// The indexer.
    pub indexer: IndexerAnswer,
    /// What is known of the download counts and the download log.
    pub figures: &'a Figures,
    /// Panics by the name of the thread.
    pub panics: BTreeMap<String, u64>,
    /// How often parts of the program were started again after a panic.
    pub restarts: BTreeMap<String, u64>,
    /// For how long each part of the program has been at what it has in hand.
    pub busy: BTreeMap<&'static str, Duration>,
    /// Lines of the daemon's own log that were dropped.
    pub dropped_log_lines: u64,
    /// Ends of the indexer after which it was started again.
    pub indexer_ends: IndexerEnds,
    /// How often the repository is scanned; `None` when that is on request only.
    pub source_interval: Option<Duration>,
}

/// Ends of the indexer that nobody asked for. It is started again after each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexerEnds {
    /// It ended by itself, or could not be started.
    pub ended: u64,
    /// It was killed since it did not answer.
    pub silent: u64,
}

/// Whether the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It was not asked yet.
    Unknown,
    /// It answered when it was last asked.
    Up {
        /// Since when it does.
        since: Timestamp,
    },
    /// It did not.
    Down {
        /// Since when it does not.
        since: Timestamp,
        /// What it said, or that it said nothing.
        reason: String,
    },
}

impl StoreState {
    /// The state after the store was asked at `now`, with its failure if it was one.
    pub fn after(self, now: Timestamp, answer: Result<(), String>) -> StoreState {
        match (self, answer) {
            (StoreState::Up { since }, Ok(())) => StoreState::Up { since },
            (_, Ok(())) => StoreState::Up { since: now },
            (StoreState::Down { since, .. }, Err(reason)) => StoreState::Down { since, reason },
            (_, Err(reason)) => StoreState::Down { since: now, reason },
        }
    }
}

/// What the indexer answers when it is asked what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexerAnswer {
    /// It told what it did.
    Told(Activity),
    /// It should run, and does not answer.
    Silent {
        /// Why not.
        reason: String,
    },
    /// None runs, and none should: the daemon was started with `-monitor=false`.
    NotWanted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_the_store_lasts_since_it_began() {
        let down = |since, reason: &str| StoreState::Down { since: Timestamp(since), reason: reason.to_owned() };
        let up = |since| StoreState::Up { since: Timestamp(since) };
        let failed = |reason: &str| Err(reason.to_owned());
        assert_eq!(StoreState::Unknown.after(Timestamp(1), Ok(())), up(1));
        assert_eq!(up(1).after(Timestamp(2), Ok(())), up(1));
        assert_eq!(up(1).after(Timestamp(3), failed("a")), down(3, "a"));
        assert_eq!(down(3, "a").after(Timestamp(4), failed("b")), down(3, "b"));
        assert_eq!(down(3, "b").after(Timestamp(5), Ok(())), up(5));
    }
}

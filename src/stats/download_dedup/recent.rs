//! The downloads that this node knows, with the times of their first and latest request.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Downloads remembered in one generation; there are two. It is what a table of 2^19 places holds: with 49 bytes for each
/// place, both take 51 MB when a million clients resume downloads within one interval.
const GENERATION_MAX: usize = (1 << 19) / 8 * 7;
/// How much later than answered a request may be handed over: a guess, several times what a shard and a collection take.
const LATENESS_MAX: Duration = Duration::from_secs(10);

/// The downloads that this node saw lately.
///
/// Kept in two generations, of which the older is dropped when it is older than an interval, or when the younger is full:
/// what is forgotten too early is asked the store once more, and counts again if that does not know it either.
#[derive(Debug, Default)]
pub(super) struct RecentDownloads {
    young: HashMap<u128, Span>,
    old: HashMap<u128, Span>,
    /// When the younger generation began.
    began: Option<Instant>,
}

/// The requests of a download.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Instant,
    last: Instant,
}

impl RecentDownloads {
    /// Notes a request of the time `at`, and tells whether it continues a download: one was seen within `interval`. Shards
    /// hand over one after the other, so it may also be older than those.
    pub(super) fn note(&mut self, hash: u128, at: Instant, interval: Duration) -> bool {
        let began = *self.began.get_or_insert(at);
        let is_over = at.saturating_duration_since(began) > interval.saturating_add(LATENESS_MAX);
        if is_over || self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.began = Some(at);
        }
        let known = self.young.get(&hash).copied().or_else(|| self.old.remove(&hash));
        let alone = Span { first: at, last: at };
        let span = known.unwrap_or(alone);
        let continues = known.is_some()
            && at.saturating_duration_since(span.last) <= interval
            && span.first.saturating_duration_since(at) <= interval;
        let span = match continues {
            true => Span { first: span.first.min(at), last: span.last.max(at) },
            // What comes next most likely continues the latest.
            false if at > span.last => alone,
            false => span,
        };
        self.young.insert(hash, span);
        continues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn every_request_restarts_the_interval() {
        let mut recent = RecentDownloads::default();
        let start = Instant::now();
        let mut note = |after: Duration| recent.note(1, start + after, MINUTE);
        assert!(!note(Duration::ZERO));
        assert!(note(MINUTE));
        assert!(note(2 * MINUTE));
        assert!(!note(3 * MINUTE + Duration::from_millis(1)));
        assert!(note(3 * MINUTE), "shards hand over one after the other");
    }

    #[test]
    fn a_request_that_is_handed_over_late_belongs_where_its_time_says() {
        let mut recent = RecentDownloads::default();
        let start = Instant::now();
        let mut note = |after: Duration| recent.note(1, start + after, MINUTE);
        assert!(!note(3 * MINUTE));
        assert!(note(2 * MINUTE));
        assert!(note(MINUTE), "each goes on from the next");
        assert!(note(4 * MINUTE));
        assert!(!note(6 * MINUTE));
        assert!(!note(3 * MINUTE), "a download before that one");
        assert!(note(6 * MINUTE));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = RecentDownloads::default();
        let start = Instant::now();
        for hash in 0..3 * GENERATION_MAX as u128 {
            recent.note(hash, start, MINUTE);
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION_MAX);
        assert!(recent.note(3 * GENERATION_MAX as u128 - 1, start, MINUTE));
        for hash in 0..10 {
            recent.note(hash, start + 10 * MINUTE, MINUTE);
            recent.note(hash, start + 20 * MINUTE, MINUTE);
        }
        assert!(recent.young.len() + recent.old.len() <= 20, "what is over is forgotten");
    }
}

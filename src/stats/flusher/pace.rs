//! When the next batch may go to the store.
//!
//! The first of a collection goes at once, so that few downloads are in the store as soon as they can be. More follow only
//! while the store's work for us stays below a twentieth of the time: what waits meanwhile adds up, and a file that is
//! downloaded ten times before its turn is written once.

use std::time::{Duration, Instant};

/// How much longer than a batch took the store is left alone after it.
const REST: u32 = 19;

/// The pace of the batches.
#[derive(Debug)]
pub(super) enum Pace {
    /// The first batch of a collection has not been sent.
    Due,
    /// It has; the next may go when this time has come.
    Resting(Instant),
    /// There is no time to lose.
    Hurried,
}

impl Pace {
    /// A collection is complete; `idle`, whether the store has nothing to do for it yet.
    pub(super) fn collected(&mut self, idle: bool) {
        if let (Pace::Resting(_), true) = (&*self, idle) {
            *self = Pace::Due;
        }
    }

    /// Whether a batch may go.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match self {
            Pace::Due | Pace::Hurried => true,
            Pace::Resting(until) => now >= *until,
        }
    }

    /// The store took a batch, for which it needed `took`.
    pub(super) fn rest(&mut self, now: Instant, took: Duration) {
        if !matches!(self, Pace::Hurried) {
            *self = Pace::Resting(now + took.saturating_mul(REST));
        }
    }

    /// When a batch may go that may not go now.
    pub(super) fn wake_up(&self, now: Instant) -> Option<Instant> {
        match self {
            Pace::Resting(until) => (*until > now).then_some(*until),
            Pace::Due | Pace::Hurried => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    /// How much of ten minutes a store works that takes this long for each batch, and how many batches it gets, when there
    /// is always another.
    fn work(took: Duration) -> (f64, u32) {
        let start = Instant::now();
        let (mut now, mut next_collection) = (start, start);
        let (mut pace, mut batches) = (Pace::Due, 0);
        while now < start + 1_200 * INTERVAL {
            if now >= next_collection {
                next_collection = now + INTERVAL;
                pace.collected(true);
            }
            if pace.allows(now) {
                batches += 1;
                now += took;
                pace.rest(now, took);
            } else {
                now = pace.wake_up(now).map_or(next_collection, |at| at.min(next_collection));
            }
        }
        (took.as_secs_f64() * f64::from(batches) / (now - start).as_secs_f64(), batches)
    }

    #[test]
    fn a_fast_store_works_a_twentieth_of_the_time() {
        let (part, batches) = work(Duration::from_millis(2));
        assert!((0.045..0.055).contains(&part), "{part}");
        assert!(batches > 10 * 1_200, "{batches}");
    }

    #[test]
    fn a_slow_store_gets_one_batch_of_each_collection() {
        let (_, batches) = work(Duration::from_millis(100));
        assert!((1_100..=1_201).contains(&batches), "{batches}");
    }

    #[test]
    fn a_collection_that_finds_the_store_at_work_is_not_urgent() {
        let now = Instant::now();
        let mut pace = Pace::Due;
        pace.rest(now, Duration::from_secs(1));
        pace.collected(false);
        assert!(!pace.allows(now + INTERVAL));
        pace.collected(true);
        assert!(pace.allows(now));
    }

    #[test]
    fn at_the_end_nothing_rests() {
        let mut pace = Pace::Hurried;
        pace.rest(Instant::now(), Duration::from_secs(60));
        pace.collected(false);
        assert!(pace.allows(Instant::now()));
    }
}

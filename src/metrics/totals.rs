//! All tallies of this process added up. Totals only grow, whatever becomes of generations, mirrors and connections.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};
use mb_core::mirror::MirrorId;

use super::hand_over::Collector;
use super::tally::{self, Answers, Given, Tally};
use crate::handle::outcome::Kind;
use crate::http::response::Status;

/// Over how long [`Totals::recent_durations`] goes, in slices.
const SLICE: Duration = Duration::from_secs(10);
const SLICES: usize = 6;

/// What one shard did, and how it is doing.
#[derive(Clone, Debug, Default)]
pub struct ShardTotals {
    /// Connections accepted.
    pub accepted: u64,
    /// Failures to accept one.
    pub accept_errors: u64,
    /// Connections closed because of a panic while they were served.
    pub panics: u64,
    /// Connections closed because all together held too much memory.
    pub closed_for_memory: u64,
    /// Bytes that connections hold.
    pub held: usize,
    /// Connections open.
    pub open: usize,
    /// Processor time of its thread.
    pub processor_time: Duration,
}

/// What all shards counted.
#[derive(Debug)]
pub struct Totals {
    /// Answers by kind and status.
    pub answers: Answers,
    /// Redirects and JSON documents that name fallbacks.
    pub fallbacks: u64,
    /// What each mirror was given that was given anything, removed ones included.
    pub mirrors: HashMap<MirrorId, Given>,
    /// How long answers took, in nanoseconds.
    pub durations: Histogram<u64>,
    /// The sum of what is in `durations`, exactly.
    pub nanoseconds: u64,
    /// By number of the shard.
    pub shards: Vec<ShardTotals>,
    collectors: Vec<Collector>,
    /// Durations by the slice of time in which they were collected, oldest first.
    slices: VecDeque<(Instant, Histogram<u64>)>,
    /// An empty histogram, to make others of.
    no_durations: Histogram<u64>,
}

impl Totals {
    /// Totals of the shards whose tallies come through `collectors`, in the order of their numbers.
    ///
    /// # Errors
    /// See [`tally::durations`].
    pub fn new(collectors: Vec<Collector>) -> Result<Totals, CreationError> {
        let no_durations = tally::durations()?;
        Ok(Totals {
            answers: [[0; Status::ALL.len()]; Kind::ALL.len()],
            fallbacks: 0,
            mirrors: HashMap::new(),
            durations: no_durations.clone(),
            nanoseconds: 0,
            shards: vec![ShardTotals::default(); collectors.len()],
            collectors,
            slices: VecDeque::new(),
            no_durations,
        })
    }

    /// Adds what the shards have handed over.
    pub fn collect(&mut self, now: Instant) {
        let collectors = std::mem::take(&mut self.collectors);
        for (shard, collector) in collectors.iter().enumerate() {
            collector.collect(|tally| self.add(shard, tally, now));
        }
        self.collectors = collectors;
    }

    fn add(&mut self, shard: usize, tally: &Tally, now: Instant) {
        let counts = self.answers.iter_mut().flatten().zip(tally.answers.iter().flatten());
        counts.for_each(|(total, count)| *total += count);
        self.fallbacks += tally.fallbacks;
        for (id, given) in &tally.mirrors {
            self.mirrors.entry(*id).or_default().add(*given);
        }
        let of_shard = &mut self.shards[shard];
        of_shard.accepted += tally.accepted;
        of_shard.accept_errors += tally.accept_errors;
        of_shard.panics += tally.panics;
        of_shard.closed_for_memory += tally.closed_for_memory;
        of_shard.held = tally.held;
        of_shard.open = tally.open;
        of_shard.processor_time = tally.processor_time;
        if tally.durations.is_empty() {
            return;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(tally.nanoseconds);
        // Histograms of the same bounds can always be added.
        let _ = self.durations.add(&tally.durations);
        let _ = self.slice(now).add(&tally.durations);
    }

    /// The histogram of the slice of time that `now` is in.
    fn slice(&mut self, now: Instant) -> &mut Histogram<u64> {
        let is_over = self.slices.back().is_none_or(|(start, _)| now.duration_since(*start) >= SLICE);
        if is_over {
            let mut histogram = match self.slices.len() {
                SLICES.. => self.slices.pop_front().map(|(_, oldest)| oldest),
                _ => None,
            }
            .unwrap_or_else(|| self.no_durations.clone());
            histogram.reset();
            self.slices.push_back((now, histogram));
        }
        let last = self.slices.len() - 1;
        &mut self.slices[last].1
    }

    /// How long the answers of the last minute took, in nanoseconds; the minute begins up to ten seconds late.
    pub fn recent_durations(&self, now: Instant) -> Histogram<u64> {
        let mut recent = self.no_durations.clone();
        for (_, slice) in self.slices.iter().filter(|(start, _)| now.duration_since(*start) < SLICE * SLICES as u32) {
            // Histograms of the same bounds can always be added.
            let _ = recent.add(slice);
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Method;
    use crate::metrics::hand_over::{Reporter, exchange};
    use crate::metrics::tally::tests::{redirect, table};

    fn counted(reporter: &mut Reporter, took: Duration) {
        reporter.tally.count(&redirect(Method::Get, 0));
        reporter.tally.measure(took);
        reporter.report(&table(&[7]));
    }

    #[test]
    fn the_shards_are_added_up_and_told_apart() {
        let (pairs, now) = ([exchange().unwrap(), exchange().unwrap()], Instant::now());
        let (mut reporters, collectors): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let mut totals = Totals::new(collectors).unwrap();
        for (shard, reporter) in reporters.iter_mut().enumerate() {
            reporter.tally.accepted = 1 + shard as u64;
            reporter.tally.open = 5;
            counted(reporter, Duration::from_micros(3));
            counted(reporter, Duration::from_micros(3));
            totals.collect(now);
            totals.collect(now);
        }
        assert_eq!(totals.shards.iter().map(|shard| shard.accepted).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(totals.mirrors[&MirrorId(7)], Given { redirects: 4, bytes: 40 });
        assert_eq!((totals.durations.len(), totals.nanoseconds), (4, 12_000));
        assert_eq!(totals.answers.iter().flatten().sum::<u64>(), 4);
    }

    #[test]
    fn recent_durations_are_those_of_a_minute() {
        let (mut reporter, collector) = exchange().unwrap();
        let mut totals = Totals::new(vec![collector]).unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..200 {
            counted(&mut reporter, Duration::from_micros(3));
            totals.collect(at(second));
        }
        let recent = totals.recent_durations(at(199)).len();
        assert!((50..=60).contains(&recent), "{recent}");
        assert_eq!(totals.recent_durations(at(300)).len(), 0);
        assert_eq!(totals.durations.len(), 200);
        assert_eq!(totals.slices.len(), SLICES);
    }
}

//! A shard's own record of what it answered, until it is handed over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError};

use super::download_dedup;
use super::download_log::{self, EntryBuffer};
use super::tally::{Download, RangeRequest, Tally, day_of};
use crate::handle::Handler;
use crate::handle::outcome::Outcome;
use crate::http::request::Request;

/// How long the last tallies of a shard that ends may wait for room in the queue.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The time of an outcome.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Unix time in microseconds, which decides the day.
    pub unix_microseconds: i64,
    /// The same on a clock that is never set.
    pub instant: Instant,
}

impl Moment {
    /// Number of its UTC day.
    fn day(self) -> i64 {
        day_of(self.unix_microseconds.div_euclid(1_000_000))
    }
}

/// The record of one shard.
pub struct Recorder {
    tally: Option<Tally>,
    /// Complete, and waiting for room in the queue; one for each change of files, mirrors or day meanwhile.
    complete: VecDeque<Tally>,
    queue: Sender<Tally>,
    spares: Receiver<Vec<Download>>,
    log: EntryBuffer,
}

impl Recorder {
    /// An empty record that is handed over to `queue`.
    pub(super) fn new(queue: Sender<Tally>, spares: Receiver<Vec<Download>>, log: download_log::Intake) -> Recorder {
        Recorder { tally: None, complete: VecDeque::new(), queue, spares, log: EntryBuffer::new(log) }
    }

    /// Takes down the outcome of `request`, which `handler` answered last.
    pub fn record(&mut self, outcome: &Outcome, request: &Request<'_>, handler: &Handler, moment: Moment) {
        self.log.append(outcome, handler, moment.unix_microseconds);
        let snapshot = handler.snapshot();
        let (Some((file, row)), Some(files)) = (outcome.download(), &snapshot.files) else { return };
        let download = Download { file: file.row, mirror: row, size: file.size };
        let (mirrors, day) = (snapshot.mirrors.ids(), moment.day());
        if !self.tally.as_ref().is_some_and(|tally| tally.takes(files, mirrors, day)) {
            self.complete.extend(self.tally.take());
        }
        let spares = &self.spares;
        let spare = || spares.try_recv().unwrap_or_default();
        let tally = self.tally.get_or_insert_with(|| Tally::new(files.clone(), mirrors.clone(), day, spare()));
        let interval = snapshot.settings.same_download_interval;
        match outcome.client {
            Some(client) if request.has_range && !interval.is_zero() => {
                let hash = download_dedup::hash(client.address, request.user_agent, handler.path(outcome));
                tally.sight(RangeRequest { hash, at: moment.instant, interval, download });
            }
            _ => tally.count(download),
        }
    }

    /// Hands over what was taken down; what the queues have no room for stays here.
    pub fn hand_over(&mut self) {
        self.log.hand_over();
        // A tally keeps its generation of the files in memory, so it goes with the others.
        self.complete.extend(self.tally.take());
        while let Some(tally) = self.complete.pop_front() {
            match self.queue.try_send(tally) {
                Ok(()) => {}
                Err(TrySendError::Full(tally)) => {
                    self.complete.push_front(tally);
                    // The newest is counted on in, so that waiting does not make ever more of them.
                    self.tally = self.complete.pop_back();
                    return;
                }
                // The flusher ends after the shards; without it nobody is left to count for.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

/// A shard ends: what it still has is handed over, even if that takes a moment.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.complete.extend(self.tally.take());
        let deadline = Instant::now() + LAST_PATIENCE;
        for tally in self.complete.drain(..) {
            if self.queue.send_deadline(tally, deadline).is_err() {
                tracing::error!("the last downloads of a shard are not counted: the statistics did not take them");
            }
        }
        self.log.hand_over();
    }
}

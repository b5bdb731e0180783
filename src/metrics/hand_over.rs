//! How a shard's tally comes to the control thread: full ones through one queue, empty ones back through another.
//!
//! Neither side waits. A shard that finds no empty tally goes on with the one it has, and hands over more the next time.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::CreationError;

use super::tally::Tally;
use crate::select::MirrorTable;

/// Tallies of one shard besides the one that it counts in: enough for the ticks between two collections.
const SPARE_TALLIES: usize = 4;

/// The tallies that are on their way.
#[derive(Debug)]
struct Exchange {
    full: ArrayQueue<Box<Tally>>,
    empty: ArrayQueue<Box<Tally>>,
}

/// The shard's end.
#[derive(Debug)]
pub struct Reporter {
    exchange: Arc<Exchange>,
    /// What the shard counts in.
    pub tally: Box<Tally>,
}

/// The control thread's end.
#[derive(Clone, Debug)]
pub struct Collector(Arc<Exchange>);

/// Both ends for one shard.
///
/// # Errors
/// See [`super::tally::durations`].
pub fn exchange() -> Result<(Reporter, Collector), CreationError> {
    // Every tally there is fits into either queue.
    let queue = || ArrayQueue::new(SPARE_TALLIES + 1);
    let exchange = Exchange { full: queue(), empty: queue() };
    for _ in 0..SPARE_TALLIES {
        drop(exchange.empty.push(Box::new(Tally::new()?)));
    }
    let exchange = Arc::new(exchange);
    Ok((Reporter { exchange: exchange.clone(), tally: Box::new(Tally::new()?) }, Collector(exchange)))
}

impl Reporter {
    /// Hands over what was counted while `table` was in use.
    pub fn report(&mut self, table: &MirrorTable) {
        let Some(empty) = self.exchange.empty.pop() else { return };
        self.tally.settle(table);
        let full = std::mem::replace(&mut self.tally, empty);
        drop(self.exchange.full.push(full));
    }
}

impl Collector {
    /// Another end for a shard that takes the place of one that has ended. What that one had not handed over is lost.
    ///
    /// # Errors
    /// See [`super::tally::durations`].
    pub fn reporter(&self) -> Result<Reporter, CreationError> {
        Ok(Reporter { exchange: self.0.clone(), tally: Box::new(Tally::new()?) })
    }

    /// Shows each tally that was handed over to `take`, oldest first.
    pub fn collect(&self, mut take: impl FnMut(&Tally)) {
        while let Some(mut tally) = self.0.full.pop() {
            take(&tally);
            tally.clear();
            drop(self.0.empty.push(tally));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Method;
    use crate::metrics::tally::tests::{redirect, table};

    /// Nobody collects for a while, as when the control thread is busy: nothing is lost, and nothing grows.
    #[test]
    fn what_is_not_collected_waits_and_is_not_lost() {
        let (mut reporter, collector) = exchange().unwrap();
        let table = table(&[1]);
        let mut collected = 0;
        for round in 0..100 {
            reporter.tally.count(&redirect(Method::Get, 0));
            reporter.report(&table);
            if round % 30 == 29 {
                collector.collect(|tally| collected += tally.mirrors.iter().map(|(_, g)| g.redirects).sum::<u64>());
            }
        }
        for _ in 0..2 {
            reporter.report(&table);
            collector.collect(|tally| collected += tally.mirrors.iter().map(|(_, g)| g.redirects).sum::<u64>());
        }
        assert_eq!(collected, 100);
    }
}

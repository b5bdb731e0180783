//! All shards, as the control thread sees them: started, ordered to drain, and joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mb_core::config::RuntimeKind;

use super::listener::Listener;
use super::rt::{Handle, Runtime, Seat, probe};
use crate::snapshot::Publication;

/// What shards are doing. Stages only ever advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accepting and answering.
    Serving,
    /// Accepting no more; answering the requests that are under way, then closing.
    Draining,
    /// Ending now.
    Ended,
}

/// What the control thread tells the shards, and what they tell it.
#[derive(Debug)]
pub struct Orders {
    stage: AtomicU8,
    running: AtomicUsize,
}

impl Orders {
    fn new() -> Orders {
        Orders { stage: AtomicU8::new(Stage::Serving as u8), running: AtomicUsize::new(0) }
    }

    /// Counts the calling shard as running until the value is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Ended,
        }
    }

    fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }
}

/// A shard that runs.
pub(super) struct Running(Arc<Orders>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why shards cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// io_uring was asked for and is not to be had.
    #[error("Runtime: io_uring: {0}; or set `Runtime: auto`, which takes epoll then")]
    IoUring(#[from] probe::Refusal),
    /// A thread or its runtime cannot be made.
    #[error("shard {shard} cannot be started: {reason}")]
    Shard {
        /// Its number.
        shard: usize,
        /// What the runtime said.
        reason: String,
    },
}

/// The running shards.
pub struct Pool {
    runtime: Runtime,
    orders: Arc<Orders>,
    shards: Vec<Handle>,
}

impl Pool {
    /// Starts one shard for each of `listeners`, pinned to the cores this process may run on, in turn.
    ///
    /// # Errors
    /// [`StartError`]; no shard runs then.
    pub fn start(
        listeners: Vec<Listener>,
        publication: &Arc<Publication>,
        wanted: RuntimeKind,
    ) -> Result<Pool, StartError> {
        let runtime = Runtime::choose(wanted)?;
        let mut pool = Pool { runtime, orders: Arc::new(Orders::new()), shards: Vec::new() };
        let cores = usable_cores();
        for (number, listener) in listeners.into_iter().enumerate() {
            let core = cores.get(number % cores.len().max(1)).copied();
            let seat = Seat { number, core, listener, publication: publication.clone(), orders: pool.orders.clone() };
            match runtime.start(seat) {
                Ok(shard) => pool.shards.push(shard),
                Err(reason) => {
                    pool.stop(Duration::ZERO);
                    return Err(StartError::Shard { shard: number, reason });
                }
            }
        }
        Ok(pool)
    }

    /// What the shards run on.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// How many shards run.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether no shard runs.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Whether a shard ended although it was not told to.
    pub fn has_died(&self) -> bool {
        self.orders.stage() == Stage::Serving && self.orders.running() < self.shards.len()
    }

    /// Lets shards answer what is under way for at most `patience`, then ends them and waits for their threads.
    pub fn stop(self, patience: Duration) {
        self.orders.advance(Stage::Draining);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.orders.running() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.orders.advance(Stage::Ended);
        for shard in self.shards {
            shard.join();
        }
    }
}

/// The cores that this process may run on, ascending.
pub fn usable_cores() -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
}

//! All shards, as the control thread sees them: started, ordered to drain, and joined.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;
use mb_core::config::RuntimeKind;

use super::front::{Front, Listener, StuckError};
use super::gate::Order;
use super::listener::ListenError;
use super::question::Questions;
use super::rt::{Handle, Runtime, Seat, probe};
use crate::metrics::hand_over::{Collector, exchange};
use crate::snapshot::Publication;
use crate::stats::Intake;

/// What shards are doing.
///
/// ```text
/// Serving ◀──▶ HandedOver ──▶ Draining ──▶ Ended
///    └──────────────────────────▲
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Answering.
    Serving,
    /// Another process accepts. Each connection ends with its next answer; those that wait for a request may go on waiting.
    HandedOver,
    /// Answering the requests that are under way, then closing.
    Draining,
    /// Ending now.
    Ended,
}

/// Stands for a number of connections that is not known yet.
const UNKNOWN: usize = usize::MAX;

/// What the control thread tells the shards, and what they tell it.
#[derive(Debug)]
pub struct Orders {
    stage: AtomicU8,
    running: AtomicUsize,
    shards: Vec<Desk>,
}

/// What passes between the control thread and one shard.
#[derive(Debug)]
struct Desk {
    /// Sockets that it is to accept from, too.
    listeners: Mutex<Vec<Listener>>,
    /// How many connections it has, said while [`Stage::HandedOver`].
    connections: AtomicUsize,
}

impl Orders {
    pub(super) fn new(shards: usize) -> Orders {
        let desk = || Desk { listeners: Mutex::default(), connections: AtomicUsize::new(UNKNOWN) };
        Orders {
            stage: AtomicU8::new(Stage::Serving as u8),
            running: AtomicUsize::new(0),
            shards: std::iter::repeat_with(desk).take(shards).collect(),
        }
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
            1 => Stage::HandedOver,
            2 => Stage::Draining,
            _ => Stage::Ended,
        }
    }

    pub(super) fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Goes from [`Stage::HandedOver`] back to [`Stage::Serving`].
    fn resume(&self) {
        let (from, to) = (Stage::HandedOver as u8, Stage::Serving as u8);
        // In any other stage there is nothing to go back from.
        let _ = self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    fn post(&self, listeners: Vec<(usize, Listener)>) {
        for (shard, listener) in listeners {
            self.shards[shard].listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        }
    }

    /// Sockets that `shard` did not fetch yet.
    pub(super) fn fetch_listeners(&self, shard: usize) -> Vec<Listener> {
        std::mem::take(&mut *self.shards[shard].listeners.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `shard` has so many connections.
    pub(super) fn report_connections(&self, shard: usize, connections: usize) {
        self.shards[shard].connections.store(connections, Ordering::Release);
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
    /// Counters cannot be made.
    #[error("counters of durations: {0}; please report this")]
    Counters(#[from] CreationError),
}

/// Acceptors do not accept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A socket does not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// They do not say so.
    #[error("the shards do not start to accept within {} s", OPEN_TIME.as_secs())]
    Slow,
}

/// For acceptors to start, which takes them milliseconds. A pinned thread may wait for its core for seconds where another group
/// of processes keeps it busy.
const OPEN_TIME: Duration = Duration::from_secs(15);
/// For acceptors to end when the process does.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Between two looks at what shards have done.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The running shards, and where they accept.
pub struct Pool {
    runtime: Runtime,
    orders: Arc<Orders>,
    shards: Mutex<Vec<Handle>>,
    /// The addresses accepted on: one, and for a moment two.
    fronts: Mutex<Vec<Arc<Front>>>,
    collectors: Vec<Collector>,
}

impl Pool {
    /// Starts `shards` shards, pinned to the cores this process may run on, in turn. They accept nowhere until
    /// [`Pool::attend`].
    ///
    /// # Errors
    /// [`StartError`]; no shard runs then.
    pub fn start(
        shards: usize,
        publication: &Arc<Publication>,
        wanted: RuntimeKind,
        intake: &Intake,
        questions: &Questions,
    ) -> Result<Pool, StartError> {
        let runtime = Runtime::choose(wanted)?;
        let (reporters, collectors): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| exchange()).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let orders = Arc::new(Orders::new(shards));
        let pool = Pool { runtime, orders, shards: Mutex::default(), fronts: Mutex::default(), collectors };
        let cores = usable_cores();
        for (number, reporter) in reporters.into_iter().enumerate() {
            let core = cores.get(number % cores.len().max(1)).copied();
            let (publication, orders) = (publication.clone(), pool.orders.clone());
            let (intake, questions) = (intake.clone(), questions.clone());
            let seat = Seat { number, core, publication, orders, intake, questions, reporter };
            match runtime.start(seat) {
                Ok(shard) => lock(&pool.shards).push(shard),
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

    /// Where what the shards count comes from, in the order of their numbers.
    pub fn collectors(&self) -> Vec<Collector> {
        self.collectors.clone()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.orders.shards.len()
    }

    /// Whether a shard ended although it was not told to.
    pub fn has_died(&self) -> bool {
        self.orders.stage() < Stage::Draining && self.orders.running() < self.shards()
    }

    /// Gives the sockets of `front` to the shards, which accept when it is open.
    pub fn attend(&self, front: Front) {
        self.orders.post(front.listeners(self.shards()));
        lock(&self.fronts).push(Arc::new(front));
    }

    /// Where the shards accept, oldest first.
    pub fn fronts(&self) -> Vec<Arc<Front>> {
        lock(&self.fronts).clone()
    }

    /// Accepts on every address, and answers as ever. Blocks until every acceptor does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn resume(&self) -> Result<(), OpenError> {
        self.orders.resume();
        let fronts = self.fronts();
        for front in &fronts {
            front.open()?;
        }
        let deadline = Instant::now() + OPEN_TIME;
        while !fronts.iter().all(|front| front.is_open()) {
            if Instant::now() >= deadline {
                return Err(OpenError::Slow);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Accepts no more, but leaves what is queued to another process. Blocks until every acceptor stands.
    ///
    /// # Errors
    /// [`StuckError`]: some still accept; [`Pool::resume`] is due.
    pub fn pause(&self, patience: Duration) -> Result<(), StuckError> {
        let deadline = Instant::now() + patience;
        self.fronts().iter().try_for_each(|front| front.stop(Order::Stand, deadline))
    }

    /// Leaves the addresses for which `is_kept` is false: what is queued is accepted, then their sockets are closed. Blocks.
    ///
    /// # Errors
    /// [`StuckError`]: a socket of such an address is left open.
    pub fn leave(&self, is_kept: impl Fn(&Front) -> bool, patience: Duration) -> Result<(), StuckError> {
        let deadline = Instant::now() + patience;
        let (kept, left) = self.fronts().into_iter().partition(|front| is_kept(front));
        *lock(&self.fronts) = kept;
        left.iter().try_for_each(|front: &Arc<Front>| front.stop(Order::Close, deadline))
    }

    /// Lets each connection end with its next answer, since another process accepts. To be called after [`Pool::pause`].
    pub fn let_end(&self) {
        for desk in &self.orders.shards {
            desk.connections.store(UNKNOWN, Ordering::Release);
        }
        self.orders.advance(Stage::HandedOver);
    }

    /// Whether no connection is left after [`Pool::let_end`].
    pub fn is_drained(&self) -> bool {
        self.orders.shards.iter().all(|desk| desk.connections.load(Ordering::Acquire) == 0)
    }

    /// Lets shards answer what is queued and under way for at most `patience`, then ends them and waits for their threads.
    pub fn stop(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if self.orders.stage() == Stage::Serving
            && let Err(error) = self.leave(|_| false, patience.min(CLOSE_TIME))
        {
            tracing::warn!("{error}; a connection that comes now may be lost");
        }
        self.orders.advance(Stage::Draining);
        while Instant::now() < deadline && self.orders.running() > 0 {
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.orders.advance(Stage::Ended);
        for shard in std::mem::take(&mut *lock(&self.shards)) {
            shard.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cores that this process may run on, ascending.
pub fn usable_cores() -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
}

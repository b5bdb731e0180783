//! All shards, as the control thread sees them: started, replaced when one fails, ordered to drain, and joined.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;
use mb_core::config::RuntimeKind;

use super::capacity::Capacity;
use super::front::{Front, Listener, StuckError};
use super::gate::Order;
use super::listener::ListenError;
use super::question::Questions;
use super::rt::{Handle, Runtime, Seat, probe};
use crate::metrics::hand_over::{Collector, Reporter, exchange};
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
    shards: Vec<Desk>,
}

/// What passes between the control thread and one shard.
#[derive(Debug)]
struct Desk {
    /// Sockets that it is to accept from, too.
    listeners: Mutex<Vec<Listener>>,
    /// How many connections it has, said while [`Stage::HandedOver`].
    connections: AtomicUsize,
    /// A [`Life`].
    life: AtomicU8,
}

/// Whether a shard runs.
///
/// ```text
/// Absent ──▶ Running ──▶ Absent     it was told to end
///    ▲          ├──────▶ Failed     it ended by itself, and left everything in order
///    └──────────┼──────────┘
///               └──────▶ Lost       its thread is gone, and may not have left everything in order
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Absent,
    Running,
    Failed,
    Lost,
}

impl Desk {
    fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Absent,
            1 => Life::Running,
            2 => Life::Failed,
            _ => Life::Lost,
        }
    }

    fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Release);
    }
}

impl Orders {
    pub(super) fn new(shards: usize) -> Orders {
        let desk = || Desk {
            listeners: Mutex::default(),
            connections: AtomicUsize::new(UNKNOWN),
            life: AtomicU8::new(Life::Absent as u8),
        };
        Orders {
            stage: AtomicU8::new(Stage::Serving as u8),
            shards: std::iter::repeat_with(desk).take(shards).collect(),
        }
    }

    /// The calling thread runs `shard`, until [`Orders::leave`]. When the thread ends without, the shard is lost.
    pub(super) fn enter(self: &Arc<Self>, shard: usize) {
        self.shards[shard].set_life(Life::Running);
        THREAD.set(Some(ShardThread { orders: self.clone(), shard }));
    }

    /// The calling thread does not run `shard` any more. `obeyed`: because it was told to end.
    pub(super) fn leave(&self, shard: usize, obeyed: bool) {
        self.shards[shard].set_life(if obeyed { Life::Absent } else { Life::Failed });
    }

    fn running(&self) -> usize {
        self.shards.iter().filter(|desk| desk.life() == Life::Running).count()
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

thread_local! {
    /// The shard that this thread runs. Dropped with the thread, however that ends.
    static THREAD: RefCell<Option<ShardThread>> = const { RefCell::new(None) };
}

struct ShardThread {
    orders: Arc<Orders>,
    shard: usize,
}

impl Drop for ShardThread {
    fn drop(&mut self) {
        let desk = &self.orders.shards[self.shard];
        if desk.life() == Life::Running {
            desk.set_life(Life::Lost);
        }
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

/// Shards fail, and are not replaced any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardsFailed {
    /// One after the other.
    #[error("shards failed {DEATHS_MAX} times within {} s; the log tells why, please report it", DEATHS_TIME.as_secs())]
    TooOften,
    /// One did not end in order, so that its sockets cannot be given to another.
    #[error("shard {0} ended without leaving its sockets; the log tells why, please report it")]
    Lost(usize),
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

/// Failures of shards within [`DEATHS_TIME`] after which the process is to be started anew.
const DEATHS_MAX: usize = 3;
const DEATHS_TIME: Duration = Duration::from_secs(60);
/// Pause after a shard could not be started in the place of one that failed, as for want of a thread.
const START_AGAIN: Duration = Duration::from_secs(1);

/// The running shards, and where they accept.
pub struct Pool {
    runtime: Runtime,
    orders: Arc<Orders>,
    /// By number; `None`: there is no thread.
    shards: Mutex<Vec<Option<Handle>>>,
    /// What shards are started with; `None` once none is to be started any more.
    starter: Mutex<Option<Starter>>,
    /// When shards failed.
    deaths: Mutex<VecDeque<Instant>>,
    /// The addresses accepted on: one, and for a moment two.
    fronts: Mutex<Vec<Arc<Front>>>,
    collectors: Vec<Collector>,
}

/// What a shard is started with, whatever its number.
struct Starter {
    publication: Arc<Publication>,
    intake: Intake,
    questions: Questions,
    capacity: Arc<Capacity>,
    cores: Vec<usize>,
}

impl Starter {
    fn start(
        &self,
        number: usize,
        runtime: Runtime,
        orders: &Arc<Orders>,
        reporter: Reporter,
    ) -> Result<Handle, String> {
        runtime.start(Seat {
            number,
            core: self.cores.get(number % self.cores.len().max(1)).copied(),
            publication: self.publication.clone(),
            orders: orders.clone(),
            intake: self.intake.clone(),
            questions: self.questions.clone(),
            reporter,
            capacity: self.capacity.clone(),
        })
    }
}

impl Pool {
    /// Starts `shards` shards, pinned to the cores this process may run on, in turn. They accept nowhere until
    /// [`Pool::attend`]. Together they hold at most `connections` connections.
    ///
    /// # Errors
    /// [`StartError`]; no shard runs then.
    pub fn start(
        shards: usize,
        publication: &Arc<Publication>,
        wanted: RuntimeKind,
        intake: &Intake,
        questions: &Questions,
        connections: usize,
    ) -> Result<Pool, StartError> {
        let runtime = Runtime::choose(wanted)?;
        let (reporters, collectors): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| exchange()).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let orders = Arc::new(Orders::new(shards));
        let starter = Starter {
            publication: publication.clone(),
            intake: intake.clone(),
            questions: questions.clone(),
            capacity: Arc::new(Capacity::divide(connections, shards)),
            cores: usable_cores(),
        };
        let pool = Pool {
            runtime,
            orders,
            shards: Mutex::default(),
            starter: Mutex::default(),
            deaths: Mutex::default(),
            fronts: Mutex::default(),
            collectors,
        };
        for (number, reporter) in reporters.into_iter().enumerate() {
            match starter.start(number, runtime, &pool.orders, reporter) {
                Ok(shard) => lock(&pool.shards).push(Some(shard)),
                Err(reason) => {
                    pool.stop(Duration::ZERO);
                    return Err(StartError::Shard { shard: number, reason });
                }
            }
        }
        *lock(&pool.starter) = Some(starter);
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

    /// Whether a shard has ended although it was not told to.
    pub fn have_failed(&self) -> bool {
        self.orders.shards.iter().any(|desk| matches!(desk.life(), Life::Failed | Life::Lost))
    }

    /// Replaces the shards that have failed, by others that accept from the same sockets. Blocks for some milliseconds when there
    /// are any.
    ///
    /// # Errors
    /// [`ShardsFailed`]: the process is to be started anew.
    pub fn replace_failed(&self) -> Result<(), ShardsFailed> {
        for (number, desk) in self.orders.shards.iter().enumerate() {
            match desk.life() {
                Life::Lost if self.orders.stage() < Stage::Draining => return Err(ShardsFailed::Lost(number)),
                Life::Failed => self.replace(number)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn replace(&self, number: usize) -> Result<(), ShardsFailed> {
        // A stop that comes meanwhile waits for this lock, and finds the new shard.
        let shards = &mut *lock(&self.shards);
        // A shard that could not be started in the place of one that failed has no thread, and is no further failure.
        if shards[number].is_some() {
            let now = Instant::now();
            let deaths = &mut *lock(&self.deaths);
            deaths.retain(|&death| now.saturating_duration_since(death) < DEATHS_TIME);
            deaths.push_back(now);
            if deaths.len() >= DEATHS_MAX {
                return Err(ShardsFailed::TooOften);
            }
        }
        let starter = lock(&self.starter);
        let (Some(starter), true) = (&*starter, self.orders.stage() < Stage::Draining) else { return Ok(()) };
        if let Some(failed) = shards[number].take() {
            failed.join();
        }
        let started = self.collectors[number].reporter().map_err(|error| error.to_string()).and_then(|mut reporter| {
            reporter.tally.restarts = 1;
            starter.start(number, self.runtime, &self.orders, reporter)
        });
        match started {
            Ok(shard) => {
                shards[number] = Some(shard);
                // Under this lock no front is given to the shards meanwhile, which would post its listeners once more.
                let fronts = lock(&self.fronts);
                drop(self.orders.fetch_listeners(number));
                for front in fronts.iter() {
                    let listeners = front.listeners_of(number, self.shards());
                    self.orders.post(listeners.into_iter().map(|listener| (number, listener)).collect());
                }
                tracing::warn!(shard = number, "another shard has taken the place of one that failed");
            }
            // It is tried again.
            Err(reason) => {
                tracing::error!(shard = number, "no other shard can take the place of one that failed: {reason}");
                std::thread::sleep(START_AGAIN);
            }
        }
        Ok(())
    }

    /// Gives the sockets of `front` to the shards, which accept when it is open.
    pub fn attend(&self, front: Front) {
        let mut fronts = lock(&self.fronts);
        self.orders.post(front.listeners(self.shards()));
        fronts.push(Arc::new(front));
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
        for shard in std::mem::take(&mut *lock(&self.shards)).into_iter().flatten() {
            shard.join();
        }
        // The statistics end when nothing can come from a shard any more.
        *lock(&self.starter) = None;
    }
}

/// The control thread has panicked if shards still run: what is under way is answered before the process ends.
impl Drop for Pool {
    fn drop(&mut self) {
        if self.orders.stage() < Stage::Draining {
            self.stop(CLOSE_TIME);
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

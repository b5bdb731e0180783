//! The runtimes that shards run on, the choice between them, and what is the same on both.
//!
//! - [`glommio`]: io_uring, the first choice
//! - [`tokio`]: epoll, where io_uring is not to be had
//! - [`probe`]: whether it is
//! - `ring_setup`: what glommio's rings are made with
//!
//! Both start a shard by the same call. What a shard does with its runtime is written once, here: it serves its connections,
//! and has them accepted, until it is told to drain, and ticks. A runtime starts its tasks, sleeps, and waits for its poller.

pub mod glommio;
pub mod probe;
mod ring_setup;
pub mod tokio;

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{FutureExt as _, future};
use mb_core::config::RuntimeKind;

use super::acceptor::accept;
use super::capacity::Capacity;
use super::pool::{Orders, Stage};
use super::rounds::{Outcome, Rounds};
use super::signal::Signal;
use super::{Senses, Shard};
use crate::metrics::hand_over::Reporter;
use crate::shard::question::Questions;
use crate::snapshot::Publication;
use crate::stats::Intake;

/// Between two ticks of a shard: the resolution of its deadlines and of its clock, and how long an idle shard takes to see
/// an order.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks of a draining shard at whether its last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// Between two looks of a shard that ends at whether its acceptors have.
const END_TICK: Duration = Duration::from_millis(2);
/// What acceptors may take to end, which they do when they get to run, or after the pause of one that could not accept.
const ACCEPTORS_END: Duration = Duration::from_secs(2);

/// How long a shard that has just served waits for more by itself. Shorter times cost more: the kernel sets a timer for those
/// that are due before its next tick.
const LINGER: Duration = Duration::from_millis(10);
/// How long a shard serves before its runtime gets to run other tasks.
const PASS_INTERVAL: Duration = Duration::from_millis(10);

/// What shards run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// glommio.
    IoUring,
    /// tokio.
    Epoll,
}

impl Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::IoUring => "io_uring",
            Runtime::Epoll => "epoll",
        })
    }
}

impl Runtime {
    /// The runtime that `wanted` means on this machine. Where it leaves the choice and io_uring is refused, the reason is
    /// logged.
    ///
    /// # Errors
    /// io_uring is asked for and refused.
    pub fn choose(wanted: RuntimeKind) -> Result<Runtime, probe::Refusal> {
        if wanted == RuntimeKind::Epoll {
            return Ok(Runtime::Epoll);
        }
        match probe::io_uring() {
            Ok(()) => Ok(Runtime::IoUring),
            Err(refusal) if wanted == RuntimeKind::Auto => {
                tracing::warn!("{refusal}; until then the shards run on epoll");
                Ok(Runtime::Epoll)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Starts a shard and waits until it runs.
    ///
    /// # Errors
    /// What the runtime or the system said.
    pub fn start(self, seat: Seat) -> Result<Handle, String> {
        let create = || -> io::Result<_> {
            let senses = Senses::new()?;
            Ok((senses.epoll.try_clone()?, senses))
        };
        let (watched, senses) = create().map_err(|error| error.to_string())?;
        match self {
            Runtime::IoUring => glommio::start(seat, senses, watched).map(Handle::Glommio),
            Runtime::Epoll => tokio::start(seat, senses, watched).map(Handle::Tokio),
        }
    }
}

/// What a shard is started with.
pub struct Seat {
    /// Its number, from 0.
    pub number: usize,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// What it answers from.
    pub publication: Arc<Publication>,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// Where it takes part in the statistics.
    pub intake: Intake,
    /// Where it puts what it cannot answer by itself.
    pub questions: Questions,
    /// Where it counts.
    pub reporter: Reporter,
    /// How many connections it may hold.
    pub capacity: Arc<Capacity>,
}

impl Seat {
    fn thread_name(&self) -> String {
        format!("shard-{}", self.number)
    }
}

/// A running shard.
pub enum Handle {
    /// On glommio.
    Glommio(glommio::Handle),
    /// On tokio.
    Tokio(tokio::Handle),
}

impl Handle {
    /// Waits for its thread.
    pub fn join(self) {
        match self {
            Handle::Glommio(handle) => handle.join(),
            Handle::Tokio(handle) => handle.join(),
        }
    }
}

/// How a runtime waits for a shard's poller, and gets its turn.
trait Watch {
    /// Ready when there may be something that the poller was not asked for since the last call that was ready.
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Lets the runtime look at its timers and run other tasks.
    async fn pass(&self);
}

/// What a shard does until it ends: it serves its connections and obeys `orders`. Returns whether it ended because it was told
/// to. When it failed instead, by a panic or because its poller does, its acceptors have ended and its connections are closed
/// when this returns, so that another shard can take its place. `spawn` starts a task; it and `sleep` are the runtime's.
async fn run<S: AsyncFn(Duration) + Copy + 'static>(
    number: usize,
    shard: &Rc<Shard>,
    orders: &Orders,
    watch: impl Watch,
    spawn: impl Fn(Pin<Box<dyn Future<Output = ()>>>),
    sleep: S,
) -> bool {
    let serving = async {
        let failure = match unwinding(take_turns(shard, watch)).await {
            Ok(Err(error)) => format!("its sockets cannot be waited on: {error}"),
            Err(Panicked) => "it panicked".to_owned(),
        };
        tracing::error!(shard = number, "a shard ends, and its connections with it: {failure}");
        shard.failed.set(true);
        future::pending().await
    };
    let obeyed = unwinding(future::or(obey(number, shard, orders, spawn, sleep), serving)).await;
    if obeyed.is_err() {
        tracing::error!(shard = number, "a shard ends, and its connections with it: it panicked");
        shard.failed.set(true);
    }
    // It has done so already, unless it panicked.
    end_acceptors(shard, sleep).await;
    !shard.failed.get()
}

/// A future panicked.
struct Panicked;

/// The result of a future that may panic. Whoever calls this drops everything that the future shared.
async fn unwinding<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|_| Panicked)
}

/// Ends the acceptors of a shard and waits for them.
async fn end_acceptors(shard: &Shard, sleep: impl AsyncFn(Duration)) {
    for stop in shard.stops.take() {
        stop.raise();
    }
    let deadline = Instant::now() + ACCEPTORS_END;
    while shard.acceptors.get() > 0 && Instant::now() < deadline {
        sleep(END_TICK).await;
    }
}

/// A shard that is busy waits on its poller by itself for the next request, which takes one system call; only when none comes
/// for a while does it sleep by the runtime, which takes more of them.
async fn take_turns(shard: &Rc<Shard>, mut watch: impl Watch) -> io::Result<Infallible> {
    let mut rounds = Rounds::new(shard);
    let mut patience = Duration::ZERO;
    let mut passed = Instant::now();
    loop {
        mb_core::fault::point("shard");
        match rounds.turn(patience)? {
            Outcome::Unfinished => patience = Duration::ZERO,
            Outcome::Served => patience = LINGER,
            Outcome::Idle => {
                poll_fn(|context| {
                    shard.bell.register(context.waker());
                    if shard.has_news() { Poll::Ready(Ok(())) } else { watch.poll_news(context) }
                })
                .await?;
                patience = Duration::ZERO;
            }
        }
        let now = Instant::now();
        if rounds.take_nudge() || now - passed >= PASS_INTERVAL {
            watch.pass().await;
            passed = now;
        }
    }
}

/// Does what is ordered, and ticks, until the end is ordered. `spawn` starts a task; it and `sleep` are the runtime's.
async fn obey<S: AsyncFn(Duration) + Copy + 'static>(
    number: usize,
    shard: &Rc<Shard>,
    orders: &Orders,
    spawn: impl Fn(Pin<Box<dyn Future<Output = ()>>>),
    sleep: S,
) {
    loop {
        for listener in orders.fetch_listeners(number) {
            let stop = Rc::new(Signal::default());
            let accepting = accept(listener, shard.clone(), stop.clone(), sleep);
            let owner = shard.clone();
            spawn(Box::pin(async move {
                if unwinding(accepting).await.is_err() {
                    owner.failed.set(true);
                }
            }));
            shard.stops.borrow_mut().push(stop);
        }
        let tick = match orders.stage() {
            Stage::Serving => TICK,
            Stage::HandedOver => {
                orders.report_connections(number, shard.connections.get());
                DRAIN_TICK
            }
            Stage::Draining | Stage::Ended => break,
        };
        if shard.failed.get() {
            return;
        }
        sleep(tick).await;
        shard.tick();
    }
    end_acceptors(shard, sleep).await;
    while orders.stage() == Stage::Draining && shard.connections.get() > 0 && !shard.failed.get() {
        shard.tick();
        sleep(DRAIN_TICK).await;
    }
}

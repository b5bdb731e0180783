//! The runtimes that shards run on, the choice between them, and what is the same on both.
//!
//! - [`glommio`]: io_uring, the first choice
//! - [`tokio`]: epoll, where io_uring is not to be had
//! - [`probe`]: whether it is
//! - `ring_setup`: what glommio's rings are made with
//!
//! Both start a shard by the same call. What a shard does with its runtime is written once, here: it accepts until it is
//! told to drain, and ticks.

pub mod glommio;
pub mod probe;
mod ring_setup;
mod signal;
pub mod tokio;

use std::fmt::{self, Display};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mb_core::config::RuntimeKind;

use self::signal::Signal;
use super::Shard;
use super::listener::Listener;
use super::pool::{Orders, Stage};
use crate::snapshot::Publication;

/// Between two ticks of a shard: the resolution of its deadlines and of its clock, and how long an idle shard takes to see
/// an order.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks of a draining shard at whether its last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// How long accepting pauses when the process or the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        match self {
            Runtime::IoUring => glommio::start(seat).map(Handle::Glommio),
            Runtime::Epoll => tokio::start(seat).map(Handle::Tokio),
        }
    }
}

/// What a shard is started with.
pub struct Seat {
    /// Its number, from 0.
    pub number: usize,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// Where it accepts.
    pub listener: Listener,
    /// What it answers from.
    pub publication: Arc<Publication>,
    /// What it is told.
    pub orders: Arc<Orders>,
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

/// A shard's life, until its orders end it.
///
/// `start_accepting` starts a task that accepts until the signal is raised; what it returns ends with that task. `sleep` is
/// the runtime's.
async fn live<A: Future<Output = ()>>(
    shard: &Shard,
    orders: &Orders,
    start_accepting: impl FnOnce(Rc<Signal>) -> A,
    sleep: impl AsyncFn(Duration),
) {
    let stop = Rc::new(Signal::default());
    let accepting = start_accepting(stop.clone());
    while orders.stage() == Stage::Serving {
        sleep(TICK).await;
        shard.tick();
    }
    stop.raise();
    accepting.await;
    while orders.stage() == Stage::Draining && shard.connections.get() > 0 {
        shard.tick();
        sleep(DRAIN_TICK).await;
    }
}

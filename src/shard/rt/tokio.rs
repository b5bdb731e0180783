//! Shards on tokio: one epoll runtime per thread, pinned to a core.
//!
//! tokio waits for the shard's poller, which is an epoll instance itself: that is watched by one of tokio's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::{Seat, Watch};
use crate::shard::{Senses, Shard};

/// A running shard.
pub struct Handle(JoinHandle<()>);

impl Handle {
    /// Waits for its thread.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the runtime of a shard panicked");
        }
    }
}

/// Starts a shard and waits until it runs.
///
/// # Errors
/// What the system said.
pub(super) fn start(seat: Seat, senses: Senses, watched: OwnedFd) -> Result<Handle, String> {
    let (started, starts) = mpsc::channel();
    let thread = thread::Builder::new().name(seat.thread_name());
    let handle = thread.spawn(move || match runtime_on(seat.core) {
        // As a task: tokio wakes what it blocks on by a system call.
        Ok(runtime) => match runtime.block_on(runtime.spawn_local(run(seat, senses, watched, started))) {
            Ok(()) => {}
            Err(error) => tracing::error!("a shard ended badly: {error}"),
        },
        // The receiver waits for exactly this.
        Err(error) => drop(started.send(Err(error))),
    });
    let handle = handle.map_err(|error| error.to_string())?;
    match starts.recv() {
        Ok(Ok(())) => Ok(Handle(handle)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(mpsc::RecvError) => Err("its thread ended at once".to_owned()),
    }
}

/// Pins the calling thread to `core` and makes its runtime.
fn runtime_on(core: Option<usize>) -> io::Result<LocalRuntime> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Few tasks run, and the one that serves connections runs for a while.
        .event_interval(1)
        .build_local(LocalOptions::default())
}

async fn run(seat: Seat, senses: Senses, watched: OwnedFd, started: Sender<io::Result<()>>) {
    let Seat { number, publication, orders, intake, questions, reporter, capacity, .. } = seat;
    // SAFETY: it owns the descriptor, which is open for as long.
    let watched = match unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) } {
        Ok(watched) => Watched(watched),
        // The receiver waits for exactly this.
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    orders.enter(number);
    // Likewise.
    let _ = started.send(Ok(()));
    let shard = Shard::new(publication, orders.clone(), &intake, questions, reporter, senses, capacity);
    let obeyed = super::run(number, &shard, &orders, watched, |task| drop(spawn_local(task)), sleep).await;
    drop(shard);
    orders.leave(number, obeyed);
}

/// A poller that tokio waits on.
struct Watched(AsyncFd<OwnedFd>);

impl Watch for Watched {
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // tokio is told of everything that happens from now on, and the poller is asked next.
        self.0.poll_read_ready(context).map_ok(|mut ready| ready.clear_ready())
    }

    async fn pass(&self) {
        yield_now().await;
    }
}

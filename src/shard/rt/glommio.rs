//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use futures_lite::{AsyncRead, future};
use glommio::net::TcpStream;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, executor, spawn_local};

use super::{Seat, Watch, obey, serve};
use crate::shard::{Senses, Shard};

/// Entries of the submission queue: a poll and some timers.
const RING_DEPTH: usize = 64;
/// Registered memory for file I/O, which shards do none of; glommio takes at least 64 KiB.
const IO_MEMORY: usize = 64 * 1024;

/// A running shard.
pub struct Handle(glommio::ExecutorJoinHandle<()>);

impl Handle {
    /// Waits for its thread.
    pub fn join(self) {
        if let Err(error) = self.0.join() {
            tracing::error!("a shard ended badly: {error}");
        }
    }
}

/// Starts a shard and waits until it runs.
///
/// # Errors
/// What glommio said.
pub(super) fn start(seat: Seat, senses: Senses, watched: OwnedFd) -> Result<Handle, String> {
    let (started, starts) = mpsc::channel();
    let handle = LocalExecutorBuilder::new(seat.core.map_or(Placement::Unbound, Placement::Fixed))
        .name(&seat.thread_name())
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let Seat { number, publication, orders, intake, questions, reporter, .. } = seat;
            let _running = orders.enter();
            // The receiver waits for exactly this.
            let _ = started.send(());
            let shard = Shard::new(publication, orders.clone(), &intake, questions, reporter, senses);
            let watched = Watched::new(watched);
            let ordered = obey(number, &shard, &orders, |task| drop(spawn_local(task).detach()), pause);
            future::or(ordered, serve(&shard, watched)).await;
        })
        .map_err(|error| error.to_string())?;
    match starts.recv() {
        Ok(()) => Ok(Handle(handle)),
        Err(mpsc::RecvError) => Err(match handle.join() {
            Ok(()) => "its thread ended at once".to_owned(),
            Err(error) => error.to_string(),
        }),
    }
}

async fn pause(time: Duration) {
    sleep(time).await;
}

/// A poller that glommio waits on, with a poll under way.
struct Watched(TcpStream);

impl Watched {
    fn new(poller: OwnedFd) -> Watched {
        // SAFETY: `into_raw_fd` gives up the descriptor, so that the stream is its only owner.
        Watched(unsafe { TcpStream::from_raw_fd(poller.into_raw_fd()) })
    }

    /// Has glommio poll the same descriptor again. It begins a poll when it takes a descriptor for a stream, and has no other
    /// way to. A duplicate for each poll would need a descriptor when there are none left.
    fn poll_again(&mut self) {
        // SAFETY: the stream that owned the descriptor is forgotten, so that the new one is its only owner.
        let next = Watched(unsafe { TcpStream::from_raw_fd(self.0.as_raw_fd()) });
        // Its poll is over and it has no buffer, so that nothing on the heap is forgotten with it.
        mem::forget(mem::replace(self, next));
    }
}

impl Watch for Watched {
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The read that follows the poll is refused, as the descriptor is no socket's.
        let _ = ready!(Pin::new(&mut self.0).poll_read(context, &mut [0]));
        self.poll_again();
        Poll::Ready(Ok(()))
    }

    async fn pass(&self) {
        executor().yield_task_queue_now().await;
    }
}

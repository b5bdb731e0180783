//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, executor, spawn_local};

use super::{Seat, Watch, run};
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
            let Seat { number, publication, orders, intake, questions, reporter, capacity, .. } = seat;
            orders.enter(number);
            // The receiver waits for exactly this.
            let _ = started.send(());
            let shard = Shard::new(publication, orders.clone(), &intake, questions, reporter, senses, capacity);
            let watched = Watched { poller: Some(watched), poll: None };
            let obeyed = run(number, &shard, &orders, watched, |task| drop(spawn_local(task).detach()), pause).await;
            drop(shard);
            orders.leave(number, obeyed);
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

/// A poller that glommio waits on.
struct Watched {
    /// `None` only while it is dropped.
    poller: Option<OwnedFd>,
    /// A poll that is under way, by the same descriptor.
    poll: Option<ManuallyDrop<TcpStream>>,
}

impl Watch for Watched {
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(poller) = &self.poller else { return Poll::Pending };
        // glommio polls what it takes for a stream before it reads, once. That reading is refused then, is no news.
        let poll = self.poll.get_or_insert_with(|| begin(poller));
        let _ = ready!(Pin::new(&mut **poll).poll_read(context, &mut [0]));
        // Of a stream whose poll is over nothing is left but the descriptor, which is not closed, since the next one has it too;
        // so a sleep needs no descriptor that the process might not have left.
        self.poll = None;
        Poll::Ready(Ok(()))
    }

    async fn pass(&self) {
        executor().yield_task_queue_now().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(poll), Some(poller)) = (self.poll.take(), self.poller.take()) {
            // The stream closes the descriptor, once it has given its poll up.
            let _ = poller.into_raw_fd();
            drop(ManuallyDrop::into_inner(poll));
        }
    }
}

/// Has glommio poll a descriptor. It has no other way to.
fn begin(poller: &OwnedFd) -> ManuallyDrop<TcpStream> {
    // SAFETY: the stream is dropped only by `Watched::drop`, which gives the descriptor up to it; until then `Watched` keeps it
    // open.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(poller.as_raw_fd()) })
}

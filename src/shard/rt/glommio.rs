//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
            let watched = Watched { poller: watched, poll: None };
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

/// A poller that glommio waits on.
struct Watched {
    poller: OwnedFd,
    /// A poll that is under way.
    poll: Option<TcpStream>,
}

impl Watch for Watched {
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // glommio polls what it takes for a stream before it reads, once. That reading is refused then, is no news.
        let poll = match &mut self.poll {
            Some(poll) => poll,
            none => none.insert(begin(self.poller.try_clone()?)),
        };
        let _ = ready!(Pin::new(poll).poll_read(context, &mut [0]));
        self.poll = None;
        Poll::Ready(Ok(()))
    }

    async fn pass(&self) {
        executor().yield_task_queue_now().await;
    }
}

/// Has glommio poll a descriptor. It has no other way to.
fn begin(descriptor: OwnedFd) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the descriptor, so that the new owner is the only one.
    unsafe { TcpStream::from_raw_fd(descriptor.into_raw_fd()) }
}

//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::future;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::handle::Peer;
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::listener::Listener;
use crate::shard::pool::{Orders, Stage};
use crate::snapshot::Publication;

/// Between two ticks of a shard: the resolution of its deadlines and of its clock, and how long an idle shard takes to see
/// an order.
const TICK: Duration = Duration::from_millis(100);
/// How long accepting pauses when the process or the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Entries of the submission queue. Each waiting connection has one poll request in flight, which takes no entry while it
/// waits; a full queue only costs an earlier submission.
const RING_DEPTH: usize = 1024;
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

/// Starts a shard on `core`, or unpinned, and waits until it runs.
///
/// # Errors
/// What glommio said.
pub fn start(
    number: usize,
    core: Option<usize>,
    listener: Listener,
    publication: Arc<Publication>,
    orders: Arc<Orders>,
) -> Result<Handle, String> {
    let (started, starts) = mpsc::channel();
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    let handle = LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{number}"))
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let _running = orders.enter();
            // The receiver waits for exactly this.
            let _ = started.send(());
            run(listener, publication, &orders).await;
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

async fn run(listener: Listener, publication: Arc<Publication>, orders: &Arc<Orders>) {
    let shard = Shard::new(publication, orders.clone(), fastrand::u64(..));
    let drain = Rc::new(Signal::default());
    let accepting = spawn_local(accept(listener, shard.clone(), drain.clone()));
    while orders.stage() == Stage::Serving {
        sleep(TICK).await;
        shard.tick();
    }
    drain.raise();
    accepting.await;
    while orders.stage() == Stage::Draining && shard.connections.get() > 0 {
        shard.tick();
        sleep(TICK / 10).await;
    }
}

/// Accepts connections until `drain` is raised.
async fn accept(listener: Listener, shard: Rc<Shard>, drain: Rc<Signal>) {
    let is_tcp = listener.is_tcp;
    let socket = listener.socket.try_clone();
    // SAFETY: `into_raw_fd` gives up the descriptor, so that the new owner is the only one. glommio calls only what
    // works on any stream socket, so that a unix socket may pass for a TCP one.
    let listener = unsafe { TcpListener::from_raw_fd(listener.socket.into_raw_fd()) };
    loop {
        let accepted = future::or(async { Some(listener.shared_accept().await) }, async {
            drain.raised().await;
            None
        });
        match accepted.await {
            None => break,
            Some(Ok(accepted)) => {
                let peer = if is_tcp {
                    accepted.peer_addr().ok().map(|address| Peer::Host(address.ip()))
                } else {
                    Some(Peer::Local)
                };
                let stream = accepted.bind_to_executor();
                close_on_exec(&stream);
                // A client that is gone already has no address any more.
                if let Some(peer) = peer {
                    spawn_local(serve(stream, peer, shard.clone())).detach();
                }
            }
            Some(Err(error)) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Frees the address at once. The accept in flight holds the socket until the kernel has torn the ring down, which may
    // be after this process has ended and its successor wants the address.
    if let Ok(socket) = socket {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// glommio accepts without SOCK_CLOEXEC; the programs that the daemon starts must not hold its clients' connections.
fn close_on_exec(stream: &TcpStream) {
    // SAFETY: the descriptor is the stream's, which outlives this call.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let _ = fcntl_setfd(socket, FdFlags::CLOEXEC);
}

/// Raised once, and waited for by one task of the same thread.
#[derive(Default)]
struct Signal {
    raised: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Signal {
    fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    async fn raised(&self) {
        poll_fn(|context| {
            if self.raised.get() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

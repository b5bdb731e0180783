//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::mpsc;

use futures_lite::future;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use rustix::io::{FdFlags, fcntl_setfd};

use super::signal::Signal;
use super::{ACCEPT_PAUSE, Seat, live};
use crate::handle::Peer;
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::listener::Listener;

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

/// Starts a shard and waits until it runs.
///
/// # Errors
/// What glommio said.
pub fn start(seat: Seat) -> Result<Handle, String> {
    // glommio's accept operation waits in the kernel, and a socket that does not block would end it at once.
    seat.listener.socket.set_nonblocking(false).map_err(|error| error.to_string())?;
    let (started, starts) = mpsc::channel();
    let handle = LocalExecutorBuilder::new(seat.core.map_or(Placement::Unbound, Placement::Fixed))
        .name(&seat.thread_name())
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let Seat { listener, publication, orders, .. } = seat;
            let _running = orders.enter();
            // The receiver waits for exactly this.
            let _ = started.send(());
            let shard = Shard::new(publication, orders.clone(), fastrand::u64(..));
            let start_accepting = |stop| spawn_local(accept(listener, shard.clone(), stop));
            let pause = async |time| {
                sleep(time).await;
            };
            live(&shard, &orders, start_accepting, pause).await;
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

/// Accepts connections until `stop` is raised.
async fn accept(listener: Listener, shard: Rc<Shard>, stop: Rc<Signal>) {
    let is_tcp = listener.is_tcp;
    let socket = listener.socket.try_clone();
    // SAFETY: `into_raw_fd` gives up the descriptor, so that the new owner is the only one. glommio calls only what
    // works on any stream socket, so that a unix socket may pass for a TCP one.
    let listener = unsafe { TcpListener::from_raw_fd(listener.socket.into_raw_fd()) };
    loop {
        let accepted = future::or(async { Some(listener.shared_accept().await) }, async {
            stop.raised().await;
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

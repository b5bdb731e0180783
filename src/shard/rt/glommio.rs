//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::Socket;

use super::signal::Signal;
use super::{Acceptor, Door, Seat, accept, live};
use crate::handle::Peer;
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::front::Listener;

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
            let shard = Shard::new(publication, orders.clone(), &intake, questions, reporter, fastrand::u64(..));
            live(number, &shard, &orders, |listener, stop| start_accepting(listener, stop, &shard), pause).await;
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

fn start_accepting(listener: Listener, stop: Rc<Signal>, shard: &Rc<Shard>) {
    let (counted, shard) = (Acceptor::new(shard), shard.clone());
    spawn_local(async move {
        accept::<GlommioDoor>(listener, shard, stop, pause).await;
        drop(counted);
    })
    .detach();
}

/// A listener that glommio waits on.
struct GlommioDoor {
    listener: TcpListener,
    is_tcp: bool,
    turn: Arc<Mutex<()>>,
}

impl Door for GlommioDoor {
    fn open(listener: &Listener) -> io::Result<GlommioDoor> {
        // glommio's accept operation waits in the kernel, and a socket that does not block would end it at once.
        let turn = listener.turn.lock();
        listener.socket.set_nonblocking(false)?;
        drop(turn);
        let own = listener.socket.try_clone()?.into_raw_fd();
        // SAFETY: `into_raw_fd` gave the descriptor up, so that the new owner is the only one. glommio calls only what works on
        // any stream socket, so that a unix socket may pass for a TCP one.
        let own = unsafe { TcpListener::from_raw_fd(own) };
        Ok(GlommioDoor { listener: own, is_tcp: listener.is_tcp, turn: listener.turn.clone() })
    }

    async fn admit_next(&self, shard: &Rc<Shard>) -> io::Result<()> {
        let mut accepting = pin!(self.listener.shared_accept());
        let accepted = poll_fn(|context| {
            // At first glommio tries with O_NONBLOCK set, and puts back what it found: shards that share the socket must not
            // do so at the same time.
            let _turn = self.turn.lock();
            accepting.as_mut().poll(context)
        });
        let accepted = accepted.await.map_err(io::Error::from)?;
        let peer = if self.is_tcp {
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
        Ok(())
    }

    fn admit(&self, socket: Socket, peer: Peer, shard: &Rc<Shard>) -> io::Result<()> {
        socket.set_nonblocking(false)?;
        // SAFETY: `into_raw_fd` gives up the descriptor, so that the new owner is the only one.
        let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
        spawn_local(serve(stream, peer, shard.clone())).detach();
        Ok(())
    }
}

/// glommio accepts without SOCK_CLOEXEC; the programs that the daemon starts must not hold its clients' connections.
fn close_on_exec(stream: &TcpStream) {
    // SAFETY: the descriptor is the stream's, which outlives this call.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let _ = fcntl_setfd(socket, FdFlags::CLOEXEC);
}

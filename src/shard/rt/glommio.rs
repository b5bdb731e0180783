//! Shards on glommio: one io_uring executor per thread, pinned to a core.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local, yield_if_needed};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use super::signal::Signal;
use super::stream::{Stream, Watched};
use super::{Accepted, Acceptor, Door, Seat, accept, live};
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::front::Listener;

/// Entries of the submission queue. Each waiting connection has one poll request in flight, which takes no entry while it
/// waits; a full queue only costs an earlier submission.
const RING_DEPTH: usize = 1024;
/// Registered memory for file I/O, which shards do none of; glommio takes at least 64 KiB.
const IO_MEMORY: usize = 64 * 1024;
/// For the kernel to let go of a socket that was waited on: one turn of the shard, and some.
const CANCEL_TIME: Duration = Duration::from_millis(2);

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
///
/// glommio's own accept is a request to the kernel to accept. It waits in the socket's queue as one of those of which a
/// connection wakes only the first. When its process is killed, the request stays there for a moment, and a connection that
/// comes then wakes nobody else (Linux 6.18; a test in `tests/system/runtimes.rs`). It also has to set the socket to block, and
/// not to. A poll has neither trouble: all who wait are woken.
struct GlommioDoor(Arc<Socket>);

impl GlommioDoor {
    /// Waits until there may be a connection.
    async fn wait(&self) -> io::Result<()> {
        let mut stream = poll(self.0.try_clone()?.into());
        // glommio polls a stream before it reads. A listening socket refuses to be read, which is no news.
        let _ = stream.read(&mut [0]).await;
        Ok(())
    }
}

impl Door for GlommioDoor {
    fn open(socket: &Arc<Socket>) -> io::Result<GlommioDoor> {
        Ok(GlommioDoor(socket.clone()))
    }

    async fn accept(&self) -> io::Result<Accepted> {
        yield_if_needed().await;
        loop {
            match Accepted::from(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                result => return result,
            }
        }
    }

    async fn close(self) {
        // A poll that was given up holds the socket until the ring has been told, which is the next thing that happens.
        sleep(CANCEL_TIME).await;
    }

    fn serve(accepted: Accepted, shard: &Rc<Shard>) {
        let Accepted { socket, peer } = accepted;
        spawn_local(serve(Stream::<Adapter>::new(socket), peer, shard.clone())).detach();
    }
}

/// A connection that glommio waits on.
struct Adapter {
    stream: TcpStream,
    /// Whether it has been read from.
    is_read: bool,
}

impl Watched for Adapter {
    fn watch(socket: OwnedFd) -> io::Result<Adapter> {
        Ok(Adapter { stream: poll(socket), is_read: false })
    }
}

impl AsyncRead for Adapter {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // What glommio has read itself, it expects more of: it polls at once. That poll, and giving it up, would be for nothing
        // where a connection has one request.
        if !self.is_read {
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut []))?;
            self.is_read = true;
            // SAFETY: the stream keeps the descriptor open.
            let socket = unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) };
            match recv(socket, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                result => return Poll::Ready(result.map(|(read, _)| read).map_err(Into::into)),
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Adapter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Gives a socket to glommio, which begins to poll it. glommio calls only what works on any stream socket, so that a unix socket
/// may pass for a TCP one.
fn poll(socket: OwnedFd) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the descriptor, so that the new owner is the only one.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

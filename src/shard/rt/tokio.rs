//! Shards on tokio: one epoll runtime per thread, pinned to a core.
//!
//! A request on a connection that is kept costs a read, a write and its share of an `epoll_wait`: tokio asks for readiness
//! once, edge-triggered, and takes a read that did not fill its buffer for the last one.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};

use futures_io::{AsyncRead, AsyncWrite};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::signal::Signal;
use super::stream::{Stream, Watched};
use super::{Accepted, Acceptor, Door, Seat, accept, live};
use crate::handle::Peer;
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::front::Listener;

/// Tasks that run before the runtime looks for new events: as many as one look can find ready, so that a busy shard never
/// looks while it has work.
const TASKS_PER_LOOK: u32 = 1024;

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
pub fn start(seat: Seat) -> Result<Handle, String> {
    let (started, starts) = mpsc::channel();
    let thread = thread::Builder::new().name(seat.thread_name());
    let handle = thread.spawn(move || match runtime_on(seat.core) {
        // As a task: tokio wakes what it blocks on by a system call.
        Ok(runtime) => match runtime.block_on(runtime.spawn_local(run(seat, started))) {
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
        .event_interval(TASKS_PER_LOOK)
        .build_local(LocalOptions::default())
}

async fn run(seat: Seat, started: Sender<io::Result<()>>) {
    let Seat { number, publication, orders, intake, questions, reporter, .. } = seat;
    let _running = orders.enter();
    // The receiver waits for exactly this.
    let _ = started.send(Ok(()));
    let shard = Shard::new(publication, orders.clone(), &intake, questions, reporter, fastrand::u64(..));
    live(number, &shard, &orders, |listener, stop| start_accepting(listener, stop, &shard), sleep).await;
}

fn start_accepting(listener: Listener, stop: Rc<Signal>, shard: &Rc<Shard>) {
    let (counted, shard) = (Acceptor::new(shard), shard.clone());
    drop(spawn_local(async move {
        accept::<TokioDoor>(listener, shard, stop, sleep).await;
        drop(counted);
    }));
}

/// A listener that tokio waits on.
struct TokioDoor(AsyncFd<Arc<Socket>>);

impl Door for TokioDoor {
    fn open(socket: &Arc<Socket>) -> io::Result<TokioDoor> {
        // SAFETY: the `Arc` keeps the socket, and with it the same descriptor, open for as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(socket.clone(), Interest::READABLE) };
        registered.map(TokioDoor).map_err(Into::into)
    }

    async fn accept(&self) -> io::Result<Accepted> {
        self.0.async_io(Interest::READABLE, |socket| Accepted::from(socket)).await
    }

    async fn close(self) {}

    fn serve(accepted: Accepted, shard: &Rc<Shard>) {
        let Accepted { socket, peer } = accepted;
        let shard = shard.clone();
        drop(match peer {
            Peer::Host(_) => spawn_local(serve(Stream::<Adapter<TcpStream>>::new(socket), peer, shard)),
            Peer::Local => spawn_local(serve(Stream::<Adapter<UnixStream>>::new(socket), peer, shard)),
        });
    }
}

/// A tokio stream as the connection loop takes it.
struct Adapter<S>(S);

impl Watched for Adapter<TcpStream> {
    fn watch(socket: OwnedFd) -> io::Result<Self> {
        TcpStream::from_std(socket.into()).map(Adapter)
    }
}

impl Watched for Adapter<UnixStream> {
    fn watch(socket: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(socket.into()).map(Adapter)
    }
}

impl<S: tokio::io::AsyncRead + Unpin> AsyncRead for Adapter<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> AsyncWrite for Adapter<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

//! Shards on tokio: one epoll runtime per thread, pinned to a core.
//!
//! A request on a connection that is kept costs a read, a write and its share of an `epoll_wait`: tokio asks for readiness
//! once, edge-triggered, and takes a read that did not fill its buffer for the last one.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};

use futures_io::{AsyncRead, AsyncWrite};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::signal::Signal;
use super::{ACCEPT_PAUSE, Seat, live};
use crate::handle::Peer;
use crate::shard::Shard;
use crate::shard::connection::serve;
use crate::shard::listener::Listener;

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
    let Seat { listener, publication, orders, .. } = seat;
    let _running = orders.enter();
    let acceptor = match Acceptor::new(listener) {
        Ok(acceptor) => acceptor,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(()));
    let shard = Shard::new(publication, orders.clone(), fastrand::u64(..));
    let start_accepting = |stop| {
        let accepting = spawn_local(accept(acceptor, shard.clone(), stop));
        async move {
            if let Err(error) = accepting.await {
                tracing::error!("accepting ended badly: {error}");
            }
        }
    };
    live(&shard, &orders, start_accepting, sleep).await;
}

/// Accepts connections until `stop` is raised.
async fn accept(acceptor: Acceptor, shard: Rc<Shard>, stop: Rc<Signal>) {
    loop {
        let accepted = poll_fn(|context| match stop.poll_raised(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => acceptor.poll_accept(context).map(Some),
        });
        match accepted.await {
            None => return,
            Some(Ok(Accepted::Host(stream, address))) => {
                drop(spawn_local(serve(Stream(stream), Peer::Host(address.ip()), shard.clone())));
            }
            Some(Ok(Accepted::Local(stream))) => drop(spawn_local(serve(Stream(stream), Peer::Local, shard.clone()))),
            Some(Err(error)) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A listener that tokio waits on.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client that has connected.
enum Accepted {
    Host(TcpStream, SocketAddr),
    Local(UnixStream),
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Acceptor> {
        listener.socket.set_nonblocking(true)?;
        Ok(if listener.is_tcp {
            Acceptor::Tcp(TcpListener::from_std(listener.socket.into())?)
        } else {
            Acceptor::Unix(UnixListener::from_std(OwnedFd::from(listener.socket).into())?)
        })
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Acceptor::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, address)| Accepted::Host(stream, address))
            }
            Acceptor::Unix(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Local(stream)),
        }
    }
}

/// A tokio stream as the connection loop takes it.
struct Stream<S>(S);

impl<S: tokio::io::AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> AsyncWrite for Stream<S> {
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

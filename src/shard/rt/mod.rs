//! The runtimes that shards run on, the choice between them, and what is the same on both.
//!
//! - [`glommio`]: io_uring, the first choice
//! - [`tokio`]: epoll, where io_uring is not to be had
//! - [`probe`]: whether it is
//! - `ring_setup`: what glommio's rings are made with
//! - `stream`: a connection that has not had to wait yet
//!
//! Both start a shard by the same call. What a shard does with its runtime is written once, here: it accepts as its gates
//! order, until it is told to drain, and ticks.

pub mod glommio;
pub mod probe;
mod ring_setup;
mod signal;
mod stream;
pub mod tokio;

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use mb_core::config::RuntimeKind;
use rustix::io::retry_on_intr;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;

use self::signal::Signal;
use super::Shard;
use super::front::Listener;
use super::gate::Order;
use super::pool::{Orders, Stage};
use crate::handle::Peer;
use crate::metrics::hand_over::Reporter;
use crate::shard::question::Questions;
use crate::snapshot::Publication;
use crate::stats::Intake;

/// Between two ticks of a shard: the resolution of its deadlines and of its clock, and how long an idle shard takes to see
/// an order.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks of a draining shard at whether its last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// Between two looks of a shard that ends at whether its acceptors have.
const END_TICK: Duration = Duration::from_millis(2);
/// How long accepting pauses when the process or the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What shards run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// glommio.
    IoUring,
    /// tokio.
    Epoll,
}

impl Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::IoUring => "io_uring",
            Runtime::Epoll => "epoll",
        })
    }
}

impl Runtime {
    /// The runtime that `wanted` means on this machine. Where it leaves the choice and io_uring is refused, the reason is
    /// logged.
    ///
    /// # Errors
    /// io_uring is asked for and refused.
    pub fn choose(wanted: RuntimeKind) -> Result<Runtime, probe::Refusal> {
        if wanted == RuntimeKind::Epoll {
            return Ok(Runtime::Epoll);
        }
        match probe::io_uring() {
            Ok(()) => Ok(Runtime::IoUring),
            Err(refusal) if wanted == RuntimeKind::Auto => {
                tracing::warn!("{refusal}; until then the shards run on epoll");
                Ok(Runtime::Epoll)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Starts a shard and waits until it runs.
    ///
    /// # Errors
    /// What the runtime or the system said.
    pub fn start(self, seat: Seat) -> Result<Handle, String> {
        match self {
            Runtime::IoUring => glommio::start(seat).map(Handle::Glommio),
            Runtime::Epoll => tokio::start(seat).map(Handle::Tokio),
        }
    }
}

/// What a shard is started with.
pub struct Seat {
    /// Its number, from 0.
    pub number: usize,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// What it answers from.
    pub publication: Arc<Publication>,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// Where it takes part in the statistics.
    pub intake: Intake,
    /// Where it puts what it cannot answer by itself.
    pub questions: Questions,
    /// Where it counts.
    pub reporter: Reporter,
}

impl Seat {
    fn thread_name(&self) -> String {
        format!("shard-{}", self.number)
    }
}

/// A running shard.
pub enum Handle {
    /// On glommio.
    Glommio(glommio::Handle),
    /// On tokio.
    Tokio(tokio::Handle),
}

impl Handle {
    /// Waits for its thread.
    pub fn join(self) {
        match self {
            Handle::Glommio(handle) => handle.join(),
            Handle::Tokio(handle) => handle.join(),
        }
    }
}

/// A listening socket as a runtime waits on it.
trait Door: Sized {
    /// Begins to wait on a socket whose calls do not block.
    fn open(socket: &Arc<Socket>) -> io::Result<Self>;
    /// The next connection; the others of the shard get their turn before. Nothing is lost when this is dropped.
    async fn accept(&self) -> io::Result<Accepted>;
    /// Ends waiting: when this is done, the runtime does not hold the socket any more.
    async fn close(self);
    /// Starts to serve a connection.
    fn serve(accepted: Accepted, shard: &Rc<Shard>);
}

/// A connection as it was accepted.
struct Accepted {
    socket: OwnedFd,
    peer: Peer,
}

impl Accepted {
    /// Accepts from a socket. Neither its calls nor those of the connection block.
    fn from(listener: &Socket) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, address) = retry_on_intr(|| acceptfrom_with(listener, flags))?;
        // An address of another kind is that of a unix socket.
        let host = address.and_then(|address| SocketAddr::try_from(address).ok());
        Ok(Accepted { socket, peer: host.map_or(Peer::Local, |host| Peer::Host(host.ip())) })
    }
}

/// Accepts connections as the gate of `listener` orders, until that or `stop` ends it.
async fn accept<D: Door>(listener: Listener, shard: Rc<Shard>, stop: Rc<Signal>, sleep: impl AsyncFn(Duration)) {
    let Listener { socket, attendance } = listener;
    let mut door = None;
    while !stop.is_raised() {
        let order = attendance.order();
        let told_otherwise = future::or(attendance.changed(order), stop.raised());
        match order {
            Order::Accept => {
                let admitted = async {
                    let door = match &door {
                        Some(door) => door,
                        None => door.insert(D::open(&socket)?),
                    };
                    D::serve(door.accept().await?, &shard);
                    io::Result::Ok(())
                };
                let untold = async {
                    told_otherwise.await;
                    Ok(())
                };
                match future::or(admitted, untold).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!("a connection cannot be accepted: {error}");
                        shard.note_accept_error();
                        sleep(ACCEPT_PAUSE).await;
                    }
                    Ok(()) => {}
                }
            }
            // Another process may have the queue.
            Order::Stand => {
                door = None;
                told_otherwise.await;
            }
            Order::Close => {
                if let Some(door) = door.take() {
                    D::close(door).await;
                }
                return accept_queued::<D>(&socket, &shard);
            }
        }
    }
}

/// Accepts what is queued, so that nobody is reset when the socket is closed.
fn accept_queued<D: Door>(socket: &Socket, shard: &Rc<Shard>) {
    let admit_all = || -> io::Result<()> {
        loop {
            D::serve(Accepted::from(socket)?, shard);
        }
    };
    match admit_all() {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            tracing::warn!("connections that were queued at an address that is left cannot be accepted: {error}");
        }
        _ => {}
    }
}

/// A shard's life, until its orders end it.
///
/// `start_accepting` starts a task that accepts from a socket until the signal is raised, and counts itself among the shard's
/// acceptors. `sleep` is the runtime's.
async fn live(
    number: usize,
    shard: &Rc<Shard>,
    orders: &Orders,
    start_accepting: impl Fn(Listener, Rc<Signal>),
    sleep: impl AsyncFn(Duration),
) {
    let mut stops = Vec::new();
    loop {
        for listener in orders.fetch_listeners(number) {
            let stop = Rc::new(Signal::default());
            start_accepting(listener, stop.clone());
            stops.push(stop);
        }
        let tick = match orders.stage() {
            Stage::Serving => TICK,
            Stage::HandedOver => {
                orders.report_connections(number, shard.connections.get());
                DRAIN_TICK
            }
            Stage::Draining | Stage::Ended => break,
        };
        sleep(tick).await;
        shard.tick();
    }
    for stop in stops {
        stop.raise();
    }
    while shard.acceptors.get() > 0 {
        sleep(END_TICK).await;
    }
    while orders.stage() == Stage::Draining && shard.connections.get() > 0 {
        shard.tick();
        sleep(DRAIN_TICK).await;
    }
}

/// Counts a task among the acceptors of its shard.
struct Acceptor(Rc<Shard>);

impl Acceptor {
    fn new(shard: &Rc<Shard>) -> Acceptor {
        shard.acceptors.set(shard.acceptors.get() + 1);
        Acceptor(shard.clone())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.0.acceptors.set(self.0.acceptors.get() - 1);
    }
}

//! Accepting connections from a listening socket, as its gate orders: a task opens and closes the door, and the shard accepts
//! those that have come to an open one in its turns.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;

use super::Shard;
use super::capacity;
use super::front::Listener;
use super::gate::Order;
use super::poller::{Door, Frame};
use super::signal::Signal;
use crate::handle::Peer;

/// Most connections that are accepted before those of the shard get their turn.
const BURST: usize = 64;
/// How long accepting pauses when the process or the system has no descriptors or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// How long connections that are queued at an address that is left wait for descriptors or memory: less than what the drain of
/// an address may take.
const QUEUE_TIME: Duration = Duration::from_secs(4);

/// A connection as it was accepted.
pub(super) struct Accepted {
    pub socket: OwnedFd,
    pub peer: Peer,
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

/// Accepts connections as the gate of `listener` orders, until that or `stop` ends it. It counts among the shard's acceptors
/// from this call on. `sleep` is the runtime's.
pub(super) fn accept(
    listener: Listener,
    shard: Rc<Shard>,
    stop: Rc<Signal>,
    sleep: impl AsyncFn(Duration),
) -> impl Future<Output = ()> {
    let counted = Counted::new(shard);
    async move {
        let shard = counted.0.clone();
        let Listener { socket, attendance } = listener;
        let mut door = None;
        while !stop.is_raised() {
            let order = attendance.order();
            let told_otherwise = future::or(shard.bell.heard(attendance.changed(order)), stop.raised());
            match order {
                Order::Accept => {
                    let opened = match &door {
                        Some(door) => Ok(door),
                        None => Door::open(&shard, &socket).map(|opened| &*door.insert(opened)),
                    };
                    let untold = async {
                        told_otherwise.await;
                        None
                    };
                    let failure = match opened {
                        Ok(door) => future::or(untold, async { Some(door.failed().await) }).await,
                        Err(error) => Some(error),
                    };
                    if let Some(error) = failure {
                        shard.capacity.log_failure(&error);
                        shard.note_accept_error();
                        door = None;
                        sleep(PAUSE).await;
                    }
                }
                // Another process may have the queue.
                Order::Stand => {
                    door = None;
                    told_otherwise.await;
                }
                Order::Close => {
                    let begun = Instant::now();
                    while let Err(error) = accept_queued(&socket, &shard) {
                        shard.note_accept_error();
                        if stop.is_raised() || !is_worth_waiting(&error, begun.elapsed()) {
                            tracing::warn!(
                                "connections that were queued at an address that is left cannot be accepted: {error}"
                            );
                            return;
                        }
                        sleep(PAUSE).await;
                    }
                    return;
                }
            }
        }
    }
}

/// Accepts up to [`BURST`] connections that have come to a socket, and no more than there is `room` for; whether there may be
/// more.
///
/// # Errors
/// The system has no descriptors or memory left, or the socket is of no use.
pub(super) fn accept_some(frame: &Frame, shard: &Shard, room: usize) -> io::Result<bool> {
    for _ in 0..BURST.min(room) {
        match Accepted::from(&frame.socket) {
            Ok(accepted) => shard.take_on(accepted),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether a connection waits to be accepted from a socket. One that comes later is told by the poller.
pub(super) fn is_awaited(frame: &Frame) -> bool {
    let mut polled = [PollFd::new(&*frame.socket, PollFlags::IN)];
    // Where this fails, accepting tells why.
    retry_on_intr(|| poll(&mut polled, Some(&Timespec::default()))).map_or(true, |ready| ready > 0)
}

/// Accepts what is queued, so that nobody is reset when the socket is closed.
///
/// # Errors
/// What is still queued cannot be accepted now.
fn accept_queued(socket: &Socket, shard: &Shard) -> io::Result<()> {
    loop {
        match Accepted::from(socket) {
            Ok(accepted) => shard.take_on(accepted),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether accepting what is queued is to be tried again after this failure, `waited` after the first one.
fn is_worth_waiting(error: &io::Error, waited: Duration) -> bool {
    capacity::is_exhaustion(error) && waited < QUEUE_TIME
}

/// Counts a task among the acceptors of its shard.
struct Counted(Rc<Shard>);

impl Counted {
    fn new(shard: Rc<Shard>) -> Counted {
        shard.acceptors.set(shard.acceptors.get() + 1);
        Counted(shard)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.acceptors.set(self.0.acceptors.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// A moment without descriptors reset every connection that was queued at an address that is left.
    #[test]
    fn a_queue_waits_for_descriptors_and_memory_and_for_nothing_else() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(is_worth_waiting(&errno.into(), Duration::ZERO), "{errno}");
            assert!(!is_worth_waiting(&errno.into(), QUEUE_TIME), "{errno}");
        }
        assert!(!is_worth_waiting(&Errno::INVAL.into(), Duration::ZERO));
    }
}

//! The listening sockets of one address, spread over the shards, with the gate that all of their acceptors obey.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mb_core::config::ListenAddress;
use socket2::Socket;

use super::gate::{Attendance, Gate, Order};
use super::listener::{self, ListenError};

/// Between two looks at whether acceptors have obeyed, which takes them some ten microseconds.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// An acceptor does not obey.
#[derive(Debug, thiserror::Error)]
#[error("{acceptors} acceptors of {address} do not stop in time: their shards do not get to run")]
pub struct StuckError {
    address: String,
    acceptors: usize,
}

/// What one shard needs to accept from one socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket, whose calls do not block once it is open.
    pub socket: Arc<Socket>,
    /// What to do.
    pub attendance: Attendance,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Front {
    /// The address as configured.
    configured: String,
    sockets: Vec<Bound>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Bound {
    socket: Arc<Socket>,
    /// Whether it is still to listen.
    is_late: bool,
}

impl Bound {
    fn new(socket: Socket, is_late: bool) -> Bound {
        Bound { socket: Arc::new(socket), is_late }
    }
}

impl Front {
    /// Binds `count` sockets to `address` and listens. `ours` are addresses that this process listens on already, which are no
    /// sign of another program.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left open then.
    pub fn bind(address: &ListenAddress, count: usize, ours: &[SocketAddr]) -> Result<Front, ListenError> {
        let sockets = listener::listen(address, count, ours)?;
        Ok(Front::of(address.to_string(), sockets))
    }

    /// Takes sockets over that listen on `address`, all of them bound to the same. Where shards outnumber them, more are
    /// bound beside them, if that is possible; these listen from [`Front::open`] on.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn inherited(address: &str, sockets: Vec<Socket>, count: usize) -> Result<Front, ListenError> {
        let late = listener::bind_beside(&sockets, count.saturating_sub(sockets.len()))?;
        let mut front = Front::of(address.to_owned(), sockets);
        front.sockets.extend(late.into_iter().map(|socket| Bound::new(socket, true)));
        Ok(front)
    }

    fn of(configured: String, sockets: Vec<Socket>) -> Front {
        let sockets = sockets.into_iter().map(|socket| Bound::new(socket, false)).collect();
        Front { configured, sockets, gate: Gate::new(Order::Stand) }
    }

    /// The address as configured.
    pub fn configured(&self) -> &str {
        &self.configured
    }

    /// The addresses that its sockets are bound to.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|bound| bound.socket.local_addr().ok()?.as_socket()).collect()
    }

    /// A descriptor of each socket, with the shard of `shards` that accepts from it first.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn descriptors(&self, shards: usize) -> io::Result<Vec<(usize, OwnedFd)>> {
        let numbered = self.sockets.iter().enumerate();
        numbered.map(|(number, bound)| Ok((number % shards.max(1), bound.socket.try_clone()?.into()))).collect()
    }

    /// What one of `shards` shards accepts from.
    pub(super) fn listeners_of(&self, shard: usize, shards: usize) -> Vec<Listener> {
        let seats = seats(self.sockets.len(), shards).into_iter().filter(|(seat, _)| *seat == shard);
        seats.filter_map(|(_, socket)| self.sockets.get(socket)).map(|bound| self.listener(bound)).collect()
    }

    fn listener(&self, bound: &Bound) -> Listener {
        Listener { socket: bound.socket.clone(), attendance: self.gate.attend() }
    }

    /// What each of `shards` shards accepts from.
    pub(super) fn listeners(&self, shards: usize) -> Vec<(usize, Listener)> {
        let seats = seats(self.sockets.len(), shards).into_iter();
        seats.map(|(shard, socket)| (shard, self.listener(&self.sockets[socket]))).collect()
    }

    /// Lets acceptors accept; returns at once. No other process may accept from these sockets any more.
    ///
    /// # Errors
    /// A socket that was bound late cannot listen, or one cannot be set not to block.
    pub fn open(&self) -> Result<(), ListenError> {
        for bound in &self.sockets {
            if bound.is_late {
                listener::listen_late(&bound.socket, &self.configured)?;
            }
            // Whoever made it, or had it in the meantime, may have set it otherwise.
            listener::set_nonblocking(&bound.socket, &self.configured)?;
        }
        self.gate.give(Order::Accept);
        Ok(())
    }

    /// Whether every acceptor accepts.
    pub fn is_open(&self) -> bool {
        self.gate.accepting() == self.gate.attended()
    }

    /// Gives `order`, [`Order::Stand`] or [`Order::Close`], and returns when every acceptor has acknowledged it, or with an error
    /// at `deadline`. Blocks.
    ///
    /// # Errors
    /// [`StuckError`].
    pub fn stop(&self, order: Order, deadline: Instant) -> Result<(), StuckError> {
        self.gate.give(order);
        while self.gate.accepting() > 0 || (order == Order::Close && self.gate.attended() > 0) {
            if Instant::now() >= deadline {
                let acceptors = self.gate.accepting().max(1);
                return Err(StuckError { address: self.configured.clone(), acceptors });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }
}

/// Which shard accepts from which socket, so that every socket has an acceptor and every shard a socket.
fn seats(sockets: usize, shards: usize) -> Vec<(usize, usize)> {
    if sockets == 0 || shards == 0 {
        return Vec::new();
    }
    (0..sockets.max(shards)).map(|seat| (seat % shards, seat % sockets)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_an_acceptor_and_every_shard_a_socket() {
        assert_eq!(seats(2, 2), [(0, 0), (1, 1)]);
        assert_eq!(seats(3, 2), [(0, 0), (1, 1), (0, 2)], "fewer shards attend several");
        assert_eq!(seats(1, 3), [(0, 0), (1, 0), (2, 0)], "more shards share");
        assert_eq!(seats(0, 3), []);
    }
}

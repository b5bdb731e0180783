//! The listening sockets of one address, spread over the shards, with the gate that all of their acceptors obey.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mb_core::config::ListenAddress;
use socket2::{Domain, SockAddr, Socket, Type};

use super::gate::{Attendance, Gate, Order};
use super::listener::{self, ListenError};

/// How long connecting to an address of our own may take.
const NUDGE_TIME: Duration = Duration::from_millis(200);
/// Between two nudges; an acceptor takes some ten microseconds to come back.
const NUDGE_INTERVAL: Duration = Duration::from_micros(300);

/// An acceptor does not obey.
#[derive(Debug, thiserror::Error)]
#[error(
    "{acceptors} acceptors of {address} do not stop: this host must be able to connect to that address itself{detail}"
)]
pub struct StuckError {
    address: String,
    acceptors: usize,
    detail: String,
}

/// What one shard needs to accept from one socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket. Whether its calls block is up to the runtime that takes it.
    pub socket: Arc<Socket>,
    /// Whether its clients are hosts, which have addresses, or local processes.
    pub is_tcp: bool,
    /// Held while a system call needs the socket in a state of its own, since shards may share it.
    pub turn: Arc<Mutex<()>>,
    /// What to do.
    pub attendance: Attendance,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Front {
    /// The address as configured.
    configured: String,
    sockets: Vec<Bound>,
    is_tcp: bool,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Bound {
    socket: Arc<Socket>,
    turn: Arc<Mutex<()>>,
    /// Whether it is still to listen.
    is_late: bool,
}

impl Bound {
    fn new(socket: Socket, is_late: bool) -> Bound {
        Bound { socket: Arc::new(socket), turn: Arc::default(), is_late }
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
        let is_tcp = !configured.starts_with("unix:");
        let sockets = sockets.into_iter().map(|socket| Bound::new(socket, false)).collect();
        Front { configured, sockets, is_tcp, gate: Gate::new(Order::Stand) }
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

    /// What each of `shards` shards accepts from.
    pub(super) fn listeners(&self, shards: usize) -> Vec<(usize, Listener)> {
        let seats = seats(self.sockets.len(), shards).into_iter();
        let listener = |bound: &Bound| Listener {
            socket: bound.socket.clone(),
            is_tcp: self.is_tcp,
            turn: bound.turn.clone(),
            attendance: self.gate.attend(),
        };
        seats.map(|(shard, socket)| (shard, listener(&self.sockets[socket]))).collect()
    }

    /// Lets acceptors accept; returns at once.
    ///
    /// # Errors
    /// A socket that was bound late cannot listen.
    pub fn open(&self) -> Result<(), ListenError> {
        for bound in self.sockets.iter().filter(|bound| bound.is_late) {
            listener::listen_late(&bound.socket, &self.configured)?;
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
        let mut detail = String::new();
        while self.gate.accepting() > 0 || (order == Order::Close && self.gate.attended() > 0) {
            if Instant::now() >= deadline {
                let acceptors = self.gate.accepting().max(1);
                return Err(StuckError { address: self.configured.clone(), acceptors, detail });
            }
            // An accept is in flight in each acceptor that did not see the order in time. One connection ends it.
            if self.gate.accepting() > 0
                && let Err(error) = self.nudge()
            {
                detail = format!(" ({error})");
            }
            std::thread::sleep(NUDGE_INTERVAL);
        }
        Ok(())
    }

    /// Connects to the address. The kernel chooses which of its sockets gets the connection.
    fn nudge(&self) -> io::Result<()> {
        let Some(bound) = self.sockets.first() else { return Ok(()) };
        let local = bound.socket.local_addr()?;
        let Some(address) = local.as_socket() else {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            return socket.connect(&local);
        };
        let mut result = Ok(());
        for address in reachable(address) {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            result = socket.connect_timeout(&SockAddr::from(address), NUDGE_TIME);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// Where a socket that is bound to `address` can be connected to from its own host, to be tried in turn.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let loopback = |ip: IpAddr| SocketAddr::new(ip, address.port());
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![loopback(Ipv4Addr::LOCALHOST.into())],
        // It may take IPv4 as well, and a host may have no IPv6 on its loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![loopback(Ipv6Addr::LOCALHOST.into()), loopback(Ipv4Addr::LOCALHOST.into())]
        }
        _ => vec![address],
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

    #[test]
    fn an_address_of_all_interfaces_is_reached_on_loopback() {
        let reached = |address: &str| {
            let addresses = reachable(address.parse().unwrap());
            addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80 127.0.0.1:80");
        assert_eq!(reached("192.0.2.7:80"), "192.0.2.7:80");
        assert_eq!(reached("[fe80::1%3]:80"), "[fe80::1%3]:80");
    }
}

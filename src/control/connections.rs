//! Connections to a server of the control plane: how many there are, from whom, and how long each may
//! stay silent.
//!
//! A new connection always finds a place unless all places are held by calls under way: the connection
//! without a call that was silent for the longest time gives up its own. Connections that were merely
//! opened, however many, therefore keep nobody out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::control_socket::ControlSocket;

/// How long accepting pauses after an error: without descriptors or memory it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How often troubles with accepting are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What connections of a server are held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What the server is for, as messages name it.
    pub(super) purpose: &'static str,
    /// Connections at a time.
    pub(super) connections: usize,
    /// Of these, from one address, or one /64 of IPv6.
    pub(super) per_address: usize,
    /// Bytes that a client sends first, within [`Limits::opening_time`].
    pub(super) opening: usize,
    /// How long these may take.
    pub(super) opening_time: Duration,
    /// How long a connection without a call is kept.
    pub(super) idle_time: Duration,
}

/// The connections of one server.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    seats: Vec<Arc<Seat>>,
    /// Troubles since the last line about them.
    untold: u64,
    told: Option<Instant>,
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Seat {
    peer: IpAddr,
    use_: Mutex<Use>,
    /// Of the connection's task.
    waker: AtomicWaker,
}

#[derive(Debug)]
struct Use {
    calls: usize,
    received: usize,
    /// When the connection was opened, or its last call ended.
    quiet_since: Instant,
    is_closed: bool,
}

/// A call under way; its connection keeps its place until this is dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<Seat>);

/// An accepted connection with its place.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    info: Peer,
    limits: Limits,
    table: Arc<Mutex<Table>>,
    timer: Pin<Box<Sleep>>,
}

/// Who is at the other end of a connection, as calls know it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its addresses, as tonic wants them.
    pub(super) addresses: TcpConnectInfo,
    seat: Arc<Seat>,
}

impl Peer {
    /// Says that a call is under way.
    pub(super) fn call(&self) -> Call {
        locked(&self.seat.use_).calls += 1;
        Call(Arc::clone(&self.seat))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut use_ = locked(&self.0.use_);
        use_.calls -= 1;
        use_.quiet_since = Instant::now();
    }
}

impl Seat {
    fn close(&self) {
        locked(&self.use_).is_closed = true;
        self.waker.wake();
    }

    /// Since when it can be given to another connection; `None` while a call is under way.
    fn quiet_since(&self) -> Option<Instant> {
        let use_ = locked(&self.use_);
        (use_.calls == 0).then_some(use_.quiet_since)
    }
}

impl Connections {
    /// None yet.
    pub(super) fn new(limits: Limits) -> Connections {
        Connections { limits, table: Arc::default() }
    }

    /// The next connection that finds a place. May be cancelled; no connection that was accepted is lost.
    pub(super) async fn accept(&self, socket: &ControlSocket) -> Connection {
        loop {
            match socket.accept().await {
                Ok(stream) => {
                    if let Ok(peer) = stream.peer_addr()
                        && let Some(connection) = self.admit(stream, peer)
                    {
                        return connection;
                    }
                }
                Err(error) => {
                    self.tell(&format!("a connection cannot be accepted: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, remote: SocketAddr) -> Option<Connection> {
        let peer = group(remote.ip());
        if !self.make_room(peer) {
            self.tell(&format!("a connection of {} is refused: all places are taken by calls", remote.ip()));
            return None;
        }
        let now = Instant::now();
        let use_ = Use { calls: 0, received: 0, quiet_since: now, is_closed: false };
        let seat = Arc::new(Seat { peer, use_: Mutex::new(use_), waker: AtomicWaker::new() });
        locked(&self.table).seats.push(Arc::clone(&seat));
        let addresses = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(remote) };
        Some(Connection {
            stream,
            info: Peer { addresses, seat },
            limits: self.limits,
            table: Arc::clone(&self.table),
            timer: Box::pin(sleep(self.limits.opening_time)),
        })
    }

    /// Closes the quietest connection where there are as many as may be, and says whether there is a place now.
    fn make_room(&self, peer: IpAddr) -> bool {
        let mut table = locked(&self.table);
        let of_peer = table.seats.iter().filter(|seat| seat.peer == peer).count();
        let is_candidate = |seat: &Seat| of_peer < self.limits.per_address || seat.peer == peer;
        if of_peer < self.limits.per_address && table.seats.len() < self.limits.connections {
            return true;
        }
        let quietest = table
            .seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| is_candidate(seat))
            .filter_map(|(place, seat)| Some((seat.quiet_since()?, place)))
            .min();
        let Some((_, place)) = quietest else { return false };
        table.seats.remove(place).close();
        true
    }

    /// Logs a trouble, and those of a minute in one line.
    fn tell(&self, trouble: &str) {
        let mut table = locked(&self.table);
        table.untold += 1;
        if table.told.is_none_or(|told| told.elapsed() >= LOG_INTERVAL) {
            let times = table.untold;
            tracing::warn!("{}: {trouble} ({times} times since the last such line)", self.limits.purpose);
            table.told = Some(Instant::now());
            table.untold = 0;
        }
    }
}

impl Connection {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> Peer {
        self.info.clone()
    }

    /// Whether it has to end, for want of a sign of the client or of places.
    fn has_to_end(&mut self, context: &mut Context<'_>) -> bool {
        self.info.seat.waker.register(context.waker());
        loop {
            let rest = {
                let use_ = locked(&self.info.seat.use_);
                if use_.is_closed {
                    return true;
                }
                let limit =
                    if use_.received < self.limits.opening { self.limits.opening_time } else { self.limits.idle_time };
                // A call under way has limits of its own.
                let quiet = if use_.calls > 0 { Duration::ZERO } else { use_.quiet_since.elapsed() };
                limit.saturating_sub(quiet)
            };
            if rest.is_zero() {
                return true;
            }
            if self.timer.is_elapsed() {
                self.timer.as_mut().reset(Instant::now() + rest);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return false;
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_to_end(context) {
            // As if the client had closed it.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        locked(&self.info.seat.use_).received += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.has_to_end(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        locked(&self.table).seats.retain(|seat| !Arc::ptr_eq(seat, &self.info.seat));
    }
}

/// Whom limits per address concern: a host of IPv6 chooses the lower half of its address itself.
pub(super) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const LIMITS: Limits = Limits {
        purpose: "test",
        connections: 3,
        per_address: 2,
        opening: 1,
        opening_time: Duration::from_millis(200),
        idle_time: Duration::from_millis(400),
    };

    async fn accepted(connections: &Connections, socket: &ControlSocket) -> (TcpStream, Connection) {
        let client = TcpStream::connect(socket.local_addr().unwrap());
        let (client, connection) = tokio::join!(client, connections.accept(socket));
        (client.unwrap(), connection)
    }

    #[tokio::test]
    async fn the_quietest_connection_without_a_call_gives_way() {
        let socket = ControlSocket::bind("RPCListenAddress", "127.0.0.1:0").await.unwrap();
        let connections = Connections::new(LIMITS);
        let (_one, mut first) = accepted(&connections, &socket).await;
        let call = first.peer().call();
        let (_two, mut second) = accepted(&connections, &socket).await;
        let (_three, third) = accepted(&connections, &socket).await;
        assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "the second has to end");
        let call_of_third = third.peer().call();
        let (refused, _) = (TcpStream::connect(socket.local_addr().unwrap()).await.unwrap(), ());
        let waiting = connections.accept(&socket);
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "all places have calls");
        drop((call, call_of_third, refused));
        let (_four, _fourth) = accepted(&connections, &socket).await;
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0);
        drop(first);
        let _ = third.peer();
        drop(third);
        assert_eq!(locked(&connections.table).seats.len(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        let socket = ControlSocket::bind("RPCListenAddress", "127.0.0.1:0").await.unwrap();
        let connections = Connections::new(LIMITS);
        let (_client, mut connection) = accepted(&connections, &socket).await;
        let begun = Instant::now();
        assert_eq!(connection.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(begun.elapsed() >= LIMITS.opening_time - Duration::from_millis(5));
    }

    #[test]
    fn a_host_of_ipv6_is_one() {
        let group_of = |text: &str| group(text.parse().unwrap()).to_string();
        assert_eq!(group_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(group_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(group_of("192.0.2.7"), "192.0.2.7");
    }
}

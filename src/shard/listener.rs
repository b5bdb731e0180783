//! Making listening sockets: one per shard and address, told apart by the kernel (SO_REUSEPORT).

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mb_core::config::ListenAddress;
use mb_core::folder_lock::lock_folder_of;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: i32 = 4096;

/// How long a port may stay taken after its process ended: the kernel releases what io_uring held in the background.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("ListenAddress {address}: already in use; stop the program that listens there, or choose another address")]
    InUse {
        /// The address.
        address: String,
    },
    /// The system refuses.
    #[error("ListenAddress {address}: {step}: {source}")]
    System {
        /// The address.
        address: String,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens `count` listeners on `address`. `ours` are addresses that this process itself listens on.
///
/// # Errors
/// [`ListenError`]; no listener is left open then.
pub fn listen(address: &ListenAddress, count: usize, ours: &[SocketAddr]) -> Result<Vec<Socket>, ListenError> {
    match address {
        ListenAddress::Tcp(address) => listen_tcp(*address, count, ours),
        ListenAddress::AnyTcp(port) => {
            match listen_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)), count, ours) {
                // A host without IPv6.
                Err(ListenError::System { source, .. }) if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    listen_tcp(SocketAddr::from(([0, 0, 0, 0], *port)), count, ours)
                }
                result => result,
            }
        }
        // The kernel spreads nothing over unix sockets: the shards share one.
        ListenAddress::Unix(path) => listen_unix(path).map(|socket| vec![socket]),
    }
}

/// Binds `count` more sockets to the address of `sockets`; none where that is not possible. They do not listen yet.
///
/// # Errors
/// [`ListenError`].
pub fn bind_beside(sockets: &[Socket], count: usize) -> Result<Vec<Socket>, ListenError> {
    let Some(first) = sockets.first() else { return Ok(Vec::new()) };
    let Some(address) = first.local_addr().ok().and_then(|address| address.as_socket()) else { return Ok(Vec::new()) };
    if !first.reuse_port().unwrap_or(false) {
        return Ok(Vec::new());
    }
    let bound = (0..count).map(|_| bind_tcp(address, true)).collect::<Result<_, _>>();
    match bound {
        Ok(bound) => Ok(bound),
        // A socket that another user made, as systemd does, is shared with nobody else.
        Err(failure) if failure.source.kind() == io::ErrorKind::AddrInUse => Ok(Vec::new()),
        Err(failure) => Err(failure.at(address)),
    }
}

/// Lets a socket of [`bind_beside`] listen.
///
/// # Errors
/// [`ListenError::System`].
pub fn listen_late(socket: &Socket, address: &str) -> Result<(), ListenError> {
    socket.listen(BACKLOG).map_err(failed("cannot listen")).map_err(|failure| failure.at(address))
}

/// Makes calls on a listening socket return at once.
///
/// # Errors
/// [`ListenError::System`].
pub fn set_nonblocking(socket: &Socket, address: &str) -> Result<(), ListenError> {
    socket.set_nonblocking(true).map_err(failed("cannot set O_NONBLOCK")).map_err(|failure| failure.at(address))
}

fn listen_tcp(address: SocketAddr, count: usize, ours: &[SocketAddr]) -> Result<Vec<Socket>, ListenError> {
    if !ours.iter().any(|ours| ours.port() == address.port()) {
        wait_until_free(address).map_err(|failure| failure.at(address))?;
    }
    // With port 0 the first socket chooses, and the others follow.
    let mut address = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind_tcp(address, true).and_then(listening).map_err(|failure| failure.at(address))?;
        if let Some(bound) = socket.local_addr().ok().and_then(|bound| bound.as_socket()) {
            address = bound;
        }
        listeners.push(socket);
    }
    Ok(listeners)
}

/// Binds for a moment without SO_REUSEPORT, with which a second daemon of the same user would share the port unnoticed.
fn wait_until_free(address: SocketAddr) -> Result<(), Failure> {
    let deadline = Instant::now() + RELEASE_TIME;
    loop {
        match bind_tcp(address, false) {
            Ok(_) => return Ok(()),
            Err(Failure { source, .. }) if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(failure) => return Err(failure),
        }
    }
}

struct Failure {
    step: &'static str,
    source: io::Error,
}

impl Failure {
    fn at(self, address: impl ToString) -> ListenError {
        let address = address.to_string();
        match self.source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            _ => ListenError::System { address, step: self.step, source: self.source },
        }
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure { step, source }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> Result<Socket, Failure> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(failed("cannot make a socket"))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified()).map_err(failed("cannot set IPV6_V6ONLY"))?;
    }
    // Connections of an earlier run that wait for their end must not keep the port.
    socket.set_reuse_address(true).map_err(failed("cannot set SO_REUSEADDR"))?;
    socket.set_reuse_port(reuse_port).map_err(failed("cannot set SO_REUSEPORT"))?;
    // Accepted connections inherit this.
    socket.set_tcp_nodelay(true).map_err(failed("cannot set TCP_NODELAY"))?;
    socket.bind(&SockAddr::from(address)).map_err(failed("cannot bind"))?;
    Ok(socket)
}

fn listening(socket: Socket) -> Result<Socket, Failure> {
    socket.listen(BACKLOG).map_err(failed("cannot listen"))?;
    Ok(socket)
}

fn listen_unix(path: &Path) -> Result<Socket, ListenError> {
    let at = |failure: Failure| failure.at(format!("unix:{}", path.display()));
    let connect = || -> io::Result<()> {
        // One whose queue is full is in use, and not waited for.
        Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(&SockAddr::unix(path)?)
    };
    // Of several daemons that start at once, one looks and binds at a time: otherwise each could take the others' new socket for
    // an old one, and remove it.
    let _one_at_a_time = lock_folder_of(path);
    // A socket file that nobody answers behind is left from an earlier run.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        fs::remove_file(path).map_err(failed("cannot remove the old socket")).map_err(at)?;
    }
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("cannot make a socket"))?;
        let address = SockAddr::unix(path).map_err(failed("cannot use this path"))?;
        socket.bind(&address).map_err(failed("cannot bind"))?;
        listening(socket)
    };
    open().map_err(at)
}

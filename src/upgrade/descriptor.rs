//! What a received descriptor must be, and what it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::sockopt::{socket_acceptconn, socket_reuseport, socket_type};
use rustix::net::{AddressFamily, SocketAddrAny, SocketType};
use socket2::{SockAddr, SockRef};

use super::message::Entry;

/// A descriptor that does not keep what its entry promised.
#[derive(Debug, thiserror::Error)]
pub enum WrongDescriptor {
    /// The system does not tell about it, most likely because it is no socket.
    #[error("the descriptor for {local} is no usable socket: {source}")]
    Unusable {
        /// What was promised.
        local: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("the descriptor for {local} {found}")]
    Different {
        /// What was promised.
        local: String,
        /// What it is instead, as a predicate.
        found: String,
    },
}

/// Checks a descriptor against its entry.
///
/// # Errors
/// [`WrongDescriptor`].
pub fn check(descriptor: BorrowedFd<'_>, entry: &Entry) -> Result<(), WrongDescriptor> {
    let facts =
        Facts::of(descriptor).map_err(|source| WrongDescriptor::Unusable { local: entry.local.clone(), source })?;
    match facts.contradiction(entry) {
        Some(found) => Err(WrongDescriptor::Different { local: entry.local.clone(), found }),
        None => Ok(()),
    }
}

/// What can be seen of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    is_stream: bool,
    listens: bool,
    reuse_port: bool,
    local: String,
}

impl Facts {
    fn of(descriptor: BorrowedFd<'_>) -> io::Result<Facts> {
        let local = SockRef::from(&descriptor).local_addr()?;
        Ok(Facts {
            is_stream: socket_type(descriptor)? == SocketType::STREAM,
            listens: socket_acceptconn(descriptor)?,
            reuse_port: reuses_port(descriptor)?,
            local: address_text(&local),
        })
    }

    /// What speaks against `entry`.
    fn contradiction(&self, entry: &Entry) -> Option<String> {
        if !self.is_stream {
            Some("is no stream socket".to_owned())
        } else if !self.listens {
            Some("does not listen".to_owned())
        } else if self.local != entry.local {
            Some(format!("is bound to {}", self.local))
        } else if self.reuse_port != entry.reuse_port {
            Some(format!("has SO_REUSEPORT {}", if self.reuse_port { "set" } else { "not set" }))
        } else {
            None
        }
    }
}

/// Whether others may be bound beside a socket.
///
/// # Errors
/// It is no socket.
pub fn reuses_port(socket: impl AsFd) -> io::Result<bool> {
    let is_unix =
        rustix::net::getsockname(&socket).map(|local: SocketAddrAny| local.address_family() == AddressFamily::UNIX)?;
    // Newer kernels refuse the question for unix sockets, older ones say no.
    if is_unix { Ok(false) } else { Ok(socket_reuseport(&socket)?) }
}

/// An address as the manifest has it: `127.0.0.1:8080`, `[::]:8080`, `unix:/path`.
pub fn address_text(address: &SockAddr) -> String {
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => address.to_string(),
        (None, Some(path)) => format!("unix:{}", path.display()),
        (None, None) => "no address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::super::message::Role;
    use super::*;

    fn entry(local: impl ToString, reuse_port: bool) -> Entry {
        let local = local.to_string();
        Entry { role: Role::Downloads, configured: local.clone(), local, shard: Some(0), reuse_port }
    }

    #[test]
    fn a_listener_as_promised_passes() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        check(tcp.as_fd(), &entry(tcp.local_addr().unwrap(), false)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = UnixListener::bind(&path).unwrap();
        check(unix.as_fd(), &entry(format!("unix:{}", path.display()), false)).unwrap();
    }

    #[test]
    fn anything_else_is_told() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = tcp.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = tempfile::tempfile().unwrap();
        let text = |descriptor: BorrowedFd<'_>, entry: Entry| check(descriptor, &entry).unwrap_err().to_string();
        assert!(text(tcp.as_fd(), entry("127.0.0.1:1", false)).contains(&format!("is bound to {local}")));
        assert!(text(tcp.as_fd(), entry(local, true)).contains("SO_REUSEPORT not set"));
        assert!(text(client.as_fd(), entry(local, false)).contains("does not listen"));
        assert!(text(udp.as_fd(), entry(local, false)).contains("no stream socket"));
        assert!(text(file.as_fd(), entry(local, false)).contains("no usable socket"));
    }
}

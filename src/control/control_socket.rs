//! A listening TCP socket of the control plane, which can stop accepting and start again without losing a connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An address of the control plane cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key} {address}: {reason}")]
pub struct BindError {
    key: &'static str,
    address: String,
    reason: String,
}

/// The socket; copies are the same one.
#[derive(Clone, Debug)]
pub struct ControlSocket {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    /// As configured.
    configured: String,
    is_open: watch::Sender<bool>,
}

impl ControlSocket {
    /// Listens on `address`, a `host:port`, for the configuration's `key`.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(key: &'static str, address: &str) -> Result<ControlSocket, BindError> {
        let failed = |reason: String| BindError { key, address: address.to_owned(), reason };
        let addresses = resolve(address).await.map_err(|error| {
            failed(format!("{error}: give an address of this machine, as 127.0.0.1, or put the name into /etc/hosts"))
        })?;
        let listener = TcpListener::bind(&*addresses).await.map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "address already in use: another daemon may be running; stop it or choose another port".to_owned()
                }
                io::ErrorKind::PermissionDenied => "permission denied: choose a port from 1024 on".to_owned(),
                io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address".to_owned(),
                _ => error.to_string(),
            })
        })?;
        Ok(ControlSocket::of(listener, address, true))
    }

    /// Takes a socket over that listens on `address`; it accepts nothing until it is opened.
    ///
    /// # Errors
    /// The socket cannot be waited on.
    pub fn inherited(socket: OwnedFd, address: &str) -> io::Result<ControlSocket> {
        let listener = StdTcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(ControlSocket::of(TcpListener::from_std(listener)?, address, false))
    }

    fn of(listener: TcpListener, address: &str, is_open: bool) -> ControlSocket {
        let shared = Shared { listener, configured: address.to_owned(), is_open: watch::Sender::new(is_open) };
        ControlSocket { shared: Arc::new(shared) }
    }

    /// The address as configured.
    pub fn configured(&self) -> &str {
        &self.shared.configured
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.listener.local_addr()
    }

    /// A descriptor of it, to pass on.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        self.shared.listener.as_fd().try_clone_to_owned()
    }

    /// Accepts nothing more. To be called on the thread that accepts: then nothing is accepted after this call.
    pub fn pause(&self) {
        self.shared.is_open.send_replace(false);
    }

    /// Accepts, again.
    pub fn open(&self) {
        self.shared.is_open.send_replace(true);
    }

    /// The next connection. May be cancelled; no connection is lost.
    ///
    /// # Errors
    /// The system's.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let mut is_open = self.shared.is_open.subscribe();
        loop {
            // The sender lives as long as this socket.
            let _ = is_open.wait_for(|is_open| *is_open).await;
            tokio::select! {
                biased;
                _ = is_open.changed() => {}
                accepted = self.shared.listener.accept() => {
                    let (stream, _) = accepted?;
                    // Small answers must not wait for each other. A connection that is gone already is noticed when it is read.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
            }
        }
    }
}

/// What a `host:port` means, to be tried in turn. No host is every address of this machine, and `localhost` is this machine also
/// where nothing says so, as in a container without /etc/hosts.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let at = |host: IpAddr, port| SocketAddr::new(host, port);
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some(("", Ok(port))) => {
            Ok(vec![at(Ipv6Addr::UNSPECIFIED.into(), port), at(Ipv4Addr::UNSPECIFIED.into(), port)])
        }
        Some(("localhost", Ok(port))) => match tokio::net::lookup_host(address).await {
            Ok(found) => Ok(found.collect()),
            Err(_) => Ok(vec![at(Ipv4Addr::LOCALHOST.into(), port)]),
        },
        _ => Ok(tokio::net::lookup_host(address).await?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_paused_socket_leaves_connections_to_the_other_holder() {
        let old = ControlSocket::bind("RPCListenAddress", "127.0.0.1:0").await.unwrap();
        let accepting = tokio::spawn({
            let old = old.clone();
            async move { old.accept().await }
        });
        tokio::task::yield_now().await;
        old.pause();
        let new = ControlSocket::inherited(old.descriptor().unwrap(), old.configured()).unwrap();
        let address = old.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        new.open();
        let accepted = new.accept().await.unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        assert!(!accepting.is_finished());

        new.pause();
        old.open();
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = accepting.await.unwrap().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_taken_address_is_told_with_its_key() {
        let first = ControlSocket::bind("RPCListenAddress", "127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = ControlSocket::bind("MetricsListenAddress", &address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("MetricsListenAddress") && error.contains("in use"));
    }

    #[tokio::test]
    async fn an_address_without_a_host_is_every_address() {
        let socket = ControlSocket::bind("RPCListenAddress", ":0").await.unwrap();
        let address = socket.local_addr().unwrap();
        assert!(address.ip().is_unspecified());
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await.unwrap();
    }

    #[tokio::test]
    async fn localhost_is_this_machine() {
        let socket = ControlSocket::bind("RPCListenAddress", "localhost:0").await.unwrap();
        assert!(socket.local_addr().unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_that_means_nothing_is_explained() {
        let error = ControlSocket::bind("RPCListenAddress", "no host:3390").await.unwrap_err().to_string();
        assert!(error.starts_with("RPCListenAddress no host:3390: ") && error.contains("as 127.0.0.1"), "{error}");
    }
}

//! Where the listening sockets come from: made anew, given by systemd, or taken over from the process before.

use std::os::fd::{FromRawFd, OwnedFd};

use mb_core::config::Config;
use socket2::Socket;

use super::{DaemonError, blocking};
use crate::control::control_socket::ControlSocket;
use crate::shard::front::Front;
use crate::upgrade::descriptor::{address_text, reuses_port};
use crate::upgrade::inherit::Inheritance;
use crate::upgrade::message::{Entry, Role};

/// The sockets of a daemon that does not accept yet.
pub(super) struct Sockets {
    /// Where downloads are served.
    pub(super) downloads: Front,
    /// Addresses that the process before served and this one does not: what is queued there is still answered.
    pub(super) left: Vec<Front>,
    /// Where commands are served.
    pub(super) rpc: ControlSocket,
    /// Where metrics are served.
    pub(super) metrics: Option<ControlSocket>,
}

/// Sockets that somebody gave to this process, by what they are for.
pub(super) struct Given {
    sockets: Vec<(Entry, OwnedFd)>,
    /// Whether they are to be used whatever address the configuration has.
    for_any_address: bool,
}

impl Given {
    /// Those of the process before, or else those of systemd.
    pub(super) fn to_this_process(
        inheritance: Option<&mut Inheritance>,
        config: &Config,
    ) -> Result<Given, DaemonError> {
        match inheritance {
            Some(inheritance) => {
                let sockets = [Role::Downloads, Role::Rpc, Role::Metrics].map(|role| inheritance.take(role));
                Ok(Given { sockets: sockets.into_iter().flatten().collect(), for_any_address: false })
            }
            None => Ok(Given { sockets: of_systemd(config)?, for_any_address: true }),
        }
    }

    /// Those for `role`, in groups of one configured address; the one of `configured` apart from the others.
    fn take(&mut self, role: Role, configured: &str) -> (Vec<OwnedFd>, Vec<(String, Vec<OwnedFd>)>) {
        let mut wanted = Vec::new();
        let mut others: Vec<(String, Vec<OwnedFd>)> = Vec::new();
        let of_role = self.sockets.extract_if(.., |(entry, _)| entry.role == role);
        for (entry, socket) in of_role {
            if self.for_any_address || entry.configured == configured {
                wanted.push(socket);
            } else if let Some((_, group)) = others.iter_mut().find(|(address, _)| *address == entry.configured) {
                group.push(socket);
            } else {
                others.push((entry.configured, vec![socket]));
            }
        }
        (wanted, others)
    }

    /// The socket of the control plane for `role`.
    pub(super) async fn control(
        &mut self,
        role: Role,
        key: &'static str,
        address: &str,
    ) -> Result<ControlSocket, DaemonError> {
        let (wanted, _) = self.take(role, address);
        match wanted.into_iter().next() {
            Some(socket) => Ok(ControlSocket::inherited(socket, address)?),
            None => {
                let socket = ControlSocket::bind(key, address).await?;
                socket.pause();
                Ok(socket)
            }
        }
    }
}

impl Sockets {
    /// Takes what is given and makes the rest, for `shards` shards.
    pub(super) async fn open(mut given: Given, config: &Config, shards: usize) -> Result<Sockets, DaemonError> {
        let configured = config.listen_address.to_string();
        let (wanted, others) = given.take(Role::Downloads, &configured);
        let as_sockets = |sockets: Vec<OwnedFd>| sockets.into_iter().map(Socket::from).collect();
        let mut left = Vec::with_capacity(others.len());
        for (address, sockets) in others {
            left.push(Front::inherited(&address, as_sockets(sockets), 0)?);
        }
        let downloads = if wanted.is_empty() {
            let ours: Vec<_> = left.iter().flat_map(Front::local_addresses).collect();
            let address = config.listen_address.clone();
            // It may wait for another process that leaves the address, and for the disk of a unix socket.
            blocking(move || Front::bind(&address, shards, &ours)).await??
        } else {
            Front::inherited(&configured, as_sockets(wanted), shards)?
        };
        let rpc = given.control(Role::Rpc, "RPCListenAddress", &config.rpc_listen_address).await?;
        let metrics = match &config.metrics_listen_address {
            Some(address) => Some(given.control(Role::Metrics, "MetricsListenAddress", address).await?),
            None => None,
        };
        Ok(Sockets { downloads, left, rpc, metrics })
    }
}

/// What systemd listens on for us. Sockets are told apart by `FileDescriptorName=`: `rpc`, `metrics`, and anything else for
/// downloads.
fn of_systemd(config: &Config) -> Result<Vec<(Entry, OwnedFd)>, DaemonError> {
    let mut sockets = Vec::new();
    for (number, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: systemd passed the descriptor to this process, which asks for it once.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let (role, configured) = match name.as_str() {
            "rpc" => (Role::Rpc, config.rpc_listen_address.clone()),
            "metrics" => (Role::Metrics, config.metrics_listen_address.clone().unwrap_or_default()),
            _ => (Role::Downloads, config.listen_address.to_string()),
        };
        let socket = Socket::from(socket);
        let local = address_text(&socket.local_addr()?);
        tracing::info!("systemd listens on {local} for {role:?}");
        let entry = Entry { role, configured, local, shard: None, reuse_port: reuses_port(&socket)? };
        sockets.push((entry, OwnedFd::from(socket)));
    }
    Ok(sockets)
}

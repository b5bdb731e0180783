//! The running daemon as its own hand-over sees it: the sockets, and the acceptors behind them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::control::control_socket::ControlSocket;
use crate::shard::pool::Pool;
use crate::snapshot::Publication;
use crate::upgrade::descriptor::{address_text, reuses_port};
use crate::upgrade::hand_over;
use crate::upgrade::message::{Entry, Role};
use crate::upgrade::old::PAUSE_TIME;

/// What accepts connections.
pub(super) struct Incumbent {
    pub(super) pool: Arc<Pool>,
    pub(super) publication: Arc<Publication>,
    /// The sockets of the control plane.
    pub(super) control: Vec<(Role, ControlSocket)>,
}

impl Incumbent {
    fn entries(&self) -> std::io::Result<Vec<(Entry, OwnedFd)>> {
        let mut sockets = Vec::new();
        for front in self.pool.fronts() {
            for (shard, socket) in front.descriptors(self.pool.shards())? {
                sockets.push((entry(Role::Downloads, front.configured(), Some(shard), &socket)?, socket));
            }
        }
        for (role, control) in &self.control {
            let socket = control.descriptor()?;
            sockets.push((entry(*role, control.configured(), None, &socket)?, socket));
        }
        Ok(sockets)
    }
}

fn entry(role: Role, configured: &str, shard: Option<usize>, socket: &OwnedFd) -> std::io::Result<Entry> {
    let local = address_text(&socket2::SockRef::from(socket).local_addr()?);
    Ok(Entry { role, configured: configured.to_owned(), local, shard, reuse_port: reuses_port(socket)? })
}

impl hand_over::Incumbent for Incumbent {
    fn sockets(&self) -> Result<Vec<(Entry, OwnedFd)>, String> {
        self.entries().map_err(|error| format!("the listening sockets cannot be passed on: {error}"))
    }

    fn has_index(&self) -> bool {
        self.publication.load().files.is_some()
    }

    async fn pause(&self) -> Result<(), String> {
        for (_, socket) in &self.control {
            socket.pause();
        }
        let pool = self.pool.clone();
        let paused = tokio::task::spawn_blocking(move || pool.pause(PAUSE_TIME));
        match paused.await {
            Ok(paused) => paused.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn let_end(&self) {
        self.pool.let_end();
    }

    fn is_drained(&self) -> bool {
        self.pool.is_drained()
    }

    async fn resume(&self) {
        let pool = self.pool.clone();
        let resumed = tokio::task::spawn_blocking(move || pool.resume());
        match resumed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("{error}"),
            Err(error) => tracing::error!("the shards cannot be told to accept again: {error}"),
        }
        for (_, socket) in &self.control {
            socket.open();
        }
    }
}

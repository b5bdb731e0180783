//! The ports of the demo: the usual ones where they are free, so that commands need no options, else others.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use super::DemoError;
use super::folder::MIRRORS;

/// Where the parts of the demo listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Downloads, on [`Ipv4Addr::LOCALHOST`].
    pub(super) redirector: u16,
    /// Commands, on [`Ipv4Addr::LOCALHOST`].
    pub(super) rpc: u16,
    /// rsync daemon, on [`Ipv4Addr::LOCALHOST`].
    pub(super) rsync: u16,
    /// nginx, on the address of each mirror.
    pub(super) mirrors: u16,
}

/// The default of `mirrorbits -p` and of `RPCListenAddress`.
pub(super) const USUAL_RPC: u16 = 3390;

/// Ports to try when the usual one is taken; below Linux's range for outgoing connections.
const OTHERS: std::ops::Range<u16> = 20_000..32_000;

/// So many taken ports in a row are no coincidence.
const ATTEMPTS: usize = 100;

impl Ports {
    /// Looks for free ports. They are free at this moment: a program that takes one before the demo does makes the demo
    /// fail with that program's message.
    pub(super) fn choose() -> Result<Ports, DemoError> {
        let local = [Ipv4Addr::LOCALHOST];
        Ok(Ports {
            redirector: free(8080, &local).ok_or(DemoError::NoPort("the redirector"))?,
            rpc: free(USUAL_RPC, &local).ok_or(DemoError::NoPort("commands"))?,
            rsync: free(8730, &local).ok_or(DemoError::NoPort("rsync"))?,
            mirrors: free(8081, &MIRRORS.map(|mirror| mirror.address)).ok_or(DemoError::NoPort("nginx"))?,
        })
    }
}

/// A port that is free on all `addresses`: `usual`, or one of [`OTHERS`].
fn free(usual: u16, addresses: &[Ipv4Addr]) -> Option<u16> {
    std::iter::once(usual)
        .chain(std::iter::repeat_with(|| fastrand::u16(OTHERS)).take(ATTEMPTS))
        .find(|&port| addresses.iter().all(|&address| TcpListener::bind(SocketAddrV4::new(address, port)).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_avoided() {
        let occupant = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let taken = occupant.local_addr().expect("address").port();
        let port = free(taken, &[Ipv4Addr::LOCALHOST]).expect("a free port");
        assert_ne!(port, taken);
        assert!(OTHERS.contains(&port));
        drop(occupant);
        assert_eq!(free(taken, &[Ipv4Addr::LOCALHOST]), Some(taken));
    }
}

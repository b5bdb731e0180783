//! The client's address: the peer's, or the one that a trusted proxy tells.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::http::request::ForwardedFor;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host.
    Host(IpAddr),
    /// A process on this host, over a unix socket; always trusted.
    Local,
}

impl Peer {
    fn address(self) -> IpAddr {
        match self {
            Peer::Host(address) => address.to_canonical(),
            Peer::Local => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    fn is_trusted(self, trusted: &[IpNet]) -> bool {
        match self {
            Peer::Host(address) => is_among(trusted, address.to_canonical()),
            Peer::Local => true,
        }
    }
}

/// The client's address. When `peer` is a trusted proxy, `X-Forwarded-For` is read from the right and trusted proxies in
/// it are skipped; the first other address is the client, and the left-most one when all are trusted. A member that is no
/// address makes it the peer's.
pub fn client_address(peer: Peer, forwarded: &ForwardedFor<'_>, trusted: &[IpNet]) -> IpAddr {
    if !peer.is_trusted(trusted) {
        return peer.address();
    }
    let mut client = peer.address();
    for member in forwarded.from_the_right() {
        let Some(address) = parse_member(member) else { return peer.address() };
        client = address;
        if !is_among(trusted, address) {
            break;
        }
    }
    client
}

/// An address, alone or with a port as some proxies write it.
fn parse_member(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Parsed, parse};

    fn client(peer: &str, fields: &str) -> String {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|net| net.parse().unwrap()).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { panic!() };
        let peer = if peer == "unix" { Peer::Local } else { Peer::Host(peer.parse().unwrap()) };
        client_address(peer, &request.forwarded_for, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("192.0.2.9", "X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.9");
        assert_eq!(client("127.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
        assert_eq!(client("::ffff:127.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
        assert_eq!(client("unix", "X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
        assert_eq!(client("127.0.0.1", ""), "127.0.0.1");
    }

    #[test]
    fn the_list_is_read_from_the_right() {
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 1.1.1.1, 192.0.2.1, 10.0.0.2\r\n"), "192.0.2.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.2\r\n"), "192.0.2.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n"), "10.0.0.3");
    }

    #[test]
    fn what_is_no_address_makes_it_the_peer() {
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: unknown\r\n"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 192.0.2.1, _hidden\r\n"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:443\r\n"), "2001:db8::1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: ::ffff:192.0.2.1\r\n"), "192.0.2.1");
    }
}

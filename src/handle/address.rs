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

/// Networks, prepared so that each takes one comparison.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// Mask and network.
    ipv4: Vec<(u32, u32)>,
    ipv6: Vec<(u128, u128)>,
}

impl Networks {
    /// Whether `address`, in canonical form, is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.ipv4.iter().any(|&(mask, network)| bits & mask == network)
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.ipv6.iter().any(|&(mask, network)| bits & mask == network)
            }
        }
    }
}

impl From<&[IpNet]> for Networks {
    fn from(networks: &[IpNet]) -> Networks {
        let mut prepared = Networks::default();
        for network in networks {
            match network {
                IpNet::V4(network) => {
                    prepared.ipv4.push((network.netmask().to_bits(), network.network().to_bits()));
                }
                IpNet::V6(network) => {
                    prepared.ipv6.push((network.netmask().to_bits(), network.network().to_bits()));
                }
            }
        }
        prepared
    }
}

impl Peer {
    fn address(self) -> IpAddr {
        match self {
            Peer::Host(address) => address.to_canonical(),
            Peer::Local => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    fn is_trusted(self, trusted: &Networks) -> bool {
        match self {
            Peer::Host(address) => trusted.contains(address.to_canonical()),
            Peer::Local => true,
        }
    }
}

/// The client's address. When `peer` is a trusted proxy, `X-Forwarded-For` is read from the right and trusted proxies in
/// it are skipped; the first other address is the client, and the left-most one when all are trusted. A member that is no
/// address makes it the peer's.
pub fn client_address(peer: Peer, forwarded: &ForwardedFor<'_>, trusted: &Networks) -> IpAddr {
    if !peer.is_trusted(trusted) {
        return peer.address();
    }
    let mut client = peer.address();
    for member in forwarded.from_the_right() {
        let Some(address) = parse_member(member) else { return peer.address() };
        client = address;
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// An address, alone or with a port as some proxies write it.
fn parse_member(member: &[u8]) -> Option<IpAddr> {
    if let Some(address) = parse_ipv4(member) {
        return Some(IpAddr::V4(address));
    }
    let text = std::str::from_utf8(member).ok()?;
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// An IPv4 address as most members are: the standard library, which knows all forms, takes several times as long.
fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut bits, mut octet, mut digits, mut dots) = (0_u32, 0_u32, 0_u32, 0_u32);
    for &byte in text {
        match byte {
            // A number that begins with 0 is octal to some programs, and an address to none that is careful.
            b'0'..=b'9' if digits == 0 || octet > 0 => {
                // Both are small: an octet above 255 ends this.
                octet = octet.wrapping_mul(10).wrapping_add(u32::from(byte & 15));
                digits = digits.wrapping_add(1);
                if octet > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 && dots < 3 => {
                bits = bits << 8 | octet;
                (octet, digits, dots) = (0, 0, dots.wrapping_add(1));
            }
            _ => return None,
        }
    }
    (digits > 0 && dots == 3).then(|| Ipv4Addr::from_bits(bits << 8 | octet))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::request::{Parsed, parse};

    fn client(peer: &str, fields: &str) -> String {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|net| net.parse().unwrap()).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { panic!() };
        let peer = if peer == "unix" { Peer::Local } else { Peer::Host(peer.parse().unwrap()) };
        client_address(peer, &request.forwarded_for, &Networks::from(trusted.as_slice())).to_string()
    }

    proptest! {
        #[test]
        fn addresses_are_what_the_standard_library_takes_for_them(
            text in "[0-9]{0,3}(\\.[0-9]{1,4}){1,5}|[0-9.:a ]{0,16}", bits: u32
        ) {
            let address = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(parse_ipv4(address.to_string().as_bytes()), Some(address));
            prop_assert_eq!(parse_ipv4(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn prepared_networks_hold_what_networks_hold(
            base: u128, prefix in 0..=128_u8, near in prop::collection::vec(0..128_u32, 4), is_ipv4: bool
        ) {
            let address = |bits: u128| match is_ipv4 {
                true => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
                false => IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)),
            };
            let prefix = if is_ipv4 { prefix.min(32) } else { prefix };
            let network = IpNet::new(address(base), prefix).unwrap();
            let prepared = Networks::from([network].as_slice());
            for bits in near.into_iter().map(|bit| base ^ 1 << bit).chain([base]) {
                prop_assert_eq!(prepared.contains(address(bits)), network.contains(&address(bits)));
            }
        }
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

    /// Only the last eight fields were looked at, and of proxies alone the left-most was taken for the client.
    #[test]
    fn all_fields_are_looked_at() {
        let proxies = "X-Forwarded-For: 10.0.0.2\r\n".repeat(90);
        let fields = format!("X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 192.0.2.1\r\n{proxies}");
        assert_eq!(client("10.0.0.1", &fields), "192.0.2.1");
    }

    #[test]
    fn what_is_no_address_makes_it_the_peer() {
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: unknown\r\n"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: 192.0.2.1, _hidden\r\n"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:443\r\n"), "2001:db8::1");
        assert_eq!(client("10.0.0.1", "X-Forwarded-For: ::ffff:192.0.2.1\r\n"), "192.0.2.1");
    }
}

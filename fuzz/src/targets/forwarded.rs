//! `X-Forwarded-For`: the client's address is never one that only an untrusted host has named.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mirrorbits::handle::{Networks, Peer, client_address};
use mirrorbits::http::request::{Parsed, parse};

/// The first byte chooses the peer; the rest are the fields, one a line.
pub fn run(input: &[u8]) {
    let [choice, rest @ ..] = input else { return };
    let peers = ["10.0.0.1", "192.0.2.9", "::ffff:10.1.2.3", "2001:db8::7", "fd00::1"];
    let peer: IpAddr = peers[usize::from(*choice) % peers.len()].parse().expect("an address");
    let fields: Vec<&[u8]> = rest.split(|&byte| byte == b'\n').collect();
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for field in &fields {
        head.extend_from_slice(b"X-Forwarded-For: ");
        head.extend_from_slice(field);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    // Others than these fields would come from carriage returns in the input.
    if rest.contains(&b'\r') {
        return;
    }
    let Parsed::Complete { request, .. } = parse(&head) else { return };
    let trusted: Vec<IpNet> =
        ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().expect("a network")).collect();
    let found = client_address(Peer::Host(peer), &request.forwarded_for, &Networks::from(trusted.as_slice()));
    let expected = expected(peer, &fields, &trusted);
    assert_eq!(found, expected, "peer {peer}, {}", rest.escape_ascii());
}

/// From the right, as long as each host that has named the next is trusted. A member that is no address leaves the peer.
fn expected(peer: IpAddr, fields: &[&[u8]], trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let members = fields.iter().rev().flat_map(|field| field.rsplit(|&byte| byte == b','));
    for member in members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        if !is_trusted(&client) {
            break;
        }
        let text = std::str::from_utf8(member).ok();
        let address =
            text.and_then(|text| text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())));
        match address {
            Some(address) => client = address.to_canonical(),
            None => return peer,
        }
    }
    client
}

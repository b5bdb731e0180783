//! Loopback addresses as hosts. All of 127.0.0.0/8 is on this machine, so every test gets addresses of its own instead of
//! free ports, and the ports can be the usual ones.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

/// Where the geo databases of the tests (`src/cli/demo/geo`) place an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In no database.
    Nowhere,
    /// 127.33.0.0/16, by the calling code of France.
    Paris,
    /// 127.1.0.0/16.
    NewYork,
    /// 127.81.0.0/16.
    Tokyo,
}

impl Place {
    /// A client of that place, from the documentation prefixes.
    pub(crate) fn client(self) -> &'static str {
        match self {
            Place::Nowhere => "203.0.113.200",
            Place::Paris => "192.0.2.1",
            Place::NewYork => "192.0.2.97",
            Place::Tokyo => "192.0.2.161",
        }
    }

    fn second_octet(self) -> u8 {
        match self {
            Place::Nowhere => 200,
            Place::Paris => 33,
            Place::NewYork => 1,
            Place::Tokyo => 81,
        }
    }
}

/// An address that nobody else uses as long as this lives.
#[derive(Debug)]
pub(crate) struct Host {
    ip: Ipv4Addr,
    /// Bound to [`CLAIM_PORT`]: whoever wants the same address fails there and takes another.
    _claim: TcpListener,
}

/// Marks an address as taken; below the range of ephemeral ports, so that no client gets it by chance.
const CLAIM_PORT: u16 = 8999;

impl Host {
    /// Takes an address of `place`.
    pub(crate) fn claim(place: Place) -> Host {
        for _ in 0..100 {
            let ip = Ipv4Addr::new(127, place.second_octet(), fastrand::u8(1..255), fastrand::u8(1..255));
            if let Ok(claim) = TcpListener::bind((ip, CLAIM_PORT)) {
                return Host { ip, _claim: claim };
            }
        }
        panic!("no free loopback address in {place:?}");
    }

    /// The address with a port.
    pub(crate) fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(self.ip, port))
    }
}

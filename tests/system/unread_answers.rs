//! Clients that do not take their answers: what all of them hold is bounded, and the memory comes back.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::{Redirector, get};

/// Memory that may come on top of what the configuration allows: of the system's buffers nothing counts here, of the allocator's
/// what lies between the pieces that are in use.
const MARGIN_KIB: u64 = 16 * 1024;
/// Memory that may stay on top of what there was before: caches, and pages that are in use only in part.
const REMAINDER_KIB: u64 = 4 * 1024;

/// 8,000 clients that asked for documents and never read took 1 GB, of which 0.6 to 0.9 GB stayed when they had left.
#[test]
fn clients_that_never_read_take_what_is_allowed_and_give_it_back() {
    clients_that_never_read(400, 8);
}

/// The attack in its first size.
#[test]
#[ignore = "takes 16,000 descriptors and most of a minute"]
fn eight_thousand_clients_that_never_read_take_what_is_allowed_and_give_it_back() {
    clients_that_never_read(8_000, 64);
}

/// `clients` connections that do not read, with `allowed` MiB of buffers in the only shard.
fn clients_that_never_read(clients: usize, allowed: u64) {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("descriptors");
    let mut redirector = Redirector::new();
    redirector.set("ConnectionBuffersPerShard", format!("{allowed}MiB"));
    let names: Vec<String> = (0..4).map(|number| format!("m{number}")).collect();
    let mirrors: Vec<(&str, Place)> = names.iter().map(|name| (name.as_str(), Place::Paris)).collect();
    let _mirrors = redirector.start_with_mirrors(&mirrors);
    redirector.get("/file.iso?mirrorlist&pretty", &["Accept: application/json"]);
    let before = redirector.daemon().anonymous_kib();

    let requests = get("/file.iso?mirrorlist&pretty", &["Accept: application/json"]).repeat(60);
    // Each with how much of its requests it has sent.
    let mut clients: Vec<(TcpStream, usize)> = (0..clients).map(|_| (connect(&redirector), 0)).collect();
    let mut most = 0;
    for _ in 0..10 {
        for (client, sent) in &mut clients {
            // One that does not fit, or whose connection was closed, has sent enough.
            match client.write(&requests.as_bytes()[*sent % requests.len()..]) {
                Ok(count) => *sent += count,
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                ),
            }
        }
        most = most.max(redirector.daemon().anonymous_kib());
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "the others are served");
    }
    redirector.daemon().wait_for_output(&format!("ConnectionBuffersPerShard: {}", allowed << 20));
    assert!(most <= before + allowed * 1024 + MARGIN_KIB, "{before} KiB, then {most} KiB");
    drop(clients);
    eventually("memory is given back", || {
        let after = redirector.daemon().anonymous_kib();
        if after <= before + REMAINDER_KIB { Ok(()) } else { Err(format!("{before} KiB, then {after} KiB")) }
    });
}

/// A client with a receive buffer of a few kilobytes, whose writes do not wait.
fn connect(redirector: &Redirector) -> TcpStream {
    let socket = Socket::new(Domain::for_address(redirector.address()), Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(4096).expect("buffer");
    socket.connect(&redirector.address().into()).expect("connection");
    socket.set_nonblocking(true).expect("mode");
    socket.into()
}

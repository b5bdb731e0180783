//! What callers of the control interface can take from others: connections, and tries of the password.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::Server;

/// 200 connections that said nothing were all kept, for ever, and so was a descriptor for each.
#[test]
fn connections_that_say_nothing_keep_nobody_out_and_are_closed() {
    let server = Server::start("");
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let begun = Instant::now();
    server.succeed(&["list"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for mut connection in idle {
        // Five seconds are what a client has for its first bytes.
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // HTTP/2 servers say their settings first; then comes the end, or a reset.
        let mut said = Vec::new();
        if let Err(error) = connection.read_to_end(&mut said) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

/// Passwords could be tried as fast as the connection is.
#[test]
fn wrong_passwords_are_slowed_down() {
    let server = Server::start("secret");
    let list = |password: &str| server.run(&["-P", password, "list"]);
    let mut refusals = Vec::new();
    for _ in 0..12 {
        refusals.push(list("guess").err);
    }
    assert!(refusals[0].contains("wrong password"), "{refusals:?}");
    let last = refusals.last().unwrap();
    assert!(last.contains("too many wrong passwords"), "{refusals:?}");
    assert!(list("secret").err.contains("too many wrong passwords"), "the right one is not looked at either");
    crate::server::wait_until("the pause is over", || list("secret").status == 0);
}

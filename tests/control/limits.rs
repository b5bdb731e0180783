//! What callers of the control interface can take from others: connections, and tries of the password.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mirrorbits::control::rpc::proto::MatchRequest;
use mirrorbits::control::rpc::proto::cli_client::CliClient;
use tonic::Code;

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

/// A message of 4 MiB is read, and one that is a byte longer is refused with both numbers.
#[test]
fn the_limit_of_a_message_is_exact_and_told() {
    const MESSAGE_MAX: usize = 4 << 20;
    // Number and type of the field, and four bytes of its length.
    const FRAME: usize = 5;
    let server = Server::start("");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = |length: usize| {
        runtime.block_on(async {
            let mut client = CliClient::connect(format!("http://{}", server.address)).await.unwrap();
            client.match_mirror(MatchRequest { pattern: "x".repeat(length - FRAME) }).await
        })
    };
    assert!(said(MESSAGE_MAX).unwrap().into_inner().mirrors.is_empty());
    let refusal = said(MESSAGE_MAX + 1).unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal:?}");
    for number in [MESSAGE_MAX, MESSAGE_MAX + 1] {
        assert!(refusal.message().contains(&number.to_string()), "{refusal:?}");
    }
}

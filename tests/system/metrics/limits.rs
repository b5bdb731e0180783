//! What clients of the metrics' server can take from others.

use std::time::{Duration, Instant};

use crate::harness::http::Connection;
use crate::harness::metrics::{ask, scrape};
use crate::harness::redirector::Redirector;

fn start() -> Redirector {
    let mut redirector = Redirector::new();
    redirector.with_metrics().start_without_indexer();
    redirector
}

#[test]
fn silent_connections_keep_nobody_out_and_are_closed() {
    let mut redirector = start();
    let mut silent: Vec<_> =
        (0..200).map(|_| Connection::open(redirector.metrics_address()).expect("connection")).collect();
    let began = Instant::now();
    scrape(&redirector);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Ten seconds are what a client has for its first byte, and 32 connections what it has at a time.
    let (first, last) = silent.split_at_mut(100);
    assert!(first.iter_mut().all(Connection::is_closed));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(last.iter_mut().all(Connection::is_closed));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    redirector.stop();
}

#[test]
fn a_head_has_limits() {
    let mut redirector = start();
    let status = |fields: &str| {
        let mut connection = Connection::open(redirector.metrics_address()).expect("connection");
        let request = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
        connection.send(request.as_bytes()).expect("request");
        connection.receive().expect("answer").status
    };
    assert_eq!(status(&format!("A: {}\r\n", "x".repeat(15 << 10))), 200);
    assert_eq!(status(&format!("A: {}\r\n", "x".repeat(17 << 10))), 431);
    assert_eq!(status(&"A: b\r\n".repeat(62)), 200);
    assert_eq!(status(&"A: b\r\n".repeat(63)), 431);
    assert_eq!(ask(&redirector, "/healthz").status, 200);
    redirector.stop();
}

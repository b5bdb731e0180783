//! Descriptors used up by clients.
//!
//! 1,500 connections under `ulimit -n 1024` once ended the daemon on io_uring: each of its sleeps duplicated a descriptor. On
//! epoll no new client was answered until others had left.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::redirector::{Redirector, get};

const RUNTIMES: [&str; 2] = ["io_uring", "epoll"];

/// A command with these limits of descriptors.
fn limited(command: &Command, soft: u64, hard: u64) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={soft}:{hard}")).arg(command.get_program()).args(command.get_args());
    limited
}

fn redirector(runtime: &str) -> Redirector {
    // Each connection takes a descriptor here, too.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("descriptors of the test");
    let mut redirector = Redirector::new();
    redirector.set("Runtime", runtime).set("Shards", 2).with_metrics();
    redirector.set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    fs::write(redirector.repository().join("file.iso"), "content").expect("file");
    redirector
}

fn open_descriptors(redirector: &mut Redirector) -> usize {
    let pid = redirector.daemon().pid().as_raw_nonzero();
    fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors of the daemon").count()
}

fn metric(redirector: &Redirector, name: &str) -> u64 {
    let mut connection = Connection::open(redirector.metrics_address()).expect("metrics");
    connection.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("request");
    let answer = connection.receive().expect("metrics");
    let of_shards = answer.text().lines().filter(|line| line.starts_with(&format!("{name}{{")));
    of_shards.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[test]
fn more_clients_than_descriptors_are_answered_and_everything_else_goes_on() {
    for runtime in RUNTIMES {
        let mut redirector = redirector(runtime);
        let mut command = limited(&redirector.daemon_command(), 1024, 1024);
        redirector.start_with(&mut command);
        redirector.scan_repository();
        redirector.wait_until_served("/file.iso");
        let before = open_descriptors(&mut redirector);
        let mut clients = Vec::new();
        for number in 0..1500 {
            let mut client = Connection::open(redirector.address()).expect("a connection is queued at least");
            client.send(get("/file.iso", &[]).as_bytes()).expect("request");
            let answer = client.receive().unwrap_or_else(|error| panic!("{runtime}, client {number}: {error}"));
            assert_eq!(answer.status, 302);
            clients.push(client);
        }
        assert!(open_descriptors(&mut redirector) < 1000, "a reserve is left");
        eventually("the metric", || {
            let closed = metric(&redirector, "mirrorbits_connections_closed_for_room_total");
            if closed >= 500 { Ok(()) } else { Err(format!("{closed} on {runtime}")) }
        });
        fs::write(redirector.repository().join("new.iso"), "content").expect("file");
        redirector.scan_repository();
        redirector.wait_until_served("/new.iso");
        redirector.mirrorbits(&["reload"]);
        drop(clients);
        eventually("all connections are closed", || {
            let now = open_descriptors(&mut redirector);
            if now <= before + 8 { Ok(()) } else { Err(format!("{now} descriptors, {before} before")) }
        });
        redirector.stop();
    }
}

/// Clients that send nothing cannot be told from those that are about to: they are closed after a moment.
#[test]
fn silent_clients_do_not_keep_others_out() {
    for runtime in RUNTIMES {
        let mut redirector = redirector(runtime);
        redirector.set("MaxConnections", 40);
        redirector.start();
        let silent: Vec<_> = (0..100).map(|_| Connection::open(redirector.address()).expect("connection")).collect();
        let began = Instant::now();
        let mut client = Connection::open(redirector.address()).expect("connection");
        client.send(get("/file.iso", &[]).as_bytes()).expect("request");
        client.receive().unwrap_or_else(|error| panic!("{runtime}: {error}"));
        // Three times the connections before it are waited for, each of them 2 s at most.
        assert!(began.elapsed() < Duration::from_secs(30), "{runtime}: {:?}", began.elapsed());
        let lines = redirector.daemon().output().matches("cannot be accepted").count();
        // None on a machine so slow that every connection was there for too long before the next came.
        assert!(lines <= 1, "one line in a minute:\n{}", redirector.daemon().output());
        drop(silent);
        redirector.stop();
    }
}

#[test]
fn the_soft_limit_is_raised_and_that_is_logged() {
    for runtime in RUNTIMES {
        let mut redirector = redirector(runtime);
        let mut command = limited(&redirector.daemon_command(), 64, 4096);
        redirector.start_with(&mut command);
        assert!(redirector.daemon().output().contains("raised from 64 to 4096"), "{}", redirector.daemon().output());
        let clients: Vec<_> = (0..300)
            .map(|_| {
                let mut client = Connection::open(redirector.address()).expect("connection");
                client.send(get("/file.iso", &[]).as_bytes()).expect("request");
                client.receive().expect("answer");
                client
            })
            .collect();
        assert!(open_descriptors(&mut redirector) > 300);
        drop(clients);
        redirector.stop();
    }
}

//! Descriptors used up by clients.
//!
//! 1,500 connections under `ulimit -n 1024` once ended the daemon on io_uring: each of its sleeps duplicated a descriptor. On
//! epoll no new client was answered until others had left.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::metrics::total;
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
            let closed = total(&redirector, "mirrorbits_connections_closed_for_room_total");
            if closed >= 500.0 { Ok(()) } else { Err(format!("{closed} on {runtime}")) }
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

/// Without a descriptor for the next connection, accepting fails at once and for as long as the connection waits: at the download
/// address, at RPC and at the metrics.
#[test]
fn connections_that_cannot_be_accepted_cost_no_processor_time() {
    for runtime in RUNTIMES {
        let mut redirector = redirector(runtime);
        redirector.start();
        redirector.scan_repository();
        redirector.wait_until_served("/file.iso");
        let pid = redirector.daemon().pid();
        let open = open_descriptors(&mut redirector) as u64;
        // Those that close by and by leave no room either.
        let none = Rlimit { current: Some(open / 2), maximum: getrlimit(Resource::Nofile).maximum };
        let before = prlimit(Some(pid), Resource::Nofile, none).expect("the limit of a child");
        let waiting: Vec<_> = [redirector.address(), redirector.rpc_address(), redirector.metrics_address()]
            .map(|address| Connection::open(address).expect("a connection is queued"))
            .into();
        for told in ["RPC: a connection cannot be accepted", "metrics: a connection cannot be accepted"] {
            redirector.daemon().wait_for_output(told);
        }
        redirector.daemon().wait_for_output("connections cannot be accepted for a moment");
        let (taken, began) = (redirector.daemon().processor_time(), Instant::now());
        // The time is what is measured.
        std::thread::sleep(Duration::from_secs(3));
        let (taken, time) = (redirector.daemon().processor_time() - taken, began.elapsed());
        assert!(taken * 4 < time, "{runtime}: {taken:?} of {time:?}");
        prlimit(Some(pid), Resource::Nofile, before).expect("the limit of a child");
        drop(waiting);
        redirector.mirrorbits(&["list"]);
        redirector.wait_until_served("/file.iso");
        eventually("the metric", || {
            let errors = total(&redirector, "mirrorbits_accept_errors_total");
            if errors > 0.0 { Ok(()) } else { Err(errors.to_string()) }
        });
        redirector.stop();
    }
}

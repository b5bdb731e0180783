//! Shards that end although they were not told to.
//!
//! One panic outside the handling of a request once ended the whole daemon, with all of its connections.

use std::fs;

use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::metrics::total;
use crate::harness::redirector::{Redirector, get};

const RUNTIMES: [&str; 2] = ["io_uring", "epoll"];

/// A daemon of two shards that panic on request, with a file.
fn start(runtime: &str) -> Redirector {
    let mut redirector = Redirector::new();
    redirector.set("Runtime", runtime).set("Shards", 2).with_metrics();
    redirector.set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    fs::write(redirector.repository().join("file.iso"), "content").expect("file");
    fs::create_dir(redirector.folder().join("faults")).expect("folder");
    let mut command = redirector.daemon_command();
    command.env(mb_core::fault::FOLDER_VARIABLE, redirector.folder().join("faults"));
    redirector.start_with(&mut command);
    redirector.scan_repository();
    redirector.wait_until_served("/file.iso");
    redirector
}

/// Has a shard panic, and waits until it has.
fn break_a_shard(redirector: &Redirector) {
    let fault = redirector.folder().join("faults/shard");
    fs::write(&fault, "").expect("fault");
    eventually("a shard panics", || {
        // An idle shard has to be woken.
        drop(std::net::TcpStream::connect(redirector.address()));
        if fault.exists() { Err("not yet".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_shard_that_panics_is_replaced_while_the_other_serves_on() {
    for runtime in RUNTIMES {
        let mut redirector = start(runtime);
        let mut clients: Vec<Connection> = (0..40)
            .map(|_| {
                let mut client = Connection::open(redirector.address()).expect("connection");
                client.send(get("/file.iso", &[]).as_bytes()).expect("request");
                client.receive().expect("answer");
                client
            })
            .collect();
        break_a_shard(&redirector);
        redirector.daemon().wait_for_output("has taken the place of one that failed");
        let answered = clients.iter_mut().filter_map(|client| {
            client.send(get("/file.iso", &[]).as_bytes()).ok()?;
            client.receive().ok()
        });
        let answered = answered.filter(|answer| answer.status == 302).count();
        assert!((1..40).contains(&answered), "{runtime}: {answered} of 40 connections were the other shard's");
        for _ in 0..40 {
            assert_eq!(redirector.get("/file.iso", &[]).status, 302, "{runtime}: every socket is accepted from");
        }
        eventually("the metric", || {
            let restarts = total(&redirector, "mirrorbits_shard_restarts_total");
            if restarts == 1.0 { Ok(()) } else { Err(restarts.to_string()) }
        });
        // What is ordered of all acceptors is obeyed by those of the new shard, too.
        redirector.mirrorbits(&["reload"]);
        redirector.stop();
    }
}

#[test]
fn a_daemon_whose_shards_keep_failing_ends_for_its_supervisor() {
    for runtime in RUNTIMES {
        let mut redirector = start(runtime);
        for number in 0..3 {
            if number > 0 {
                eventually("both shards", || {
                    let replaced = redirector.daemon().output().matches("has taken the place").count();
                    if replaced == number { Ok(()) } else { Err(replaced.to_string()) }
                });
            }
            break_a_shard(&redirector);
        }
        let daemon = redirector.daemon();
        let status = daemon.wait();
        assert!(!status.success(), "{runtime}: {status}");
        assert!(daemon.output().contains("shards failed 3 times within 60 s"), "{runtime}: {}", daemon.output());
        redirector.forget();
    }
}

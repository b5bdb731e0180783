//! Upgrades that succeed, with every kind of client connected.

use std::fs;

use rustix::process::{Signal, kill_process};

use super::lineage::{Lineage, assert_nothing_failed, is_running, wait_for_answers};
use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::get;
use crate::harness::servers::MirrorSites;
use crate::harness::tree;

/// How many upgrades the long test makes: `MIRRORBITS_TEST_UPGRADES`, or enough to see a leak.
fn upgrades() -> usize {
    std::env::var("MIRRORBITS_TEST_UPGRADES").ok().and_then(|count| count.parse().ok()).unwrap_or(10)
}

#[test]
fn upgrades_in_a_row_lose_nothing_and_leak_nothing() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    lineage.upgrade();
    lineage.settle();
    lineage.redirector.daemon().wait_for_output("everything is this one's");
    lineage.redirector.scan_repository();
    let descriptors = eventually("all descriptors of a process that has everything", || {
        let open = lineage.descriptors();
        if open.keys().any(|kind| kind.ends_with("statistics-spool.lock")) {
            Ok(open)
        } else {
            Err(format!("{open:?}"))
        }
    });
    let loads = lineage.every_load();
    wait_for_answers(&loads, 50);
    for number in 0..upgrades() {
        wait_for_answers(&loads, 20);
        lineage.upgrade();
        // One reload and one new generation of the index for every five upgrades, while the old process drains.
        match number % 5 {
            1 => drop(lineage.redirector.mirrorbits(&["refresh"])),
            2 => {
                fs::write(lineage.redirector.repository().join(format!("{number}.iso")), "new").expect("file");
                lineage.redirector.mirrorbits(&["refresh"]);
            }
            3 => eventually("reload", || {
                // Refused while the next upgrade is not over, which none is here, or the indexer changes hands.
                let output = lineage.redirector.run(&["reload"]);
                // Once a reload waited for an indexer that could only be started after it, and gave up on it.
                let told = format!("{output:?}");
                assert!(!told.contains("goes on with the old configuration"), "{told}");
                if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
            }),
            _ => {}
        }
    }
    wait_for_answers(&loads, 50);
    assert_nothing_failed(loads);
    lineage.settle();
    eventually("no more descriptors than after the first upgrade", || {
        let mut now = lineage.descriptors();
        now.retain(|kind, count| *count > descriptors.get(kind).copied().unwrap_or_default());
        if now.is_empty() { Ok(()) } else { Err(format!("{now:?}, first {descriptors:?}")) }
    });
}

#[test]
fn every_download_is_counted_once_over_upgrades() {
    let mut lineage = Lineage::new(2);
    let folder = lineage.redirector.folder().to_owned();
    fs::write(lineage.redirector.repository().join("counted.iso"), "content").expect("file");
    let mirrors = MirrorSites::start(&folder, &[("only", Place::Paris)]);
    tree::copy(&lineage.redirector.repository(), &mirrors.sites[0].root);
    lineage.start_with_a_file();
    tree::copy(&lineage.redirector.repository(), &mirrors.sites[0].root);
    lineage.redirector.use_mirror(&mirrors.sites[0]);
    eventually("the mirror in the answers", || {
        let location = lineage.redirector.get("/file.iso", &[]).location().to_owned();
        if location.starts_with(&mirrors.sites[0].http_url()) { Ok(()) } else { Err(location) }
    });
    let loads: Vec<_> = [mb_load::Mode::KeepAlive, mb_load::Mode::PerRequest, mb_load::Mode::Pipelined(8)]
        .into_iter()
        .map(|mode| lineage.load_on("/counted.iso", mode, 2))
        .collect();
    for _ in 0..5 {
        wait_for_answers(&loads, 50);
        lineage.upgrade();
    }
    wait_for_answers(&loads, 50);
    let answered = assert_nothing_failed(loads);
    lineage.settle();
    let expected = format!("Total download requests: {answered}");
    eventually("the counts", || {
        let counts = lineage.redirector.mirrorbits(&["stats", "file", "counted"]);
        let words = counts.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.contains(&expected) { Ok(()) } else { Err(format!("{words}, not {expected}")) }
    });
}

#[test]
fn the_number_of_shards_changes_under_load() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let loads = lineage.every_load();
    for shards in [1, 4, 3] {
        wait_for_answers(&loads, 50);
        lineage.redirector.set("Shards", shards).config_file();
        lineage.upgrade();
    }
    wait_for_answers(&loads, 50);
    assert_nothing_failed(loads);
    lineage.settle();
}

#[test]
fn the_runtime_changes_under_load() {
    let mut lineage = Lineage::new(2);
    lineage.redirector.set("Runtime", "epoll");
    lineage.start_with_a_file();
    let loads = lineage.every_load();
    for runtime in ["io_uring", "epoll", "epoll"] {
        wait_for_answers(&loads, 50);
        lineage.redirector.set("Runtime", runtime).config_file();
        lineage.upgrade();
    }
    wait_for_answers(&loads, 50);
    assert_nothing_failed(loads);
    lineage.settle();
}

#[test]
fn an_idle_connection_is_answered_once_more_and_then_ends() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let mut idle = lineage.idle_client();
    let old = lineage.pid();
    lineage.upgrade();
    // Another upgrade need not wait for the rest of the first.
    lineage.upgrade();
    assert!(is_running(old), "it still has a connection");
    idle.send(get("/file.iso", &[]).as_bytes()).expect("request");
    let last = idle.receive().expect("answer");
    assert_eq!((last.status, last.header("Connection")), (302, Some("close")));
    assert!(idle.is_closed());
    drop(idle);
    lineage.settle();
}

#[test]
fn pipelined_requests_are_all_answered_by_the_process_that_received_them() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let mut client = lineage.idle_client();
    lineage.upgrade();
    client.send(get("/file.iso", &[]).repeat(5).as_bytes()).expect("requests");
    for number in 1..=5 {
        let answer = client.receive().expect("answer");
        assert_eq!(answer.header("Connection"), (number == 5).then_some("close"), "answer {number}");
    }
    assert!(client.is_closed());
}

#[test]
fn a_signal_upgrades_too_and_the_indexer_changes_hands() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let old = lineage.pid();
    kill_process(old, Signal::USR2).expect("signal");
    eventually("a new process", || if lineage.pid() == old { Err("the old one".to_owned()) } else { Ok(()) });
    lineage.note_successor(old);
    lineage.settle();
    lineage.redirector.daemon().wait_for_output("everything is this one's");
    fs::write(lineage.redirector.repository().join("later.iso"), "new").expect("file");
    lineage.redirector.scan_repository();
    lineage.redirector.wait_until_served("/later.iso");
}

#[test]
fn a_unix_socket_is_handed_over() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let mut lineage = Lineage::new(2);
    let socket = lineage.redirector.folder().join("downloads.sock");
    lineage.redirector.set("ListenAddress", format!("unix:{}", socket.display()));
    let mut command = lineage.command();
    let first = crate::harness::program::Program::start("first", &mut command, lineage.redirector.folder());
    let request = || -> Result<String, String> {
        let mut stream = UnixStream::connect(&socket).map_err(|error| error.to_string())?;
        let request = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 ") { Ok(answer) } else { Err(format!("{answer:?}")) }
    };
    eventually("the first answer", request);
    eventually("commands", || {
        if lineage.redirector.run(&["list"]).status.success() { Ok(()) } else { Err(first.output()) }
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                request().expect("an answer at any time");
                answers += 1;
            }
            answers
        });
        for _ in 0..3 {
            lineage.upgrade();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(client.join().expect("client") > 0);
    });
    lineage.settle();
}

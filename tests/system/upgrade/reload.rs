//! Reloads: what a configuration changes, changes; what is bad, changes nothing.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use super::lineage::{Lineage, assert_nothing_failed, wait_for_answers};
use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::http::Connection;
use crate::harness::redirector::get;

#[test]
fn settings_change_for_all_shards_without_a_failed_request() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let loads = lineage.every_load();
    for round in 0..5 {
        wait_for_answers(&loads, 20);
        let host = format!("http://fallback-{round}.example/");
        lineage.redirector.set("Fallbacks", format!("[{{URL: '{host}'}}]")).config_file();
        lineage.redirector.mirrorbits(&["reload"]);
        for _ in 0..8 {
            let answer = lineage.redirector.get("/file.iso", &[]);
            assert_eq!(answer.location(), format!("{host}file.iso"), "each connection is of a shard by chance");
        }
    }
    assert_nothing_failed(loads);
}

#[test]
fn keys_of_the_process_are_told_and_the_rest_takes_effect() {
    let mut lineage = Lineage::new(1);
    lineage.start();
    lineage.redirector.set("Shards", 2).set("Fallbacks", "[{URL: 'http://other.example/'}]").config_file();
    let output = lineage.redirector.run(&["reload"]);
    let notices = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && notices.contains("Shards: the new value takes effect with the next"),
        "{notices}"
    );
    assert_eq!(lineage.redirector.get("/a", &[]).location(), "http://other.example/a");
}

#[test]
fn a_bad_file_keeps_what_there_is() {
    let mut lineage = Lineage::new(1);
    lineage.start();
    let config = lineage.redirector.config_file();
    let good = fs::read_to_string(&config).expect("configuration");
    let geo = lineage.redirector.folder().join("geo");
    fs::create_dir(&geo).expect("folder");
    fs::write(geo.join("GeoLite2-City.mmdb"), "damaged").expect("database");
    // Another fallback shows whether any of it took effect.
    let with = |key: &str, value: &str| -> String {
        let changed = |line: &str| match line.split_once(": ") {
            Some((name, _)) if name == key => format!("{key}: {value}\n"),
            _ => format!("{}\n", line.replace("fallback.example", "other.example")),
        };
        good.lines().map(changed).collect()
    };
    let bad = [
        (with("Shards", "none"), "Shards: none"),
        (with("GeoipDatabasePath", &geo.display().to_string()), "Geo"),
        (with("ListenAddress", "192.0.2.1:80"), "192.0.2.1:80"),
        (good.clone() + "\nShards: 2\n", "duplicated key"),
    ];
    for (text, reason) in bad {
        fs::write(&config, text).expect("configuration");
        let output = lineage.redirector.run(&["reload"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(reason), "{message}");
        assert_eq!(lineage.redirector.get("/a", &[]).location(), "http://fallback.example/a");
    }
}

#[test]
fn a_signal_reloads_and_logs_are_opened_again() {
    let mut lineage = Lineage::new(1);
    let [log, moved] = ["daemon.log", "daemon.log.1"].map(|name| lineage.redirector.folder().join(name));
    let mut command = lineage.command();
    command.arg("-log").arg(&log);
    lineage.start_by(&mut command);
    lineage.redirector.set("Fallbacks", "[{URL: 'http://other.example/'}]").config_file();
    lineage.redirector.daemon().signal(Signal::HUP);
    eventually("the new configuration", || {
        let location = lineage.redirector.get("/a", &[]).location().to_owned();
        if location.starts_with("http://other.example/") { Ok(()) } else { Err(location) }
    });
    fs::rename(&log, &moved).expect("rotation");
    lineage.redirector.daemon().signal(Signal::USR1);
    eventually("a new log", || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if text.contains("log files are opened again") { Ok(()) } else { Err(text) }
    });
    assert!(fs::read_to_string(moved).expect("old log").contains("serving on"));
}

#[test]
fn the_address_moves_without_a_gap() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let host = crate::harness::host::Host::claim(Place::Nowhere);
    let (before, after) = (lineage.redirector.address(), host.port(8080));
    let kept = lineage.every_load();
    wait_for_answers(&kept[..1], 20);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A client that knows both addresses always finds one of them, and is answered there.
        let client = scope.spawn(|| {
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                let answer = ask(after).or_else(|| ask(before)).or_else(|| ask(after));
                assert!(answer.expect("an answer from one of both").starts_with("HTTP/1.1 302"));
                answered += 1;
            }
            answered
        });
        // Those that keep their connections keep them.
        let keep_alive = &kept[..1];
        wait_for_answers(keep_alive, 20);
        kept[1].stop();
        eventually(
            "the end of clients that connect anew",
            || if kept[1].is_over() { Ok(()) } else { Err(String::new()) },
        );
        lineage.redirector.set("ListenAddress", after).config_file();
        lineage.redirector.mirrorbits(&["reload"]);
        wait_for_answers(keep_alive, 20);
        assert!(TcpStream::connect(before).is_err(), "the old address is left");
        assert!(ask(after).is_some());
        is_over.store(true, Ordering::Relaxed);
        assert!(client.join().expect("client") > 0);
    });
    assert_nothing_failed(kept);
    // The next upgrade hands over the new address.
    lineage.upgrade();
    assert!(ask(after).is_some());
}

/// Metrics follow their address, and the process that serves.
#[test]
fn metrics_move_and_are_handed_over() {
    let mut lineage = Lineage::new(1);
    lineage.redirector.with_metrics();
    lineage.start_with_a_file();
    let host = crate::harness::host::Host::claim(Place::Nowhere);
    let (before, after) = (lineage.redirector.metrics_address(), host.port(9390));
    let status = |address| {
        let mut connection = Connection::open(address).expect("connection");
        connection.send(get("/metrics", &[]).as_bytes()).expect("request");
        connection.receive().expect("answer").status
    };
    assert_eq!(status(before), 200);
    lineage.redirector.set("MetricsListenAddress", after).config_file();
    lineage.redirector.mirrorbits(&["reload"]);
    assert_eq!(status(after), 200);
    eventually("the old address is left", || match TcpStream::connect(before) {
        Ok(_) => Err("it is listened on".to_owned()),
        Err(_) => Ok(()),
    });
    lineage.upgrade();
    assert_eq!(status(after), 200);
    lineage.settle();
    assert_eq!(status(after), 200);
    lineage.redirector.set("MetricsListenAddress", "''").config_file();
    lineage.redirector.mirrorbits(&["reload"]);
    eventually("metrics are off", || match TcpStream::connect(after) {
        Ok(_) => Err("they are served".to_owned()),
        Err(_) => Ok(()),
    });
}

#[test]
fn an_upgrade_moves_the_address_too() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let host = crate::harness::host::Host::claim(Place::Nowhere);
    let after = host.port(8080);
    let before = lineage.redirector.address();
    lineage.redirector.set("ListenAddress", after).config_file();
    lineage.upgrade();
    assert!(ask(after).is_some());
    lineage.settle();
    assert!(TcpStream::connect(before).is_err(), "the old address is left");
}

/// One request on a connection of its own; `None` when the address refuses connections.
fn ask(address: SocketAddr) -> Option<String> {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(get("/file.iso", &["Connection: close"]).as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    Some(answer)
}

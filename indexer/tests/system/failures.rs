//! What goes wrong is said clearly, ends with the right status, and loses nothing.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use mb_core::store::{LogEvent, Store};

use crate::harness::{Server, Site, texts};

fn fails(site: &Site, arguments: &[&str], status: i32, says: &[&str]) {
    let output = site.run(arguments);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stdout}{stderr}");
    for text in says {
        assert!(stderr.contains(text), "{arguments:?} does not say {text:?}: {stderr}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let site = Site::new();
    for arguments in
        [&["scan"][..], &["scan", "-all", "name"], &["unknown"], &["scan", "-timeout", "0", "-all"], &["verify"]]
    {
        fails(&site, arguments, 2, &[]);
    }
}

#[test]
fn a_mirror_is_not_scanned_before_the_source() {
    let site = Site::new();
    site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
    fails(&site, &["scan", "m"], 1, &["the repository was not scanned yet", "mb-indexer scan -source"]);
    fails(&site, &["scan", "x"], 1, &["no mirror is named x"]);
}

#[test]
fn a_missing_repository_is_named() {
    let site = Site::new();
    fs::remove_dir(site.repository()).unwrap();
    fails(&site, &["scan", "-source"], 1, &["cannot read the repository", "No such file", "`Repository`"]);
}

#[test]
fn a_redis_that_is_away_is_named() {
    let site = Site::new();
    let text = fs::read_to_string(site.configuration()).unwrap();
    let text = text.replace("embedded", "redis") + "\nRedisAddress: 127.0.0.1:1\n";
    fs::write(site.configuration(), text).unwrap();
    fails(&site, &["scan", "-source"], 1, &["127.0.0.1:1", "start Redis"]);
}

#[test]
fn a_bad_configuration_value_stops_the_start() {
    let site = Site::with_configuration("ConcurrentSync: many");
    fails(&site, &["scan", "-source"], 1, &["ConcurrentSync", "many"]);
}

/// An unmounted disk leaves an empty folder behind.
#[test]
fn an_emptied_repository_changes_nothing_without_force() {
    let site = Site::new();
    for n in 0..10 {
        site.write(&format!("dir/f{n}"), "x", 1);
    }
    site.run_ok(&["scan", "-source"]);
    fs::remove_dir_all(site.repository().join("dir")).unwrap();
    fails(&site, &["scan", "-source"], 1, &["10 of its 10", "nothing was changed", "-force"]);
    assert_eq!(site.index().len(), 10);
    site.run_ok(&["scan", "-source", "-force"]);
    assert_eq!(site.index().len(), 0);
}

#[test]
fn a_failed_scan_keeps_the_earlier_result() {
    let site = Site::new();
    site.write("a", "a", 1);
    site.copy_to_mirror("m");
    let (rsync, port) = site.start_rsync();
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    let unknown = site.add_mirror("unknown-module", &format!("rsync://127.0.0.1:{port}/no-such-module/"), "");
    site.run_ok(&["scan", "-source"]);
    site.run_ok(&["scan", "m"]);
    fails(&site, &["scan", "unknown"], 1, &["Unknown module 'no-such-module'"]);
    let log = site.store().mirror_log(unknown, 10).unwrap();
    assert!(matches!(&log.last().unwrap().event, LogEvent::Error(text) if text.contains("Unknown module")), "{log:?}");

    drop(rsync);
    fails(&site, &["scan", "m"], 1, &["rsync of rsync://127.0.0.1", "failed"]);
    site.run_ok(&["build"]);
    let index = site.index();
    assert_eq!(index.set(index.file(0).set()).len(), 1);
    assert!(!site.mirror(id).state.last_successful_sync.is_never());
}

#[test]
fn a_mirror_without_rsync_is_told_that_only_rsync_is_available() {
    let site = Site::new();
    site.write("a", "a", 1);
    site.add_mirror("m", "", "http://127.0.0.1:1/");
    site.run_ok(&["scan", "-source"]);
    fails(&site, &["scan", "m"], 1, &["only rsync is available yet"]);
}

#[test]
fn without_rsync_it_says_what_to_install() {
    let site = Site::new();
    site.write("a", "a", 1);
    site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
    site.run_ok(&["scan", "-source"]);
    let output = site.program(&["scan", "m"]).env("PATH", "").output().unwrap();
    let (_, stderr) = texts(&output);
    assert!(!output.status.success() && stderr.contains("install rsync"), "{stderr}");
}

#[test]
fn a_mirror_that_never_answers_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = Site::new();
    site.write("a", "a", 1);
    site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    site.run_ok(&["scan", "-source"]);
    fails(&site, &["scan", "-timeout", "1", "m"], 1, &["took longer than 1 s"]);
}

#[test]
fn an_interrupted_scan_ends_its_rsync() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = Site::new();
    site.write("a", "a", 1);
    site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    site.run_ok(&["scan", "-source"]);
    let mut scan = Server(site.program(&["scan", "m"]).spawn().unwrap());
    let (mut from_rsync, _) = silent.accept().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&scan.0), rustix::process::Signal::INT).unwrap();
    assert_eq!(scan.0.wait().unwrap().code(), Some(1));
    from_rsync.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    from_rsync.read_to_end(&mut Vec::new()).expect("rsync was not ended");
}

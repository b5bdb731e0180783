//! Two daemons with folders of their own on one Redis: one scans, both serve, and either can do without the other.

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::tree::{self, USUAL_TIME};

/// How many scans of the mirror were started, on whatever node.
fn scans(redirector: &Redirector) -> usize {
    redirector.mirrorbits(&["logs", "only"]).matches("RSYNC scan started").count()
}

#[test]
fn one_node_scans_for_both_and_the_other_takes_over() {
    let [mut first, mut second] = [Redirector::new(), Redirector::new()];
    let redis = Redis::start(first.folder());
    for node in [&mut first, &mut second] {
        node.set("Database", "redis").set("RedisAddress", redis.address());
    }
    let _mirrors = first.start_with_one_mirror();

    tree::write(&second.repository(), "file.iso", b"content", USUAL_TIME);
    second.start();
    second.scan_repository();
    second.wait_until_served("/file.iso");
    assert_eq!(scans(&second), 1, "that of the first node");

    first.daemon().signal(Signal::KILL);
    first.daemon().wait();
    // An interval between two scans goes by, as far as the second node can tell.
    redis.command(&["HSET", "MIRROR_1", "lastSync", "1", "lastSuccessfulSync", "1", "comment", "later"]);
    redis.command(&["PUBLISH", "_mirrorbits_mirror_update", "1"]);
    eventually("a scan by the second node", || match scans(&second) {
        2 => Ok(()),
        other => Err(format!("{other} scans")),
    });
    eventually("its end", || {
        let log = second.mirrorbits(&["logs", "only"]);
        if log.matches("Scan completed").count() == 2 { Ok(()) } else { Err(log) }
    });
    second.wait_until_served("/file.iso");
}

/// What the operator says about where a mirror is scanned used to wait for the next interval.
#[test]
fn a_mirror_whose_rsync_url_is_changed_is_scanned_at_once() {
    let mut redirector = Redirector::new();
    let mirrors = redirector.start_with_mirrors(&[("only", Place::Paris), ("other", Place::Tokyo)]);
    let there = mirrors.site("other").rsync_url();
    redirector.mirrorbits(&["set", "only", &format!("RsyncURL={there}")]);
    eventually("a second scan", || match scans(&redirector) {
        2 => Ok(()),
        other => Err(format!("{other} scans")),
    });
}

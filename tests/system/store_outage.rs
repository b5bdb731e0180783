//! The store is away, frozen or broken: answers stay what they are, commands say what is wrong and where, and everything
//! goes on by itself once the store is back.

use std::fs;
use std::process::Output;

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// A redirector in use, with one mirror.
fn in_use(redirector: &mut Redirector) -> MirrorSites {
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("only", Place::Paris)]);
    tree::copy(&redirector.repository(), &mirrors.sites[0].root);
    redirector.start();
    redirector.scan_repository();
    redirector.use_mirror(&mirrors.sites[0]);
    eventually("the file is served", || if is_served(redirector) { Ok(()) } else { Err("not yet".to_owned()) });
    mirrors
}

fn is_served(redirector: &Redirector) -> bool {
    redirector.get("/file.iso", &[]).status == 302
}

/// A command that needs the store must fail with status 1 and name the store.
fn assert_told(output: &Output, store: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(store), "`{store}` is missing in: {message}");
}

#[test]
fn redis_may_be_killed_frozen_and_away_at_the_start() {
    let mut redirector = Redirector::new();
    let mut redis = Redis::start(redirector.folder());
    let address = redis.address().to_string();
    redirector.set("Database", "redis").set("RedisAddress", &address);
    let _mirrors = in_use(&mut redirector);

    redis.kill();
    assert!(is_served(&redirector), "while Redis is away");
    assert_told(&redirector.run(&["disable", "only"]), &address);
    assert!(is_served(&redirector), "a command that failed changes nothing");

    redirector.stop();
    redirector.start();
    assert!(is_served(&redirector), "started while Redis is away");

    redis.start_again();
    eventually("commands work again", || {
        let output = redirector.run(&["list", "-state=false"]);
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && names.contains("only") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    redirector.mirrorbits(&["disable", "only"]);
    eventually("the mirror is disabled", || if is_served(&redirector) { Err("in use".to_owned()) } else { Ok(()) });
    redirector.mirrorbits(&["enable", "only"]);
    eventually("the mirror is in use", || if is_served(&redirector) { Ok(()) } else { Err("not yet".to_owned()) });

    redis.signal(Signal::STOP);
    assert!(is_served(&redirector), "while Redis is frozen");
    assert_told(&redirector.run(&["disable", "only"]), &address);
    redis.signal(Signal::CONT);
    eventually("commands work again", || {
        let output = redirector.run(&["list"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    });
}

#[test]
fn a_broken_database_file_stops_commands_and_no_downloads() {
    let mut redirector = Redirector::new();
    let _mirrors = in_use(&mut redirector);
    redirector.stop();
    let file = redirector.state_dir().join("mirrorbits.sqlite");
    let sound = fs::read(&file).expect("the database");
    for companion in ["mirrorbits.sqlite-wal", "mirrorbits.sqlite-shm"] {
        assert!(!redirector.state_dir().join(companion).exists(), "an orderly end leaves one file");
    }
    fs::write(&file, b"no database any more, but still a file of some length".repeat(200)).expect("damage");

    redirector.start();
    assert!(is_served(&redirector));
    redirector.daemon().wait_for_output("mirrorbits.sqlite");
    assert_told(&redirector.run(&["list"]), "mirrorbits.sqlite");

    fs::write(&file, sound).expect("repair");
    eventually("commands work again", || {
        let output = redirector.run(&["list"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    });
    assert!(is_served(&redirector));
}

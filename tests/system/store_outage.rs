//! The store is away, frozen or broken: answers stay what they are, commands say what is wrong and where, and everything
//! goes on by itself once the store is back.

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::redirector::Redirector;
use crate::harness::redis::{Redis, Sentinel};

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
    let _mirrors = redirector.start_with_one_mirror();

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
    eventually("commands work again", || works(&redirector));
}

#[test]
fn a_broken_database_file_stops_commands_and_no_downloads() {
    let mut redirector = Redirector::new();
    let _mirrors = redirector.start_with_one_mirror();
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
    eventually("commands work again", || works(&redirector));
    assert!(is_served(&redirector));
}

/// Redis is there, and refuses: for want of memory, as a replica, for want of a password, or in another version's format.
#[test]
fn what_redis_refuses_is_told_and_downloads_go_on() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    let address = redis.address().to_string();
    redirector.set("Database", "redis").set("RedisAddress", &address);
    let _mirrors = redirector.start_with_one_mirror();

    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let output = redirector.run(&["disable", "only"]);
    assert_told(&output, &address);
    assert_told(&output, "maxmemory");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);

    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let output = redirector.run(&["disable", "only"]);
    assert_told(&output, &address);
    assert_told(&output, "replica");
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    assert!(is_served(&redirector), "commands that failed change nothing");
    redirector.mirrorbits(&["set", "only", "Score=3"]);

    redirector.stop();
    redis.command(&["CONFIG", "SET", "requirepass", "secret"]);
    redirector.start();
    assert!(is_served(&redirector), "without the password");
    assert_told(&redirector.run(&["list"]), "assword");
    redis.command(&["-a", "secret", "CONFIG", "SET", "requirepass", ""]);
    eventually("commands work again", || works(&redirector));

    redirector.stop();
    redis.command(&["SET", "MIRRORBITS_DB_VERSION", "1"]);
    redirector.start();
    assert!(is_served(&redirector), "with a database of another version");
    assert_told(&redirector.run(&["list"]), "version");
    redis.command(&["SET", "MIRRORBITS_DB_VERSION", "2"]);
    eventually("commands work again", || works(&redirector));
    assert!(redirector.mirrorbits(&["show", "only"]).contains("\nScore: 3\n"));
}

fn works(redirector: &Redirector) -> Result<(), String> {
    let output = redirector.run(&["list"]);
    if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
}

/// Ends the traffic when dropped, also by a panic, since the scope waits for it.
struct EndOfTraffic<'a>(&'a AtomicBool);

impl Drop for EndOfTraffic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The master dies under traffic: no request notices, and commands work on with the new one.
#[test]
fn a_failover_is_seen_by_no_client() {
    let mut redirector = Redirector::new();
    let folders = ["master", "replica"].map(|name| {
        let folder = redirector.folder().join(name);
        fs::create_dir(&folder).expect("folder");
        folder
    });
    let (mut master, replica) = (Redis::start(&folders[0]), Redis::start(&folders[1]));
    replica.command(&["REPLICAOF", &master.address().ip().to_string(), &master.address().port().to_string()]);
    eventually("the replica follows", || {
        let state = replica.command(&["INFO", "replication"]);
        if state.contains("master_link_status:up") { Ok(()) } else { Err(state) }
    });
    let sentinel = Sentinel::start(&folders[0], &master);
    redirector
        .set("Database", "redis")
        .set("RedisSentinelMasterName", "mirrors")
        .set("RedisSentinels", format!("[{{Host: '{}'}}]", sentinel.address()));
    let _mirrors = redirector.start_with_one_mirror();
    assert_eq!(master.command(&["WAIT", "1", "5000"]), "1", "the replica has everything");

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut requests = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(is_served(&redirector), "request {requests}");
                requests += 1;
            }
            requests
        });
        master.kill();
        let end = EndOfTraffic(&over);
        eventually("commands work with the new master", || {
            let output = redirector.run(&["set", "only", "Score=7"]);
            if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
        });
        drop(end);
        assert!(traffic.join().expect("traffic") > 0);
    });
    assert_eq!(replica.command(&["HGET", "MIRROR_1", "score"]), "7");
}

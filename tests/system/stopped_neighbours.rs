//! Processes beside the daemon that are there and do not answer: the daemon serves, obeys and ends.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::indexer_killed::supervised_indexer;

/// Five seconds for requests under way, and as much again for a busy machine.
const END_TIME: Duration = Duration::from_secs(10);

/// A reload waited for the indexer within the control loop, for ever: SIGTERM was not seen after 25 s, and systemd was told
/// nothing meanwhile.
#[test]
fn with_a_stopped_indexer_signals_and_the_watchdog_go_on() {
    let mut redirector = Redirector::new();
    let path = redirector.folder().join("notify.sock");
    let told = UnixDatagram::bind(&path).expect("notification socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
    let mut command = redirector.daemon_command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    redirector.start_with(&mut command);
    let indexer = supervised_indexer(&mut redirector);
    redirector.daemon().wait_for_output("the indexer runs as process");
    kill_process(indexer, Signal::STOP).expect("the indexer runs");

    redirector.daemon().signal(Signal::HUP);
    let mut message = [0; 4096];
    let mut next = || {
        let length = told.recv(&mut message).expect("a message for systemd");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    while !next().contains("RELOADING=1") {}
    let mut pings = 0;
    while pings < 4 {
        let message = next();
        assert!(!message.contains("READY=1"), "the reload waits for the indexer");
        pings += u32::from(message.contains("WATCHDOG=1"));
    }

    let begun = Instant::now();
    redirector.stop();
    assert!(begun.elapsed() < END_TIME, "{:?}", begun.elapsed());
    rustix::process::test_kill_process(indexer).expect_err("the indexer is gone, too");
}

/// `mirrorbits refresh` and `mirrorbits reload` waited for ever.
#[test]
fn commands_that_need_a_stopped_indexer_say_so() {
    let mut redirector = Redirector::new();
    redirector.start();
    let indexer = supervised_indexer(&mut redirector);
    redirector.daemon().wait_for_output("the indexer runs as process");
    kill_process(indexer, Signal::STOP).expect("the indexer runs");
    let output = redirector.run(&["refresh"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("the indexer (pid {}) does not answer", indexer.as_raw_pid());
    assert!(!output.status.success() && text.contains(&expected), "{text}");
    kill_process(indexer, Signal::CONT).expect("the indexer runs");
    redirector.scan_repository();
    redirector.stop();
}

/// The same with the store: requests, signals and the end do not depend on it.
#[test]
fn with_a_stopped_redis_requests_and_signals_go_on() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    let _mirrors = redirector.start_with_one_mirror();
    redis.signal(Signal::STOP);
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    assert!(!redirector.run(&["list"]).status.success());
    redirector.daemon().signal(Signal::HUP);
    redirector.daemon().wait_for_output("reload: done");
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    let begun = Instant::now();
    redirector.stop();
    assert!(begun.elapsed() < END_TIME, "{:?}", begun.elapsed());
    redis.signal(Signal::CONT);
}

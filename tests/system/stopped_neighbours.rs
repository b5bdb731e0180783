//! Processes beside the daemon that are there and do not answer: the daemon serves, obeys and ends.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::harness::eventually;
use crate::harness::metrics::{scrape, wait_for};
use crate::harness::program::make_fifo;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::indexer_killed::{supervised_indexer, wait_for_another_indexer};

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

/// The control loop waited for a service manager that took no message, for ever.
#[test]
fn a_service_manager_that_does_not_read_holds_nothing_up() {
    let mut redirector = Redirector::new();
    let path = redirector.folder().join("notify.sock");
    let told = UnixDatagram::bind(&path).expect("notification socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
    let mut command = redirector.daemon_command();
    // A sign of life every 5 ms fills the queue of the socket at once.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "10000");
    redirector.start_with(&mut command);
    redirector.scan_repository();
    redirector.mirrorbits(&["reload"]);
    // What matters is told when it reads again.
    let mut message = [0; 4096];
    let mut all = String::new();
    while !(all.contains("RELOADING=1") && all.ends_with("READY=1\nSTATUS=serving\n")) {
        let length = told.recv(&mut message).expect("a message for systemd");
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        if !message.starts_with("WATCHDOG") {
            all.push_str(&message);
        }
    }
    let begun = Instant::now();
    redirector.stop();
    assert!(begun.elapsed() < END_TIME, "{:?}", begun.elapsed());
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

/// An indexer that does not answer is killed, which a stopped process cannot prevent, and another one works.
#[test]
fn an_indexer_that_stays_silent_is_killed_and_started_again() {
    let mut redirector = Redirector::new();
    redirector.with_metrics();
    let faults = redirector.folder().join("faults");
    fs::create_dir(&faults).expect("folder");
    // Milliseconds instead of a minute.
    fs::write(faults.join("indexer-silence"), "1000").expect("limit");
    let mut command = redirector.daemon_command();
    command.env(mb_core::fault::FOLDER_VARIABLE, &faults);
    redirector.start_with(&mut command);
    let indexer = supervised_indexer(&mut redirector);
    redirector.daemon().wait_for_output("the indexer runs as process");
    kill_process(indexer, Signal::STOP).expect("the indexer runs");
    redirector.daemon().wait_for_output("s and is killed; it is started again");
    wait_for(&redirector, "mirrorbits_indexer_restarts_total{reason=\"silent\"}", 1.0);
    rustix::process::test_kill_process(indexer).expect_err("the silent one is gone");
    wait_for_another_indexer(&mut redirector);
    redirector.scan_repository();
    assert_ne!(supervised_indexer(&mut redirector), indexer);
    wait_for(&redirector, "mirrorbits_indexer_restarts_total{reason=\"ended\"}", 0.0);
    redirector.stop();
}

/// Puts a FIFO in place of a file: whoever opens it waits.
fn block(path: &Path) {
    // It may not be there yet.
    let _ = fs::remove_file(path);
    make_fifo(path);
}

/// Each file that a running daemon reads or writes, as a disk that hangs has it.
#[test]
fn files_that_block_hold_up_neither_requests_nor_signals() {
    let mut redirector = Redirector::new();
    let folder = redirector.folder().to_owned();
    let geo = folder.join("geo");
    fs::create_dir(&geo).expect("folder");
    for name in [mb_core::geo::CITY_FILE, mb_core::geo::ASN_FILE] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/geo").join(name), geo.join(name))
            .expect("copy");
    }
    let [log, pid_file, downloads] = ["daemon.log", "mirrorbits.pid", "logs"].map(|name| folder.join(name));
    redirector.with_metrics().set("GeoipDatabasePath", geo.display()).set("LogDir", downloads.display());
    redirector.set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    fs::write(redirector.repository().join("file.iso"), "content").expect("file");
    // The flusher waits for its spool from the start on.
    fs::create_dir(redirector.state_dir()).expect("folder");
    block(&redirector.state_dir().join("statistics-spool.lock"));

    let path = folder.join("notify.sock");
    let told = UnixDatagram::bind(&path).expect("notification socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
    let mut command = redirector.daemon_command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    command.arg("-log").arg(&log).arg("-p").arg(&pid_file);
    redirector.start_with(&mut command);
    redirector.scan_repository();
    redirector.wait_until_served("/file.iso");
    redirector.mirrorbits(&["add", "-http", "http://127.0.0.1:9/", "-rsync", "rsync://127.0.0.1:9/m/", "m"]);

    block(&redirector.state_dir().join("index/CURRENT"));
    block(&geo.join(mb_core::geo::CITY_FILE));
    block(&log);
    block(&pid_file);
    block(&downloads.join("downloads.log"));
    redirector.daemon().signal(Signal::USR1);
    redirector.daemon().signal(Signal::HUP);
    for part in ["index", "download-log"] {
        eventually(&format!("{part} is seen to hang"), || {
            assert_eq!(redirector.get("/file.iso", &[]).status, 302);
            let busy = scrape(&redirector).value(&format!("mirrorbits_part_busy_seconds{{part=\"{part}\"}}"));
            if busy > Some(2.0) { Ok(()) } else { Err(format!("{busy:?}")) }
        });
    }
    let mut message = [0; 4096];
    let mut pings = 0;
    while pings < 4 {
        let length = told.recv(&mut message).expect("a message for systemd");
        pings += u32::from(String::from_utf8_lossy(&message[..length]).contains("WATCHDOG=1"));
    }
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    // Nobody listens there; whether the repository was scanned was looked up on disk, by the control loop.
    assert!(!redirector.run(&["scan", "-timeout", "5", "m"]).status.success());
    redirector.mirrorbits(&["list"]);
    let begun = Instant::now();
    redirector.stop();
    assert!(begun.elapsed() < END_TIME, "{:?}", begun.elapsed());
}

//! A daemon that is told to end while its start waits for a disk or a database: it ends, as at any other time.
//!
//! The control loop once began when the start was over, and no signal was looked at before.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::program::{Program, make_fifo};
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;

/// Nothing is under way yet that would be waited for.
const END_TIME: Duration = Duration::from_secs(5);

/// What blocks, and what makes it block.
type Case = (&'static str, fn(&mut Redirector));

/// Waits until the program catches the signals that end it.
fn wait_until_it_catches_signals(program: &mut Program) {
    let path = format!("/proc/{}/status", program.pid().as_raw_nonzero());
    eventually("signals are caught", || {
        program.assert_running();
        let status = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap_or_default();
        // Signal N is bit N - 1: SIGUSR2 is the last that the daemon asks for, SIGTERM is 15.
        if caught & (1 << 11) != 0 && caught & (1 << 14) != 0 { Ok(()) } else { Err(status) }
    });
}

/// Starts the daemon, whose start does not come to its end, and ends it.
fn assert_ends(what: &str, redirector: &Redirector, config: &Path, signal: Signal) {
    let mut command = redirector.daemon_command_with(config);
    let mut daemon = Program::start("mirrorbits", &mut command, redirector.folder());
    wait_until_it_catches_signals(&mut daemon);
    let begun = Instant::now();
    daemon.signal(signal);
    let status = daemon.wait();
    assert!(begun.elapsed() < END_TIME, "{what}: {:?}", begun.elapsed());
    assert!(status.success(), "{what}: {status}\n{}", daemon.output());
}

#[test]
fn files_that_block_do_not_hold_up_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let redirector = Redirector::new();
        let fifo = redirector.folder().join("fifo.conf");
        make_fifo(&fifo);
        assert_ends("configuration", &redirector, &fifo, signal);
    }
    let at_start: [Case; 3] = [
        ("geo database", |redirector| {
            let geo = redirector.folder().join("geo");
            fs::create_dir(&geo).expect("folder");
            make_fifo(&geo.join("GeoLite2-City.mmdb"));
            redirector.set("GeoipDatabasePath", geo.display());
        }),
        ("templates", |redirector| {
            let templates = redirector.folder().join("templates");
            fs::create_dir(&templates).expect("folder");
            for name in ["base.html", "mirrorlist.html", "mirrorstats.html"] {
                make_fifo(&templates.join(name));
            }
            redirector.set("Templates", templates.display());
        }),
        ("index", |redirector| {
            let index = redirector.state_dir().join("index");
            fs::create_dir_all(&index).expect("folder");
            make_fifo(&index.join("CURRENT"));
        }),
    ];
    for (what, block) in at_start {
        let mut redirector = Redirector::new();
        block(&mut redirector);
        let config = redirector.config_file();
        assert_ends(what, &redirector, &config, Signal::TERM);
    }
}

#[test]
fn a_stopped_redis_does_not_hold_up_the_end_of_a_start() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    redis.signal(Signal::STOP);
    let config = redirector.config_file();
    assert_ends("Redis", &redirector, &config, Signal::TERM);
    redis.signal(Signal::CONT);
}

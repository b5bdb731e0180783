//! A machine that makes no more threads and processes for the daemon: it serves on with those it has, and recovers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, geteuid, getrlimit, kill_process};

use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::metrics::total;
use crate::harness::redirector::{Redirector, get, indexer_program};
use crate::indexer_killed::{supervised_indexer, wait_for_another_indexer};

/// Gives a folder and all in it to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("owner");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("folder").flatten() {
            give(&entry.path(), user);
        }
    }
}

/// A command that runs `command` as a user.
fn as_user(command: &Command, user: u32) -> Command {
    let mut changed = Command::new("setpriv");
    changed.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    changed.arg(command.get_program()).args(command.get_args());
    changed
}

/// Changes the soft limit of a process. That of another user's is not changed even by root without a capability.
fn limit_threads(process: Pid, user: u32, limit: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.as_raw_nonzero().to_string(), &format!("--nproc={limit}:")]);
    assert!(as_user(&command, user).status().expect("prlimit").success());
}

/// The limit of threads does not hold for root, and counts all of a user: the daemon gets a user of its own, which takes root.
#[test]
fn threads_that_cannot_be_made_are_made_later() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can run the daemon as a user of its own");
        return;
    }
    let mut redirector = Redirector::new();
    redirector.set("Shards", 2).with_metrics().set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    fs::write(redirector.repository().join("file.iso"), "content").expect("file");
    let faults = redirector.folder().join("faults");
    fs::create_dir(&faults).expect("folder");
    // The programs may be where other users cannot go.
    let programs = redirector.folder().join("bin");
    fs::create_dir(&programs).expect("folder");
    for program in [Path::new(env!("CARGO_BIN_EXE_mirrorbits")), &indexer_program()] {
        fs::copy(program, programs.join(program.file_name().expect("name"))).expect("copy");
    }
    let usual = redirector.daemon_command();
    let mut command = Command::new(programs.join("mirrorbits"));
    command.args(usual.get_args());
    // No other user has such a number, and no test at the same time the same one.
    let user = 2_000_000_000 + std::process::id() % 100_000_000;
    let mut command = as_user(&command, user);
    command.env(mb_core::fault::FOLDER_VARIABLE, &faults);
    give(redirector.folder(), user);
    fs::set_permissions(redirector.folder(), fs::Permissions::from_mode(0o755)).expect("mode");
    redirector.start_with(&mut command);
    redirector.scan_repository();
    redirector.wait_until_served("/file.iso");

    let daemon = redirector.daemon().pid();
    limit_threads(daemon, user, "1");
    let indexer = supervised_indexer(&mut redirector);
    kill_process(indexer, Signal::KILL).expect("the indexer runs");
    let fault = faults.join("shard");
    fs::write(&fault, "").expect("fault");
    eventually("a shard panics", || {
        drop(std::net::TcpStream::connect(redirector.address()));
        if fault.exists() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    redirector.daemon().wait_for_output("no other shard can take the place");
    redirector.daemon().wait_for_output("the indexer cannot be started");
    // Connections to the shard that is gone wait for the next one.
    eventually("the other shard answers", || {
        let mut client = Connection::open(redirector.address()).map_err(|error| error.to_string())?;
        client.give_up_after(Duration::from_millis(500));
        client.send(get("/file.iso", &[]).as_bytes()).map_err(|error| error.to_string())?;
        client.receive().map(drop).map_err(|error| error.to_string())
    });
    redirector.mirrorbits(&["list"]);

    let before = getrlimit(Resource::Nproc).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    limit_threads(daemon, user, &before);
    redirector.daemon().wait_for_output("has taken the place of one that failed");
    wait_for_another_indexer(&mut redirector);
    redirector.scan_repository();
    for _ in 0..20 {
        assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    }
    assert_eq!(total(&redirector, "mirrorbits_shard_restarts_total"), 1.0);
    redirector.stop();
}

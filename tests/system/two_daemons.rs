//! Two daemons that want the same: one of them serves, the other one says who does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::redirector::Redirector;

/// How often two are started at once: the race that both win was lost by one in a few.
const ROUNDS: usize = 8;

/// Whether a daemon answers at a unix socket.
fn is_served(socket: &Path) -> Result<(), String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    if answer.starts_with("HTTP/1.1 503") { Ok(()) } else { Err(answer) }
}

fn start(number: usize, command: &mut Command, folder: &Path) -> Program {
    command.arg("-monitor=false");
    Program::start(&format!("daemon-{number}"), command, folder)
}

/// Waits until one of two has ended; returns the other one and what the ended one wrote.
fn the_one_that_stays(mut daemons: [Program; 2]) -> (Program, String) {
    let ended = eventually("one gives up", || {
        daemons.iter_mut().position(|daemon| !daemon.is_running()).ok_or_else(|| "both run".to_owned())
    });
    let [first, second] = daemons;
    let (mut ended, other) = if ended == 0 { (first, second) } else { (second, first) };
    assert!(!ended.wait().success(), "{}", ended.output());
    (other, ended.output())
}

#[test]
fn one_of_two_that_start_at_once_has_the_unix_socket() {
    let mut both = [Redirector::new(), Redirector::new()];
    let folder = both[0].folder().to_owned();
    let socket = folder.join("http.sock");
    for redirector in &mut both {
        redirector.set("ListenAddress", format!("unix:{}", socket.display()));
    }
    for round in 0..ROUNDS {
        let mut commands = both.each_ref().map(Redirector::daemon_command);
        let mut number = 2 * round;
        let daemons = commands.each_mut().map(|command| {
            number += 1;
            start(number, command, &folder)
        });
        let (mut winner, said) = the_one_that_stays(daemons);
        assert!(said.contains("already in use"), "{said}");
        eventually("the other one serves", || {
            winner.assert_running();
            is_served(&socket)
        });
        // The socket of a killed daemon stays, and is taken over in the next round.
        winner.signal(Signal::KILL);
        winner.wait();
        assert!(socket.exists());
    }
}

#[test]
fn one_of_two_that_start_at_once_has_the_pid_file() {
    let both = [Redirector::new(), Redirector::new()];
    let folder = both[0].folder().to_owned();
    let pid_file = folder.join("mirrorbits.pid");
    for round in 0..ROUNDS {
        let mut commands = both.each_ref().map(Redirector::daemon_command);
        let mut number = 2 * round;
        let daemons = commands.each_mut().map(|command| {
            number += 1;
            start(number, command.arg("-p").arg(&pid_file), &folder)
        });
        let (mut winner, said) = the_one_that_stays(daemons);
        let pid = winner.pid().as_raw_nonzero().to_string();
        assert!(said.contains(&format!("process {pid} runs with it")), "{said}");
        assert_eq!(fs::read_to_string(&pid_file).expect("PID file").trim(), pid);
        // The file of a killed daemon stays, and is taken over in the next round.
        winner.signal(Signal::KILL);
        winner.wait();
        assert!(pid_file.exists());
    }
}

/// Any program that can open the folder can hold its lock; the daemon waited for that for as long as for
/// a disk that hangs, and did not start.
#[test]
fn a_folder_that_another_program_locks_holds_nothing_up() {
    let redirector = Redirector::new();
    let folder = redirector.folder().to_owned();
    let (pid_file, lock) = (folder.join("mirrorbits.pid"), fs::File::open(&folder).expect("folder"));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    let mut daemon = start(0, redirector.daemon_command().arg("-p").arg(&pid_file), &folder);
    eventually("the PID file is written", || {
        daemon.assert_running();
        let pid = daemon.pid().as_raw_nonzero().to_string();
        let text = fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
        if text.trim() == pid { Ok(()) } else { Err(text) }
    });
    daemon.wait_for_output("serving on");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success(), "{}", daemon.output());
}

//! What systemd is told, and sockets that it listens on.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use super::lineage::{Lineage, assert_nothing_failed, wait_for_answers};
use crate::harness::PATIENCE;

/// systemd's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    heard: VecDeque<String>,
}

impl Manager {
    fn listen(lineage: &Lineage, command: &mut Command) -> Manager {
        let path = lineage.redirector.folder().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        command.env("NOTIFY_SOCKET", &path);
        Manager { socket, heard: VecDeque::new() }
    }

    /// Waits for a line that starts with `wanted`; what comes before it is dropped. Returns the rest of the line.
    fn wait_for(&mut self, wanted: &str) -> String {
        loop {
            while let Some(line) = self.heard.pop_front() {
                if let Some(rest) = line.strip_prefix(wanted) {
                    return rest.to_owned();
                }
            }
            let mut packet = [0; 4096];
            let length = self.socket.recv(&mut packet).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            self.heard.extend(String::from_utf8_lossy(&packet[..length]).lines().map(str::to_owned));
        }
    }
}

#[test]
fn systemd_hears_of_every_change() {
    let mut lineage = Lineage::new(1);
    let mut command = lineage.command();
    let mut manager = Manager::listen(&lineage, &mut command);
    lineage.start_by(&mut command);
    manager.wait_for("READY=1");
    lineage.redirector.mirrorbits(&["reload"]);
    manager.wait_for("RELOADING=1");
    manager.wait_for("MONOTONIC_USEC=");
    manager.wait_for("READY=1");
    let new = lineage.upgrade();
    assert_eq!(manager.wait_for("MAINPID="), new.as_raw_nonzero().to_string());
    lineage.settle();
    rustix::process::kill_process(new, rustix::process::Signal::TERM).expect("signal");
    manager.wait_for("STOPPING=1");
    lineage.wait_for_the_end();
}

#[test]
fn the_watchdog_is_fed_also_after_an_upgrade() {
    let mut lineage = Lineage::new(1);
    let mut command = lineage.command();
    let mut manager = Manager::listen(&lineage, &mut command);
    command.env("WATCHDOG_USEC", "200000");
    lineage.start_by(&mut command);
    manager.wait_for("WATCHDOG=1");
    lineage.upgrade();
    lineage.settle();
    manager.heard.clear();
    // Those of the process before are over when it is gone.
    manager.socket.set_nonblocking(true).expect("mode");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("mode");
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn a_socket_of_systemd_is_shared_by_the_shards_and_handed_over() {
    let mut lineage = Lineage::new(2);
    let daemon = lineage.command();
    // The address of systemd counts, not that of the configuration.
    let address = lineage.redirector.address();
    lineage.redirector.set("ListenAddress", "127.0.0.1:9").config_file();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--fdname=downloads", "-l", &address.to_string()]).arg(daemon.get_program()).args(daemon.get_args());
    lineage.start_by(&mut command);
    lineage.redirector.daemon().wait_for_output("systemd listens on");
    let modes = [mb_load::Mode::PerRequest, mb_load::Mode::KeepAlive];
    let loads: Vec<_> = modes.into_iter().map(|mode| lineage.load_on("/a", mode, 4)).collect();
    for _ in 0..3 {
        wait_for_answers(&loads, 50);
        lineage.upgrade();
    }
    wait_for_answers(&loads, 50);
    assert_nothing_failed(loads);
    lineage.settle();
}

//! A Redis server, used as outside tools use it: by `redis-cli`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::eventually;
use super::host::{Host, Place};
use super::program::Program;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A `redis-server` that writes every command to its append-only file before it answers.
#[derive(Debug)]
pub(crate) struct Redis {
    host: Host,
    folder: PathBuf,
    server: Option<Program>,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Redis {
        let mut redis = Redis { host: Host::claim(Place::Nowhere), folder: folder.to_owned(), server: None };
        redis.start_again();
        redis
    }

    /// Starts the server where it was, with what it kept.
    pub(crate) fn start_again(&mut self) {
        let address = self.address();
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]).arg("--dir").arg(&self.folder);
        // A replica would otherwise be known by the address that its connection to the master has.
        command.args(["--replica-announce-ip", &address.ip().to_string()]);
        let server = self.server.insert(Program::start("redis-server", &mut command, &self.folder));
        eventually("an answer of redis-server", || {
            server.assert_running();
            let output = redis_cli(address, &["PING"]);
            if output == "PONG" { Ok(()) } else { Err(output) }
        });
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().expect("a running server");
        server.signal(Signal::KILL);
        server.wait();
    }

    /// Stops or continues the server's process.
    pub(crate) fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("a running server").signal(signal);
    }

    /// `RedisAddress`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.host.port(REDIS_PORT)
    }

    /// Sends a command and returns the answer, a line per element.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        redis_cli(self.address(), words)
    }
}

/// A running `redis-sentinel` that watches over one master under the name `mirrors` and needs nobody's consent.
#[derive(Debug)]
pub(crate) struct Sentinel {
    host: Host,
    _sentinel: Program,
}

impl Sentinel {
    /// Starts a sentinel and waits until it knows a replica of `master`.
    pub(crate) fn start(folder: &Path, master: &Redis) -> Sentinel {
        let host = Host::claim(Place::Nowhere);
        let (own, watched) = (host.port(SENTINEL_PORT), master.address());
        let file = folder.join("sentinel.conf");
        let lines = [
            format!("bind {}", own.ip()),
            format!("port {}", own.port()),
            format!("dir {}", folder.display()),
            format!("sentinel monitor mirrors {} {} 1", watched.ip(), watched.port()),
            "sentinel down-after-milliseconds mirrors 500".to_owned(),
            "sentinel failover-timeout mirrors 3000".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n") + "\n").expect("configuration of the sentinel");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let mut sentinel = Program::start("redis-sentinel", &mut command, folder);
        eventually("the sentinel knows a replica", || {
            sentinel.assert_running();
            let replicas = redis_cli(own, &["SENTINEL", "replicas", "mirrors"]);
            if replicas.contains("slave") { Ok(()) } else { Err(replicas) }
        });
        Sentinel { host, _sentinel: sentinel }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.host.port(SENTINEL_PORT)
    }
}

fn redis_cli(address: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(words);
    let output = command.output().expect("redis-cli, which `make test` installs");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

//! A Redis server, used as outside tools use it: by `redis-cli`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::eventually;
use super::host::{Host, Place};
use super::program::Program;

const REDIS_PORT: u16 = 6379;

/// A running `redis-server` that keeps nothing on disk.
#[derive(Debug)]
pub(crate) struct Redis {
    host: Host,
    _server: Program,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Redis {
        let host = Host::claim(Place::Nowhere);
        let address = host.port(REDIS_PORT);
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""]);
        command.arg("--dir").arg(folder);
        let mut server = Program::start("redis-server", &mut command, folder);
        eventually("an answer of redis-server", || {
            server.assert_running();
            let output = redis_cli(address, &["PING"]);
            if output == "PONG" { Ok(()) } else { Err(output) }
        });
        Redis { host, _server: server }
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

fn redis_cli(address: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(words);
    let output = command.output().expect("redis-cli, which `make test` installs");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

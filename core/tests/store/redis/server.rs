//! Real servers on free ports of the loopback interface, each ended with its test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mb_core::config::RedisSettings;
use mb_core::store::RedisStore;
use redis::FromRedisValue;
use tempfile::TempDir;

/// Names the server to test against; without it `redis-server` is. Valkey and older versions of Redis pass as well.
const PROGRAM_VARIABLE: &str = "MIRRORBITS_TEST_REDIS";

/// How long any condition is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running `redis-server`.
pub(crate) struct Server {
    child: Child,
    options: Vec<String>,
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    password: String,
}

impl Server {
    /// Starts a server that keeps nothing on disk; `options` are lines of its configuration.
    pub(crate) fn start(options: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a folder");
        let options: Vec<String> = options.iter().map(|line| (*line).to_owned()).collect();
        let password = options.iter().find_map(|line| line.strip_prefix("requirepass ")).unwrap_or("").to_owned();
        // Another program may take the port between our look and the start of the server.
        for _ in 0..10 {
            let port = free_port();
            if let Some(child) = launch(directory.path(), port, &options) {
                return Server { child, options, port, directory, password };
            }
        }
        panic!("redis-server does not start: is it installed? `make test` installs it");
    }

    /// What the configuration of a program says about this server.
    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings {
            address: format!("127.0.0.1:{}", self.port).into(),
            password: self.password.clone().into(),
            database: 0,
            sentinel_master_name: String::new(),
            sentinels: Vec::new(),
        }
    }

    /// A store in this server.
    pub(crate) fn store(&self) -> RedisStore {
        RedisStore::open(&self.settings()).expect("opened")
    }

    /// A plain connection, as outside tools have one.
    pub(crate) fn connection(&self) -> redis::Connection {
        let password = if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        let url = format!("redis://{password}127.0.0.1:{}", self.port);
        let connection = redis::Client::open(url).expect("an address").get_connection_with_timeout(PATIENCE);
        let connection = connection.expect("connected");
        connection.set_read_timeout(Some(PATIENCE)).expect("set");
        connection
    }

    /// Sends the words of `line` as a command.
    pub(crate) fn command<T: FromRedisValue>(&self, line: &str) -> T {
        self.send(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends a command.
    pub(crate) fn send<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Whether the server has this role now. A Sentinel that changes it cuts all connections, which may be ours.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        let state: redis::RedisResult<String> = redis::cmd("INFO").arg("replication").query(&mut self.connection());
        state.is_ok_and(|state| state.contains(&format!("role:{role}")))
    }

    /// Ends the server; what it held in memory is gone unless it was told to save.
    pub(crate) fn stop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Starts the server again after [`Server::stop`], on the same port.
    pub(crate) fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.child = loop {
            if let Some(child) = launch(self.directory.path(), self.port, &self.options) {
                break child;
            }
            assert!(Instant::now() < deadline, "redis-server does not start again");
        };
    }

    /// Stops the process from running without ending it, or lets it run again.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server, as a Sentinel if `options` hold `sentinel` lines, and waits until it serves; `None` when it does not.
fn launch(directory: &Path, port: u16, options: &[String]) -> Option<Child> {
    let is_sentinel = options.iter().any(|line| line.starts_with("sentinel "));
    let own = if is_sentinel { "" } else { "save \"\"\nappendonly no\n" };
    let file = directory.join("redis.conf");
    if !file.exists() || !is_sentinel {
        let lines = format!("port {port}\nbind 127.0.0.1\ndir {}\n{own}{}\n", directory.display(), options.join("\n"));
        fs::write(&file, lines).expect("written");
    }
    let program = std::env::var(PROGRAM_VARIABLE).unwrap_or_else(|_| "redis-server".to_owned());
    let mut command = Command::new(&program);
    command.arg(&file).args(is_sentinel.then_some("--sentinel")).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs it"));
    let ready = if is_sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line.contains(ready) {
            // The server must never wait for somebody to read its log.
            thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            return Some(child);
        }
        line.clear();
    }
    child.wait().expect("reaped");
    None
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

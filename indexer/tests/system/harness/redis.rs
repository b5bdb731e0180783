//! A real Redis on loopback, which keeps nothing.

use std::process::{Command, Stdio};

use mb_core::config::RedisSettings;
use mb_core::secret::Secret;
use mb_core::store::RedisStore;
use redis::{Client, Connection, FromRedisValue};

use super::{Server, Site, free_port, wait_for_port};

/// A running `redis-server`, which ends with the value.
pub struct Redis {
    _server: Server,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Redis {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string(), "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need redis-server");
        let server = Server(child);
        wait_for_port(port);
        Redis { _server: server, port, _folder: folder }
    }

    /// A node of this database, with more lines in its configuration.
    pub fn site(&self, extra: &str) -> Site {
        Site::with_configuration(&format!("RedisAddress: 127.0.0.1:{}\n{extra}", self.port))
    }

    pub fn store(&self) -> RedisStore {
        let settings = RedisSettings {
            address: format!("127.0.0.1:{}", self.port).into(),
            password: Secret::default(),
            database: 0,
            sentinel_master_name: String::new(),
            sentinels: Vec::new(),
        };
        RedisStore::open(&settings).unwrap()
    }

    pub fn connection(&self) -> Connection {
        Client::open(("127.0.0.1", self.port)).unwrap().get_connection().unwrap()
    }

    /// Sends the words of `line` as a command.
    pub fn command<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap()
    }
}

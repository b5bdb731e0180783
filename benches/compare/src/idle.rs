//! Connections that made one request and then keep quiet.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::BenchError;

const REQUEST: &[u8] = b"GET /only-on-the-first-mirror.iso HTTP/1.1\r\nHost: download.example.org\r\n\r\n";

/// Descriptors besides those of the idle connections.
const OTHER_DESCRIPTORS: u64 = 1024;

/// How long one of them may wait for its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections, closed when dropped.
#[derive(Debug)]
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens `count` connections, each with one answered request.
    pub(crate) fn gather(address: SocketAddr, count: usize) -> Result<Crowd, BenchError> {
        let mut crowd = Crowd(Vec::with_capacity(count));
        for _ in 0..count {
            crowd.0.push(open(address).map_err(BenchError::Idle)?);
        }
        Ok(crowd)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // Closed by a reset, so that thousands of ports are not kept waiting for the next round.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(REQUEST)?;
    if stream.read(&mut [0; 16 * 1024])? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(stream)
}

/// Lets this process, and the servers that it starts, have descriptors for `connections` and what else they need.
pub(crate) fn raise_descriptor_limit(connections: usize) -> Result<(), BenchError> {
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(BenchError::Descriptors { needed, maximum: maximum.unwrap_or_default() });
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}

//! `mb-floor`: the least that a redirect costs on this machine. One thread, one epoll instance, a constant answer: what is
//! left is the kernel's part. It looks at requests only as far as it must to count them: heads may come in pieces, and many
//! at a time.
//!
//! `mb-floor ADDRESS CLOSING-ADDRESS`; connections to the second address are closed after their first answer.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::ExitCode;

use memchr::memmem::Finder;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\nServer: floor\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\
    Location: http://mirror.example.org/pub/file.iso\r\n\r\n";

const LAST_ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\nServer: floor\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\nConnection: close\r\n\
    Location: http://mirror.example.org/pub/file.iso\r\n\r\n";

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// What of a head end may be at the end of one read.
const CARRY: usize = HEAD_END.len() - 1;

struct Connection {
    stream: TcpStream,
    /// Ends with its first answer.
    closing: bool,
    /// The last bytes received, as far as they may be the start of a head end.
    carry: Vec<u8>,
    /// Answers that the client was too slow to take.
    owed: Vec<u8>,
}

fn main() -> ExitCode {
    let addresses: Option<Vec<SocketAddr>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    let Some([open, closing]) = addresses.as_deref() else {
        eprintln!("usage: mb-floor ADDRESS CLOSING-ADDRESS");
        return ExitCode::from(2);
    };
    match serve(*open, *closing) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mb-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn serve(open: SocketAddr, closing: SocketAddr) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listeners = [listen(open)?, listen(closing)?];
    for listener in &listeners {
        epoll::add(&epoll, listener, EventData::new_u64(listener.as_raw_fd() as u64), EventFlags::IN)?;
    }
    let head_end = Finder::new(HEAD_END);
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = [const { MaybeUninit::uninit() }; 256];
    let (mut input, mut output) = (vec![0; CARRY + READ_SIZE], Vec::new());
    loop {
        let (ready, _) = match epoll::wait(&epoll, &mut events, None) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready?,
        };
        for event in ready {
            let key = event.data.u64();
            if let Some(position) = listeners.iter().position(|listener| listener.as_raw_fd() as u64 == key) {
                accept(&epoll, &listeners[position], position == 1, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(&key) {
                // An error means that the client is gone.
                if !connection.advance(&epoll, &head_end, &mut input, &mut output).unwrap_or(false) {
                    connections.remove(&key);
                }
            }
        }
    }
}

fn accept(
    epoll: &OwnedFd,
    listener: &TcpListener,
    closing: bool,
    connections: &mut HashMap<u64, Connection>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = stream.as_raw_fd() as u64;
        epoll::add(epoll, &stream, EventData::new_u64(key), EventFlags::IN)?;
        connections.insert(key, Connection { stream, closing, carry: Vec::new(), owed: Vec::new() });
    }
}

impl Connection {
    /// Does what can be done now; `false` when the connection is over.
    fn advance(
        &mut self,
        epoll: &OwnedFd,
        head_end: &Finder,
        input: &mut [u8],
        output: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            let written = self.write_some(&owed)?;
            if written && !self.closing {
                self.watch(epoll, EventFlags::IN)?;
            }
            return Ok(!(written && self.closing));
        }
        let carried = self.carry.len();
        input[..carried].copy_from_slice(&self.carry);
        let count = match self.stream.read(&mut input[carried..]) {
            Ok(0) => return Ok(false),
            Ok(count) => carried + count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(true),
            Err(error) => return Err(error),
        };
        let received = &input[..count];
        let (mut heads, mut rest) = (0, 0);
        for at in head_end.find_iter(received) {
            heads += 1;
            rest = at + HEAD_END.len();
        }
        self.carry.clear();
        self.carry.extend_from_slice(&received[rest.max(count.saturating_sub(CARRY))..]);
        output.clear();
        match (self.closing, heads) {
            (_, 0) => return Ok(true),
            (true, _) => output.extend_from_slice(LAST_ANSWER),
            (false, _) => (0..heads).for_each(|_| output.extend_from_slice(ANSWER)),
        }
        if !self.write_some(output)? {
            self.watch(epoll, EventFlags::OUT)?;
            return Ok(true);
        }
        if self.closing {
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(!self.closing)
    }

    /// Writes what can be written now and keeps the rest; whether that was all.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.owed.extend_from_slice(&bytes[written..]);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn watch(&self, epoll: &OwnedFd, flags: EventFlags) -> io::Result<()> {
        epoll::modify(epoll, &self.stream, EventData::new_u64(self.stream.as_raw_fd() as u64), flags)?;
        Ok(())
    }
}

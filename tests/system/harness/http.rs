//! A client that sends exact bytes over a plain TCP connection and reads one answer after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status line without its line end.
    pub(crate) status_line: String,
    /// Status code.
    pub(crate) status: u16,
    /// Header fields in their order, names as sent.
    pub(crate) headers: Vec<(String, String)>,
    /// As many bytes as Content-Length said.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The only field with this name; panics when there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "several {name}: {self:?}");
        values.first().copied()
    }

    /// All fields with this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The target of a redirect.
    pub(crate) fn location(&self) -> &str {
        self.header("Location").unwrap_or_else(|| panic!("no Location in {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Connection> {
        Connection::of(TcpStream::connect(address)?)
    }

    /// Connects with a receive buffer of a few kilobytes, so that the server has to wait for the client soon.
    pub(crate) fn open_with_small_buffer(address: SocketAddr) -> std::io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&address.into())?;
        Connection::of(socket.into())
    }

    fn of(stream: TcpStream) -> std::io::Result<Connection> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Waits for answers no longer than this.
    pub(crate) fn give_up_after(&self, time: std::time::Duration) {
        self.stream.get_ref().set_read_timeout(Some(time)).expect("limit");
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads an answer that may have a body.
    pub(crate) fn receive(&mut self) -> std::io::Result<Response> {
        self.receive_answer(true)
    }

    /// Reads an answer to HEAD, whose Content-Length announces a body that does not come.
    pub(crate) fn receive_head(&mut self) -> std::io::Result<Response> {
        self.receive_answer(false)
    }

    /// Whether the server closed the connection and sent nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether nothing has come that was not read yet.
    pub(crate) fn is_silent(&mut self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("mode");
        let peeked = stream.peek(&mut [0; 1]);
        stream.set_nonblocking(false).expect("mode");
        self.stream.buffer().is_empty() && peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn receive_answer(&mut self, with_body: bool) -> std::io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not a status line: {status_line:?}"))
        })?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header field: {line:?}"));
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status_line, status, headers, body: Vec::new() };
        if with_body && status != 304 && status != 204 {
            let length = response.header("Content-Length").and_then(|v| v.parse().ok());
            response.body = vec![0; length.unwrap_or_else(|| panic!("no Content-Length in {response:?}"))];
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// A line of a head; its end must be CR LF.
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => Err(std::io::ErrorKind::UnexpectedEof.into()),
            None => panic!("a line of the head does not end with CR LF: {:?}", String::from_utf8_lossy(&line)),
        }
    }
}

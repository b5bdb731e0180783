//! Responses, appended to a connection's output buffer.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::date::HTTP_DATE_LENGTH;
use super::request::{Persistence, Rejection};

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 9110")]
pub enum Status {
    Ok,
    NoContent,
    MovedPermanently,
    Found,
    NotModified,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    RequestHeaderFieldsTooLarge,
    InternalServerError,
    ServiceUnavailable,
    HttpVersionNotSupported,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Status; 16] = [
        Status::Ok,
        Status::NoContent,
        Status::MovedPermanently,
        Status::Found,
        Status::NotModified,
        Status::BadRequest,
        Status::Forbidden,
        Status::NotFound,
        Status::MethodNotAllowed,
        Status::RequestTimeout,
        Status::ContentTooLarge,
        Status::UriTooLong,
        Status::RequestHeaderFieldsTooLarge,
        Status::InternalServerError,
        Status::ServiceUnavailable,
        Status::HttpVersionNotSupported,
    ];

    /// Code and reason phrase.
    pub fn text(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::NoContent => "204 No Content",
            Status::MovedPermanently => "301 Moved Permanently",
            Status::Found => "302 Found",
            Status::NotModified => "304 Not Modified",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::UriTooLong => "414 URI Too Long",
            Status::RequestHeaderFieldsTooLarge => "431 Request Header Fields Too Large",
            Status::InternalServerError => "500 Internal Server Error",
            Status::ServiceUnavailable => "503 Service Unavailable",
            Status::HttpVersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The code.
    pub fn code(self) -> u16 {
        self.text().split_once(' ').and_then(|(code, _)| code.parse().ok()).unwrap_or_default()
    }

    fn phrase(self) -> &'static str {
        self.text().split_once(' ').map_or("", |(_, phrase)| phrase)
    }
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Status {
        match rejection {
            Rejection::Malformed => Status::BadRequest,
            Rejection::BodyTooLarge => Status::ContentTooLarge,
            Rejection::RequestLineTooLong => Status::UriTooLong,
            Rejection::HeadersTooLarge => Status::RequestHeaderFieldsTooLarge,
            Rejection::Version => Status::HttpVersionNotSupported,
        }
    }
}

/// What a response needs to know of its request and of the time.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The current time as an HTTP date.
    pub date: &'a [u8; HTTP_DATE_LENGTH],
    /// What happens to the connection afterwards.
    pub persistence: Persistence,
    /// The request was `HEAD`: the same head, without the body.
    pub head_only: bool,
}

/// `Server` header field, with its name and line end.
const SERVER: &str = concat!("Server: Mirrorbits/", env!("CARGO_PKG_VERSION"), "\r\n");

/// What a client waits for that sends `Expect: 100-continue`; the answer to its request follows.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response whose head is being written. Ended by [`Response::body`] or [`Response::no_body`].
#[must_use = "a response must be ended"]
pub struct Response<'o, 'a> {
    out: &'o mut Vec<u8>,
    envelope: Envelope<'a>,
}

impl<'o, 'a> Response<'o, 'a> {
    /// Starts a response: status line and the header fields that every response has.
    pub fn new(out: &'o mut Vec<u8>, status: Status, envelope: Envelope<'a>) -> Response<'o, 'a> {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.text().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(SERVER.as_bytes());
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(envelope.date);
        out.extend_from_slice(match envelope.persistence {
            Persistence::Implied => b"\r\n".as_slice(),
            Persistence::KeepAlive => b"\r\nConnection: keep-alive\r\n",
            Persistence::Close => b"\r\nConnection: close\r\n",
        });
        Response { out, envelope }
    }

    /// Adds header fields that are complete with their line ends.
    pub fn lines(self, lines: &str) -> Self {
        debug_assert!(lines.ends_with("\r\n"));
        self.out.extend_from_slice(lines.as_bytes());
        self
    }

    /// Adds a header field.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.header_by(name, |out| out.extend_from_slice(value.as_ref()))
    }

    /// Adds a header field whose value `append` writes.
    pub fn header_by(self, name: &str, append: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        append(self.out);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Ends the response with `content`, which a response to `HEAD` only tells the length of.
    pub fn body(self, content: &[u8]) {
        self.body_of([content]);
    }

    /// The same with `parts`, one after the other, as content.
    pub fn body_of<const N: usize>(self, parts: [&[u8]; N]) {
        let head_only = self.envelope.head_only;
        let out = self.head_of(parts.iter().map(|part| part.len()).sum());
        if !head_only {
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
    }

    /// Ends the head of a response with a body of `length`, and returns where that goes.
    fn head_of(self, length: usize) -> &'o mut Vec<u8> {
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "Content-Length: {length}\r\n\r\n");
        self.out
    }

    /// Ends a response whose status forbids a body (204, 304).
    pub fn no_body(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Room behind a body for the head of its response: status line, dates and the like take some 300 bytes.
const HEAD_ROOM: usize = 512;

/// The content of an answer that is made beside its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Header fields that are its own, complete with their line ends.
    pub lines: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Content {
    /// Content whose body has just the memory that it needs to become a response in place.
    pub fn with_room(lines: String, mut body: Vec<u8>) -> Content {
        body.reserve(HEAD_ROOM);
        body.shrink_to(body.len().saturating_add(HEAD_ROOM));
        Content { lines, body }
    }

    /// Appends the response that carries it. One that comes first uses the memory of the body: a shard that copied half a
    /// megabyte into memory of its own would do nothing else for a tenth of a millisecond.
    pub fn respond(self, envelope: Envelope<'_>, out: &mut Vec<u8>) {
        let Content { lines, mut body } = self;
        if !out.is_empty() || envelope.head_only {
            return Response::new(out, Status::Ok, envelope).lines(&lines).body(&body);
        }
        let mut head = std::mem::take(out);
        Response::new(&mut head, Status::Ok, envelope).lines(&lines).head_of(body.len());
        let length = body.len();
        body.resize(length.saturating_add(head.len()), 0);
        body.copy_within(..length, head.len());
        if let Some(start) = body.get_mut(..head.len()) {
            start.copy_from_slice(&head);
        }
        *out = body;
    }
}

/// `content` as `Content-Encoding: gzip` has it.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 4), Compression::fast());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// Appends a whole response that says no more than its status, in plain text.
pub fn plain(out: &mut Vec<u8>, status: Status, envelope: Envelope<'_>) {
    text(Response::new(out, status, envelope), status.phrase());
}

/// Ends `response` with a line of plain text.
pub fn text(response: Response<'_, '_>, line: &str) {
    response.lines("Content-Type: text/plain; charset=utf-8\r\n").body_of([line.as_bytes(), b"\n"]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn content_becomes_the_same_response_in_place(body: Vec<u8>, with_room: bool, head_only: bool) {
            let envelope = Envelope { date: b"Sun, 22 Nov 2026 12:00:00 GMT", persistence: Persistence::Close, head_only };
            let content = |lines: &str| match with_room {
                true => Content::with_room(lines.to_owned(), body.clone()),
                false => Content { lines: lines.to_owned(), body: body.clone() },
            };
            let (mut first, mut second, mut expected) = (Vec::new(), b"before".to_vec(), b"before".to_vec());
            content("X: y\r\n").respond(envelope, &mut first);
            content("X: y\r\n").respond(envelope, &mut second);
            Response::new(&mut expected, Status::Ok, envelope).lines("X: y\r\n").body(&body);
            prop_assert_eq!(&second, &expected);
            prop_assert_eq!(&first, &expected[b"before".len()..]);
            if with_room && !head_only {
                prop_assert!(first.capacity() <= body.len() + HEAD_ROOM);
            }
        }
    }
}

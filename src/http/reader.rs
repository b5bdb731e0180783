//! Requests out of what a connection receives, in pieces of any size: a head is kept until it and the body behind it are
//! complete, a body is dropped as it arrives.
//!
//! The work is linear in the bytes received, however they are cut: a long head that is not complete is parsed again only when it
//! may be complete, has doubled, or has reached a limit.

use super::body::Body;
use super::request::{Parsed, Rejection, Request, limit, parse};

/// A shorter head is parsed with each piece, so that a malformed one is refused at once. This costs less than receiving the
/// piece does.
const SHORT_HEAD: usize = 1024;

/// The place of a connection in what it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestReader {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between two requests, or in a short head.
    #[default]
    Head,
    /// In a long head: its end is not in the first `searched` bytes, and it is to be parsed when there are `parse_at`.
    LongHead { searched: usize, parse_at: usize },
    /// In the body behind a head of so many bytes.
    Body { head: usize, body: Body },
}

/// What the bytes received so far are.
#[derive(Debug)]
pub enum Received<'b> {
    /// No complete request.
    Incomplete(Wanted),
    /// A request, with its body.
    Complete {
        /// The request.
        request: Request<'b>,
        /// Bytes of its head and its body, as far as they are among those that were given.
        length: usize,
    },
    /// No valid request. Nothing can be read behind it.
    Rejected(Rejection),
}

/// What the next call of [`RequestReader::read`] is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many of the first of these bytes, followed by what is received next; the others are done with. At most
    /// [`MAX_HEAD`](super::request::MAX_HEAD).
    pub kept: usize,
    /// The client waits for `100 Continue` (RFC 9110, section 10.1.1) before it sends its request's body.
    pub sends_continue: bool,
}

impl RequestReader {
    /// A reader at the start of a connection.
    pub fn new() -> RequestReader {
        RequestReader::default()
    }

    /// Looks for a request at the start of `bytes`. After [`Received::Incomplete`] they must begin with what that says.
    pub fn read<'b>(&mut self, bytes: &'b [u8]) -> Received<'b> {
        match self.state {
            State::Head => self.read_head(bytes),
            State::LongHead { searched, parse_at } => {
                // The empty line that ends a head may have begun before.
                let unseen = bytes.get(searched.saturating_sub(3)..).unwrap_or_default();
                if bytes.len() < parse_at && !has_empty_line(unseen) {
                    self.state = State::LongHead { searched: bytes.len(), parse_at };
                    return incomplete(bytes.len());
                }
                self.state = State::Head;
                self.read_head(bytes)
            }
            State::Body { head, body } => self.read_body(bytes, head, body),
        }
    }

    fn read_head<'b>(&mut self, bytes: &'b [u8]) -> Received<'b> {
        match parse(bytes) {
            Parsed::Complete { request, length, body: Body::None } => Received::Complete { request, length },
            Parsed::Complete { request, length, body } => {
                let answered = self.read_body(bytes, length, body);
                match answered {
                    Received::Incomplete(wanted) => Received::Incomplete(Wanted {
                        sends_continue: request.expects_continue && bytes.len() == length,
                        ..wanted
                    }),
                    other => other,
                }
            }
            Parsed::Incomplete => {
                if bytes.len() > SHORT_HEAD {
                    // A limit is noticed by parsing, at the first byte that is too many.
                    let parse_at = bytes.len().saturating_mul(2).min(limit(bytes));
                    self.state = State::LongHead { searched: bytes.len(), parse_at };
                }
                incomplete(bytes.len())
            }
            Parsed::Rejected(rejection) => Received::Rejected(rejection),
        }
    }

    fn read_body<'b>(&mut self, bytes: &'b [u8], head: usize, mut body: Body) -> Received<'b> {
        let skipped = match body.skip(bytes.get(head..).unwrap_or_default()) {
            Ok(skipped) => skipped,
            Err(rejection) => return Received::Rejected(rejection),
        };
        if body != Body::None {
            self.state = State::Body { head, body };
            return incomplete(head);
        }
        self.state = State::Head;
        // It was complete before, and is again.
        match parse(bytes.get(..head).unwrap_or_default()) {
            Parsed::Complete { request, length, .. } => {
                Received::Complete { request, length: length.saturating_add(skipped) }
            }
            Parsed::Incomplete => incomplete(bytes.len()),
            Parsed::Rejected(rejection) => Received::Rejected(rejection),
        }
    }
}

fn incomplete<'b>(kept: usize) -> Received<'b> {
    Received::Incomplete(Wanted { kept, sends_continue: false })
}

/// Whether a line without content ends in `bytes`.
fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|end| {
        let behind = bytes.get(end.saturating_add(1)..).unwrap_or_default();
        matches!(behind, [b'\n', ..] | [b'\r', b'\n', ..])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::MAX_HEAD;
    use super::*;

    /// What a reader came to.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        /// Targets of the requests, each with the place where it ended.
        requests: Vec<(Vec<u8>, usize)>,
        rejected: Option<Rejection>,
    }

    /// Reads `stream` as a connection does that receives it in pieces of these sizes, over and over.
    fn read(stream: &[u8], sizes: &[usize]) -> Seen {
        let (mut reader, mut seen, mut held) = (RequestReader::new(), Seen::default(), Vec::new());
        let (mut received, mut sizes) = (0, sizes.iter().cycle());
        while received < stream.len() {
            let end = stream.len().min(received + sizes.next().unwrap());
            held.extend_from_slice(&stream[received..end]);
            received = end;
            while !held.is_empty() {
                match reader.read(&held) {
                    Received::Incomplete(wanted) => {
                        held.truncate(wanted.kept);
                        assert!(held.len() <= MAX_HEAD);
                        break;
                    }
                    Received::Complete { request, length } => {
                        seen.requests.push((request.target.to_owned(), received - (held.len() - length)));
                        held.drain(..length);
                    }
                    Received::Rejected(rejection) => {
                        seen.rejected = Some(rejection);
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn request() -> impl Strategy<Value = String> {
        let body = prop_oneof![
            6 => Just("\r\n".to_owned()),
            1 => "[a-z]{0,20}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
            1 => "[a-z]{1,20}".prop_map(|body| {
                format!("Transfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{body}\r\n0\r\nA: b\r\n\r\n", body.len())
            }),
            1 => Just("Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX".to_owned()),
        ];
        let length = prop_oneof![6 => 1usize..20, 1 => 900usize..1200, 1 => 8100usize..8300];
        let fields = prop_oneof![6 => 0usize..3, 1 => 90usize..110, 1 => 300usize..500];
        let version = prop_oneof![9 => "1.1", 1 => "[0-9].[0-9]{1,2}"];
        (length, fields, version, body).prop_map(|(length, fields, version, body)| {
            let target = "t".repeat(length);
            let value = if fields > 200 { "v".repeat(fields) } else { "v".to_owned() };
            let fields = format!("A: {value}\r\n").repeat(fields.min(98));
            format!("GET /{target} HTTP/{version}\r\nHost: x\r\n{fields}{body}")
        })
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop_oneof![5 => "", 1 => "(\r?\n){0,18}"], request());
        let change = prop::option::weighted(0.5, (any::<prop::sample::Index>(), any::<u8>()));
        (prop::collection::vec(part, 1..5), change).prop_map(|(parts, change)| {
            let mut stream: Vec<u8> =
                parts.into_iter().flat_map(|(empty, request)| (empty + &request).into_bytes()).collect();
            if let Some((place, byte)) = change {
                let place = place.index(stream.len());
                stream[place] = byte;
            }
            stream
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_pieces_come_to_the_same(
            stream in stream(),
            sizes in prop::collection::vec(prop_oneof![1usize..4, 1usize..100, 1usize..9000], 1..20),
        ) {
            let whole = read(&stream, &[stream.len()]);
            prop_assert_eq!(read(&stream, &sizes), whole);
        }
    }

    /// A head in pieces of one byte was parsed from its start with each: as much work as its length squared.
    #[test]
    fn a_long_head_is_parsed_a_few_times_only() {
        let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(8000), "b".repeat(32_000));
        let (mut reader, mut parsed) = (RequestReader::new(), 0);
        for end in 1..head.len() {
            let before = reader;
            assert!(matches!(reader.read(&head.as_bytes()[..end]), Received::Incomplete(_)));
            let is_parsed = |reader: RequestReader| match reader.state {
                State::LongHead { parse_at, .. } => parse_at,
                _ => 0,
            };
            if end > SHORT_HEAD && is_parsed(before) != is_parsed(reader) {
                parsed += 1;
            }
        }
        assert!(matches!(reader.read(head.as_bytes()), Received::Complete { .. }));
        assert!(parsed <= 8, "{parsed} times");
    }

    #[test]
    fn a_limit_is_noticed_at_the_byte_that_is_too_many() {
        for (stream, at) in [
            (format!("GET /{}", "a".repeat(9000)), 8193),
            (format!("\r\n\r\nGET /{}", "a".repeat(9000)), 8197),
            (format!("GET /{} HTTP/1.1\r\r", "a".repeat(8178)), 8194),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(40_000)), 16 + 32_768),
        ] {
            let mut reader = RequestReader::new();
            let refused = (1..).find(|&end| matches!(reader.read(&stream.as_bytes()[..end]), Received::Rejected(_)));
            assert_eq!(refused, Some(at));
        }
    }

    #[test]
    fn a_client_that_waits_is_told_to_continue_once() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
        let mut reader = RequestReader::new();
        let wanted = |kept, sends_continue| Wanted { kept, sends_continue };
        let told = |received: Received<'_>| match received {
            Received::Incomplete(wanted) => wanted,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(reader.read(&head[..20])), wanted(20, false));
        assert_eq!(told(reader.read(head)), wanted(head.len(), true));
        assert_eq!(told(reader.read(&[head, b"abc".as_slice()].concat())), wanted(head.len(), false));
        let rest = [head, b"deNEXT".as_slice()].concat();
        let Received::Complete { request, length } = reader.read(&rest) else { panic!("it is complete") };
        assert_eq!((request.target, length), (b"/".as_slice(), head.len() + 2));
        assert_eq!(told(RequestReader::new().read(&[head, b"abc".as_slice()].concat())), wanted(head.len(), false));
    }
}

//! A request head, parsed in place: everything borrows the receive buffer.

use std::mem::MaybeUninit;

use super::body::{self, Body};

/// Longest request line without its line end; a longer one is answered with 414.
pub const MAX_REQUEST_LINE: usize = 8 * 1024;
/// Most bytes of header fields with their line ends and the empty line behind them; more are answered with 431.
pub const MAX_HEADERS: usize = 32 * 1024;
/// Most header fields; more are answered with 431.
pub const MAX_HEADER_FIELDS: usize = 100;
/// Most bytes of empty lines before a request line, which RFC 9112, section 2.2, wants ignored; more are answered with 400. A
/// guess: the clients it has in mind send one.
pub const MAX_EMPTY_LINES: usize = 16;
/// Longest head, with the empty lines before it.
pub const MAX_HEAD: usize = MAX_EMPTY_LINES + MAX_REQUEST_LINE + 2 + MAX_HEADERS;

/// Request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// Anything else.
    Other,
}

/// Why a request is refused before anybody looks at what it asks for. The connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// 400: malformed.
    Malformed,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 414: the request line is too long.
    RequestLineTooLong,
    /// 431: the header fields are too many or too long.
    HeadersTooLarge,
    /// 505: not HTTP/1.x.
    Version,
}

/// What the connection is to do after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Stay open, which is what HTTP/1.1 does unless told otherwise.
    Implied,
    /// Stay open, which a client of HTTP/1.0 asked for and must be told.
    KeepAlive,
    /// Close.
    Close,
}

/// A request head, as far as the redirector needs it.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// Method.
    pub method: Method,
    /// Target as received: origin form, absolute form, or `*`.
    pub target: &'b [u8],
    /// What happens to the connection.
    pub persistence: Persistence,
    /// `X-Forwarded-For`, each field as received.
    pub forwarded_for: ForwardedFor<'b>,
    /// `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'b [u8]>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'b [u8]>,
    /// `User-Agent`; empty when there is none.
    pub user_agent: &'b [u8],
    /// Whether there is a `Range`.
    pub has_range: bool,
    /// Whether `Accept` names `application/json`.
    pub accepts_json: bool,
    /// Whether `Accept-Encoding` allows gzip.
    pub accepts_gzip: bool,
    /// Whether `Expect` has the client wait for `100 Continue` before it sends a body.
    pub expects_continue: bool,
}

/// The `X-Forwarded-For` fields of a request, which together are one list: all of them, however many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor<'b> {
    /// The lines of the head from the first such field to the last; others may stand between them.
    lines: &'b [u8],
}

/// Name of the header field that [`ForwardedFor`] is made of.
const FORWARDED_FOR: &str = "X-Forwarded-For";

impl<'b> ForwardedFor<'b> {
    /// The `X-Forwarded-For` fields among these lines of a head, each `name: value`.
    pub fn among(lines: &'b [u8]) -> ForwardedFor<'b> {
        ForwardedFor { lines }
    }

    /// Adds a field of `head`, behind those that were added before.
    fn add(&mut self, head: &'b [u8], field: &httparse::Header<'b>) {
        if field.value.is_empty() {
            return;
        }
        let place = |part: &[u8]| part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        let start = if self.lines.is_empty() { place(field.name.as_bytes()) } else { place(self.lines) };
        let end = place(field.value).saturating_add(field.value.len());
        self.lines = head.get(start..end).unwrap_or_default();
    }

    /// The members of the list from the last, which the nearest proxy added, to the first.
    pub fn from_the_right(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        self.lines
            .rsplit(|&byte| byte == b'\n')
            .filter_map(|line| {
                let (name, value) = line.split_at_checked(FORWARDED_FOR.len())?;
                let value = value.strip_prefix(b":")?;
                name.eq_ignore_ascii_case(FORWARDED_FOR.as_bytes()).then_some(value)
            })
            .flat_map(|field| field.rsplit(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }
}

/// Result of looking at the bytes received so far.
#[derive(Debug)]
pub enum Parsed<'b> {
    /// The head is not complete, and may still become a valid one.
    Incomplete,
    /// A head of `length` bytes, with the body that follows it.
    Complete {
        /// The request.
        request: Request<'b>,
        /// Bytes of the head.
        length: usize,
        /// What follows.
        body: Body,
    },
    /// No valid request.
    Rejected(Rejection),
}

impl Parsed<'_> {
    /// Whether there is a whole request.
    pub fn is_complete(&self) -> bool {
        matches!(self, Parsed::Complete { .. })
    }
}

/// Parses the request head at the start of `bytes`. What it comes to does not depend on what follows the head, nor, as more
/// bytes arrive, on the pieces in which they do: a limit and a malformed byte are told by whichever comes first.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let empty = empty_lines(bytes);
    if empty > MAX_EMPTY_LINES {
        return Parsed::Rejected(Rejection::Malformed);
    }
    let head = bytes.get(empty..).unwrap_or_default();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADER_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            let limit = Limit::of(head);
            return if head.len() < limit.at { Parsed::Incomplete } else { Parsed::Rejected(limit.rejection) };
        }
        Err(error) => return failure(error, head),
    };
    // Only a long head needs the exact look.
    if length > MAX_REQUEST_LINE {
        let limit = Limit::of(head);
        if length > limit.at {
            return Parsed::Rejected(limit.rejection);
        }
    }
    match interpret(&parsed, head) {
        Ok((request, body)) => Parsed::Complete { request, length: empty.saturating_add(length), body },
        Err(rejection) => Parsed::Rejected(rejection),
    }
}

/// Bytes of the empty lines at the start of `bytes`; of more than [`MAX_EMPTY_LINES`], only that there are more.
fn empty_lines(bytes: &[u8]) -> usize {
    let mut length = 0_usize;
    while length <= MAX_EMPTY_LINES {
        match bytes.get(length..) {
            Some([b'\r', b'\n', ..]) => length = length.saturating_add(2),
            Some([b'\n', ..]) => length = length.saturating_add(1),
            _ => break,
        }
    }
    length
}

/// The number of bytes at which the head at the start of `bytes` exceeds a limit if it is not complete before.
pub(super) fn limit(bytes: &[u8]) -> usize {
    let empty = empty_lines(bytes);
    Limit::of(bytes.get(empty..).unwrap_or_default()).at.saturating_add(empty)
}

/// Where a head that is not complete by then exceeds a limit.
struct Limit {
    /// The number of bytes that are too many for a head which needs more of them.
    at: usize,
    rejection: Rejection,
}

impl Limit {
    /// That of the head at the start of `head`, which may go on behind it.
    fn of(head: &[u8]) -> Limit {
        // The line may have this length and end by CR LF, of which the second is the byte behind.
        let line = match (
            memchr::memchr(b'\n', head.get(..=MAX_REQUEST_LINE).unwrap_or(head)),
            head.get(MAX_REQUEST_LINE..),
        ) {
            (Some(end), _) => Ok(end),
            (None, Some([b'\r', b'\n', ..])) => Ok(MAX_REQUEST_LINE + 1),
            (None, Some([b'\r'])) => Err(MAX_REQUEST_LINE + 2),
            (None, _) => Err(MAX_REQUEST_LINE + 1),
        };
        match line {
            Ok(end) => Limit { at: end.saturating_add(1 + MAX_HEADERS), rejection: Rejection::HeadersTooLarge },
            Err(at) => Limit { at, rejection: Rejection::RequestLineTooLong },
        }
    }
}

/// What becomes of a head with an error somewhere in it.
#[cold]
fn failure(error: httparse::Error, head: &[u8]) -> Parsed<'static> {
    let limit = Limit::of(head);
    let Some(allowed) = head.get(..limit.at) else { return rejection(error, head) };
    // Had it come byte by byte, the limit would have been noticed first unless the error stands before it.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADER_FIELDS];
    match httparse::Request::new(&mut []).parse_with_uninit_headers(allowed, &mut fields) {
        Ok(_) => Parsed::Rejected(limit.rejection),
        Err(error) => match rejection(error, allowed) {
            // A version that is cut off by the limit.
            Parsed::Incomplete => Parsed::Rejected(limit.rejection),
            refused => refused,
        },
    }
}

fn rejection(error: httparse::Error, head: &[u8]) -> Parsed<'static> {
    match error {
        httparse::Error::TooManyHeaders => Parsed::Rejected(Rejection::HeadersTooLarge),
        httparse::Error::Version => other_version(head).map_or(Parsed::Incomplete, Parsed::Rejected),
        _ => Parsed::Rejected(Rejection::Malformed),
    }
}

/// Whether a request line whose version is not supported is well-formed: method, target and `HTTP/<digit>.<digit>`. `None` while
/// its end is missing.
fn other_version(head: &[u8]) -> Option<Rejection> {
    let Some(version) = head.splitn(3, |&byte| byte == b' ').nth(2) else { return Some(Rejection::Malformed) };
    let is_digit = |place: usize| version.get(place).is_none_or(u8::is_ascii_digit);
    let is_version = b"HTTP/".starts_with(version.get(..5).unwrap_or(version))
        && is_digit(5)
        && version.get(6).is_none_or(|&byte| byte == b'.')
        && is_digit(7);
    match version.get(8..) {
        _ if !is_version => Some(Rejection::Malformed),
        None | Some([] | [b'\r']) => None,
        Some([b'\n', ..] | [b'\r', b'\n', ..]) => Some(Rejection::Version),
        Some(_) => Some(Rejection::Malformed),
    }
}

fn interpret<'b>(parsed: &httparse::Request<'_, 'b>, head: &'b [u8]) -> Result<(Request<'b>, Body), Rejection> {
    let http_1_1 = parsed.version == Some(1);
    let mut request = Request {
        method: match parsed.method.unwrap_or_default() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        target: parsed.path.unwrap_or_default().as_bytes(),
        persistence: if http_1_1 { Persistence::Implied } else { Persistence::Close },
        forwarded_for: ForwardedFor::default(),
        forwarded_proto: None,
        if_modified_since: None,
        user_agent: b"",
        has_range: false,
        accepts_json: false,
        accepts_gzip: false,
        expects_continue: false,
    };
    let mut hosts = 0_u32;
    let mut framing = body::Framing::default();
    for field in parsed.headers.iter() {
        let (name, value) = (field.name, field.value);
        // The length tells most of the names apart, and most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("Host") => hosts = hosts.saturating_add(1),
            5 if name.eq_ignore_ascii_case("Range") => request.has_range = true,
            6 if name.eq_ignore_ascii_case("Accept") => {
                request.accepts_json |= memchr::memmem::find(value, b"application/json").is_some();
            }
            6 if http_1_1 && name.eq_ignore_ascii_case("Expect") => {
                request.expects_continue |= value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case("Connection") => {
                request.persistence = persistence(request.persistence, value, http_1_1);
            }
            10 if name.eq_ignore_ascii_case("User-Agent") => request.user_agent = value,
            14 if name.eq_ignore_ascii_case("Content-Length") => framing.content_length(value)?,
            15 if name.eq_ignore_ascii_case("Accept-Encoding") => request.accepts_gzip |= allows_gzip(value),
            15 if name.eq_ignore_ascii_case(FORWARDED_FOR) => request.forwarded_for.add(head, field),
            17 if name.eq_ignore_ascii_case("X-Forwarded-Proto") => request.forwarded_proto = Some(value),
            17 if name.eq_ignore_ascii_case("If-Modified-Since") => request.if_modified_since = Some(value),
            17 if name.eq_ignore_ascii_case("Transfer-Encoding") => framing.transfer_encoding(value)?,
            _ => {}
        }
    }
    if hosts > 1 || (http_1_1 && hosts == 0) {
        return Err(Rejection::Malformed);
    }
    Ok((request, framing.body(http_1_1)?))
}

/// Whether a list of codings (RFC 9110, section 12.5.3) has gzip with a weight above 0.
fn allows_gzip(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|coding| {
        let mut parts = coding.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"gzip"));
        let refused = |weight: &[u8]| weight.strip_prefix(b"q=").is_some_and(|q| q.iter().all(|b| b"0.".contains(b)));
        named && !parts.any(refused)
    })
}

fn persistence(before: Persistence, value: &[u8], http_1_1: bool) -> Persistence {
    let names = |option: &str| {
        value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    };
    if names("close") {
        Persistence::Close
    } else if !http_1_1 && names("keep-alive") {
        Persistence::KeepAlive
    } else {
        before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rejected(text: &str) -> Option<Rejection> {
        match parse(text.as_bytes()) {
            Parsed::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    #[test]
    fn a_whole_head_is_parsed() {
        let text = b"GET /a.iso?pretty HTTP/1.1\r\nHost: x\r\naccept: text/html, application/json\r\n\
            X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nuser-agent: curl/8\r\n\
            range: bytes=1-\r\n\r\nrest";
        let Parsed::Complete { request, length, body } = parse(text) else { panic!() };
        assert_eq!(&text[length..], b"rest");
        assert_eq!(body, Body::None);
        assert_eq!((request.method, request.target), (Method::Get, b"/a.iso?pretty".as_slice()));
        assert!(request.accepts_json && request.has_range);
        assert_eq!(request.user_agent, b"curl/8");
        let members: Vec<_> = request.forwarded_for.from_the_right().collect();
        assert_eq!(members, [b"10.0.0.2".as_slice(), b"10.0.0.1", b"192.0.2.1"]);
        assert_eq!(request.persistence, Persistence::Implied);
    }

    #[test]
    fn connections_persist_as_the_version_and_the_client_say() {
        let persistence = |text: &str| match parse(text.as_bytes()) {
            Parsed::Complete { request, .. } => request.persistence,
            other => panic!("{other:?}"),
        };
        assert_eq!(persistence("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n"), Persistence::Close);
        assert_eq!(persistence("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\n\r\n"), Persistence::Close);
        assert_eq!(persistence("GET / HTTP/1.0\r\n\r\n"), Persistence::Close);
        assert_eq!(persistence("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), Persistence::KeepAlive);
    }

    #[test]
    fn gzip_is_allowed_by_name_and_weight() {
        for (value, allowed) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(allows_gzip(value.as_bytes()), allowed, "{value}");
        }
    }

    #[test]
    fn all_forwarded_fields_are_one_list() {
        let fields: String =
            (0..90).map(|n| format!("x-Forwarded-For: 10.0.0.{n}\r\nX-Other-Than-: 1.1.1.1\r\n")).collect();
        let cut = fields.lines().take(95).map(|line| format!("{line}\r\n")).collect::<String>();
        let head = format!("GET / HTTP/1.1\r\nX-Forwarded-For:\r\n{cut}Host: x\r\nX-Forwarded-For: a,, b\t\r\n\r\n");
        let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { panic!("{head}") };
        let members: Vec<_> = request.forwarded_for.from_the_right().map(String::from_utf8_lossy).collect();
        let expected: Vec<_> =
            ["b", "a"].map(str::to_owned).into_iter().chain((0..48).rev().map(|n| format!("10.0.0.{n}"))).collect();
        assert_eq!(members, expected);
        assert_eq!(ForwardedFor::default().from_the_right().count(), 0);
        let lines = b"X-Forwarded-For: c\nX-Forwarded-For : d\nX-Forwarded-Fo: e\nX-Forwarded-For:f";
        let members: Vec<_> = ForwardedFor::among(lines).from_the_right().collect();
        assert_eq!(members, [b"f", b"c"]);
    }

    /// Requests by RFC 9112 and RFC 9110, and what becomes of them: accepted, or refused with a reason. Every head ends in an
    /// empty line, so that none is refused for what might still come.
    #[test]
    fn heads_are_read_as_the_rfc_has_them() {
        use Rejection::{BodyTooLarge, Malformed, Version};
        const HEAD: &str = "GET / HTTP/1.1\r\nHost: x\r\n";
        let lines: [(&str, Option<Rejection>); 36] = [
            // RFC 9112, section 3: three parts, each behind one space.
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET /a  HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            (" GET /a HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET /a HTTP/1.1 \r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET /\r\n\r\n", Some(Malformed)),
            ("GET / FTP/1.0\r\n\r\n", Some(Malformed)),
            ("GET / http/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("\u{1}\r\n\r\n", Some(Malformed)),
            // Section 2.3: the version.
            ("GET / HTTP/2.0\r\n\r\n", Some(Version)),
            ("GET / HTTP/0.9\r\n\r\n", Some(Version)),
            ("GET / HTTP/1.2\r\n\r\n", Some(Version)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Version)),
            ("GET / HTTP/2.05\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/2\r\n\r\n", Some(Malformed)),
            ("GET /a b HTTP/2.0\r\n\r\n", Some(Malformed)),
            // Section 2.2: a line feed may end a line, a carriage return alone may not; empty lines may come before.
            ("GET / HTTP/1.1\nHost: x\n\n", None),
            ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("\n\r\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("\rGET / HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\rHost: x\r\n\r\n", Some(Malformed)),
            ("GET /\ra HTTP/1.1\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", Some(Malformed)),
            // Section 3.2: one Host, from 1.1 on.
            ("GET / HTTP/1.1\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Some(Malformed)),
            // Section 6.1: a transfer coding in HTTP/1.0 is faulty.
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", None),
            // Section 5: white space before the first field.
            ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\n: x\r\nHost: x\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", Some(Malformed)),
            ("GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n", Some(Malformed)),
        ];
        let fields: [(&str, Option<Rejection>); 28] = [
            // Section 5.1: no white space before the colon. Section 5.2: no line folding.
            ("A : b\r\n", Some(Malformed)),
            ("A\t: b\r\n", Some(Malformed)),
            ("A: b\r\n c\r\n", Some(Malformed)),
            ("A: b\r\n\tc: d\r\n", Some(Malformed)),
            ("A: b\0\r\n", Some(Malformed)),
            ("A: b\u{7f}\r\n", Some(Malformed)),
            ("A:\tb \t\r\n", None),
            ("A:\r\n", None),
            ("A: \u{e9}\r\n", None),
            // Section 6.2, and RFC 9110, section 8.6: one Content-Length, of digits.
            ("Content-Length: 5\r\n", None),
            ("Content-Length: \t5 \r\n", None),
            ("Content-Length: 0\r\n", None),
            ("Content-Length: 65536\r\n", None),
            ("Content-Length: 65537\r\n", Some(BodyTooLarge)),
            ("Content-Length: 99999999999999999999999\r\n", Some(BodyTooLarge)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Some(Malformed)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Some(Malformed)),
            ("Content-Length: 5, 5\r\n", Some(Malformed)),
            ("Content-Length: +5\r\n", Some(Malformed)),
            ("Content-Length: -5\r\n", Some(Malformed)),
            ("Content-Length: 0x5\r\n", Some(Malformed)),
            ("Content-Length:\r\n", Some(Malformed)),
            // Section 6.1: chunked is the last coding, and the only one that is known; never with a length.
            ("Transfer-Encoding: Chunked\r\n", None),
            ("Transfer-Encoding: chunked, chunked\r\n", Some(Malformed)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Some(Malformed)),
            ("Transfer-Encoding: gzip, chunked\r\n", Some(Malformed)),
            ("Transfer-Encoding: identity\r\n", Some(Malformed)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Some(Malformed)),
        ];
        for (text, expected) in lines {
            assert_eq!((rejected(text), is_complete(text)), (expected, expected.is_none()), "{text:?}");
        }
        for (field, expected) in fields {
            let text = format!("{HEAD}{field}\r\n");
            assert_eq!((rejected(&text), is_complete(&text)), (expected, expected.is_none()), "{text:?}");
        }
    }

    fn is_complete(text: &str) -> bool {
        parse(text.as_bytes()).is_complete()
    }

    /// Exactly 8,193 bytes without a line end read beyond the buffer, which ended the whole program.
    #[test]
    fn limits_hold_exactly_before_and_after_the_head_is_complete() {
        use Rejection::{HeadersTooLarge, Malformed, RequestLineTooLong};
        for empty in ["", "\r\n", "\n\n\n", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"] {
            let line = |length: usize| format!("{empty}GET /{} HTTP/1.1", "a".repeat(length - 14));
            assert_eq!(rejected(&line(8192)), None);
            assert_eq!(rejected(&format!("{}\r", line(8192))), None);
            assert_eq!(rejected(&line(8192)[..empty.len() + 8192]), None);
            assert_eq!(rejected(&line(9000)[..empty.len() + 8192]), None);
            assert_eq!(rejected(&line(9000)[..empty.len() + 8193]), Some(RequestLineTooLong));
            for end in ["\r\n", "\n"] {
                assert!(is_complete(&format!("{}{end}Host: x\r\n\r\n", line(8192))));
                assert_eq!(rejected(&format!("{}{end}Host: x\r\n\r\n", line(8193))), Some(RequestLineTooLong));
                assert_eq!(rejected(&format!("{}{end}Hos", line(8193))), Some(RequestLineTooLong));
            }
            for length in 8190..8200 {
                let head = format!("{empty}GET /{}", "0".repeat(length - 5));
                assert_eq!(rejected(&head), (length > 8192).then_some(RequestLineTooLong), "{length}");
            }

            let head =
                |headers: usize| format!("{empty}GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(headers - 16));
            assert!(is_complete(&head(32_768)));
            assert_eq!(rejected(&head(32_769)), Some(HeadersTooLarge));
            let unfinished = |headers: usize| head(60_000)[..empty.len() + 16 + headers].to_owned();
            assert_eq!(rejected(&unfinished(32_767)), None);
            assert_eq!(rejected(&unfinished(32_768)), Some(HeadersTooLarge));
        }
        assert_eq!(rejected(&format!("{}GET / HTTP/1.0\r\n\r\n", "\n".repeat(17))), Some(Malformed));
        assert_eq!(rejected(&"\r\n".repeat(8)), None);
        assert_eq!(rejected(&"\r\n".repeat(9)), Some(Malformed));

        let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
        assert!(is_complete(&many(100)));
        assert_eq!(rejected(&many(101)), Some(HeadersTooLarge));
        // What is wrong before a limit is reached counts, and what is wrong behind it does not.
        assert_eq!(rejected(&format!("GET /\0{}", "a".repeat(9000))), Some(Malformed));
        assert_eq!(rejected(&format!("GET /{}\0", "a".repeat(9000))), Some(RequestLineTooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_head_is_incomplete_until_its_last_byte(cut in 0usize..58) {
            let text = b"GET /some/file.iso HTTP/1.1\r\nHost: example.org\r\nA: bcd\r\n\r\n";
            prop_assert!(matches!(parse(&text[..cut.min(text.len() - 1)]), Parsed::Incomplete));
        }
    }
}

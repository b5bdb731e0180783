//! A request head, parsed in place: everything borrows the receive buffer.

use std::mem::MaybeUninit;

use super::body::{self, Body};

/// Longest request line; a longer one is answered with 414.
pub const MAX_REQUEST_LINE: usize = 8 * 1024;
/// Most bytes of header fields; more are answered with 431.
pub const MAX_HEADERS: usize = 32 * 1024;
/// Most header fields; more are answered with 431.
pub const MAX_HEADER_FIELDS: usize = 100;
/// Most `X-Forwarded-For` fields of a request that are looked at; of more, the last ones.
const MAX_FORWARDED_FIELDS: usize = 8;

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
}

/// The `X-Forwarded-For` fields of a request, which together are one list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardedFor<'b> {
    fields: [&'b [u8]; MAX_FORWARDED_FIELDS],
    count: usize,
}

impl<'b> ForwardedFor<'b> {
    fn push(&mut self, field: &'b [u8]) {
        if self.count == MAX_FORWARDED_FIELDS {
            self.fields.rotate_left(1);
            self.count -= 1;
        }
        self.fields[self.count] = field;
        self.count += 1;
    }

    /// The members of the list from the last, which the nearest proxy added, to the first.
    pub fn from_the_right(&self) -> impl Iterator<Item = &'b [u8]> + '_ {
        self.fields[..self.count]
            .iter()
            .rev()
            .flat_map(|field| field.rsplit(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }
}

/// Result of looking at the bytes received so far.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for one request; a box would be an allocation")]
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

/// Parses the request head at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADER_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let length = match head.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return over_limit(bytes).map_or(Parsed::Incomplete, Parsed::Rejected),
        Err(error) => return Parsed::Rejected(over_limit(bytes).unwrap_or_else(|| rejection(error, bytes))),
    };
    // Only a long head needs the exact look.
    if length > MAX_REQUEST_LINE
        && let Some(rejection) = over_limit(&bytes[..length])
    {
        return Parsed::Rejected(rejection);
    }
    match interpret(&head) {
        Ok((request, body)) => Parsed::Complete { request, length, body },
        Err(rejection) => Parsed::Rejected(rejection),
    }
}

fn over_limit(head: &[u8]) -> Option<Rejection> {
    if head.len() <= MAX_REQUEST_LINE {
        return None;
    }
    match memchr::memchr(b'\n', &head[..MAX_REQUEST_LINE + 2]) {
        None => Some(Rejection::RequestLineTooLong),
        Some(line) if head.len() - line > MAX_HEADERS => Some(Rejection::HeadersTooLarge),
        Some(_) => None,
    }
}

fn rejection(error: httparse::Error, bytes: &[u8]) -> Rejection {
    match error {
        httparse::Error::TooManyHeaders => Rejection::HeadersTooLarge,
        httparse::Error::Version if names_other_version(bytes) => Rejection::Version,
        _ => Rejection::Malformed,
    }
}

/// Whether the request line ends in a well-formed `HTTP/<digit>.<digit>`.
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let version = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn interpret<'b>(head: &httparse::Request<'_, 'b>) -> Result<(Request<'b>, Body), Rejection> {
    let http_1_1 = head.version == Some(1);
    let mut request = Request {
        method: match head.method.unwrap_or_default() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        target: head.path.unwrap_or_default().as_bytes(),
        persistence: if http_1_1 { Persistence::Implied } else { Persistence::Close },
        forwarded_for: ForwardedFor::default(),
        forwarded_proto: None,
        if_modified_since: None,
        user_agent: b"",
        has_range: false,
        accepts_json: false,
        accepts_gzip: false,
    };
    let mut hosts = 0;
    let mut framing = body::Framing::default();
    for field in head.headers.iter() {
        let (name, value) = (field.name, field.value);
        // The length tells most of the names apart, and most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("Host") => hosts += 1,
            5 if name.eq_ignore_ascii_case("Range") => request.has_range = true,
            6 if name.eq_ignore_ascii_case("Accept") => {
                request.accepts_json |= memchr::memmem::find(value, b"application/json").is_some();
            }
            10 if name.eq_ignore_ascii_case("Connection") => {
                request.persistence = persistence(request.persistence, value, http_1_1);
            }
            10 if name.eq_ignore_ascii_case("User-Agent") => request.user_agent = value,
            14 if name.eq_ignore_ascii_case("Content-Length") => framing.content_length(value)?,
            15 if name.eq_ignore_ascii_case("Accept-Encoding") => request.accepts_gzip |= allows_gzip(value),
            15 if name.eq_ignore_ascii_case("X-Forwarded-For") => request.forwarded_for.push(value),
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
    fn invalid_heads_are_rejected_with_their_reason() {
        assert_eq!(rejected("GET / HTTP/1.1\r\n\r\n"), Some(Rejection::Malformed), "no Host");
        assert_eq!(rejected("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Some(Rejection::Malformed));
        assert_eq!(rejected("GET / HTTP/2.0\r\n\r\n"), Some(Rejection::Version));
        assert_eq!(rejected("GET / FTP/1.0\r\n\r\n"), Some(Rejection::Malformed));
        assert_eq!(rejected("GET /\r\n\r\n"), Some(Rejection::Malformed));
        assert_eq!(rejected("\u{1}\r\n\r\n"), Some(Rejection::Malformed));
        let both = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(rejected(both), Some(Rejection::Malformed));
        assert_eq!(
            rejected("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n"),
            Some(Rejection::BodyTooLarge)
        );
    }

    #[test]
    fn limits_hold_before_and_after_the_head_is_complete() {
        let long = "a".repeat(MAX_REQUEST_LINE);
        assert_eq!(rejected(&format!("GET /{long}")), Some(Rejection::RequestLineTooLong));
        assert_eq!(rejected(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")), Some(Rejection::RequestLineTooLong));
        let header = "b".repeat(MAX_HEADERS);
        assert_eq!(rejected(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {header}")), Some(Rejection::HeadersTooLarge));
        let many = "A: b\r\n".repeat(MAX_HEADER_FIELDS);
        assert_eq!(rejected(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")), Some(Rejection::HeadersTooLarge));
        assert_eq!(rejected("GET / HTTP/1.1\r\nHo"), None);
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

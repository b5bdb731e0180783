//! A connection: any bytes, in any pieces, through the shard's own reading, parsing, answering and writing over a socket.

use std::cell::RefCell;

use mirrorbits::handle::Peer;
use mirrorbits::http::body::Body;
use mirrorbits::http::request::{Method, Parsed, parse};
use mirrorbits::shard::fuzzing::{Harness, Received};
use tempfile::TempDir;

use crate::world;

thread_local! {
    static HARNESS: RefCell<(Harness, TempDir)> = RefCell::new({
        let folder = world::folder();
        let harness = Harness::new(world::snapshot(folder.path()), folder.path()).expect("a shard");
        (harness, folder)
    });
}

/// Most pieces of an input: each is a round of system calls.
const MOST_PIECES: usize = 64;

/// The first byte gives the sizes of the pieces, the second the client.
pub fn run(input: &[u8]) {
    let [cut, client, stream @ ..] = input else { return };
    // The start of a long head is not looked at with every byte (`http/reader.rs`): what is malformed in it is refused at its end,
    // which therefore comes with every input.
    let stream = &[stream, b"\r\n\r\n"].concat();
    let peer = match client % 4 {
        0 => Peer::Local,
        1 => Peer::Host("192.0.2.5".parse().expect("an address")),
        2 => Peer::Host("10.0.0.1".parse().expect("an address")),
        _ => Peer::Host("2001:db8::5".parse().expect("an address")),
    };
    HARNESS.with_borrow_mut(|(harness, _)| {
        let mut exchange = |pieces: Vec<&[u8]>| {
            let answer = harness.exchange(peer, 1, pieces.into_iter());
            answer.unwrap_or_else(|error| panic!("the shard: {error}"))
        };
        let whole = exchange(vec![stream]);
        let in_pieces = exchange(pieces(stream, *cut));
        let (expected, found) = (check(stream, &whole), check(stream, &in_pieces));
        assert_eq!(found, expected, "the answers depend on the pieces");
        assert_eq!(in_pieces.closed, whole.closed, "whether it is closed depends on the pieces");
    });
}

fn pieces(stream: &[u8], cut: u8) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(cut.into());
    // The smaller `cut`, the smaller the pieces; what is behind the last one comes at once.
    let largest = usize::from(cut % 64) * usize::from(cut % 64) + 1;
    let (mut pieces, mut rest) = (Vec::new(), stream);
    while pieces.len() < MOST_PIECES && !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.usize(1..=largest).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer<'a> {
    code: u16,
    head: &'a [u8],
    rest: &'a [u8],
}

/// The head of the answer at the start of `bytes`.
fn head(bytes: &[u8]) -> Option<Answer<'_>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) = (&bytes[..end], &bytes[end + 4..]);
    let code = head.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())?;
    Some(Answer { code, head, rest })
}

fn field<'a>(head: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    let value = |line: &'a [u8]| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    };
    lines.filter_map(value).collect()
}

fn content_length(head: &[u8]) -> Option<usize> {
    let [length] = field(head, "Content-Length")[..] else { return None };
    std::str::from_utf8(length).ok()?.parse().ok()
}

/// Whether the answers to `stream` are those of an HTTP server: one well-formed answer to each request in turn, at most
/// one more that refuses what follows, and nothing behind an answer that closes the connection. Returns head and body of
/// each without the interim ones, which depend on what has come when, and without the date.
fn check(stream: &[u8], received: &Received) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut answers = Vec::new();
    let (methods, is_malformed) = requests(stream);
    let mut rest = received.bytes.as_slice();
    let mut answered = 0;
    let mut is_closing = false;
    while !rest.is_empty() {
        let Some(answer) = head(rest) else { panic!("an answer without an end: {}", rest.escape_ascii()) };
        check_head(answer.head);
        assert!(!is_closing, "an answer behind the last one: {}", answer.head.escape_ascii());
        rest = answer.rest;
        if answer.code < 200 {
            assert!(field(answer.head, "Content-Length").is_empty(), "an interim answer with a length");
            continue;
        }
        let method = methods.get(answered);
        assert!(
            method.is_some() || is_malformed && answered == methods.len(),
            "more answers than requests: {}",
            received.bytes.escape_ascii()
        );
        answered += 1;
        is_closing = field(answer.head, "Connection").iter().any(|value| value.eq_ignore_ascii_case(b"close"));
        assert!(field(answer.head, "Transfer-Encoding").is_empty(), "an answer in chunks");
        let has_no_body = method == Some(&Method::Head) || matches!(answer.code, 204 | 304);
        let length = match content_length(answer.head) {
            Some(length) => length,
            None => {
                assert!(has_no_body, "an answer without a length: {}", answer.head.escape_ascii());
                0
            }
        };
        let body = if has_no_body { 0 } else { length };
        assert!(body <= rest.len(), "a body that is shorter than its length: {}", received.bytes.escape_ascii());
        let (body, behind) = rest.split_at(body);
        rest = behind;
        let lines = answer.head.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"Date:"));
        answers.push((lines.collect::<Vec<_>>().join(&b'\n'), body.to_owned()));
        if method.is_none() || answer.code == 413 {
            assert!(is_closing, "a refusal does not say that it closes: {}", answer.head.escape_ascii());
        }
    }
    if !is_closing {
        assert!(!is_malformed, "what is malformed is not refused: {}", received.bytes.escape_ascii());
        assert_eq!(answered, methods.len(), "not all requests are answered: {}", received.bytes.escape_ascii());
        assert!(!received.closed, "it is closed without a word");
    } else {
        assert!(received.closed, "it is not closed as was said");
    }
    answers
}

fn check_head(head: &[u8]) {
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().unwrap_or_default();
    let is_status = status.starts_with(b"HTTP/1.1 ") && status.get(9..12).is_some_and(|code| code.is_ascii());
    assert!(is_status, "no status line: {}", status.escape_ascii());
    let is_text = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
    };
    assert!(is_text(status), "control bytes in {}", status.escape_ascii());
    const KNOWN: &[&str] = &[
        "Accept-Ranges",
        "Access-Control-Allow-Headers",
        "Access-Control-Allow-Methods",
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
        "Access-Control-Max-Age",
        "Age",
        "Allow",
        "Cache-Control",
        "Connection",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Date",
        "Digest",
        "ETag",
        "Last-Modified",
        "Link",
        "Location",
        "Server",
        "Vary",
        "X-Content-Type-Options",
        "Referrer-Policy",
        "Content-Security-Policy",
        "Keep-Alive",
        "Repr-Digest",
    ];
    for line in lines {
        assert!(is_text(line), "control bytes in {}", line.escape_ascii());
        let colon = line.iter().position(|&byte| byte == b':');
        let name = colon.and_then(|colon| std::str::from_utf8(&line[..colon]).ok()).unwrap_or_default();
        // A field of another name would come from what a client sent.
        assert!(KNOWN.contains(&name), "an unknown field: {}", line.escape_ascii());
    }
    for once in ["Content-Length", "Location", "Date", "Content-Type"] {
        assert!(field(head, once).len() <= 1, "{once} is there twice: {}", head.escape_ascii());
    }
}

/// The methods of the complete requests in `stream`, up to the one that closes the connection, and whether something
/// malformed follows.
fn requests(stream: &[u8]) -> (Vec<Method>, bool) {
    let mut methods = Vec::new();
    let mut rest = stream;
    loop {
        match parse(rest) {
            Parsed::Incomplete => return (methods, false),
            Parsed::Rejected(_) => return (methods, true),
            Parsed::Complete { request, length, mut body } => {
                rest = &rest[length..];
                match body.skip(rest) {
                    Err(_) => return (methods, true),
                    Ok(_) if body != Body::None => return (methods, false),
                    Ok(skipped) => rest = &rest[skipped..],
                }
                methods.push(request.method);
                if request.persistence == mirrorbits::http::request::Persistence::Close {
                    return (methods, false);
                }
            }
        }
    }
}

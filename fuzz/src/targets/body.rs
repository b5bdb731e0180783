//! Request bodies: the decoder, in pieces, against a simple one that has all bytes at once.

use mirrorbits::http::body::{Body, MAX_BODY};
use mirrorbits::http::request::{Parsed, parse};

/// The first byte says how the body is framed, the second how it is cut.
pub fn run(input: &[u8]) {
    let [framing, cut, bytes @ ..] = input else { return };
    let (mut body, end) = match framing % 4 {
        0 => (framed("Content-Length: 17"), if bytes.len() < 17 { End::Incomplete } else { End::At(17) }),
        _ => (framed("Transfer-Encoding: chunked"), chunks_end(bytes)),
    };
    let piece = usize::from(*cut).max(1);
    let (mut taken, mut is_refused) = (0, false);
    let mut pieces = bytes.chunks(piece);
    // What a decoder leaves of a piece comes again with the next one.
    let mut given = 0;
    while body != Body::None {
        let Some(next) = pieces.next() else { break };
        given += next.len();
        match body.skip(&bytes[taken..given]) {
            Ok(count) => {
                assert!(taken + count <= given, "more was dropped than there was");
                taken += count;
            }
            Err(_) => {
                is_refused = true;
                break;
            }
        }
    }
    match end {
        End::At(end) => {
            assert!(!is_refused && body == Body::None, "a valid body of {end} bytes is refused or has no end");
            assert_eq!(taken, end, "the body ends elsewhere");
        }
        End::Incomplete => {
            assert!(is_refused || body != Body::None, "a body without an end ends after {taken} bytes");
        }
        End::Invalid => assert!(is_refused, "an invalid body is accepted: it ends after {taken} bytes"),
    }
}

fn framed(field: &str) -> Body {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
    let Parsed::Complete { body, .. } = parse(head.as_bytes()) else { panic!("a head with {field} is refused") };
    body
}

/// Where a body ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// After this many bytes.
    At(usize),
    /// Not within these bytes, if at all.
    Incomplete,
    /// Nowhere: it has to be refused, at the latest when all of it has come.
    Invalid,
}

/// Where chunks end (RFC 9112, section 7.1), line by line. Limits: 16 digits of size, 64 bytes of extension, 64 KiB of data,
/// 4 KiB of trailer fields. A body that is not complete and may be refused already counts as incomplete.
fn chunks_end(bytes: &[u8]) -> End {
    let line = |from: usize| {
        let length = bytes[from..].windows(2).position(|pair| pair == b"\r\n")?;
        Some((&bytes[from..from + length], from + length + 2))
    };
    let is_text = |text: &[u8]| text.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let (mut place, mut total) = (0, 0_u64);
    loop {
        let Some((text, next)) = line(place) else { return End::Incomplete };
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = text.split_at(digits);
        let is_extension =
            extension.is_empty() || extension.trim_ascii_start().first().is_none_or(|&byte| byte == b';');
        if digits == 0 || digits > 16 || extension.len() > 64 || !is_text(extension) || !is_extension {
            return End::Invalid;
        }
        let size = std::str::from_utf8(size).map(|size| u64::from_str_radix(size, 16));
        let Ok(Ok(size)) = size else { return End::Invalid };
        place = next;
        if size == 0 {
            break;
        }
        total = total.saturating_add(size);
        if total > MAX_BODY {
            return End::Invalid;
        }
        let data_end = place + size as usize;
        match bytes.get(data_end..data_end + 2) {
            Some(b"\r\n") => place = data_end + 2,
            Some(_) => return End::Invalid,
            None => return End::Incomplete,
        }
    }
    let trailers = place;
    loop {
        let Some((text, next)) = line(place) else { return End::Incomplete };
        if text.is_empty() {
            return if place - trailers > 4 * 1024 { End::Invalid } else { End::At(next) };
        }
        let Some(colon) = text.iter().position(|&byte| byte == b':') else { return End::Invalid };
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if colon == 0 || !text[..colon].iter().all(is_token) || !is_text(&text[colon + 1..]) {
            return End::Invalid;
        }
        place = next;
    }
}

//! One HTTP answer out of received bytes, by RFC 9112 and nothing beyond it: what a lenient client would forgive is an error
//! here.

use std::ops::Range;

/// Header fields that an answer may have.
const MAX_FIELDS: usize = 128;

/// Bytes that a head may have.
const MAX_HEAD: usize = 64 * 1024;

/// A whole answer, by where its parts are in the received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Value of `Location`.
    pub location: Option<Range<usize>>,
    /// The body.
    pub body: Range<usize>,
    /// Whether the connection ends with it.
    pub close: bool,
}

impl Answer {
    /// Bytes from the start of the answer to its end.
    pub fn len(&self) -> usize {
        self.body.end
    }

    /// Never: an answer has a status line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why bytes are not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The status line or a header field.
    #[error("the head is not HTTP: {0}")]
    Head(httparse::Error),
    /// A line that does not end in CR LF.
    #[error("a line ends without CR LF")]
    LineEnd,
    /// The head has no end.
    #[error("the head is longer than 64 KiB")]
    Endless,
    /// No `Content-Length`, several, or one that is no number.
    #[error("the length of the body is not told by one Content-Length")]
    Length,
    /// Not asked for, and nothing that a redirector needs.
    #[error("the body has a Transfer-Encoding")]
    TransferEncoding,
    /// A field that must be there once is there again.
    #[error("Location is there twice")]
    Location,
}

/// Reads the answer that `bytes` start with; `None` when more bytes are needed. `head_only` says that it answers `HEAD`.
///
/// # Errors
/// When no further byte can make it an answer.
pub fn parse(bytes: &[u8], head_only: bool) -> Result<Option<Answer>, Malformed> {
    if bytes.first().is_some_and(|&first| first != b'H') {
        return Err(Malformed::Head(httparse::Error::Version));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes).map_err(Malformed::Head)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if bytes.len() > MAX_HEAD => return Err(Malformed::Endless),
        httparse::Status::Partial => return Ok(None),
    };
    if memchr::memchr_iter(b'\n', &bytes[..head]).any(|at| bytes[at - 1] != b'\r') {
        return Err(Malformed::LineEnd);
    }
    let (status, version) = (response.code.unwrap_or_default(), response.version.unwrap_or_default());
    let (mut length, mut location, mut close) = (None, None, version == 0);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let told = number(field.value).filter(|_| length.is_none()).ok_or(Malformed::Length)?;
            length = Some(told);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed::TransferEncoding);
        } else if field.name.eq_ignore_ascii_case("location") {
            let start = field.value.as_ptr() as usize - bytes.as_ptr() as usize;
            if location.replace(start..start + field.value.len()).is_some() {
                return Err(Malformed::Location);
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            close = !field.value.eq_ignore_ascii_case(b"keep-alive") && (close || is_close(field.value));
        }
    }
    let body = match (status, length) {
        (100..200 | 204 | 304, _) => 0,
        (_, None) => return Err(Malformed::Length),
        (_, Some(_)) if head_only => 0,
        (_, Some(length)) => length,
    };
    let end = head.checked_add(body).ok_or(Malformed::Length)?;
    Ok((bytes.len() >= end).then_some(Answer { status, location, body: head..end, close }))
}

fn is_close(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Digits only: `parse` alone would take a plus sign.
fn number(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: &str = "HTTP/1.1 302 Found\r\nLocation: http://m/a\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn parts_are_found_once_all_bytes_are_there() {
        for cut in 0..REDIRECT.len() {
            assert_eq!(parse(&REDIRECT.as_bytes()[..cut], false), Ok(None), "{cut}");
        }
        let more = format!("{REDIRECT}HTTP");
        let answer = parse(more.as_bytes(), false).expect("well formed").expect("complete");
        assert_eq!((answer.status, answer.close, answer.len()), (302, false, REDIRECT.len()));
        assert_eq!(&more[answer.body.clone()], "hi");
        assert_eq!(&more[answer.location.expect("Location")], "http://m/a");
    }

    #[test]
    fn some_answers_have_no_body() {
        let head = parse(REDIRECT.as_bytes(), true).expect("well formed").expect("complete");
        assert_eq!(head.len(), REDIRECT.len() - 2);
        let bytes = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(parse(bytes, false).expect("well formed").expect("complete").len(), bytes.len());
    }

    #[test]
    fn the_end_of_a_connection_is_announced() {
        let closes = |version: &str, fields: &str| {
            let text = format!("HTTP/{version} 404 Not Found\r\nContent-Length: 0\r\n{fields}\r\n");
            parse(text.as_bytes(), false).expect("well formed").expect("complete").close
        };
        assert!(!closes("1.1", ""));
        assert!(closes("1.1", "Connection: close\r\n"));
        assert!(closes("1.1", "Connection: upgrade, Close\r\n"));
        assert!(closes("1.0", ""));
        assert!(!closes("1.0", "Connection: keep-alive\r\n"));
    }

    #[test]
    fn nothing_is_forgiven() {
        let refused = |text: &str| parse(text.as_bytes(), false).expect_err(text);
        assert!(matches!(refused("\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Malformed::Head(_)));
        assert!(matches!(refused("HTTP/1.1 OK\r\n\r\n"), Malformed::Head(_)));
        assert!(matches!(refused("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"), Malformed::Head(_)));
        assert_eq!(refused("HTTP/1.1 200 OK\r\n\r\n"), Malformed::Length);
        assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n"), Malformed::Length);
        assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), Malformed::Length);
        assert_eq!(refused("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"), Malformed::LineEnd);
        assert_eq!(refused("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Malformed::TransferEncoding);
        let twice = "HTTP/1.1 302 Found\r\nLocation: a\r\nLocation: b\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(refused(twice), Malformed::Location);
    }
}

//! What the fuzz targets found in the parsing of requests.

use super::request::{MAX_REQUEST_LINE, Parsed, Rejection, parse};

/// What becomes of each beginning of `head`, up to the first that is decided.
fn byte_by_byte(head: &[u8]) -> Option<Rejection> {
    (1..=head.len()).find_map(|length| match parse(&head[..length]) {
        Parsed::Rejected(rejection) => Some(rejection),
        _ => None,
    })
}

/// `HTTP/0.` that came alone was answered with 400, though the whole line was one of another version: 505.
#[test]
fn another_version_is_told_however_it_arrives() {
    for version in ["HTTP/0.1", "HTTP/2.0", "HTTP/9.9"] {
        let head = format!("GET /a.iso {version}\r\nHost: x\r\n\r\n");
        assert_eq!(byte_by_byte(head.as_bytes()), Some(Rejection::Version), "{version}");
    }
    for line in ["GET /a HTTQ", "GET /a HTTP/x", "GET /a HTTP/0-1", "GET /a HTTP/0.x"] {
        assert_eq!(byte_by_byte(format!("{line}\r\n").as_bytes()), Some(Rejection::Malformed), "{line}");
    }
}

/// A request line whose other version ended at the limit was never decided: the connection kept all that followed.
#[test]
fn another_version_at_the_limit_is_refused() {
    for version in ["HTTP/2.0", "HTTP/0.", "HTTP/0"] {
        let padding = "a".repeat(MAX_REQUEST_LINE + 1 - "GET / ".len() - version.len());
        let line = format!("GET /{padding} {version}");
        assert_eq!(line.len(), MAX_REQUEST_LINE + 1);
        for behind in [0, 1, 100_000] {
            let head = format!("{line}{}", "1".repeat(behind));
            let parsed = parse(head.as_bytes());
            assert!(
                matches!(parsed, Parsed::Rejected(Rejection::RequestLineTooLong)),
                "{version}, {behind}: {parsed:?}"
            );
        }
    }
}

//! Dates of HTTP: what is read is written back as the same time.

use mirrorbits::http::date::{http_date, parse_http_date};

/// The text of a date.
pub fn run(input: &[u8]) {
    if let Some(seconds) = parse_http_date(input) {
        let written = http_date(seconds);
        assert_eq!(parse_http_date(&written), Some(seconds), "{}", written.escape_ascii());
    }
    if let Some(seconds) = input.first_chunk() {
        let written = http_date(i64::from_le_bytes(*seconds));
        assert!(parse_http_date(&written).is_some(), "{}", written.escape_ascii());
    }
}

//! Points in time as HTTP and JSON write them.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;
use time::OffsetDateTime;

/// Length of an IMF-fixdate (RFC 9110, section 5.6.7).
pub const HTTP_DATE_LENGTH: usize = 29;

/// Unix seconds as IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`. Times before 1970 and after 9999 become the nearest
/// time that has this form.
pub fn http_date(seconds: i64) -> [u8; HTTP_DATE_LENGTH] {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = u64::try_from(seconds).unwrap_or(0).min(YEAR_10000 - 1);
    let mut date = [b' '; HTTP_DATE_LENGTH];
    // All dates in this range have exactly this length.
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    let _ = write!(date.as_mut_slice(), "{}", HttpDate::from(time));
    date
}

/// Unix seconds of a date in one of the three forms of RFC 9110; `None` when it has none of them.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim()).ok()?;
    unix_seconds(time)
}

fn unix_seconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Appends RFC 3339 text in UTC with as many decimals as it takes: `2026-11-22T11:30:31.5Z`.
pub fn append_rfc3339(out: &mut Vec<u8>, unix_seconds: i64, nanoseconds: u32) {
    let time = OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (time.date(), time.time());
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    if nanoseconds > 0 {
        let _ = write!(out, ".{nanoseconds:09}");
        let decimals = out.iter().rev().take_while(|&&byte| byte == b'0').count();
        out.truncate(out.len().saturating_sub(decimals));
    }
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_go_there_and_back() {
        assert_eq!(&http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse_http_date(b"yesterday"), None);
        assert_eq!(&http_date(-5), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&http_date(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn rfc_3339_has_the_decimals_it_needs() {
        let text = |seconds, nanoseconds| {
            let mut out = Vec::new();
            append_rfc3339(&mut out, seconds, nanoseconds);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_700_000_000, 120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(text(-1, 1), "1969-12-31T23:59:59.000000001Z");
    }
}

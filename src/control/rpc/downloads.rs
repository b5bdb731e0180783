//! The time that statistics are asked for, and the files.

use mb_core::store::DateRange;
use prost_types::Timestamp;
use regex::bytes::Regex;
use time::{Date, OffsetDateTime};
use tonic::Status;

/// The days of a request. As in Mirrorbits, the day of `end` does not count when it is midnight, unless it is the day of
/// `start`, too; what is left open is `now`.
pub(super) fn days(start: Option<Timestamp>, end: Option<Timestamp>, now: OffsetDateTime) -> Result<DateRange, Status> {
    let first = moment(start, now)?.date();
    let end = moment(end, now)?;
    let is_midnight = end.time() == time::Time::MIDNIGHT;
    let before_end = if is_midnight { end.date().previous_day().unwrap_or(Date::MIN) } else { end.date() };
    let last = if end.date() == first { first } else { before_end };
    Ok(DateRange { first, last })
}

fn moment(time: Option<Timestamp>, now: OffsetDateTime) -> Result<OffsetDateTime, Status> {
    let Some(Timestamp { seconds, nanos }) = time else { return Ok(now) };
    let moment = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    OffsetDateTime::from_unix_timestamp_nanos(moment)
        .map_err(|_| Status::invalid_argument(format!("{seconds} seconds after 1970 is outside the calendar")))
}

/// The expression that the paths of a request have to match, anywhere in them.
pub(super) fn pattern(text: &str) -> Result<Regex, Status> {
    Regex::new(text).map_err(|error| Status::invalid_argument(format!("the pattern {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use time::Month;

    use super::*;

    const DAY: i64 = 86_400;
    /// 2026-11-22 00:00 UTC.
    const SUNDAY: i64 = 1_795_305_600;

    fn asked(start: Option<i64>, end: Option<i64>) -> (u8, u8) {
        let time = |seconds: Option<i64>| seconds.map(|seconds| Timestamp { seconds, nanos: 0 });
        let now = OffsetDateTime::from_unix_timestamp(SUNDAY + 3600).unwrap();
        let range = days(time(start), time(end), now).unwrap();
        assert_eq!((range.first.month(), range.last.month()), (Month::November, Month::November));
        (range.first.day(), range.last.day())
    }

    #[test]
    fn a_range_ends_before_its_end() {
        assert_eq!(asked(Some(SUNDAY - 7 * DAY), Some(SUNDAY)), (15, 21));
        assert_eq!(asked(Some(SUNDAY - 7 * DAY), Some(SUNDAY + 1)), (15, 22));
        assert_eq!(asked(Some(SUNDAY - 7 * DAY), None), (15, 22));
    }

    #[test]
    fn one_day_is_that_day() {
        assert_eq!(asked(Some(SUNDAY), Some(SUNDAY)), (22, 22));
        assert_eq!(asked(None, None), (22, 22));
        assert_eq!(asked(Some(SUNDAY), Some(SUNDAY - DAY)), (22, 20), "an end before the start leaves no day");
    }

    #[test]
    fn times_and_patterns_that_are_none_are_refused() {
        let far = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
        assert!(days(far, None, OffsetDateTime::UNIX_EPOCH).is_err());
        assert!(pattern("(").unwrap_err().message().contains("the pattern \"(\""));
        assert!(pattern(r"\.iso$").unwrap().is_match(b"/a/\xff.iso"));
    }
}

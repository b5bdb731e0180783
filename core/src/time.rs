//! Points in time as they are stored: whole seconds for states, nanoseconds for files.
//!
//! Both are signed and count from 1970-01-01T00:00:00Z, without leap seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Unix time in whole seconds. [`Timestamp::NEVER`] stands for "has not happened yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The value of a time that was never set; stored as 0.
    pub const NEVER: Timestamp = Timestamp(0);

    /// The current time of the system clock.
    pub fn now() -> Timestamp {
        Timestamp(signed_since_epoch(SystemTime::now()).0)
    }

    /// Whether this is [`Timestamp::NEVER`].
    pub fn is_never(self) -> bool {
        self == Timestamp::NEVER
    }

    /// The time that has passed from `self` to `later`; zero when `later` is earlier.
    pub fn elapsed_until(self, later: Timestamp) -> Duration {
        Duration::from_secs(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

/// Modification time of a file: nanoseconds since the Unix epoch (years 1677 to 2262).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileTime(pub i64);

impl FileTime {
    /// The file time `seconds` after the epoch, saturating at the ends of the range.
    pub fn from_seconds(seconds: i64) -> FileTime {
        FileTime(seconds.saturating_mul(1_000_000_000))
    }

    /// The file time of a system time, saturating at the ends of the range.
    pub fn from_system(time: SystemTime) -> FileTime {
        let (seconds, nanoseconds) = signed_since_epoch(time);
        FileTime(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds)))
    }

    /// Whole seconds since the epoch, rounded toward the past.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    pub fn subsecond_nanoseconds(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }
}

/// Nanoseconds from the year 1, where Go's `time.Truncate` starts to count, to the Unix epoch.
const YEAR_ONE_TO_EPOCH_NS: i128 = 62_135_596_800 * 1_000_000_000;

/// By how many nanoseconds a mirror's copy is older than its source; 0 when they agree, negative when the copy is newer.
///
/// The copy's time is corrected by `timezone_offset_ms`, then both are rounded toward the past to multiples of
/// `precision_ns` as Go's `time.Truncate` does; 0 does not round.
pub fn age_of_copy(source: FileTime, copy: FileTime, timezone_offset_ms: i64, precision_ns: u64) -> i128 {
    if source == copy && timezone_offset_ms == 0 {
        return 0;
    }
    let copy = i128::from(copy.0) + i128::from(timezone_offset_ms) * 1_000_000;
    truncate(i128::from(source.0), precision_ns) - truncate(copy, precision_ns)
}

/// A time rounded toward the past to a multiple of `precision_ns`, counted from the year 1 as Go's `time.Truncate` does. A
/// precision of 0 changes nothing.
pub fn truncate(time_ns: i128, precision_ns: u64) -> i128 {
    match precision_ns {
        0 => time_ns,
        precision => time_ns - (time_ns + YEAR_ONE_TO_EPOCH_NS).rem_euclid(i128::from(precision)),
    }
}

/// Seconds (rounded toward the past) and nanoseconds within the second.
fn signed_since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-whole, 0),
                nanoseconds => (-whole - 1, 1_000_000_000 - nanoseconds),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_round_toward_the_past() {
        let time = UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(FileTime::from_system(time), FileTime(-1_500_000_000));
        assert_eq!(FileTime(-1_500_000_000).seconds(), -2);
        assert_eq!(FileTime(-1_500_000_000).subsecond_nanoseconds(), 500_000_000);
    }

    #[test]
    fn copies_are_compared_at_the_mirror_s_precision() {
        let source = FileTime(1_700_000_000_987_654_321);
        let second = 1_000_000_000;
        assert_eq!(age_of_copy(source, FileTime::from_seconds(1_700_000_000), 0, second), 0);
        assert_eq!(age_of_copy(source, FileTime::from_seconds(1_700_000_001), 0, second), -i128::from(second));
        assert_eq!(age_of_copy(source, FileTime::from_seconds(1_699_996_400), 3_600_000, second), 0);
        assert_eq!(age_of_copy(source, FileTime::from_seconds(1_700_000_000), 0, 0), 987_654_321);
        assert_eq!(age_of_copy(FileTime(-1), FileTime::from_seconds(-1), 0, second), 0);
    }

    #[test]
    fn truncation_counts_from_the_year_one() {
        let (seconds, step, second) = (1_700_000_000_i128, 7, 1_000_000_000);
        let since_year_one = seconds + 62_135_596_800;
        let expected = (since_year_one / step * step - 62_135_596_800) * second;
        assert_eq!(truncate(seconds * second, 7 * second as u64), expected);
        assert_eq!(truncate(-1, second as u64), -second);
        assert_eq!(truncate(123, 0), 123);
    }

    #[test]
    fn elapsed_never_runs_backwards() {
        assert_eq!(Timestamp(10).elapsed_until(Timestamp(4)), Duration::ZERO);
        assert_eq!(Timestamp(4).elapsed_until(Timestamp(10)), Duration::from_secs(6));
    }
}

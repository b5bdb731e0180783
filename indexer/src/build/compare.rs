//! Whether a mirror's copy is the version that the source has: pure, and the same arithmetic as the redirector's.

use mb_core::time::FileTime;

/// Nanoseconds from the year 1, from which Go's `time.Truncate` counts, to the Unix epoch.
const YEAR_ONE_TO_UNIX_NS: i128 = 62_135_596_800 * 1_000_000_000;

/// Rounds a Unix time in nanoseconds toward the past to a multiple of `precision_ns`, counted from the year 1 as Go's
/// `time.Truncate` does. A precision of 0 changes nothing.
pub(crate) fn truncate(unix_ns: i128, precision_ns: u64) -> i128 {
    if precision_ns <= 1 {
        return unix_ns;
    }
    unix_ns - (unix_ns + YEAR_ONE_TO_UNIX_NS).rem_euclid(i128::from(precision_ns))
}

/// How the file times of a mirror are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeReading {
    /// Resolution in nanoseconds; 0 is full resolution.
    pub(crate) precision_ns: u64,
    /// What to add to them, in nanoseconds; 0 where time zones are not corrected.
    pub(crate) offset_ns: i64,
}

impl TimeReading {
    /// Whether a copy with this size and time is the source's version: equal size, and a time that is unknown or equal
    /// after offset and truncation.
    pub(crate) fn is_same_version(self, source: (u64, FileTime), copy: (u64, Option<FileTime>)) -> bool {
        if source.0 != copy.0 {
            return false;
        }
        let Some(copy_time) = copy.1 else {
            return true;
        };
        let corrected = i128::from(copy_time.0) + i128::from(self.offset_ns);
        let source_time = i128::from(source.1.0);
        corrected == source_time || truncate(corrected, self.precision_ns) == truncate(source_time, self.precision_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn truncation_rounds_toward_the_past() {
        assert_eq!(truncate(1_999_999_999, SECOND), 1_000_000_000);
        assert_eq!(truncate(-1, SECOND), -1_000_000_000);
        assert_eq!(truncate(-1_000_000_000, SECOND), -1_000_000_000);
        assert_eq!(truncate(123, 0), 123);
    }

    #[test]
    fn truncation_counts_from_the_year_one() {
        let (seconds, step) = (1_700_000_000_i128, 7);
        let since_year_one = seconds + 62_135_596_800;
        let expected = (since_year_one / step * step - 62_135_596_800) * 1_000_000_000;
        assert_ne!(62_135_596_800 % step, 0, "else the epoch would do as well");
        assert_eq!(truncate(seconds * 1_000_000_000, 7 * SECOND), expected);
    }

    #[test]
    fn versions_differ_by_size_or_time() {
        let reading = TimeReading { precision_ns: SECOND, offset_ns: 0 };
        let source = (10, FileTime(5_900_000_000));
        assert!(reading.is_same_version(source, (10, Some(FileTime(5_000_000_000)))));
        assert!(reading.is_same_version(source, (10, None)));
        assert!(!reading.is_same_version(source, (11, None)));
        assert!(!reading.is_same_version(source, (10, Some(FileTime(6_000_000_000)))));
    }

    #[test]
    fn the_offset_is_added_to_the_copy() {
        let reading = TimeReading { precision_ns: SECOND, offset_ns: 3_600_000_000_000 };
        let source = (10, FileTime(7_200_000_000_000));
        assert!(reading.is_same_version(source, (10, Some(FileTime(3_600_000_000_000)))));
        assert!(!reading.is_same_version(source, (10, Some(source.1))));
    }
}

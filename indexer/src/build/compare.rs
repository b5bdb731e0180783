//! Whether a mirror's copy is the version that the source has: pure, and the same arithmetic as the redirector's.

use mb_core::time::{FileTime, age_of_copy};

/// How the file times of a mirror are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeReading {
    /// Resolution in nanoseconds; 0 is full resolution.
    pub(crate) precision_ns: u64,
    /// What to add to them, in milliseconds; 0 where time zones are not corrected.
    pub(crate) offset_ms: i64,
}

impl TimeReading {
    /// Whether a copy with this size and time is the source's version: equal size, and a time that is unknown or equal
    /// after offset and truncation.
    pub(crate) fn is_same_version(self, source: (u64, FileTime), copy: (u64, Option<FileTime>)) -> bool {
        source.0 == copy.0
            && copy.1.is_none_or(|modified| age_of_copy(source.1, modified, self.offset_ms, self.precision_ns) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn versions_differ_by_size_or_time() {
        let reading = TimeReading { precision_ns: SECOND, offset_ms: 0 };
        let source = (10, FileTime(5_900_000_000));
        assert!(reading.is_same_version(source, (10, Some(FileTime(5_000_000_000)))));
        assert!(reading.is_same_version(source, (10, None)));
        assert!(!reading.is_same_version(source, (11, None)));
        assert!(!reading.is_same_version(source, (10, Some(FileTime(6_000_000_000)))));
    }

    #[test]
    fn the_offset_is_added_to_the_copy() {
        let reading = TimeReading { precision_ns: SECOND, offset_ms: 3_600_000 };
        let source = (10, FileTime(7_200_000_000_000));
        assert!(reading.is_same_version(source, (10, Some(FileTime(3_600_000_000_000)))));
        assert!(!reading.is_same_version(source, (10, Some(source.1))));
    }
}

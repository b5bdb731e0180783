//! Finding out that a mirror's clock or listing is off by a constant: pure.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::time::{FileTime, truncate};

/// Files compared at most.
pub(crate) const SAMPLE: usize = 100;

/// Fewer pairs than this say nothing.
const FEWEST_PAIRS: usize = 10;

/// A file that source and mirror both have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommonFile {
    /// Size and modification time of the source.
    pub(crate) source: (u64, FileTime),
    /// Size and modification time of the mirror's copy.
    pub(crate) copy: (u64, Option<FileTime>),
}

/// Why no offset was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoOffset {
    /// Too few files to compare.
    #[error("{usable} of {sampled} common files have the same size, too few to tell the time zone offset")]
    TooFew {
        /// Pairs of equal size and known time.
        usable: usize,
        /// Files looked at.
        sampled: usize,
    },
    /// The differences are not alike.
    #[error("the file times of source and mirror differ by no common amount")]
    NoCommonOffset,
}

/// What to add to the mirror's file times to get those of the source, in milliseconds: the difference that at least 90 %
/// of the files of equal size have. `sample` holds up to [`SAMPLE`] random common files.
pub(crate) fn detect_offset(sample: &[CommonFile], precision_ns: u64) -> Result<i64, NoOffset> {
    let mut differences: Vec<i64> = sample
        .iter()
        .filter(|file| file.source.0 == file.copy.0)
        .filter_map(|file| {
            let milliseconds = |time: FileTime| truncate(i128::from(time.0), precision_ns).div_euclid(1_000_000);
            i64::try_from(milliseconds(file.source.1).checked_sub(milliseconds(file.copy.1?))?).ok()
        })
        .collect();
    let usable = differences.len();
    if usable < FEWEST_PAIRS || usable < sample.len().div_ceil(2) {
        return Err(NoOffset::TooFew { usable, sampled: sample.len() });
    }
    differences.sort_unstable();
    let most = differences.chunk_by(|a, b| a == b).max_by_key(|group| group.len());
    match most {
        // 90 %: at most a tenth is in no common group.
        Some(group @ [offset, ..]) if usable.saturating_sub(group.len()) <= usable / 10 => Ok(*offset),
        _ => Err(NoOffset::NoCommonOffset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn files(count: usize, offset_seconds: i64, same_size: bool) -> Vec<CommonFile> {
        (0..count)
            .map(|n| {
                let time = FileTime(1_700_000_000_123_456_789 + n as i64 * 777_777_777_777);
                let copy = FileTime::from_seconds(time.seconds() - offset_seconds);
                CommonFile { source: (5, time), copy: (if same_size { 5 } else { 6 }, Some(copy)) }
            })
            .collect()
    }

    fn mixed(parts: &[Vec<CommonFile>]) -> Vec<CommonFile> {
        parts.concat()
    }

    #[test]
    fn ninety_percent_decide() {
        assert_eq!(detect_offset(&files(100, 3600, true), SECOND), Ok(3_600_000));
        assert_eq!(detect_offset(&files(100, -7200, true), SECOND), Ok(-7_200_000));
        assert_eq!(detect_offset(&files(100, 0, true), SECOND), Ok(0));
        let nine_in_ten = mixed(&[files(90, 3600, true), files(10, 0, true)]);
        assert_eq!(detect_offset(&nine_in_ten, SECOND), Ok(3_600_000));
        let fewer = mixed(&[files(89, 3600, true), files(11, 0, true)]);
        assert_eq!(detect_offset(&fewer, SECOND), Err(NoOffset::NoCommonOffset));
    }

    #[test]
    fn too_few_usable_files_say_nothing() {
        assert_eq!(detect_offset(&files(9, 3600, true), SECOND), Err(NoOffset::TooFew { usable: 9, sampled: 9 }));
        assert_eq!(detect_offset(&files(10, 3600, true), SECOND), Ok(3_600_000));
        let half = mixed(&[files(50, 3600, true), files(50, 3600, false)]);
        assert_eq!(detect_offset(&half, SECOND), Ok(3_600_000));
        let less = mixed(&[files(49, 3600, true), files(51, 3600, false)]);
        assert_eq!(detect_offset(&less, SECOND), Err(NoOffset::TooFew { usable: 49, sampled: 100 }));
    }

    #[test]
    fn unknown_times_are_no_pairs() {
        let mut sample = files(20, 3600, true);
        sample[..15].iter_mut().for_each(|file| file.copy.1 = None);
        assert_eq!(detect_offset(&sample, SECOND), Err(NoOffset::TooFew { usable: 5, sampled: 20 }));
    }
}

//! What a shard counted between two hand-overs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mb_core::mirror::MirrorId;
use mb_index::FileIndex;
use time::{Date, UtcDateTime};

/// Most sightings of one tally. More come only when the flusher does not keep up; they are then counted each.
const SIGHTINGS_MAX: usize = 65_536;

/// Most downloads listed one by one: a megabyte, and more than a shard answers between two hand-overs.
const LISTED_MAX: usize = 65_536;

/// A download, by rows.
///
/// The mirror's id is not here, since looking it up would be a miss of the cache on the shard; the file's size is, since the
/// shard has just used it, and it would be such a miss on the flusher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Download {
    /// Row of the file.
    pub file: u32,
    /// Row of the mirror that it was downloaded from.
    pub mirror: u32,
    /// Size of the file in bytes.
    pub size: u64,
}

/// Downloads of one UTC day from one generation of the files, with the same mirrors in the same rows.
pub struct Tally {
    /// What the files' rows are rows of. Dropped by the flusher, so that no shard ever unmaps memory.
    pub files: Arc<FileIndex>,
    /// The mirrors, by row.
    pub mirrors: Arc<[MirrorId]>,
    /// Number of the day since 1970-01-01 UTC.
    pub day: i64,
    /// What counts, one by one: whoever takes the tally over adds it up, since a shard has better things to do.
    listed: Vec<Download>,
    /// What was added up all the same, when the flusher did not keep up. Clients choose the rows: hence the standard
    /// hasher, which has a secret.
    summed: HashMap<Download, u64>,
    /// What counts unless it goes on from an earlier request.
    pub sightings: Vec<RangeRequest>,
}

/// A request for a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Stands for client and file; see [`super::download_dedup`].
    pub hash: u128,
    /// When it was answered.
    pub at: Instant,
    /// How long after it another one is the same download.
    pub interval: Duration,
    /// What it would count for.
    pub download: Download,
}

impl Tally {
    /// An empty tally that uses the memory of `spare`, which is empty.
    pub fn new(files: Arc<FileIndex>, mirrors: Arc<[MirrorId]>, day: i64, spare: Vec<Download>) -> Tally {
        Tally { files, mirrors, day, listed: spare, summed: HashMap::new(), sightings: Vec::new() }
    }

    /// Whether downloads of `files` from `mirrors` on `day` belong into this tally. A mirror that goes up or down changes no
    /// row, and fills no tally.
    pub fn takes(&self, files: &Arc<FileIndex>, mirrors: &Arc<[MirrorId]>, day: i64) -> bool {
        let same_mirrors = Arc::ptr_eq(&self.mirrors, mirrors) || self.mirrors == *mirrors;
        self.day == day && Arc::ptr_eq(&self.files, files) && same_mirrors
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.summed.is_empty() && self.sightings.is_empty()
    }

    /// Counts a download.
    #[inline]
    pub fn count(&mut self, download: Download) {
        if self.listed.len() == LISTED_MAX {
            for download in self.listed.drain(..) {
                *self.summed.entry(download).or_default() += 1;
            }
        }
        self.listed.push(download);
    }

    /// Hands each download and how often it was counted to `each`, the same one perhaps many times. Returns the memory of
    /// the list, to be used again.
    pub fn add_up(mut self, mut each: impl FnMut(Download, u64)) -> Vec<Download> {
        for download in self.listed.drain(..) {
            each(download, 1);
        }
        for (download, requests) in self.summed {
            each(download, requests);
        }
        self.listed
    }

    /// Counts a request that may belong to a download which was counted before.
    pub fn sight(&mut self, request: RangeRequest) {
        if self.sightings.len() < SIGHTINGS_MAX {
            self.sightings.push(request);
        } else {
            self.count(request.download);
        }
    }
}

/// The number of the UTC day of a Unix time in seconds.
pub fn day_of(second: i64) -> i64 {
    second.div_euclid(86_400)
}

/// The date of a day's number; the last of the calendar for one outside.
pub fn date_of(day: i64) -> Date {
    UtcDateTime::from_unix_timestamp(day.saturating_mul(86_400)).map_or(Date::MAX, UtcDateTime::date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_change_at_midnight_utc() {
        const MIDNIGHT: i64 = 1_795_305_600;
        assert_eq!(date_of(day_of(MIDNIGHT)).to_string(), "2026-11-22");
        assert_eq!(date_of(day_of(MIDNIGHT - 1)).to_string(), "2026-11-21");
        assert_eq!(date_of(day_of(-1)).to_string(), "1969-12-31");
        assert_eq!(date_of(i64::MAX), Date::MAX);
    }
}

//! What a shard counted between two hand-overs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mb_core::mirror::MirrorId;
use mb_index::FileIndex;
use time::{Date, UtcDateTime};

/// Most sightings of one tally. More come only when the flusher does not keep up; they are then counted each.
const SIGHTINGS_MAX: usize = 65_536;

/// Row of a file, and the mirror that it was downloaded from.
pub type Download = (u32, MirrorId);
/// How often each download was counted. Clients choose the rows: hence the standard hasher, which has a secret.
pub type Downloads = HashMap<Download, u64>;

/// Downloads of one UTC day from one generation of the files.
pub struct Tally {
    /// What rows are rows of. Dropped by the flusher, so that no shard ever unmaps memory.
    pub files: Arc<FileIndex>,
    /// Number of the day since 1970-01-01 UTC.
    pub day: i64,
    /// What counts.
    pub downloads: Downloads,
    /// What counts unless it goes on from an earlier request.
    pub sightings: Vec<RangeRequest>,
}

/// A request for a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Stands for client and file; see [`super::same_download`].
    pub hash: u128,
    /// When it was answered.
    pub at: Instant,
    /// How long after it another one is the same download.
    pub interval: Duration,
    /// What it would count for.
    pub download: Download,
}

impl Tally {
    /// An empty tally that uses the memory of `downloads`, which is empty.
    pub fn new(files: Arc<FileIndex>, day: i64, downloads: Downloads) -> Tally {
        Tally { files, day, downloads, sightings: Vec::new() }
    }

    /// Whether downloads of `files` on `day` belong into this tally.
    pub fn takes(&self, files: &Arc<FileIndex>, day: i64) -> bool {
        self.day == day && Arc::ptr_eq(&self.files, files)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.downloads.is_empty() && self.sightings.is_empty()
    }

    /// Counts a download.
    pub fn count(&mut self, download: Download) {
        *self.downloads.entry(download).or_default() += 1;
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

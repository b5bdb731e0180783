//! Messages between the daemon and `mb-indexer run`, over the unix socket `StateDir/indexer.sock`.
//!
//! The indexer listens; a client writes one [`Request`] as a line of JSON and reads [`Event`]s, one a line, until one that
//! is not [`Event::Progress`]. Closing the connection early cancels the work that the request started. JSON
//! lines are slow and plain on purpose: they can be read and written by hand, and nothing here is on a request's path.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::mirror::{MirrorId, ScanProtocol};
use crate::time::Timestamp;

/// Bytes of one line at most: the activity of 100,000 mirrors is half of it. A longer line ends the
/// conversation, so that a defect of one program takes no memory without bound from the other.
pub const MAX_LINE: usize = 32 << 20;

/// Where the indexer of a state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("indexer.sock")
}

/// What the daemon asks of the indexer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Mirror records changed in the store: check and scan what became due. Answered by `Done` at once.
    MirrorsChanged {
        /// The mirrors concerned; removed ones too.
        ids: Vec<MirrorId>,
    },
    /// Scan a mirror now and publish the result.
    ScanMirror {
        /// Which one.
        id: MirrorId,
        /// Enable the mirror when the scan succeeds.
        enable: bool,
        /// The protocol to use; by default the first that the mirror offers and that succeeds.
        protocol: Option<ScanProtocol>,
    },
    /// Scan the source repository now and publish the result.
    ScanSource {
        /// Hash every file again.
        rehash: bool,
        /// Accept a repository that lost more than half of its files.
        force: bool,
    },
    /// Read the configuration file again and build the index with it.
    Reload,
    /// Tell what was done since the start. Answered by `Activity` at once.
    Activity,
}

/// What the indexer answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Work goes on; sent at most a few times a second.
    Progress {
        /// What is being done, for people.
        message: String,
    },
    /// The request is done and its result published.
    Done {
        /// Figures of a mirror scan.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        scan: Option<ScanReport>,
        /// Figures of a source scan.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        source: Option<SourceReport>,
    },
    /// What the indexer did since it was started.
    Activity(Activity),
    /// The request failed; what was stored before still is.
    Failed {
        /// What happened, to what, and what to do.
        message: String,
    },
}

/// Figures of a mirror scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Whether the scan enabled the mirror.
    pub enabled: bool,
    /// Files found on the mirror.
    pub files_indexed: u64,
    /// Of these, files that the source has, too.
    pub known_indexed: u64,
    /// Files that are gone since the mirror's last scan.
    pub removed: u64,
    /// Correction of the mirror's file times, in milliseconds.
    pub timezone_offset_ms: i64,
}

/// Figures of a source scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Files in the repository.
    pub files: u64,
    /// Files hashed by this scan.
    pub hashed: u64,
    /// Files gone since the last scan.
    pub removed: u64,
    /// Files that could not be read and keep their earlier entry.
    pub unreadable: u64,
}

/// What an indexer did since it was started. Counts only grow until it is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Scans of the source repository.
    pub source: ScanActivity,
    /// Scans of each mirror that was scanned, by ascending id; removed ones may be among them.
    pub mirrors: Vec<(MirrorId, ScanActivity)>,
    /// Health checks.
    pub checks: CheckActivity,
    /// Jobs that a panic ended, whatever their sort.
    #[serde(default)]
    pub job_panics: u64,
}

impl Activity {
    /// Scans of `mirror`, if there were any.
    pub fn of_mirror(&self, mirror: MirrorId) -> Option<&ScanActivity> {
        let place = self.mirrors.binary_search_by_key(&mirror, |(id, _)| *id).ok()?;
        Some(&self.mirrors[place].1)
    }
}

/// Scans of one tree of files. A scan that was put off since another process scans the same is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanActivity {
    /// Scans whose result is in the index.
    pub completed: u64,
    /// Scans that failed, at whatever step.
    pub failed: u64,
    /// How long all of them took together, in milliseconds.
    pub total_ms: u64,
    /// How long the latest completed one took, in milliseconds.
    pub last_ms: u64,
    /// Files that the latest completed one found.
    pub files: u64,
    /// When the latest completed one ended.
    pub last_completed: Timestamp,
}

/// Health checks, each of one mirror over one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckActivity {
    /// The mirror was found up.
    pub up: u64,
    /// The mirror was found down.
    pub down: u64,
    /// Of both, checks whose result could not be stored.
    pub unstored: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map by number would be written and could not be read: serde takes the keys of a tagged value for text.
    #[test]
    fn an_account_with_mirrors_can_be_read() {
        let scans = ScanActivity { completed: 2, files: 7, ..ScanActivity::default() };
        let activity = Activity { mirrors: vec![(MirrorId(3), scans.clone())], ..Activity::default() };
        let line = serde_json::to_string(&Event::Activity(activity.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), Event::Activity(activity.clone()));
        assert_eq!((activity.of_mirror(MirrorId(3)), activity.of_mirror(MirrorId(4))), (Some(&scans), None));
    }
}

//! Messages between the daemon and `mb-indexer run`, over the unix socket `StateDir/indexer.sock`.
//!
//! The indexer listens; a client writes one [`Request`] as a line of JSON and reads [`Event`]s, one a line, until
//! [`Event::Done`] or [`Event::Failed`]. Closing the connection early cancels the work that the request started. JSON
//! lines are slow and plain on purpose: they can be read and written by hand, and nothing here is on a request's path.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::mirror::{MirrorId, ScanProtocol};

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

//! Entries of a mirror's log.

use serde::{Deserialize, Serialize};

use crate::mirror::{DownloadProtocol, MirrorId, ScanProtocol};
use crate::time::Timestamp;

/// One entry of a mirror's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The mirror concerned.
    pub mirror: MirrorId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: LogEvent,
}

/// What happened to a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEvent {
    /// A scan or check failed.
    Error(String),
    /// The mirror was added.
    Added,
    /// Its settings were changed.
    Edited,
    /// It was enabled.
    Enabled,
    /// It was disabled.
    Disabled,
    /// It went up or down over one protocol.
    StateChanged {
        /// Over which protocol.
        protocol: DownloadProtocol,
        /// Whether it is up now.
        up: bool,
        /// Why it is down.
        reason: String,
    },
    /// A scan started.
    ScanStarted(ScanProtocol),
    /// A scan was completed.
    ScanCompleted {
        /// Files found on the mirror.
        files_indexed: u64,
        /// Of these, files that the source has, too.
        known_indexed: u64,
        /// Files gone since the last scan.
        removed: u64,
        /// Correction of the mirror's file times, in milliseconds.
        timezone_offset_ms: i64,
    },
}

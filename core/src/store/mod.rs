//! The store: mirror records, source file facts and mirror logs, behind one set of typed operations.
//!
//! It is written and read by both programs at once and is never on a request's path: what requests need is published in
//! the index. Operations block, so asynchronous callers run them on a blocking thread.
//!
//! Each method is one transaction: it happens as a whole or not at all.

use crate::mirror::{DownloadProtocol, Mirror, MirrorId, MirrorSettings, ScanProtocol};
use crate::time::{FileTime, Timestamp};

mod embedded;
mod log;

pub use embedded::EmbeddedStore;
pub use log::{LogEntry, LogEvent};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No mirror has this id.
    #[error("no mirror has the id {0}")]
    UnknownMirror(MirrorId),
    /// Another mirror has this name.
    #[error("name already taken")]
    NameTaken,
    /// The database cannot be used; the text names it, the cause and the way out.
    #[error("{0}")]
    Database(String),
}

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Hashes of a source file; `None` where not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileHashes {
    /// SHA-1 digest.
    pub sha1: Option<[u8; 20]>,
    /// SHA-256 digest.
    pub sha256: Option<[u8; 32]>,
    /// MD5 digest.
    pub md5: Option<[u8; 16]>,
}

/// What a path of the source repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEntryKind {
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Modification time.
        modified: FileTime,
        /// Those of its hashes that were computed.
        hashes: FileHashes,
    },
    /// A directory.
    Directory,
    /// A symbolic link inside the repository.
    Alias {
        /// Where it leads after all links are resolved: an absolute repository path of a file or directory.
        target: Vec<u8>,
    },
    /// A symbolic link that leaves the repository.
    Forbidden,
}

/// One path of the source repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEntry {
    /// Absolute within the repository: `/a/b.iso`. Bytes, since file names need not be UTF-8.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: SourceEntryKind,
}

/// The difference that a source scan makes.
#[derive(Clone, Debug, Default)]
pub struct SourceChanges {
    /// New and changed entries.
    pub upserts: Vec<SourceEntry>,
    /// Paths that are gone.
    pub removals: Vec<Vec<u8>>,
}

/// What a completed mirror scan writes into the mirror's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRecord {
    /// When the scan started.
    pub started: Timestamp,
    /// How the files were listed.
    pub protocol: ScanProtocol,
    /// Resolution of the listed file times, in nanoseconds.
    pub precision_ns: u64,
    /// Correction of the mirror's file times, in milliseconds.
    pub timezone_offset_ms: i64,
    /// Content of the trace file, where there is one.
    pub last_mod_time: Option<Timestamp>,
}

/// Mirrors, source files and mirror logs.
pub trait Store: Send + Sync {
    /// All mirrors by ascending id.
    fn mirrors(&self) -> Result<Vec<Mirror>>;

    /// Adds a mirror, disabled and not yet checked, and returns its id.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    fn add_mirror(&self, settings: &MirrorSettings) -> Result<MirrorId>;

    /// Replaces the settings of a mirror and leaves its state alone.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`], [`StoreError::NameTaken`].
    fn update_settings(&self, id: MirrorId, settings: &MirrorSettings) -> Result<()>;

    /// Removes a mirror with its log. Its id is never given out again.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn remove_mirror(&self, id: MirrorId) -> Result<()>;

    /// Enables or disables a mirror; `since` becomes `now` when that is a change. Returns whether it was one.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn set_enabled(&self, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool>;

    /// Writes the outcome of a health check; `down_reason` of `None` means up. `since` becomes `now` when up or down
    /// changed. Returns whether the record changed at all (a new reason is a change).
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn set_health(
        &self,
        id: MirrorId,
        protocol: DownloadProtocol,
        down_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool>;

    /// Notes that a scan of the mirror started.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn record_sync_attempt(&self, id: MirrorId, started: Timestamp) -> Result<()>;

    /// Notes that a scan of the mirror was completed. Without a trace file, `last_mod_time` stays as it was.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn record_sync(&self, id: MirrorId, sync: &SyncRecord) -> Result<()>;

    /// Hands every source entry to `visit`, by ascending path (byte order), as one consistent snapshot. `visit` may use
    /// the store; it goes on seeing the snapshot.
    fn source_entries(&self, visit: &mut dyn FnMut(SourceEntry)) -> Result<()>;

    /// Applies the difference of a source scan, in any order of paths; removals come first.
    fn apply_source_changes(&self, changes: &SourceChanges) -> Result<()>;

    /// Appends to a mirror's log, which keeps its newest [`LOG_ENTRIES_KEPT`] entries.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn append_log(&self, entry: &LogEntry) -> Result<()>;

    /// The newest `limit` entries of a mirror's log, oldest first.
    fn mirror_log(&self, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>>;
}

/// How many entries a mirror's log keeps (spec: the newest 10,000).
pub const LOG_ENTRIES_KEPT: usize = 10_000;

//! The store: mirror records, source file facts, mirror logs and statistics, behind one set of typed operations.
//!
//! It is written and read by both programs at once and is never on a request's path: what requests need is published in
//! the index. Operations block, so asynchronous callers run them on a blocking thread.
//!
//! - `embedded`: the backend without a server, an SQLite file in the state directory
//! - `redis`: the backend for several nodes, in the keys of Mirrorbits
//! - `batch`: changes of many mirrors at once
//! - `log`, `stats`: what is logged and counted
//! - [`known_downloads`]: range deduplication between nodes
//! - `lease`: work that only one node does at a time
//! - `scan`: what one node found on a mirror, for the others
//! - `watch`: changes made by other nodes and outside tools
//! - [`migrate`]: everything from one backend to the other
//!
//! Each method is one transaction, unless it says otherwise: it happens as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::time::Date;

use crate::config::{Config, DatabaseKind, StatsRetention};
use crate::mirror::{DownloadProtocol, InvalidMirror, Mirror, MirrorId, MirrorSettings, ScanProtocol};
use crate::time::{FileTime, Timestamp};

mod batch;
mod embedded;
pub mod known_downloads;
mod lease;
mod log;
pub mod migrate;
mod redis;
mod reopening;
mod scan;
mod stats;
mod watch;

#[cfg(fuzzing)]
pub use self::redis::fuzzing;
pub use batch::MirrorEdit;
pub use embedded::EmbeddedStore;
pub use lease::{Lease, LeaseName};
pub use log::{LogEntry, LogEvent};
pub use redis::RedisStore;
pub use reopening::ReopeningStore;
pub use scan::{ScanBlockKey, ScanGeneration, SharedScan, SharedScanHead};
pub use stats::{Counts, DateRange, FileDownloads, Period, Sighting, StatsBatch, Traffic};
pub use watch::{Change, ChangeWatch};

/// Opens the store that the configuration names.
///
/// Redis may be away: then its operations fail, each with the reason, until it is back.
///
/// # Errors
/// [`StoreError::Database`] when what is stored cannot be used by this program, or the embedded database cannot be opened.
pub fn open(config: &Config) -> Result<Arc<dyn Store>> {
    match config.database {
        DatabaseKind::Embedded => Ok(Arc::new(EmbeddedStore::open(&config.state_dir)?)),
        DatabaseKind::Redis => Ok(Arc::new(RedisStore::open(&config.redis)?)),
    }
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No mirror has this id.
    #[error("no mirror has the id {0}")]
    UnknownMirror(MirrorId),
    /// Another mirror has this name.
    #[error("name already taken")]
    NameTaken,
    /// One change of a batch cannot be made, so that none is.
    #[error("{mirror}: {cause}; no mirror was changed")]
    Batch {
        /// The mirror that it is about.
        mirror: String,
        /// Why it cannot be made.
        cause: Box<StoreError>,
    },
    /// The record of this mirror breaks a rule, so that it is not used.
    #[error("mirror {mirror} is invalid: {invalid}")]
    InvalidMirror {
        /// Its name.
        mirror: String,
        /// The rule.
        invalid: InvalidMirror,
    },
    /// What another node shared of a scan cannot be used.
    #[error("the shared scan result of mirror {mirror} cannot be used: {what}")]
    DamagedScan {
        /// The mirror scanned.
        mirror: MirrorId,
        /// What is wrong.
        what: String,
    },
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

/// Mirrors, source files, mirror logs and statistics.
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

    /// Removes a mirror with its log and its shared scan result. Its id is never given out again.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn remove_mirror(&self, id: MirrorId) -> Result<()>;

    /// Makes all of `edits`, each of another mirror, with their entries in the mirrors' logs, or none of them. Returns the ids of the
    /// mirrors concerned, in the order of `edits`.
    ///
    /// # Errors
    /// [`StoreError::Batch`] with the first that cannot be made.
    fn apply_mirrors(&self, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>>;

    /// Enables or disables a mirror; `since` becomes `now` when that is a change. Returns whether it was one.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn set_enabled(&self, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool>;

    /// Writes the outcome of a health check; `down_reason` of `None` means up. `since` becomes `now` when up or down
    /// changed, or was not known. Returns whether the record changed at all (a new reason is a change).
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

    /// Hands every source entry to `visit`, by ascending path (byte order). `visit` may use the store.
    ///
    /// The embedded store shows one consistent snapshot. Redis shows each entry that stays as it is once; one that changes
    /// meanwhile comes as it was, as it is, or not at all.
    fn source_entries(&self, visit: &mut dyn FnMut(SourceEntry)) -> Result<()>;

    /// Applies the difference of a source scan, in any order of paths; removals come first.
    ///
    /// The embedded store applies all of it as one transaction. Redis, which answers nobody else meanwhile, applies it by
    /// parts, each as a whole: after a failure, the next scan finds and stores what is missing.
    fn apply_source_changes(&self, changes: &SourceChanges) -> Result<()>;

    /// Appends to a mirror's log, which keeps its newest [`LOG_ENTRIES_KEPT`] entries.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn append_log(&self, entry: &LogEntry) -> Result<()>;

    /// The newest `limit` entries of a mirror's log, oldest first.
    fn mirror_log(&self, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>>;

    /// Adds what a node counted, unless the node's batch of this sequence number or a later one was added before: a batch
    /// whose answer was lost may be sent again. Returns whether it was added now.
    fn add_stats(&self, batch: &StatsBatch) -> Result<bool>;

    /// The sequence number of the last batch of `node` that was added; 0 when there was none.
    fn last_stats_sequence(&self, node: &str) -> Result<u64>;

    /// Downloads in `range`, or since ever, of the files whose path is `wanted`; files without any are left out.
    fn file_downloads(
        &self,
        range: Option<DateRange>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, u64>>;

    /// Downloads of one file up to `day`.
    fn downloads_of_file(&self, path: &[u8], day: Date) -> Result<FileDownloads>;

    /// Downloads of one file in one period.
    fn downloads_in(&self, path: &[u8], period: Period) -> Result<u64>;

    /// Notes requests of downloads, and tells of each sighting whether it continues no download that was noted before, by
    /// whatever node. A store of one node has nothing to tell: all are new to it.
    fn note_sightings(&self, sightings: &[Sighting]) -> Result<Vec<bool>> {
        Ok(vec![true; sightings.len()])
    }

    /// Drops the counts of the periods that `retention` lets go of on the day `today`, one transaction each. Returns how
    /// many periods that were.
    fn prune_stats(&self, retention: StatsRetention, today: Date) -> Result<usize>;

    /// Traffic in `range`, or since ever, of each mirror that had any, removed ones included.
    fn mirror_traffic(&self, range: Option<DateRange>) -> Result<BTreeMap<MirrorId, Traffic>>;

    /// All downloads since ever.
    fn total_downloads(&self) -> Result<u64>;

    /// Whether the store answers and would take changes: a cheap question, to be asked every few
    /// seconds.
    fn check(&self) -> Result<()> {
        self.total_downloads().map(drop)
    }

    /// What tells whether the shared scan results of `ids` are others than those at hand, in the same order: a cheap question.
    /// `None` where there is none that can be read. The embedded store, which one node has for itself, never has any.
    fn shared_scans(&self, ids: &[MirrorId]) -> Result<Vec<Option<SharedScanHead>>>;

    /// The shared scan result of a mirror.
    ///
    /// # Errors
    /// [`StoreError::DamagedScan`].
    fn shared_scan(&self, id: MirrorId) -> Result<Option<SharedScan>>;

    /// Hands the compressed data of those of `blocks` that are there to `visit`, as it is there: damaged data, too.
    fn scan_blocks(&self, blocks: &[ScanBlockKey], visit: &mut dyn FnMut(ScanBlockKey, Vec<u8>)) -> Result<()>;

    /// Adds the compressed data of blocks, which [`Store::share_scan`] said were missing; not one transaction, since Redis
    /// answers nobody else while it takes one.
    fn add_scan_blocks(&self, blocks: &[(ScanBlockKey, Vec<u8>)]) -> Result<()>;

    /// Puts `scan` in the place of the shared scan result of a mirror, unless blocks of it are missing: these are returned, and
    /// nothing is changed. The embedded store takes it and keeps nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownMirror`].
    fn share_scan(&self, id: MirrorId, scan: &SharedScan) -> Result<Vec<ScanBlockKey>>;

    /// Forgets the data of blocks that were found damaged, so that who shares a result with them adds it anew.
    fn discard_scan_blocks(&self, blocks: &[ScanBlockKey]) -> Result<()>;

    /// Takes or extends a lease; [`Lease`] is the way to call it. Returns whether `holder` has it now.
    fn take_lease(&self, name: LeaseName, holder: &str, duration: Duration) -> Result<bool>;

    /// Ends a lease if `holder` has it; [`Lease`] calls it.
    fn give_lease_back(&self, name: LeaseName, holder: &str) -> Result<()>;

    /// Calls `on_change` on a thread of its own for each change of a mirror in the store, whoever made it, until the watch is
    /// dropped. The embedded store, which one node has for itself, never calls it. In
    /// Redis, a node that watches is announced to the others.
    fn watch_changes(&self, on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch;
}

/// How many entries a mirror's log keeps (spec: the newest 10,000).
pub const LOG_ENTRIES_KEPT: usize = 10_000;

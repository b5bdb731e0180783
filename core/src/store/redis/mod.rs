//! The Redis backend: the keys of Mirrorbits' database format 2, so that an existing database and outside tools work on.
//! For Redis 5 or later and Valkey, alone or behind Sentinels, with password and TLS.
//!
//! - [`keys`]: the names of keys and channels
//! - [`records`], [`file_facts`], [`logs`]: the forms of their values
//! - [`batch`], [`mirrors`], [`source`], [`stats`], [`sightings`], [`leases`], [`scans`]: the operations
//! - [`watch`]: changes made by others; [`cluster`]: telling them that this node is there
//! - [`transfer`]: copying everything, for `mirrorbits migrate`
//! - [`address`], [`connection`], [`version`]: the way to the data, and whether it is ours
//! - [`failure`]: what went wrong, in words that name the place and the way out
//!
//! A server that is away or frozen makes operations fail within seconds; nothing here waits for its return.

mod address;
mod batch;
mod cluster;
mod connection;
mod failure;
mod file_facts;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod leases;
mod logs;
mod mirrors;
mod records;
mod scans;
mod sightings;
mod source;
mod stats;
mod transfer;
mod version;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::Date;

use self::address::Location;
use self::connection::{Pool, Session};
use self::failure::Failure;
use self::version::Purpose;
use super::stats::{DateRange, FileDownloads, Period, Sighting, StatsBatch, Traffic};
use super::{
    Change, ChangeWatch, LeaseName, LogEntry, MirrorEdit, Result, ScanBlockKey, SharedScan, SharedScanHead,
    SourceChanges, SourceEntry, Store, StoreError, SyncRecord,
};
use crate::config::{RedisSettings, StatsRetention};
use crate::mirror::{DownloadProtocol, Mirror, MirrorId, MirrorSettings};
use crate::time::Timestamp;

/// Different warnings that [`warn_once`] remembers; what comes after these is not written, since a program that fills the
/// database with rubbish would fill the log, too.
const WARNINGS_KEPT: usize = 1_000;

/// Writes a warning about stored data unless it was written before: the same data is read again and again.
fn warn_once(warning: String) {
    static WRITTEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if written.len() < WARNINGS_KEPT && !written.contains(&warning) {
        tracing::warn!("{warning}");
        written.insert(warning);
    }
}

const READING_STATS: &str = "reading the statistics";
const READING_SCANS: &str = "reading what other nodes scanned";
const SHARING_SCAN: &str = "sharing a scan result with the other nodes";

/// Store in Redis or Valkey.
pub struct RedisStore {
    pool: Arc<Pool>,
}

impl RedisStore {
    /// Opens the store that `settings` lead to. A server that is away now is no error: operations fail until it is back.
    ///
    /// # Errors
    /// [`StoreError::Database`] when an address is not understood, or the database has a format that is not ours.
    pub fn open(settings: &RedisSettings) -> Result<RedisStore> {
        let store = RedisStore::new(settings, Purpose::Use)?;
        match store.pool.with_session(|_| Ok(())) {
            Err(failure @ Failure::Unusable(_)) => Err(failure.explain(&store.pool.name(), "opening it")),
            Err(failure) => {
                tracing::error!("{}: {}; this is tried again", store.pool.name(), failure.text());
                Ok(store)
            }
            Ok(()) => Ok(store),
        }
    }

    /// Opens a store to copy it, or into it; it must be there now.
    pub(super) fn open_to_migrate(settings: &RedisSettings) -> Result<RedisStore> {
        let store = RedisStore::new(settings, Purpose::Migrate)?;
        store.with_session("opening it", |_| Ok(()))?;
        Ok(store)
    }

    fn new(settings: &RedisSettings, purpose: Purpose) -> Result<RedisStore> {
        let location =
            Location::of(settings).map_err(|cause| StoreError::Database(format!("configuration of redis: {cause}")))?;
        Ok(RedisStore { pool: Arc::new(Pool::new(location, purpose)) })
    }

    fn with_session<T>(
        &self,
        step: &'static str,
        work: impl FnOnce(&mut Session) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.pool.with_session(work).map_err(|failure| failure.explain(&self.pool.name(), step))
    }
}

impl Store for RedisStore {
    fn mirrors(&self) -> Result<Vec<Mirror>> {
        self.with_session("reading the mirrors", mirrors::all)
    }

    fn add_mirror(&self, settings: &MirrorSettings) -> Result<MirrorId> {
        self.with_session("adding a mirror", |session| mirrors::add(session, settings))
    }

    fn update_settings(&self, id: MirrorId, settings: &MirrorSettings) -> Result<()> {
        self.with_session("changing a mirror", |session| mirrors::update_settings(session, id, settings))
    }

    fn remove_mirror(&self, id: MirrorId) -> Result<()> {
        self.with_session("removing a mirror", |session| mirrors::remove(session, id))
    }

    fn apply_mirrors(&self, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>> {
        self.with_session("changing mirrors", |session| batch::apply(session, edits, now))
    }

    fn set_enabled(&self, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool> {
        self.with_session("enabling or disabling a mirror", |session| mirrors::set_enabled(session, id, enabled, now))
    }

    fn set_health(
        &self,
        id: MirrorId,
        protocol: DownloadProtocol,
        down_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool> {
        self.with_session("storing a health check", |session| {
            mirrors::set_health(session, id, protocol, down_reason, now)
        })
    }

    fn record_sync_attempt(&self, id: MirrorId, started: Timestamp) -> Result<()> {
        self.with_session("storing the start of a scan", |session| mirrors::record_sync_attempt(session, id, started))
    }

    fn record_sync(&self, id: MirrorId, sync: &SyncRecord) -> Result<()> {
        self.with_session("storing the end of a scan", |session| mirrors::record_sync(session, id, sync))
    }

    fn source_entries(&self, visit: &mut dyn FnMut(SourceEntry)) -> Result<()> {
        self.with_session("reading the source files", |session| source::visit_all(session, visit))
    }

    fn apply_source_changes(&self, changes: &SourceChanges) -> Result<()> {
        self.with_session("storing the source files", |session| source::apply(session, changes))
    }

    fn append_log(&self, entry: &LogEntry) -> Result<()> {
        self.with_session("appending to a mirror's log", |session| mirrors::append_log(session, entry))
    }

    fn mirror_log(&self, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>> {
        self.with_session("reading a mirror's log", |session| mirrors::newest_log(session, id, limit))
    }

    fn add_stats(&self, batch: &StatsBatch) -> Result<bool> {
        self.with_session("adding to the statistics", |session| stats::add(session, batch))
    }

    fn last_stats_sequence(&self, node: &str) -> Result<u64> {
        self.with_session(READING_STATS, |session| stats::last_sequence(session, node))
    }

    fn file_downloads(
        &self,
        range: Option<DateRange>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, u64>> {
        self.with_session(READING_STATS, |session| stats::file_downloads(session, range, wanted))
    }

    fn downloads_of_file(&self, path: &[u8], day: Date) -> Result<FileDownloads> {
        self.with_session(READING_STATS, |session| stats::downloads_of_file(session, path, day))
    }

    fn downloads_in(&self, path: &[u8], period: Period) -> Result<u64> {
        self.with_session(READING_STATS, |session| stats::downloads_in(session, path, period))
    }

    fn note_sightings(&self, sightings: &[Sighting]) -> Result<Vec<bool>> {
        self.with_session("noting downloads under way", |session| sightings::note(session, sightings))
    }

    fn prune_stats(&self, retention: StatsRetention, today: Date) -> Result<usize> {
        self.with_session("dropping old statistics", |session| {
            let periods = stats::all_periods(session)?;
            let dropped = periods.into_iter().filter(|period| period.is_dropped(retention, today));
            dropped.map(|period| stats::drop_counts(session, period)).sum()
        })
    }

    fn mirror_traffic(&self, range: Option<DateRange>) -> Result<BTreeMap<MirrorId, Traffic>> {
        self.with_session(READING_STATS, |session| stats::mirror_traffic(session, range))
    }

    fn total_downloads(&self) -> Result<u64> {
        self.with_session(READING_STATS, stats::total)
    }

    fn shared_scans(&self, ids: &[MirrorId]) -> Result<Vec<Option<SharedScanHead>>> {
        self.with_session(READING_SCANS, |session| scans::heads(session, ids))
    }

    fn shared_scan(&self, id: MirrorId) -> Result<Option<SharedScan>> {
        self.with_session(READING_SCANS, |session| scans::read(session, id))
    }

    fn scan_blocks(&self, blocks: &[ScanBlockKey], visit: &mut dyn FnMut(ScanBlockKey, Vec<u8>)) -> Result<()> {
        self.with_session(READING_SCANS, |session| scans::visit_blocks(session, blocks, visit))
    }

    fn add_scan_blocks(&self, blocks: &[(ScanBlockKey, Vec<u8>)]) -> Result<()> {
        self.with_session(SHARING_SCAN, |session| scans::add_blocks(session, blocks))
    }

    fn share_scan(&self, id: MirrorId, scan: &SharedScan) -> Result<Vec<ScanBlockKey>> {
        self.with_session(SHARING_SCAN, |session| scans::share(session, id, scan))
    }

    fn discard_scan_blocks(&self, blocks: &[ScanBlockKey]) -> Result<()> {
        self.with_session(SHARING_SCAN, |session| scans::discard_blocks(session, blocks))
    }

    fn take_lease(&self, name: LeaseName, holder: &str, duration: Duration) -> Result<bool> {
        self.with_session("taking a lease", |session| leases::take(session, name, holder, duration))
    }

    fn give_lease_back(&self, name: LeaseName, holder: &str) -> Result<()> {
        self.with_session("giving a lease back", |session| leases::give_back(session, name, holder))
    }

    fn watch_changes(&self, on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch {
        watch::start(Arc::clone(&self.pool), on_change)
    }
}

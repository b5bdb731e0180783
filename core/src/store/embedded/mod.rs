//! The embedded backend: one SQLite file in the state directory, used by the daemon and the indexer at once.
//!
//! - [`schema`]: the tables, their version, and the settings of a connection
//! - [`batch`], [`mirrors`], [`source`], [`logs`], [`stats`], [`leases`]: the statements of each part
//! - [`transfer`]: copying everything, for `mirrorbits migrate`
//! - [`values`]: how the types of the model become columns
//! - [`identity`]: whether the file is the one from before
//! - [`failure`]: what went wrong, in words that name the file and the way out
//!
//! The file is in WAL mode: readers see the last committed state and never wait for a writer, nor it for them. Each
//! process has one connection for writes, one for short reads, each behind a lock of its own, so that reading the mirrors
//! does not wait for a source scan that is being stored. The one long read, [`Store::source_entries`], opens a connection
//! for itself, since it runs the caller's code.

mod batch;
mod failure;
mod identity;
mod leases;
mod logs;
mod mirrors;
mod schema;
mod source;
mod stats;
mod transfer;
mod values;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use time::Date;

use self::failure::Failure;
use self::identity::FileStatus;
use super::stats::{DateRange, FileDownloads, Period, StatsBatch, Traffic};
use super::{
    Change, ChangeWatch, LeaseName, LogEntry, MirrorEdit, Result, ScanBlockKey, SharedScan, SharedScanHead,
    SourceChanges, SourceEntry, Store, StoreError, SyncRecord,
};
use crate::config::StatsRetention;
use crate::mirror::{DownloadProtocol, Mirror, MirrorId, MirrorSettings};
use crate::time::Timestamp;

/// Name of the database file in the state directory; SQLite puts `-wal` and `-shm` files beside it.
const FILE_NAME: &str = "mirrorbits.sqlite";

/// Only the service's own user and group may look into the state directory: mirror records hold passwords.
const STATE_DIR_MODE: u32 = 0o750;

/// Store in an SQLite file.
pub struct EmbeddedStore {
    file: PathBuf,
    /// The file that is open.
    opened: Option<FileStatus>,
    disturbance_told: AtomicBool,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl EmbeddedStore {
    /// Opens the store of a state directory; creates the directory (mode 0750) and an empty store where there is none.
    ///
    /// The directory must be on a local file system: the two processes share memory through the `-shm` file.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the directory or the file cannot be created or used, is not a database of ours, or
    /// is of another version than this program's.
    pub fn open(state_dir: &Path) -> Result<EmbeddedStore> {
        let store = EmbeddedStore::open_to_migrate(state_dir)?;
        // Asked first: a writer may be busy for seconds, and an adopted copy is the rule.
        if store.read("opening it", transfer::stage_of_copy)?.is_some() {
            store.write("opening it", |transaction| transfer::adopt_copy(transaction))?;
        }
        Ok(store)
    }

    /// Opens the store to copy it, or into it.
    pub(super) fn open_to_migrate(state_dir: &Path) -> Result<EmbeddedStore> {
        DirBuilder::new().recursive(true).mode(STATE_DIR_MODE).create(state_dir).map_err(|cause| {
            StoreError::Database(format!(
                "cannot create the state directory {}: {cause}; create it for this program's user, or set StateDir to a \
                 folder that it may write",
                state_dir.display()
            ))
        })?;
        let file = state_dir.join(FILE_NAME);
        let connections = identity::check(&file)
            .and_then(|()| schema::create_or_check(&file))
            .and_then(|mut writer| {
                identity::mark(&mut writer, &file)?;
                Ok((writer, schema::connect(&file)?))
            })
            .map_err(|failure| failure.explain(&file, "opening it"));
        let (writer, reader) = connections?;
        let (opened, disturbance_told) = (FileStatus::of(&file), AtomicBool::new(false));
        Ok(EmbeddedStore { file, opened, disturbance_told, writer: Mutex::new(writer), reader: Mutex::new(reader) })
    }

    /// Runs `change` as one transaction that holds the write lock from its start, so that what it reads stays true.
    fn write<T>(
        &self,
        step: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.check_in_place(step)?;
        let mut connection = lock(&self.writer);
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let outcome = change(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        };
        let outcome = run();
        outcome.map_err(|failure: Failure| failure.explain_on(&connection, &self.file, step))
    }

    /// Fails as [`EmbeddedStore::in_place`] does, and logs the first of these failures.
    fn check_in_place(&self, step: &str) -> Result<()> {
        self.in_place(step).inspect_err(|error| {
            if !self.disturbance_told.swap(true, Ordering::Relaxed) {
                tracing::error!("{error}");
            }
        })
    }

    /// Fails when the path leads to another file than the one that is open, to an emptied one, or
    /// to none: what is written would be lost at the next start. What was stored can still be read,
    /// unless the file was emptied.
    fn in_place(&self, step: &str) -> Result<()> {
        let Some(what) = identity::disturbance(self.opened, &self.file) else {
            self.disturbance_told.store(false, Ordering::Relaxed);
            return Ok(());
        };
        Err(Failure::Unusable(format!(
            "the file {what} while this program uses it, so nothing is written: `mirrorbits export` still reads what it held, \
             unless it was emptied; put it back or restore it from a backup, then start both programs again"
        ))
        .explain(&self.file, step))
    }

    /// Runs `query`, all of whose statements see one consistent state.
    fn read<T>(
        &self,
        step: &'static str,
        query: impl FnOnce(&Connection) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut connection = lock(&self.reader);
        let run = || query(&*connection.transaction()?);
        let outcome = run();
        outcome.map_err(|failure: Failure| failure.explain_on(&connection, &self.file, step))
    }
}

/// A panic while the lock was held leaves the connection usable: its transaction was rolled back.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for EmbeddedStore {
    fn mirrors(&self) -> Result<Vec<Mirror>> {
        self.read("reading the mirrors", mirrors::all)
    }

    fn add_mirror(&self, settings: &MirrorSettings) -> Result<MirrorId> {
        self.write("adding a mirror", |transaction| mirrors::add(transaction, settings))
    }

    fn update_settings(&self, id: MirrorId, settings: &MirrorSettings) -> Result<()> {
        self.write("changing a mirror", |transaction| mirrors::update_settings(transaction, id, settings))
    }

    fn remove_mirror(&self, id: MirrorId) -> Result<()> {
        self.write("removing a mirror", |transaction| mirrors::remove(transaction, id))
    }

    fn apply_mirrors(&self, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>> {
        self.write("changing mirrors", |transaction| batch::apply(transaction, edits, now))
    }

    fn set_enabled(&self, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool> {
        self.write("enabling or disabling a mirror", |transaction| mirrors::set_enabled(transaction, id, enabled, now))
    }

    fn set_health(
        &self,
        id: MirrorId,
        protocol: DownloadProtocol,
        down_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool> {
        self.write("storing a health check", |transaction| {
            mirrors::set_health(transaction, id, protocol, down_reason, now)
        })
    }

    fn record_sync_attempt(&self, id: MirrorId, started: Timestamp) -> Result<()> {
        self.write("storing the start of a scan", |transaction| mirrors::record_sync_attempt(transaction, id, started))
    }

    fn record_sync(&self, id: MirrorId, sync: &SyncRecord) -> Result<()> {
        self.write("storing the end of a scan", |transaction| mirrors::record_sync(transaction, id, sync))
    }

    fn source_entries(&self, visit: &mut dyn FnMut(SourceEntry)) -> Result<()> {
        schema::connect(&self.file)
            .and_then(|connection| source::visit_all(&connection, visit))
            .map_err(|failure| failure.explain(&self.file, "reading the source files"))
    }

    fn apply_source_changes(&self, changes: &SourceChanges) -> Result<()> {
        self.write("storing the source files", |transaction| source::apply(transaction, changes))
    }

    fn append_log(&self, entry: &LogEntry) -> Result<()> {
        self.write("appending to a mirror's log", |transaction| logs::append(transaction, entry))
    }

    fn mirror_log(&self, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>> {
        self.read("reading a mirror's log", |connection| logs::newest(connection, id, limit))
    }

    fn add_stats(&self, batch: &StatsBatch) -> Result<bool> {
        self.write("adding to the statistics", |transaction| stats::add(transaction, batch))
    }

    fn last_stats_sequence(&self, node: &str) -> Result<u64> {
        self.read(READING_STATS, |connection| stats::last_sequence(connection, node))
    }

    fn file_downloads(
        &self,
        range: Option<DateRange>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, u64>> {
        self.read(READING_STATS, |connection| stats::file_downloads(connection, range, wanted))
    }

    fn downloads_of_file(&self, path: &[u8], day: Date) -> Result<FileDownloads> {
        self.read(READING_STATS, |connection| stats::downloads_of_file(connection, path, day))
    }

    fn downloads_in(&self, path: &[u8], period: Period) -> Result<u64> {
        self.read(READING_STATS, |connection| stats::downloads_in(connection, path, period))
    }

    fn prune_stats(&self, retention: StatsRetention, today: Date) -> Result<usize> {
        let periods = self.read(READING_STATS, stats::all_periods)?;
        let dropped: Vec<Period> = periods.into_iter().filter(|period| period.is_dropped(retention, today)).collect();
        for period in &dropped {
            self.write("dropping old statistics", |transaction| stats::drop_counts(transaction, *period))?;
        }
        Ok(dropped.len())
    }

    fn check(&self) -> Result<()> {
        // The caller tells of it.
        self.in_place("checking it").inspect_err(|_| self.disturbance_told.store(true, Ordering::Relaxed))?;
        self.total_downloads().map(drop)
    }

    fn mirror_traffic(&self, range: Option<DateRange>) -> Result<BTreeMap<MirrorId, Traffic>> {
        self.read(READING_STATS, |connection| stats::mirror_traffic(connection, range))
    }

    fn total_downloads(&self) -> Result<u64> {
        self.read(READING_STATS, stats::total)
    }

    fn shared_scans(&self, ids: &[MirrorId]) -> Result<Vec<Option<SharedScanHead>>> {
        Ok(vec![None; ids.len()])
    }

    fn shared_scan(&self, _id: MirrorId) -> Result<Option<SharedScan>> {
        Ok(None)
    }

    fn scan_blocks(&self, _blocks: &[ScanBlockKey], _visit: &mut dyn FnMut(ScanBlockKey, Vec<u8>)) -> Result<()> {
        Ok(())
    }

    fn add_scan_blocks(&self, _blocks: &[(ScanBlockKey, Vec<u8>)]) -> Result<()> {
        Ok(())
    }

    fn share_scan(&self, _id: MirrorId, _scan: &SharedScan) -> Result<Vec<ScanBlockKey>> {
        Ok(Vec::new())
    }

    fn discard_scan_blocks(&self, _blocks: &[ScanBlockKey]) -> Result<()> {
        Ok(())
    }

    fn take_lease(&self, name: LeaseName, holder: &str, duration: Duration) -> Result<bool> {
        self.write("taking a lease", |transaction| leases::take(transaction, name, holder, duration))
    }

    fn give_lease_back(&self, name: LeaseName, holder: &str) -> Result<()> {
        self.write("giving a lease back", |transaction| leases::give_back(transaction, name, holder))
    }

    fn watch_changes(&self, _on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch {
        ChangeWatch::new().0
    }
}

const READING_STATS: &str = "reading the statistics";

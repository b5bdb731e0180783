//! A store that could not be opened yet: for a redirector that serves from its index meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::Date;

use super::stats::{DateRange, FileDownloads, Period, Sighting, StatsBatch, Traffic};
use super::{
    Change, ChangeWatch, LeaseName, LogEntry, MirrorEdit, Result, ScanBlockKey, SharedScan, SharedScanHead,
    SourceChanges, SourceEntry, Store, SyncRecord, open,
};
use crate::config::{Config, StatsRetention};
use crate::mirror::{DownloadProtocol, Mirror, MirrorId, MirrorSettings};
use crate::time::Timestamp;

/// Opens the configured store when it is first needed, and tries again with each operation until that succeeds. Until
/// then each operation fails with the reason.
pub struct ReopeningStore {
    config: Config,
    opened: Mutex<Option<Arc<dyn Store>>>,
}

impl ReopeningStore {
    /// A store that is not open yet.
    pub fn new(config: Config) -> ReopeningStore {
        ReopeningStore { config, opened: Mutex::new(None) }
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*opened {
            return Ok(store.clone());
        }
        Ok(opened.insert(open(&self.config)?).clone())
    }
}

impl Store for ReopeningStore {
    fn mirrors(&self) -> Result<Vec<Mirror>> {
        self.store()?.mirrors()
    }

    fn add_mirror(&self, settings: &MirrorSettings) -> Result<MirrorId> {
        self.store()?.add_mirror(settings)
    }

    fn update_settings(&self, id: MirrorId, settings: &MirrorSettings) -> Result<()> {
        self.store()?.update_settings(id, settings)
    }

    fn remove_mirror(&self, id: MirrorId) -> Result<()> {
        self.store()?.remove_mirror(id)
    }

    fn apply_mirrors(&self, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>> {
        self.store()?.apply_mirrors(edits, now)
    }

    fn set_enabled(&self, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool> {
        self.store()?.set_enabled(id, enabled, now)
    }

    fn set_health(
        &self,
        id: MirrorId,
        protocol: DownloadProtocol,
        down_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool> {
        self.store()?.set_health(id, protocol, down_reason, now)
    }

    fn record_sync_attempt(&self, id: MirrorId, started: Timestamp) -> Result<()> {
        self.store()?.record_sync_attempt(id, started)
    }

    fn record_sync(&self, id: MirrorId, sync: &SyncRecord) -> Result<()> {
        self.store()?.record_sync(id, sync)
    }

    fn source_entries(&self, visit: &mut dyn FnMut(SourceEntry)) -> Result<()> {
        self.store()?.source_entries(visit)
    }

    fn apply_source_changes(&self, changes: &SourceChanges) -> Result<()> {
        self.store()?.apply_source_changes(changes)
    }

    fn append_log(&self, entry: &LogEntry) -> Result<()> {
        self.store()?.append_log(entry)
    }

    fn mirror_log(&self, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>> {
        self.store()?.mirror_log(id, limit)
    }

    fn add_stats(&self, batch: &StatsBatch) -> Result<bool> {
        self.store()?.add_stats(batch)
    }

    fn last_stats_sequence(&self, node: &str) -> Result<u64> {
        self.store()?.last_stats_sequence(node)
    }

    fn file_downloads(
        &self,
        range: Option<DateRange>,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, u64>> {
        self.store()?.file_downloads(range, wanted)
    }

    fn downloads_of_file(&self, path: &[u8], day: Date) -> Result<FileDownloads> {
        self.store()?.downloads_of_file(path, day)
    }

    fn downloads_in(&self, path: &[u8], period: Period) -> Result<u64> {
        self.store()?.downloads_in(path, period)
    }

    fn note_sightings(&self, sightings: &[Sighting]) -> Result<Vec<bool>> {
        self.store()?.note_sightings(sightings)
    }

    fn prune_stats(&self, retention: StatsRetention, today: Date) -> Result<usize> {
        self.store()?.prune_stats(retention, today)
    }

    fn mirror_traffic(&self, range: Option<DateRange>) -> Result<BTreeMap<MirrorId, Traffic>> {
        self.store()?.mirror_traffic(range)
    }

    fn total_downloads(&self) -> Result<u64> {
        self.store()?.total_downloads()
    }

    fn check(&self) -> Result<()> {
        self.store()?.check()
    }

    fn shared_scans(&self, ids: &[MirrorId]) -> Result<Vec<Option<SharedScanHead>>> {
        self.store()?.shared_scans(ids)
    }

    fn shared_scan(&self, id: MirrorId) -> Result<Option<SharedScan>> {
        self.store()?.shared_scan(id)
    }

    fn scan_blocks(&self, blocks: &[ScanBlockKey], visit: &mut dyn FnMut(ScanBlockKey, Vec<u8>)) -> Result<()> {
        self.store()?.scan_blocks(blocks, visit)
    }

    fn add_scan_blocks(&self, blocks: &[(ScanBlockKey, Vec<u8>)]) -> Result<()> {
        self.store()?.add_scan_blocks(blocks)
    }

    fn share_scan(&self, id: MirrorId, scan: &SharedScan) -> Result<Vec<ScanBlockKey>> {
        self.store()?.share_scan(id, scan)
    }

    fn discard_scan_blocks(&self, blocks: &[ScanBlockKey]) -> Result<()> {
        self.store()?.discard_scan_blocks(blocks)
    }

    fn take_lease(&self, name: LeaseName, holder: &str, duration: Duration) -> Result<bool> {
        self.store()?.take_lease(name, holder, duration)
    }

    fn give_lease_back(&self, name: LeaseName, holder: &str) -> Result<()> {
        self.store()?.give_lease_back(name, holder)
    }

    /// Only a store that is open already is watched: changes are looked for anew when the daemon is started again.
    fn watch_changes(&self, on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch {
        match self.store() {
            Ok(store) => store.watch_changes(on_change),
            Err(_) => ChangeWatch::new().0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_database_fails_with_its_reason_and_works_once_it_is_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mirrorbits.sqlite");
        std::fs::write(&file, "this is no database, and long enough to be looked at as one".repeat(100)).unwrap();
        let text = format!("Repository: /srv\nStateDir: {}\n", folder.path().display());
        let config = crate::config::parse(&text, std::path::Path::new("test.conf")).unwrap().config;
        let store = ReopeningStore::new(config);
        let error = store.mirrors().unwrap_err().to_string();
        assert!(error.contains("mirrorbits.sqlite"), "{error}");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(store.mirrors().unwrap(), []);
    }
}

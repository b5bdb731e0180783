//! What the indexer did since it was started, for those who ask over the socket: the daemon shows it as metrics.
//!
//! Work that was given up by the one who asked for it is not noted: it neither failed nor was completed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mb_core::link::{Activity, ScanActivity};
use mb_core::mirror::MirrorId;
use mb_core::time::Timestamp;

/// The account of this process.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Activity>);

impl Ledger {
    /// Notes the end of a scan of the repository; `files` of `None` means that it failed.
    pub(crate) fn source_scan(&self, took: Duration, files: Option<u64>) {
        self.write(|activity| note(&mut activity.source, took, files));
    }

    /// Notes the end of a scan of a mirror; `files` of `None` means that it failed.
    pub(crate) fn mirror_scan(&self, mirror: MirrorId, took: Duration, files: Option<u64>) {
        self.write(|activity| {
            let mirrors = &mut activity.mirrors;
            let place = mirrors.binary_search_by_key(&mirror, |(id, _)| *id).unwrap_or_else(|place| {
                mirrors.insert(place, (mirror, ScanActivity::default()));
                place
            });
            note(&mut mirrors[place].1, took, files);
        });
    }

    /// Notes a health check.
    pub(crate) fn check(&self, up: bool, stored: bool) {
        self.write(|activity| {
            let checks = &mut activity.checks;
            *(if up { &mut checks.up } else { &mut checks.down }) += 1;
            checks.unstored += u64::from(!stored);
        });
    }

    /// Notes a job that a panic ended.
    pub(crate) fn panic(&self) {
        self.write(|activity| activity.job_panics = activity.job_panics.saturating_add(1));
    }

    /// A copy of the account.
    pub(crate) fn activity(&self) -> Activity {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, change: impl FnOnce(&mut Activity)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn note(scans: &mut ScanActivity, took: Duration, files: Option<u64>) {
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    scans.total_ms = scans.total_ms.saturating_add(took);
    let Some(files) = files else {
        scans.failed += 1;
        return;
    };
    scans.completed += 1;
    scans.last_ms = took;
    scans.files = files;
    scans.last_completed = Timestamp::now();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_leave_what_the_latest_completed_scan_found() {
        let ledger = Ledger::default();
        let mirror = MirrorId(3);
        ledger.mirror_scan(mirror, Duration::from_millis(1500), Some(7));
        ledger.mirror_scan(mirror, Duration::from_millis(500), None);
        let activity = ledger.activity();
        let scans = activity.of_mirror(mirror).unwrap();
        assert_eq!((scans.completed, scans.failed, scans.files), (1, 1, 7));
        assert_eq!((scans.last_ms, scans.total_ms), (1500, 2000));
        assert!(!scans.last_completed.is_never());
        assert_eq!(activity.source, ScanActivity::default());
    }

    #[test]
    fn checks_are_counted_by_what_they_found() {
        let ledger = Ledger::default();
        ledger.check(true, true);
        ledger.check(false, true);
        ledger.check(false, false);
        let checks = ledger.activity().checks;
        assert_eq!((checks.up, checks.down, checks.unstored), (1, 2, 1));
    }
}

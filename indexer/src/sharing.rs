//! One node scans a mirror, and all nodes use the result: it goes into the store after the scan, and every other node takes
//! it from there when it sees that it changed.
//!
//! The store's word counts: a node that has another result of its own gives it up, unless that is newer and was never
//! shared. A result that cannot be used is refused, and the node scans the mirror itself, which puts a sound one in its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mb_core::mirror::{MirrorId, MirrorState};
use mb_core::store::{LeaseName, ScanBlockKey, ScanGeneration, SharedScan, SharedScanHead, Store, StoreError};
use mb_core::time::Timestamp;

use crate::indexer::Indexer;
use crate::scan::results::{FetchedBlocks, Held, ResultsError, ScanResults, Snapshot, is_block};
use crate::turn::TurnError;

/// How often a result is read that another node replaces meanwhile, or stored whose blocks others remove meanwhile.
const ATTEMPTS: usize = 5;

/// Blocks handed to the store at a time, of some ten kilobytes each.
const BLOCKS_AT_ONCE: usize = 64;

/// Why results were not exchanged; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharingError {
    /// The store failed, or what is in it cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node's results failed.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Nobody can tell who scans.
    #[error("sharing a scan result: {0}")]
    Turn(#[from] TurnError),
    /// Other nodes change the same all the time.
    #[error("sharing a scan result: other nodes changed the same {ATTEMPTS} times meanwhile")]
    Contended,
}

/// What is to be done about a mirror's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This node has what the store has, or knows that it cannot use it.
    Nothing,
    /// The store has another.
    Import,
    /// The store lacks what this node has.
    Share,
}

fn next_step(held: Option<Held>, shared: Option<SharedScanHead>, refused: Option<ScanGeneration>) -> Step {
    match (held, shared) {
        (None, None) => Step::Nothing,
        (Some(_), None) => Step::Share,
        (Some(held), Some(shared)) if held.shared_as == Some(shared.generation) => Step::Nothing,
        (Some(held), Some(shared)) if held.shared_as.is_none() && held.started > shared.started => Step::Share,
        (_, Some(shared)) if refused == Some(shared.generation) => Step::Nothing,
        (_, Some(_)) => Step::Import,
    }
}

/// The latest attempt at a scan, of any node, that counts for the schedule of a node whose result is of the scan that started
/// at `held`: none, if there was a complete scan since whose result is not here.
pub(crate) fn latest_attempt(state: &MirrorState, held: Timestamp) -> Timestamp {
    if state.last_successful_sync > held { held } else { state.last_sync }
}

/// What became of an attempt to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Imported {
    Yes,
    /// There is nothing new, or this node's own result changed meanwhile.
    No,
    /// What is shared cannot be used.
    Refused,
}

/// What an exchange changed.
#[derive(Debug, Default)]
pub(crate) struct Exchanged {
    /// Mirrors that have another result now, which is to be published.
    pub(crate) imported: Vec<MirrorId>,
    /// Mirrors that this node must scan itself.
    pub(crate) refused: Vec<MirrorId>,
}

/// The exchange of scan results with the store. Its methods block.
pub(crate) struct Sharing {
    store: Arc<dyn Store>,
    results: Arc<ScanResults>,
    refused: Mutex<HashMap<MirrorId, ScanGeneration>>,
}

impl Sharing {
    /// Between `results` and `store`.
    pub(crate) fn new(store: Arc<dyn Store>, results: Arc<ScanResults>) -> Sharing {
        Sharing { store, results, refused: Mutex::default() }
    }

    /// Shares this node's result of a mirror.
    pub(crate) fn share(&self, mirror: MirrorId) -> Result<(), SharingError> {
        let snapshot = self.results.snapshot()?;
        let Some(scan) = snapshot.shared_scan(mirror)? else {
            return Ok(());
        };
        for _ in 0..ATTEMPTS {
            let missing = self.store.share_scan(mirror, &scan)?;
            if missing.is_empty() {
                drop(snapshot);
                return Ok(self.results.mark_shared(mirror, &scan)?);
            }
            self.add_blocks(&snapshot, &missing)?;
        }
        Err(SharingError::Contended)
    }

    fn add_blocks(&self, snapshot: &Snapshot, keys: &[ScanBlockKey]) -> Result<(), SharingError> {
        for keys in keys.chunks(BLOCKS_AT_ONCE) {
            let mut blocks = Vec::with_capacity(keys.len());
            for key in keys {
                // The snapshot has every block of the result.
                blocks.extend(snapshot.block_data_by_key(key)?.map(|data| (*key, data)));
            }
            self.store.add_scan_blocks(&blocks)?;
        }
        Ok(())
    }

    /// What is to be done about each of `mirrors` about which something is.
    fn steps(&self, mirrors: &[MirrorId]) -> Result<Vec<(MirrorId, Step, Option<Held>)>, SharingError> {
        let held = self.results.held()?;
        let shared = self.store.shared_scans(mirrors)?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(mirrors
            .iter()
            .zip(shared)
            .map(|(id, shared)| {
                let held = held.get(id).copied();
                (*id, next_step(held, shared, refused.get(id).copied()), held)
            })
            .filter(|(_, step, _)| *step != Step::Nothing)
            .collect())
    }

    /// Takes over what another node shared of a mirror, if that is another result than this node has. Returns whether it did.
    pub(crate) fn catch_up(&self, mirror: MirrorId) -> Result<bool, SharingError> {
        match self.steps(&[mirror])?.first() {
            Some((_, Step::Import, held)) => Ok(self.import(mirror, *held)? == Imported::Yes),
            _ => Ok(false),
        }
    }

    fn import(&self, mirror: MirrorId, held: Option<Held>) -> Result<Imported, SharingError> {
        let mut incomplete = None;
        for _ in 0..ATTEMPTS {
            let scan = match self.store.shared_scan(mirror) {
                Ok(Some(scan)) => scan,
                Ok(None) => return Ok(Imported::No),
                Err(StoreError::DamagedScan { what, .. }) => return self.refuse(mirror, &what),
                Err(error) => return Err(error.into()),
            };
            let (fetched, missing) = self.fetch(&scan)?;
            if missing == 0 {
                let imported = self.results.import(mirror, held, &scan, &fetched)?;
                return Ok(if imported { Imported::Yes } else { Imported::No });
            }
            // Blocks of a result that was replaced meanwhile are gone with it.
            if incomplete.replace(scan.generation()) == Some(scan.generation()) {
                return self
                    .refuse(mirror, &format!("{missing} of its {} blocks are missing or damaged", scan.blocks.len()));
            }
        }
        Err(SharingError::Contended)
    }

    /// The blocks of `scan` that this node lacks, and how many it could not get. Damaged ones are removed from the store, so
    /// that the next node that shares a result with them adds them anew.
    fn fetch(&self, scan: &SharedScan) -> Result<(FetchedBlocks, usize), SharingError> {
        let lacking = self.results.lacking(&scan.blocks)?;
        let (mut fetched, mut damaged) = (FetchedBlocks::new(), Vec::new());
        self.store.scan_blocks(&lacking, &mut |key, data| {
            if is_block(&data, key) {
                fetched.insert(key, data);
            } else {
                damaged.push(key);
            }
        })?;
        self.store.discard_scan_blocks(&damaged)?;
        let missing = lacking.iter().filter(|key| !fetched.contains_key(*key)).count();
        Ok((fetched, missing))
    }

    /// Remembers what the store has now as unusable.
    fn refuse(&self, mirror: MirrorId, what: &str) -> Result<Imported, SharingError> {
        if let Some(Some(head)) = self.store.shared_scans(&[mirror])?.first() {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror, head.generation);
        }
        tracing::warn!(%mirror, what, "the scan result that another node shared is refused, this node scans the mirror itself");
        Ok(Imported::Refused)
    }
}

/// Exchanges the results of all mirrors, one after the other; what fails is logged and tried again by the next exchange.
pub(crate) async fn exchange(indexer: &Arc<Indexer>) -> Exchanged {
    let mut exchanged = Exchanged::default();
    let steps = indexer.blocking(|indexer| {
        let mirrors: Vec<_> = indexer.store.mirrors()?.iter().map(|mirror| mirror.id).collect();
        indexer.sharing.steps(&mirrors)
    });
    let steps = match steps.await {
        Ok(steps) => steps,
        Err(error) => {
            tracing::warn!(%error, "cannot see what other nodes scanned");
            return exchanged;
        }
    };
    for (mirror, step, held) in steps {
        let outcome = indexer.blocking(move |indexer| match step {
            Step::Import => indexer.sharing.import(mirror, held),
            Step::Share => share_again(indexer, mirror).map(|()| Imported::No),
            Step::Nothing => Ok(Imported::No),
        });
        match outcome.await {
            Ok(Imported::Yes) => exchanged.imported.push(mirror),
            Ok(Imported::Refused) => exchanged.refused.push(mirror),
            Ok(Imported::No) => {}
            Err(error) => tracing::warn!(%mirror, %error, "scan result not exchanged with other nodes, tried again"),
        }
    }
    exchanged
}

/// Shares what could not be shared after its scan, or is no longer in the store. A node that scans the mirror now shares a
/// newer result.
fn share_again(indexer: &Indexer, mirror: MirrorId) -> Result<(), SharingError> {
    match indexer.turns.attempt(LeaseName::MirrorScan(mirror))? {
        Ok(_turn) => indexer.sharing.share(mirror),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(started: i64, shared_as: Option<u64>) -> Option<Held> {
        Some(Held { started: Timestamp(started), shared_as: shared_as.map(ScanGeneration) })
    }

    fn shared(started: i64, generation: u64) -> Option<SharedScanHead> {
        Some(SharedScanHead { generation: ScanGeneration(generation), started: Timestamp(started) })
    }

    #[test]
    fn the_word_of_the_store_counts_unless_ours_is_newer_and_was_never_said() {
        for (ours, theirs, expected) in [
            (None, None, Step::Nothing),
            (None, shared(5, 1), Step::Import),
            (held(5, None), None, Step::Share),
            (held(5, Some(1)), None, Step::Share),
            (held(5, Some(1)), shared(5, 1), Step::Nothing),
            (held(5, Some(1)), shared(6, 2), Step::Import),
            (held(5, Some(1)), shared(4, 2), Step::Import),
            (held(5, None), shared(4, 2), Step::Share),
            (held(5, None), shared(5, 2), Step::Import),
            (held(5, None), shared(6, 2), Step::Import),
        ] {
            assert_eq!(next_step(ours, theirs, None), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn what_was_refused_is_not_read_again() {
        let refused = Some(ScanGeneration(2));
        assert_eq!(next_step(None, shared(5, 2), refused), Step::Nothing);
        assert_eq!(next_step(held(4, Some(1)), shared(5, 2), refused), Step::Nothing);
        assert_eq!(next_step(held(6, None), shared(5, 2), refused), Step::Share);
        assert_eq!(next_step(None, shared(6, 3), refused), Step::Import);
    }

    #[test]
    fn attempts_of_other_nodes_count_when_their_results_are_here() {
        let state = |last_sync, last_successful_sync| MirrorState {
            last_sync: Timestamp(last_sync),
            last_successful_sync: Timestamp(last_successful_sync),
            ..MirrorState::default()
        };
        let latest = |state, held| latest_attempt(&state, Timestamp(held)).0;
        assert_eq!(latest(state(0, 0), 0), 0, "never scanned");
        assert_eq!(latest(state(9, 0), 0), 9, "another node failed");
        assert_eq!(latest(state(9, 9), 0), 0, "the result of another node is not here");
        assert_eq!(latest(state(9, 9), 7), 7, "nor is it when there is an earlier one");
        assert_eq!(latest(state(9, 9), 9), 9);
        assert_eq!(latest(state(11, 9), 9), 11, "another node failed after that");
        assert_eq!(latest(state(7, 7), 9), 7, "the record was not written");
    }
}

//! The source repository: walk it, find out what changed since the last scan, hash that, store it.
//!
//! A scan never removes knowledge by accident: what cannot be read keeps its entry, and a repository that lost most of
//! its files changes nothing unless the operator insists.

use std::io;
use std::path::{Path, PathBuf};

use mb_core::config::WantedHashes;
use mb_core::link::SourceReport;
use mb_core::store::{FileHashes, SourceChanges, SourceEntry, SourceEntryKind, Store, StoreError};

use self::difference::{Comparison, Difference, HashTask};
use self::hash::Outcome;
use crate::progress::{Cancellation, Progress};

mod difference;
mod hash;
mod link;
#[cfg(test)]
mod resolution_tests;
mod walk;

/// Up to this many files and bytes are hashed before anything is stored; with more, new files are stored and published
/// without their hashes first. A guess at what takes about a second.
const HASH_FIRST_FILES: usize = 1_000;
const HASH_FIRST_BYTES: u64 = 256 << 20;

/// Files and bytes hashed between two writes to the store, so that an interrupted scan loses little. A guess.
const BATCH_FILES: usize = 2_000;
const BATCH_BYTES: u64 = 4 << 30;

/// Why a source scan changed nothing, or no more than it had stored until then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The repository cannot be read.
    #[error(
        "cannot read the repository {path}: {cause}; check `Repository` in the configuration, that its disk is mounted and \
         that this user may read it",
        path = path.display()
    )]
    Repository {
        /// The repository.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Most files are gone.
    #[error(
        "the repository {path} has {files} files, {removed} of its {previous} earlier ones are gone: nothing was changed; \
         if that is right, run `mirrorbits refresh -force` (or `mb-indexer scan -source -force`)",
        path = path.display()
    )]
    LostFiles {
        /// The repository.
        path: PathBuf,
        /// Files there now.
        files: u64,
        /// Files gone.
        removed: u64,
        /// Files before.
        previous: u64,
    },
    /// The store failed.
    #[error("storing the source scan: {0}")]
    Store(#[from] StoreError),
    /// The scan was cancelled.
    #[error("the source scan was cancelled")]
    Cancelled,
}

/// What a scan is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceOptions {
    /// Which hashes are wanted.
    pub(crate) hashes: WantedHashes,
    /// Hash every file again.
    pub(crate) rehash: bool,
    /// Accept the loss of most files.
    pub(crate) force: bool,
}

/// What a scan did.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceOutcome {
    /// Its figures.
    pub(crate) report: SourceReport,
    /// Whether the store changed since `publish_early` was last called.
    pub(crate) unpublished: bool,
}

/// Scans the repository and stores what changed. Blocks.
///
/// `publish_early` is called when new files were stored that can be served while hashing goes on.
pub(crate) fn scan(
    repository: &Path,
    options: SourceOptions,
    store: &dyn Store,
    progress: &Progress,
    cancellation: &Cancellation,
    publish_early: &mut dyn FnMut(),
) -> Result<SourceOutcome, SourceError> {
    progress.report("Walking the repository".to_owned());
    let walk = walk::walk(repository, progress, cancellation)?;
    let mut comparison = Comparison::new(&walk, options.hashes, options.rehash);
    store.source_entries(&mut |entry| comparison.previous(entry))?;
    let difference = comparison.finish();
    if difference.is_suspicious() && !options.force {
        return Err(SourceError::LostFiles {
            path: repository.to_owned(),
            files: difference.files,
            removed: difference.removed_files,
            previous: difference.previous_files,
        });
    }
    drop(walk);
    Writer { repository, store, progress, cancellation }.write(difference, publish_early)
}

/// Stores a difference, hashing on the way.
struct Writer<'a> {
    repository: &'a Path,
    store: &'a dyn Store,
    progress: &'a Progress,
    cancellation: &'a Cancellation,
}

impl Writer<'_> {
    fn write(&self, difference: Difference, publish_early: &mut dyn FnMut()) -> Result<SourceOutcome, SourceError> {
        let Difference { mut changes, to_hash, files, removed_files, kept_unread, .. } = difference;
        let report =
            SourceReport { files: files + kept_unread, hashed: 0, removed: removed_files, unreadable: kept_unread };
        let mut outcome = SourceOutcome { report, unpublished: false };

        let bytes_to_hash: u64 = to_hash.iter().map(|task| task.size).sum();
        if to_hash.len() > HASH_FIRST_FILES || bytes_to_hash > HASH_FIRST_BYTES {
            changes.upserts.extend(to_hash.iter().filter(|task| task.is_new).map(|task| entry(task, task.known)));
            if self.apply(std::mem::take(&mut changes))? {
                publish_early();
            }
        }
        let mut hashed_bytes = 0;
        for batch in batches(&to_hash) {
            self.progress.report(format!(
                "Hashing: {} of {} files, {} of {} MiB",
                outcome.report.hashed,
                to_hash.len(),
                hashed_bytes >> 20,
                bytes_to_hash >> 20
            ));
            self.hash(batch, &mut changes, &mut outcome.report)?;
            hashed_bytes += batch.iter().map(|task| task.size).sum::<u64>();
            outcome.unpublished |= self.apply(std::mem::take(&mut changes))?;
        }
        outcome.unpublished |= self.apply(changes)?;
        Ok(outcome)
    }

    fn apply(&self, changes: SourceChanges) -> Result<bool, SourceError> {
        let any = !changes.upserts.is_empty() || !changes.removals.is_empty();
        if any {
            self.store.apply_source_changes(&changes)?;
        }
        Ok(any)
    }

    fn hash(
        &self,
        batch: &[HashTask],
        changes: &mut SourceChanges,
        report: &mut SourceReport,
    ) -> Result<(), SourceError> {
        for (task, outcome) in batch.iter().zip(hash::hash_all(self.repository, batch, self.cancellation)) {
            match outcome {
                Outcome::Hashed(hashes) => {
                    report.hashed += 1;
                    changes.upserts.push(entry(task, hashes));
                }
                Outcome::Changed => {
                    tracing::warn!(path = %task.path.escape_ascii(), "changed while it was read, left for the next scan");
                }
                Outcome::Failed(cause) => {
                    tracing::warn!(path = %task.path.escape_ascii(), %cause, "cannot be hashed, tried again by the next scan");
                    report.unreadable += 1;
                    if task.is_new {
                        changes.upserts.push(entry(task, task.known));
                    }
                }
                Outcome::Cancelled => return Err(SourceError::Cancelled),
            }
        }
        Ok(())
    }
}

fn entry(task: &HashTask, hashes: FileHashes) -> SourceEntry {
    let kind = SourceEntryKind::File { size: task.size, modified: task.modified, hashes };
    SourceEntry { path: task.path.clone(), kind }
}

/// Cuts tasks into batches of at most [`BATCH_FILES`] files and, unless a single file is larger, [`BATCH_BYTES`].
fn batches(mut tasks: &[HashTask]) -> impl Iterator<Item = &[HashTask]> {
    std::iter::from_fn(move || {
        let mut bytes = 0_u64;
        let within = tasks
            .iter()
            .take(BATCH_FILES)
            .take_while(|task| {
                bytes = bytes.saturating_add(task.size);
                bytes <= BATCH_BYTES
            })
            .count();
        let (batch, rest) = tasks.split_at_checked(within.max(1))?;
        tasks = rest;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mb_core::store::EmbeddedStore;

    use super::*;

    const OPTIONS: SourceOptions =
        SourceOptions { hashes: WantedHashes { sha1: false, sha256: true, md5: false }, rehash: false, force: false };

    fn scan_into(store: &EmbeddedStore, repository: &Path, publish_early: &mut dyn FnMut()) -> SourceOutcome {
        let (progress, cancellation) = (Progress::unwatched(), Cancellation::default());
        scan(repository, OPTIONS, store, &progress, &cancellation, publish_early).unwrap()
    }

    /// Number of files, and of those among them that have a hash.
    fn stored(store: &EmbeddedStore) -> (usize, usize) {
        let (mut files, mut hashed) = (0, 0);
        store
            .source_entries(&mut |entry| {
                if let SourceEntryKind::File { hashes, .. } = entry.kind {
                    files += 1;
                    hashed += usize::from(hashes.sha256.is_some());
                }
            })
            .unwrap();
        (files, hashed)
    }

    #[test]
    fn many_new_files_can_be_served_before_they_are_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        fs::create_dir(&repository).unwrap();
        let count = HASH_FIRST_FILES + 1;
        for n in 0..count {
            fs::write(repository.join(format!("f{n}")), n.to_string()).unwrap();
        }
        let store = EmbeddedStore::open(&folder.path().join("state")).unwrap();
        let mut early = Vec::new();
        let outcome = scan_into(&store, &repository, &mut || early.push(stored(&store)));
        assert_eq!(early, [(count, 0)]);
        assert_eq!(stored(&store), (count, count));
        assert!(outcome.unpublished);
        assert!(!scan_into(&store, &repository, &mut || panic!("nothing is new")).unpublished);
    }

    #[test]
    fn batches_end_at_either_limit() {
        let task = |size| HashTask {
            path: b"/f".to_vec(),
            size,
            modified: mb_core::time::FileTime(0),
            known: FileHashes::default(),
            wanted: OPTIONS.hashes,
            is_new: true,
        };
        let lengths = |sizes: &[u64]| {
            let tasks: Vec<_> = sizes.iter().map(|&size| task(size)).collect();
            batches(&tasks).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1; BATCH_FILES + 1]), [BATCH_FILES, 1]);
        assert_eq!(lengths(&[BATCH_BYTES, 1, BATCH_BYTES + 1, 1, 1]), [1, 1, 1, 2]);
    }
}

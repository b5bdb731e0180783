//! File locks in the state directory: what must happen once at a time, whichever process does it.
//!
//! They are `flock` locks, so the kernel drops them with the process that held them, however it ended. The files stay.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use mb_core::mirror::MirrorId;
use rustix::fs::{FlockOperation, flock};

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {path}: {cause}; the state directory must be writable for this user", path = path.display())]
pub(crate) struct LockError {
    path: PathBuf,
    cause: io::Error,
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct HeldLock {
    _file: File,
}

/// Held by the one `mb-indexer run` of a state directory.
pub(crate) fn indexer_lock(state_dir: &Path) -> PathBuf {
    state_dir.join("indexer.lock")
}

/// Held while a mirror is scanned.
pub(crate) fn mirror_lock(state_dir: &Path, mirror: MirrorId) -> PathBuf {
    state_dir.join("locks").join(format!("mirror-{mirror}.lock"))
}

/// Held while the source repository is scanned.
pub(crate) fn source_lock(state_dir: &Path) -> PathBuf {
    state_dir.join("locks").join("source.lock")
}

/// Held from reading what an index is built from until it is published, so that an older view never replaces a newer one.
pub(crate) fn build_lock(state_dir: &Path) -> PathBuf {
    state_dir.join("locks").join("build.lock")
}

/// Takes the lock if it is free; `None` when another holds it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<HeldLock>, LockError> {
    lock(path, FlockOperation::NonBlockingLockExclusive)
}

/// Waits for the lock. Blocks.
pub(crate) fn wait_for_lock(path: &Path) -> Result<HeldLock, LockError> {
    loop {
        if let Some(held) = lock(path, FlockOperation::LockExclusive)? {
            return Ok(held);
        }
    }
}

fn lock(path: &Path, operation: FlockOperation) -> Result<Option<HeldLock>, LockError> {
    let error = |cause: io::Error| LockError { path: path.to_owned(), cause };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(error)?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(HeldLock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(error(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_freed_by_dropping() {
        let folder = tempfile::tempdir().unwrap();
        let path = mirror_lock(folder.path(), MirrorId(3));
        let held = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }
}

//! A lock on a folder, for what must be looked at and then changed in it by one process at a time.
//!
//! It is a `flock` lock on the folder itself, so that it leaves no file, and the kernel drops it with the process.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long another process may hold it. Each does so for milliseconds, and any program that can open
/// the folder can hold it for longer: well below the limits of what is done under the lock.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct FolderLock {
    _folder: File,
}

/// Locks the folder of `file`. `None` where that is not to be had: on a file system without such locks, or when another program
/// holds it for longer than half a second. Blocks.
pub fn lock_folder_of(file: &Path) -> Option<FolderLock> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(FolderLock { _folder: folder }),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pid");
        let first = lock_folder_of(&file).unwrap();
        assert!(lock_folder_of(&file).is_none());
        drop(first);
        assert!(lock_folder_of(&file).is_some());
        assert!(lock_folder_of(&folder.path().join("no folder/a.pid")).is_none());
    }
}

//! The lock that makes publishers take turns, across processes and within one.

use std::fs::File;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{PublishError, PublishStep};
use crate::folder::LOCK_NAME;

/// How often to try: flock(2) cannot wait for a limited time. A mirror table is published in a few milliseconds.
const PAUSE: Duration = Duration::from_millis(2);

/// Locks the lock file of a folder. The lock ends when the file is closed.
pub(super) fn acquire(dir: &Path, patience: Duration) -> Result<File, PublishError> {
    let path = dir.join(LOCK_NAME);
    let failed = |source| PublishError::io(PublishStep::Lock, &path, source);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => sleep(PAUSE),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                return Err(PublishError::Busy { path, waited: patience });
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

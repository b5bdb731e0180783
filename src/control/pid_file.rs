//! The file that holds the daemon's process id.
//!
//! A daemon keeps a `flock` lock on the file that it has written, so that another one with the same file can tell that this one
//! runs. A daemon that takes over from it replaces the file.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mb_core::folder_lock::lock_folder_of;
use rustix::fs::{FlockOperation, flock};

/// A written PID file, removed when dropped unless another process has written its own id in the meantime.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Keeps the lock.
    file: Arc<Mutex<File>>,
}

/// The PID file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("PID file {}: {source}", path.display())]
pub struct PidFileError {
    path: PathBuf,
    source: io::Error,
}

impl PidFile {
    /// Writes this process's id into `path`. `takes_over`: from the process that has it now. Blocks, as all that is done with the
    /// file.
    ///
    /// # Errors
    /// [`PidFileError`]: another daemon runs with the file, or it cannot be written.
    pub fn write(path: &Path, takes_over: bool) -> Result<PidFile, PidFileError> {
        let file = replace(path, takes_over).map_err(|source| PidFileError { path: path.to_owned(), source })?;
        Ok(PidFile { path: path.to_owned(), file: Arc::new(Mutex::new(file)) })
    }

    /// Work that writes this process's id again, after another process may have written its own. Whoever reads the file meanwhile
    /// sees one of both.
    pub fn writing_again(&self) -> impl FnOnce() -> Result<(), PidFileError> + Send + 'static {
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        move || match replace(&path, true) {
            Ok(new) => {
                *file.lock().unwrap_or_else(PoisonError::into_inner) = new;
                Ok(())
            }
            Err(source) => Err(PidFileError { path, source }),
        }
    }
}

impl PidFileError {
    /// The file's disk does not answer.
    pub(super) fn late(path: &Path) -> PidFileError {
        PidFileError { path: path.to_owned(), source: io::Error::other("its disk does not answer") }
    }
}

fn replace(path: &Path, takes_over: bool) -> io::Result<File> {
    let _one_at_a_time = lock_folder_of(path);
    if !takes_over && let Some(other) = running(path) {
        return Err(io::Error::other(format!("process {other} runs with it: stop that one, or choose another file")));
    }
    let id = format!("{}\n", std::process::id());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = match tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder) {
        Ok(mut new) => {
            new.write_all(id.as_bytes())?;
            new.persist(path)?
        }
        // The file may be ours in a folder that is not.
        Err(_) => {
            let mut file = File::options().write(true).create(true).truncate(true).open(path)?;
            file.write_all(id.as_bytes())?;
            file
        }
    };
    lock(&file);
    Ok(file)
}

/// Locks the file, at once or when the process that has it now has ended. On a file system without such
/// locks no other daemon is kept from taking the file.
fn lock(file: &File) {
    if flock(file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
        && let Ok(same) = file.try_clone()
    {
        // Without a thread the file stays unlocked, as on such a file system.
        let _ = std::thread::Builder::new().name("pid-file".to_owned()).spawn(move || {
            let _ = flock(&same, FlockOperation::LockExclusive);
        });
    }
}

/// The process id in the file at `path`, if a daemon runs with it.
fn running(path: &Path) -> Option<String> {
    // What is no file, such as a FIFO, is not waited for.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let mut file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut id = String::new();
            // An id that cannot be read belongs to a daemon all the same.
            let _ = file.read_to_string(&mut id);
            Some(id.trim().to_owned())
        }
        _ => None,
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = std::process::id().to_string();
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_of_one_running_daemon_and_goes_to_the_one_that_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirrorbits.pid");
        std::fs::write(&path, "1\n").unwrap();
        let first = PidFile::write(&path, false).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), own, "a daemon that is gone has no lock");
        let refusal = PidFile::write(&path, false).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {own} runs with it")), "{refusal}");
        let second = PidFile::write(&path, true).unwrap();
        first.writing_again()().unwrap();
        assert!(PidFile::write(&path, false).is_err());
        drop(first);
        assert!(!path.exists());
        drop(second);
    }
}

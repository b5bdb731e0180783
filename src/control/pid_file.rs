//! The file that holds the daemon's process id.

use std::io;
use std::path::{Path, PathBuf};

/// A written PID file, removed when dropped unless another process has written its own id in the meantime.
#[derive(Debug)]
pub struct PidFile(PathBuf);

/// The PID file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("PID file {}: {source}", path.display())]
pub struct PidFileError {
    path: PathBuf,
    source: io::Error,
}

impl PidFile {
    /// Writes this process's id into `path`.
    ///
    /// # Errors
    /// [`PidFileError`].
    pub fn write(path: &Path) -> Result<PidFile, PidFileError> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|source| PidFileError { path: path.to_owned(), source })?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = std::process::id().to_string();
        if std::fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == ours) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

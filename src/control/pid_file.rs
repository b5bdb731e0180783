//! The file that holds the daemon's process id.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A written PID file, removed when dropped unless another process has written its own id in the meantime.
#[derive(Debug)]
pub struct PidFile(Arc<Path>);

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
        let file = PidFile(path.into());
        file.writing_again()()?;
        Ok(file)
    }

    /// Work that writes this process's id again, after another process may have written its own. Whoever reads the file meanwhile
    /// sees one of both. Blocks, as all that is done with the file.
    pub fn writing_again(&self) -> impl FnOnce() -> Result<(), PidFileError> + Send + 'static {
        let path = Arc::clone(&self.0);
        move || replace(&path).map_err(|source| PidFileError { path: path.to_path_buf(), source })
    }
}

impl PidFileError {
    /// The file's disk does not answer.
    pub(super) fn late(path: &Path) -> PidFileError {
        PidFileError { path: path.to_owned(), source: io::Error::other("its disk does not answer") }
    }
}

fn replace(path: &Path) -> io::Result<()> {
    let id = format!("{}\n", std::process::id());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder) {
        Ok(mut new) => {
            new.write_all(id.as_bytes())?;
            new.persist(path)?;
            Ok(())
        }
        // The file may be ours in a folder that is not.
        Err(_) => std::fs::write(path, id),
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

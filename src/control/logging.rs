//! The daemon's own log: one line per event, on standard error or in a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// The log file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log file {}: {source}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    source: io::Error,
}

/// Starts logging, to `file` if there is one. `RUST_LOG` chooses what is logged; without it, `debug` does.
///
/// # Errors
/// [`LogFileError`].
pub fn start(file: Option<&Path>, debug: bool) -> Result<(), LogFileError> {
    let level = if debug { "mirrorbits=debug,mb_core=debug,mb_index=debug,info" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    match file {
        Some(path) => log.with_writer(Mutex::new(open(path)?)).init(),
        None => log.with_writer(io::stderr).init(),
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, LogFileError> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map_err(|source| LogFileError { path: path.to_owned(), source })
}

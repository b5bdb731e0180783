//! The daemon's own log: one line per event, on standard error or in a file.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mb_core::foreign_text::Escaping;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;

/// The log file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log file {}: {source}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    source: io::Error,
}

/// Where the log goes.
#[derive(Clone, Debug)]
pub enum Log {
    /// Standard error.
    StandardError,
    /// A file.
    File(LogFile),
}

/// A file that can be opened again, after it was moved away.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Log {
    /// Starts logging, to `file` if there is one. `RUST_LOG` chooses what is logged; without it, `debug` does.
    ///
    /// # Errors
    /// [`LogFileError`].
    pub fn start(file: Option<&Path>, debug: bool) -> Result<Log, LogFileError> {
        let level = if debug { "mirrorbits=debug,mb_core=debug,mb_index=debug,info" } else { "info" };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        // Values may hold what mirrors, clients and other programs wrote: none of it begins a line or moves a cursor.
        let fields = debug_fn(|writer, field, value| {
            let mut escaping = Escaping::new(&mut *writer);
            if field.name() == "message" {
                write!(escaping, "{value:?}")
            } else {
                write!(escaping, "{field}={value:?}")
            }
        });
        let lines = tracing_subscriber::fmt().fmt_fields(fields.delimited(" "));
        let lines = lines.with_env_filter(filter).with_target(false).with_ansi(false);
        match file {
            Some(path) => {
                let log = LogFile { path: path.to_owned(), file: Arc::new(Mutex::new(open(path)?)) };
                lines.with_writer(log.clone()).init();
                Ok(Log::File(log))
            }
            None => {
                lines.with_writer(io::stderr).init();
                Ok(Log::StandardError)
            }
        }
    }

    /// Opens the file at its path again; the old one goes on being used when that fails.
    ///
    /// # Errors
    /// [`LogFileError`].
    pub fn reopen(&self) -> Result<(), LogFileError> {
        match self {
            Log::StandardError => Ok(()),
            Log::File(log) => log.reopen(),
        }
    }
}

impl LogFile {
    fn reopen(&self) -> Result<(), LogFileError> {
        let new = open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a LogFile;

    fn make_writer(&'a self) -> &'a LogFile {
        self
    }
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogFileError> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map_err(|source| LogFileError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let [path, moved] = ["a.log", "a.log.1"].map(|name| folder.path().join(name));
        let log = LogFile { path: path.clone(), file: Arc::new(Mutex::new(open(&path).unwrap())) };
        log.make_writer().write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.make_writer().write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        log.make_writer().write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }
}

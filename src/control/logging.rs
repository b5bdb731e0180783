//! The daemon's own log: one line per event, on standard error or in a file. Threads that log never wait for either.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use mb_core::foreign_text::Escaping;
use mb_core::log_writer::LogWriter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::debug_fn;

/// The log file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log file {}: {source}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    source: io::Error,
}

/// The log of the daemon.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its file; standard error without one.
    path: Option<PathBuf>,
    writer: LogWriter,
}

impl Log {
    /// Starts logging, to `file` if there is one. `RUST_LOG` chooses what is logged; without it, `debug` does.
    ///
    /// # Errors
    /// [`LogFileError`].
    pub fn start(file: Option<&Path>, debug: bool) -> Result<Log, LogFileError> {
        // Clients of the control ports decide how often h2 warns.
        let level = if debug { "mirrorbits=debug,mb_core=debug,mb_index=debug,h2=error,info" } else { "h2=error,info" };
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
        let log = Log::to(file)?;
        log.writer.make_process_log();
        let lines = tracing_subscriber::fmt().fmt_fields(fields.delimited(" "));
        let lines = lines.with_env_filter(filter).with_target(false).with_ansi(false);
        let writer = log.writer.clone();
        lines.with_writer(move || writer.clone()).init();
        Ok(log)
    }

    fn to(file: Option<&Path>) -> Result<Log, LogFileError> {
        let writer = match file {
            Some(path) => LogWriter::start(open(path)?),
            None => LogWriter::to_standard_error(),
        };
        let path = file.map(Path::to_owned);
        match writer {
            Ok(writer) => Ok(Log { path, writer }),
            Err(source) => Err(LogFileError { path: path.unwrap_or_else(|| "standard error".into()), source }),
        }
    }

    /// Opens the file at its path again; the old one goes on being used when that fails. Blocks.
    ///
    /// # Errors
    /// [`LogFileError`].
    pub fn reopen(&self) -> Result<(), LogFileError> {
        if let Some(path) = &self.path {
            self.writer.change_file(open(path)?);
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogFileError> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map_err(|source| LogFileError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use mb_core::log_writer::LAST_LINES_LIMIT;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let [path, moved] = ["a.log", "a.log.1"].map(|name| folder.path().join(name));
        let log = Log::to(Some(&path)).unwrap();
        let write = |line: &[u8]| {
            log.writer.clone().write_all(line).unwrap();
            assert!(log.writer.flush(LAST_LINES_LIMIT));
        };
        write(b"one\n");
        std::fs::rename(&path, &moved).unwrap();
        write(b"two\n");
        log.reopen().unwrap();
        write(b"three\n");
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }
}

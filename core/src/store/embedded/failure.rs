//! Why an operation on the database failed, and what the operator can do about it.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use rustix::io::Errno;

use super::super::StoreError;
use crate::mirror::MirrorId;

/// A failure before the database file and the step are added to it.
#[derive(Debug)]
pub(super) enum Failure {
    /// No mirror has this id.
    UnknownMirror(MirrorId),
    /// Another mirror has this name.
    NameTaken,
    /// One change of a batch cannot be made.
    Batch {
        /// The mirror that it is about.
        mirror: String,
        /// Why.
        cause: Box<Failure>,
    },
    /// The file is not what this program can use; with the cause and the remedy.
    Unusable(String),
    /// SQLite reports an error.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

impl Failure {
    /// The error for the caller; `step` is what was being done to `file` over `connection`, which knows what the system said.
    pub(super) fn explain_on(self, connection: &Connection, file: &Path, step: &str) -> StoreError {
        match self {
            Failure::Sqlite(error) if is_full(&error, file, system_error(connection)) => {
                Failure::Unusable(full(file)).explain(file, step)
            }
            failure => failure.explain(file, step),
        }
    }

    /// The error for the caller; `step` is what was being done to `file`.
    pub(super) fn explain(self, file: &Path, step: &str) -> StoreError {
        let cause = match self {
            Failure::UnknownMirror(id) => return StoreError::UnknownMirror(id),
            Failure::NameTaken => return StoreError::NameTaken,
            Failure::Batch { mirror, cause } => {
                return StoreError::Batch { mirror, cause: Box::new(cause.explain(file, step)) };
            }
            Failure::Unusable(cause) => cause,
            Failure::Sqlite(error) if is_full(&error, file, None) => full(file),
            Failure::Sqlite(error) => match remedy(&error) {
                Some(remedy) => format!("{error}; {remedy}"),
                None => error.to_string(),
            },
        };
        StoreError::Database(format!("database {}: {step}: {cause}", file.display()))
    }
}

/// A disk with less room than this is full: SQLite extends its files by pieces of up to 32 KiB.
const ROOM_NEEDED: u64 = 64 << 10;

/// Whether `error` comes from a disk without room. SQLite calls some of those "disk I/O error": files that cannot grow, which a
/// quota or a limit on file sizes causes, too.
fn is_full(error: &rusqlite::Error, file: &Path, system_error: Option<Errno>) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure) => {
            matches!(system_error, Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
                || room(file).is_some_and(|room| room < ROOM_NEEDED)
        }
        _ => false,
    }
}

/// Why a full disk keeps `file` from growing, and what to do.
fn full(file: &Path) -> String {
    let room = room(file).map(|room| format!(" ({room} bytes free)")).unwrap_or_default();
    format!(
        "no space left on the disk of {}{room}, or a quota is used up: free some, then repeat the command; nothing that was \
         stored is lost",
        file.display()
    )
}

/// Bytes that the disk of `file` has free for this program's user.
fn room(file: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(file.parent()?).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The last error of the system that `connection` met, if it met one.
fn system_error(connection: &Connection) -> Option<Errno> {
    // SAFETY: the handle is used while the reference keeps the connection open, and not to close it.
    let handle = unsafe { connection.handle() };
    // SAFETY: the connection is open and nobody else uses it meanwhile, as it is not `Sync`; the call only reads a field of it.
    let code = unsafe { rusqlite::ffi::sqlite3_system_errno(handle) };
    (code > 0).then(|| Errno::from_raw_os_error(code))
}

/// What to do about the errors that have an outside cause.
fn remedy(error: &rusqlite::Error) -> Option<&'static str> {
    match error.sqlite_error_code()? {
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => Some(
            "make the file, its -wal and -shm files and their folder writable for this program's user, on a file system \
             that is not mounted read-only",
        ),
        ErrorCode::NotADatabase => {
            Some("the file is something else or its start is damaged: move it away, or restore it from a backup")
        }
        ErrorCode::DatabaseCorrupt => Some(
            "the file is damaged: stop both programs and restore it from a backup, or move it away to start afresh",
        ),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Some("another process has held its lock for too long: look which one has the file open (fuser, lsof)")
        }
        ErrorCode::SystemIoFailure => Some("the disk or its file system failed: see the kernel's log"),
        ErrorCode::FileLockingProtocolFailed => {
            Some("the file system does not lock files as it should: put StateDir on a local one")
        }
        _ => None,
    }
}

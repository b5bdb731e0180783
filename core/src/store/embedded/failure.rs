//! Why an operation on the database failed, and what the operator can do about it.

use std::path::Path;

use rusqlite::ErrorCode;

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
    /// The error for the caller; `step` is what was being done to `file`.
    pub(super) fn explain(self, file: &Path, step: &str) -> StoreError {
        let cause = match self {
            Failure::UnknownMirror(id) => return StoreError::UnknownMirror(id),
            Failure::NameTaken => return StoreError::NameTaken,
            Failure::Batch { mirror, cause } => {
                return StoreError::Batch { mirror, cause: Box::new(cause.explain(file, step)) };
            }
            Failure::Unusable(cause) => cause,
            Failure::Sqlite(error) => match remedy(&error) {
                Some(remedy) => format!("{error}; {remedy}"),
                None => error.to_string(),
            },
        };
        StoreError::Database(format!("database {}: {step}: {cause}", file.display()))
    }
}

/// What to do about the errors that have an outside cause.
fn remedy(error: &rusqlite::Error) -> Option<&'static str> {
    match error.sqlite_error_code()? {
        ErrorCode::DiskFull => Some("nothing that was stored is lost: make room on that disk and try again"),
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

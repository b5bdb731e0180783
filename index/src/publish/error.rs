//! Why nothing was published.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::current::CurrentError;
use crate::mirrors::MirrorsViolation;

/// What the operating system refused during a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishStep {
    /// Making the index folder.
    CreateFolder,
    /// Opening or locking the lock file.
    Lock,
    /// Listing the index folder.
    List,
    /// Creating a temporary file.
    Create,
    /// Writing it.
    Write,
    /// Bringing it to the disk.
    Sync,
    /// Giving it its name.
    Rename,
    /// Bringing the names to the disk.
    SyncFolder,
    /// Unlinking what is old.
    Prune,
}

impl std::fmt::Display for PublishStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PublishStep::CreateFolder => "make the folder",
            PublishStep::Lock => "lock",
            PublishStep::List => "list",
            PublishStep::Create => "create",
            PublishStep::Write => "write",
            PublishStep::Sync => "sync",
            PublishStep::Rename => "rename",
            PublishStep::SyncFolder => "sync the folder",
            PublishStep::Prune => "unlink",
        })
    }
}

/// Why nothing was published. The generations that were current stay so.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The disk is full, or a quota or a limit of file sizes is reached. The unfinished file was removed.
    #[error(
        "index: no space to {step} {}: {source}. The published index stays in use; free some space on that disk, or \
         move StateDir to a larger one",
        .path.display()
    )]
    NoSpace {
        /// What was tried.
        step: PublishStep,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The operating system refused for another reason.
    #[error("index: cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        step: PublishStep,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another publisher is at work and does not come to an end.
    #[error(
        "index: another publisher has held {path} for {waited:?}; see which process by `fuser {path}`, and end it if it hangs",
        path = .path.display()
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited for it.
        waited: Duration,
    },
    /// A mirror's record breaks a rule of the format.
    #[error("index: mirror {name} cannot be published: {source}")]
    Mirror {
        /// Its name.
        name: String,
        /// The rule.
        source: MirrorsViolation,
    },
    /// `CURRENT` cannot be read.
    #[error(transparent)]
    Current(#[from] CurrentError),
    /// A file has the last number that there is; no publisher ever gets there, so someone else made it.
    #[error("index: {} has the last possible number; remove it", .path.display())]
    NumbersUsedUp {
        /// The file.
        path: PathBuf,
    },
}

impl PublishError {
    pub(super) fn io(step: PublishStep, path: &Path, source: io::Error) -> PublishError {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                PublishError::NoSpace { step, path, source }
            }
            _ => PublishError::Io { step, path, source },
        }
    }
}

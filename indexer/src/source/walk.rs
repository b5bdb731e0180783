//! The walk over the repository: which paths there are, and what each is.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jwalk::{DirEntry, Parallelism, WalkDirGeneric};
use mb_core::time::FileTime;

use super::SourceError;
use super::link::{LinkTarget, resolve};
use crate::progress::{Cancellation, Progress};

/// A path of the repository as the walk found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Absolute within the repository.
    pub(crate) path: Vec<u8>,
    /// What is there.
    pub(crate) kind: WalkedKind,
}

/// What the walk found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WalkedKind {
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Modification time.
        modified: FileTime,
    },
    /// A directory.
    Directory,
    /// A symbolic link, with the repository path it leads to in the end.
    Alias(Vec<u8>),
    /// A symbolic link that leaves the repository.
    Forbidden,
}

/// Result of a walk.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// By ascending path, without duplicates.
    pub(crate) entries: Vec<Walked>,
    /// Files and directories that could not be read; nothing is known about them or what is below them.
    pub(crate) unreadable: Vec<Vec<u8>>,
}

/// What a thread of the walk learnt about an entry while it read its directory.
#[derive(Debug)]
enum Seen {
    Entry(WalkedKind),
    Unreadable(io::Error),
    BrokenLink(io::Error),
    Gone,
    Special,
}

/// Walks the repository. Names that start with a dot are skipped: hidden files, and the `.~tmp~` folders of rsync.
///
/// # Errors
/// When the repository itself cannot be read, or the walk was cancelled. What cannot be read below it is listed in
/// [`Walk::unreadable`].
pub(crate) fn walk(repository: &Path, progress: &Progress, cancellation: &Cancellation) -> Result<Walk, SourceError> {
    let unusable = |cause| SourceError::Repository { path: repository.to_owned(), cause };
    let root = repository.canonicalize().map_err(unusable)?;
    std::fs::read_dir(&root).map_err(unusable)?;

    let link_root = root.clone();
    let entries = WalkDirGeneric::<((), Option<Seen>)>::new(&root)
        .skip_hidden(true)
        .min_depth(1)
        .parallelism(Parallelism::RayonNewPool(walking_threads()))
        .process_read_dir(move |_, _, (), children| {
            for child in children.iter_mut().flatten() {
                child.client_state = Some(examine(child, &link_root));
            }
        })
        .try_into_iter()
        .map_err(|error| unusable(error.into()))?;

    let mut walk = Walk::default();
    walk.entries.push(Walked { path: b"/".to_vec(), kind: WalkedKind::Directory });
    for entry in entries {
        if cancellation.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        match entry {
            Ok(mut entry) => {
                let path = repository_path(&root, &entry.path());
                let seen = entry.client_state.take();
                walk.note(path, seen);
            }
            Err(error) => {
                let path = error.path().map_or_else(|| root.clone(), Path::to_owned);
                let cause: io::Error = error.into();
                if path == root {
                    return Err(unusable(cause));
                }
                if cause.kind() != io::ErrorKind::NotFound {
                    walk.note(repository_path(&root, &path), Some(Seen::Unreadable(cause)));
                }
            }
        }
        if walk.entries.len().is_multiple_of(10_000) {
            progress.report(format!("Walking the repository: {} entries", walk.entries.len()));
        }
    }
    walk.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    walk.entries.dedup_by(|a, b| a.path == b.path);
    Ok(walk)
}

impl Walk {
    fn note(&mut self, path: Vec<u8>, seen: Option<Seen>) {
        match seen {
            Some(Seen::Entry(kind)) => self.entries.push(Walked { path, kind }),
            Some(Seen::Unreadable(cause)) => {
                tracing::warn!(path = %path.escape_ascii(), %cause, "cannot be read, its earlier entry is kept");
                self.unreadable.push(path);
            }
            Some(Seen::BrokenLink(cause)) => {
                tracing::warn!(path = %path.escape_ascii(), %cause, "symbolic link leads nowhere, skipped");
            }
            Some(Seen::Gone | Seen::Special) | None => {}
        }
    }
}

/// Metadata is waited for much more than it is computed, so a few threads more than cores pay off on a cold cache.
fn walking_threads() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| cores.get().clamp(4, 16))
}

fn examine(entry: &DirEntry<((), Option<Seen>)>, root: &Path) -> Seen {
    if entry.file_type.is_dir() {
        return Seen::Entry(WalkedKind::Directory);
    }
    let path = entry.path();
    if entry.file_type.is_symlink() {
        return match resolve(root, &path) {
            Ok(LinkTarget::Inside(target)) => Seen::Entry(WalkedKind::Alias(target)),
            Ok(LinkTarget::Outside) => Seen::Entry(WalkedKind::Forbidden),
            Err(cause) => Seen::BrokenLink(cause),
        };
    }
    if !entry.file_type.is_file() {
        return Seen::Special;
    }
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {
            Seen::Entry(WalkedKind::File { size: metadata.len(), modified: modified(&metadata) })
        }
        Ok(_) => Seen::Gone,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Seen::Gone,
        Err(cause) => Seen::Unreadable(cause),
    }
}

/// The modification time of a file in full resolution.
pub(super) fn modified(metadata: &Metadata) -> FileTime {
    use std::os::unix::fs::MetadataExt;
    FileTime(metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()))
}

/// The repository path of a file system path below the root.
pub(super) fn repository_path(root: &Path, path: &Path) -> Vec<u8> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let mut bytes = Vec::with_capacity(relative.as_os_str().len() + 1);
    bytes.push(b'/');
    bytes.extend_from_slice(relative.as_os_str().as_bytes());
    bytes
}

/// The file system path of a repository path.
pub(super) fn file_system_path(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

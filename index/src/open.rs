//! Which file to open: the generation that `CURRENT` names, or the best that there is when that one is refused.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::io;
use std::path::{Path, PathBuf};

use mb_core::time::Timestamp;

use crate::current::{CurrentError, read_current};
use crate::files::archive::ArchivedFilesArchive;
use crate::files::reader::FileIndex;
use crate::files::verify::FilesViolation;
use crate::folder::{file_name, generation_of, generations};
use crate::header::{HeaderError, Kind};
use crate::mapping::{Mapping, Root, identify, kind_of};
use crate::mirrors::{ArchivedMirrorsArchive, MirrorIndex, MirrorsViolation};

/// What the operating system refused while a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenStep {
    /// Opening the file.
    Open,
    /// Reading its header.
    Read,
    /// Getting memory for it.
    Map,
    /// Reading all of it into that memory.
    Load,
    /// Listing the folder.
    List,
}

impl std::fmt::Display for OpenStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OpenStep::Open => "open",
            OpenStep::Read => "read",
            OpenStep::Map => "get memory for",
            OpenStep::Load => "load",
            OpenStep::List => "list",
        })
    }
}

/// Why an index file is refused. None of them harms: the generation in use stays, or the one before it is opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("index: cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        step: OpenStep,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Longer or shorter than its header says, or too short for a header.
    #[error("index: {} has {found} bytes instead of {expected}; publish again (`mb-indexer build`)", .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The length it should have, in bytes.
        expected: u64,
        /// The length it has, in bytes.
        found: u64,
    },
    /// The header is refused.
    #[error("index: {} is refused: {source}; publish again (`mb-indexer build`)", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: HeaderError,
    },
    /// A file of the other kind.
    #[error("index: {} is a {found} file under the name of a {expected} file", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind it should be.
        expected: Kind,
        /// The kind it is.
        found: Kind,
    },
    /// A file of another generation.
    #[error("index: {} holds generation {found} under the name of generation {expected}", .path.display())]
    Generation {
        /// The file.
        path: PathBuf,
        /// The generation it should be.
        expected: u64,
        /// The generation it is.
        found: u64,
    },
    /// The content is not what was written.
    #[error("index: {} is damaged (checksum mismatch); check the disk and publish again (`mb-indexer build`)", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The content is as it was written, but not an archive of this format.
    #[error("index: {} is not readable by this version: {reason}", .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What the byte checks found.
        reason: String,
    },
    /// The content breaks a rule of files indexes; its writer has a defect.
    #[error("index: {} is inconsistent: {source}; publish again (`mb-indexer build`)", .path.display())]
    Files {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: FilesViolation,
    },
    /// The content breaks a rule of mirror tables; its writer has a defect.
    #[error("index: {} is inconsistent: {source}; publish again (`mb-indexer build`)", .path.display())]
    Mirrors {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: MirrorsViolation,
    },
    /// No generation of a kind is current.
    #[error("index: no {kind} generation is published in {}; publish again (`mb-indexer build`)", .dir.display())]
    NotPublished {
        /// The folder.
        dir: PathBuf,
        /// The kind.
        kind: Kind,
    },
    /// `CURRENT` cannot be used, so the newest generation is.
    #[error(transparent)]
    Current(#[from] CurrentError),
}

impl OpenError {
    fn is_not_found(&self) -> bool {
        matches!(self, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What an attempt to open the newest generation came to.
#[derive(Debug)]
pub struct Opened<T> {
    /// The first generation that passed all checks; `None` when there is none, as before anything was published.
    pub index: Option<T>,
    /// What was refused before it, in the order of the attempts.
    pub refused: Vec<OpenError>,
}

/// Opens the files generation that `CURRENT` names, or else an older one, or else any.
pub fn open_newest_files(dir: &Path) -> Opened<FileIndex> {
    open_newest(dir, Kind::Files, FileIndex::open)
}

/// Opens the mirror table that `CURRENT` names, or else an older one, or else any.
pub fn open_newest_mirrors(dir: &Path) -> Opened<MirrorIndex> {
    open_newest(dir, Kind::Mirrors, MirrorIndex::open)
}

/// How often `CURRENT` is read again when the file it named was replaced and unlinked before it was opened. Each time
/// takes two publications between two system calls.
const MOST_RACES: usize = 8;

fn open_newest<T>(dir: &Path, kind: Kind, open: impl Fn(&Path, u64) -> Result<T, OpenError>) -> Opened<T> {
    let mut refused = Vec::new();
    let named = || read_current(dir).map(|current| current.and_then(|current| current.generation(kind)));
    let mut current = named();
    for _ in 0..MOST_RACES {
        let Ok(Some(generation)) = current else { break };
        match open(&dir.join(file_name(kind, generation)), generation) {
            Ok(index) => return Opened { index: Some(index), refused },
            Err(error) => {
                let again = if error.is_not_found() { named() } else { Ok(Some(generation)) };
                if matches!(again, Ok(Some(now)) if now == generation) {
                    refused.push(error);
                    break;
                }
                current = again;
            }
        }
    }
    let tried = match current {
        Ok(tried) => tried,
        Err(error) => {
            refused.push(error.into());
            None
        }
    };
    let generations = match generations(dir, kind) {
        Ok(generations) => generations,
        Err(source) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            refused.push(OpenError::Io { step: OpenStep::List, path: dir.to_owned(), source });
            Vec::new()
        }
    };
    for generation in fallbacks(generations, tried) {
        match open(&dir.join(file_name(kind, generation)), generation) {
            Ok(index) => return Opened { index: Some(index), refused },
            Err(error) => refused.push(error),
        }
    }
    Opened { index: None, refused }
}

/// The order in which generations are tried after the current one: those before it, the newest first, since they were in
/// use; then those after it, which were complete but never made current.
fn fallbacks(mut generations: Vec<u64>, current: Option<u64>) -> Vec<u64> {
    generations.retain(|&generation| Some(generation) != current);
    generations.sort_unstable_by_key(|&generation| {
        let is_newer = current.is_some_and(|current| generation > current);
        (is_newer, std::cmp::Reverse(generation))
    });
    generations
}

/// Checks that a generation of each kind is current, with a header that is right and a file that has its length: what can be
/// told in microseconds of a folder whose files may have been deleted or truncated since they were published.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_current(dir: &Path) -> Result<(), OpenError> {
    let current = read_current(dir)?.unwrap_or_default();
    for kind in [Kind::Files, Kind::Mirrors] {
        let expected = current.generation(kind).ok_or_else(|| OpenError::NotPublished { dir: dir.to_owned(), kind })?;
        let path = dir.join(file_name(kind, expected));
        let found = identify(&path)?.number;
        if found != expected {
            return Err(OpenError::Generation { path, expected, found });
        }
    }
    Ok(())
}

/// What the full check of an index file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Its generation.
    pub generation: u64,
    /// When it was published.
    pub built: Timestamp,
    /// Its length in bytes.
    pub bytes: u64,
    /// Number of files or mirrors in it.
    pub records: usize,
}

/// Checks an index file of either kind in full. A file under the name of a generation must be that generation.
///
/// # Errors
/// Whatever is wrong with the file.
pub fn verify(path: &Path) -> Result<VerifyReport, OpenError> {
    match kind_of(path)? {
        Kind::Files => report::<ArchivedFilesArchive>(path),
        Kind::Mirrors => report::<ArchivedMirrorsArchive>(path),
    }
}

fn report<A: Root>(path: &Path) -> Result<VerifyReport, OpenError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let expected = name.and_then(generation_of).map(|(_, generation)| generation);
    let mapping = Mapping::<A>::open(path, expected)?;
    Ok(VerifyReport {
        path: path.to_owned(),
        kind: A::KIND,
        generation: mapping.header().generation,
        built: mapping.header().built,
        bytes: mapping.length(),
        records: mapping.archive().record_count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_that_were_in_use_are_tried_before_those_that_never_were() {
        assert_eq!(fallbacks(vec![1, 2, 3, 4, 5], Some(3)), [2, 1, 5, 4]);
        assert_eq!(fallbacks(vec![1, 3, 2], None), [3, 2, 1]);
    }
}

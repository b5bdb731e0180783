//! The index: what the redirector answers from.
//!
//! Interface first; the parts behind it follow.

use std::path::{Path, PathBuf};

use mb_core::mirror::{Mirror, MirrorId};
use mb_core::store::FileHashes;
use mb_core::time::{FileTime, Timestamp};

/// Number of a mirror set within one files generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub(crate) u32);

impl SetId {
    /// The number: 0 up to [`FileIndex::set_count`].
    pub fn number(self) -> u32 {
        self.0
    }
}

/// A mirror's copy of a file that differs from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Ordinal of the mirror among the ids that the index was built for.
    pub mirror: u32,
    /// Size of the copy in bytes.
    pub size: u64,
    /// Modification time as the mirror lists it; `None` when it is unknown.
    pub modified: Option<FileTime>,
}

/// A file to be added to the index.
#[derive(Clone, Copy, Debug)]
pub struct FileRecord<'a> {
    /// Absolute within the repository.
    pub path: &'a [u8],
    /// Size of the source in bytes.
    pub size: u64,
    /// Modification time of the source.
    pub modified: FileTime,
    /// Hashes of the source.
    pub hashes: FileHashes,
    /// The mirrors whose copy equals the source.
    pub set: SetId,
    /// The copies that differ, by ascending mirror ordinal.
    pub exceptions: &'a [Exception],
}

/// Why something cannot be added to the index.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not strictly ascending.
    #[error("out of order")]
    Order,
}

/// Builds a [`FilesModel`].
#[derive(Debug)]
pub struct FilesBuilder {}

#[allow(unused_variables, missing_docs)]
impl FilesBuilder {
    pub fn new(mirror_ids: &[MirrorId], fix_timezone_offsets: bool) -> FilesBuilder {
        unimplemented!()
    }
    pub fn set_words(&self) -> usize {
        unimplemented!()
    }
    pub fn intern_set(&mut self, words: &[u64]) -> SetId {
        unimplemented!()
    }
    pub fn push_file(&mut self, file: FileRecord<'_>) -> Result<(), BuildError> {
        unimplemented!()
    }
    /// Aliases, directories and forbidden links come in one strictly ascending order of their own.
    pub fn push_alias(&mut self, path: &[u8], target: &[u8]) -> Result<(), BuildError> {
        unimplemented!()
    }
    pub fn push_directory(&mut self, path: &[u8]) -> Result<(), BuildError> {
        unimplemented!()
    }
    pub fn push_forbidden(&mut self, path: &[u8]) -> Result<(), BuildError> {
        unimplemented!()
    }
    pub fn finish(self) -> FilesModel {
        unimplemented!()
    }
}

/// The content of a files generation.
#[derive(Debug)]
pub struct FilesModel {}

/// Which generations are current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Generation of the files.
    pub files: Option<u64>,
    /// Generation of the mirror table.
    pub mirrors: Option<u64>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Replaced by the real causes.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Publishes generations into a folder.
#[derive(Debug)]
pub struct Publisher {}

#[allow(unused_variables, missing_docs)]
impl Publisher {
    pub fn new(dir: &Path) -> Publisher {
        unimplemented!()
    }
    pub fn lock(&self) -> Result<PublishLock, PublishError> {
        unimplemented!()
    }
}

/// The right to publish.
#[derive(Debug)]
pub struct PublishLock {}

#[allow(unused_variables, missing_docs)]
impl PublishLock {
    pub fn current(&self) -> Result<Option<Current>, PublishError> {
        unimplemented!()
    }
    pub fn publish(&mut self, files: Option<&FilesModel>, mirrors: &[Mirror]) -> Result<Current, PublishError> {
        unimplemented!()
    }
}

/// Why a file of the index was refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Replaced by the real causes.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What `CURRENT` names; `None` when nothing was ever published.
pub fn read_current(_dir: &Path) -> Result<Option<Current>, OpenError> {
    unimplemented!()
}

/// What an attempt to open the newest generation came to.
#[derive(Debug)]
pub struct Opened<T> {
    /// The newest generation that passed all checks.
    pub index: Option<T>,
    /// Why others were refused, newest first.
    pub refused: Vec<OpenError>,
}

/// Opens the newest usable files generation.
pub fn open_newest_files(_dir: &Path) -> Opened<FileIndex> {
    unimplemented!()
}

/// Opens the newest usable mirror table.
pub fn open_newest_mirrors(_dir: &Path) -> Opened<MirrorIndex> {
    unimplemented!()
}

/// Which of the two kinds of index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paths, file facts, mirror sets.
    Files,
    /// Mirror records.
    Mirrors,
}

/// What a full check found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Its generation.
    pub generation: u64,
    /// When it was built.
    pub built: Timestamp,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Number of files or mirrors in it.
    pub records: usize,
}

/// Checks one index file of either kind in full.
pub fn verify(_path: &Path) -> Result<VerifyReport, OpenError> {
    unimplemented!()
}

/// An open mirror table.
#[derive(Debug)]
pub struct MirrorIndex {}

#[allow(unused_variables, missing_docs)]
impl MirrorIndex {
    pub fn open(path: &Path, expected_generation: u64) -> Result<MirrorIndex, OpenError> {
        unimplemented!()
    }
    pub fn generation(&self) -> u64 {
        unimplemented!()
    }
    pub fn built(&self) -> Timestamp {
        unimplemented!()
    }
    pub fn mirrors(&self) -> Vec<Mirror> {
        unimplemented!()
    }
}

/// What a path is.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A file.
    File(FileRef<'a>),
    /// A directory.
    Directory,
    /// A symbolic link inside the repository, with its target.
    Alias(&'a [u8]),
    /// A symbolic link that leaves the repository.
    Forbidden,
    /// Nothing.
    Missing,
}

/// An open files generation.
#[derive(Debug)]
pub struct FileIndex {}

#[allow(unused_variables, missing_docs, clippy::len_without_is_empty)]
impl FileIndex {
    pub fn open(path: &Path, expected_generation: u64) -> Result<FileIndex, OpenError> {
        unimplemented!()
    }
    pub fn generation(&self) -> u64 {
        unimplemented!()
    }
    pub fn built(&self) -> Timestamp {
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    pub fn fix_timezone_offsets(&self) -> bool {
        unimplemented!()
    }
    pub fn mirror_ids(&self) -> impl ExactSizeIterator<Item = MirrorId> + '_ {
        std::iter::empty()
    }
    pub fn mirror_id(&self, ordinal: u32) -> MirrorId {
        unimplemented!()
    }
    pub fn mirror_count(&self) -> usize {
        unimplemented!()
    }
    pub fn set_count(&self) -> usize {
        unimplemented!()
    }
    pub fn set(&self, set: SetId) -> MirrorSet<'_> {
        unimplemented!()
    }
    pub fn lookup(&self, path: &[u8]) -> Entry<'_> {
        unimplemented!()
    }
    pub fn resolve<'a>(&'a self, path: &[u8], scratch: &mut Vec<u8>) -> Entry<'a> {
        unimplemented!()
    }
    pub fn file(&self, row: u32) -> FileRef<'_> {
        unimplemented!()
    }
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileRef<'_>> {
        std::iter::empty()
    }
    /// Everything that is not a file, by ascending path.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&[u8], Entry<'_>)> {
        std::iter::empty()
    }
}

/// A file in an open generation.
#[derive(Clone, Copy, Debug)]
pub struct FileRef<'a> {
    _index: &'a FileIndex,
}

#[allow(missing_docs)]
impl<'a> FileRef<'a> {
    pub fn row(&self) -> u32 {
        unimplemented!()
    }
    pub fn path(&self) -> &'a [u8] {
        unimplemented!()
    }
    pub fn size(&self) -> u64 {
        unimplemented!()
    }
    pub fn modified(&self) -> FileTime {
        unimplemented!()
    }
    pub fn sha1(&self) -> Option<&'a [u8; 20]> {
        unimplemented!()
    }
    pub fn sha256(&self) -> Option<&'a [u8; 32]> {
        unimplemented!()
    }
    pub fn md5(&self) -> Option<&'a [u8; 16]> {
        unimplemented!()
    }
    pub fn set(&self) -> SetId {
        unimplemented!()
    }
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = Exception> + use<'a> {
        std::iter::empty()
    }
}

/// A set of mirrors.
#[derive(Clone, Copy, Debug)]
pub struct MirrorSet<'a> {
    _words: &'a [u64],
}

#[allow(unused_variables, missing_docs)]
impl<'a> MirrorSet<'a> {
    pub fn contains(&self, ordinal: u32) -> bool {
        unimplemented!()
    }
    pub fn ordinals(&self) -> impl Iterator<Item = u32> + use<'a> {
        std::iter::empty()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
}

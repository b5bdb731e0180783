//! Makes the content of a files generation from records in path order.
//!
//! The tables are filled as they will lie in the file, so memory is that of the finished file plus the interned sets.

use std::collections::{BTreeMap, HashMap};

use mb_core::mirror::MirrorId;
use mb_core::store::FileHashes;
use mb_core::time::FileTime;

use super::archive::{ALIAS, DIRECTORY, EMPTY, EntryRow, FORBIDDEN, FilesArchive, HAS_MD5, HAS_SHA1, HAS_SHA256, Row};
use super::path::is_canonical;
use super::set::SetId;
use super::slots::{SlotTable, hash};

mod copies;

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
    /// Clean and absolute within the repository: `/a/b.iso`. At most 65,535 bytes.
    pub path: &'a [u8],
    /// Size of the source in bytes.
    pub size: u64,
    /// Modification time of the source.
    pub modified: FileTime,
    /// Hashes of the source.
    pub hashes: FileHashes,
    /// The mirrors whose copy equals the source.
    pub set: SetId,
    /// The copies that differ, by strictly ascending mirror ordinal; none of a mirror in `set`.
    pub exceptions: &'a [Exception],
}

/// Why something cannot be added to the index.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Paths must be pushed in strictly ascending order, compared as bytes.
    #[error("index: {} was added after {}, but paths must ascend", .path.escape_ascii(), .previous.escape_ascii())]
    Order {
        /// The path that was refused.
        path: Vec<u8>,
        /// The one before it.
        previous: Vec<u8>,
    },
    /// The path or target is not absolute, or has an empty, `.` or `..` component, or a NUL.
    #[error("index: the path {} is not clean", .path.escape_ascii())]
    Unclean {
        /// The path that was refused.
        path: Vec<u8>,
    },
    /// Longer than 65,535 bytes.
    #[error("index: a path has {length} bytes, of at most 65535 (it begins with {})", .start.escape_ascii())]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// A file has a set that this builder did not intern.
    #[error("index: {} has mirror set {set}, which was not interned", .path.escape_ascii())]
    UnknownSet {
        /// The file.
        path: Vec<u8>,
        /// Number of the set.
        set: u32,
    },
    /// Exceptions not strictly ascending by mirror, of a mirror that is not in the table, or of one in the file's set.
    #[error("index: {} has a misplaced exception of the mirror with ordinal {mirror}", .path.escape_ascii())]
    Exceptions {
        /// The file.
        path: Vec<u8>,
        /// Ordinal of the mirror.
        mirror: u32,
    },
    /// More than 4,294,967,294 paths or exceptions, or more than 65,535 exceptions of one file.
    #[error("index: too many {what} for one index file")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
    },
}

/// The content of a files generation, ready to be published.
#[derive(Debug)]
pub struct FilesModel {
    pub(crate) archive: FilesArchive,
}

impl FilesModel {
    /// Number of files.
    pub fn len(&self) -> usize {
        self.archive.rows.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.archive.rows.is_empty()
    }
}

/// What a path that is no file stands for.
#[derive(Debug)]
enum EntryKind {
    Directory,
    Alias(Box<[u8]>),
    Forbidden,
}

/// Builds a [`FilesModel`].
///
/// Files come in ascending order of their paths. Aliases, directories and forbidden links together come in an
/// ascending order of their own; the two sequences may be interleaved in any way. Directories above a path need not
/// be pushed. Of a path that was pushed both as a file and as something else, the file stays.
#[derive(Debug)]
pub struct FilesBuilder {
    archive: FilesArchive,
    sets: HashMap<Box<[u64]>, SetId>,
    entries: BTreeMap<Box<[u8]>, EntryKind>,
    last_entry: Vec<u8>,
}

impl FilesBuilder {
    /// An empty index for these mirrors; `fix_timezone_offsets` says how their sets were made.
    ///
    /// # Panics
    /// When the ids are not positive and strictly ascending.
    pub fn new(mirror_ids: &[MirrorId], fix_timezone_offsets: bool) -> FilesBuilder {
        assert!(mirror_ids.is_sorted_by(|a, b| a < b), "mirror ids must be strictly ascending");
        assert!(mirror_ids.first() != Some(&MirrorId(0)), "mirror ids must be positive");
        FilesBuilder {
            archive: FilesArchive {
                mirror_ids: mirror_ids.iter().map(|id| id.0).collect(),
                fix_timezone_offsets,
                ..FilesArchive::default()
            },
            sets: HashMap::new(),
            entries: BTreeMap::from([(Box::from(*b"/"), EntryKind::Directory)]),
            last_entry: Vec::new(),
        }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// All [`BuildError`]s; the builder is as it was before.
    pub fn push_file(&mut self, file: FileRecord<'_>) -> Result<(), BuildError> {
        let path_length = checked_length(file.path)?;
        self.check_order(self.last_file(), file.path)?;
        self.check_copies(file.path, file.set, file.exceptions)?;
        if self.archive.rows.len() + self.entries.len() + depth(file.path) >= EMPTY as usize {
            return Err(BuildError::TooMany { what: "paths" });
        }
        let (exceptions_start, exceptions_length) = self.push_exceptions(file.exceptions)?;
        add_directories_above(&mut self.entries, last_path(&self.archive), file.path);
        let archive = &mut self.archive;
        let row = archive.rows.len();
        let mut hashes = 0;
        for (digest_is_there, flag) in [
            (put_digest(&mut archive.sha1, row, file.hashes.sha1), HAS_SHA1),
            (put_digest(&mut archive.sha256, row, file.hashes.sha256), HAS_SHA256),
            (put_digest(&mut archive.md5, row, file.hashes.md5), HAS_MD5),
        ] {
            if digest_is_there {
                hashes |= flag;
            }
        }
        archive.rows.push(Row {
            path_offset: archive.path_bytes.len() as u64,
            size: file.size,
            modified: file.modified.0,
            set: file.set.0,
            exceptions_start,
            path_length,
            exceptions_length,
            hashes,
            reserved: [0; 3],
        });
        archive.path_bytes.extend_from_slice(file.path);
        Ok(())
    }

    /// Number of files so far.
    pub fn len(&self) -> usize {
        self.archive.rows.len()
    }

    /// Whether there is no file yet.
    pub fn is_empty(&self) -> bool {
        self.archive.rows.is_empty()
    }

    /// The path of a file, by its place in the order in which they were pushed.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn path(&self, row: usize) -> &[u8] {
        path_of_row(&self.archive, &self.archive.rows[row])
    }

    /// Size in bytes and modification time of the source's file, by its place.
    ///
    /// # Panics
    /// As [`FilesBuilder::path`].
    pub fn source_facts(&self, row: usize) -> (u64, FileTime) {
        let row = &self.archive.rows[row];
        (row.size, FileTime(row.modified))
    }

    /// Adds a symbolic link inside the repository, with the path that it leads to after all links are resolved.
    ///
    /// # Errors
    /// [`BuildError::Order`], [`BuildError::Unclean`], [`BuildError::TooLong`], [`BuildError::TooMany`].
    pub fn push_alias(&mut self, path: &[u8], target: &[u8]) -> Result<(), BuildError> {
        checked_length(target)?;
        self.push_entry(path, EntryKind::Alias(target.into()))
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// As [`FilesBuilder::push_alias`].
    pub fn push_directory(&mut self, path: &[u8]) -> Result<(), BuildError> {
        self.push_entry(path, EntryKind::Directory)
    }

    /// Adds a symbolic link that leaves the repository.
    ///
    /// # Errors
    /// As [`FilesBuilder::push_alias`].
    pub fn push_forbidden(&mut self, path: &[u8]) -> Result<(), BuildError> {
        self.push_entry(path, EntryKind::Forbidden)
    }

    /// The finished content.
    pub fn finish(self) -> FilesModel {
        let FilesBuilder { mut archive, entries, .. } = self;
        let rows = archive.rows.len();
        pad_column(&mut archive.sha1, rows);
        pad_column(&mut archive.sha256, rows);
        pad_column(&mut archive.md5, rows);

        let mut table = SlotTable::for_records(rows + entries.len());
        for (number, row) in (0..).zip(&archive.rows) {
            // Paths of rows are strictly ascending, so no two are the same.
            table.insert(hash(path_of_row(&archive, row)), number, |_| false);
        }
        let mut number = rows as u32;
        for (path, kind) in entries {
            let is_same_file =
                |record: u32| archive.rows.get(record as usize).is_some_and(|row| path_of_row(&archive, row) == &*path);
            if table.insert(hash(&path), number, is_same_file) {
                put_entry(&mut archive, &path, &kind);
                number += 1;
            }
        }
        archive.slots = table.into_slots();
        FilesModel { archive }
    }

    fn push_entry(&mut self, path: &[u8], kind: EntryKind) -> Result<(), BuildError> {
        checked_length(path)?;
        self.check_order(&self.last_entry, path)?;
        if self.archive.rows.len() + self.entries.len() + depth(path) >= EMPTY as usize {
            return Err(BuildError::TooMany { what: "paths" });
        }
        add_directories_above(&mut self.entries, &self.last_entry, path);
        // The root stays the directory that it is, and an implied directory gives way to what was really found.
        if path != b"/" {
            self.entries.insert(path.into(), kind);
        }
        self.last_entry.clear();
        self.last_entry.extend_from_slice(path);
        Ok(())
    }

    fn last_file(&self) -> &[u8] {
        last_path(&self.archive)
    }

    fn check_order(&self, previous: &[u8], path: &[u8]) -> Result<(), BuildError> {
        if previous < path {
            return Ok(());
        }
        Err(BuildError::Order { path: path.into(), previous: previous.into() })
    }
}

fn checked_length(path: &[u8]) -> Result<u16, BuildError> {
    if !is_canonical(path) {
        return Err(BuildError::Unclean { path: path.into() });
    }
    u16::try_from(path.len()).map_err(|_| BuildError::TooLong { length: path.len(), start: path[..64].into() })
}

/// How many directories can lie above a path, and the path itself.
fn depth(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count() + 1
}

fn path_of_row<'a>(archive: &'a FilesArchive, row: &Row) -> &'a [u8] {
    &archive.path_bytes[row.path_offset as usize..][..usize::from(row.path_length)]
}

/// Path of the last row; empty when there is none.
fn last_path(archive: &FilesArchive) -> &[u8] {
    archive.rows.last().map_or(&[], |row| path_of_row(archive, row))
}

/// Records the directories above `path` that do not also lie above `previous`. Whatever lies below a directory is
/// contiguous in a sorted sequence, so each directory is met once.
fn add_directories_above(entries: &mut BTreeMap<Box<[u8]>, EntryKind>, previous: &[u8], path: &[u8]) {
    let common = previous.iter().zip(path).take_while(|(a, b)| a == b).count();
    for (slash, _) in path.iter().enumerate().skip(common.max(1)).filter(|(_, byte)| **byte == b'/') {
        entries.entry(path[..slash].into()).or_insert(EntryKind::Directory);
    }
}

/// Puts a digest into its column, which begins to exist with the first digest. Returns whether there was one.
fn put_digest<const N: usize>(column: &mut Vec<[u8; N]>, row: usize, digest: Option<[u8; N]>) -> bool {
    let Some(digest) = digest else { return false };
    column.resize(row, [0; N]);
    column.push(digest);
    true
}

/// Makes a column that exists as long as the rows.
fn pad_column<const N: usize>(column: &mut Vec<[u8; N]>, rows: usize) {
    if !column.is_empty() {
        column.resize(rows, [0; N]);
    }
}

fn put_entry(archive: &mut FilesArchive, path: &[u8], kind: &EntryKind) {
    let (kind, target): (u8, &[u8]) = match kind {
        EntryKind::Directory => (DIRECTORY, &[]),
        EntryKind::Alias(target) => (ALIAS, target),
        EntryKind::Forbidden => (FORBIDDEN, &[]),
    };
    archive.entries.push(EntryRow {
        offset: archive.entry_bytes.len() as u64,
        // Both lengths were checked when the entry was pushed.
        path_length: path.len() as u16,
        target_length: target.len() as u16,
        kind,
        reserved: [0; 3],
    });
    archive.entry_bytes.extend_from_slice(path);
    archive.entry_bytes.extend_from_slice(target);
}

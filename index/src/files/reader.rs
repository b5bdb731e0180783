//! An open files generation.
//!
//! The tables were verified when the file was opened, so a position found in one of them is in range in the other.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::path::Path;

use mb_core::mirror::MirrorId;
use mb_core::time::{FileTime, Timestamp};

use super::archive::{
    ALIAS, ArchivedExceptionRow, ArchivedFilesArchive, ArchivedRow, DIRECTORY, HAS_MD5, HAS_SHA1, HAS_SHA256,
    UNKNOWN_TIME,
};
use super::builder::Exception;
use super::prefetch::Announced;
use super::set::{MirrorSet, SetId};
use crate::header::GenerationId;
use crate::mapping::Mapping;
use crate::open::OpenError;

/// How many links are followed before a path counts as missing; as Linux does (`MAXSYMLINKS`).
const MOST_HOPS: usize = 40;

/// How far ahead of what is read memory is asked for: about as many misses as a core has on their way at once.
const ROWS_AHEAD: usize = 8;

/// An open files generation. It stays as it is, whatever is published or unlinked meanwhile.
#[derive(Debug)]
pub struct FileIndex {
    mapping: Mapping<ArchivedFilesArchive>,
    /// Whether there is an alias or a forbidden link, so that a missing path can lie below one.
    has_links: bool,
}

/// What a path is.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A file.
    File(FileRef<'a>),
    /// A directory.
    Directory,
    /// A symbolic link inside the repository, with the path that it leads to.
    Alias(&'a [u8]),
    /// A symbolic link that leaves the repository, or something below one.
    Forbidden,
    /// Nothing.
    Missing,
}

/// A path on its way through aliases: in the index, in the caller's hands, or rewritten.
enum Walk<'p> {
    Given(&'p [u8]),
    InScratch,
}

/// What the directories above a missing path come to.
enum Above<'a> {
    /// The first `usize` bytes of the path are an alias with this target.
    Alias(usize, &'a [u8]),
    Forbidden,
    Nothing,
}

impl FileIndex {
    /// Opens, checks in full and loads a file of the given generation.
    ///
    /// # Errors
    /// Whatever is wrong with the file; see [`OpenError`].
    pub fn open(path: &Path, expected_generation: u64) -> Result<FileIndex, OpenError> {
        let mapping = Mapping::<ArchivedFilesArchive>::open(path, Some(expected_generation))?;
        let has_links = mapping.archive().entries.iter().any(|entry| entry.kind != DIRECTORY);
        Ok(FileIndex { mapping, has_links })
    }

    /// Number of the generation.
    pub fn generation(&self) -> u64 {
        self.mapping.header().generation
    }

    /// Which generation it is.
    pub fn id(&self) -> GenerationId {
        self.mapping.header().id()
    }

    /// When the generation was published.
    pub fn built(&self) -> Timestamp {
        self.mapping.header().built
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.archive().rows.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the mirror sets were made with the mirrors' timezone offsets applied.
    pub fn fix_timezone_offsets(&self) -> bool {
        self.archive().fix_timezone_offsets
    }

    /// The mirrors that the sets and exceptions speak of, by ordinal; ascending.
    pub fn mirror_ids(&self) -> impl ExactSizeIterator<Item = MirrorId> + '_ {
        self.archive().mirror_ids.iter().map(|id| MirrorId(id.to_native()))
    }

    /// The mirror with an ordinal.
    ///
    /// # Panics
    /// When there is none; see [`FileIndex::mirror_count`].
    #[expect(clippy::indexing_slicing, reason = "a panic is better than the id of another mirror")]
    pub fn mirror_id(&self, ordinal: u32) -> MirrorId {
        MirrorId(self.archive().mirror_ids[ordinal as usize].to_native())
    }

    /// Number of mirrors that the index was built for.
    pub fn mirror_count(&self) -> usize {
        self.archive().mirror_ids.len()
    }

    /// Number of distinct mirror sets.
    pub fn set_count(&self) -> usize {
        self.archive().set_count.to_native() as usize
    }

    /// A mirror set by a number from this generation; empty for any other number.
    pub fn set(&self, set: SetId) -> MirrorSet<'_> {
        MirrorSet::new(self.archive().set_of(set.0))
    }

    /// Announces a lookup of `path`, as does [`FileIndex::resolve`] with its first step. [`FileIndex::fetch_row`] and then
    /// [`FileIndex::fetch_path`] are to follow, each after some other work, and then the lookup itself.
    pub fn announce(&self, path: &[u8]) -> Announced {
        self.archive().announce(path)
    }

    /// See [`FileIndex::announce`].
    pub fn fetch_row(&self, announced: &Announced) {
        self.archive().fetch_row(announced);
    }

    /// See [`FileIndex::announce`].
    pub fn fetch_path(&self, announced: &Announced) {
        self.archive().fetch_path(announced);
    }

    /// What is recorded under exactly this path.
    pub fn lookup(&self, path: &[u8]) -> Entry<'_> {
        self.archive().find(path).map_or(Entry::Missing, |record| self.entry(record))
    }

    /// What a path leads to when aliases of files and directories are followed; never [`Entry::Alias`].
    ///
    /// A path below a forbidden link is forbidden; one that needs more than 40 hops is missing. `scratch` holds
    /// rewritten paths; nothing is allocated when it is large enough, and it is not touched unless an alias of a
    /// directory is on the way.
    pub fn resolve<'a>(&'a self, path: &[u8], scratch: &mut Vec<u8>) -> Entry<'a> {
        let mut walk = Walk::Given(path);
        for _ in 0..=MOST_HOPS {
            let path = match walk {
                Walk::Given(path) => path,
                Walk::InScratch => scratch.as_slice(),
            };
            match self.lookup(path) {
                Entry::Alias(target) => walk = Walk::Given(target),
                Entry::Missing if self.has_links => match self.above(path) {
                    Above::Alias(length, target) => {
                        // What remains of the path begins with a slash, which is all of the root's own path.
                        let target = if target == b"/" { &[][..] } else { target };
                        match walk {
                            Walk::Given(path) => {
                                scratch.clear();
                                scratch.extend_from_slice(target);
                                scratch.extend_from_slice(path.get(length..).unwrap_or_default());
                            }
                            Walk::InScratch => drop(scratch.splice(..length, target.iter().copied())),
                        }
                        walk = Walk::InScratch;
                    }
                    Above::Forbidden => return Entry::Forbidden,
                    Above::Nothing => return Entry::Missing,
                },
                found => return found,
            }
        }
        Entry::Missing
    }

    /// The file in a row.
    ///
    /// # Panics
    /// When there is no such row; see [`FileIndex::len`].
    #[expect(clippy::indexing_slicing, reason = "a panic is better than the facts of another file")]
    pub fn file(&self, row: u32) -> FileRef<'_> {
        FileRef { archive: self.archive(), number: row, row: &self.archive().rows[row as usize] }
    }

    /// The paths of some rows, in their order. Memory is asked for in advance, so that the misses of many rows overlap.
    ///
    /// # Panics
    /// When there is no such row; see [`FileIndex::len`].
    pub fn paths(&self, rows: impl Iterator<Item = u32> + Clone) -> impl Iterator<Item = &[u8]> {
        let (mut far, mut near) = (rows.clone().skip(2 * ROWS_AHEAD), rows.clone().skip(ROWS_AHEAD));
        rows.map(move |row| {
            if let Some(row) = far.next() {
                self.archive().fetch_row_numbered(row);
            }
            if let Some(row) = near.next() {
                self.archive().fetch_path_of(row);
            }
            self.file(row).path()
        })
    }

    /// All files by ascending path, which is the order of the rows.
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileRef<'_>> {
        let archive = self.archive();
        archive.rows.iter().enumerate().map(move |(number, row)| FileRef { archive, number: number as u32, row })
    }

    /// Everything that is not a file, by ascending path: directories (the root first), aliases, forbidden links.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&[u8], Entry<'_>)> {
        let first = self.len() as u32;
        (0..self.archive().entries.len()).map(move |number| {
            // Verified: there are fewer records than numbers.
            let record = first.wrapping_add(number as u32);
            (self.archive().path_of(record).unwrap_or_default(), self.entry(record))
        })
    }

    fn archive(&self) -> &ArchivedFilesArchive {
        self.mapping.archive()
    }

    fn entry(&self, record: u32) -> Entry<'_> {
        let archive = self.archive();
        if let Some(row) = archive.rows.get(record as usize) {
            return Entry::File(FileRef { archive, number: record, row });
        }
        let number = (record as usize).checked_sub(archive.rows.len());
        match number.and_then(|number| archive.entries.get(number)) {
            Some(entry) if entry.kind == DIRECTORY => Entry::Directory,
            Some(entry) if entry.kind == ALIAS => Entry::Alias(archive.target_of(entry)),
            Some(_) => Entry::Forbidden,
            None => Entry::Missing,
        }
    }

    /// Walks down from the root, as a file system does, to the first thing that is no directory. All directories above
    /// recorded paths are recorded, so the walk ends where the repository does, however long the path is.
    fn above(&self, path: &[u8]) -> Above<'_> {
        for (slash, _) in path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
            match self.lookup(path.get(..slash).unwrap_or_default()) {
                Entry::Directory => {}
                Entry::Alias(target) => return Above::Alias(slash, target),
                Entry::Forbidden => return Above::Forbidden,
                Entry::File(_) | Entry::Missing => return Above::Nothing,
            }
        }
        Above::Nothing
    }
}

/// A file of an open generation.
#[derive(Clone, Copy)]
pub struct FileRef<'a> {
    archive: &'a ArchivedFilesArchive,
    number: u32,
    row: &'a ArchivedRow,
}

impl<'a> FileRef<'a> {
    /// Number of its row; the files are numbered by ascending path.
    pub fn row(&self) -> u32 {
        self.number
    }

    /// Its path in the repository.
    pub fn path(&self) -> &'a [u8] {
        slice(&self.archive.path_bytes, self.row.path_offset.to_native(), self.row.path_length.to_native())
    }

    /// Size of the source in bytes.
    pub fn size(&self) -> u64 {
        self.row.size.to_native()
    }

    /// Modification time of the source.
    pub fn modified(&self) -> FileTime {
        FileTime(self.row.modified.to_native())
    }

    /// SHA-1 of the source.
    pub fn sha1(&self) -> Option<&'a [u8; 20]> {
        self.digest(&self.archive.sha1, HAS_SHA1)
    }

    /// SHA-256 of the source.
    pub fn sha256(&self) -> Option<&'a [u8; 32]> {
        self.digest(&self.archive.sha256, HAS_SHA256)
    }

    /// MD5 of the source.
    pub fn md5(&self) -> Option<&'a [u8; 16]> {
        self.digest(&self.archive.md5, HAS_MD5)
    }

    /// The mirrors whose copy equals the source.
    pub fn set(&self) -> SetId {
        SetId(self.row.set.to_native())
    }

    /// The copies that differ from the source, by ascending mirror ordinal.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = Exception> + use<'a> {
        let start = u64::from(self.row.exceptions_start.to_native());
        slice(&self.archive.exceptions, start, self.row.exceptions_length.to_native()).iter().map(exception)
    }

    fn digest<T>(&self, column: &'a [T], flag: u8) -> Option<&'a T> {
        if self.row.hashes & flag == 0 {
            return None;
        }
        column.get(self.number as usize)
    }
}

impl std::fmt::Debug for FileRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.number, self.path().escape_ascii())
    }
}

/// A range of a table that was verified; empty where it is broken all the same.
fn slice<T>(table: &[T], start: u64, length: u16) -> &[T] {
    let range = table.get(start as usize..).and_then(|rest| rest.get(..usize::from(length)));
    range.unwrap_or_default()
}

fn exception(row: &ArchivedExceptionRow) -> Exception {
    let modified = row.modified.to_native();
    Exception {
        mirror: row.mirror.to_native(),
        size: row.size.to_native(),
        modified: (modified != UNKNOWN_TIME).then_some(FileTime(modified)),
    }
}

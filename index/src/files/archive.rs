//! The records of a files generation as they lie in the file (`FORMAT.md`, Files).
//!
//! All tables are vectors of fixed-width records that refer to each other by position. The native structs have the
//! same layout as the archived ones and no padding, so that serialising a table is one copy.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use rkyv::rend::u64_le;
use rkyv::{Archive, Serialize};

/// Everything in a files generation.
#[derive(Archive, Serialize, Debug, Default)]
pub(crate) struct FilesArchive {
    /// Ascending. A mirror's position is its ordinal.
    pub(crate) mirror_ids: Vec<u32>,
    /// `set_count` bitmaps over the ordinals, each of as many words as the mirrors need.
    pub(crate) set_words: Vec<u64>,
    /// Ascending by path.
    pub(crate) rows: Vec<Row>,
    /// The paths of the rows, one after another.
    pub(crate) path_bytes: Vec<u8>,
    /// The exceptions of the rows, one row after another, each by ascending mirror.
    pub(crate) exceptions: Vec<ExceptionRow>,
    /// One per row, or none at all when no row has one.
    pub(crate) sha1: Vec<[u8; 20]>,
    /// As `sha1`.
    pub(crate) sha256: Vec<[u8; 32]>,
    /// As `sha1`.
    pub(crate) md5: Vec<[u8; 16]>,
    /// Everything else that has a path, ascending by path.
    pub(crate) entries: Vec<EntryRow>,
    /// Path and target of each entry, one after another.
    pub(crate) entry_bytes: Vec<u8>,
    /// Hash table over rows and entries; see [`super::slots`].
    pub(crate) slots: Vec<Slot>,
    /// Number of sets; not to be had from `set_words` when there are no mirrors.
    pub(crate) set_count: u32,
    /// Whether the sets were made with the mirrors' timezone offsets applied.
    pub(crate) fix_timezone_offsets: bool,
}

/// A file: 40 bytes.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Row {
    pub(crate) path_offset: u64,
    pub(crate) size: u64,
    pub(crate) modified: i64,
    pub(crate) set: u32,
    pub(crate) exceptions_start: u32,
    pub(crate) path_length: u16,
    pub(crate) exceptions_length: u16,
    /// Which of the hash columns hold something: [`HAS_SHA1`], [`HAS_SHA256`], [`HAS_MD5`].
    pub(crate) hashes: u8,
    pub(crate) reserved: [u8; 3],
}

/// The row has a SHA-1.
pub(crate) const HAS_SHA1: u8 = 1;
/// The row has a SHA-256.
pub(crate) const HAS_SHA256: u8 = 2;
/// The row has an MD5.
pub(crate) const HAS_MD5: u8 = 4;

/// A mirror's copy that differs from the source: 24 bytes.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ExceptionRow {
    pub(crate) size: u64,
    /// [`UNKNOWN_TIME`] when the mirror does not say.
    pub(crate) modified: i64,
    pub(crate) mirror: u32,
    pub(crate) reserved: [u8; 4],
}

/// Stands for an unknown modification time. A copy that really says so is moved by a nanosecond.
pub(crate) const UNKNOWN_TIME: i64 = i64::MIN;

/// A path that is no file: 16 bytes. Its target follows its path in `entry_bytes`.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct EntryRow {
    pub(crate) offset: u64,
    pub(crate) path_length: u16,
    pub(crate) target_length: u16,
    /// [`DIRECTORY`], [`ALIAS`] or [`FORBIDDEN`].
    pub(crate) kind: u8,
    pub(crate) reserved: [u8; 3],
}

/// A directory; it has no target.
pub(crate) const DIRECTORY: u8 = 1;
/// A symbolic link inside the repository.
pub(crate) const ALIAS: u8 = 2;
/// A symbolic link out of the repository; it has no target.
pub(crate) const FORBIDDEN: u8 = 3;

/// A place in the hash table: 8 bytes.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Slot {
    /// Low half of the path's hash.
    pub(crate) fingerprint: u32,
    /// Position among the rows, or the number of rows plus the position among the entries, or [`EMPTY`].
    pub(crate) record: u32,
}

/// The record number of a slot that holds nothing.
pub(crate) const EMPTY: u32 = u32::MAX;

// As `FORMAT.md` says.
const _: () = {
    assert!(size_of::<ArchivedFilesArchive>() == 184);
    assert!(std::mem::offset_of!(ArchivedFilesArchive, slots) == 160);
    assert!(std::mem::offset_of!(ArchivedFilesArchive, fix_timezone_offsets) == 180);
    assert!(size_of::<ArchivedRow>() == 40);
    assert!(size_of::<ArchivedExceptionRow>() == 24);
    assert!(size_of::<ArchivedEntryRow>() == 16);
    assert!(size_of::<ArchivedSlot>() == 8);
};

impl ArchivedFilesArchive {
    /// The path of a row or entry by its record number; `None` when there is no such record or its range is broken.
    pub(crate) fn path_of(&self, record: u32) -> Option<&[u8]> {
        let record = record as usize;
        let rows = self.rows.as_slice();
        let (bytes, offset, length) = match rows.get(record) {
            Some(row) => (&self.path_bytes, row.path_offset, row.path_length),
            None => {
                let entry = self.entries.get(record.checked_sub(rows.len())?)?;
                (&self.entry_bytes, entry.offset, entry.path_length)
            }
        };
        let start = usize::try_from(offset.to_native()).ok()?;
        bytes.get(start..start.checked_add(usize::from(length.to_native()))?)
    }

    /// Rows and entries together.
    pub(crate) fn record_count(&self) -> usize {
        self.rows.len().saturating_add(self.entries.len())
    }

    /// Words of 64 bits in each set.
    pub(crate) fn set_stride(&self) -> usize {
        self.mirror_ids.len().div_ceil(64)
    }

    /// The words of a mirror set; none when there is no such set.
    pub(crate) fn set_of(&self, set: u32) -> &[u64_le] {
        let stride = self.set_stride();
        // At most 2³² sets of 2²⁶ words: these do not wrap.
        let start = (set as usize).wrapping_mul(stride);
        self.set_words.get(start..start.wrapping_add(stride)).unwrap_or_default()
    }

    /// The path that an alias leads to; empty when its range is broken.
    pub(crate) fn target_of(&self, entry: &ArchivedEntryRow) -> &[u8] {
        let path = usize::try_from(entry.offset.to_native()).ok().and_then(|start| self.entry_bytes.get(start..));
        let target = path.and_then(|path| path.get(usize::from(entry.path_length.to_native())..));
        target.and_then(|target| target.get(..usize::from(entry.target_length.to_native()))).unwrap_or_default()
    }
}

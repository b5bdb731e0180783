//! The rules of a files generation that byte checks know nothing of (`FORMAT.md`, Rules).
//!
//! Everything is checked in time linear in the length of the file, since a redirector does it at every generation.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use super::archive::{
    ALIAS, ArchivedFilesArchive, ArchivedRow, DIRECTORY, EMPTY, FORBIDDEN, HAS_MD5, HAS_SHA1, HAS_SHA256,
};
use super::path::is_canonical;
use super::set::contains;
use super::slots::{fingerprint, hash, home};

/// A rule that a files generation breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesViolation {
    /// Mirror ids not positive and strictly ascending.
    #[error("the mirror ids are not positive and ascending")]
    MirrorIds,
    /// The number of set words is not the number of sets times the words of a set.
    #[error("the mirror sets do not have one bit for each mirror")]
    SetWords,
    /// A bit beyond the last mirror.
    #[error("mirror set {set} has a bit beyond the last mirror")]
    SetBits {
        /// Number of the set.
        set: usize,
    },
    /// A hash column that has neither one digest for each row nor none.
    #[error("a hash column does not match the rows")]
    HashColumn,
    /// A row that says it has a hash of a column that does not exist, or has an unknown flag.
    #[error("row {row} has a wrong hash flag")]
    HashFlags {
        /// Its number.
        row: usize,
    },
    /// A path that does not begin where the one before it ended, or reaches beyond the last byte.
    #[error("record {record} has its path in a wrong place")]
    PathRange {
        /// Number of the row, or number of rows plus that of the entry.
        record: usize,
    },
    /// Path bytes that belong to no record.
    #[error("there are bytes after the last path")]
    PathBytes,
    /// A path or an alias target that is not absolute and clean.
    #[error("record {record} has an unclean path or target")]
    UncleanPath {
        /// As above.
        record: usize,
    },
    /// Paths that do not ascend.
    #[error("record {record} is out of order")]
    Order {
        /// As above.
        record: usize,
    },
    /// A row with a set that does not exist.
    #[error("row {row} has an unknown mirror set")]
    UnknownSet {
        /// Its number.
        row: usize,
    },
    /// Exceptions that do not begin where those of the row before ended, or reach beyond the last one.
    #[error("row {row} has its exceptions in a wrong place")]
    ExceptionRange {
        /// Its number.
        row: usize,
    },
    /// Exceptions that belong to no row.
    #[error("there are exceptions after those of the last row")]
    ExceptionCount,
    /// An exception of an unknown mirror, out of order, or of a mirror in the row's set.
    #[error("row {row} has a wrong exception")]
    Exception {
        /// Its number.
        row: usize,
    },
    /// An entry of an unknown kind, or with a target where none belongs, or without one.
    #[error("entry {entry} has a wrong kind or target")]
    EntryKind {
        /// Its number.
        entry: usize,
    },
    /// No slot is empty, so that a search might not end; or more records than numbers.
    #[error("the hash table is full")]
    TableFull,
    /// A slot whose record does not exist, has another hash, is in another slot too, or cannot be reached from its home.
    #[error("slot {slot} of the hash table is wrong")]
    Slot {
        /// Its number.
        slot: usize,
    },
    /// A record in no slot.
    #[error("the hash table does not have all records")]
    TableIncomplete,
    /// The root is not the first entry, or is no directory.
    #[error("the root directory is missing")]
    Root,
    /// A path below something that is not recorded.
    #[error("record {record} lies below a path that is not recorded")]
    Orphan {
        /// As above.
        record: usize,
    },
}

/// Checks all rules.
pub(crate) fn verify(archive: &ArchivedFilesArchive) -> Result<(), FilesViolation> {
    verify_sets(archive)?;
    let mut hashes = Vec::with_capacity(archive.record_count());
    verify_rows(archive, &mut hashes)?;
    verify_entries(archive, &mut hashes)?;
    verify_slots(archive, &hashes)?;
    verify_ancestors(archive)
}

fn verify_sets(archive: &ArchivedFilesArchive) -> Result<(), FilesViolation> {
    let mut previous = 0;
    for id in archive.mirror_ids.iter().map(|id| id.to_native()) {
        if id <= previous {
            return Err(FilesViolation::MirrorIds);
        }
        previous = id;
    }
    let stride = archive.set_stride();
    if (archive.set_count.to_native() as usize).checked_mul(stride) != Some(archive.set_words.len()) {
        return Err(FilesViolation::SetWords);
    }
    let spare = stride.saturating_mul(64).saturating_sub(archive.mirror_ids.len());
    let last_words = archive.set_words.iter().skip(stride.saturating_sub(1)).step_by(stride.max(1));
    match last_words.map(|word| word.to_native()).position(|word| (word.leading_zeros() as usize) < spare) {
        Some(set) => Err(FilesViolation::SetBits { set }),
        None => Ok(()),
    }
}

/// Checks the rows and appends the hashes of their paths.
fn verify_rows(archive: &ArchivedFilesArchive, hashes: &mut Vec<u64>) -> Result<(), FilesViolation> {
    let rows = archive.rows.as_slice();
    let mut columns = 0;
    for (length, flag) in
        [(archive.sha1.len(), HAS_SHA1), (archive.sha256.len(), HAS_SHA256), (archive.md5.len(), HAS_MD5)]
    {
        match length {
            0 => {}
            _ if length == rows.len() => columns |= flag,
            _ => return Err(FilesViolation::HashColumn),
        }
    }
    let mut previous: &[u8] = &[];
    let (mut path_end, mut exceptions_end) = (0, 0);
    for (number, row) in rows.iter().enumerate() {
        let path =
            next_range(&archive.path_bytes, &mut path_end, row.path_offset.to_native(), row.path_length.to_native())
                .ok_or(FilesViolation::PathRange { record: number })?;
        check_path(previous, path, number)?;
        previous = path;
        hashes.push(hash(path));
        if row.hashes & !columns != 0 {
            return Err(FilesViolation::HashFlags { row: number });
        }
        if row.set >= archive.set_count {
            return Err(FilesViolation::UnknownSet { row: number });
        }
        verify_exceptions(archive, row, number, &mut exceptions_end)?;
    }
    if path_end != archive.path_bytes.len() {
        return Err(FilesViolation::PathBytes);
    }
    if exceptions_end != archive.exceptions.len() {
        return Err(FilesViolation::ExceptionCount);
    }
    Ok(())
}

fn verify_exceptions(
    archive: &ArchivedFilesArchive,
    row: &ArchivedRow,
    number: usize,
    end: &mut usize,
) -> Result<(), FilesViolation> {
    let start = u64::from(row.exceptions_start.to_native());
    let exceptions = next_range(&archive.exceptions, end, start, row.exceptions_length.to_native())
        .ok_or(FilesViolation::ExceptionRange { row: number })?;
    let mut least = 0;
    for exception in exceptions {
        let mirror = exception.mirror.to_native();
        let set = archive.set_of(row.set.to_native()).iter().map(|word| word.to_native());
        if mirror < least || mirror as usize >= archive.mirror_ids.len() || contains(set, mirror) {
            return Err(FilesViolation::Exception { row: number });
        }
        least = mirror.saturating_add(1);
    }
    Ok(())
}

/// Checks the entries and appends the hashes of their paths.
fn verify_entries(archive: &ArchivedFilesArchive, hashes: &mut Vec<u64>) -> Result<(), FilesViolation> {
    let mut previous: &[u8] = &[];
    let mut end = 0;
    for (number, entry) in archive.entries.iter().enumerate() {
        let record = archive.rows.len().saturating_add(number);
        let (path_length, target_length) = (entry.path_length.to_native(), entry.target_length.to_native());
        let path = next_range(&archive.entry_bytes, &mut end, entry.offset.to_native(), path_length)
            .ok_or(FilesViolation::PathRange { record })?;
        let target_offset = end as u64;
        let target = next_range(&archive.entry_bytes, &mut end, target_offset, target_length)
            .ok_or(FilesViolation::PathRange { record })?;
        check_path(previous, path, record)?;
        previous = path;
        hashes.push(hash(path));
        match (entry.kind, target) {
            (DIRECTORY | FORBIDDEN, []) => {}
            (ALIAS, [_, ..]) if is_canonical(target) => {}
            (ALIAS, [_, ..]) => return Err(FilesViolation::UncleanPath { record }),
            _ => return Err(FilesViolation::EntryKind { entry: number }),
        }
    }
    if end != archive.entry_bytes.len() {
        return Err(FilesViolation::PathBytes);
    }
    match archive.entries.first() {
        Some(root) if root.kind == DIRECTORY && root.path_length == 1 => Ok(()),
        _ => Err(FilesViolation::Root),
    }
}

fn check_path(previous: &[u8], path: &[u8], record: usize) -> Result<(), FilesViolation> {
    if path <= previous {
        return Err(FilesViolation::Order { record });
    }
    if !is_canonical(path) {
        return Err(FilesViolation::UncleanPath { record });
    }
    Ok(())
}

/// The items from `start` on, which must be where the previous range ended; moves `end` behind them.
fn next_range<'a, T>(items: &'a [T], end: &mut usize, start: u64, length: u16) -> Option<&'a [T]> {
    if start != *end as u64 {
        return None;
    }
    let from = *end;
    let to = from.checked_add(usize::from(length))?;
    let range = items.get(from..to)?;
    *end = to;
    Some(range)
}

/// Each record is in exactly one slot, and no slot is empty between its home and that slot: then probing finds it.
/// One pass over the slots shows both, whatever they hold, where probing for each record might take quadratic time.
fn verify_slots(archive: &ArchivedFilesArchive, hashes: &[u64]) -> Result<(), FilesViolation> {
    let slots = archive.slots.as_slice();
    let first_empty = slots.iter().position(|slot| slot.record == EMPTY).ok_or(FilesViolation::TableFull)?;
    if hashes.len() >= EMPTY as usize {
        return Err(FilesViolation::TableFull);
    }
    let mut seen = vec![false; hashes.len()];
    let mut last_empty_distance = 0_usize;
    let (before, from_empty) = slots.split_at(first_empty);
    for (at, slot) in (first_empty..).zip(from_empty).chain((0..).zip(before)) {
        if slot.record == EMPTY {
            last_empty_distance = 0;
            continue;
        }
        last_empty_distance = last_empty_distance.saturating_add(1);
        let record = slot.record.to_native() as usize;
        let wrong = FilesViolation::Slot { slot: at };
        let hash = *hashes.get(record).ok_or(wrong)?;
        let home = home(hash, slots.len());
        // Around the end; `home` is below the number of slots.
        let distance = at.checked_sub(home).unwrap_or_else(|| at.wrapping_add(slots.len()).wrapping_sub(home));
        let seen = seen.get_mut(record).ok_or(wrong)?;
        if slot.fingerprint != fingerprint(hash) || distance >= last_empty_distance || *seen {
            return Err(wrong);
        }
        *seen = true;
    }
    if seen.contains(&false) {
        return Err(FilesViolation::TableIncomplete);
    }
    Ok(())
}

/// Every path lies below recorded ones, so that a walk from the root meets each of them.
fn verify_ancestors(archive: &ArchivedFilesArchive) -> Result<(), FilesViolation> {
    let mut known: &[u8] = &[];
    for record in 0..archive.record_count() as u32 {
        let path = archive.path_of(record).unwrap_or_default();
        let parent = match path.iter().rposition(|&byte| byte == b'/') {
            Some(0) | None => continue,
            Some(slash) => path.get(..slash).unwrap_or_default(),
        };
        if parent != known {
            archive.find(parent).ok_or(FilesViolation::Orphan { record: record as usize })?;
            known = parent;
        }
    }
    Ok(())
}

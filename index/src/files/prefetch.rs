//! Lookups announced in advance, so that the memory they read is on its way while other work is done.
//!
//! A random path of a million files touches three places that no cache holds, each found through the one before: slot, row
//! and path. Waiting for them one after another is most of a lookup.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::memory::prefetch;

use super::archive::{ArchivedFilesArchive, ArchivedRow, EMPTY};
use super::slots::{fingerprint, hash, home, next};

/// A lookup that is about to come.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    hash: u64,
    home: usize,
}

impl ArchivedFilesArchive {
    /// Asks for the slot of `path`.
    pub(crate) fn announce(&self, path: &[u8]) -> Announced {
        let hash = hash(path);
        let home = home(hash, self.slots.len());
        if let Some(slot) = self.slots.get(home) {
            prefetch(slot);
        }
        Announced { hash, home }
    }

    /// Asks for the row, by the slot.
    pub(crate) fn fetch_row(&self, announced: &Announced) {
        if let Some(row) = self.announced_row(announced) {
            prefetch(row);
        }
    }

    /// Asks for the path, by the row.
    pub(crate) fn fetch_path(&self, announced: &Announced) {
        if let Some(row) = self.announced_row(announced) {
            self.fetch_path_at(row);
        }
    }

    /// Asks for the row with a number.
    pub(crate) fn fetch_row_numbered(&self, row: u32) {
        if let Some(row) = self.rows.get(row as usize) {
            prefetch(row);
        }
    }

    /// Asks for the path of the row with a number.
    pub(crate) fn fetch_path_of(&self, row: u32) {
        if let Some(row) = self.rows.get(row as usize) {
            self.fetch_path_at(row);
        }
    }

    fn fetch_path_at(&self, row: &ArchivedRow) {
        if let Some(path) = self.path_bytes.get(row.path_offset.to_native() as usize) {
            prefetch(path);
        }
    }

    fn announced_row(&self, announced: &Announced) -> Option<&ArchivedRow> {
        let mut at = announced.home;
        loop {
            let slot = self.slots.get(at)?;
            if slot.record.to_native() == EMPTY {
                return None;
            }
            if slot.fingerprint.to_native() == fingerprint(announced.hash) {
                return self.rows.get(slot.record.to_native() as usize);
            }
            at = next(at, self.slots.len());
        }
    }
}

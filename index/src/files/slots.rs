//! The hash table from paths to records.
//!
//! Open addressing with linear probing over half as many slots again as there are records, so a path is found by one
//! hash, one or two cache lines of slots and one comparison. The home of a hash is its place when the range of hashes
//! is stretched over the slots (multiply and shift), which needs no power of two: 12 bytes a record, always.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use xxhash_rust::xxh3::xxh3_64;

use super::archive::{ArchivedFilesArchive, EMPTY, Slot};

/// Hash of a path: the upper bits choose the home slot, the lower half is the fingerprint.
pub(crate) fn hash(path: &[u8]) -> u64 {
    xxh3_64(path)
}

/// The lower half of the hash, compared before the path is.
pub(crate) fn fingerprint(hash: u64) -> u32 {
    hash as u32
}

/// Where probing for `hash` begins among `slots` slots.
pub(crate) fn home(hash: u64, slots: usize) -> usize {
    // A product of two numbers of 64 bits does not wrap.
    (u128::from(hash).wrapping_mul(slots as u128) >> 64) as usize
}

/// Slots for `records` records: two thirds full, and at least one stays empty.
pub(crate) fn slots_for(records: usize) -> usize {
    records.saturating_add(records / 2).saturating_add(1)
}

/// The slot after `at`, around the end.
pub(crate) fn next(at: usize, slots: usize) -> usize {
    let next = at.wrapping_add(1);
    if next == slots { 0 } else { next }
}

/// Fills the table; used by the builder.
pub(crate) struct SlotTable(Vec<Slot>);

impl SlotTable {
    pub(crate) fn for_records(records: usize) -> SlotTable {
        SlotTable(vec![Slot { fingerprint: 0, record: EMPTY }; slots_for(records)])
    }

    /// Adds a record, unless one with the same path is there already: `same_path` tells by record number.
    /// Returns whether it was added.
    #[expect(clippy::indexing_slicing, reason = "`home` and `next` give places of the table, in which one stays empty")]
    pub(crate) fn insert(&mut self, hash: u64, record: u32, same_path: impl Fn(u32) -> bool) -> bool {
        let slots = self.0.len();
        let mut at = home(hash, slots);
        while self.0[at].record != EMPTY {
            if self.0[at].fingerprint == fingerprint(hash) && same_path(self.0[at].record) {
                return false;
            }
            at = next(at, slots);
        }
        self.0[at] = Slot { fingerprint: fingerprint(hash), record };
        true
    }

    pub(crate) fn into_slots(self) -> Vec<Slot> {
        self.0
    }
}

impl ArchivedFilesArchive {
    /// The record of a path. Ends because a verified table has an empty slot.
    pub(crate) fn find(&self, path: &[u8]) -> Option<u32> {
        let slots = self.slots.as_slice();
        let hash = hash(path);
        let mut at = home(hash, slots.len());
        loop {
            let slot = slots.get(at)?;
            let record = slot.record.to_native();
            if record == EMPTY {
                return None;
            }
            if slot.fingerprint.to_native() == fingerprint(hash) && self.path_of(record) == Some(path) {
                return Some(record);
            }
            at = next(at, slots.len());
        }
    }
}

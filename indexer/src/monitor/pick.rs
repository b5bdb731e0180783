//! Which file a mirror is asked for.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::mirror::MirrorId;
use mb_index::{FileIndex, FileRef};

/// Rows looked at by chance, before all are gone through: enough for a mirror that has one file in twenty.
const RANDOM_ROWS: usize = 64;

/// A file that a mirror should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeFile {
    /// Absolute within the repository.
    pub(super) path: Vec<u8>,
    /// Size in bytes.
    pub(super) size: u64,
}

/// A random file whose copy on the mirror equals the source; `None` when there is none.
pub(super) fn pick(index: &FileIndex, mirror: MirrorId) -> Option<ProbeFile> {
    let count = u32::try_from(index.len()).ok().filter(|&count| count > 0)?;
    let ordinal = (0..).zip(index.mirror_ids()).find(|(_, id)| *id == mirror)?.0;
    let has = |file: &FileRef<'_>| index.set(file.set()).contains(ordinal);
    let by_chance = (0..RANDOM_ROWS).map(|_| index.file(fastrand::u32(..count))).find(has);
    let start = fastrand::u32(..count);
    let file = by_chance.or_else(|| (start..count).chain(0..start).map(|row| index.file(row)).find(has))?;
    Some(ProbeFile { path: file.path().to_vec(), size: file.size() })
}

//! The source as columns: what a build merges the mirrors' blocks with.

use mb_core::store::{FileHashes, SourceEntry, SourceEntryKind, Store, StoreError};
use mb_core::time::FileTime;

/// The files of the source by ascending path, and everything else that it has.
#[derive(Debug, Default)]
pub(super) struct SourceRows {
    paths: Vec<u8>,
    ends: Vec<u64>,
    facts: Vec<(u64, FileTime)>,
    hashes: Vec<FileHashes>,
    /// Directories and links, by ascending path.
    pub(super) others: Vec<SourceEntry>,
}

impl SourceRows {
    /// Reads the whole source.
    pub(super) fn load(store: &dyn Store) -> Result<SourceRows, StoreError> {
        let mut rows = SourceRows::default();
        store.source_entries(&mut |entry| rows.push(entry))?;
        Ok(rows)
    }

    fn push(&mut self, entry: SourceEntry) {
        match entry.kind {
            SourceEntryKind::File { size, modified, hashes } => {
                self.paths.extend_from_slice(&entry.path);
                self.ends.push(self.paths.len() as u64);
                self.facts.push((size, modified));
                self.hashes.push(hashes);
            }
            _ => self.others.push(entry),
        }
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The path of a file.
    pub(super) fn path(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.paths[start as usize..self.ends[row] as usize]
    }

    /// Size and modification time of a file.
    pub(super) fn facts(&self, row: usize) -> (u64, FileTime) {
        self.facts[row]
    }

    /// Hashes of a file.
    pub(super) fn hashes(&self, row: usize) -> FileHashes {
        self.hashes[row]
    }

    /// The first file whose path is not less than `path`.
    pub(super) fn lower_bound(&self, path: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.path(middle) < path { low = middle + 1 } else { high = middle }
        }
        low
    }
}

//! The source in the order of its paths: what a build merges the mirrors' blocks with.

use mb_core::store::{SourceEntryKind, Store};
use mb_core::time::FileTime;
use mb_index::{FileRecord, FilesBuilder, SetId};

use super::BuildError;

/// Puts the whole source into `builder`, every file with `nobody`, the set of no mirrors.
pub(super) fn load_source(store: &dyn Store, builder: &mut FilesBuilder, nobody: SetId) -> Result<(), BuildError> {
    let mut outcome = Ok(());
    store.source_entries(&mut |entry| {
        if outcome.is_err() {
            return;
        }
        let path = &entry.path[..];
        outcome = match &entry.kind {
            &SourceEntryKind::File { size, modified, hashes } => {
                builder.push_file(FileRecord { path, size, modified, hashes, set: nobody, exceptions: &[] })
            }
            SourceEntryKind::Directory => builder.push_directory(path),
            SourceEntryKind::Alias { target } => builder.push_alias(path, target),
            SourceEntryKind::Forbidden => builder.push_forbidden(path),
        };
    })?;
    Ok(outcome?)
}

/// The files of the source by ascending path, as they lie in a builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceRows<'b>(pub(super) &'b FilesBuilder);

impl<'b> SourceRows<'b> {
    /// Number of files.
    pub(super) fn len(self) -> usize {
        self.0.len()
    }

    /// The path of a file.
    pub(super) fn path(self, row: usize) -> &'b [u8] {
        self.0.path(row)
    }

    /// Size and modification time of a file.
    pub(super) fn facts(self, row: usize) -> (u64, FileTime) {
        self.0.source_facts(row)
    }

    /// The first file whose path is not less than `path`.
    pub(super) fn lower_bound(self, path: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.path(middle) < path { low = middle + 1 } else { high = middle }
        }
        low
    }
}

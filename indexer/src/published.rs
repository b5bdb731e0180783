//! The files of the index as they are published now, for jobs that ask about files rather than change them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mb_index::{FileIndex, open_newest_files, read_current};

/// The newest usable files generation, opened when it is first asked for.
#[derive(Debug)]
pub(crate) struct Published {
    index_dir: PathBuf,
    opened: Mutex<Option<Arc<FileIndex>>>,
}

impl Published {
    /// Looks into `index_dir`.
    pub(crate) fn new(index_dir: PathBuf) -> Published {
        Published { index_dir, opened: Mutex::new(None) }
    }

    /// The newest usable generation; `None` when nothing was published or nothing of it is usable. Blocks.
    pub(crate) fn files(&self) -> Option<Arc<FileIndex>> {
        let newest = read_current(&self.index_dir).ok().flatten().and_then(|current| current.files);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = opened.as_ref().is_some_and(|index| Some(index.generation()) == newest);
        if !is_newest {
            let attempt = open_newest_files(&self.index_dir);
            for error in &attempt.refused {
                tracing::warn!(%error, "an index file was refused");
            }
            *opened = attempt.index.map(Arc::new);
        }
        opened.clone()
    }
}

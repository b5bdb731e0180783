//! The files of the index as they are published now, for jobs that ask about files rather than change them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mb_index::{FileIndex, GenerationId, Kind, file_name, identify, open_newest_files, read_current};

/// The newest usable files generation, opened when it is first asked for.
#[derive(Debug)]
pub(crate) struct Published {
    index_dir: PathBuf,
    opened: Mutex<LastOpened>,
}

/// What the last attempt to open an index came to.
#[derive(Debug, Default)]
struct LastOpened {
    /// The generation that was newest then. An older one was opened if that was refused.
    newest: Option<GenerationId>,
    index: Option<Arc<FileIndex>>,
}

impl Published {
    /// Looks into `index_dir`.
    pub(crate) fn new(index_dir: PathBuf) -> Published {
        Published { index_dir, opened: Mutex::default() }
    }

    /// The newest usable generation; `None` when nothing was published or nothing of it is usable. One that was opened is
    /// held in memory and stays when its file is damaged or deleted. Blocks.
    pub(crate) fn files(&self) -> Option<Arc<FileIndex>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = match read_current(&self.index_dir) {
            Ok(current) => {
                let named = current.and_then(|current| current.files);
                named.and_then(|number| identify(&self.index_dir.join(file_name(Kind::Files, number))).ok())
            }
            Err(error) => {
                tracing::warn!(%error, "the index in use stays");
                opened.newest
            }
        };
        if opened.index.is_none() || newest != opened.newest {
            let attempt = open_newest_files(&self.index_dir);
            for error in &attempt.refused {
                tracing::warn!(%error, "an index file was refused");
            }
            let index = attempt.index.map(Arc::new).or_else(|| opened.index.take());
            *opened = LastOpened { newest, index };
        }
        opened.index.clone()
    }
}

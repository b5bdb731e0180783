//! Counts on disk while the store does not take them: a journal in the state directory, with one owner at a time.
//!
//! It holds *batches*, which were sent and whose fate is not known, each under the name and number by which the store knows
//! whether it has them; and *loose* counts, which were never sent. That loose counts become a batch is written before the
//! batch is sent, so that a process that dies at any moment leaves nothing that could be counted twice. All of it is in
//! memory, too: the file is only read when it is opened.
//!
//! - `journal`: the file
//! - `format`: its records (`FORMAT.md`)
//! - `recovery`: what they add up to
//!
//! What is written survives the death of the process. A power cut may take the last seconds, or the note of what was sent in
//! them, which is then counted again: waiting for the disk twice a second would hold up whoever shares it.

mod format;
mod journal;
mod recovery;

#[cfg(test)]
mod found_by_fuzzing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mb_core::store::StatsBatch;
use mb_index::FileIndex;

use self::format::Origin;
use self::journal::Journal;
use self::recovery::Tail;
use super::delivery::Gathered;
use super::row_counts::RowSet;

/// Name of the spool.
const FILE_NAME: &str = "statistics-spool.journal";
/// Held by the owner.
const LOCK_NAME: &str = "statistics-spool.lock";
/// As the store creates the state directory.
const STATE_DIR_MODE: u32 = 0o750;
/// Records are not rewritten below this length: some minutes of increments of a busy node, read in a second.
const REWRITTEN_FROM: u64 = 32 << 20;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The state directory or the lock file.
    #[error("{path}: {step}: {cause}; make the state directory writable for this program's user")]
    Folder {
        /// What was touched.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The journal.
    #[error("{file}: {step}: {cause}; make room on that disk, and the file writable for this program's user")]
    File {
        /// The journal.
        file: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is no spool.
    #[error("{file}: it is something else than a spool of statistics; move it away")]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file is of another program.
    #[error(
        "{file}: its format version {version} is not this program's {}; start the program that wrote it once, or move it away",
        format::VERSION
    )]
    Version {
        /// The journal.
        file: PathBuf,
        /// What it says.
        version: u32,
    },
}

/// Names a batch of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(u64);

/// The spool, owned.
pub struct Spool {
    journal: Journal,
    loose: Gathered,
    /// Batches that the store may or may not have, the oldest first.
    live: VecDeque<(BatchId, Arc<StatsBatch>)>,
    latest: BatchId,
    /// Tells the generations apart that rows were written of.
    numbering: u64,
    /// The rows of the generation whose paths the journal has.
    named: RowSet,
    /// Records that need not be written before others are: that the store has a batch, which it knows itself.
    unwritten: Vec<u8>,
    /// From which length on the records are rewritten.
    rewritten_from: u64,
    /// Released by the system when this process ends, however it does.
    _lock: File,
}

impl Spool {
    /// Opens the spool of a state directory, and creates it where there is none; `None` while another process owns it.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(state_dir: &Path) -> Result<Option<Spool>, SpoolError> {
        let Some(lock) = lock(state_dir)? else { return Ok(None) };
        let (mut journal, records) = Journal::open(state_dir.join(FILE_NAME))?;
        let recovered = recovery::recover(&records);
        if recovered.tail != Tail::Whole {
            let lost = records.len() - recovered.length;
            if recovered.tail == Tail::Damaged {
                tracing::warn!(
                    "{}: it is damaged, and its last {lost} bytes are dropped: some downloads will not be counted",
                    state_dir.join(FILE_NAME).display()
                );
            }
            journal.cut(recovered.length as u64)?;
        }
        let mut spool = Spool {
            journal,
            loose: Gathered::default(),
            live: VecDeque::new(),
            latest: BatchId(0),
            // Only the latest has to differ from it.
            numbering: recovered.numbering.wrapping_add(1),
            named: RowSet::default(),
            unwritten: Vec::new(),
            rewritten_from: REWRITTEN_FROM,
            _lock: lock,
        };
        spool.loose.add_days(&recovered.loose);
        for batch in recovered.batches {
            spool.enlist(Arc::new(batch));
        }
        Ok(Some(spool))
    }

    /// How many downloads it holds.
    pub fn downloads(&self) -> u64 {
        let live = self.live.iter().map(|(_, batch)| batch.downloads());
        live.fold(self.loose.downloads(), u64::saturating_add)
    }

    /// Finds out whether the disk has room again, after something failed.
    ///
    /// # Errors
    /// [`SpoolError::File`]: it has not.
    pub fn find_room(&mut self) -> Result<(), SpoolError> {
        self.journal.find_room()
    }

    /// Counts by row of `files` from now on, and lets the generation before go.
    pub fn follow(&mut self, files: &Arc<FileIndex>) {
        if self.loose.follow(files) {
            self.numbering = self.numbering.wrapping_add(1);
            self.named = RowSet::new(files.len());
        }
    }

    /// Lets go of the generation when nothing is loose.
    pub fn let_go(&mut self) {
        self.loose.let_go();
    }

    /// Keeps counts that were never sent, which leaves `fresh` empty.
    ///
    /// # Errors
    /// [`SpoolError::File`]; nothing is kept then.
    pub fn add(&mut self, fresh: &mut Gathered) -> Result<(), SpoolError> {
        if let Some(files) = fresh.files() {
            self.follow(files);
        }
        let mut unnamed = RowSet::default();
        fresh.days().values().for_each(|of_day| unnamed.unite(of_day.rows.rows()));
        unnamed.subtract(&self.named);
        let mut record = Vec::new();
        format::put_loose(&mut record, fresh, self.numbering, &unnamed);
        self.append(record)?;
        self.named.unite(&unnamed);
        self.loose.absorb(fresh);
        Ok(())
    }

    /// Keeps a batch that was sent and not answered.
    ///
    /// # Errors
    /// [`SpoolError::File`]; nothing is kept then.
    pub fn add_batch(&mut self, batch: &Arc<StatsBatch>) -> Result<BatchId, SpoolError> {
        let mut record = Vec::new();
        format::put_batch(&mut record, Origin::Fresh, batch);
        self.append(record)?;
        Ok(self.enlist(Arc::clone(batch)))
    }

    /// The batch to send next: the oldest of those whose fate is not known, else at most `files` files of what was never
    /// sent, from now on under this name and number. `None` when the spool is empty.
    ///
    /// # Errors
    /// [`SpoolError::File`]; what was never sent stays so.
    pub fn next_batch(
        &mut self,
        node: &str,
        sequence: u64,
        files: usize,
    ) -> Result<Option<(BatchId, Arc<StatsBatch>)>, SpoolError> {
        if let Some((id, batch)) = self.live.front() {
            return Ok(Some((*id, Arc::clone(batch))));
        }
        let Some(days) = self.loose.cut(files) else { return Ok(None) };
        let batch = Arc::new(StatsBatch { node: node.to_owned(), sequence, days });
        let mut record = Vec::new();
        format::put_batch(&mut record, Origin::Loose, &batch);
        if let Err(error) = self.append(record) {
            self.loose.add_days(&batch.days);
            return Err(error);
        }
        Ok(Some((self.enlist(Arc::clone(&batch)), batch)))
    }

    /// Forgets a batch that the store has. Should this process die before that is written, the next one asks the store.
    pub fn remove(&mut self, id: BatchId) {
        if let Some(place) = self.live.iter().position(|(live, _)| *live == id)
            && let Some((_, batch)) = self.live.remove(place)
        {
            format::put_done(&mut self.unwritten, &batch);
        }
    }

    /// Writes what was not written yet, and makes the journal short: empty when nothing is left, and without what is done
    /// when it has grown.
    ///
    /// # Errors
    /// [`SpoolError::File`]; nothing is lost.
    pub fn tidy(&mut self) -> Result<(), SpoolError> {
        if self.live.is_empty() && self.loose.is_empty() {
            if self.journal.length() > 0 {
                self.journal.cut(0)?;
            }
            self.unwritten.clear();
            self.named = RowSet::default();
            self.rewritten_from = REWRITTEN_FROM;
            return Ok(());
        }
        if !self.unwritten.is_empty() {
            self.append(Vec::new())?;
        }
        if self.journal.length() > self.rewritten_from {
            // Should it fail, it is not tried again at once: it takes as much room as all that is live.
            self.rewritten_from = 2 * self.journal.length();
            self.rewrite()?;
            self.rewritten_from = REWRITTEN_FROM.max(2 * self.journal.length());
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), SpoolError> {
        let mut records = Vec::new();
        for (_, batch) in &self.live {
            // What is loose is written without it.
            format::put_batch(&mut records, Origin::Fresh, batch);
        }
        let mut named = RowSet::default();
        self.loose.days().values().for_each(|of_day| named.unite(of_day.rows.rows()));
        format::put_loose(&mut records, &self.loose, self.numbering.wrapping_add(1), &named);
        self.journal.replace(&records)?;
        self.numbering = self.numbering.wrapping_add(1);
        self.named = named;
        self.unwritten.clear();
        Ok(())
    }

    /// Appends a record, behind those that were not urgent.
    fn append(&mut self, record: Vec<u8>) -> Result<(), SpoolError> {
        let held_back = self.unwritten.len();
        self.unwritten.extend(record);
        let appended = self.journal.append(&self.unwritten);
        self.unwritten.truncate(if appended.is_ok() { 0 } else { held_back });
        appended
    }

    fn enlist(&mut self, batch: Arc<StatsBatch>) -> BatchId {
        self.latest = BatchId(self.latest.0 + 1);
        self.live.push_back((self.latest, batch));
        self.latest
    }
}

/// Makes this process the owner; `None` while another one is.
fn lock(state_dir: &Path) -> Result<Option<File>, SpoolError> {
    let failed = |path: &Path, step| {
        let path = path.to_owned();
        move |cause| SpoolError::Folder { path, step, cause }
    };
    let created = DirBuilder::new().recursive(true).mode(STATE_DIR_MODE).create(state_dir);
    created.map_err(failed(state_dir, "creating it"))?;
    let file = state_dir.join(LOCK_NAME);
    let opened = File::options().create(true).truncate(false).write(true).open(&file);
    let lock = opened.map_err(failed(&file, "opening it"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(failed(&file, "locking it")(cause)),
    }
}

//! The download log: a line for each redirect and each JSON answer.
//!
//! A shard takes down the facts of its answers in a batch of its own ([`EntryBuffer`]) and hands it over ten times a second,
//! or when it is full. A thread makes lines of them (`line`) and writes them to the file (`writer`): a request costs the
//! shard a copy of some 90 bytes. When that thread does not keep up, because the disk is slow or the reader of a pipe has
//! stopped, lines are dropped and counted; no answer waits.

mod line;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use jiff::tz::TimeZone;

use self::line::LineFormat;
pub use self::writer::Destination;
use self::writer::{Orders, Writer};
use super::figures::Figures;
use mb_core::priority::give_way;
use mb_core::supervise::keep_going;

use crate::handle::Handler;
use crate::handle::outcome::{Kind, Outcome};
use crate::snapshot::Snapshot;

/// A batch of so many entries is handed over at once.
const BATCH_SIZE: usize = 1024;
/// Batches that wait for the writer: up to 65,536 lines, in some 6 MB.
const BATCHES_WAITING: usize = 64;
/// A batch that cannot be handed over takes so many entries.
const BATCH_SIZE_MAX: usize = 8 * BATCH_SIZE;
/// Between two looks at whether the writer has ended.
const END_INTERVAL: Duration = Duration::from_millis(5);

/// What a line is made of.
#[derive(Clone, Copy, Debug)]
struct Entry {
    outcome: Outcome,
    /// Unix time in microseconds.
    at: i64,
    /// Where the path ends in the batch's `paths`, unless it is that of the outcome's file.
    path_end: usize,
}

/// Entries on their way to the writer.
#[derive(Default)]
struct Batch {
    /// What the outcomes speak of; `None` as long as there is none.
    snapshot: Option<Arc<Snapshot>>,
    entries: Vec<Entry>,
    /// Paths of what is no file of the index, one after another.
    paths: Vec<u8>,
}

impl Batch {
    /// Each entry with its path.
    fn entries(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        let files = self.snapshot.as_ref().and_then(|snapshot| snapshot.files.as_ref());
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let own = &self.paths[start..entry.path_end];
            start = entry.path_end;
            let path = files.zip(entry.outcome.file).map_or(own, |(files, file)| files.file(file.row).path());
            (entry, path)
        })
    }

    fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    fn clear(&mut self) {
        self.snapshot = None;
        self.entries.clear();
        self.paths.clear();
    }
}

/// The running writer.
pub struct DownloadLog {
    intake: Intake,
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

impl DownloadLog {
    /// Starts to write `downloads.log` to `destination`, if there is one. What is wrong with the file is logged, and it is
    /// tried again.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(destination: Option<Destination>, figures: Arc<Figures>) -> std::io::Result<DownloadLog> {
        let (batches, inbox) = bounded(BATCHES_WAITING);
        let (spare, spares) = bounded(BATCHES_WAITING);
        let orders = Arc::new(Orders::new(destination));
        let format = LineFormat::new(TimeZone::system());
        let mut writer = Writer::new(Arc::clone(&orders), format, Arc::clone(&figures));
        let work = move || {
            give_way();
            keep_going("download-log", || writer.run(&inbox, &spare));
        };
        let thread = std::thread::Builder::new().name("download-log".to_owned()).spawn(work)?;
        Ok(DownloadLog { intake: Intake { batches, spares, figures }, orders, thread })
    }

    /// What a shard needs to take part.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Has the file opened anew: lines that were handed over before may still go to the old one.
    pub fn reopen(&self) {
        self.orders.reopen();
    }

    /// Has another file written, or none; the settings that shards log by are to change with it.
    pub fn write_to(&self, destination: Option<Destination>) {
        self.orders.write_to(destination);
    }

    /// Writes what was handed over and ends; gives up after `patience`.
    pub fn stop(self, patience: Duration) {
        let DownloadLog { intake, thread, .. } = self;
        // The last sender: the writer ends when it has written all.
        drop(intake);
        let deadline = Instant::now() + patience;
        while !thread.is_finished() {
            if Instant::now() > deadline {
                tracing::warn!("the download log does not take its last lines; they are lost");
                return;
            }
            std::thread::sleep(END_INTERVAL);
        }
        if thread.join().is_err() {
            tracing::error!("the writer of the download log ended badly: please report this");
        }
    }
}

/// What a shard needs to take part.
#[derive(Clone)]
pub struct Intake {
    batches: Sender<Batch>,
    /// Emptied batches, to be used again.
    spares: Receiver<Batch>,
    figures: Arc<Figures>,
}

/// The entries of one shard that were not handed over yet.
pub struct EntryBuffer {
    batch: Batch,
    intake: Intake,
}

impl EntryBuffer {
    /// An empty buffer.
    pub fn new(intake: Intake) -> EntryBuffer {
        EntryBuffer { batch: Batch::default(), intake }
    }

    /// Takes down an outcome that `handler` had last, if it gets a line. `at` is the Unix time in microseconds.
    pub fn append(&mut self, outcome: &Outcome, handler: &Handler, at: i64) {
        let snapshot = handler.snapshot();
        if snapshot.settings.download_log.is_none() || !matches!(outcome.kind, Kind::Redirect | Kind::Json) {
            return;
        }
        let is_of_snapshot = self.batch.snapshot.as_ref().is_some_and(|of| Arc::ptr_eq(of, snapshot));
        if (!is_of_snapshot || self.batch.entries.len() >= BATCH_SIZE) && !self.make_room(snapshot) {
            self.intake.figures.dropped_lines.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if outcome.file.is_none() {
            self.batch.paths.extend_from_slice(handler.path(outcome));
        }
        self.batch.entries.push(Entry { outcome: *outcome, at, path_end: self.batch.paths.len() });
    }

    /// Makes the batch one of `snapshot` with room for an entry; `false` when there is none.
    #[cold]
    fn make_room(&mut self, snapshot: &Arc<Snapshot>) -> bool {
        self.hand_over();
        let is_of_another = self.batch.snapshot.as_ref().is_some_and(|of| !Arc::ptr_eq(of, snapshot));
        if is_of_another {
            // The writer is far behind, and an old snapshot is not to be kept for it.
            self.intake.figures.dropped_lines.fetch_add(self.batch.len(), Ordering::Relaxed);
            self.batch.clear();
        }
        self.batch.snapshot = Some(Arc::clone(snapshot));
        self.batch.entries.len() < BATCH_SIZE_MAX
    }

    /// Hands the entries over if there is room; else they stay here.
    pub fn hand_over(&mut self) {
        if self.batch.entries.is_empty() {
            self.batch.snapshot = None;
            return;
        }
        let spare = self.intake.spares.try_recv().unwrap_or_default();
        let full = std::mem::replace(&mut self.batch, spare);
        match self.intake.batches.try_send(full) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => self.batch = batch,
            Err(TrySendError::Disconnected(batch)) => {
                self.intake.figures.dropped_lines.fetch_add(batch.len(), Ordering::Relaxed);
            }
        }
    }
}

/// The shard ends; entries that the queue has no room for end with it.
impl Drop for EntryBuffer {
    fn drop(&mut self) {
        self.hand_over();
        self.intake.figures.dropped_lines.fetch_add(self.batch.len(), Ordering::Relaxed);
    }
}

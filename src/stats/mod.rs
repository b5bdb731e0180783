//! Download statistics and the download log: counted beside the requests, delivered without ever holding one up.
//!
//! A shard's [`Recorder`] takes down each outcome in memory of its own and hands it over ten times a
//! second, through bounded queues, to two threads:
//!
//! - the flusher, which gathers the counts ([`tally`], [`download_dedup`], [`row_counts`]), delivers them to the store
//!   ([`delivery`], [`flusher`]), and keeps on disk what is not delivered at once ([`spool`])
//! - the writer of the download log ([`download_log`])
//!
//! Neither a store, a disk nor a pipe that hangs reaches the shards: what a full queue cannot take stays in the shard
//! (counts), or is dropped and counted (log lines). [`figures`] is what is known of all this at any time.
//!
//! [`file_statistics`] is the other direction: the counts of a file, as a client asks for them.

pub mod delivery;
pub mod download_dedup;
pub mod download_log;
pub mod figures;
pub mod file_statistics;
pub mod flusher;
pub mod recorder;
pub mod row_counts;
pub mod spool;
pub mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mb_core::config::Config;
use mb_core::store::Store;

use download_log::{Destination, DownloadLog};
use figures::Figures;
use flusher::Flusher;
use recorder::Recorder;
use tally::Tally;

/// Tallies that wait for the flusher. A shard hands over ten in a second and the flusher takes them twice a second: room
/// for some seconds of a busy disk with eight shards, and what does not fit stays with the shard.
const TALLIES_WAITING: usize = 256;

/// What statistics and the download log go by.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the spool.
    pub state_dir: PathBuf,
    /// Where the download log is written; `None`: no log.
    pub log: Option<Destination>,
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Options {
        let destination = |folder| Destination { folder, format: config.log_format };
        Options { state_dir: config.state_dir.clone(), log: config.log_dir.clone().map(destination) }
    }
}

/// Statistics and download log of this process.
pub struct Statistics {
    intake: Intake,
    flusher: Flusher,
    log: DownloadLog,
    figures: Arc<Figures>,
}

impl Statistics {
    /// Starts the threads. Nothing that is wrong with a disk or a store keeps this from starting; it is logged.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(options: &Options, store: Arc<dyn Store>) -> std::io::Result<Statistics> {
        let figures = Arc::new(Figures::default());
        let (tallies, inbox) = crossbeam::channel::bounded(TALLIES_WAITING);
        let (spare, spares) = crossbeam::channel::bounded(TALLIES_WAITING);
        let flusher = Flusher::start(&options.state_dir, store, inbox, spare, Arc::clone(&figures))?;
        let log = DownloadLog::start(options.log.clone(), Arc::clone(&figures))?;
        let lines = log.intake();
        Ok(Statistics { intake: Intake { tallies, spares, lines }, flusher, log, figures })
    }

    /// What a shard needs to take part.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// What is known of deliveries and log, at any time.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Has the download log opened anew, after logrotate moved it.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// Has the download log written as `options` say from now on.
    pub fn configure(&self, options: Options) {
        self.log.write_to(options.log);
    }

    /// Delivers what was counted, or puts it into the spool, and writes what was logged; returns when that is done, or
    /// after `patience` for each. To be called when no shard runs any more. The spool is then free for the next process.
    pub fn stop(self, patience: Duration) {
        // The last of the senders tells the receivers that nothing more will come.
        drop(self.intake);
        self.flusher.stop(patience);
        self.log.stop(patience);
    }
}

/// What a shard needs to take part in the statistics.
#[derive(Clone)]
pub struct Intake {
    tallies: crossbeam::channel::Sender<Tally>,
    /// Emptied tallies, whose memory is used again.
    spares: crossbeam::channel::Receiver<Vec<tally::Download>>,
    lines: download_log::Intake,
}

impl Intake {
    /// The recorder of one shard.
    pub fn recorder(&self) -> Recorder {
        Recorder::new(self.tallies.clone(), self.spares.clone(), self.lines.clone())
    }
}

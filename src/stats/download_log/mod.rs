//! The download log: a line for each redirect and each JSON answer.
//!
//! A shard writes its lines into a buffer of its own ([`LineBuffer`], `line`) and hands it over ten times a second, or
//! when it is large. A thread writes buffers to the file (`writer`). When that thread does not keep up, because the disk
//! is slow or the reader of a pipe has stopped, lines are dropped and counted; no answer waits.

pub mod line;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use jiff::tz::TimeZone;

use self::line::LineFormat;
pub use self::writer::Destination;
use self::writer::{Orders, Writer};
use super::figures::Figures;
use crate::handle::Handler;
use crate::handle::outcome::{Kind, Outcome};

/// A buffer of this size is handed over at once.
const BUFFER_SIZE: usize = 64 * 1024;
/// Buffers that wait for the writer: 4 MiB, which is some 30,000 lines.
const BUFFERS_WAITING: usize = 64;
/// A buffer that cannot be handed over takes lines up to this size.
const BUFFER_SIZE_MAX: usize = 4 * BUFFER_SIZE;
/// Between two looks at whether the writer has ended.
const END_INTERVAL: Duration = Duration::from_millis(5);

/// Lines on their way to the writer.
struct Lines {
    text: Vec<u8>,
    count: u64,
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
        let (lines, inbox) = bounded(BUFFERS_WAITING);
        let (spare, spares) = bounded(BUFFERS_WAITING);
        let orders = Arc::new(Orders::new(destination));
        let writer = Writer::new(Arc::clone(&orders), Arc::clone(&figures));
        let thread =
            std::thread::Builder::new().name("download-log".to_owned()).spawn(move || writer.run(&inbox, &spare))?;
        let format = LineFormat::new(TimeZone::system());
        Ok(DownloadLog { intake: Intake { lines, spares, format, figures }, orders, thread })
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
    lines: Sender<Lines>,
    /// Emptied buffers, to be used again.
    spares: Receiver<Vec<u8>>,
    format: LineFormat,
    figures: Arc<Figures>,
}

/// The lines of one shard that were not handed over yet.
pub struct LineBuffer {
    lines: Lines,
    intake: Intake,
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new(intake: Intake) -> LineBuffer {
        LineBuffer { lines: Lines { text: Vec::with_capacity(BUFFER_SIZE), count: 0 }, intake }
    }

    /// Writes the line of an outcome that `handler` had last, if it gets one.
    pub fn append(&mut self, outcome: &Outcome, handler: &Handler) {
        let is_logged = handler.snapshot().settings.download_log.is_some();
        if !is_logged || !matches!(outcome.kind, Kind::Redirect | Kind::Json) {
            return;
        }
        if self.lines.text.len() >= BUFFER_SIZE {
            self.hand_over();
            if self.lines.text.len() >= BUFFER_SIZE_MAX {
                self.intake.figures.dropped_lines.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let now = SystemTime::now();
        let Intake { format, .. } = &mut self.intake;
        if format.append(&mut self.lines.text, now, outcome, handler.path(outcome), handler.snapshot()) {
            self.lines.count += 1;
        }
    }

    /// Hands the lines over if there is room; else they stay here.
    pub fn hand_over(&mut self) {
        if self.lines.count == 0 {
            return;
        }
        let text = self.intake.spares.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_SIZE));
        let full = std::mem::replace(&mut self.lines, Lines { text, count: 0 });
        match self.intake.lines.try_send(full) {
            Ok(()) => {}
            Err(TrySendError::Full(lines)) => self.lines = lines,
            Err(TrySendError::Disconnected(lines)) => {
                self.intake.figures.dropped_lines.fetch_add(lines.count, Ordering::Relaxed);
            }
        }
    }
}

/// The shard ends; lines that the queue has no room for end with it.
impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.hand_over();
        self.intake.figures.dropped_lines.fetch_add(self.lines.count, Ordering::Relaxed);
    }
}

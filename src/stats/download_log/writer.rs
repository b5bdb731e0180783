//! The thread that writes the download log.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use jiff::Zoned;
use mb_core::config::LogFormat;
use mb_core::supervise::busy;

use super::super::figures::Figures;
use super::Batch;
use super::line::LineFormat;

/// Name of the log.
const FILE_NAME: &str = "downloads.log";
/// How long an order to reopen may go unnoticed when nothing is logged.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two attempts to open a file that cannot be opened.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// Where the log is written, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Folder of the log, which is made if it is missing.
    pub folder: PathBuf,
    /// Decides on the head of a new file.
    pub format: LogFormat,
}

/// What the writer is told.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// `None`: nothing is logged.
    destination: Mutex<Option<Destination>>,
    reopen: AtomicBool,
}

impl Orders {
    pub(super) fn new(destination: Option<Destination>) -> Orders {
        Orders { destination: Mutex::new(destination), reopen: AtomicBool::new(false) }
    }

    /// Has the file opened anew.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Has another file written from now on.
    pub(super) fn write_to(&self, destination: Option<Destination>) {
        *self.destination.lock().unwrap_or_else(PoisonError::into_inner) = destination;
        self.reopen();
    }

    fn destination(&self) -> Option<Destination> {
        self.destination.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writer.
pub(super) struct Writer {
    destination: Option<Destination>,
    file: Option<File>,
    format: LineFormat,
    /// The lines of the batch that is being written.
    text: Vec<u8>,
    next_attempt: Instant,
    /// The last write broke off within a line.
    is_torn: bool,
    /// Trouble was reported, and not its end.
    is_in_trouble: bool,
    orders: Arc<Orders>,
    figures: Arc<Figures>,
}

impl Writer {
    pub(super) fn new(orders: Arc<Orders>, format: LineFormat, figures: Arc<Figures>) -> Writer {
        Writer {
            destination: orders.destination(),
            file: None,
            format,
            text: Vec::new(),
            next_attempt: Instant::now(),
            is_torn: false,
            is_in_trouble: false,
            orders,
            figures,
        }
    }

    /// Writes what comes, until no shard is left that could send more.
    pub(super) fn run(&mut self, inbox: &Receiver<Batch>, spares: &Sender<Batch>) {
        self.open_if_due();
        loop {
            mb_core::fault::point("download-log");
            let received = inbox.recv_timeout(LOOK_INTERVAL);
            if self.orders.reopen.swap(false, Ordering::AcqRel) {
                self.destination = self.orders.destination();
                self.next_attempt = Instant::now();
                self.open_if_due();
            }
            match received {
                Ok(mut batch) => {
                    let _busy = busy("download-log");
                    self.write(&batch);
                    batch.clear();
                    // No room for it means that there are enough.
                    let _ = spares.try_send(batch);
                }
                // Whatever was logged before the log was switched off is written.
                Err(RecvTimeoutError::Timeout) if self.destination.is_none() => self.file = None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Opens the file, anew if it is open. One that cannot be opened leaves the one in use.
    fn open_if_due(&mut self) {
        if Instant::now() < self.next_attempt {
            return;
        }
        let Some(destination) = &self.destination else { return };
        let _busy = busy("download-log");
        match open(&destination.folder.join(FILE_NAME), destination.format) {
            Ok(file) => self.file = Some(file),
            Err(cause) => {
                self.next_attempt = Instant::now() + OPEN_PAUSE;
                self.trouble(&cause);
            }
        }
    }

    fn write(&mut self, batch: &Batch) {
        let Some(snapshot) = &batch.snapshot else { return };
        self.text.clear();
        let mut lines = 0;
        for (entry, path) in batch.entries() {
            lines += u64::from(self.format.append(&mut self.text, entry.at, &entry.outcome, path, snapshot));
        }
        if self.file.is_none() {
            self.open_if_due();
        }
        let written = match &mut self.file {
            Some(file) => write_whole_lines(file, &self.text, self.is_torn),
            None => Written { lines: 0, torn: false, failure: None },
        };
        self.is_torn = written.torn;
        self.figures.logged_lines.fetch_add(written.lines, Ordering::Relaxed);
        self.figures.dropped_lines.fetch_add(lines - written.lines.min(lines), Ordering::Relaxed);
        match written.failure {
            Some(cause) => self.trouble(&cause),
            None if self.file.is_some() && std::mem::take(&mut self.is_in_trouble) => {
                let dropped = self.figures.dropped_lines.load(Ordering::Relaxed);
                tracing::info!("{}: is written again; {dropped} lines were dropped so far", self.path());
            }
            None => {}
        }
    }

    fn trouble(&mut self, cause: &io::Error) {
        if !std::mem::replace(&mut self.is_in_trouble, true) {
            tracing::error!("{}: {cause}; lines of the download log are dropped until it can be written", self.path());
        }
    }

    /// For messages.
    fn path(&self) -> String {
        let folder = self.destination.as_ref().map(|destination| destination.folder.join(FILE_NAME));
        folder.map_or_else(|| FILE_NAME.to_owned(), |path| path.display().to_string())
    }
}

/// What became of some lines.
struct Written {
    /// Lines that are whole in the file.
    lines: u64,
    /// The file ends within a line.
    torn: bool,
    failure: Option<io::Error>,
}

/// Writes lines, after ending the one that `torn` says the file ends in.
fn write_whole_lines(file: &mut File, text: &[u8], torn: bool) -> Written {
    let count = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
    if torn && let Err(failure) = file.write_all(b"\n") {
        return Written { lines: 0, torn, failure: Some(failure) };
    }
    let mut written = 0;
    while written < text.len() {
        match file.write(&text[written..]) {
            Ok(0) => return failed(io::ErrorKind::WriteZero.into(), &text[..written], count),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return failed(error, &text[..written], count),
        }
    }
    Written { lines: count(text), torn: false, failure: None }
}

fn failed(failure: io::Error, written: &[u8], count: impl Fn(&[u8]) -> u64) -> Written {
    let torn = written.last().is_some_and(|&byte| byte != b'\n');
    Written { lines: count(written), torn, failure: Some(failure) }
}

/// Opens the log to append to it; a new file gets its head. It may be a link, as to `/dev/stdout`.
fn open(path: &Path, format: LogFormat) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    if format == LogFormat::Text && is_new(&file.metadata()?) {
        file.write_all(head().as_bytes())?;
    }
    Ok(file)
}

fn is_new(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    metadata.len() == 0 && !kind.is_fifo() && !kind.is_char_device() && !kind.is_socket()
}

fn head() -> String {
    let uname = rustix::system::uname();
    format!(
        "# Log file created at: {}\n# Running on machine: {}\n# Binary: mirrorbits {} for {}/{}\n",
        Zoned::now().strftime("%Y/%m/%d %H:%M:%S"),
        uname.nodename().to_string_lossy(),
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_broke_off_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, "half a li").unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        let written = write_whole_lines(&mut file, b"one\ntwo\n", true);
        assert_eq!((written.lines, written.torn), (2, false));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half a li\none\ntwo\n");
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_not_written() {
        let mut full = File::options().append(true).open("/dev/full").unwrap();
        let written = write_whole_lines(&mut full, b"one\ntwo\n", false);
        assert_eq!((written.lines, written.torn), (0, false));
        assert_eq!(written.failure.map(|failure| failure.kind()), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn only_a_new_file_gets_a_head() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs").join(FILE_NAME);
        for _ in 0..2 {
            drop(open(&path, LogFormat::Text).unwrap());
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().filter(|line| line.starts_with("# ")).count(), 3, "{text}");
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, std::fs::read_to_string(&path).unwrap().len());
    }
}

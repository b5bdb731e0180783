//! A log whose writing never blocks the threads that log.
//!
//! Lines go into a queue in memory, which a thread of its own writes. When the reader of a pipe stops, or a disk hangs, that thread
//! waits alone: the queue fills, further lines are dropped and counted, and the log says how many when it is written again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::supervise::{busy, keep_going};

/// How long the last lines of a process may take to be written.
pub const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);

/// Bytes that wait at most: some thousand lines.
const QUEUE_MAX: usize = 1 << 20;
/// The queue's memory above this is given back when it is written.
const QUEUE_KEPT: usize = 64 << 10;
/// A write that takes longer than this is taken for one that hangs.
const HANGING: Duration = Duration::from_millis(100);

static PROCESS_LOG: OnceLock<LogWriter> = OnceLock::new();

/// The writer; copies are the same one.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// The queue got something.
    filled: Condvar,
    /// What was taken from the queue is written.
    written: Condvar,
    /// Lines dropped since the start.
    dropped: AtomicU64,
    file: Mutex<Arc<File>>,
}

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    /// Lines dropped, and not told.
    dropped: u64,
    /// What was taken from the queue is being written since then.
    writing_since: Option<Instant>,
}

impl LogWriter {
    /// Writes to `file`, on a new thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(file: File) -> io::Result<LogWriter> {
        let writer = LogWriter(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
            file: Mutex::new(Arc::new(file)),
        }));
        let shared = Arc::clone(&writer.0);
        let work = move || keep_going("log", || shared.write_for_ever());
        std::thread::Builder::new().name("log".to_owned()).spawn(work)?;
        Ok(writer)
    }

    /// Writes to standard error, as [`LogWriter::start`] does.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn to_standard_error() -> io::Result<LogWriter> {
        LogWriter::start(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// Makes it the log that [`flush`], [`dropped_lines`] and panics are about. The first one stays.
    pub fn make_process_log(&self) {
        let _ = PROCESS_LOG.set(self.clone());
    }

    /// Writes to `file` from now on; what is being written goes to the file before.
    pub fn change_file(&self, file: File) {
        *locked(&self.0.file) = Arc::new(file);
    }

    /// Waits until everything is written, at most `limit`; whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        self.wait_for_writing(limit, false)
    }

    /// The same, but for a log that hangs already.
    fn flush_unless_hanging(&self, limit: Duration) -> bool {
        self.wait_for_writing(limit, true)
    }

    fn wait_for_writing(&self, limit: Duration, unless_hanging: bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut queue = locked(&self.0.queue);
        while !queue.text.is_empty() || queue.writing_since.is_some() {
            let is_hanging = queue.writing_since.is_some_and(|since| since.elapsed() >= HANGING);
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() || (unless_hanging && is_hanging) {
                return false;
            }
            queue = self.0.written.wait_timeout(queue, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Takes whole lines, as the formatter of events writes them. Never blocks.
impl Write for LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut queue = locked(&self.0.queue);
        // A single line of any length is taken.
        if queue.text.is_empty() || queue.text.len() + lines.len() <= QUEUE_MAX {
            queue.text.extend_from_slice(lines);
            self.0.filled.notify_one();
        } else {
            let count = lines_of(lines).max(1);
            queue.dropped += count;
            self.0.dropped.fetch_add(count, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_for_ever(&self) {
        let mut taken = Vec::new();
        // Lines that could not be written. They are told when others can be, since the message is a line, too.
        let mut unwritten = 0;
        loop {
            let mut queue = locked(&self.queue);
            queue.writing_since = None;
            self.written.notify_all();
            while queue.text.is_empty() {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut queue.text, &mut taken);
            queue.writing_since = Some(Instant::now());
            let dropped = std::mem::take(&mut queue.dropped);
            drop(queue);
            if dropped > 0 {
                // Goes into the emptied queue: before every line that is logged from now on, and after those before the gap.
                tracing::warn!("{dropped} lines of the log were dropped here, since it could not be written in time");
            }
            match self.write(&taken) {
                0 if unwritten > 0 => {
                    tracing::warn!("{unwritten} lines of the log were dropped before, since it could not be written");
                    unwritten = 0;
                }
                lines => unwritten += lines,
            }
            taken.clear();
            taken.shrink_to(QUEUE_KEPT);
        }
    }

    /// Writes `text`, and returns how many lines of it are lost.
    fn write(&self, mut text: &[u8]) -> u64 {
        let _busy = busy("log");
        let file = Arc::clone(&locked(&self.file));
        while !text.is_empty() {
            match (&*file).write(text) {
                Ok(0) => break,
                Ok(length) => text = text.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that has the same pipe may have made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Where this fails, writing tells why.
                    let _ = poll(&mut [PollFd::new(&*file, PollFlags::OUT)], None);
                }
                // The reader is gone, or the disk is full.
                Err(_) => break,
            }
        }
        let lost = lines_of(text);
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        lost
    }
}

/// Waits until the log of the process is written, at most [`LAST_LINES_LIMIT`].
pub fn flush() {
    if let Some(log) = PROCESS_LOG.get() {
        log.flush(LAST_LINES_LIMIT);
    }
}

/// Writes the log of a process that may be about to end, on a thread that may have to go on at once: a log that hangs is not
/// waited for.
pub(crate) fn flush_unless_hanging() {
    if let Some(log) = PROCESS_LOG.get() {
        log.flush_unless_hanging(HANGING);
    }
}

/// Lines of the log of the process that were dropped since its start.
pub fn dropped_lines() -> u64 {
    PROCESS_LOG.get().map_or(0, |log| log.0.dropped.load(Ordering::Relaxed))
}

/// Writes `text` to the log of the process as it is, or to standard error where there is no log.
pub(crate) fn write_text(text: &str) {
    // There is no other place to tell that this failed.
    let _ = match PROCESS_LOG.get() {
        Some(log) => log.clone().write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    };
}

/// Does `print`, which writes to standard error, after what was logged, and waits [`LAST_LINES_LIMIT`] for it at most.
pub fn print_with_limit(print: impl FnOnce() + Send + 'static) {
    flush();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let printing = std::thread::Builder::new().name("print".to_owned()).spawn(move || {
        print();
        drop(done);
    });
    if printing.is_ok() {
        // Ends when the sender is gone.
        let _ = is_done.recv_timeout(LAST_LINES_LIMIT);
    }
}

fn lines_of(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    #[test]
    fn lines_are_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| folder.path().join(name));
        let mut writer = LogWriter::start(File::create(&first).unwrap()).unwrap();
        for line in ["one\n", "two\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        assert!(writer.flush(LAST_LINES_LIMIT));
        writer.change_file(File::create(&second).unwrap());
        writer.write_all(b"three\n").unwrap();
        assert!(writer.flush(LAST_LINES_LIMIT));
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "three\n");
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_time() {
        let (mut reader, pipe) = pipe();
        let mut writer = LogWriter::start(pipe).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..3_000 {
            writer.write_all(&line).unwrap();
        }
        assert!(!writer.flush(Duration::from_millis(10)));
        let dropped = writer.0.dropped.load(Ordering::Relaxed);
        // One batch is in the writer's hands, another in the queue; the rest has no place.
        assert!((800..2_000).contains(&dropped), "{dropped}");
        let mut text = vec![0; (3_000 - usize::try_from(dropped).unwrap()) * line.len()];
        reader.read_exact(&mut text).unwrap();
        assert!(writer.flush(LAST_LINES_LIMIT));
        assert_eq!(locked(&writer.0.queue).dropped, 0, "it was told");
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let mut writer = LogWriter::start(File::options().append(true).open("/dev/full").unwrap()).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        assert!(writer.flush(LAST_LINES_LIMIT));
        assert_eq!(writer.0.dropped.load(Ordering::Relaxed), 2);
    }

    /// Another process that shares the pipe may set the flag.
    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, pipe) = pipe();
        rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::WRONLY).unwrap();
        let mut writer = LogWriter::start(pipe).unwrap();
        let text = vec![b'\n'; 500_000];
        writer.write_all(&text).unwrap();
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(writer.flush(LAST_LINES_LIMIT));
        assert_eq!(writer.0.dropped.load(Ordering::Relaxed), 0);
    }
}

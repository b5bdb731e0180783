//! Listing a mirror by the real `rsync` program.
//!
//! Its output streams: a listing of a million files is never held as text, and all of it is charged to the scan's budget.
//! Whoever drops the future of [`list`] ends the program and all that it started.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mb_core::foreign_text::ForeignText;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use self::line::{Line, parse, unescape_path};
pub(crate) use self::url::{RsyncUrl, UrlError};
use super::limits::{LimitReached, ListingBudget};
use super::listing::{Listing, ListingFull};
use crate::progress::Progress;

#[cfg(fuzzing)]
pub mod fuzzing;
mod line;
mod url;

/// Longer than any line of a listing can be (4,096 bytes of path, each escaped to five); more is skipped unread.
const LINE_LIMIT: usize = 32 << 10;

/// Longest time without output of rsync, which ends by itself when the mirror sends nothing for 30 s. A
/// guess: servers send a listing folder by folder.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// Read at a time from rsync's output.
const READ_BYTES: usize = 128 << 10;

/// How much of rsync's messages is kept for an error message.
const STDERR_LINES: usize = 5;
const STDERR_LIMIT: usize = 16 << 10;
/// Longest of these lines, in characters.
const STDERR_LINE: usize = 500;

/// rsync's exit statuses for "partial transfer due to error" and "source files vanished": the rest was listed.
const PARTIAL: [i32; 2] = [23, 24];

/// Why a mirror could not be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RsyncError {
    /// The program is not there.
    #[error("the program {program} is not installed: install rsync (Debian: apt-get install rsync)")]
    NotInstalled {
        /// `rsync` or `rsync-ssl`.
        program: &'static str,
    },
    /// The program cannot be started or read from.
    #[error("running {program}: {cause}")]
    Run {
        /// `rsync` or `rsync-ssl`.
        program: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It failed.
    #[error("rsync of {url} failed with {status}: {messages}")]
    Failed {
        /// URL without password.
        url: String,
        /// Exit status or signal.
        status: ExitStatus,
        /// Its last messages.
        messages: String,
    },
    /// The mirror sends more, or more slowly, than a scan may take.
    #[error("rsync of {url}: {reached}")]
    Limit {
        /// URL without password.
        url: String,
        /// Which limit.
        reached: LimitReached,
    },
    /// The listing is too large.
    #[error(transparent)]
    TooLarge(#[from] ListingFull),
}

/// A listing and what was odd about it.
#[derive(Debug, Default)]
pub(crate) struct RsyncListing {
    /// Sorted by path.
    pub(crate) listing: Listing,
    /// Lines that are none of a listing, or whose path is not clean.
    pub(crate) unparsable_lines: u64,
    /// Why the listing may lack files.
    pub(crate) warning: Option<String>,
}

/// Lists the files at `url` within `budget`.
pub(crate) async fn list(
    url: &RsyncUrl,
    budget: &ListingBudget,
    progress: &Progress,
) -> Result<RsyncListing, RsyncError> {
    match budget.in_time(run(url, budget, progress)).await {
        Ok(result) => result,
        Err(reached) => Err(RsyncError::Limit { url: url.to_string(), reached }),
    }
}

fn command(program: &str, url: &RsyncUrl) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-r", "--no-motd", "-8", "--timeout=30", "--contimeout=30", "--exclude=.~tmp~/"])
        .arg(&url.url)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        // Without a password in the environment, rsync would ask for one on a terminal.
        .env("RSYNC_PASSWORD", url.password.expose())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // rsync must not outlive an indexer that is killed.
    let end_with_indexer = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    // SAFETY: the closure makes one system call; it takes no lock and no memory.
    unsafe { command.pre_exec(end_with_indexer) };
    command
}

async fn run(url: &RsyncUrl, budget: &ListingBudget, progress: &Progress) -> Result<RsyncListing, RsyncError> {
    let program = if url.tls { "rsync-ssl" } else { "rsync" };
    let failed = |cause| RsyncError::Run { program, cause };
    let mut child = command(program, url).spawn().map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => RsyncError::NotInstalled { program },
        _ => failed(cause),
    })?;
    let mut group = ProcessGroup::of(&child);
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(std::io::Error::other("its output is not connected")));
    };
    // A listing that fails ends both: the program may go on writing messages.
    let read = tokio::try_join!(read_listing(&mut stdout, budget, progress), read_last_lines(&mut stderr, budget));
    let (mut listing, messages) = match read {
        Ok(read) => read,
        Err(ReadError::Io(cause)) => return Err(failed(cause)),
        Err(ReadError::Full(full)) => return Err(full.into()),
        Err(ReadError::Limit(reached)) => return Err(RsyncError::Limit { url: url.to_string(), reached }),
    };
    let status = child.wait().await.map_err(failed)?;
    group.has_ended();
    let mut warning = None;
    if !status.success() {
        let partial = status.code().is_some_and(|code| PARTIAL.contains(&code)) && listing.len() > 0;
        if !partial {
            return Err(RsyncError::Failed { url: url.to_string(), status, messages });
        }
        warning = Some(format!("rsync ended with {status}, the listing may lack files: {messages}"));
    }
    // Sorting millions of entries takes seconds, and checks of other mirrors wait on this thread.
    let sorted = tokio::task::spawn_blocking(move || {
        listing.sort();
        listing
    });
    let listing = sorted.await.map_err(|error| failed(error.into()))?;
    Ok(RsyncListing { listing, unparsable_lines: budget.rejected(), warning })
}

/// Ends all processes of a child's group when dropped: `rsync-ssl` runs others, which `kill_on_drop` does not reach.
struct ProcessGroup(Option<rustix::process::Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> ProcessGroup {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        ProcessGroup(pid.and_then(rustix::process::Pid::from_raw))
    }

    /// The child was waited for: its number may belong to another process from now on.
    fn has_ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // SIGKILL, since a program that is stopped or ignores SIGTERM must end, too; it only reads. Fails when all of
            // the group have ended, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

enum ReadError {
    Io(std::io::Error),
    Full(ListingFull),
    Limit(LimitReached),
}

impl From<LimitReached> for ReadError {
    fn from(reached: LimitReached) -> ReadError {
        ReadError::Limit(reached)
    }
}

/// Collects lines of a listing.
struct Lines<'b> {
    listing: Listing,
    path: Vec<u8>,
    budget: &'b ListingBudget,
}

impl Lines<'_> {
    fn push(&mut self, line: &[u8]) -> Result<(), ReadError> {
        match parse(line) {
            Line::File { size, modified, escaped_path } if unescape_path(escaped_path, &mut self.path) => {
                self.budget.take_entry()?;
                self.listing.push(&self.path, size, Some(modified)).map_err(ReadError::Full)?;
            }
            Line::NoFile => self.budget.take_entry()?,
            Line::File { .. } | Line::Unparsable => {
                if self.budget.rejected() == 0 {
                    tracing::debug!(line = %ForeignText::new(line), "not a line of an rsync listing");
                }
                self.budget.take_rejected()?;
            }
        }
        Ok(())
    }
}

/// Cuts a stream into lines and reads each. What exceeds [`LINE_LIMIT`] counts as one line that does not parse.
async fn read_listing(
    stream: &mut (impl AsyncRead + Unpin),
    budget: &ListingBudget,
    progress: &Progress,
) -> Result<Listing, ReadError> {
    let mut lines = Lines { listing: Listing::default(), path: Vec::new(), budget };
    let mut buffer = vec![0; READ_BYTES];
    let mut unfinished = Vec::new();
    let mut skipping = false;
    loop {
        // rsync reads without writing, for example, while a message of the day does not end.
        let read = tokio::time::timeout(SILENCE_LIMIT, stream.read(&mut buffer)).await;
        let length = read.map_err(|_| LimitReached::Silence(SILENCE_LIMIT))?.map_err(ReadError::Io)?;
        if length == 0 {
            break;
        }
        budget.take_bytes(length)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((head, tail)) = split_line(rest) {
            rest = tail;
            if std::mem::take(&mut skipping) {
                continue;
            }
            if unfinished.len().saturating_add(head.len()) > LINE_LIMIT {
                budget.take_rejected()?;
                unfinished.clear();
            } else if unfinished.is_empty() {
                lines.push(head)?;
            } else {
                unfinished.extend_from_slice(head);
                lines.push(&unfinished)?;
                unfinished.clear();
            }
        }
        if !skipping {
            unfinished.extend_from_slice(rest);
        }
        if unfinished.len() > LINE_LIMIT {
            budget.take_rejected()?;
            unfinished.clear();
            skipping = true;
        }
        progress.report(format!("{} files listed", lines.listing.len()));
    }
    if !unfinished.is_empty() {
        lines.push(&unfinished)?;
    }
    Ok(lines.listing)
}

/// The first line without its newline, and what follows.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = text.split_at_checked(memchr::memchr(b'\n', text)?)?;
    Some((line, rest.split_first()?.1))
}

/// The last [`STDERR_LINES`] lines of a stream, escaped and joined by `; `.
async fn read_last_lines(stream: &mut (impl AsyncRead + Unpin), budget: &ListingBudget) -> Result<String, ReadError> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        budget.take_bytes(length)?;
        kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let excess = kept.len().saturating_sub(STDERR_LIMIT);
        kept.drain(..excess);
    }
    let lines = kept.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut last: Vec<_> = lines.rev().take(STDERR_LINES).collect();
    last.reverse();
    let shown: Vec<_> = last.into_iter().map(|line| ForeignText::new(line).at_most(STDERR_LINE).to_string()).collect();
    Ok(shown.join("; "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::limits::{ListingLimits, TimeSetBy};

    fn read_within(text: &[u8], budget: &ListingBudget) -> Result<Listing, ReadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut stream = text;
        runtime.block_on(read_listing(&mut stream, budget, &Progress::unwatched()))
    }

    #[test]
    fn a_listing_that_never_begins_ends_after_its_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mut stream, _open) = tokio::io::duplex(64);
        let budget = ListingBudget::ample();
        let progress = Progress::unwatched();
        let read = runtime.block_on(read_listing(&mut stream, &budget, &progress));
        assert!(matches!(read, Err(ReadError::Limit(LimitReached::Silence(_)))));
    }

    /// Number of files, and of lines that were rejected.
    fn read(text: &[u8]) -> (usize, u64) {
        let budget = ListingBudget::ample();
        match read_within(text, &budget) {
            Ok(listing) => (listing.len(), budget.rejected()),
            Err(_) => panic!("a listing in memory can be read"),
        }
    }

    #[test]
    fn lines_are_joined_across_reads() {
        let line = "-rw-r--r--              1 2026/11/22 11:30:31 some/file/with/a/name\n";
        let count = 3 * READ_BYTES / line.len();
        assert_eq!(read(line.repeat(count).as_bytes()), (count, 0));
    }

    /// A line beyond the limit was taken when its end came in the same read, and skipped otherwise (found by fuzzing).
    #[test]
    fn a_line_beyond_the_limit_is_skipped_even_when_it_arrives_at_once() {
        let start = "-rw-r--r--  1 2026/11/22 11:30:31 ";
        for (length, listed) in [(LINE_LIMIT, 1), (LINE_LIMIT + 1, 0)] {
            let line = format!("{start}{}\n", "a".repeat(length - start.len()));
            let budget = ListingBudget::ample();
            let listing = read_within(line.as_bytes(), &budget).unwrap_or_else(|_| panic!("a listing in memory"));
            assert_eq!((listing.len(), budget.rejected()), (listed, 1 - listed as u64), "{length}");
        }
    }

    #[test]
    fn an_endless_line_is_skipped_and_counted_once() {
        let mut text = vec![b'x'; 5 * READ_BYTES];
        text.extend_from_slice(b"\n-rw-r--r--  1 2026/11/22 11:30:31 a\n-rw-r--r--  1 2026/11/22 11:30:31 ../b");
        assert_eq!(read(&text), (1, 2));
    }

    /// A mirror that printed one line without end took 5.6 GB in 20 s.
    #[test]
    fn each_limit_holds_one_below_and_fails_one_above() {
        let file = "-rw-r--r--  1 2026/11/22 11:30:31 a\n";
        let folder = "drwxr-xr-x  1 2026/11/22 11:30:31 d\n";
        let text = [file, folder, "no line\n"].concat();
        let limits = |entries, bytes, rejected| ListingLimits {
            entries,
            bytes,
            rejected,
            time: Duration::from_secs(60),
            time_set_by: TimeSetBy::Configuration,
        };
        let length = text.len() as u64;
        for (limits, reached) in [
            (limits(2, length, 1), None),
            (limits(1, length, 1), Some(LimitReached::Entries(1))),
            (limits(2, length - 1, 1), Some(LimitReached::Bytes(length - 1))),
            (limits(2, length, 0), Some(LimitReached::Rejected(0))),
        ] {
            let found = match read_within(text.as_bytes(), &ListingBudget::new(limits)) {
                Ok(_) => None,
                Err(ReadError::Limit(reached)) => Some(reached),
                Err(_) => panic!("another error"),
            };
            assert_eq!(found, reached);
        }
    }

    #[test]
    fn only_the_last_messages_are_kept_and_they_are_escaped() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let text = (0..10_000).map(|line| format!("line {line}\x1b[1m\n\n")).collect::<String>();
        let budget = ListingBudget::ample();
        let Ok(kept) = runtime.block_on(read_last_lines(&mut text.as_bytes(), &budget)) else {
            panic!("messages in memory can be read");
        };
        let expected = (9995..10_000).map(|line| format!("line {line}\\x1b[1m")).collect::<Vec<_>>().join("; ");
        assert_eq!(kept, expected);
    }

    proptest! {
        #[test]
        fn no_stream_makes_it_panic(text: Vec<u8>) {
            let _ = read_within(&text, &ListingBudget::ample());
        }
    }
}

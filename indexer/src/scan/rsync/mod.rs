//! Listing a mirror by the real `rsync` program.
//!
//! Its output streams: a listing of a million files is never held as text. Whoever drops the future of [`list`] ends
//! the program and all that it started.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use self::line::{Line, parse, unescape_path};
pub(crate) use self::url::RsyncUrl;
use super::listing::{Listing, ListingFull};
use crate::progress::Progress;

#[cfg(fuzzing)]
pub mod fuzzing;
mod line;
mod url;

/// Longer than any line of a listing can be (4,096 bytes of path, each escaped to five); more is skipped unread.
const LINE_LIMIT: usize = 32 << 10;

/// Read at a time from rsync's output.
const READ_BYTES: usize = 128 << 10;

/// How much of rsync's messages is kept for an error message.
const STDERR_LINES: usize = 5;
const STDERR_LIMIT: usize = 16 << 10;

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
    /// It took longer than the caller allowed.
    #[error("rsync of {url} took longer than {} s", limit.as_secs())]
    Timeout {
        /// URL without password.
        url: String,
        /// What was allowed.
        limit: Duration,
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

/// Lists the files at `url`, for at most `limit`.
pub(crate) async fn list(
    url: &RsyncUrl,
    limit: Option<Duration>,
    progress: &Progress,
) -> Result<RsyncListing, RsyncError> {
    let Some(limit) = limit else {
        return run(url, progress).await;
    };
    match tokio::time::timeout(limit, run(url, progress)).await {
        Ok(result) => result,
        Err(_) => Err(RsyncError::Timeout { url: url.to_string(), limit }),
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
        .env("RSYNC_PASSWORD", url.password.as_deref().unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn run(url: &RsyncUrl, progress: &Progress) -> Result<RsyncListing, RsyncError> {
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
    let (lines, messages) = tokio::join!(read_listing(&mut stdout, progress), read_last_lines(&mut stderr));
    let lines = match lines {
        Ok(lines) => lines,
        Err(ReadError::Io(cause)) => return Err(failed(cause)),
        Err(ReadError::Full(full)) => return Err(full.into()),
    };
    let status = child.wait().await.map_err(failed)?;
    group.has_ended();
    let mut result = RsyncListing { listing: lines.listing, unparsable_lines: lines.unparsable, warning: None };
    if !status.success() {
        let partial = status.code().is_some_and(|code| PARTIAL.contains(&code)) && result.listing.len() > 0;
        if !partial {
            return Err(RsyncError::Failed { url: url.to_string(), status, messages });
        }
        result.warning = Some(format!("rsync ended with {status}, the listing may lack files: {messages}"));
    }
    result.listing.sort();
    Ok(result)
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
            // Fails when all of the group have ended, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }
}

enum ReadError {
    Io(std::io::Error),
    Full(ListingFull),
}

/// Collects lines of a listing.
#[derive(Default)]
struct Lines {
    listing: Listing,
    unparsable: u64,
    path: Vec<u8>,
}

impl Lines {
    fn push(&mut self, line: &[u8]) -> Result<(), ListingFull> {
        match parse(line) {
            Line::File { size, modified, escaped_path } if unescape_path(escaped_path, &mut self.path) => {
                self.listing.push(&self.path, size, Some(modified))?;
            }
            Line::NoFile => {}
            Line::File { .. } | Line::Unparsable => {
                if self.unparsable == 0 {
                    tracing::debug!(line = %line.escape_ascii(), "not a line of an rsync listing");
                }
                self.unparsable += 1;
            }
        }
        Ok(())
    }
}

/// Cuts a stream into lines and reads each. What exceeds [`LINE_LIMIT`] counts as one line that does not parse.
async fn read_listing(stream: &mut (impl AsyncRead + Unpin), progress: &Progress) -> Result<Lines, ReadError> {
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut unfinished = Vec::new();
    let mut skipping = false;
    loop {
        let length = stream.read(&mut buffer).await.map_err(ReadError::Io)?;
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        while let Some(newline) = memchr::memchr(b'\n', rest) {
            let (head, tail) = (&rest[..newline], &rest[newline + 1..]);
            rest = tail;
            if std::mem::take(&mut skipping) {
                continue;
            }
            if unfinished.is_empty() {
                lines.push(head).map_err(ReadError::Full)?;
            } else {
                unfinished.extend_from_slice(head);
                lines.push(&unfinished).map_err(ReadError::Full)?;
                unfinished.clear();
            }
        }
        if !skipping {
            unfinished.extend_from_slice(rest);
        }
        if unfinished.len() > LINE_LIMIT {
            lines.unparsable += 1;
            unfinished.clear();
            skipping = true;
        }
        progress.report(format!("{} files listed", lines.listing.len()));
    }
    if !unfinished.is_empty() {
        lines.push(&unfinished).map_err(ReadError::Full)?;
    }
    Ok(lines)
}

/// The last [`STDERR_LINES`] lines of a stream, joined by `; `.
async fn read_last_lines(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..length]);
        let excess = kept.len().saturating_sub(STDERR_LIMIT);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Lines {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = text;
        match runtime.block_on(read_listing(&mut stream, &Progress::unwatched())) {
            Ok(lines) => lines,
            Err(_) => panic!("a listing in memory can be read"),
        }
    }

    #[test]
    fn lines_are_joined_across_reads() {
        let line = "-rw-r--r--              1 2026/11/22 11:30:31 some/file/with/a/name\n";
        let count = 3 * READ_BYTES / line.len();
        let lines = read(line.repeat(count).as_bytes());
        assert_eq!((lines.listing.len(), lines.unparsable), (count, 0));
    }

    #[test]
    fn an_endless_line_is_skipped_and_counted_once() {
        let mut text = vec![b'x'; 5 * READ_BYTES];
        text.extend_from_slice(b"\n-rw-r--r--  1 2026/11/22 11:30:31 a\n-rw-r--r--  1 2026/11/22 11:30:31 ../b");
        let lines = read(&text);
        assert_eq!((lines.listing.len(), lines.unparsable), (1, 2));
    }

    #[test]
    fn only_the_last_messages_are_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = (0..10_000).map(|line| format!("line {line}\n\n")).collect::<String>();
        let kept = runtime.block_on(read_last_lines(&mut text.as_bytes()));
        assert_eq!(kept, "line 9995; line 9996; line 9997; line 9998; line 9999");
    }
}

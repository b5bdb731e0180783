//! Keeping `mb-indexer run` running beside the daemon.
//!
//! ```text
//! Starting ──listens──▶ Running ──ends, or is killed since it does not answer──▶ Backoff ──pause over──▶ Starting
//!    └──────────────ends, or cannot be started──────▲
//! Awaited ──start()──▶ Starting      any ──stop()──▶ Off
//! ```
//!
//! The child's standard input is a pipe that only the daemon holds: however the daemon dies, the child reads its end and
//! ends, too. Its standard error goes into the daemon's log, line by line.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_lite::FutureExt as _;
use mb_core::fault;
use mb_core::supervise::{RESTART_PAUSE, note_restart};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Level;

use super::IndexerLink;
use crate::upgrade::program::{SOCKET_VARIABLE, without_our_descriptors};

/// File name of the indexer's program.
const PROGRAM: &str = "mb-indexer";
/// Pause before the first restart; doubled with every further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause between two restarts: an indexer that fails again and again costs nothing, and is back soon.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// An indexer that lived this long was all right: the next restart is prompt again.
const PROVEN_LIFE: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL: together with [`KILL_GRACE`] less than the five seconds that the daemon has.
const STOP_GRACE: Duration = Duration::from_secs(4);
/// How often a starting indexer is tried for its socket.
const LISTEN_POLL: Duration = Duration::from_millis(50);
/// How often a running indexer is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long that may take; it takes less than a millisecond on a machine that is not busy.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// An indexer that gave no sign of life for this long is killed and started again: a guess, far more
/// than a machine in trouble takes to wake a process.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long a killed process may take to be gone. One that waits for a disk stays until the disk answers.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// What the indexer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexerState {
    /// The process was started and does not listen yet.
    Starting,
    /// It listens on its socket.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It ended, or could not be started.
    Backoff {
        /// When it is started again.
        until: Instant,
        /// What happened.
        reason: String,
    },
    /// Not started yet: the process before this one runs its own, or nobody does.
    Awaited,
    /// It was stopped.
    Off,
}

/// An indexer that is restarted whenever it ends. Dropping this stops it without waiting.
pub struct SupervisedIndexer {
    supervision: Supervision,
    link: IndexerLink,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl SupervisedIndexer {
    /// An indexer that is still to be started: `program run -supervised -config CONFIG_PATH`.
    pub fn new(program: PathBuf, config_path: &Path, state_dir: &Path) -> SupervisedIndexer {
        let supervision = Supervision {
            program,
            config_path: config_path.to_owned(),
            link: IndexerLink::new(state_dir),
            state: watch::Sender::new(IndexerState::Awaited),
        };
        let link = supervision.link.clone().supervised(supervision.state.subscribe());
        SupervisedIndexer { supervision, link, stop: None, task: None }
    }

    /// Starts it and keeps it running.
    pub fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        self.supervision.state.send_replace(IndexerState::Starting);
        self.stop = Some(stop);
        self.task = Some(tokio::spawn(self.supervision.clone().keep_running(stopped)));
    }

    /// A way to ask it for work, which waits for it while it starts.
    pub fn link(&self) -> IndexerLink {
        self.link.clone()
    }

    /// The state, to read or to wait for changes of.
    pub fn state(&self) -> watch::Receiver<IndexerState> {
        self.supervision.state.subscribe()
    }

    /// Ends the indexer: SIGTERM, and SIGKILL when it needs longer than four seconds.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            // The task has nothing to return; its panic was reported when it happened.
            let _ = task.await;
        }
    }
}

/// The indexer's program: the one beside our own, else the first in `PATH`.
pub fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

#[derive(Clone)]
struct Supervision {
    program: PathBuf,
    config_path: PathBuf,
    link: IndexerLink,
    state: watch::Sender<IndexerState>,
}

/// How a child's life ended.
enum End {
    Died(String),
    /// It was killed since it did not answer.
    Silent(String),
    Stopped,
}

impl Supervision {
    /// Runs until it is stopped. A panic ends the indexer, and the supervision is started again.
    async fn keep_running(self, mut stopped: oneshot::Receiver<()>) {
        while AssertUnwindSafe(self.run(&mut stopped)).catch_unwind().await.is_err() {
            note_restart("indexer");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn run(&self, stopped: &mut oneshot::Receiver<()>) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            fault::point("indexer");
            let born = Instant::now();
            let reason = match self.one_life(stopped).await {
                End::Stopped => break,
                End::Died(reason) => {
                    self.link.counts().ended.fetch_add(1, Ordering::Relaxed);
                    reason
                }
                End::Silent(reason) => {
                    self.link.counts().silent.fetch_add(1, Ordering::Relaxed);
                    reason
                }
            };
            if born.elapsed() >= PROVEN_LIFE {
                backoff = FIRST_BACKOFF;
            }
            tracing::error!("{reason}; it is started again in {} s", backoff.as_secs());
            let until = Instant::now() + backoff;
            self.state.send_replace(IndexerState::Backoff { until, reason });
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = &mut *stopped => break,
            }
            backoff = next_backoff(backoff);
        }
        self.state.send_replace(IndexerState::Off);
    }

    async fn one_life(&self, stopped: &mut oneshot::Receiver<()>) -> End {
        self.state.send_replace(IndexerState::Starting);
        let mut command = self.command();
        // The program's disk may not answer. A child that comes too late is killed when it is dropped.
        let spawning = tokio::task::spawn_blocking(move || command.spawn());
        let spawned = tokio::select! {
            spawned = spawning => spawned.unwrap_or_else(|aborted| Err(aborted.into())),
            _ = &mut *stopped => return End::Stopped,
        };
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return End::Died(self.cannot_start(&error)),
        };
        let pid = child.id().unwrap_or_default();
        // Held until the child is gone: the end of the pipe tells it that the daemon is.
        let _stdin = child.stdin.take();
        let log = child.stderr.take().map(|stderr| tokio::spawn(forward_lines(stderr)));
        let end = tokio::select! {
            ended = child.wait() => match ended {
                Ok(status) => End::Died(format!("the indexer (process {pid}) ended: {}", describe(status))),
                Err(error) => End::Died(format!("the indexer (process {pid}) cannot be waited for: {error}")),
            },
            reason = self.watch(pid) => {
                kill(&mut child, pid).await;
                End::Silent(reason)
            }
            _ = stopped => {
                stop(&mut child, pid).await;
                End::Stopped
            }
        };
        if let Some(log) = log {
            // What it wrote last often tells why it ended; a grandchild that keeps the pipe open must not hold us up.
            let _ = tokio::time::timeout(LISTEN_POLL, log).await;
        }
        end
    }

    fn command(&self) -> Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .arg("run")
            .arg("-supervised")
            .arg("-config")
            .arg(&self.config_path)
            .env_remove(SOCKET_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        without_our_descriptors(&mut command);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }

    fn cannot_start(&self, error: &std::io::Error) -> String {
        let program = self.program.display();
        if error.kind() == std::io::ErrorKind::NotFound {
            format!(
                "the indexer cannot be started: there is no {program} beside this program or in PATH; install it, or run \
                 the daemon with -monitor=false"
            )
        } else {
            format!("the indexer cannot be started: {program}: {error}")
        }
    }

    /// Says so when the child listens, and returns why it is to be killed when it answers no more.
    async fn watch(&self, pid: u32) -> String {
        while !self.link.is_up(pid).await {
            tokio::time::sleep(LISTEN_POLL).await;
        }
        tracing::info!("the indexer runs as process {pid}");
        self.state.send_replace(IndexerState::Running { pid });
        let mut answered = Instant::now();
        let silence_limit = fault::limit("indexer-silence", SILENCE_LIMIT);
        let ping_interval = PING_INTERVAL.min(silence_limit / 4);
        loop {
            tokio::time::sleep(ping_interval).await;
            match self.link.answers_within(PING_TIMEOUT.min(silence_limit / 4)).await {
                Ok(()) => answered = Instant::now(),
                Err(error) => {
                    let silence = answered.elapsed();
                    tracing::warn!(
                        "the indexer (process {pid}) gave no sign of life for {} s: {error}",
                        silence.as_secs()
                    );
                    if silence >= silence_limit {
                        return format!(
                            "the indexer (process {pid}) did not answer for {} s and is killed",
                            silence.as_secs()
                        );
                    }
                }
            }
        }
    }
}

/// The pause after a pause of `backoff`.
fn next_backoff(backoff: Duration) -> Duration {
    (backoff * 2).min(LONGEST_BACKOFF)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

async fn stop(child: &mut Child, pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself a moment ago, and is a zombie then: the id is still its own.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
        tracing::warn!("the indexer (process {pid}) did not end within {} s and is killed", STOP_GRACE.as_secs());
        kill(child, pid).await;
    }
}

/// Ends a child at once, also one that is stopped.
async fn kill(child: &mut Child, pid: u32) {
    match tokio::time::timeout(KILL_GRACE, child.kill()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("the indexer (process {pid}) cannot be killed: {error}"),
        Err(_) => tracing::error!("the indexer (process {pid}) was killed and is not gone: it may wait for a disk"),
    }
}

async fn forward_lines(stderr: ChildStderr) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        match level_and_text(String::from_utf8_lossy(&line).trim_end()) {
            (Level::ERROR, text) => tracing::error!("indexer: {text}"),
            (Level::WARN, text) => tracing::warn!("indexer: {text}"),
            (Level::INFO, text) => tracing::info!("indexer: {text}"),
            (_, text) => tracing::debug!("indexer: {text}"),
        }
        line.clear();
    }
}

/// Takes a line of the indexer's log apart: `2006-01-02T15:04:05.000000Z  INFO text`. Anything else, such as a panic, is
/// text at the level of information.
fn level_and_text(line: &str) -> (Level, &str) {
    let parts = line.split_once(' ').and_then(|(time, rest)| {
        let (level, text) = rest.trim_start().split_once(' ')?;
        let is_time = time.ends_with('Z') && time.starts_with(|c: char| c.is_ascii_digit());
        Some((level.parse().ok().filter(|_| is_time)?, text))
    });
    parts.unwrap_or((Level::INFO, line))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mb_core::link::socket_path;
    use rustix::process::test_kill_process;
    use tokio::net::UnixListener;

    use super::*;

    /// Longer than a restart takes, on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A program that does what `script` says, whatever its arguments are.
    fn program_of(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("mb-indexer");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn started(program: PathBuf, config_path: &Path, state_dir: &Path) -> SupervisedIndexer {
        let mut indexer = SupervisedIndexer::new(program, config_path, state_dir);
        indexer.start();
        indexer
    }

    async fn wait_for(
        indexer: &SupervisedIndexer,
        what: &str,
        condition: impl FnMut(&IndexerState) -> bool,
    ) -> IndexerState {
        let mut state = indexer.state();
        let reached = tokio::time::timeout(DEADLINE, state.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not {what} in time: {:?}", indexer.state().borrow())).unwrap().clone()
    }

    fn is_backoff_with(state: &IndexerState, text: &str) -> bool {
        matches!(state, IndexerState::Backoff { reason, .. } if reason.contains(text))
    }

    #[tokio::test]
    async fn a_missing_program_is_reported_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let indexer = started(folder.path().join("absent"), Path::new("c"), folder.path());
        wait_for(&indexer, "missing", |state| is_backoff_with(state, "-monitor=false")).await;
        indexer.stop().await;
    }

    #[tokio::test]
    async fn an_indexer_that_ends_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let lives = folder.path().join("lives");
        let program = program_of(folder.path(), &format!("echo \"$@\" >> {}; exit 3", lives.display()));
        let indexer = started(program, Path::new("a.conf"), folder.path());
        wait_for(&indexer, "ended", |state| is_backoff_with(state, "exit status 3")).await;
        wait_for(&indexer, "restarted", |state| *state == IndexerState::Starting).await;
        wait_for(&indexer, "ended again", |state| is_backoff_with(state, "exit status 3")).await;
        indexer.stop().await;
        let lives = std::fs::read_to_string(lives).unwrap();
        assert!(lives.starts_with("run -supervised -config a.conf\nrun -supervised"), "{lives}");
    }

    #[tokio::test]
    async fn a_listening_indexer_runs_until_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let socket = socket_path(folder.path());
        // Somebody else's socket, such as that of an indexer which is ending, is not its own.
        let _other = UnixListener::bind(&socket).unwrap();
        let ours = format!("rm -f {0}; exec socat UNIX-LISTEN:{0},fork PIPE", socket.display());
        let program = program_of(folder.path(), &ours);
        let indexer = started(program, Path::new("c"), folder.path());
        let state = wait_for(&indexer, "running", |state| matches!(state, IndexerState::Running { .. })).await;
        let IndexerState::Running { pid } = state else { unreachable!() };
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        test_kill_process(pid).unwrap();
        let state = indexer.state();
        indexer.stop().await;
        assert_eq!(*state.borrow(), IndexerState::Off);
        test_kill_process(pid).unwrap_err();
    }

    #[test]
    fn lines_of_the_indexers_log_keep_their_level() {
        let lines = [
            ("2026-11-22T21:03:08.112554Z  INFO indexer started", (Level::INFO, "indexer started")),
            ("2026-11-22T21:03:08.112554Z ERROR a  b", (Level::ERROR, "a  b")),
            ("thread 'main' panicked at", (Level::INFO, "thread 'main' panicked at")),
            ("Oops WARN z", (Level::INFO, "Oops WARN z")),
            ("", (Level::INFO, "")),
        ];
        for (line, expected) in lines {
            assert_eq!(level_and_text(line), expected);
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = std::iter::successors(Some(FIRST_BACKOFF), |&pause| Some(next_backoff(pause)))
            .take(8)
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
